package aggregate

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/aggregate/internal/ledger"
	"github.com/millrace-io/millrace/services/aggregate/internal/salestest"
)

// bench is everything around the service.
type bench struct {
	kafka    kafka.Config
	registry string
	dsn      string
	client   *kgo.Client
	encoders map[string]*avro.Encoder
	keys     *privacy.Keys
}

var exponents = map[string]int{"JPY": 0, "KWD": 3}

func newBench(t testing.TB, dsn string) *bench {
	t.Helper()
	b := &bench{kafka: kafka.DefaultConfig(), dsn: dsn, encoders: map[string]*avro.Encoder{}}
	b.kafka.Brokers, b.kafka.InstanceID, b.kafka.TopicPrefix = brokertest.New(t), "one", "t."
	server := httptest.NewServer(registry.NewMemory())
	t.Cleanup(server.Close)
	b.registry = server.URL
	var err error
	b.client, err = b.kafka.Client("test", slog.New(slog.DiscardHandler), nil)
	must(t, err)
	t.Cleanup(b.client.Close)
	b.makeTopics(t)
	for _, topic := range []string{schemas.SalesOrders, schemas.SalesLines, schemas.SalesProducts, schemas.Progress} {
		b.encoders[topic], err = avro.NewEncoder(t.Context(), b.reg(t), schemas.Subject(topic), schemas.Latest(topic))
		must(t, err)
	}
	b.keys, err = privacy.NewKeys(privacy.Config{Key: config.Secret(strings.Repeat("ab", 32))})
	must(t, err)
	return b
}

func (b *bench) makeTopics(t testing.TB) {
	t.Helper()
	_, err := b.kafka.EnsureTopics(t.Context(), b.client, schemas.Topics()...)
	must(t, err)
}

func (b *bench) reg(t testing.TB) *avro.Registry {
	t.Helper()
	r, err := avro.NewRegistry(avro.Config{URL: config.Secret(b.registry)})
	must(t, err)
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) service(t testing.TB, instance string) (*Service, *prometheus.Registry) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.SessionTimeout, cfg.ClaimWait = time.Second, 300*time.Millisecond
	k := b.kafka
	k.InstanceID = instance
	metrics := prometheus.NewRegistry()
	s, err := New(cfg, Deps{Log: testLog(t), Metrics: metrics, Kafka: k, Registry: b.reg(t), Sales: postgres.SalesConfig{URL: config.Secret(b.dsn)}, Keys: b.keys})
	must(t, err)
	return s, metrics
}

// testLog shows warnings with the test.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// run runs the service until stop is called or the test ends.
func run(t testing.TB, s *Service) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the service does not stop")
		}
	}
	t.Cleanup(stop)
	return stop
}

func (b *bench) record(t testing.TB, r salestest.Record) *kgo.Record {
	t.Helper()
	topic, v := schemas.SalesLines, any(r.Line)
	switch {
	case r.Order != nil:
		topic, v = schemas.SalesOrders, r.Order
	case r.Product != nil:
		topic, v = schemas.SalesProducts, r.Product
	case r.Line == nil:
		return &kgo.Record{Topic: b.kafka.Name(schemas.SalesLines), Key: []byte("tombstone")}
	}
	value, err := b.encoders[topic].Append(nil, v)
	must(t, err)
	return &kgo.Record{Topic: b.kafka.Name(topic), Key: []byte(r.Key()), Value: value}
}

func (b *bench) produce(t testing.TB, records ...salestest.Record) {
	t.Helper()
	var out []*kgo.Record
	for _, r := range records {
		out = append(out, b.record(t, r))
	}
	must(t, b.client.ProduceSync(t.Context(), out...).FirstErr())
}

