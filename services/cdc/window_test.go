package cdc

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// TestBeside holds the tests of what is read beside the stream; they share a primary, its standby and brokers.
func TestBeside(t *testing.T) {
	primary, standby := pgtest.Pair(t, "max_replication_slots", "40", "max_wal_senders", "40")
	prepare(t, primary)
	p := &pair{primary: primary, standby: standby}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pair)
	}{
		{"races in a window", races},
		{"random writers under repeated snapshots", snapshotsUnderWriters},
		{"a first snapshot that was cut short goes on", cutShort},
		{"the snapshot's transaction is killed", killedSnapshot},
		{"rows that move before they are read keep large values", movedRows},
		{"some rows on request", someRows},
		{"pause and resume", pauseResume},
		{"requests that are refused", refusals},
		{"a table leaves the publication and comes back", leavesAndReturns},
		{"a partitioned table joins", partitionedJoins},
		{"a primary is read beside the stream too", besidePrimary},
		{"jobs write nothing to the source", jobsWriteNothing},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t, p) })
	}
}

// ask has the running cdc do something, and waits for the end of it.
func (s *store) ask(t testing.TB, r *running, q schemas.CaptureRequest) string {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	if err := r.Ask(ctx, &out, q, false); err != nil {
		t.Fatalf("%s of %v: %v\n%s", q.Kind, q.Tables, err, &out)
	}
	return out.String()
}

// hold lets a test act while a window has its rows and the stream does not know of them.
type hold struct {
	mu   sync.Mutex
	each func(c *chunk.Chunk)
}

func (h *hold) set(f func(*chunk.Chunk)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.each = f
}

func (h *hold) read(table string, c *chunk.Chunk) {
	h.mu.Lock()
	f := h.each
	h.mu.Unlock()
	if f != nil && table == "public.items" {
		f(c)
	}
}

// races makes changes exactly between the read of a window and its end.
func races(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, `INSERT INTO items (id, a, n, big) SELECT i, 'old', 1, (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 200) j) FROM generate_series(1, 20) i`)
	p.standby.Sync(t)
	h := &hold{}
	r := s.startWith(t, hooks{read: h.read})
	s.quiet(t, r)
	for _, c := range []struct{ name, sql string }{
		{"nothing", "SELECT 1"},
		{"update", "UPDATE items SET a = 'new' WHERE id = 3"},
		{"update of the large value", "UPDATE items SET big = repeat('z', 5000) WHERE id = 3"},
		{"large value, then another", "UPDATE items SET big = repeat('y', 5000) WHERE id = 4; UPDATE items SET a = 'then' WHERE id = 4"},
		{"delete", "DELETE FROM items WHERE id = 5"},
		{"insert", "INSERT INTO items VALUES (100, 'in')"},
		{"delete and insert", "DELETE FROM items WHERE id = 6; INSERT INTO items VALUES (6, 'again')"},
		{"key change", "UPDATE items SET id = 200 WHERE id = 7"},
		{"key change to a key that was deleted", "DELETE FROM items WHERE id = 9; UPDATE items SET id = 9, big = 'small' WHERE id = 8"},
		{"rolled back", "BEGIN; UPDATE items SET a = 'never'; ROLLBACK"},
		{"column", "ALTER TABLE items ADD extra text; UPDATE items SET extra = 'e' WHERE id = 10"},
		{"rewrite", "ALTER TABLE items ALTER ok SET DEFAULT true; UPDATE items SET n = 2 WHERE id = 11"},
		{"truncate", "TRUNCATE items; INSERT INTO items VALUES (1, 'after')"},
	} {
		done := false
		h.set(func(*chunk.Chunk) {
			if done {
				return
			}
			done = true
			if _, err := s.write.PgConn().Exec(context.Background(), c.sql).ReadAll(); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			p.standby.Sync(t)
			s.passed(t, r) // the stream has it before the window's rows
		})
		s.ask(t, r, schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: []string{"public.items"}})
		if !done {
			t.Errorf("%s: no window was read", c.name)
		}
		s.quiet(t, r)
		if t.Failed() {
			return
		}
		columns := []string{"id", "a", "n", "ok", "big"}
		s.matches(t, "items", columns...)
		if t.Failed() {
			t.Fatalf("after %s", c.name)
		}
	}
}

