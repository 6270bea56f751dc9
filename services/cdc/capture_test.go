package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

const itemsTable = `CREATE TABLE items (id int PRIMARY KEY, a text, n numeric(12,3), ok boolean, ts timestamptz, big text, j jsonb);
	CREATE TABLE notes (k text, m int, body text, PRIMARY KEY (k, m)); ALTER TABLE notes REPLICA IDENTITY FULL;
	CREATE PUBLICATION millrace FOR TABLE items, notes WITH (publish_via_partition_root = true)`

// TestCapture holds the tests that share a primary, its standby and a broker; each has a database and a slot of its own.
func TestCapture(t *testing.T) {
	primary, standby := pgtest.Pair(t, "max_replication_slots", "40", "max_wal_senders", "40")
	prepare(t, primary)
	p := &pair{primary: primary, standby: standby}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pair)
	}{
		{"snapshot and stream", snapshotAndStream},
		{"a primary is a source too", fromPrimary},
		{"snapshot under concurrent writers", concurrentWriters},
		{"unchanged large values", largeValues},
		{"truncate", truncation},
		{"key change", keyChange},
		{"personal data becomes tokens", tokens},
		{"nothing is written to the source", zeroWrites},
		{"an idle slot advances", idleSlot},
		{"claims", claimsHold},
		{"columns are added", addedColumn},
		{"a misfit is left out, and its table is incomplete", misfit},
		{"a type change stops its table only", typeChange},
		{"a table that joins while capture runs is read as a whole", lateTable},
		{"an interrupted snapshot is carried on beside the stream", interruptedSnapshot},
		{"a snapshot of a filled topic ends by deletes", deletesByDifference},
		{"gap: the slot is dropped", slotDropped},
		{"gap: the slot was advanced", slotAdvanced},
		{"gap: the slot is there and the position is not", positionMissing},
		{"gap: a new slot and the difference if asked for", differenceOnGap},
		{"kinds of column", columnKinds},
		{"partitioned and filtered tables", partitionedTables},
		{"a row too large for a record is left out", tooLarge},
		{"check, status and readiness", commands},
		{"a table without key does not stop the others", keylessTable},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t, p) })
	}
}

type pair struct{ primary, standby *pgtest.Server }

func (p *pair) store(t *testing.T, setup string) *store {
	return newStore(t, p.primary, p.standby, brokertest.New(t), setup)
}

func snapshotAndStream(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, `INSERT INTO items SELECT i, 'a' || i, i * 1.125, i % 2 = 0, now(), 'b', '{"x": 1}' FROM generate_series(1, 500) i;
		INSERT INTO notes VALUES ('x', 1, E'tab\there\nand a \\ backslash \\N'), ('y', 2, NULL), ('z', 3, '')`)
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.matches(t, "notes", "k", "m", "body")
	for _, e := range s.events(t, "items") {
		if e.op() != "r" || e.source()["snapshot"].(map[string]any)["string"] != "true" {
			t.Fatalf("a row of the snapshot has op %s, snapshot %v", e.op(), e.source()["snapshot"])
		}
	}
	s.exec(t, `UPDATE items SET a = NULL, n = -n WHERE id % 3 = 0; DELETE FROM items WHERE id % 5 = 0; UPDATE items SET id = id + 1000 WHERE id % 7 = 0;
		BEGIN; INSERT INTO items VALUES (5000, 'kept'); SAVEPOINT a; INSERT INTO items VALUES (5001, 'dropped'); ROLLBACK TO a; COMMIT`)
	s.quiet(t, r)
	s.matches(t, "items", "id", "a", "n", "ok", "ts", "big", "j")
}

func fromPrimary(t *testing.T, p *pair) {
	s := newStore(t, p.primary, p.primary, brokertest.New(t), itemsTable)
	s.exec(t, "INSERT INTO items SELECT i FROM generate_series(1, 50) i")
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "DELETE FROM items WHERE id > 20")
	s.quiet(t, r)
	s.matches(t, "items", "id", "a")
}

