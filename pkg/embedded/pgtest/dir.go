package pgtest

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

// Dir is an empty directory for a server's data, gone after the test. Unlike t.TempDir it is open to the user that
// PostgreSQL runs as when the tests run as root, and it lies in memory where there is enough: a cluster is a thousand
// small files, which some file systems take a second to create.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := newDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

func newDir() (string, error) {
	root, err := processDir()
	if err != nil {
		return "", err
	}
	return openDir(root.path)
}

// openDir makes a directory that every user may enter.
func openDir(parent string) (string, error) {
	dir, err := os.MkdirTemp(parent, "millrace-pgtest-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// cleanedDir is removed when this process is gone.
type cleanedDir struct {
	path string
	// alive is the end of a pipe that only this process holds open. It stays reachable: a collected file is a closed one.
	alive *os.File
}

// processDir holds everything that this test process puts on disk.
var processDir = sync.OnceValues(func() (cleanedDir, error) {
	path, err := openDir(tempRoot())
	if err != nil {
		return cleanedDir{}, err
	}
	alive, err := cleanAfterProcess(path)
	return cleanedDir{path: path, alive: alive}, err
})

const enoughMemory = 2 << 30

// tempRoot is the file system in memory if there is one with room, else the usual directory.
func tempRoot() string {
	const shm = "/dev/shm"
	var st syscall.Statfs_t
	if err := syscall.Statfs(shm, &st); err == nil && st.Bavail*uint64(st.Bsize) >= enoughMemory {
		return shm
	}
	return os.TempDir()
}

// cleanAfterProcess removes the directory when this process is gone, however it goes: a library has no last moment in a
// test process, and one that is killed or runs into its time limit runs no cleanup at all. A shell waits for the end of
// a pipe that only we hold open. The servers end by themselves: on Linux with us, elsewhere when they miss their files.
func cleanAfterProcess(dir string) (*os.File, error) {
	const script = `read _; i=0; until rm -rf "$1" 2>/dev/null || [ $i -ge 50 ]; do sleep 0.2; i=$((i+1)); done`
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close() // the shell has its own
	cmd := exec.Command("/bin/sh", "-c", script, "sh", dir)
	cmd.Dir = "/"
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a ^C is for the tests; this must outlive them
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the cleaner of %s: %w", dir, err)
	}
	return w, nil
}