// passed waits until the stream has what the primary has; unlike quiet it may be called while a window is open.
func (s *store) passed(t testing.TB, r *running) {
	t.Helper()
	lsn, err := pgoutput.ParseLSN(s.primary.LSN(t))
	if err != nil {
		t.Error(err)
		return
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if c, _, live := r.state.claim(); live && c.SourceLSN >= int64(lsn) {
			return
		}
	}
	t.Errorf("the stream does not reach %v", lsn)
}

func snapshotsUnderWriters(t *testing.T, p *pair) {
	if testing.Short() {
		t.Skip("SKIPPED with -short: under the race detector the writers outrun two cores; `make test` runs it")
	}
	s := p.store(t, itemsTable)
	s.cfg.JobBytes = 128 << 10 // many windows
	random := rand.New(rand.NewPCG(7, 7))
	history(t, s, random, 100)
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 6 {
			s.ask(t, r, schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: []string{"public.items", "public.notes"}})
		}
	}()
	for done := false; !done; {
		select {
		case <-ended:
			done = true
		default:
			s.exec(t, "DELETE FROM notes WHERE k LIKE '%z'") // else a long run renames a note to one that is there
			history(t, s, random, 5)
			s.passed(t, r) // a window lasts as long as the stream is behind: the writer must not outrun it for ever
		}
	}
	s.settled(t, r)
	s.matches(t, "items", "id", "a", "n", "ok", "ts", "big", "j")
	s.matches(t, "notes", "k", "m", "body")
	noDoubles(t, s, "items")
}

const wide = "INSERT INTO items (id, a) SELECT i, repeat('x', 900) FROM generate_series(1, 40000) i"

// cutShort ends the service in the middle of the first snapshot, and expects what was read not to be read again.
func cutShort(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, wide)
	p.standby.Sync(t)
	read := make(chan struct{})
	var once sync.Once
	s.cfg.SnapshotWorkers = 1
	r := s.startWith(t, hooks{copied: func(_ string, block int64) {
		if block >= 2*rangeBlocks {
			once.Do(func() { close(read) })
			time.Sleep(300 * time.Millisecond) // what was read becomes committed
		}
	}})
	<-read
	waitFor(t, "a committed part", 10*time.Second, func() bool { return r.position().Jobs != nil && r.position().Jobs[0].Next >= 2*rangeBlocks })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s.exec(t, "DELETE FROM items WHERE id % 2 = 0; UPDATE items SET n = 1 WHERE id < 100")
	p.standby.Sync(t)
	r = s.start(t)
	s.settled(t, r)
	s.matches(t, "items", "id", "a", "n")
	twice := map[string]int{}
	for _, e := range s.events(t, "items") {
		if e.value != nil && e.op() == "r" {
			twice[e.key]++
		}
	}
	repeated := 0
	for _, n := range twice {
		if n > 1 {
			repeated++
		}
	}
	if repeated > 10_000 {
		t.Errorf("%d rows were read twice", repeated)
	}
}

// position is the last one that was committed.
func (r *running) position() schemas.Position {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	return r.state.position
}

func killedSnapshot(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, wide)
	p.standby.Sync(t)
	var once sync.Once
	r := s.startWith(t, hooks{copied: func(string, int64) {
		once.Do(func() {
			p.standby.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+s.database+"' AND application_name = 'millrace-cdc-snapshot'")
			s.exec(t, "DELETE FROM items WHERE id % 3 = 0")
		})
	}})
	s.settled(t, r)
	s.matches(t, "items", "id", "a")
}