func concurrentWriters(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, "INSERT INTO items SELECT i, 'a', 0 FROM generate_series(1, 2000) i")
	p.standby.Sync(t)
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for w := range 3 {
		conn := pgtest.Connect(t, p.primary.DSN("postgres", s.database))
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				sql := fmt.Sprintf("BEGIN; INSERT INTO items VALUES (%d, 'w'); SAVEPOINT x; UPDATE items SET n = n + 1 WHERE id %% 400 = %d; %s; COMMIT",
					10000*(w+1)+i, i%400, []string{"ROLLBACK TO x", "RELEASE x"}[i%2])
				if _, err := conn.PgConn().Exec(context.WithoutCancel(ctx), sql).ReadAll(); err != nil && !strings.Contains(err.Error(), "deadlock") {
					t.Error(err)
					return
				} else if err != nil {
					_, _ = conn.PgConn().Exec(context.WithoutCancel(ctx), "ROLLBACK").ReadAll()
				}
			}
		})
	}
	r := s.start(t)
	waitFor(t, "the stream", 20*time.Second, func() bool { return r.Ready() == nil })
	s.quiet(t, r) // some more was written and streamed meanwhile
	cancel()
	writers.Wait()
	s.quiet(t, r)
	s.matches(t, "items", "id", "a", "n")
	noDoubles(t, s, "items")
}

func largeValues(t *testing.T, p *pair) {
	for _, identity := range []string{"DEFAULT", "FULL"} {
		s := p.store(t, itemsTable+"; ALTER TABLE items ALTER big SET STORAGE EXTERNAL; ALTER TABLE items REPLICA IDENTITY "+identity)
		r := s.start(t)
		s.quiet(t, r)
		s.exec(t, "INSERT INTO items VALUES (1, 'a', 1, true, now(), repeat('large', 2000)); UPDATE items SET a = 'b'")
		s.quiet(t, r)
		s.matches(t, "items", "id", "a", "big")
		events := s.events(t, "items")
		last := events[len(events)-1]
		if identity == "DEFAULT" && (len(last.unchanged) != 1 || last.unchanged[0] != "big" || last.row("after")["big"] != nil) {
			t.Errorf("the untouched value is %v, marked %v", last.row("after")["big"] != nil, last.unchanged)
		}
		if identity == "FULL" && (last.unchanged != nil || last.row("after")["big"] != strings.Repeat("large", 2000)) {
			t.Errorf("the untouched value is not filled in from the old row")
		}
	}
}

func truncation(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, "INSERT INTO items SELECT i FROM generate_series(1, 100) i")
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "BEGIN; INSERT INTO items VALUES (500); INSERT INTO notes VALUES ('a', 1); TRUNCATE items; INSERT INTO items VALUES (7, 'after'); COMMIT")
	s.quiet(t, r)
	s.matches(t, "items", "id", "a")
	s.matches(t, "notes", "k", "m")
	if n := len(s.fold(t, "items")); n != 1 {
		t.Errorf("%d rows are left", n)
	}
}

func keyChange(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO items VALUES (1, 'a'); UPDATE items SET id = 2")
	s.quiet(t, r)
	var got []string
	byID := map[int32][]string{}
	for _, e := range s.events(t, "items") {
		op := "tombstone"
		if e.value != nil {
			op = e.op()
		}
		byID[e.keyFields["id"].(int32)] = append(byID[e.keyFields["id"].(int32)], op)
	}
	got = append(byID[1], byID[2]...)
	if strings.Join(got, " ") != "c d tombstone c" {
		t.Errorf("a key change is %v", got)
	}
}

