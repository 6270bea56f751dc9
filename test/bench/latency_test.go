//go:build bench

package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/test/harness"
)

const rowsTopic = "store.public.bench_rows"

// benchLatency is the time from the end of a commit on the primary to the record in the hands of a read_committed
// consumer: through the standby, cdc and a Kafka transaction.
func (p *pipeline) benchLatency(t *testing.T) {
	missing(t, "cdc")
	if p.cdc == nil {
		t.Skip("SKIPPED: there was no snapshot: NOTHING WAS MEASURED")
	}
	c := p.program(t, "cdc")
	c.Ready(t, time.Minute)
	p.latency(t, "lonely commits", 200, func(n int, commit func(int)) {
		n = size(n, 50)
		for i := range n {
			time.Sleep(time.Duration(20+rand.IntN(20)) * time.Millisecond) // the load: commits far apart
			commit(i)
		}
	})
	for _, rate := range []int{500, 2000} {
		d := span(5*time.Second, 2*time.Second)
		p.latency(t, fmt.Sprintf("%d commits/s", rate), int(float64(rate)*d.Seconds()), func(n int, commit func(int)) { steady(t.Context(), n, rate, 8, commit) })
	}
	p.idle(t, c)
	c.Stop(syscall.SIGTERM)
	p.anchor(t)
}

// anchor is the same by a bare reader of a slot, without Kafka: what the machine makes of it today.
func (p *pipeline) anchor(t *testing.T) {
	const rate, slot = 500, "bench_anchor"
	n := int(rate * span(4*time.Second, 2*time.Second).Seconds())
	conn := pgtest.Connect(t, p.standby.DSN("postgres", "postgres"))
	if _, err := conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot); err != nil {
		t.Fatal(err)
	}
	base := time.Now().UnixNano()
	a := &arrived{at: make([]atomic.Int64, n)}
	ctx, cancel := context.WithCancel(t.Context())
	var reader sync.WaitGroup
	reader.Go(func() {
		err := eachInsert(ctx, p.standby.DSN("postgres", "postgres"), slot, func() {}, func(columns []byte) bool {
			if len(columns) < 5 {
				return true
			}
			id, err := strconv.ParseInt(string(columns[5:5+binary.BigEndian.Uint32(columns[1:])]), 10, 64)
			if err == nil {
				a.note(id-base, time.Now())
			}
			return true
		})
		if ctx.Err() == nil {
			t.Error(err)
		}
	})
	took, _ := p.commits(t, base, n, a, func(n int, commit func(int)) { steady(t.Context(), n, rate, 8, commit) })
	cancel()
	reader.Wait()
	p.tell(t, fmt.Sprintf("for comparison: commit → bare reader of a slot, %d commits/s", rate), fmt.Sprintf("p50 %s, p99 %s", round(quantile(took, 0.5)), round(quantile(took, 0.99))))
	harness.Eventually(t, 10*time.Second, func() bool {
		_, err := conn.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", slot)
		return err == nil
	}, func() string { return "the slot stays in use" })
}

// steady calls f n times at a rate, from so many workers, or until ctx ends; who is late does not slow the others down.
func steady(ctx context.Context, n, rate, workers int, f func(i int)) {
	begin := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate)))):
					f(i)
				}
			}
		})
	}
	wg.Wait()
}

// latency measures until the records of committed rows arrive.
func (p *pipeline) latency(t *testing.T, what string, n int, load func(n int, commit func(i int))) {
	t.Helper()
	base := time.Now().UnixNano()
	all, perSecond := p.commits(t, base, n, p.arrivals(t, rowsTopic, base, n), load)
	p99 := quantile(all, 0.99)
	p.limit(t, fmt.Sprintf("commit → read_committed consumer, exactly once, %s", what),
		fmt.Sprintf("p50 %s, p99 %s, max %s (%.0f/s)", round(quantile(all, 0.5)), round(p99), round(all[len(all)-1]), perSecond),
		"50ms p99", p99 < 50*time.Millisecond)
}

// commits lets load commit rows base to base+n-1 and waits until all have arrived. It returns how long each took, and
// commits per second.
func (p *pipeline) commits(t *testing.T, base int64, n int, arrivals *arrived, load func(n int, commit func(i int))) ([]time.Duration, float64) {
	t.Helper()
	committed := make([]atomic.Int64, n)
	conns := make(chan *pgx.Conn, 8)
	for range cap(conns) {
		conns <- pgtest.Connect(t, p.primary.DSN("postgres", "postgres"))
	}
	begin := time.Now()
	var done atomic.Int64
	load(n, func(i int) {
		conn := <-conns
		if _, err := conn.Exec(t.Context(), "INSERT INTO bench_rows VALUES ($1, 1, 'S18_1', 1, 9.95, now(), 'note')", base+int64(i)); err != nil {
			t.Error(err)
		}
		committed[i].Store(time.Now().UnixNano())
		done.Add(1)
		conns <- conn
	})
	perSecond := float64(done.Load()) / time.Since(begin).Seconds()
	want := int(done.Load())
	harness.Eventually(t, 30*time.Second, func() bool { return arrivals.count() >= want },
		func() string { return fmt.Sprintf("%d of %d rows arrived", arrivals.count(), want) })
	var all []time.Duration
	for i := range want {
		all = append(all, max(0, time.Duration(arrivals.at[i].Load()-committed[i].Load())))
	}
	return all, perSecond
}

// arrived is when records came, by id from base on.
type arrived struct {
	at   []atomic.Int64 // Unix nanoseconds
	seen atomic.Int64
}

func (a *arrived) count() int { return int(a.seen.Load()) }

// note is called with the number of a row, which may be none of ours.
func (a *arrived) note(i int64, now time.Time) {
	if i >= 0 && i < int64(len(a.at)) && a.at[i].CompareAndSwap(0, now.UnixNano()) {
		a.seen.Add(1)
	}
}

// arrivals reads a topic of bench_rows from its present end until t ends.
func (p *pipeline) arrivals(t *testing.T, topic string, base int64, n int) *arrived {
	t.Helper()
	ends, err := p.admin.ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]map[int32]kgo.Offset{topic: {}}
	ends.Each(func(o kadm.ListedOffset) { at[topic][o.Partition] = kgo.NewOffset().At(o.Offset) })
	cl, err := client(p.brokers, "arrivals", kgo.ConsumePartitions(at))
	if err != nil {
		t.Fatal(err)
	}
	a := &arrived{at: make([]atomic.Int64, n)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			now := time.Now()
			fetches.EachRecord(func(r *kgo.Record) {
				if len(r.Key) < 6 {
					return
				}
				id, _ := binary.Varint(r.Key[5:]) // the frame, then the only column of the key
				a.note(id-base, now)
			})
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); cl.Close() })
	return a
}
