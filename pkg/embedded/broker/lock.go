package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// LockedError says that another process has the directory open.
type LockedError struct {
	// Dir is the data directory.
	Dir string
	// PID is the process that holds it, 0 if it did not say.
	PID int
}

// Error names the holder and what to do about it.
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("broker directory %s is in use by another process; stop it, or choose another directory", e.Dir)
	}
	return fmt.Sprintf("broker directory %s is in use by process %d; stop it (kill %d), or choose another directory", e.Dir, e.PID, e.PID)
}

// dirLock is an flock on dir/LOCK: the kernel releases it with the process,
// however that ends.
type dirLock struct{ f *os.File }

func lockDir(dir string) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create lock file: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(holder[:n])))
		return nil, errors.Join(&LockedError{Dir: dir, PID: pid}, f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	l := &dirLock{f: f}
	if err := l.sign(); err != nil {
		return nil, errors.Join(fmt.Errorf("write the process id to %s: %w", f.Name(), err), f.Close())
	}
	return l, nil
}

// sign writes the holder's process id, for the message to whoever comes second.
func (l *dirLock) sign() error {
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// release closes the file and with it the lock. The file stays: removing it
// would let two processes lock two files of one name.
func (l *dirLock) release() error { return l.f.Close() }
