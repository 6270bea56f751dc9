package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	rolePrimary = "primary"
	roleStandby = "standby"
	// maxLogSize: a longer log is put aside at the next start.
	maxLogSize = 16 << 20
)

// directory is the locked home of one server.
type directory struct {
	path    string
	opts    Options // with defaults filled in
	account account
	lock    *fileLock
}

func (d *directory) data() string    { return filepath.Join(d.path, "data") }
func (d *directory) logFile() string { return filepath.Join(d.path, "postgres.log") }

// openDirectory locks the directory and brings it into a state in which a server can be made or started: nothing
// half-made, nobody in it.
func openDirectory(ctx context.Context, o Options, role string) (*directory, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	d := &directory{path: o.Dir, opts: o}
	if err := makeOpenDir(d.path); err != nil {
		return nil, fmt.Errorf("%s: make its directory: %w%s", o.Name, err, hint(err.Error()))
	}
	lock, err := tryLock(filepath.Join(d.path, "lock"))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("%s: %w", o.Name, &InUseError{Dir: d.path, Process: signedBy(filepath.Join(d.path, "lock"))})
	}
	if err != nil {
		return nil, fmt.Errorf("%s: lock directory %s: %w%s", o.Name, d.path, err, hint(err.Error()))
	}
	d.lock = lock
	if err := d.prepare(ctx, role); err != nil {
		lock.release()
		return nil, fmt.Errorf("%s: directory %s: %w%s", o.Name, d.path, err, hint(err.Error()))
	}
	return d, nil
}

func (d *directory) prepare(ctx context.Context, role string) error {
	if err := d.lock.sign(); err != nil {
		return err
	}
	if err := d.claim(role); err != nil {
		return err
	}
	var err error
	if d.account, err = accountFor(d.data()); err != nil {
		return err
	}
	if err := errors.Join(d.account.reaches(d.path), d.account.reaches(d.opts.Installation.Dir)); err != nil {
		return err
	}
	if d.hasData() {
		if err := endOrphans(ctx, d.data(), d.opts.Logger); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(d.data() + ".new"); err != nil {
		return err
	}
	if info, err := os.Stat(d.logFile()); err == nil && info.Size() > maxLogSize {
		return os.Rename(d.logFile(), d.logFile()+".1")
	}
	return nil
}

// claim writes the role of a new directory and checks that of an existing one. A cluster without our role file is
// somebody else's: it is neither started nor, as a standby, replaced.
func (d *directory) claim(role string) error {
	path := filepath.Join(d.path, "role")
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if is := strings.TrimSpace(string(b)); is == role {
		return nil
	} else if is != "" {
		return fmt.Errorf("it holds a %s and a %s was asked for: choose another directory", is, role)
	}
	if d.hasData() {
		return errors.New("it holds a cluster that Millrace did not make: choose another directory")
	}
	return os.WriteFile(path, []byte(role+"\n"), 0o644)
}

func (d *directory) hasData() bool {
	_, err := os.Stat(d.data())
	return err == nil
}

// create makes the cluster: build fills an empty directory, which gets its name only when it is whole and on disk.
func (d *directory) create(build func(dir string) error) error {
	tmp := d.data() + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	if err := d.account.own(tmp); err != nil {
		return err
	}
	if err := build(tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if err := d.account.own(tmp); err != nil {
		return err
	}
	if !d.opts.NoFsync {
		syscall.Sync()
	}
	if err := os.Rename(tmp, d.data()); err != nil {
		return err
	}
	if d.opts.NoFsync {
		return nil
	}
	return syncDir(d.path)
}

// makeOpenDir makes a directory that other users may enter, whatever the umask; an existing one keeps its mode.
func makeOpenDir(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// initdb makes an empty cluster in dir. Its own fsync is left out: create syncs.
func (d *directory) initdb(ctx context.Context, dir string) error {
	d.opts.Logger.Info("making a new cluster", "server", d.opts.Name, "dir", d.data())
	d.opts.Progress.report("make an empty cluster", 0, 0)
	var out bytes.Buffer
	cmd := d.account.command(dir, d.opts.Installation.program("initdb"), "-D", dir, "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = immediateTimeout
	c, err := spawn(cmd)
	if err != nil {
		return fmt.Errorf("start initdb: %w", err)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		// The whole group: a server process that initdb runs must not go on writing.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended meanwhile
		<-c.done
		return ctx.Err()
	}
	if c.err != nil {
		return fmt.Errorf("initdb: %w: %s", c.err, lastLines(out.String(), 5))
	}
	d.opts.Progress.report("make an empty cluster", 1, 1)
	return nil
}

// checkVersion refuses a cluster of another major version, which PostgreSQL cannot open.
func (d *directory) checkVersion() error {
	b, err := os.ReadFile(filepath.Join(d.data(), "PG_VERSION"))
	if err != nil {
		return fmt.Errorf("the cluster in %s is damaged: %w", d.data(), err)
	}
	if is := strings.TrimSpace(string(b)); is != d.opts.Installation.Major() {
		return fmt.Errorf("the cluster in %s is of PostgreSQL %s and the installed one is %s: name a version %s.x, or choose another directory",
			d.data(), is, d.opts.Installation.Version, is)
	}
	return nil
}

// copyTree copies the prepared cluster from into the empty directory to.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || rel == "." {
			return err
		}
		target := filepath.Join(to, rel)
		if e.IsDir() {
			return os.Mkdir(target, 0o700)
		}
		return copyFile(path, target)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