func eventually(t testing.TB, what string, within time.Duration, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (b *bench) pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), b.dsn)
	must(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// in is the number of records that are counted in the database; -1 if it cannot be told.
func in(t testing.TB, pool *pgxpool.Pool) int64 {
	t.Helper()
	var n int64
	if err := pool.QueryRow(t.Context(), `SELECT coalesce(sum(applied + unchanged + superseded + duplicate + quarantined), 0)::bigint FROM millrace.sink_counters`).Scan(&n); err != nil {
		return -1
	}
	return n
}

func (b *bench) check(t testing.TB, pool *pgxpool.Pool, m *salestest.Model) {
	t.Helper()
	l, err := ledger.Open(t.Context(), ledger.Options{URL: config.Secret(b.dsn), Owner: "check", Log: slog.New(slog.DiscardHandler), ZombieAfter: time.Second})
	must(t, err)
	defer l.Close()
	v, err := l.Verify(t.Context(), 5)
	must(t, err)
	if v.Found != 0 {
		t.Errorf("verify finds %d differences, such as %v", v.Found, v.Differences)
	}
	var want salestest.Totals
	for _, x := range m.Totals(exponents) {
		want.Orders, want.Lines, want.Units = want.Orders+x.Orders, want.Lines+x.Lines, want.Units+x.Units
		want.Gross, want.Cancelled = want.Gross+x.Gross, want.Cancelled+x.Cancelled
	}
	var got salestest.Totals
	must(t, pool.QueryRow(t.Context(), `SELECT coalesce(sum(lines), 0)::bigint, coalesce(sum(units), 0)::bigint, coalesce(sum(gross_minor), 0)::bigint,
		coalesce(sum(cancelled_minor), 0)::bigint, (SELECT coalesce(sum(orders), 0)::bigint FROM millrace.order_cells) FROM millrace.cells`).
		Scan(&got.Lines, &got.Units, &got.Gross, &got.Cancelled, &got.Orders))
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestEndToEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t, pgtest.Database(t))
	s, metrics := b.service(t, "one")
	history := salestest.History(1, 500)
	b.produce(t, history[:200]...)
	stop := run(t, s)
	pool := b.pool(t)
	eventually(t, "the first records are in", 15*time.Second, func() bool { return in(t, pool) == 200 })
	if err := s.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	b.produce(t, history[200:400]...)
	eventually(t, "the next records are in", 10*time.Second, func() bool { return in(t, pool) == 400 })
	eventually(t, "the metrics, which follow the commit, count the same", 5*time.Second, func() bool {
		families, err := metrics.Gather()
		must(t, err)
		sums := map[string]float64{}
		for _, f := range families {
			for _, m := range f.Metric {
				sums[f.GetName()] += m.Counter.GetValue()
			}
		}
		return sums["millrace_aggregate_in_records_total"] == 400 && sums["millrace_aggregate_records_total"] == 400
	})
	stop()
	b.produce(t, history[400:]...)
	again, _ := b.service(t, "one")
	run(t, again)
	eventually(t, "the rest is in after a restart", 10*time.Second, func() bool { return in(t, pool) == 500 })
	m := salestest.NewModel()
	m.See(history...)
	b.check(t, pool, m)
}

// Fetches are cut into small transactions, and the service is stopped between them: no record is passed over.
func TestSmallTransactions(t *testing.T) {
	t.Parallel()
	b := newBench(t, pgtest.Database(t))
	history := salestest.History(21, 500)
	b.produce(t, history...)
	pool := b.pool(t)
	for stops := 0; in(t, pool) < 500; stops++ {
		if stops == 100 {
			t.Fatal("it does not get on")
		}
		s, _ := b.service(t, "one")
		s.cfg.BatchRecords = 3
		before := in(t, pool)
		stop := run(t, s)
		eventually(t, "it gets on", 15*time.Second, func() bool { return in(t, pool) >= min(before+100, 500) })
		stop()
	}
	if n := in(t, pool); n != 500 {
		t.Errorf("%d records are counted, 500 were sent", n)
	}
	m := salestest.NewModel()
	m.See(history...)
	b.check(t, pool, m)
}

