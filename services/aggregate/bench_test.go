package aggregate

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/services/aggregate/internal/salestest"
)

const benchLines = 100_000

// durable is a server as it is run for real: fsync on, buffers for the tables.
func durable(b *testing.B) string {
	b.Helper()
	p := pgtest.Primary(b, "fsync", "on", "synchronous_commit", "on", "full_page_writes", "on", "shared_buffers", "256MB", "max_wal_size", "4GB", "wal_level", "replica")
	if got := p.Query(b, "SELECT concat_ws(' ', current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'))"); got != "on on on" {
		b.Fatalf("the server is not durable: %s", got)
	}
	p.Exec(b, "CREATE DATABASE sales")
	return p.DSN("postgres", "sales")
}

// BenchmarkService is 100,000 order lines with their headers from Kafka to their commit.
func BenchmarkService(b *testing.B) {
	for range b.N {
		b.StopTimer()
		x := newBench(b, durable(b))
		store := salestest.Store(benchLines, time.Now())
		for len(store) > 0 {
			n := min(len(store), 5000)
			x.produce(b, store[:n]...)
			store = store[n:]
		}
		s, _ := x.service(b, "one")
		pool := x.pool(b)
		b.StartTimer()
		stop := run(b, s)
		lines := func() (n int64) {
			_ = pool.QueryRow(b.Context(), `SELECT sum(applied)::bigint FROM millrace.sink_counters WHERE topic = $1`, x.kafka.Name("sales.lines")).Scan(&n)
			return n
		}
		eventually(b, "all lines are in", 2*time.Minute, func() bool { return lines() == benchLines })
		b.StopTimer()
		stop()
	}
	b.ReportMetric(float64(b.N)*benchLines/b.Elapsed().Seconds(), "lines/s")
}

// BenchmarkCopy is the same records from Kafka into one table by COPY: the bound of what a sink without totals could do.
func BenchmarkCopy(b *testing.B) {
	for range b.N {
		b.StopTimer()
		x := newBench(b, durable(b))
		store := salestest.Store(benchLines, time.Now())
		records := len(store)
		for len(store) > 0 {
			n := min(len(store), 5000)
			x.produce(b, store[:n]...)
			store = store[n:]
		}
		conn := pgtest.Connect(b, x.dsn)
		_, err := conn.Exec(b.Context(), `CREATE TABLE plain (topic text, key text, value bytea)`)
		must(b, err)
		b.StartTimer()
		copyAll(b, x, conn, records)
		b.StopTimer()
	}
	b.ReportMetric(float64(b.N)*benchLines/b.Elapsed().Seconds(), "lines/s")
}

func copyAll(b *testing.B, x *bench, conn *pgx.Conn, records int) {
	b.Helper()
	d, err := newDecoder(x.kafka, x.reg(b))
	must(b, err)
	cl, err := x.kafka.Client("copy", testLog(b), nil, kgo.ConsumeTopics(d.topics()...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	must(b, err)
	defer cl.Close()
	for records > 0 {
		rs := cl.PollRecords(context.Background(), 20_000).Records()
		_, err := conn.CopyFrom(b.Context(), pgx.Identifier{"plain"}, []string{"topic", "key", "value"}, pgx.CopyFromSlice(len(rs), func(i int) ([]any, error) {
			return []any{rs[i].Topic, string(rs[i].Key), rs[i].Value}, nil
		}))
		must(b, err)
		records -= len(rs)
	}
}
