//go:build !linux

package pgserver

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// clusterProcesses finds the postmaster that works in a cluster: the process that the pid file names, if it is a
// PostgreSQL on that directory. The number alone could be a stranger's by now.
func clusterProcesses(data string) ([]process, error) {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return nil, nil // half-written
	}
	out, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return nil, nil // no such process: ps says so by its exit status
	}
	command := string(out)
	if !strings.Contains(command, "postgres") || !strings.Contains(command, data) {
		return nil, nil
	}
	return []process{{pid: pid, command: command}}, nil
}
