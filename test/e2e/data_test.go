//go:build e2e

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace-io/millrace/test/harness"
)

// data finds a file of the real input, which is not part of the repository because of its licences. It is looked for
// in $MILLRACE_TEST_DATA and in ../shared/data beside the repository. Elsewhere the test is skipped, except in CI.
func data(t testing.TB, name string) string {
	t.Helper()
	places := []string{os.Getenv("MILLRACE_TEST_DATA"), filepath.Join(harness.Root(), "..", "shared", "data")}
	for _, p := range places {
		if p == "" {
			continue
		}
		path := filepath.Join(p, name)
		if _, err := os.Stat(path); err == nil {
			return path
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	say := "SKIPPED: real input " + name + " is not in $MILLRACE_TEST_DATA nor in ../shared/data: NOTHING WAS CHECKED"
	if os.Getenv("CI") != "" {
		t.Fatal(say)
	}
	t.Skip(say)
	return ""
}
