package pgserver_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

func openStandby(t testing.TB, o pgserver.Options, primary *pgserver.Server) *pgserver.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := pgserver.OpenStandby(ctx, o, pgserver.StandbyOptions{Primary: primary, Slot: "follower"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// reaches waits until the query on the standby gives the value.
func reaches(t testing.TB, s *pgserver.Server, sql, want string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = query(t, s, sql); got == want {
			return
		}
	}
	t.Fatalf("%s stays %s, want %s", sql, got, want)
}

const countRows = "SELECT count(*)::text FROM t"

func TestStandbyFollowsAndSurvivesRestarts(t *testing.T) {
	primary := pgtest.Primary(t)
	primary.Exec(t, "CREATE TABLE t AS SELECT 1 AS id")
	o := options(t, pgtest.Dir(t))
	var last int64
	o.Progress = func(_ string, done, total int64) {
		if done < last || done > total {
			t.Errorf("progress went from %d to %d of %d", last, done, total)
		}
		last = done
	}
	begin := time.Now()
	standby := openStandby(t, o, primary.Server)
	t.Logf("new standby: %v, copied %d MB", time.Since(begin), last>>20)
	if last < 10<<20 {
		t.Errorf("progress ended at %d bytes", last)
	}
	o.Progress = nil
	reaches(t, standby, countRows, "1")
	for setting, want := range map[string]string{"hot_standby_feedback": "on", "wal_level": "logical",
		"wal_receiver_status_interval": "1s", "wal_receiver_timeout": "5s", "transaction_read_only": "on"} {
		if got := query(t, standby, "SHOW "+setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}

	stop(t, standby)
	primary.Exec(t, "INSERT INTO t VALUES (2)")
	begin = time.Now()
	standby = openStandby(t, o, primary.Server)
	t.Logf("standby again: %v", time.Since(begin))
	reaches(t, standby, countRows, "2")

	standby.Kill()
	primary.Exec(t, "INSERT INTO t VALUES (3)")
	standby = openStandby(t, o, primary.Server)
	reaches(t, standby, countRows, "3")

	primary.Kill()
	primary.Start(t) // on the same port: the standby finds it by itself
	primary.Exec(t, "INSERT INTO t VALUES (4)")
	begin = time.Now()
	reaches(t, standby, countRows, "4")
	t.Logf("standby caught up %v after its primary came back", time.Since(begin))
}

func TestStandbyTakesTheLimitsOfItsPrimary(t *testing.T) {
	primary := pgtest.Primary(t, "max_connections", "123", "max_wal_senders", "17")
	standby := openStandby(t, options(t, pgtest.Dir(t)), primary.Server)
	if got := query(t, standby, "SHOW max_connections"); got != "123" {
		t.Errorf("max_connections is %s", got)
	}
}

func TestStandbyNeedsALogicalPrimary(t *testing.T) {
	primary := pgtest.Primary(t, "wal_level", "replica")
	_, err := pgserver.OpenStandby(t.Context(), options(t, pgtest.Dir(t)), pgserver.StandbyOptions{Primary: primary.Server, Slot: "x"})
	if err == nil || !strings.Contains(err.Error(), "wal_level is replica and must be logical") {
		t.Errorf("got %v", err)
	}
	for _, slot := range []string{"", "X", "a'b", strings.Repeat("a", 64)} {
		if _, err := pgserver.OpenStandby(t.Context(), options(t, pgtest.Dir(t)), pgserver.StandbyOptions{Primary: primary.Server, Slot: slot}); err == nil {
			t.Errorf("slot name %q is taken", slot)
		}
	}
}

func TestStandbyThatCannotFollowIsRebuilt(t *testing.T) {
	primary := pgtest.Primary(t, "min_wal_size", "32MB", "max_wal_size", "32MB", "wal_keep_size", "0")
	primary.Exec(t, "CREATE TABLE t AS SELECT 1 AS id")
	o := options(t, pgtest.Dir(t))
	stop(t, openStandby(t, o, primary.Server))
	data := filepath.Join(o.Dir, "data")
	fresh := options(t, pgtest.Dir(t))
	fresh.Template = "" // initdb gives it a system identifier of its own
	own := open(t, fresh)
	exec(t, own, "CREATE TABLE t AS SELECT 1 AS id")
	remove := func(name string) func(*testing.T) {
		return func(t *testing.T) {
			if err := os.RemoveAll(filepath.Join(data, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name   string
		damage func(t *testing.T)
		of     *pgserver.Server
	}{
		{"control file lost", remove("global/pg_control"), primary.Server},
		{"version lost", remove("PG_VERSION"), primary.Server},
		{"directory lost", remove("pg_notify"), primary.Server},
		{"WAL lost here", remove("pg_wal"), primary.Server},
		{"promoted by hand", remove("standby.signal"), primary.Server},
		{"control file overwritten", func(t *testing.T) {
			f, err := os.OpenFile(filepath.Join(data, "global", "pg_control"), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(make([]byte, 100), 100); err != nil {
				t.Fatal(err)
			}
		}, primary.Server},
		{"WAL gone on the primary", func(t *testing.T) {
			primary.Exec(t, "SELECT pg_drop_replication_slot('follower')")
			for range 4 {
				primary.Exec(t, "CREATE TABLE x AS SELECT 1; DROP TABLE x; SELECT pg_switch_wal()")
			}
			primary.Exec(t, "CHECKPOINT")
		}, primary.Server},
		{"another primary", func(*testing.T) {}, own},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.damage(t)
			log := &warnings{}
			o := o
			o.Logger = slog.New(log)
			standby := openStandby(t, o, test.of)
			if len(log.texts) != 1 || !strings.Contains(log.texts[0], "rebuilding") {
				t.Errorf("warnings: %q, want one of the rebuilding", log.texts)
			}
			reaches(t, standby, countRows, "1")
			stop(t, standby)
		})
	}
}

func TestHalfMadeCopyIsMadeAnew(t *testing.T) {
	primary := pgtest.Primary(t)
	o := options(t, pgtest.Dir(t))
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(string, int64, int64) { cancel() } // in the middle of the copy
	if _, err := pgserver.OpenStandby(ctx, o, pgserver.StandbyOptions{Primary: primary.Server, Slot: "follower"}); err == nil {
		t.Fatal("a cut copy gave a standby")
	}
	if err := os.MkdirAll(filepath.Join(o.Dir, "data.new", "base"), 0o700); err != nil { // as a kill would leave it
		t.Fatal(err)
	}
	o.Progress = nil
	openStandby(t, o, primary.Server)
}
