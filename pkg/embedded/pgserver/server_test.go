package pgserver_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

func options(t testing.TB, dir string) pgserver.Options {
	t.Helper()
	return pgserver.Options{
		Installation: pgtest.Installation(t), Dir: dir, Name: "server under test", NoFsync: true, Template: pgtest.Template(t),
		Settings: map[string]string{"wal_level": "logical", "shared_buffers": "16MB"},
	}
}

func open(t testing.TB, o pgserver.Options) *pgserver.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := pgserver.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

func exec(t testing.TB, s *pgserver.Server, sql string) {
	t.Helper()
	conn := pgtest.Connect(t, s.DSN("postgres", "postgres"))
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func query(t testing.TB, s *pgserver.Server, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.DSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var value string
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func stop(t testing.TB, s *pgserver.Server) {
	t.Helper()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Err(); err != nil {
		t.Errorf("after Stop, Err is %v", err)
	}
}

func TestColdStartAndRestartKeepsData(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	o.NoFsync, o.Template = false, "" // the embedded default
	begin := time.Now()
	s := open(t, o)
	t.Logf("cold start with initdb: %v", time.Since(begin))
	exec(t, s, "CREATE TABLE t AS SELECT 'kept' AS v")
	for setting, want := range map[string]string{
		"fsync": "on", "server_encoding": "UTF8", "listen_addresses": "127.0.0.1", "shared_buffers": "16MB", "TimeZone": "UTC",
	} {
		if got := query(t, s, "SHOW "+setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
	begin = time.Now()
	stop(t, s)
	t.Logf("stop: %v", time.Since(begin))
	stop(t, s) // a second time does nothing
	begin = time.Now()
	s = open(t, o)
	t.Logf("restart: %v", time.Since(begin))
	if got := query(t, s, "SELECT v FROM t"); got != "kept" {
		t.Errorf("after a restart the row is %q", got)
	}
}

func TestUnexpectedDeathIsToldAndRecovered(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	s := open(t, o)
	exec(t, s, "CREATE TABLE t AS SELECT 'kept' AS v")
	if err := s.Err(); err != nil {
		t.Fatalf("while it runs, Err is %v", err)
	}
	if err := syscall.Kill(s.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("Done stays open after the server's death")
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "unexpectedly") {
		t.Errorf("Err is %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("Stop of a dead server: %v", err)
	}
	begin := time.Now()
	s = open(t, o) // at once: its children may still be ending, its pid file is there
	t.Logf("start after kill -9 of postgres: %v", time.Since(begin))
	if got := query(t, s, "SELECT v FROM t"); got != "kept" {
		t.Errorf("after kill -9 the row is %q", got)
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := options(t, pgtest.Dir(t))
	o.Port = l.Addr().(*net.TCPAddr).Port
	_, err = pgserver.Open(t.Context(), o)
	var taken *pgserver.PortTakenError
	if !errors.As(err, &taken) || taken.Port != o.Port || taken.Name != o.Name {
		t.Fatalf("got %v, want a PortTakenError of port %d", err, o.Port)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := open(t, o); s.Port() != o.Port {
		t.Errorf("it listens on %d, want %d", s.Port(), o.Port)
	}
}

func TestHalfMadeClusterIsMadeAnew(t *testing.T) {
	dir := pgtest.Dir(t)
	// What a kill -9 in the middle of initdb leaves: the role, and a directory that never got its name.
	if err := os.WriteFile(filepath.Join(dir, "role"), []byte("primary\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "data.new", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data.new", "PG_VERSION"), []byte("18\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, options(t, dir))
	if _, err := os.Stat(filepath.Join(dir, "data.new")); err == nil {
		t.Error("the half-made cluster is still there")
	}
}

func TestDirectoryInUse(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	open(t, o)
	_, err := pgserver.Open(t.Context(), o)
	var inUse *pgserver.InUseError
	if !errors.As(err, &inUse) || inUse.Process != strconv.Itoa(os.Getpid()) {
		t.Errorf("got %v, want an InUseError of process %d", err, os.Getpid())
	}
}

func TestForeignClusterIsLeftAlone(t *testing.T) {
	dir := pgtest.Dir(t)
	precious := filepath.Join(dir, "data", "precious")
	if err := os.MkdirAll(precious, 0o700); err != nil {
		t.Fatal(err)
	}
	o := options(t, dir)
	if _, err := pgserver.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "did not make") {
		t.Errorf("Open: got %v", err)
	}
	primary := pgtest.Primary(t)
	_, err := pgserver.OpenStandby(t.Context(), o, pgserver.StandbyOptions{Primary: primary.Server, Slot: "s"})
	if err == nil || !strings.Contains(err.Error(), "did not make") {
		t.Errorf("OpenStandby: got %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error("the foreign directory was touched")
	}
	o.Dir = primary.Dir()
	primary.Kill()
	other := pgtest.Primary(t)
	_, err = pgserver.OpenStandby(t.Context(), o, pgserver.StandbyOptions{Primary: other.Server, Slot: "s"})
	if err == nil || !strings.Contains(err.Error(), "holds a primary") {
		t.Errorf("a standby over a primary: got %v", err)
	}
	primary.Start(t)
}

func TestFailedStartCarriesTheLog(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	o.Settings["shared_buffers"] = "much"
	_, err := pgserver.Open(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "shared_buffers"`) {
		t.Errorf("got %v, want what postgres said", err)
	}
	o.Settings["shared_buffers"] = "16MB"
	open(t, o)
}

func TestOtherMajorVersionIsRefused(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	stop(t, open(t, o))
	o.Installation.Version = "17.11.0"
	if _, err := pgserver.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "is of PostgreSQL 18") {
		t.Errorf("got %v", err)
	}
}

func TestCancelledStartLeavesNothingRunning(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	o.Template = ""
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(string, int64, int64) { cancel() } // at the beginning of initdb
	if _, err := pgserver.Open(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the context's error", err)
	}
	o.Progress = nil
	open(t, o)
}

func TestUnreachableDirectorySaysWhatToDo(t *testing.T) {
	closed := filepath.Join(pgtest.Dir(t), "closed")
	want := "outside it" // root may enter, the user that PostgreSQL runs as may not
	mode := os.FileMode(0o700)
	if os.Geteuid() != 0 {
		want, mode = "choose another directory", 0o500
	}
	if err := os.Mkdir(closed, mode); err != nil {
		t.Fatal(err)
	}
	_, err := pgserver.Open(t.Context(), options(t, filepath.Join(closed, "db")))
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), closed) {
		t.Errorf("got %v, want %q and the directory's name", err, want)
	}
}

func TestDSNEscapes(t *testing.T) {
	s := pgtest.Primary(t)
	want := "postgres://a%40b@127.0.0.1:" + strconv.Itoa(s.Port()) + "/x%20y?sslmode=disable"
	if got := s.DSN("a@b", "x y"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// warnings is a log handler that keeps warnings.
type warnings struct {
	slog.Handler
	texts []string
}

func (w *warnings) Enabled(context.Context, slog.Level) bool { return true }

func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		w.texts = append(w.texts, r.Message)
	}
	return nil
}