// movedRows updates rows, which moves them behind what is read, while their table's job runs.
func movedRows(t *testing.T, p *pair) {
	s := p.store(t, itemsTable+"; CREATE TABLE late (id int PRIMARY KEY, a text, big text)")
	s.exec(t, "INSERT INTO late SELECT i, repeat('x', 2000), (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 120) j) FROM generate_series(1, 400) i")
	p.standby.Sync(t)
	s.cfg.JobBytes = 128 << 10
	moved, writer := false, pgtest.Connect(t, p.primary.DSN("postgres", s.database))
	r := s.startWith(t, hooks{members: 50 * time.Millisecond, read: func(table string, c *chunk.Chunk) {
		if table == "public.late" && !moved {
			moved = true
			if _, err := writer.PgConn().Exec(context.Background(), "UPDATE late SET a = repeat('y', 2100) WHERE id > 300; UPDATE late SET id = id + 1000 WHERE id > 390").ReadAll(); err != nil {
				t.Error(err)
			}
		}
	}})
	s.quiet(t, r)
	s.exec(t, "ALTER PUBLICATION millrace ADD TABLE late")
	waitFor(t, "the table", 20*time.Second, func() bool { _, on := r.position().Members["public.late"]; return on })
	s.settled(t, r)
	s.matches(t, "late", "id", "a", "big")
	if !moved {
		t.Error("no row was moved")
	}
}

func someRows(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, "INSERT INTO items (id, a) SELECT i, 'a' FROM generate_series(1, 100) i")
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	before := len(s.events(t, "items"))
	out := s.ask(t, r, schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: []string{"public.items"}, Where: "id > 90 -- the last"})
	if !strings.Contains(out, "done") {
		t.Errorf("answers: %s", out)
	}
	if n := len(s.events(t, "items")) - before; n != 10 {
		t.Errorf("%d rows were read again, want 10", n)
	}
	s.matches(t, "items", "id", "a")
}

func pauseResume(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, "INSERT INTO items (id, a) SELECT i, 'a' FROM generate_series(1, 100) i")
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.ask(t, r, schemas.CaptureRequest{Kind: schemas.CapturePause, Tables: []string{"public.items"}})
	s.exec(t, "DELETE FROM items WHERE id <= 50; UPDATE items SET a = 'b' WHERE id <= 60; INSERT INTO items VALUES (500, 'c'); INSERT INTO notes VALUES ('goes on', 1)")
	s.quiet(t, r)
	s.matches(t, "notes", "k", "m")
	if c, _, _ := r.state.claim(); len(c.Incomplete) != 1 {
		t.Errorf("incomplete: %v", c.Incomplete)
	}
	if n := len(s.fold(t, "items")); n != 100 {
		t.Errorf("%d rows while paused, want 100", n)
	}
	s.ask(t, r, schemas.CaptureRequest{Kind: schemas.CaptureResume, Tables: []string{"public.items"}})
	s.exec(t, "INSERT INTO items VALUES (501, 'd')")
	s.settled(t, r)
	s.matches(t, "items", "id", "a")
	if c, _, _ := r.state.claim(); len(c.Incomplete) != 0 {
		t.Errorf("incomplete: %v", c.Incomplete)
	}
}

func refusals(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	r := s.start(t)
	s.quiet(t, r)
	for _, c := range []struct {
		q    schemas.CaptureRequest
		want string
	}{
		{schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: []string{"public.nowhere"}}, "is not captured"},
		{schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: []string{"public.items"}, Where: "nothing > 1"}, "does not exist"},
		{schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: []string{"public.items"}, Where: "id > 1) OR (true"}, "syntax error"},
		{schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: []string{"public.items"}, Where: "id > 1] IS NULL OR ARRAY[true"}, "syntax error"},
		{schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: []string{"public.items"}, Where: "true; DROP TABLE items"}, "';'"},
		{schemas.CaptureRequest{Kind: schemas.CaptureResume, Tables: []string{"public.items"}}, "is not stopped"},
	} {
		var out bytes.Buffer
		err := r.Ask(t.Context(), &out, c.q, false)
		if err == nil || !strings.Contains(err.Error()+out.String(), c.want) {
			t.Errorf("%s %v where %q: %v, %s", c.q.Kind, c.q.Tables, c.q.Where, err, &out)
		}
	}
}

