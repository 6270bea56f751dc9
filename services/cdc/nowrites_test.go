package cdc

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

// TestNothingIsWritten runs every command against a primary that does nothing else, with a role that may only
// replicate and read, and compares the primary's own counters and its log from before and after.
func TestNothingIsWritten(t *testing.T) {
	primary, standby := pgtest.Pair(t, "autovacuum", "off", "checkpoint_timeout", "1h", "track_activities", "on")
	primary.Exec(t, "CREATE ROLE cdc LOGIN REPLICATION")
	s := newStore(t, primary, standby, brokertest.New(t), itemsTable)
	s.exec(t, "INSERT INTO items SELECT i FROM generate_series(1, 1000) i; ANALYZE; CHECKPOINT")
	standby.Sync(t)
	record := s.snapshotRecord(t)
	const counters = `SELECT concat_ws(' ', d.xact_commit, d.xact_rollback, d.tup_inserted, d.tup_updated, d.tup_deleted, d.tup_returned, d.temp_files, d.temp_bytes,
		(SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_class c, pg_stat_get_tuples_inserted(c.oid) n_tup_ins, pg_stat_get_tuples_updated(c.oid) n_tup_upd,
			pg_stat_get_tuples_deleted(c.oid) n_tup_del WHERE c.relkind = 'r')) FROM pg_stat_database d WHERE datname = '%s'`
	look := func(on *pgtest.Server) string { return on.Query(t, fmt.Sprintf(counters, s.database)) }
	waitFor(t, "the primary to count what the set-up did", 20*time.Second, func() bool {
		before := look(primary)
		time.Sleep(100 * time.Millisecond)
		return look(primary) == before
	})
	before, end := look(primary), s.insertLSN(t)
	var asked atomic.Int64
	svc := func() *Service {
		svc := s.service(t)
		svc.deps.OnSlotWait = func(ctx context.Context) {
			if asked.Load() == 0 && primary.LogStandbySnapshot(ctx) == nil { // the test's, not cdc's
				asked.Add(1)
			}
		}
		return svc
	}
	var out strings.Builder
	if err := Check(t.Context(), &out, s.cfg, SourceConfig{URL: config.Secret(standby.DSN("cdc", s.database))}); err != nil || !strings.Contains(out.String(), "standby freshness unknown") {
		t.Fatalf("check: %v\n%s", err, &out)
	}
	for range 2 { // snapshot and stream, then stream
		one := svc()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- one.Run(ctx) }()
		waitFor(t, "the stream", 30*time.Second, func() bool { return one.Ready() == nil })
		s.quiet(t, &running{Service: one})
		if err := one.Status(t.Context(), &out); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		s.unread(t)
	}
	if err := svc().Uninstall(t.Context(), &out); err != nil {
		t.Error(err)
	}
	if after := look(primary); after != before {
		t.Errorf("the primary counted %s, and counts %s", before, after)
	}
	if wrote, allowed := s.insertLSN(t)-end, asked.Load()*record; wrote > allowed+pageHeaders || asked.Load() == 0 {
		t.Errorf("the primary wrote %d bytes of log, of which the test's %d standby snapshots are %d", wrote, asked.Load(), allowed)
	}
	if got := standby.Query(t, "SELECT tup_inserted + tup_updated + tup_deleted + temp_files + temp_bytes FROM pg_stat_database WHERE datname = $1", s.database); got != "0" {
		t.Errorf("the replica counts %s tuples and temporary bytes written", got)
	}
	s.matches(t, "items", "id")
}

// pageHeaders are those of a page and of a segment that a record may begin.
const pageHeaders = 24 + 40

func (s *store) insertLSN(t *testing.T) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s.primary.Query(t, "SELECT pg_current_wal_insert_lsn() - '0/0'"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// snapshotRecord is how much log one record of running transactions takes.
func (s *store) snapshotRecord(t *testing.T) int64 {
	t.Helper()
	begin := s.insertLSN(t)
	if err := s.primary.LogStandbySnapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s.insertLSN(t) - begin
}

// TestBadServers connects to what cannot be captured from. No secret may be told.
func TestBadServers(t *testing.T) {
	const secret = "hunter2"
	look := func(url string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var out strings.Builder
		err := Check(ctx, &out, DefaultConfig(), SourceConfig{URL: config.Secret(url)})
		if err == nil {
			t.Errorf("no error\n%s", &out)
			return ""
		}
		if text := out.String() + err.Error(); strings.Contains(text, secret) || strings.Contains(text, "\n\n") {
			t.Errorf("told: %s", text)
		}
		return out.String() + err.Error()
	}
	expect := func(got string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("not said: %q in %q", want, got)
			}
		}
	}
	expect(look("postgres://cdc:"+secret+"@127.0.0.1:1/shop"), "connect to the source at 127.0.0.1:1", "refused")

	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	expect(look("postgres://cdc:"+secret+"@"+listener.Addr().String()+"/shop"), "connect to the source at", "is no PostgreSQL")

	server := pgtest.Primary(t)
	server.Exec(t, "CREATE ROLE cdc LOGIN REPLICATION PASSWORD 'right'")
	at := fmt.Sprintf("@127.0.0.1:%d/postgres", server.Port())
	expect(look("postgres://cdc:"+secret+at+"?sslmode=require"), "TLS")
	rules := filepath.Join(server.Dir(), "data", "pg_hba.conf")
	if err := os.WriteFile(rules, []byte("host all cdc all scram-sha-256\nhost all postgres all trust\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	server.Exec(t, "SELECT pg_reload_conf()")
	waitFor(t, "the new rules", 10*time.Second, func() bool { return strings.Contains(look("postgres://cdc:"+secret+at), "password") })
	expect(look("postgres://cdc:"+secret+at), "password authentication failed")
	if err := os.WriteFile(rules, []byte("hostssl all cdc all trust\nhost all postgres all trust\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	server.Exec(t, "SELECT pg_reload_conf()")
	waitFor(t, "the new rules", 10*time.Second, func() bool { return strings.Contains(look("postgres://cdc:"+secret+at), "pg_hba.conf") })
	expect(look("postgres://cdc:"+secret+at+"?sslmode=disable"), "no encryption")
}
