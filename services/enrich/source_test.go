package enrich

import (
	"context"
	"fmt"
	"log/slog"
	"math/big"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/schemas"
)

// world is a broker and a registry, as real as they can be in process.
type world struct {
	brokers  []string
	registry string
	server   *httptest.Server
}

func newWorld(t testing.TB) *world {
	t.Helper()
	server := httptest.NewServer(registry.NewMemory())
	t.Cleanup(server.Close)
	return &world{brokers: brokertest.New(t), registry: server.URL, server: server}
}

func (w *world) kafka(instance string) kafka.Config {
	c := kafka.DefaultConfig()
	c.Brokers, c.InstanceID, c.TopicPrefix, c.Replication = w.brokers, instance, "t.", 1
	return c
}

func (w *world) avro(t testing.TB) *avro.Registry {
	t.Helper()
	r, err := avro.NewRegistry(avro.Config{URL: config.Secret(w.registry)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func testKeys(t testing.TB) *privacy.Keys {
	t.Helper()
	keys, err := privacy.NewKeys(privacy.Config{Key: config.Secret(strings.Repeat("ab", 32))})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// service is one that runs until the test, or stop, ends it.
type service struct {
	*Service
	metrics *prometheus.Registry
	stop    func()
}

func (w *world) start(t testing.TB, instance string) *service {
	t.Helper()
	return w.startWith(t, instance, func(*Service) {})
}

func (w *world) startWith(t testing.TB, instance string, change func(*Service)) *service {
	t.Helper()
	cfg := DefaultConfig()
	cfg.SessionTimeout = time.Second
	reg := prometheus.NewRegistry()
	s, err := New(cfg, Deps{Log: testLog(t), Metrics: reg, Kafka: w.kafka(instance), Registry: w.avro(t), Keys: testKeys(t)})
	if err != nil {
		t.Fatal(err)
	}
	change(s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return &service{Service: s, metrics: reg, stop: stop}
}

func testLog(t testing.TB) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	return slog.New(slog.DiscardHandler)
}

// until waits for a condition.
func until(t testing.TB, limit time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain: %s", limit, what)
		}
	}
}

// columns of the demo store that matter here, as cdc declares them.
var demoTables = map[string]string{
	"orders":        `{"name":"order_number","type":"long"},{"name":"ordered_at","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null},{"name":"comments","type":["null","string"],"default":null},{"name":"status","type":["null","string"],"default":null},{"name":"customer_number","type":["null","int"],"default":null},{"name":"currency","type":["null","string"],"default":null}`,
	"order_details": `{"name":"order_number","type":"long"},{"name":"product_code","type":"string"},{"name":"quantity_ordered","type":["null","int"],"default":null},{"name":"price_each","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}],"default":null}`,
	"customers":     `{"name":"customer_number","type":"int"},{"name":"city","type":["null","string"],"default":null},{"name":"state","type":["null","string"],"default":null},{"name":"country","type":["null","string"],"default":null},{"name":"sales_rep_employee_number","type":["null","int"],"default":null}`,
	"employees":     `{"name":"employee_number","type":"int"},{"name":"office_code","type":["null","string"],"default":null}`,
	"offices":       `{"name":"office_code","type":"string"},{"name":"territory","type":["null","string"],"default":null}`,
	"products":      `{"name":"product_code","type":"string"},{"name":"product_name","type":["null","string"],"default":null},{"name":"product_line","type":["null","string"],"default":null},{"name":"product_scale","type":["null","string"],"default":null},{"name":"product_vendor","type":["null","string"],"default":null},{"name":"quantity_in_stock","type":["null","int"],"default":null},{"name":"msrp","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}],"default":null},{"name":"hidden","type":["null","boolean"],"default":null}`,
	"ratings":       `{"name":"id","type":"int"}`, // not mapped
}

func envelopeSchema(table, columns string) string {
	return fmt.Sprintf(`{"type":"record","name":"Envelope","namespace":"store.public.%s","fields":[
 {"name":"before","type":["null",{"type":"record","name":"Value","fields":[%s]}],"default":null},{"name":"after","type":["null","Value"],"default":null},
 {"name":"source","type":{"type":"record","name":"Source","namespace":"io.millrace.cdc","fields":[{"name":"table","type":"string"},{"name":"ts_us","type":"long"},{"name":"lsn","type":"long"},{"name":"seq","type":"long"}]}},
 {"name":"op","type":"string"},{"name":"ts_ms","type":["null","long"],"default":null}]}`, table, columns)
}

// source stands for cdc: it writes envelopes in transactions, and claims.
type source struct {
	t        testing.TB
	client   *kgo.Client
	prefix   string
	codecs   map[string]*goavro.Codec
	ids      map[string]int
	progress *avro.Encoder
	seq, lsn int64
	ends     map[schemas.Partition]int64
	sent     []sent
	open     []change
}

// sent is a record of the source that was committed.
type sent struct {
	change
	partition schemas.Partition
	lsn       int64
}

// change is a change of a row.
type change struct {
	table, key string
	op         string
	row        map[string]any // columns as the codec takes them
	seq        int64
	raw        []byte // in place of all that
}

func newSource(t testing.TB, w *world) *source {
	t.Helper()
	cfg := w.kafka("source")
	client, err := cfg.Client("source", testLog(t), nil, kgo.TransactionalID("source"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := &source{t: t, client: client, prefix: cfg.TopicPrefix, codecs: map[string]*goavro.Codec{}, ids: map[string]int{}, ends: map[schemas.Partition]int64{}, seq: 1_000_000}
	reg := w.avro(t)
	topics := schemas.Topics()
	for table, columns := range demoTables {
		schema := envelopeSchema(table, columns)
		topic := schemas.StoreTopic("public", table)
		topics = append(topics, topic)
		if s.codecs[table], err = goavro.NewCodec(schema); err != nil {
			t.Fatal(err)
		}
		if s.ids[table], err = reg.Register(t.Context(), topic.Name+"-value", schema); err != nil {
			t.Fatal(err)
		}
		for p := range topic.Partitions {
			s.ends[schemas.Partition{Topic: s.prefix + topic.Name, Partition: p}] = 0
		}
	}
	if _, err := cfg.EnsureTopics(t.Context(), client, topics...); err != nil {
		t.Fatal(err)
	}
	if s.progress, err = avro.NewEncoder(t.Context(), reg, schemas.Subject(schemas.Progress), schemas.Latest(schemas.Progress)); err != nil {
		t.Fatal(err)
	}
	return s
}

// put adds a change to the open transaction.
func (s *source) put(table, key, op string, row map[string]any) change {
	s.seq++
	c := change{table: table, key: key, op: op, row: row, seq: s.seq}
	s.open = append(s.open, c)
	return c
}

func (s *source) encode(c change) []byte {
	record := map[string]any{"before": nil, "after": nil, "op": c.op, "ts_ms": nil,
		"source": map[string]any{"table": c.table, "ts_us": int64(1_700_000_000_000_000) + c.seq, "lsn": s.lsn, "seq": c.seq}}
	side := "after"
	if c.op == "d" {
		side = "before"
	}
	record[side] = goavro.Union("store.public."+c.table+".Value", c.row)
	body, err := s.codecs[c.table].BinaryFromNative(avro.AppendFrame(nil, s.ids[c.table]), record)
	if err != nil {
		s.t.Fatalf("%s: %v", c.table, err)
	}
	return body
}

// commit writes what is open in one transaction; or aborts it, after which it is as if it had not been.
func (s *source) commit(really bool) {
	s.t.Helper()
	s.lsn += 10
	if err := s.client.BeginTransaction(); err != nil {
		s.t.Fatal(err)
	}
	var records []*kgo.Record
	var of []change
	for _, c := range s.open {
		value := c.raw
		if value == nil {
			value = s.encode(c)
		}
		topic := s.prefix + "store.public." + c.table
		records, of = append(records, &kgo.Record{Topic: topic, Key: []byte(c.key), Value: value}), append(of, c)
		if c.op == "d" {
			records, of = append(records, &kgo.Record{Topic: topic, Key: []byte(c.key)}), append(of, c)
		}
	}
	s.open = nil
	if err := s.client.ProduceSync(s.t.Context(), records...).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.client.EndTransaction(s.t.Context(), kgo.TransactionEndTry(really)); err != nil {
		s.t.Fatal(err)
	}
	if !really {
		return
	}
	for i, r := range records {
		p := schemas.Partition{Topic: r.Topic, Partition: r.Partition}
		s.ends[p] = max(s.ends[p], r.Offset+1)
		s.sent = append(s.sent, sent{change: of[i], partition: p, lsn: s.lsn})
	}
}

// claim says that everything committed so far is there.
func (s *source) claim() { s.claimOf("slot", s.lsn, func(string) bool { return true }) }

// claimOf says, as the capture through one slot, that everything committed up to lsn is there of some topics.
func (s *source) claimOf(slot string, lsn int64, of func(topic string) bool) {
	s.t.Helper()
	c := schemas.Claim{Stage: "cdc", Instance: slot, ValidThrough: time.UnixMicro(1_700_000_000_000_000 + lsn).UTC(), SourceLSN: lsn,
		ReportedAt: time.Now().UTC().Truncate(time.Microsecond), Fresh: true}
	for p, o := range s.ends {
		if !of(p.Topic) {
			continue
		}
		c.Ends = append(c.Ends, schemas.PartitionOffset{Topic: p.Topic, Partition: p.Partition, Offset: o})
	}
	value, err := s.progress.Append(nil, &c)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.client.BeginTransaction(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.client.ProduceSync(s.t.Context(), &kgo.Record{Topic: s.prefix + schemas.Progress, Key: []byte("cdc/" + slot), Value: value}).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.client.EndTransaction(s.t.Context(), kgo.TryCommit); err != nil {
		s.t.Fatal(err)
	}
}

// Rows of the demo store, for the codec.
func opt(kind string, v any) any {
	if v == nil {
		return nil
	}
	return goavro.Union(kind, v)
}

func orderRow(number int, at time.Time, status string, customer any) map[string]any {
	return map[string]any{"order_number": int64(number), "ordered_at": opt("long.timestamp-micros", at), "comments": nil, "status": opt("string", status),
		"customer_number": opt("int", customer), "currency": opt("string", "EUR")}
}

func lineRow(order int, product string, units int, cents int64) map[string]any {
	return map[string]any{"order_number": int64(order), "product_code": product, "quantity_ordered": opt("int", units), "price_each": opt("bytes.decimal", big.NewRat(cents, 100))}
}

func customerRow(number int, country string, rep any) map[string]any {
	return map[string]any{"customer_number": number, "city": opt("string", "City"), "state": nil, "country": opt("string", country), "sales_rep_employee_number": opt("int", rep)}
}

func employeeRow(number int, office string) map[string]any {
	return map[string]any{"employee_number": number, "office_code": opt("string", office)}
}

func officeRow(code, territory string) map[string]any {
	return map[string]any{"office_code": code, "territory": opt("string", territory)}
}

func productRow(code, name, line string) map[string]any {
	return map[string]any{"product_code": code, "product_name": opt("string", name), "product_line": opt("string", line), "product_scale": nil, "product_vendor": nil,
		"quantity_in_stock": opt("int", 7), "msrp": opt("bytes.decimal", big.NewRat(995, 100)), "hidden": opt("boolean", false)}
}

// output is a record of our own topics, as a read_committed consumer sees it.
type output struct {
	partition schemas.Partition
	offset    int64
	key       string
	value     any // pointer, or nil for a tombstone
}

// read is all that a topic holds now.
func (w *world) read(t testing.TB, topic string, into func() any) []output {
	t.Helper()
	var out []output
	dec, err := avro.NewDecoder(w.avro(t), schemas.Latest(topic))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	f := kafka.NewFollower(w.kafka("reader"), "reader", testLog(t), func(ctx context.Context, records []*kgo.Record) error {
		for _, r := range records {
			o := output{partition: schemas.Partition{Topic: r.Topic, Partition: r.Partition}, offset: r.Offset, key: string(r.Key)}
			if r.Value != nil {
				o.value = into()
				if err := dec.Decode(ctx, r.Value, o.value); err != nil {
					return err
				}
			}
			out = append(out, o)
		}
		return nil
	}, "t."+topic)
	done := make(chan error, 1)
	inner, end := context.WithCancel(ctx)
	go func() { done <- f.Run(inner) }()
	select {
	case <-f.CaughtUp():
	case <-ctx.Done():
		t.Fatalf("cannot read %s", topic)
	}
	end()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(out, func(a, b output) int {
		if a.partition != b.partition {
			return int(a.partition.Partition - b.partition.Partition)
		}
		return int(a.offset - b.offset)
	})
	return out
}

func readOf[T any](t testing.TB, w *world, topic string) []output {
	t.Helper()
	return w.read(t, topic, func() any { return new(T) })
}

// reached tells whether every input partition is covered by a claim of at least that LSN, as a sink works it out.
func (w *world) reached(t testing.TB, s *source, lsn int64) bool {
	t.Helper()
	best := map[schemas.Partition]int64{}
	for _, o := range readOf[schemas.Claim](t, w, schemas.Progress) {
		if c := o.value.(*schemas.Claim); c.Stage == "enrich" {
			for _, p := range c.Covers {
				best[p] = max(best[p], c.SourceLSN)
			}
		}
	}
	for p := range s.ends {
		if best[p] < lsn {
			return false
		}
	}
	return true
}

func (w *world) quiet(t testing.TB, s *source) {
	t.Helper()
	s.claim()
	until(t, 30*time.Second, "enrich claims everything", func() bool { return w.reached(t, s, s.lsn) })
}