func leavesAndReturns(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, "INSERT INTO items (id, a) SELECT i, 'a' FROM generate_series(1, 100) i")
	p.standby.Sync(t)
	r := s.startWith(t, hooks{members: 50 * time.Millisecond})
	s.quiet(t, r)
	s.exec(t, "ALTER PUBLICATION millrace DROP TABLE items")
	waitFor(t, "the table to be missed", 20*time.Second, func() bool { return r.position().Stopped["public.items"] != "" })
	s.exec(t, "DELETE FROM items WHERE id <= 50; INSERT INTO items VALUES (500, 'c'); ALTER PUBLICATION millrace ADD TABLE items; INSERT INTO items VALUES (501, 'd')")
	waitFor(t, "the table to be back", 20*time.Second, func() bool { return r.position().Stopped["public.items"] == "" })
	s.settled(t, r)
	s.matches(t, "items", "id", "a")
}

func partitionedJoins(t *testing.T, p *pair) {
	s := p.store(t, itemsTable+`; CREATE TABLE parts (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
		CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
		CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
		INSERT INTO parts SELECT i, '2024-01-01'::date + i % 700, repeat('v', 500) FROM generate_series(1, 3000) i`)
	p.standby.Sync(t)
	r := s.startWith(t, hooks{members: 50 * time.Millisecond})
	s.quiet(t, r)
	s.exec(t, "ALTER PUBLICATION millrace ADD TABLE parts; UPDATE parts SET at = '2025-12-12' WHERE id % 100 = 0")
	waitFor(t, "the table", 20*time.Second, func() bool { _, on := r.position().Members["public.parts"]; return on })
	s.settled(t, r)
	s.matches(t, "parts", "id", "v")
	// The stream describes the partitions too, and has no changes of theirs.
	s.exec(t, "INSERT INTO items VALUES (1); UPDATE parts SET v = 'w' WHERE id <= 10")
	s.settled(t, r)
	if p := r.position(); len(p.Members) != 3 || len(p.Stopped) > 0 {
		t.Errorf("members %v, stopped %v", p.Members, p.Stopped)
	}
	s.matches(t, "parts", "id", "v")
}

func besidePrimary(t *testing.T, p *pair) {
	s := newStore(t, p.primary, p.primary, brokertest.New(t), itemsTable+"; CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late SELECT generate_series(1, 1000)")
	s.exec(t, "INSERT INTO items SELECT i FROM generate_series(1, 50) i")
	var mu sync.Mutex // several jobs read
	writer := pgtest.Connect(t, p.primary.DSN("postgres", s.database))
	r := s.startWith(t, hooks{members: 50 * time.Millisecond, read: func(string, *chunk.Chunk) {
		mu.Lock()
		defer mu.Unlock()
		_, err := writer.PgConn().Exec(context.Background(), "DELETE FROM late WHERE id = (SELECT min(id) FROM late); INSERT INTO late SELECT max(id) + 1 FROM late; UPDATE items SET a = 'x' WHERE id = 3").ReadAll()
		if err != nil {
			t.Error(err)
		}
	}})
	s.quiet(t, r)
	s.exec(t, "ALTER PUBLICATION millrace ADD TABLE late")
	waitFor(t, "the table", 20*time.Second, func() bool { _, on := r.position().Members["public.late"]; return on })
	s.settled(t, r)
	s.ask(t, r, schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: []string{"public.late", "public.items"}})
	s.settled(t, r)
	s.matches(t, "late", "id")
	s.matches(t, "items", "id", "a")
}

// jobsWriteNothing expects that a request leaves the source's log as it was.
func jobsWriteNothing(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, "INSERT INTO items SELECT i FROM generate_series(1, 500) i")
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	writes := func() (n int64) {
		err := s.write.QueryRow(t.Context(), "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables").Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	s.exec(t, "SELECT pg_stat_force_next_flush()")
	before := writes()
	s.ask(t, r, schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: []string{"public.items", "public.notes"}})
	s.settled(t, r)
	if after := writes(); after != before {
		t.Errorf("%d rows were written in the source's database", after-before)
	}
	role := p.primary.Connect(t, s.database)
	var transactions int
	if err := role.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE usename = 'cdc'").Scan(&transactions); err != nil || transactions != 0 {
		t.Errorf("capture has %d connections with the primary, %v", transactions, err)
	}
}