func tokens(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE customers (email text PRIMARY KEY, contact_first_name text, phone text, city text);
		CREATE TABLE products (product_name text PRIMARY KEY); CREATE PUBLICATION millrace FOR TABLE customers, products;
		INSERT INTO customers VALUES ('ann@shop.example', 'Ann', '+44 1', 'Leeds'); INSERT INTO products VALUES ('A car')`)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO customers VALUES ('bob@shop.example', 'Bob', '+44 2', 'York'); DELETE FROM customers WHERE phone = '+44 1'")
	s.quiet(t, r)
	for _, e := range s.fold(t, "customers") {
		if e["email"] != s.keys.Token("bob@shop.example") || e["contact_first_name"] != s.keys.Token("Bob") || e["city"] != "York" {
			t.Errorf("the row is %v", e)
		}
	}
	raw := 0
	_, _, err := scan(t.Context(), s.kafka, slog.New(slog.DiscardHandler), 0, func(rec *kgo.Record) {
		raw++
		for _, clear := range []string{"shop.example", "Ann", "Bob", "+44"} {
			if strings.Contains(string(rec.Key)+string(rec.Value), clear) {
				t.Errorf("%q is there in clear", clear)
			}
		}
	}, "store.public.customers")
	if err != nil || raw < 3 {
		t.Errorf("%d records, %v", raw, err)
	}
	for _, e := range s.fold(t, "products") {
		if e["product_name"] != "A car" {
			t.Errorf("the product is called %v", e["product_name"])
		}
	}
}

// Invariant 3: a role that can only read is enough, and the primary is as it was.
func zeroWrites(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	count := `SELECT (SELECT count(*) FROM pg_class) || ' ' || (SELECT count(*) FROM pg_proc) || ' ' || (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())`
	var before, after string
	if err := s.write.QueryRow(t.Context(), count).Scan(&before); err != nil {
		t.Fatal(err)
	}
	if got := p.primary.Query(t, "SELECT rolsuper::text || rolcreatedb || rolcreaterole FROM pg_roles WHERE rolname = 'cdc'"); got != "falsefalsefalse" {
		t.Fatalf("the role of the test is too mighty: %s", got)
	}
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO items VALUES (1)")
	s.quiet(t, r)
	if err := s.write.QueryRow(t.Context(), count).Scan(&after); err != nil {
		t.Fatal(err)
	}
	if before != after {
		t.Errorf("the primary had %s, and has %s (relations, functions, slots)", before, after)
	}
}

func idleSlot(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	r := s.start(t)
	s.quiet(t, r)
	p.primary.Exec(t, "CREATE TABLE IF NOT EXISTS elsewhere (i int); INSERT INTO elsewhere SELECT generate_series(1, 1000)") // another database
	at := p.primary.LSN(t)
	waitFor(t, "the slot to be acknowledged", 10*time.Second, func() bool {
		return p.standby.Query(t, "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $2", at, s.cfg.Slot) == "true"
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	pos, _, err := readPosition(t.Context(), s.kafka, s.registry, slog.New(slog.DiscardHandler), settled, s.cfg.Slot)
	if err != nil {
		t.Fatal(err)
	}
	confirmed := p.standby.Query(t, "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = $1", s.cfg.Slot)
	if fmt.Sprint(pos.LSN) < confirmed && len(fmt.Sprint(pos.LSN)) == len(confirmed) {
		t.Errorf("%s is acknowledged, and only %d is recorded", confirmed, pos.LSN)
	}
	r = s.start(t) // the position and the slot fit together
	s.quiet(t, r)
}

func claimsHold(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO items SELECT i FROM generate_series(1, 30) i")
	s.quiet(t, r)
	lsn, err := pgoutput.ParseLSN(p.primary.LSN(t))
	if err != nil {
		t.Fatal(err)
	}
	claim := func() (c schemas.Claim) {
		d, err := avro.NewDecoder(s.registry, schemas.Latest(schemas.Progress))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = scan(t.Context(), s.kafka, slog.New(slog.DiscardHandler), 0, func(rec *kgo.Record) {
			if err := d.Decode(t.Context(), rec.Value, &c); err != nil || string(rec.Key) != "cdc/"+s.cfg.Slot {
				t.Fatalf("claim %s: %v", rec.Key, err)
			}
		}, "progress")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var committed time.Time
	if err := s.write.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&committed); err != nil {
		t.Fatal(err)
	}
	// Silence counts too: the claim passes a moment after the last commit.
	waitFor(t, "an idle claim", 15*time.Second, func() bool {
		p.primary.Exec(t, "SELECT pg_log_standby_snapshot()") // the primary of the test says nothing of its own for 15 s
		c := claim()
		return c.SourceLSN >= int64(lsn) && c.Fresh && c.ValidThrough.After(committed)
	})
	check := func(c schemas.Claim) {
		t.Helper()
		ends := map[int32]int64{}
		for _, e := range s.events(t, "items") {
			ends[e.partition] = e.offset + 1
		}
		for _, e := range c.Ends {
			if e.Topic == "store.public.items" && e.Offset != ends[e.Partition] {
				t.Errorf("partition %d ends at %d, claimed %d", e.Partition, ends[e.Partition], e.Offset)
			}
		}
		if len(c.Ends) != 12 {
			t.Errorf("%d partitions are claimed, want 12", len(c.Ends))
		}
	}
	check(claim())
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = s.start(t) // the ends are found again, without the ends of transactions
	s.quiet(t, r)
	c, _, _ := r.state.claim()
	check(c)
}

func addedColumn(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO items VALUES (1, 'a'); ALTER TABLE items ADD extra int DEFAULT 5; INSERT INTO items VALUES (2, 'b'); ALTER TABLE items DROP COLUMN j; INSERT INTO items VALUES (3)")
	s.quiet(t, r)
	rows := s.fold(t, "items")
	n := 0
	for _, row := range rows {
		if row["extra"] == int32(5) {
			n++
		}
	}
	if len(rows) != 3 || n != 2 {
		t.Errorf("%d rows, %d of them with the new column", len(rows), n)
	}
	if c, _, _ := r.state.claim(); len(c.Incomplete) > 0 {
		t.Errorf("stopped: %v", c.Incomplete)
	}
}

func misfit(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO items VALUES (1, 'a', 1), (2, 'b', 'NaN'), (3, 'c', 2); INSERT INTO notes VALUES ('goes on', 1)")
	s.quiet(t, r)
	if c, _, _ := r.state.claim(); len(c.Incomplete) != 1 || c.Incomplete[0] != "public.items" {
		t.Errorf("incomplete: %v", c.Incomplete)
	}
	if r.Ready() != nil {
		t.Error(r.Ready())
	}
	s.matches(t, "notes", "k", "m")
	if n := len(s.fold(t, "items")); n != 2 {
		t.Errorf("%d rows went by before and after the misfit, want 2", n)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s.exec(t, "UPDATE items SET n = 0 WHERE id = 2; INSERT INTO items VALUES (4)")
	p.standby.Sync(t)
	if err := s.service(t).Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = s.start(t)
	s.quiet(t, r)
	s.matches(t, "items", "id", "a", "n")
	if c, _, _ := r.state.claim(); len(c.Incomplete) > 0 {
		t.Errorf("still incomplete: %v", c.Incomplete)
	}
}

func typeChange(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, "INSERT INTO items VALUES (1, 'a')")
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "ALTER TABLE items ALTER ok TYPE int USING 1; INSERT INTO items VALUES (2, 'b'); INSERT INTO notes VALUES ('goes on', 1)")
	s.quiet(t, r)
	if c, _, _ := r.state.claim(); len(c.Incomplete) != 1 || c.Incomplete[0] != "public.items" {
		t.Errorf("incomplete: %v", c.Incomplete)
	}
	s.matches(t, "notes", "k", "m")
}

func lateTable(t *testing.T, p *pair) {
	s := p.store(t, itemsTable+"; CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)")
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "ALTER PUBLICATION millrace ADD TABLE late; INSERT INTO late VALUES (2)")
	s.quiet(t, r)
	s.settled(t, r)
	s.matches(t, "late", "id")
	s.exec(t, "INSERT INTO late VALUES (3); DELETE FROM late WHERE id = 1")
	s.quiet(t, r)
	s.matches(t, "late", "id")
}

func interruptedSnapshot(t *testing.T, p *pair) {
	broker := newFlaky(t, 1)
	s := newStore(t, p.primary, p.standby, broker.brokers, itemsTable)
	s.cfg.TransactionBytes = 8 << 10
	s.exec(t, "INSERT INTO items SELECT i, repeat('x', 100) FROM generate_series(1, 5000) i")
	p.standby.Sync(t)
	broker.left.Store(4)
	r := s.start(t)
	waitFor(t, "a part of the snapshot", 20*time.Second, broker.dead.Load)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	broker.dead.Store(false)
	if pos, _, err := readPosition(t.Context(), s.kafka, s.registry, slog.New(slog.DiscardHandler), settled, s.cfg.Slot); err != nil || pos.Snapshot != snapshotRunning {
		t.Fatalf("the snapshot was not interrupted: %q, %v", pos.Snapshot, err)
	}
	s.exec(t, "DELETE FROM items WHERE id % 2 = 0")
	p.standby.Sync(t)
	r = s.start(t)
	s.settled(t, r)
	s.matches(t, "items", "id", "a")
}

func deletesByDifference(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, "INSERT INTO items SELECT i FROM generate_series(1, 100) i; INSERT INTO notes VALUES ('a', 1), ('b', 2)")
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	before, _, _ := r.state.claim()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.service(t).Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.exec(t, "DELETE FROM items WHERE id > 50; UPDATE items SET a = 'new'; DELETE FROM notes WHERE m = 1")
	p.standby.Sync(t)
	r = s.start(t)
	s.quiet(t, r)
	s.matches(t, "items", "id", "a")
	s.matches(t, "notes", "k", "m")
	if after, _, _ := r.state.claim(); after.SourceLSN <= before.SourceLSN {
		t.Errorf("the position went from %d to %d", before.SourceLSN, after.SourceLSN)
	}
}

// gapAfter runs, stops, lets something happen, and expects the next run to refuse.
func gapAfter(t *testing.T, p *pair, between func(*store), want string) *store {
	t.Helper()
	s := p.store(t, itemsTable)
	s.exec(t, "INSERT INTO items SELECT i FROM generate_series(1, 10) i")
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s.exec(t, "DELETE FROM items WHERE id = 3; INSERT INTO items VALUES (11)")
	p.standby.Sync(t)
	waitFor(t, "the source to notice that nobody reads the slot", 20*time.Second, func() bool {
		return p.standby.Query(t, "SELECT count(*) FROM pg_replication_slots WHERE active AND slot_name = $1", s.cfg.Slot) == "0"
	})
	between(s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := s.service(t).Run(ctx)
	if !errors.Is(err, ErrGap) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "cdc reconcile") {
		t.Fatalf("the run ends with %v, want a gap that says %q and what to do", err, want)
	}
	if err := s.service(t).Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = s.start(t)
	s.quiet(t, r)
	s.matches(t, "items", "id", "a")
	return s
}

func slotDropped(t *testing.T, p *pair) {
	gapAfter(t, p, func(s *store) { p.standby.Exec(t, "SELECT pg_drop_replication_slot('"+s.cfg.Slot+"')") }, "is not on the source any more")
}

func slotAdvanced(t *testing.T, p *pair) {
	gapAfter(t, p, func(s *store) {
		conn := pgtest.Connect(t, p.standby.DSN("postgres", s.database))
		if _, err := conn.Exec(t.Context(), "SELECT pg_replication_slot_advance($1, pg_last_wal_replay_lsn())", s.cfg.Slot); err != nil {
			t.Fatal(err)
		}
	}, "somebody moved the slot")
}

func positionMissing(t *testing.T, p *pair) {
	gapAfter(t, p, func(s *store) { s.kafka.Brokers = brokertest.New(t) }, "Kafka has no position of it")
}

func differenceOnGap(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.cfg.OnGap = onGapReconcile
	r := s.start(t)
	s.quiet(t, r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s.exec(t, "INSERT INTO items VALUES (1)")
	p.standby.Sync(t)
	p.standby.Exec(t, "SELECT pg_drop_replication_slot('"+s.cfg.Slot+"')")
	r = s.start(t)
	s.settled(t, r)
	s.matches(t, "items", "id")
}

func columnKinds(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN cents AS bigint; CREATE DOMAIN price AS numeric(8,3);
		CREATE TABLE kinds (id uuid PRIMARY KEY, m mood, c cents, p price, free numeric, arr int[], r int4range, d date, raw bytea, f float8, iv interval,
			"odd name" text, tz timetz, loc timestamp, plus_one int GENERATED ALWAYS AS (1 + 1) STORED);
		CREATE PUBLICATION millrace FOR TABLE kinds`)
	insert := `INSERT INTO kinds VALUES (gen_random_uuid(), 'happy', 99, 1.5, 'NaN', '{1,2,NULL}', '[1,5)', '0044-03-15 BC', '\x00ff', 'infinity', '1 day 2 hours', E'a\nb', '10:00+02', '2024-01-02 03:04:05.6')`
	s.exec(t, insert)
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, insert)
	s.quiet(t, r)
	if c, _, _ := r.state.claim(); len(c.Incomplete) > 0 {
		t.Fatalf("stopped: %v", c.Incomplete)
	}
	s.matches(t, "kinds", "id", "m", "c", "p", "free", "r", "raw", "tz")
	var texts []string
	for _, row := range s.fold(t, "kinds") {
		delete(row, "id")
		texts = append(texts, fmt.Sprint(row))
	}
	if len(texts) != 2 || texts[0] != texts[1] {
		t.Errorf("the snapshot and the stream differ: %v", texts)
	}
}

