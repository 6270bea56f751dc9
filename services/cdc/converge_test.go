//go:build real

package cdc

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/schemas"
)

// convergeSeeds are run by default: among them are a first snapshot that is cut short, a lost slot and a promotion.
const convergeSeeds = "0-5"

// What one seed does.
const (
	convergeRounds  = 8 // faults and requests
	convergeWriters = 3
	convergeKeys    = 60
)

var convergeFlag = flag.String("converge-seeds", convergeSeeds, "seeds of TestConverge, such as 3 or 0-20")

// convergeTable is a table of which the histories only know that an int names a row.
type convergeTable struct {
	name    string
	columns []string // the key first
	key     func(i int) []string
	keys    int // key columns
	large   bool
	full    bool // REPLICA IDENTITY FULL
}

func oneKey(i int) []string { return []string{strconv.Itoa(i)} }

var convergeTables = []convergeTable{
	{name: "items", columns: []string{"id", "a", "n", "big"}, key: oneKey, keys: 1, large: true},
	{name: "wholes", columns: []string{"id", "a", "n", "big"}, key: oneKey, keys: 1, large: true, full: true},
	{name: "pairs", columns: []string{"k", "m", "a", "n", "big"}, keys: 2, large: true,
		key: func(i int) []string { return []string{fmt.Sprintf("'k%d'", i%5), strconv.Itoa(i / 5)} }},
	{name: "parts", columns: []string{"id", "p", "a", "n", "big"}, keys: 2, large: true,
		key: func(i int) []string { return []string{strconv.Itoa(i), strconv.Itoa(i % 2)} }},
	{name: "plain", columns: []string{"id", "a", "n"}, key: oneKey, keys: 1},
}

const convergeSetup = `
	CREATE TABLE items (id int PRIMARY KEY, a text, n int, big text);
	CREATE TABLE wholes (id int PRIMARY KEY, a text, n int, big text);
	ALTER TABLE wholes REPLICA IDENTITY FULL;
	CREATE TABLE pairs (k text, m int, a text, n int, big text, PRIMARY KEY (k, m));
	CREATE TABLE parts (id int, p int, a text, n int, big text, PRIMARY KEY (id, p)) PARTITION BY LIST (p);
	CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0);
	CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
	CREATE TABLE plain (id int PRIMARY KEY, a text, n int);
	ALTER TABLE items ALTER big SET STORAGE EXTERNAL; ALTER TABLE wholes ALTER big SET STORAGE EXTERNAL; ALTER TABLE pairs ALTER big SET STORAGE EXTERNAL;
	ALTER TABLE parts_0 ALTER big SET STORAGE EXTERNAL; ALTER TABLE parts_1 ALTER big SET STORAGE EXTERNAL;
	CREATE PUBLICATION millrace FOR TABLE items, wholes, pairs, parts, plain WITH (publish_via_partition_root = true)`

// is is the condition that selects row i; set assigns its key.
func (c convergeTable) is(i int) string  { return c.assign(i, " AND ") }
func (c convergeTable) set(i int) string { return c.assign(i, ", ") }

func (c convergeTable) assign(i int, between string) string {
	var out []string
	for n, v := range c.key(i) {
		out = append(out, c.columns[n]+" = "+v)
	}
	return strings.Join(out, between)
}

func (c convergeTable) insert(r *rand.Rand, i int) string {
	values := append(c.key(i), fmt.Sprintf("'a%d'", r.IntN(99)), strconv.Itoa(r.IntN(999)))
	if c.large {
		values = append(values, largeValue(r))
	}
	return fmt.Sprintf("INSERT INTO %s VALUES (%s) ON CONFLICT DO NOTHING", c.name, strings.Join(values, ", "))
}

// largeValue is one that is stored apart from its row, most of the time.
func largeValue(r *rand.Rand) string {
	switch r.IntN(6) {
	case 0:
		return "NULL"
	case 1:
		return fmt.Sprintf("'small%d'", r.IntN(99))
	}
	return fmt.Sprintf("repeat('%c%d', 1500)", 'a'+rune(r.IntN(26)), r.IntN(10))
}

