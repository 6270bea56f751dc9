//go:build bench

package bench

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/test/harness"
)

// storeTopics are those that enrich reads under the mapping of the demo store.
func storeTopics() []string {
	var out []string
	for _, table := range []string{"orders", "order_details", "products", "customers", "employees", "offices"} {
		out = append(out, schemas.StoreTopic("public", table).Name)
	}
	return out
}

// benchEnrich turns the source's orders and lines, which cdc has left in Kafka, into sales.*.
func (p *pipeline) benchEnrich(t *testing.T) {
	missing(t, "enrich")
	topics := storeTopics()
	var rows int64
	err := p.source.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM order_details) + (SELECT count(*) FROM products)
		+ (SELECT count(*) FROM customers) + (SELECT count(*) FROM employees) + (SELECT count(*) FROM offices)`).Scan(&rows)
	if err != nil {
		t.Fatal(err)
	}
	e := p.program(t, "enrich")
	w := p.consumed(t, e, "enrich", topics)
	records := float64(rows) * float64(w.done) / float64(p.mustEnds(t, topics...)) // markers take offsets too
	relay := side{Kind: "relay", Brokers: p.brokers, Topic: topics[1], To: p.scratch(t, "bench.relay.lines"), Wanted: p.records(t, topics[1])}.run(t)
	p.ratio(t, "enrich, orders and lines", "records per core-second", records/w.cpu.Seconds(), "consume + produce, no work", relay.perCore(), 0)
	p.ratio(t, "enrich, orders and lines", "records/s", records/w.wall.Seconds(), "consume + produce, no work", relay.rate(), 0)
	p.stop(t, e, "orders and lines")
}

// benchActivity enriches what shoppers do.
func (p *pipeline) benchActivity(t *testing.T) {
	missing(t, "enrich")
	n := size(700_000, 100_000)
	e := p.program(t, "enrich")
	e.Ready(t, time.Minute)
	p.idle(t, e)
	e.Stop(syscall.SIGTERM)
	p.produceActivity(t, n)

	task := side{Kind: "relay", Brokers: p.brokers, Topic: schemas.ActivityRaw, To: p.scratch(t, "bench.relay"), Wanted: n}
	before := task.run(t)
	e.Launch(t)
	w := p.consumed(t, e, "enrich", []string{schemas.ActivityRaw})
	p.stop(t, e, "activity")
	task.To = p.scratch(t, "bench.relay2")
	after := task.run(t)
	p.ratio(t, "enrich, activity", "records per core-second", w.perCore(), "consume + produce, no work", (before.perCore()+after.perCore())/2, 0.3)
	p.ratio(t, "enrich, activity", "records/s", w.rate(), "consume + produce, no work", (before.rate()+after.rate())/2, 0)
}

// consumed follows the group until it has read the topics.
func (p *pipeline) consumed(t *testing.T, proc *harness.Process, group string, topics []string) window {
	t.Helper()
	return work(t, proc, p.mustEnds(t, topics...), 2*time.Minute, func() (int64, error) { return p.grouped(t.Context(), group, topics...) })
}

func (p *pipeline) mustEnds(t *testing.T, topics ...string) int64 {
	t.Helper()
	n, err := p.ends(t.Context(), topics...)
	if err != nil || n == 0 {
		t.Fatalf("%v: %d records, %v", topics, n, err)
	}
	return n
}

// records counts what a reader gets from a topic, tombstones not.
func (p *pipeline) records(t *testing.T, topic string) int {
	t.Helper()
	cl, err := client(p.brokers, "count", kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ends, err := p.admin.ListCommittedOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	open, n := map[int32]int64{}, 0
	for part, o := range ends[topic] {
		if o.Offset > 0 {
			open[part] = o.Offset
		}
	}
	for len(open) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() && r.Value != nil {
				n++
			}
			if r.Offset+1 >= open[r.Partition] {
				delete(open, r.Partition)
			}
		})
	}
	return n
}

// scratch makes a topic that only the benchmark uses.
func (p *pipeline) scratch(t *testing.T, name string) string {
	t.Helper()
	applied, err := kafka.DefaultConfig().EnsureTopics(t.Context(), p.kafka, kafka.Topic{Name: name, Partitions: schemas.Partitions, Retention: time.Hour})
	if err != nil || applied[0].Problem != "" {
		t.Fatal(applied, err)
	}
	return name
}

// produceActivity writes what collect would: n events of known customers and products in sessions of twenty.
func (p *pipeline) produceActivity(t *testing.T, n int) {
	t.Helper()
	registry, err := avro.NewRegistry(avro.Config{URL: config.Secret(p.registry)})
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := avro.NewEncoder(t.Context(), registry, schemas.Subject(schemas.ActivityRaw), schemas.Latest(schemas.ActivityRaw))
	if err != nil {
		t.Fatal(err)
	}
	products := p.column(t, "SELECT product_code FROM products ORDER BY 1")
	customers := p.column(t, "SELECT customer_number::text FROM customers ORDER BY 1")
	actions := []string{"view", "view", "view", "add_to_cart", "view", "purchase"}
	agent, quantity, now := "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", int64(1), time.Now().UTC().Truncate(time.Microsecond)
	for i := range n {
		session := i / 20
		product, customer := products[(i*31)%len(products)], customers[session%len(customers)]
		page, token := "https://shop.example/p/"+product, "tok_"+strconv.Itoa(session)
		v := schemas.Activity{EventID: fmt.Sprintf("0197-bench-%012d", i), EventTime: now.Add(time.Duration(i) * time.Millisecond), ReceivedAt: now, SessionID: "s-" + strconv.Itoa(session),
			Action: actions[i%len(actions)], CustomerNumber: &customer, CustomerVerified: true, AnonymousID: &token, ProductCode: &product, Quantity: &quantity,
			PageURL: &page, UserAgent: &agent, IP: &token, Attributes: map[string]string{}}
		value, err := encoder.Append(nil, &v)
		if err != nil {
			t.Fatal(err)
		}
		p.kafka.Produce(t.Context(), &kgo.Record{Topic: schemas.ActivityRaw, Key: []byte(v.SessionID), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := p.kafka.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (p *pipeline) column(t *testing.T, sql string) []string {
	t.Helper()
	rows, err := p.source.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(out) == 0 {
		t.Fatal(sql, err)
	}
	return out
}
