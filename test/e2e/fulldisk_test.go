//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/test/harness"
)

// smallDisk is a file system of its own, of so many MiB. Only root can mount one.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		say := "SKIPPED: a small file system can only be mounted by root: WHAT A FULL DISK DOES WAS NOT CHECKED"
		if os.Getenv("CI") != "" {
			t.Fatal(say)
		}
		t.Skip(say)
	}
	dir := pgtest.Dir(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=755", mib)); err != nil {
		t.Skipf("SKIPPED: no file system can be mounted here (%v): WHAT A FULL DISK DOES WAS NOT CHECKED", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// TestFullDisk: standalone on a disk that is too small, at once or after a while, ends with exit code 1, names the
// directory and what to do, and leaves no process behind.
func TestFullDisk(t *testing.T) {
	pgtest.Installation(t)
	for _, mib := range []int{16, 200} {
		t.Run(fmt.Sprintf("%d MiB", mib), func(t *testing.T) {
			dir := filepath.Join(smallDisk(t, mib), "data")
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(harness.Root(), "bin", "standalone"), "run", "--http-address", "127.0.0.1:0", "--data-dir", dir,
				"--embedded-kafka-port", "0", "--embedded-registry-port", "0", "--embedded-primary-port", "0", "--embedded-standby-port", "0",
				"--embedded-sales-port", "0", "--demo-rate", "200")
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			cmd.WaitDelay = 30 * time.Second
			begin := time.Now()
			out, _ := cmd.CombinedOutput()
			t.Logf("ended after %v", time.Since(begin).Round(time.Millisecond))
			if ctx.Err() != nil {
				t.Errorf("it goes on as if nothing were wrong")
			}
			r := ran{command: fmt.Sprintf("standalone on %d MiB", mib), code: cmd.ProcessState.ExitCode(), out: string(out)}
			r.expect(t, failed, dir)
			if text := strings.ToLower(r.out); !strings.Contains(text, "disk") || !strings.Contains(text, "free") {
				t.Errorf("it is not said that the disk is full and what to do:\n%s", r.out)
			}
			if left := processesUsing(dir); len(left) > 0 {
				t.Errorf("processes are left: %v", left)
			}
		})
	}
}
