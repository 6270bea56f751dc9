package pgtest

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestDatabasesAreSeparateAndEmpty(t *testing.T) {
	begin := time.Now()
	first := Connect(t, Database(t))
	t.Logf("first database, with the start of the shared server: %v", time.Since(begin))
	begin = time.Now()
	second := Connect(t, Database(t))
	t.Logf("second database: %v", time.Since(begin))
	if _, err := first.Exec(t.Context(), "CREATE TABLE only_first (id int)"); err != nil {
		t.Fatal(err)
	}
	var tables int
	if err := second.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables); err != nil {
		t.Fatal(err)
	}
	if tables != 0 {
		t.Errorf("the second database has %d tables of the first", tables)
	}
}

func TestDatabaseIsDroppedAfterTheTest(t *testing.T) {
	var dsn string
	t.Run("user", func(t *testing.T) {
		dsn = Database(t)
		Connect(t, dsn) // an open connection must not keep it
	})
	if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
		_ = conn.Close(t.Context())
		t.Error("the database is still there")
	}
}

func TestPairFollowsAndDecodesOnTheStandby(t *testing.T) {
	begin := time.Now()
	primary, standby := Pair(t)
	t.Logf("pair: %v", time.Since(begin))
	primary.Exec(t, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (7); CREATE PUBLICATION p FOR TABLE t")
	standby.Sync(t)
	if got := standby.Query(t, "SELECT id FROM t"); got != "7" {
		t.Errorf("the standby has %s, want 7", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	begin = time.Now()
	created := make(chan error, 1)
	go func() {
		created <- standby.Run(ctx, "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')")
	}()
	for {
		select {
		case err := <-created:
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("logical slot on the standby: %v", time.Since(begin))
			return
		case <-time.After(20 * time.Millisecond):
			if err := primary.LogStandbySnapshot(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestWaitReplayedGivesUpWithItsContext(t *testing.T) {
	_, standby := Pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := standby.WaitReplayed(ctx, "FF/0"); err == nil {
		t.Error("a position of the far future counts as replayed")
	}
}

func TestStartAfterKillKeepsPortAndData(t *testing.T) {
	primary := Primary(t, "work_mem", "5MB")
	primary.Exec(t, "CREATE TABLE t AS SELECT 1 AS id")
	port := primary.Port()
	primary.Kill()
	primary.Start(t)
	if primary.Port() != port {
		t.Errorf("port %d became %d", port, primary.Port())
	}
	if got := primary.Query(t, "SELECT count(*) FROM t"); got != "1" {
		t.Errorf("%s rows, want 1", got)
	}
	if got := primary.Query(t, "SELECT current_setting('work_mem')"); got != "5MB" {
		t.Errorf("work_mem is %s", got)
	}
}
