package standalone

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ours are the entries of a data directory that this program makes.
var ours = []string{"kafka", "registry", "primary", "standby", "sales", "privacy.key"}

// reset removes what this program put into dir, and dir itself if nothing else is in it. A directory without any of
// our entries is left alone: it is not ours, whatever the flag says.
func reset(out io.Writer, dir string) error {
	found := false
	for _, name := range ours {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			found = true
		}
	}
	if !found {
		fmt.Fprintf(out, "%s holds nothing of ours: nothing was removed\n", dir)
		return nil
	}
	if pid, err := holder(dir); err != nil {
		return err
	} else if pid != "" {
		return fmt.Errorf("process %s works on %s: stop it first", pid, dir)
	}
	var errs []error
	for _, name := range ours {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the data: %w", err)
	}
	_ = os.Remove(dir) // only when it is empty
	fmt.Fprintf(out, "%s: everything of Millrace was removed\n", dir)
	return nil
}

// holder is the process that works on the directory, or "".
func holder(dir string) (string, error) {
	f, err := os.Open(filepath.Join(dir, "kafka", "LOCK"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look whether %s is in use: %w", dir, err)
	}
	defer f.Close() // gives the lock back
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		pid, err := io.ReadAll(io.LimitReader(f, 32))
		if err != nil || len(pid) == 0 {
			return "unknown", nil
		}
		return strings.TrimSpace(string(pid)), nil
	}
	if err != nil {
		return "", fmt.Errorf("look whether %s is in use: %w", dir, err)
	}
	return "", nil
}
