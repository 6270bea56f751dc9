package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// clusterName marks our servers: it stands in the command line of the postmaster and in the titles of its children.
const clusterName = "millrace-embedded"

// process is a running PostgreSQL process that works in a cluster's directory.
type process struct {
	pid     int
	command string
}

func (p process) ours() bool { return strings.Contains(p.command, clusterName) }

// endOrphans ends what an earlier, killed run left running on the cluster, and removes its pid file. The caller holds
// the directory's lock, so no living Millrace process wants them. A server that was not started by us is left alone.
func endOrphans(ctx context.Context, data string, log *slog.Logger) error {
	signals := []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGINT, fastTimeout / 2}, {syscall.SIGQUIT, immediateTimeout}, {syscall.SIGKILL, immediateTimeout}}
	for _, step := range signals {
		left, err := signalOrphans(data, step.sig, log)
		if err != nil {
			return err
		}
		if left == 0 {
			return removeStalePid(data)
		}
		gone, err := waitGone(ctx, data, step.wait)
		if err != nil {
			return err
		}
		if gone {
			return removeStalePid(data)
		}
	}
	return fmt.Errorf("a PostgreSQL of an earlier run still works in %s and does not end: end it by hand", data)
}

// removeStalePid: no process works in the cluster, so the file is stale. PostgreSQL would remove it itself unless its
// number has meanwhile been given to another process, which it would then take for a server.
func removeStalePid(data string) error {
	err := os.Remove(filepath.Join(data, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// signalOrphans sends the signal to every process of the cluster and says how many there were.
func signalOrphans(data string, sig syscall.Signal, log *slog.Logger) (int, error) {
	processes, err := clusterProcesses(data)
	if err != nil {
		return 0, err
	}
	for _, p := range processes {
		if !p.ours() {
			return 0, &InUseError{Dir: data, Process: fmt.Sprintf("%d (a PostgreSQL that was not started by Millrace)", p.pid)}
		}
	}
	for _, p := range processes {
		log.Warn("ending a PostgreSQL process of an earlier run", "pid", p.pid, "signal", sig.String(), "dir", data)
		if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, fmt.Errorf("end process %d, which an earlier run left in %s: %w", p.pid, data, err)
		}
	}
	return len(processes), nil
}

func waitGone(ctx context.Context, data string, atMost time.Duration) (bool, error) {
	for deadline := time.Now().Add(atMost); time.Now().Before(deadline); {
		left, err := clusterProcesses(data)
		if err != nil || len(left) == 0 {
			return err == nil, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false, nil
}
