//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/services/demo"
	"github.com/millrace-io/millrace/test/harness"
	"github.com/millrace-io/millrace/test/realparts"
)

// pipeline is a source with a standby, a broker, a registry, a durable sales database, and the programs between them.
type pipeline struct {
	*report
	primary, standby *pgtest.Server
	source           *pgxpool.Pool // on the primary, as its owner
	sales            *pgserver.Server
	brokers          []string
	registry         string
	kafka            *kgo.Client
	admin            *kadm.Client
	env              []string
	cdc              *harness.Process
	positions        *positions
}

// benchPipeline measures one program after the other on the data that the one before has made.
func benchPipeline(t *testing.T, r *report) {
	p := newPipeline(t, r)
	t.Run("cdc", p.benchCDC)
	t.Run("latency", p.benchLatency)
	t.Run("enrich", p.benchEnrich)
	t.Run("activity", p.benchActivity)
	t.Run("aggregate", p.benchAggregate)
	t.Run("recommend", p.benchRecommend)
	t.Run("edge", p.benchEdge)
}

func newPipeline(t *testing.T, r *report) *pipeline {
	t.Helper()
	p := &pipeline{report: r}
	p.startKafka(t)
	srv := httptest.NewServer(registry.NewMemory())
	t.Cleanup(srv.Close)
	p.registry = srv.URL
	var err error
	if p.kafka, err = client(p.brokers, "bench"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kafka.Close)
	p.admin = kadm.NewClient(p.kafka)
	p.startSource(t)
	p.startSales(t)
	p.env = env("KAFKA_BROKERS", strings.Join(p.brokers, ","), "REGISTRY_URL", p.registry, "SALES_URL", p.sales.DSN("postgres", "postgres"),
		"SOURCE_URL", p.standby.DSN("cdc", "postgres"), "PRIVACY_KEY_FILE", harness.KeyFile(t), "ENRICH_MAPPING", "demo",
		"KAFKA_INSTANCE_ID", "0", "CDC_PUBLICATION", publication, "LOG_LEVEL", "warn")
	return p
}

// startKafka prefers the real one, because embedded and measuring program share a process.
func (p *pipeline) startKafka(t *testing.T) {
	t.Helper()
	kind := os.Getenv("MILLRACE_TEST_KAFKA")
	if kind != "embedded" && (kind == "real" || !testing.Short()) {
		b, err := realparts.StartKafka(t.Context(), realparts.Options{FullSpeed: true})
		var absent *realparts.MissingError
		switch {
		case err == nil:
			t.Cleanup(func() {
				if err := b.Close(); err != nil {
					t.Errorf("close Kafka: %v", err)
				}
			})
			p.brokers = b.Seeds()
			p.note("Kafka: Apache Kafka %s, one broker on the same machine, flushed by the operating system as it comes", b.Version())
			return
		case kind == "real" || !errors.As(err, &absent):
			t.Fatal(err)
		}
	}
	p.brokers = brokertest.New(t)
	p.note("Kafka: the embedded broker, in memory, in the measuring process")
}

// benchTables are for rows that only cdc reads.
const benchTables = `
CREATE TABLE bench_rows (id bigint PRIMARY KEY, order_number bigint NOT NULL, product_code text NOT NULL, quantity integer NOT NULL,
	price numeric(10,2) NOT NULL, changed_at timestamptz NOT NULL, note text);
GRANT SELECT ON bench_rows TO cdc;
CREATE PUBLICATION bench FOR TABLE offices, employees, customers, product_lines, products, orders, order_details, ratings, bench_rows`

