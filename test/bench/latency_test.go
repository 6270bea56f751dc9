//go:build bench

package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
		p.latency(t, fmt.Sprintf("%d commits/s", rate), int(float64(rate)*d.Seconds()), func(n int, commit func(int)) { steady(n, rate, 8, commit) })
	}
	p.idle(t, c)
	c.Stop(15) // SIGTERM
}

// steady calls f n times at a rate, from so many workers; who is late does not slow the others down.
func steady(n, rate, workers int, f func(i int)) {
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
				if wait := time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))); wait > 0 {
					time.Sleep(wait) // the schedule
				}
				f(i)
			}
		})
	}
	wg.Wait()
}

// latency lets load commit rows 0 to n-1 and measures until they arrive.
func (p *pipeline) latency(t *testing.T, what string, n int, load func(n int, commit func(i int))) {
	t.Helper()
	base := time.Now().UnixNano()
	committed := make([]atomic.Int64, n)
	arrivals := p.arrivals(t, base, n)
	pool := make(chan func(context.Context, int64) error, 8)
	for range cap(pool) {
		conn := pgtest.Connect(t, p.primary.DSN("postgres", "postgres"))
		pool <- func(ctx context.Context, id int64) error {
			_, err := conn.Exec(ctx, "INSERT INTO bench_rows VALUES ($1, 1, 'S18_1', 1, 9.95, now(), 'note')", id)
			return err
		}
	}
	begin := time.Now()
	var done atomic.Int64
	load(n, func(i int) {
		insert := <-pool
		if err := insert(t.Context(), base+int64(i)); err != nil {
			t.Error(err)
		}
		committed[i].Store(time.Now().UnixNano())
		done.Add(1)
		pool <- insert
	})
	took := time.Since(begin)
	want := int(done.Load())
	harness.Eventually(t, 30*time.Second, func() bool { return arrivals.count() >= want },
		func() string { return fmt.Sprintf("%d of %d records arrived", arrivals.count(), want) })
	var all []time.Duration
	for i := range want {
		all = append(all, max(0, time.Duration(arrivals.at[i].Load()-committed[i].Load())))
	}
	p99 := quantile(all, 0.99)
	p.limit(t, fmt.Sprintf("commit → read_committed consumer, exactly once, %s", what),
		fmt.Sprintf("p50 %s, p99 %s, max %s (%.0f/s)", round(quantile(all, 0.5)), round(p99), round(all[len(all)-1]), float64(want)/took.Seconds()),
		"50ms p99", p99 < 50*time.Millisecond)
}

// arrived is when records came, by id from base on.
type arrived struct {
	at   []atomic.Int64 // Unix nanoseconds
	seen atomic.Int64
}

func (a *arrived) count() int { return int(a.seen.Load()) }

// arrivals reads the topic from its present end until t ends.
func (p *pipeline) arrivals(t *testing.T, base int64, n int) *arrived {
	t.Helper()
	ends, err := p.admin.ListEndOffsets(t.Context(), rowsTopic)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]map[int32]kgo.Offset{rowsTopic: {}}
	ends.Each(func(o kadm.ListedOffset) { at[rowsTopic][o.Partition] = kgo.NewOffset().At(o.Offset) })
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
			now := time.Now().UnixNano()
			fetches.EachRecord(func(r *kgo.Record) {
				if len(r.Key) < 6 {
					return
				}
				id, _ := binary.Varint(r.Key[5:]) // the frame, then the only column of the key
				if i := id - base; i >= 0 && i < int64(n) && a.at[i].CompareAndSwap(0, now) {
					a.seen.Add(1)
				}
			})
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); cl.Close() })
	return a
}
