package pgserver

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// clusterProcesses finds the PostgreSQL processes that work in a cluster: each of them, the postmaster's children too,
// has the data directory as its working directory. A pid file alone could name a stranger who got the number later.
func clusterProcesses(data string) ([]process, error) {
	real, err := filepath.EvalSymlinks(data)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for processes of an earlier run: %w", err)
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		// A process that has ended meanwhile, and one of another user, gives an error: it is none of ours.
		if cwd, err := os.Readlink(filepath.Join(dir, "cwd")); err != nil || cwd != real {
			continue
		}
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != "postgres" {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		found = append(found, process{pid: pid, command: string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))})
	}
	return found, nil
}
