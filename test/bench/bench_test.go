//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/test/harness"
)

// TestMain is also the entry of the comparisons' processes.
func TestMain(m *testing.M) {
	if task := os.Getenv(sideVariable); task != "" {
		if err := runSide(task); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestBench runs all measurements, one after the other because they share the machine, and prints one table.
func TestBench(t *testing.T) {
	build(t)
	r := &report{begin: time.Now()}
	defer func() { fmt.Print(r.table()) }()
	t.Run("standalone", func(t *testing.T) { benchStandalone(t, r) })
	t.Run("pipeline", func(t *testing.T) { benchPipeline(t, r) })
}

// build makes the programs that are measured; Go knows what is up to date.
func build(t *testing.T) {
	t.Helper()
	if os.Getenv(harness.BinVariable) != "" {
		return
	}
	cmd := exec.CommandContext(t.Context(), "make", "--no-print-directory", "-C", harness.Root(), "build")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
}

// size takes less in the short form.
func size(full, short int) int {
	if testing.Short() {
		return short
	}
	return full
}

// span takes less in the short form.
func span(full, short time.Duration) time.Duration {
	if testing.Short() {
		return short
	}
	return full
}

// missing skips a measurement whose program does not exist.
func missing(t *testing.T, program string) {
	t.Helper()
	dir := os.Getenv(harness.BinVariable)
	if dir == "" {
		dir = filepath.Join(harness.Root(), "bin")
	}
	if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
		t.Skipf("SKIPPED: %s is not built: NOTHING WAS MEASURED", program)
	}
}

func env(pairs ...string) []string {
	if len(pairs)%2 != 0 {
		panic("pairs: " + strings.Join(pairs, " "))
	}
	var out []string
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, "MILLRACE_"+pairs[i]+"="+pairs[i+1])
	}
	return out
}