func (p *pipeline) startSource(t *testing.T) {
	t.Helper()
	p.primary, p.standby = pgtest.Pair(t, "max_wal_size", "8GB", "shared_buffers", "256MB", "autovacuum", "off", "checkpoint_timeout", "1h")
	p.note("source: PostgreSQL %s, primary and standby, fsync off on both; sales database: a server of its own, fsync on", pgserver.DefaultVersion)
	if err := demo.Setup(t.Context(), p.primary.DSN("postgres", "postgres"), demo.Options{Seed: 1, HistoryDays: 3, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.source, err = pgxpool.New(t.Context(), p.primary.DSN("postgres", "postgres")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.source.Close)
	p.exec(t, benchTables)
	harness.Busy(t, p.primary)
}

// startSales starts a durable server and tells what a commit costs on it.
func (p *pipeline) startSales(t *testing.T) {
	t.Helper()
	// Not pgtest.Dir, which may be memory, nor t.TempDir, which PostgreSQL's user cannot enter.
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := pgserver.Open(ctx, pgserver.Options{Installation: pgtest.Installation(t), Dir: filepath.Join(dir, "sales"), Name: "bench sales",
		Template: pgtest.Template(t), Settings: map[string]string{"shared_buffers": "256MB", "max_wal_size": "4GB"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	p.sales = s
	conn := pgtest.Connect(t, s.DSN("postgres", "postgres"))
	var fsync string
	if err := conn.QueryRow(ctx, "SHOW fsync").Scan(&fsync); err != nil || fsync != "on" {
		t.Fatalf("fsync is %q, %v", fsync, err)
	}
	begin, n := time.Now(), 0
	if _, err := conn.Exec(ctx, "CREATE TABLE commits (n int)"); err != nil {
		t.Fatal(err)
	}
	for ; time.Since(begin) < 300*time.Millisecond; n++ {
		if _, err := conn.Exec(ctx, "INSERT INTO commits VALUES ($1)", n); err != nil {
			t.Fatal(err)
		}
	}
	p.note("a durable commit of one row takes %v on the sales database", (time.Since(begin) / time.Duration(max(n, 1))).Round(time.Microsecond))
}

// program starts a program that lives until t ends.
func (p *pipeline) program(t *testing.T, name string, more ...string) *harness.Process {
	t.Helper()
	missing(t, name)
	return harness.Start(t, name, append(append([]string(nil), p.env...), more...))
}

func (p *pipeline) exec(t testing.TB, sql string) {
	t.Helper()
	if err := runSQL(t.Context(), p.source, sql); err != nil {
		t.Fatal(err)
	}
}

func runSQL(ctx context.Context, pool *pgxpool.Pool, sql string) error {
	if _, err := pool.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("%.60s: %w", sql, err)
	}
	return nil
}

// ends is the number of offsets of the topics up to the last stable one, transaction markers included.
func (p *pipeline) ends(ctx context.Context, topics ...string) (int64, error) {
	listed, err := p.admin.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return 0, err
	}
	var sum int64
	listed.Each(func(o kadm.ListedOffset) { sum += max(o.Offset, 0) })
	return sum, listed.Error()
}

// grouped is the sum of a group's committed offsets.
func (p *pipeline) grouped(ctx context.Context, group string, topics ...string) (int64, error) {
	offsets, err := p.admin.FetchOffsets(ctx, group)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, topic := range topics {
		for _, o := range offsets[topic] {
			sum += max(o.At, 0)
		}
	}
	return sum, nil
}

// window is a stretch of work.
type window struct {
	done int64
	wall time.Duration
	cpu  time.Duration
}

func (w window) rate() float64    { return float64(w.done) / w.wall.Seconds() }
func (w window) perCore() float64 { return float64(w.done) / w.cpu.Seconds() }

// longEnough is after how long a stretch is not followed to its end.
const longEnough = 15 * time.Second

// work follows done, which grows to total, and returns the stretch from a twentieth of it to its end: not the start of
// the program, but warm caches and all that it leaves behind.
func work(t testing.TB, proc *harness.Process, total int64, within time.Duration, done func() (int64, error)) window {
	t.Helper()
	type point struct {
		at   time.Time
		cpu  time.Duration
		done int64
	}
	var first point
	deadline := time.Now().Add(within)
	for {
		n, err := done()
		if err != nil {
			n = 0 // what it asks is not there yet
		}
		now := point{time.Now(), proc.CPU(), n}
		if first.at.IsZero() && n >= total/20 {
			first = now
		}
		if n >= total || !first.at.IsZero() && now.at.Sub(first.at) > longEnough {
			return window{done: now.done - first.done, wall: now.at.Sub(first.at), cpu: now.cpu - first.cpu}
		}
		if now.at.After(deadline) {
			t.Fatalf("%s is at %d of %d after %v (%v)\n%s", proc.Name, n, total, within, err, proc.Tail(20))
		}
		time.Sleep(10 * time.Millisecond) // the resolution
	}
}

// stop ends a program in order and tells what it held.
func (p *pipeline) stop(t testing.TB, proc *harness.Process, under string) {
	t.Helper()
	peak := proc.Memory()
	proc.Stop(syscall.SIGTERM)
	p.limit(t, proc.Name+": memory, "+under, fmt.Sprintf("%d MiB", peak), "256 MB", peak < 256)
}

// idle tells what a program holds before it has work.
func (p *pipeline) idle(t testing.TB, proc *harness.Process) {
	t.Helper()
	now := proc.Resident()
	p.limit(t, proc.Name+": memory, idle", fmt.Sprintf("%d MiB", now), "64 MB", now < 64)
}
