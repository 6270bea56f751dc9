// Package pgtest gives tests real PostgreSQL servers.
//
// [Database] is the cheap one: a fresh, empty database on a server that all tests of the process share. [Primary] is a
// server of the test's own, for tests that stop or kill it or change its settings; [Pair] is one with a standby. All are
// gone after the test; the shared server ends with the process.
//
// The flag -postgres of a test binary takes another version of PostgreSQL: go test ./services/cdc -postgres 16.15.0.
//
// Servers run without fsync and with wal_level=logical. Where the binaries cannot be had, tests are skipped, but fail
// when the CI variable is set, so that no pipeline passes by skipping.
package pgtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
)

// startTimeout bounds everything that is done to get a server; fetchTimeout the once-only download.
const (
	startTimeout = time.Minute
	fetchTimeout = 5 * time.Minute
)

// version is which PostgreSQL the tests of this process run on.
var version = flag.String("postgres", pgserver.DefaultVersion, "version of PostgreSQL that the tests run on")

// installed is the installation and the prepared cluster that all servers of this test process are copied from.
type installed struct {
	pgserver.Installation
	template string
}

// install runs once in a test process: the tests of a process share what it finds, and nothing changes it.
var install = sync.OnceValues(func() (installed, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	cache, err := pgserver.DefaultCacheDir()
	if err != nil {
		return installed{}, err
	}
	inst, err := pgserver.Install(ctx, pgserver.InstallOptions{Version: *version, CacheDir: cache})
	if err != nil {
		return installed{}, err
	}
	template, err := prepareTemplate(ctx, inst, cache)
	if err != nil && ctx.Err() != nil {
		return installed{}, err
	}
	// Without a template, in a cache that this user may only read, each server runs initdb: slower, not worse.
	return installed{Installation: inst, template: template}, nil
})

// prepareTemplate makes the empty cluster that servers are copied from, once for a version and a user. Processes that
// want it at the same time wait for the first.
func prepareTemplate(ctx context.Context, inst pgserver.Installation, cache string) (string, error) {
	dir := filepath.Join(cache, "empty-cluster-"+inst.Version+"-"+strconv.Itoa(os.Geteuid()))
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		return filepath.Join(dir, "data"), nil
	}
	for {
		data, err := pgserver.MakeTemplate(ctx, pgserver.Options{Installation: inst, Dir: dir, Name: "prepared cluster"})
		var inUse *pgserver.InUseError
		if !errors.As(err, &inUse) {
			return data, err
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Installation is the PostgreSQL that this package runs, for tests that use pgserver themselves.
func Installation(t testing.TB) pgserver.Installation {
	t.Helper()
	return get(t).Installation
}

// Template is the prepared cluster that this package starts from, for pgserver.Options; empty when there is none.
func Template(t testing.TB) string {
	t.Helper()
	return get(t).template
}

func get(t testing.TB) installed {
	t.Helper()
	in, err := install()
	if err == nil {
		return in
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("no PostgreSQL for tests: %v", err)
	}
	t.Skipf("SKIPPED: no PostgreSQL for tests: %v", err)
	return in
}

func serverOptions(in installed, dir, name string, settings []string) (pgserver.Options, error) {
	o := pgserver.Options{
		Installation: in.Installation,
		Dir:          dir,
		Name:         name,
		NoFsync:      true,
		Template:     in.template,
		Settings: map[string]string{
			"wal_level":      "logical",
			"shared_buffers": "16MB",
			// Tests have no rows to protect and failures to explain.
			"log_min_error_statement": "error",
			"log_error_verbosity":     "default",
		},
	}
	if len(settings)%2 != 0 {
		return o, fmt.Errorf("settings come in pairs of a name and a value: %q", settings)
	}
	for i := 0; i < len(settings); i += 2 {
		o.Settings[settings[i]] = settings[i+1]
	}
	return o, nil
}
