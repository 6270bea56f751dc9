//go:build bench

package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/test/harness"
	"github.com/millrace-io/millrace/test/realparts"
)

// debeziumVariable is the environment variable that lets TestDebezium run: it takes long and writes a document.
const debeziumVariable = "MILLRACE_BENCH_DEBEZIUM"

// TestDebezium runs Debezium's PostgreSQL connector in Kafka Connect and cdc one after the other: the same Kafka, standby,
// table and changes, each on a slot of its own that was made before the changes. See debezium/run.sh.
func TestDebezium(t *testing.T) {
	if os.Getenv(debeziumVariable) == "" {
		t.Skip("SKIPPED: test/bench/debezium/run.sh runs it: NOTHING WAS MEASURED")
	}
	missing(t, "cdc")
	d := newDuel(t)
	for _, c := range d.contenders {
		t.Run("first start of "+c.name, func(t *testing.T) { d.introduce(t, c) })
	}
	bulk, single := size(1_000_000, 50_000), size(300_000, 20_000)
	d.drainAll(t, "transactions of 1,000 rows", bulk, func() { d.writeBulk(t, bulk/1000) }, func(c *contender) *window { return &c.bulk })
	d.drainAll(t, "single-row transactions", single, func() { d.writeSingle(t, single) }, func(c *contender) *window { return &c.single })
	for _, c := range d.contenders {
		t.Run("latency of "+c.name, func(t *testing.T) { d.measureLatency(t, c) })
	}
	for _, c := range d.contenders {
		t.Run("records of "+c.name, func(t *testing.T) { d.check(t, c) })
	}
	if !t.Failed() {
		d.publish(t)
	}
}

// duel is a source and a Kafka with a registry, and who captures the one into the other.
type duel struct {
	pipeline
	registry   *realparts.Registry
	contenders []*contender
	load       string // of the machine when it began
}

// contender is one way of capturing, and what was measured of it.
type contender struct {
	name  string
	ours  bool
	once  bool   // claims to repeat nothing
	topic string // of bench_rows
	ended string // topic of bench_end
	slot  string
	start func(t *testing.T) capture

	bulk, single window
	memory       int64 // MiB at most
	p50, p99     time.Duration
	commits      float64 // a second, while p50 and p99 were measured
	rows         string  // how many it has captured
	repeated     int
}

// capture is a contender that runs.
type capture struct {
	pid  int
	stop func(t *testing.T)
}

// duelTables: bench_end says that all that was written before it is captured.
const duelTables = `
CREATE TABLE bench_rows (id bigint PRIMARY KEY, order_number bigint NOT NULL, product_code text NOT NULL, quantity integer NOT NULL,
	price numeric(10,2) NOT NULL, changed_at timestamptz NOT NULL, note text);
CREATE TABLE bench_end (id bigint PRIMARY KEY);
CREATE ROLE cdc LOGIN REPLICATION;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO cdc;
CREATE PUBLICATION bench FOR TABLE bench_rows, bench_end`

func newDuel(t *testing.T) *duel {
	t.Helper()
	d := &duel{pipeline: pipeline{report: &report{begin: time.Now()}}, load: loadAverage()}
	d.registry = realparts.ApicurioRegistry(t)
	b := realparts.Kafka(t, realparts.Options{FullSpeed: true})
	d.brokers = b.Seeds()
	var err error
	if d.kafka, err = client(d.brokers, "bench"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kafka.Close)
	d.admin = kadm.NewClient(d.kafka)
	d.primary, d.standby = pgtest.Pair(t, "max_wal_size", "8GB", "shared_buffers", "256MB", "autovacuum", "off", "checkpoint_timeout", "1h")
	if d.source, err = pgxpool.New(t.Context(), d.primary.DSN("postgres", "postgres")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.source.Close)
	d.exec(t, duelTables)
	d.standby.Sync(t)
	harness.Busy(t, d.primary)
	d.contenders = []*contender{
		d.millrace(t, "exactly_once"),
		d.millrace(t, "at_least_once"),
		d.debezium(t, "as it comes", nil, false),
		d.debezium(t, "tuned", tuned(), false),
		d.debezium(t, "tuned, exactly once", tuned(), true),
	}
	return d
}

// introduce lets a contender make its slot and register its schemas with a few rows.
func (d *duel) introduce(t *testing.T, c *contender) {
	run := c.start(t)
	d.awaitSlot(t, c)
	d.exec(t, "INSERT INTO bench_rows SELECT (SELECT coalesce(min(id), 0) FROM bench_rows) - i, i, 'S18_1', 1, 9.95, now(), 'warm' FROM generate_series(1, 100) AS i")
	d.finish(t, c, d.end(t), time.Minute)
	run.stop(t)
}