// statement is a random one.
func (c convergeTable) statement(r *rand.Rand) string {
	i, j := r.IntN(convergeKeys), r.IntN(convergeKeys)
	switch r.IntN(12) {
	case 0, 1, 2:
		return c.insert(r, i)
	case 3, 4:
		return fmt.Sprintf("UPDATE %s SET a = 'u%d', n = n + 1 WHERE %s", c.name, r.IntN(99), c.is(i))
	case 5:
		return fmt.Sprintf("UPDATE %s SET a = 'all%d' WHERE n %% 7 = %d", c.name, r.IntN(99), r.IntN(7))
	case 6:
		if c.large {
			return fmt.Sprintf("UPDATE %s SET big = %s WHERE %s", c.name, largeValue(r), c.is(i))
		}
		return fmt.Sprintf("UPDATE %s SET n = -n WHERE %s", c.name, c.is(i))
	case 7:
		return fmt.Sprintf("DELETE FROM %s WHERE %s", c.name, c.is(i))
	case 8, 9: // to a free key, or to one that is made free
		sql := fmt.Sprintf("UPDATE %s SET %s WHERE %s", c.name, c.set(j), c.is(i))
		if i != j && r.IntN(2) == 0 {
			sql = fmt.Sprintf("DELETE FROM %s WHERE %s; %s", c.name, c.is(j), sql)
		}
		return sql
	case 10: // two rows change their keys with each other
		if i == j {
			return c.insert(r, i)
		}
		return fmt.Sprintf("UPDATE %[1]s SET %[2]s WHERE %[3]s; UPDATE %[1]s SET %[4]s WHERE %[5]s; UPDATE %[1]s SET %[6]s WHERE %[7]s",
			c.name, c.set(1000), c.is(i), c.set(i), c.is(j), c.set(j), c.is(1000))
	default:
		return fmt.Sprintf("DELETE FROM %s WHERE %s; %s", c.name, c.is(i), c.insert(r, i))
	}
}

// transaction is a random one; some of them fail, on keys that are taken and on each other.
func transaction(r *rand.Rand) string {
	if r.IntN(400) == 0 {
		return "TRUNCATE " + convergeTables[r.IntN(len(convergeTables))].name
	}
	var list []string
	for range 1 + r.IntN(4) {
		c := convergeTables[r.IntN(len(convergeTables))]
		sql := c.statement(r)
		if r.IntN(5) == 0 {
			sql = "SAVEPOINT a; " + sql + "; " + c.statement(r) + "; ROLLBACK TO a; " + c.statement(r)
		}
		list = append(list, sql)
	}
	return "BEGIN; " + strings.Join(list, "; ") + "; COMMIT"
}

// sessions write until they are stopped.
type sessions struct {
	done atomic.Int64
	stop func()
}

func (s *store) sessions(t *testing.T, seed, part uint64) *sessions {
	t.Helper()
	w := &sessions{}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for n := range uint64(convergeWriters) {
		conn := s.primary.Connect(t, s.database)
		r := rand.New(rand.NewPCG(seed, 100+10*part+n))
		running.Go(func() {
			if err := write(ctx, conn, r, &w.done); err != nil {
				t.Errorf("a writer: %v", err)
			}
		})
	}
	w.stop = func() { cancel(); running.Wait() }
	t.Cleanup(w.stop)
	return w
}

func write(ctx context.Context, conn *pgx.Conn, r *rand.Rand, done *atomic.Int64) error {
	for ctx.Err() == nil {
		_, err := conn.PgConn().Exec(context.WithoutCancel(ctx), transaction(r)).ReadAll()
		var refused *pgconn.PgError
		switch {
		case err == nil:
			done.Add(1)
		case !errors.As(err, &refused):
			return err
		default: // a key is taken, or two sessions wait for each other
			if refused.Code != "23505" && refused.Code != "40P01" && refused.Code != "40001" {
				return err
			}
			if _, err := conn.PgConn().Exec(context.WithoutCancel(ctx), "ROLLBACK").ReadAll(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(r.IntN(4)) * time.Millisecond):
		}
	}
	return nil
}

// more waits for so many further transactions.
func (w *sessions) more(t *testing.T, n int64) {
	t.Helper()
	until := w.done.Load() + n
	waitFor(t, "the writers", 60*time.Second, func() bool { return w.done.Load() >= until })
}

// trial is the run of one seed.
type trial struct {
	*store
	seed    uint64
	r       *rand.Rand
	broker  *flaky
	standby *pgtest.Server
	run     *running
	writers *sessions
	before  int64 // transactions on the first primary
	asked   int64 // requests
	log     []string
}

// TestConverge is Invariant 1: whatever happens to capture on the way, the folded topics are the tables at the end.
// What sessions write follows from the seed; how they meet each other and capture does not.
func TestConverge(t *testing.T) {
	first, last, ok := strings.Cut(*convergeFlag, "-")
	if !ok {
		last = first
	}
	from, err := strconv.ParseUint(first, 10, 32)
	to, err2 := strconv.ParseUint(last, 10, 32)
	if err := errors.Join(err, err2); err != nil {
		t.Fatalf("-converge-seeds: %v", err)
	}
	var primary, standby *pgtest.Server
	for seed := from; seed <= to; seed++ {
		if primary == nil {
			primary, standby = pgtest.Pair(t, "max_replication_slots", "40", "max_wal_senders", "40")
			prepare(t, primary)
		}
		promotes := seed%4 == 3
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { converge(t, primary, standby, seed, promotes) })
		if promotes { // these servers are not a pair any more
			standby.Kill()
			primary = nil
		}
	}
}