func partitionedTables(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE parts (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
		CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
		CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
		CREATE TABLE few (id int PRIMARY KEY, v int);
		INSERT INTO parts VALUES (1, '2024-05-05'), (2, '2025-05-05'); INSERT INTO few SELECT i, i FROM generate_series(1, 10) i;
		CREATE PUBLICATION millrace FOR TABLE parts, few WHERE (id > 5) WITH (publish_via_partition_root = true)`)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO parts VALUES (3, '2024-06-06'); UPDATE parts SET at = '2025-07-07' WHERE id = 1; INSERT INTO few VALUES (3000, 1); DELETE FROM few WHERE id = 7")
	s.quiet(t, r)
	s.matches(t, "parts", "id")
	if n := len(s.fold(t, "few")); n != 5 {
		t.Errorf("%d rows of the filtered table, want 5", n)
	}
}

func tooLarge(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO items VALUES (1, 'a'); INSERT INTO items (id, big) VALUES (2, repeat('x', 3000000)); INSERT INTO notes VALUES ('goes on', 1)")
	s.quiet(t, r)
	if c, _, _ := r.state.claim(); len(c.Incomplete) != 1 || c.Incomplete[0] != "public.items" {
		t.Errorf("incomplete: %v", c.Incomplete)
	}
	s.matches(t, "notes", "k", "m")
}

func commands(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	source := SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))}
	var out strings.Builder
	if err := Check(t.Context(), &out, s.cfg, source); err != nil || !strings.Contains(out.String(), "ready for capture") {
		t.Fatalf("check: %v\n%s", err, &out)
	}
	r := s.start(t)
	if r.Ready() == nil {
		t.Error("ready before it began")
	}
	s.quiet(t, r)
	if err := s.service(t).Reset(t.Context()); err == nil || !strings.Contains(err.Error(), "is read by process") {
		t.Errorf("reset beside a running cdc: %v", err)
	}
	out.Reset()
	if err := r.Status(t.Context(), &out); err != nil || !strings.Contains(out.String(), "snapshot   done") || !strings.Contains(out.String(), "read by process") {
		t.Errorf("status: %v\n%s", err, &out)
	}
}

func keylessTable(t *testing.T, p *pair) {
	s := p.store(t, itemsTable+"; CREATE TABLE keyless (id int)")
	r := s.start(t)
	s.quiet(t, r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s.exec(t, "ALTER PUBLICATION millrace ADD TABLE keyless; INSERT INTO keyless VALUES (1); INSERT INTO items VALUES (1)")
	p.standby.Sync(t)
	r = s.start(t)
	s.quiet(t, r)
	s.matches(t, "items", "id")
	if c, _, _ := r.state.claim(); len(c.Incomplete) != 1 || c.Incomplete[0] != "public.keyless" {
		t.Errorf("incomplete: %v", c.Incomplete)
	}
}
