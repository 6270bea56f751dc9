package harness

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Eventually waits for a condition, not for luck: it fails the test when the condition does not come true in time.
func Eventually(t testing.TB, within time.Duration, cond func() bool, say func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", within, say())
		}
		time.Sleep(20 * time.Millisecond) // the pace of asking; the deadline decides
	}
}

// FreeAddress is a port of 127.0.0.1 that is free now.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// KeyFile is a file with a privacy key for the test.
func KeyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "privacy.key")
	if err := os.WriteFile(path, []byte(strings.Repeat("5eed", 16)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A SnapshotLogger is a primary that can write the record of running transactions.
type SnapshotLogger interface {
	LogStandbySnapshot(ctx context.Context) error
}

// Busy does until the test ends what a busy shop's primary does by itself: it writes records of running transactions,
// which a new slot on the standby waits for.
func Busy(t testing.TB, primary SnapshotLogger) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = primary.LogStandbySnapshot(ctx) // the server may be stopping
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}