func converge(t *testing.T, primary, standby *pgtest.Server, seed uint64, promotes bool) {
	c := &trial{seed: seed, r: rand.New(rand.NewPCG(seed, 99)), broker: newFlaky(t, seed), standby: standby}
	c.store = newStore(t, primary, standby, c.broker.brokers, convergeSetup)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again: go test -tags real -run 'TestConverge' ./services/cdc -converge-seeds %d\nthis run: %s", seed, strings.Join(c.log, ", "))
		}
	})
	c.cfg.TransactionBytes = 16 << 10
	c.cfg.TransactionInterval = time.Millisecond
	c.cfg.EncodeWorkers = 1 + c.r.IntN(4)
	c.cfg.JobBytes = 128 << 10
	for _, table := range convergeTables {
		for i := range convergeKeys {
			c.exec(t, table.insert(c.r, i))
		}
	}
	loses := seed%3 == 2
	if loses {
		c.cfg.OnGap = onGapReconcile
	}
	if seed%2 == 1 {
		c.cutShort(t)
	}
	c.writers = c.sessions(t, seed, 0)
	c.run = c.start(t)
	c.writers.more(t, 20)
	for range convergeRounds {
		if c.r.IntN(4) > 0 { // else it meets what is still beginning
			c.recorded(t)
			c.writers.more(t, 40)
		}
		c.fault(t)
		c.writers.more(t, 20)
	}
	c.recorded(t)
	c.writers.more(t, 60) // every table has changes that were streamed
	if loses {
		c.loseSlot(t)
	}
	if promotes {
		c.promote(t)
	}
	c.writers.more(t, 20)
	c.writers.stop()
	c.compare(t)
	t.Logf("%d transactions; lost %d requests, %d commits unheard; %s", c.before+c.writers.done.Load(), c.broker.lost.Load(), c.broker.unheard.Load(), strings.Join(c.log, ", "))
}

// cutShort ends capture in the middle of the first snapshot, and deletes rows before it goes on.
func (c *trial) cutShort(t *testing.T) {
	t.Helper()
	c.did("cut the first snapshot short")
	c.exec(t, "INSERT INTO plain SELECT i, repeat('x', 900), i FROM generate_series(10000, 22000) i")
	c.standby.Sync(t)
	c.cfg.SnapshotWorkers = 1
	read := make(chan struct{})
	var once sync.Once
	after := int64(c.r.IntN(3))
	var ranges atomic.Int64
	c.run = c.startWith(t, hooks{copied: func(string, int64) {
		if ranges.Add(1) > after {
			once.Do(func() { close(read) })
			time.Sleep(50 * time.Millisecond) // the rest has to be left
		}
	}})
	select {
	case <-read:
	case <-time.After(30 * time.Second):
		t.Fatal("no range was read")
	}
	c.kill(t)
	c.exec(t, "DELETE FROM plain WHERE id % 2 = 0 AND id >= 10000; DELETE FROM items WHERE id % 3 = 0; DELETE FROM wholes WHERE id % 4 = 0; DELETE FROM pairs WHERE m = 1")
}

func (c *trial) did(what string) { c.log = append(c.log, what) }

// kill ends capture as kill -9 does: nothing that it has in hand gets into Kafka.
func (c *trial) kill(t *testing.T) {
	t.Helper()
	c.broker.dead.Store(true)
	if err := c.run.stop(); err != nil {
		t.Fatal(err)
	}
	c.broker.dead.Store(false)
}

// fault does something to capture, or has it do something, while the sessions write.
func (c *trial) fault(t *testing.T) {
	t.Helper()
	table := convergeTables[c.r.IntN(len(convergeTables))]
	some := []string{"public." + table.name}
	switch n := c.r.IntN(10); n {
	case 0, 1:
		c.did("kill")
		c.kill(t)
		c.writers.more(t, int64(c.r.IntN(40)))
		c.run = c.start(t)
	case 2:
		c.did("flaky Kafka")
		c.broker.on.Store(true)
		c.writers.more(t, 60)
		c.broker.on.Store(false)
	case 3:
		c.did("no commits")
		c.broker.dead.Store(true)
		c.writers.more(t, 40)
		c.broker.dead.Store(false)
	case 4:
		c.request(t, schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: some})
	case 5:
		c.request(t, schemas.CaptureRequest{Kind: schemas.CaptureSnapshot, Tables: some, Where: fmt.Sprintf("n %% 3 = %d", c.r.IntN(3))})
	case 6:
		c.request(t, schemas.CaptureRequest{Kind: schemas.CapturePause, Tables: some})
		c.writers.more(t, 30)
		c.request(t, schemas.CaptureRequest{Kind: schemas.CaptureResume, Tables: some})
	case 7:
		c.request(t, schemas.CaptureRequest{Kind: schemas.CaptureReconcile, Tables: some})
	case 8:
		c.did("terminate")
		c.standby.Exec(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '"+c.cfg.Slot+"'")
	case 9:
		c.did("restart of the standby")
		c.standby.Kill()
		c.standby.Start(t)
	}
}