func TestBadRecordsGoToQuarantine(t *testing.T) {
	t.Parallel()
	b := newBench(t, pgtest.Database(t))
	garbage := &kgo.Record{Topic: b.kafka.Name(schemas.SalesLines), Key: []byte("x"), Value: []byte("secret")}
	line := func(id, product, price string) salestest.Record {
		return salestest.Record{Line: &schemas.Line{LineID: id, Seq: 1, OrderID: "1", ProductCode: product, Units: 1, UnitPrice: price}}
	}
	b.produce(t, line("1", "p", "1"), line("2", "p", "much"), line("3", "nul\x00", "1"), line("4", "p", "2"))
	must(t, b.client.ProduceSync(t.Context(), garbage).FirstErr())
	s, _ := b.service(t, "one")
	run(t, s)
	pool := b.pool(t)
	eventually(t, "all are in", 15*time.Second, func() bool { return in(t, pool) == 5 })
	var lines, quarantined int64
	must(t, pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM millrace.ledger_lines), (SELECT sum(quarantined)::bigint FROM millrace.sink_counters)`).Scan(&lines, &quarantined))
	if lines != 2 || quarantined != 3 {
		t.Errorf("%d lines and %d in quarantine, want 2 and 3", lines, quarantined)
	}
	reader, err := b.kafka.Client("reader", slog.New(slog.DiscardHandler), nil, kgo.ConsumeTopics(b.kafka.Name(schemas.Quarantine)))
	must(t, err)
	defer reader.Close()
	d, err := avro.NewDecoder(b.reg(t), schemas.Latest(schemas.Quarantine))
	must(t, err)
	classes := map[string]int{}
	for n := 0; n < 3; {
		fetches := reader.PollFetches(t.Context())
		for _, r := range fetches.Records() {
			n++
			var q schemas.Quarantined
			must(t, d.Decode(t.Context(), r.Value, &q))
			classes[q.Class+" "+q.Errors[0].Code]++
			src, err := quarantine.Open(b.keys, &q)
			must(t, err)
			if q.Class == schemas.ClassDecodePoison && !bytes.Equal(src.Value, garbage.Value) {
				t.Errorf("the quarantined bytes are %q", src.Value)
			}
			if bytes.Contains(r.Value, []byte("secret")) {
				t.Error("the bytes are not sealed")
			}
		}
	}
	if fmt.Sprint(classes) != "map[decode_poison not_decodable:1 sink_reject not_a_decimal:1 sink_reject refused_by_database:1]" {
		t.Errorf("got %v", classes)
	}
}

func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	primary := pgtest.Primary(t)
	primary.Exec(t, "CREATE DATABASE sales")
	b := newBench(t, primary.DSN("postgres", "sales"))
	history := salestest.History(2, 300)
	primary.Kill()
	s, _ := b.service(t, "one")
	run(t, s)
	eventually(t, "Ready says that the database is away", 15*time.Second, func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "sales database")
	})
	primary.Start(t)
	b.produce(t, history[:150]...)
	pool := b.pool(t)
	eventually(t, "it recovers from a cold start", 15*time.Second, func() bool { return in(t, pool) == 150 })
	primary.Kill()
	b.produce(t, history[150:]...)
	eventually(t, "Ready says that it does not work", 15*time.Second, func() bool { return s.Ready() != nil })
	primary.Start(t)
	eventually(t, "it recovers", 15*time.Second, func() bool { return in(t, pool) == 300 })
	eventually(t, "it is ready", 5*time.Second, func() bool { return s.Ready() == nil })
	m := salestest.NewModel()
	m.See(history...)
	b.check(t, pool, m)
}

func TestInstancesShareAndTakeOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, pgtest.Database(t))
	history := salestest.History(3, 900)
	one, _ := b.service(t, "one")
	two, _ := b.service(t, "two")
	stopOne := run(t, one)
	run(t, two)
	pool := b.pool(t)
	b.produce(t, history[:300]...)
	eventually(t, "the first third is in", 20*time.Second, func() bool { return in(t, pool) == 300 })
	eventually(t, "both own partitions", 20*time.Second, func() bool {
		return value(t, one.metrics.owned) > 0 && value(t, two.metrics.owned) > 0
	})
	b.produce(t, history[300:600]...)
	eventually(t, "the second third is in", 20*time.Second, func() bool { return in(t, pool) == 600 })
	stopOne()
	b.produce(t, history[600:]...)
	eventually(t, "the other takes over", 20*time.Second, func() bool { return in(t, pool) == 900 })
	m := salestest.NewModel()
	m.See(history...)
	b.check(t, pool, m)
}

func TestTopicMadeAnew(t *testing.T) {
	t.Parallel()
	b := newBench(t, pgtest.Database(t))
	history := salestest.History(4, 100)
	b.produce(t, history...)
	s, _ := b.service(t, "one")
	stop := run(t, s)
	pool := b.pool(t)
	eventually(t, "all are in", 15*time.Second, func() bool { return in(t, pool) == 100 })
	stop()

	b.remake(t, schemas.SalesLines)
	var lines, others []salestest.Record
	for _, r := range history {
		if r.Line != nil || r.Order == nil && r.Product == nil {
			lines = append(lines, r)
		} else {
			others = append(others, r)
		}
	}
	s, _ = b.service(t, "one")
	run(t, s)
	eventually(t, "partitions are stopped", 15*time.Second, func() bool { return value(t, s.metrics.stopped) > 0 })
	b.produce(t, append(lines, others...)...)
	eventually(t, "the other topics go on", 15*time.Second, func() bool { return in(t, pool) == 100+int64(len(others)) })
	l, err := ledger.Open(t.Context(), ledger.Options{URL: config.Secret(b.dsn), Owner: "operator", Log: slog.New(slog.DiscardHandler), ZombieAfter: time.Second})
	must(t, err)
	defer l.Close()
	if _, err := l.Reset(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stopped partitions are read again", 15*time.Second, func() bool { return in(t, pool) == 200 })
	eventually(t, "none is stopped", 5*time.Second, func() bool { return value(t, s.metrics.stopped) == 0 })
	if value(t, s.metrics.fenced) == 0 {
		t.Error("the reset did not fence the running instance")
	}
	m := salestest.NewModel()
	m.See(history...)
	b.check(t, pool, m)
}

func TestTopicMadeAnewWhileItIsRead(t *testing.T) {
	t.Parallel()
	b := newBench(t, pgtest.Database(t))
	history := salestest.History(5, 60)
	b.produce(t, history...)
	s, _ := b.service(t, "one")
	run(t, s)
	pool := b.pool(t)
	eventually(t, "all are in", 15*time.Second, func() bool { return in(t, pool) == 60 })
	b.remake(t, schemas.SalesOrders)
	eventually(t, "its partitions are stopped", 30*time.Second, func() bool { return value(t, s.metrics.stopped) == 6 })
}

func TestProgress(t *testing.T) {
	t.Parallel()
	b := newBench(t, pgtest.Database(t))
	s, _ := b.service(t, "one")
	run(t, s)
	pool := b.pool(t)
	listener, err := pool.Acquire(t.Context())
	must(t, err)
	defer listener.Release()
	_, err = listener.Exec(t.Context(), "LISTEN "+schemas.SalesChanged)
	must(t, err)
	at := time.Date(2026, 3, 1, 10, 5, 0, 0, time.UTC)
	order := b.record(t, salestest.Record{Order: &schemas.Order{OrderID: "1", Seq: 1, PlacedAt: at, Currency: "EUR"}})
	must(t, b.client.ProduceSync(t.Context(), order).FirstErr())
	claim := func(c schemas.Claim) {
		value, err := b.encoders[schemas.Progress].Append(nil, &c)
		must(t, err)
		must(t, b.client.ProduceSync(t.Context(), &kgo.Record{Topic: b.kafka.Name(schemas.Progress), Key: []byte(c.Stage + "/" + c.Instance), Value: value}).FirstErr())
	}
	store := []schemas.Partition{{Topic: "store.s.orders", Partition: 0}}
	claim(schemas.Claim{Stage: "cdc", Instance: "slot", Ends: []schemas.PartitionOffset{{Topic: "store.s.orders", Partition: 0, Offset: 1}}})
	ends := func(offset int64) []schemas.PartitionOffset {
		return []schemas.PartitionOffset{{Topic: order.Topic, Partition: order.Partition, Offset: offset}}
	}
	claim(schemas.Claim{Stage: "enrich", Instance: "e", ValidThrough: at, SourceLSN: 0x10, Covers: store, Ends: ends(order.Offset + 1), Incomplete: []string{"public.t"}})
	claim(schemas.Claim{Stage: "enrich", Instance: "e", ValidThrough: at.Add(time.Minute), SourceLSN: 0x20, Covers: store, Ends: ends(order.Offset + 2)})
	read := func() (lsn string) {
		_ = pool.QueryRow(t.Context(), `SELECT source_lsn::text || ' ' || incomplete::text FROM millrace.sales_progress`).Scan(&lsn)
		return lsn
	}
	eventually(t, "the first claim is reached", 15*time.Second, func() bool { return read() == "0/10 {public.t}" })
	note, err := listener.Conn().WaitForNotification(t.Context())
	must(t, err)
	if note.Payload != `{"hours":["2026-03-01T10:00:00Z"]}` {
		t.Errorf("the announcement is %s", note.Payload)
	}
	must(t, b.client.ProduceSync(t.Context(), &kgo.Record{Topic: order.Topic, Partition: order.Partition, Key: order.Key, Value: order.Value}).FirstErr())
	eventually(t, "the second claim is reached", 15*time.Second, func() bool { return read() == "0/20 {}" })
	if got := value(t, s.metrics.through); got != float64(at.Add(time.Minute).Unix()) {
		t.Errorf("the metric says %v", got)
	}
}
