//go:build bench

package bench

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
)

// positions follows cdc's position: what it tells is visible to every reader, and it costs next to nothing to read.
type positions struct {
	mu     sync.Mutex
	last   schemas.Position
	seen   time.Time
	change chan struct{} // closed at the next one
}

// follow reads the position until t ends.
func (p *pipeline) follow(t *testing.T) {
	t.Helper()
	p.positions = &positions{change: make(chan struct{})}
	registry, err := avro.NewRegistry(avro.Config{URL: config.Secret(p.registry)})
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := avro.NewDecoder(registry, schemas.Latest(schemas.CDCPosition))
	if err != nil {
		t.Fatal(err)
	}
	cfg := kafka.DefaultConfig()
	for _, topic := range schemas.Topics() {
		if topic.Name != schemas.CDCPosition {
			continue
		}
		if _, err := cfg.EnsureTopics(t.Context(), p.kafka, topic); err != nil {
			t.Fatal(err)
		}
	}
	cl, err := client(p.brokers, "positions", kgo.ConsumeTopics(schemas.CDCPosition), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				var pos schemas.Position
				if err := decoder.Decode(ctx, r.Value, &pos); err != nil {
					return // the end of the run
				}
				p.positions.set(pos)
			})
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); cl.Close() })
}

func (p *positions) set(pos schemas.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.seen = pos, time.Now()
	close(p.change)
	p.change = make(chan struct{})
}

// await is when a position was seen for which cond holds.
func (p *positions) await(t testing.TB, within time.Duration, cond func(schemas.Position) bool) time.Time {
	t.Helper()
	limit := time.After(within)
	for {
		p.mu.Lock()
		last, seen, change := p.last, p.seen, p.change
		p.mu.Unlock()
		if last.Slot != "" && cond(last) {
			return seen
		}
		select {
		case <-change:
		case <-limit:
			t.Fatalf("after %v the position is %+v", within, last)
		}
	}
}
