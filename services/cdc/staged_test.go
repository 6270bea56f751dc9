//go:build real

package cdc

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

// staged is a captured store on a primary and a standby of its own.
func staged(t *testing.T, settings ...string) (*store, *running) {
	t.Helper()
	primary := pgtest.Primary(t)
	standby := pgtest.Standby(t, primary, "standby", settings...)
	prepare(t, primary)
	s := newStore(t, primary, standby, brokertest.New(t), itemsTable)
	s.exec(t, "INSERT INTO items SELECT i, 'first' FROM generate_series(1, 10) i")
	standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO items VALUES (11, 'streamed')")
	s.quiet(t, r)
	return s, r
}

// lose does something again and again until the standby has given the slot up.
func (s *store) lose(t *testing.T, again func()) {
	t.Helper()
	waitFor(t, "the slot to be invalidated", 60*time.Second, func() bool {
		again()
		return s.source.Query(t, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", s.cfg.Slot) == "lost"
	})
}

// checkpoint makes the standby reach a restartpoint, at which it looks at its slots.
func (s *store) checkpoint(t *testing.T) {
	t.Helper()
	s.exec(t, "SELECT pg_switch_wal(); CHECKPOINT")
	s.source.Sync(t)
	s.source.Exec(t, "CHECKPOINT")
}

func TestStagedLogRemoved(t *testing.T) {
	s, r := staged(t, "max_slot_wal_keep_size", "16MB")
	s.stopped(t, r)
	s.lose(t, func() {
		s.exec(t, "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1000000)) FROM generate_series(1, 20)")
		s.checkpoint(t)
	})
	s.expectGap(t, GapSlotInvalidated, "wal_removed")
	if g := s.statusGap(t); g.Reason != "wal_removed" {
		t.Errorf("%+v", g)
	}
	s.recovers(t)
}

func TestStagedRowsRemoved(t *testing.T) {
	s, r := staged(t)
	s.stopped(t, r)
	s.restartStandby(t, "hot_standby_feedback", "off")
	s.lose(t, func() {
		s.exec(t, "CREATE TABLE churn AS SELECT 1 AS a")
		s.exec(t, "DROP TABLE churn") // in another transaction: rows that nobody could see are in nobody's way
		for _, catalog := range []string{"pg_class", "pg_attribute", "pg_type"} {
			s.exec(t, "VACUUM "+catalog)
		}
		s.source.Sync(t)
	})
	s.restartStandby(t, "hot_standby_feedback", "on") // check refuses to begin without
	s.expectGap(t, GapSlotInvalidated, "rows_removed")
	s.recovers(t)
}

func (s *store) restartStandby(t *testing.T, name, value string) {
	t.Helper()
	if err := s.source.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.source.Set(name, value)
	s.source.Start(t)
	s.source.Sync(t)
}

func TestStagedWALLevelLowered(t *testing.T) {
	s, r := staged(t)
	s.stopped(t, r)
	s.restartPrimary(t, "wal_level", "replica")
	s.lose(t, func() { time.Sleep(50 * time.Millisecond) })
	s.restartPrimary(t, "wal_level", "logical")
	s.source.Sync(t)
	s.expectGap(t, GapSlotInvalidated, "wal_level_insufficient")
	s.recovers(t)
}

func (s *store) restartPrimary(t *testing.T, name, value string) {
	t.Helper()
	_ = s.write.Close(t.Context())
	_ = s.primary.Stop(t.Context()) // a standby that is slow to take the rest does no harm
	s.primary.Set(name, value)
	s.primary.Start(t)
	s.write = s.primary.Connect(t, s.database)
	s.exec(t, "INSERT INTO items SELECT max(id) + 1, 'after' FROM items")
	s.source.Sync(t)
}

func TestStagedIdleTimeout(t *testing.T) {
	s, r := staged(t)
	if s.source.Query(t, "SELECT current_setting('server_version_num')::int < 180000") == "true" {
		t.Skip("the time-out is new in PostgreSQL 18")
	}
	s.stopped(t, r)
	s.restartStandby(t, "idle_replication_slot_timeout", "1s")
	s.lose(t, func() { s.checkpoint(t) })
	s.expectGap(t, GapSlotInvalidated, "idle_timeout")
	s.restartStandby(t, "idle_replication_slot_timeout", "0")
	s.recovers(t)
}

// TestStagedRestoredFromBackup brings a server back as it was before the position, on the same timeline.
func TestStagedRestoredFromBackup(t *testing.T) {
	primary := pgtest.Primary(t)
	prepare(t, primary)
	s := newStore(t, primary, primary, brokertest.New(t), itemsTable)
	s.stopped(t, s.start(t))
	data, backup := filepath.Join(primary.Dir(), "data"), filepath.Join(primary.Dir(), "backup")
	offline := func(do func()) {
		t.Helper()
		_ = s.write.Close(t.Context())
		if err := primary.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		do()
		primary.Start(t)
		s.write = primary.Connect(t, s.database)
	}
	offline(func() { copyAll(t, data, backup) })
	r := s.start(t)
	s.exec(t, "INSERT INTO items SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i")
	s.stopped(t, r)
	offline(func() {
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
		copyAll(t, backup, data)
	})
	s.expectGap(t, GapRestored, "")
	s.recovers(t)
}

func copyAll(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestStagedOldPrimarysTail: the position holds changes of a primary that was replaced by one that never had them.
func TestStagedOldPrimarysTail(t *testing.T) {
	s, r := staged(t)
	behind := pgtest.Standby(t, s.primary, "behind")
	behind.Promote(t)
	s.exec(t, "INSERT INTO items SELECT i, repeat('lost', 200) FROM generate_series(100, 2000) i")
	s.stopped(t, r)
	s.source.Kill()
	_ = s.write.Close(t.Context())
	s.primary.Kill()
	s.primary, s.source = behind, pgtest.Standby(t, behind, "rebuilt")
	s.write = behind.Connect(t, s.database)
	s.makeSlot(t, s.database)
	g := s.expectGap(t, GapHistory, "")
	if g.Position == 0 {
		t.Error("the position is not told")
	}
	s.recovers(t)
}

// loadWriter writes until it is stopped, going on where its server was replaced by another.
type loadWriter struct {
	server atomic.Pointer[pgtest.Server]
	done   atomic.Int64 // transactions that were confirmed
	stop   func()
}

func (s *store) writes(t *testing.T, id int) *loadWriter {
	t.Helper()
	w := &loadWriter{}
	w.server.Store(s.primary)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var conn *pgx.Conn
		for i := id * 1_000_000; ctx.Err() == nil; i++ {
			if conn == nil || conn.IsClosed() {
				var err error
				if conn, err = pgx.Connect(ctx, w.server.Load().DSN("postgres", s.database)); err != nil {
					time.Sleep(20 * time.Millisecond)
					continue
				}
			}
			sql := fmt.Sprintf("BEGIN; INSERT INTO items VALUES (%d, 'w'); UPDATE items SET n = coalesce(n, 0) + 1 WHERE id %% 7 = %d; DELETE FROM items WHERE id = %d; COMMIT", i, i%7, i-50)
			if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err == nil {
				w.done.Add(1)
			} else {
				_ = conn.Close(context.Background())
				conn = nil
			}
			time.Sleep(2 * time.Millisecond)
		}
		if conn != nil {
			_ = conn.Close(context.Background())
		}
	}()
	w.stop = func() { cancel(); <-ended }
	t.Cleanup(w.stop)
	return w
}

// carriesOn checks that the same slot went on without another snapshot, and that nothing is missing or twice.
func (s *store) carriesOn(t *testing.T, r *running, begun int64) {
	t.Helper()
	s.write = s.primary.Connect(t, s.database)
	s.quiet(t, r)
	s.matches(t, "items", "id", "a", "n")
	noDoubles(t, s, "items")
	for _, e := range s.events(t, "items") {
		if e.value != nil && e.op() == "r" && e.source()["seq"].(int64) > begun {
			t.Fatal("rows were read again")
		}
	}
	if p, err := r.Report(t.Context()); err != nil || p.Gap != nil || p.Source.Timeline < 2 || r.Ready() != nil {
		t.Errorf("after the promotion: %v %v %+v", err, r.Ready(), p)
	}
}

func TestStagedPromotionOfTheReplica(t *testing.T) {
	s, r := staged(t)
	begun := r.seqNow()
	w := s.writes(t, 1)
	waitFor(t, "some writing", 20*time.Second, func() bool { return w.done.Load() > 100 })
	_ = s.write.Close(t.Context())
	_ = s.primary.Stop(t.Context()) // in order: the standby gets everything
	s.source.Promote(t)
	s.primary = s.source
	w.server.Store(s.primary)
	before := w.done.Load()
	waitFor(t, "some writing on the new primary", 30*time.Second, func() bool { return w.done.Load() > before+100 })
	w.stop()
	s.carriesOn(t, r, begun)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s.unread(t)
	r = s.start(t) // and once more, from the recorded position
	s.exec(t, "INSERT INTO items VALUES (-1, 'later')")
	s.quiet(t, r)
	s.matches(t, "items", "id", "a", "n")
}

func TestStagedFailOverOfThePrimary(t *testing.T) {
	s, r := staged(t)
	begun := r.seqNow()
	second := pgtest.Standby(t, s.primary, "second")
	w := s.writes(t, 1)
	waitFor(t, "some writing", 20*time.Second, func() bool { return w.done.Load() > 100 })
	_ = s.write.Close(t.Context())
	_ = s.primary.Stop(t.Context()) // in order: both standbys get everything
	second.Promote(t)
	s.primary = second
	w.server.Store(second)
	if err := s.source.Stop(t.Context()); err != nil {
		t.Log(err)
	}
	s.source.Follow(t, second, "standby")
	before := w.done.Load()
	waitFor(t, "some writing on the new primary", 30*time.Second, func() bool { return w.done.Load() > before+100 })
	w.stop()
	s.source.Sync(t)
	s.carriesOn(t, r, begun)
}

// seqNow is the seq of the last committed event.
func (r *running) seqNow() int64 {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	return r.state.position.Seq
}

// TestTooOldPostgreSQL runs where a PostgreSQL 15 is installed.
func TestTooOldPostgreSQL(t *testing.T) {
	const dir = "/usr/lib/postgresql/15"
	if _, err := os.Stat(filepath.Join(dir, "bin", "postgres")); err != nil {
		t.Skipf("SKIPPED: no PostgreSQL 15: %v", err)
	}
	server, err := pgserver.Open(t.Context(), pgserver.Options{Installation: pgserver.Installation{Dir: dir, Version: "15.0"}, Dir: pgtest.Dir(t), Name: "old", NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	var out strings.Builder
	err = Check(t.Context(), &out, DefaultConfig(), SourceConfig{URL: config.Secret(server.DSN("postgres", "postgres"))})
	if err == nil || !strings.Contains(out.String(), "the source is PostgreSQL 15") || !strings.Contains(out.String(), "upgrade to PostgreSQL 16") {
		t.Errorf("%v\n%s", err, &out)
	}
}