// awaitSlot waits until somebody reads the contender's slot.
func (d *duel) awaitSlot(t *testing.T, c *contender) {
	t.Helper()
	harness.Eventually(t, time.Minute, func() bool {
		return d.standby.Query(t, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND active", c.slot) == "1"
	}, func() string { return c.name + " does not stream" })
}

// end writes the row after which there is nothing, and returns how many there are.
func (d *duel) end(t *testing.T) int64 {
	t.Helper()
	d.exec(t, "INSERT INTO bench_end SELECT coalesce(max(id), 0) + 1 FROM bench_end")
	var n int64
	if err := d.source.QueryRow(t.Context(), "SELECT max(id) FROM bench_end").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// finish waits until a read_committed consumer sees the n-th end.
func (d *duel) finish(t *testing.T, c *contender, n int64, within time.Duration) time.Time {
	t.Helper()
	cl, err := client(d.brokers, "ends", kgo.ConsumeTopics(c.ended), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for seen := int64(0); ; {
		fetches := cl.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) { seen = max(seen, keyOf(r)) })
		switch {
		case seen >= n:
			return time.Now()
		case ctx.Err() != nil:
			t.Fatalf("%s has not captured everything after %v: it saw end %d of %d", c.name, within, seen, n)
		}
	}
}

// keyOf reads a key of one whole number: the frame, then a varint.
func keyOf(r *kgo.Record) int64 {
	const frame = 5
	if len(r.Key) <= frame {
		return 0
	}
	n, _ := binary.Varint(r.Key[frame:])
	return n
}

// drainAll writes while nobody reads, and then has each contender read it.
func (d *duel) drainAll(t *testing.T, what string, rows int, write func(), of func(*contender) *window) {
	write()
	end := d.end(t)
	d.standby.Sync(t)
	for _, c := range d.contenders {
		t.Run(c.name+", "+what, func(t *testing.T) { *of(c) = d.drain(t, c, rows, end) })
	}
}

// drain measures from a tenth of the rows, when programs are warm, to the end.
func (d *duel) drain(t *testing.T, c *contender, rows int, end int64) window {
	before, err := d.ends(t.Context(), c.topic)
	if err != nil {
		t.Fatal(err)
	}
	run := c.start(t)
	var first int64
	harness.Eventually(t, 3*time.Minute, func() bool {
		now, err := d.ends(t.Context(), c.topic)
		if err != nil {
			t.Fatal(err)
		}
		first = now - before
		return first >= int64(rows/10)
	}, func() string { return fmt.Sprintf("%s has %d of %d rows", c.name, first, rows) })
	begin, cpu := time.Now(), harness.TreeCPU(run.pid)
	wall := d.finish(t, c, end, 5*time.Minute).Sub(begin)
	w := window{done: int64(rows) - first, wall: wall, cpu: harness.TreeCPU(run.pid) - cpu}
	c.memory = max(c.memory, harness.PeakMemory(run.pid))
	run.stop(t)
	t.Logf("%s rows/s, %.1f CPU-seconds a million rows", count(w.rate()), 1e6/w.perCore())
	return w
}

// writeBulk writes transactions of 1,000 rows.
func (d *duel) writeBulk(t *testing.T, transactions int) {
	t.Helper()
	d.do(t, fmt.Sprintf(`DO $$
DECLARE base bigint := (SELECT greatest(max(id), 0) + 1 FROM bench_rows);
BEGIN
	FOR t IN 0..%d LOOP
		INSERT INTO bench_rows SELECT base + t * 1000 + i, t, 'S18_' || i %% 997, 1 + i %% 50, (i %% 20000) / 100.0, now(), 'note ' || md5(i::text)
		FROM generate_series(0, 999) AS i;
		COMMIT;
	END LOOP;
END $$`, transactions-1))
}

// measureLatency is from the end of a commit to the record in the hands of a read_committed consumer, at 2,000
// transactions a second, after a few seconds to warm up.
func (d *duel) measureLatency(t *testing.T, c *contender) {
	run := c.start(t)
	d.awaitSlot(t, c)
	d.finish(t, c, d.end(t), 5*time.Minute)
	const rate = 2000
	var took []time.Duration
	for _, seconds := range []time.Duration{span(5*time.Second, 2*time.Second), span(15*time.Second, 3*time.Second)} {
		n := int(rate * seconds.Seconds())
		base := time.Now().UnixNano()
		took, c.commits = d.commits(t, base, n, d.arrivals(t, c.topic, base, n), func(n int, commit func(int)) { steady(t.Context(), n, rate, 8, commit) })
		t.Logf("%.0f commits/s: p50 %s, p99 %s", c.commits, round(quantile(took, 0.5)), round(quantile(took, 0.99)))
	}
	c.p50, c.p99 = quantile(took, 0.5), quantile(took, 0.99)
	c.memory = max(c.memory, harness.PeakMemory(run.pid))
	c.rows = d.primary.Query(t, "SELECT count(*) FROM bench_rows WHERE id > 0")
	run.stop(t)
}

// check reads the contender's topic from the beginning: every row must be there.
func (d *duel) check(t *testing.T, c *contender) {
	ends, err := d.ends(t.Context(), c.topic)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client(d.brokers, "check", kgo.ConsumeTopics(c.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	seen := map[int64]bool{}
	at := map[int32]int64{}
	for sum := int64(0); sum < ends; {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%s: read %d of %d offsets", c.name, sum, ends)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			sum += r.Offset + 1 - at[r.Partition]
			at[r.Partition] = r.Offset + 1
			if r.Attrs.IsControl() {
				return
			}
			if id := keyOf(r); id > 0 && seen[id] {
				if c.repeated++; c.once && c.repeated == 1 {
					t.Errorf("%s: a row comes twice: the second time at offset %d of partition %d, of %v, from producer %d in epoch %d",
						c.name, r.Offset, r.Partition, r.Timestamp, r.ProducerID, r.ProducerEpoch)
				}
			} else if id > 0 {
				seen[id] = true
			}
		})
	}
	if got := fmt.Sprint(len(seen)); got != c.rows {
		t.Errorf("%s: %s rows in the topic, %s in the table", c.name, got, c.rows)
	}
	t.Logf("%d rows, %d repeated", len(seen), c.repeated)
}