// request writes one and does not wait; now and then capture is killed over it.
func (c *trial) request(t *testing.T, q schemas.CaptureRequest) {
	t.Helper()
	c.did(strings.TrimSpace(fmt.Sprint(q.Kind, " ", q.Tables, " ", q.Where)))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	if err := c.run.Ask(ctx, &out, q, true); err != nil {
		t.Fatal(err)
	}
	c.asked++
	if c.r.IntN(3) == 0 {
		c.writers.more(t, int64(1+c.r.IntN(10)))
		c.did("kill")
		c.kill(t)
		c.run = c.start(t)
	}
}

// loseSlot drops the slot while rows change.
func (c *trial) loseSlot(t *testing.T) {
	t.Helper()
	c.did("lose the slot")
	c.recorded(t)
	c.kill(t)
	c.unread(t)
	c.standby.Exec(t, "SELECT pg_drop_replication_slot('"+c.cfg.Slot+"')")
	c.exec(t, "DELETE FROM items WHERE id % 5 = 0; DELETE FROM pairs WHERE m = 2")
	c.writers.more(t, 20)
	c.run = c.start(t)
	c.writers.more(t, 20)
}

// recorded waits until capture has a slot and streams.
func (c *trial) recorded(t *testing.T) {
	t.Helper()
	waitFor(t, "the stream", 60*time.Second, func() bool { return c.run.Ready() == nil })
}

// promote makes the standby the primary, which has everything that the other had.
func (c *trial) promote(t *testing.T) {
	t.Helper()
	c.did("promote")
	c.recorded(t)
	c.writers.stop()
	c.before = c.writers.done.Load()
	_ = c.write.Close(t.Context())
	_ = c.primary.Stop(t.Context())
	c.standby.Promote(t)
	c.primary = c.standby
	c.write = c.primary.Connect(t, c.database)
	c.writers = c.sessions(t, c.seed, 1)
}

// compare waits until everything is done, and compares.
func (c *trial) compare(t *testing.T) {
	t.Helper()
	c.recorded(t)
	waitFor(t, "the requests", 60*time.Second, func() bool { return c.run.position().Requests >= c.asked })
	for table, why := range c.run.position().Stopped {
		t.Errorf("%s is stopped: %s", table, why)
	}
	waitFor(t, "the jobs", 90*time.Second, func() bool { return len(c.run.position().Jobs) == 0 })
	c.settled(t, c.run)
	for _, table := range convergeTables {
		c.matches(t, table.name, table.columns...)
		noDoubles(t, c.store, table.name)
		if !table.full {
			continue
		}
		for _, e := range c.events(t, table.name) {
			if e.unchanged != nil {
				t.Fatalf("an event of %s, whose old rows are whole, does not have %v", table.name, e.unchanged)
			}
		}
	}
	c.isEqual(t)
	if err := c.run.stop(); err != nil {
		t.Fatal(err)
	}
}

// TestConvergeSnapshotCutShortAgain ends capture again and again before what is left of the first snapshot is read.
func TestConvergeSnapshotCutShortAgain(t *testing.T) {
	primary, standby := pgtest.Pair(t)
	prepare(t, primary)
	s := (&pair{primary: primary, standby: standby}).store(t, itemsTable)
	s.exec(t, wide)
	standby.Sync(t)
	s.cfg.SnapshotWorkers, s.cfg.JobBytes = 1, 256<<10
	cut := 0
	for i := range 6 {
		r := s.start(t)
		waitFor(t, "a job", 20*time.Second, func() bool { return len(r.position().Jobs) > 0 })
		if i > 0 {
			waitFor(t, "the stream", 20*time.Second, func() bool { return r.Ready() == nil })
		}
		s.exec(t, fmt.Sprintf("DELETE FROM items WHERE id %% 7 = %d; UPDATE items SET n = 1 WHERE id %% 50 = 3", i))
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if len(r.position().Jobs) > 0 {
			cut++
		} else {
			break // a fast machine has read it all
		}
	}
	if cut == 0 {
		t.Error("the snapshot was never cut short")
	}
	r := s.start(t)
	s.settled(t, r)
	s.matches(t, "items", "id", "a", "n")
	s.isEqual(t)
}
