package realparts

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestCachedIsWholeForEverybody(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "cache")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := cachedIn(t.Context(), cache, "part-1", func(_ context.Context, dir string) error {
				return errors.Join(os.WriteFile(filepath.Join(dir, "a"), []byte("a"), 0o600), os.WriteFile(filepath.Join(dir, "b"), []byte("b"), 0o600))
			})
			if err != nil {
				t.Error(err)
				return
			}
			for _, name := range []string{"a", "b"} {
				info, err := os.Stat(filepath.Join(dir, name))
				if err != nil {
					t.Error(err)
				} else if info.Mode().Perm() != 0o644 {
					t.Errorf("%s has mode %v, want world-readable", name, info.Mode())
				}
			}
		})
	}
	wg.Wait()
	left, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 {
		t.Errorf("the cache holds %v, want part-1 alone", left)
	}
}

func TestCachedKeepsNothingOfAFailure(t *testing.T) {
	cache := t.TempDir()
	broken := errors.New("connection lost")
	_, err := cachedIn(t.Context(), cache, "part-1", func(_ context.Context, dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o600), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the cause", err)
	}
	left, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("the cache holds %v after a failure, want nothing", left)
	}
}

func TestUnpackStaysInside(t *testing.T) {
	for _, name := range []string{"../outside", "/outside", "a/../../outside"} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			archive, dir := filepath.Join(parent, "x.tar.gz"), filepath.Join(parent, "inside")
			writeArchive(t, archive, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unpack(archive, dir); err == nil {
				t.Errorf("an archive with the file %s was unpacked", name)
			}
			if _, err := os.Stat(filepath.Join(parent, "outside")); err == nil {
				t.Error("a file was written outside the directory")
			}
		})
	}
}

func TestMissingProgramsAreNamed(t *testing.T) {
	err := need("the part", "take it from the shelf", "go", "no-such-program")
	var missing *MissingError
	if !errors.As(err, &missing) {
		t.Fatalf("got %v, want a MissingError", err)
	}
	want := "the part is missing: not found in PATH: no-such-program; to install: take it from the shelf"
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func writeArchive(t *testing.T, archive, name string) {
	t.Helper()
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	w := tar.NewWriter(z)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1, Mode: 0o600})
	_, werr := w.Write([]byte("x"))
	if err := errors.Join(err, werr, w.Close(), z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}
