package pgserver

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// untar unpacks into dir, which exists; nothing can be written outside it. Modes are those of the archive, whatever the
// umask: another user may have to run the programs.
func untar(t *tar.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := untarEntry(root, h, t); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

func untarEntry(root *os.Root, h *tar.Header, content io.Reader) error {
	name := strings.TrimSuffix(h.Name, "/")
	if parent := path.Dir(name); parent != "." {
		if err := makeParents(root, parent); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		mode := h.FileInfo().Mode().Perm() | 0o700
		return errors.Join(root.MkdirAll(name, mode), root.Chmod(name, mode))
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, h.FileInfo().Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Chmod(h.FileInfo().Mode().Perm()), f.Close())
	default:
		return fmt.Errorf("unexpected kind of entry %q", h.Typeflag)
	}
}

// makeParents makes the directories above an entry that the archive itself does not list first.
func makeParents(root *os.Root, dir string) error {
	if _, err := root.Stat(dir); err == nil {
		return nil
	}
	return errors.Join(root.MkdirAll(dir, 0o755), root.Chmod(dir, 0o755))
}
