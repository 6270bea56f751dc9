package cdc

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

// TestLonelyLatency tells how long after its commit on the primary a lonely change is there for a read_committed reader.
// It is a measurement, run by: go test -run LonelyLatency -v -speed ./services/cdc
func TestLonelyLatency(t *testing.T) {
	if !*speed {
		t.Skip("a measurement; ask for it with -speed")
	}
	primary, standby := pgtest.Pair(t)
	prepare(t, primary)
	for _, c := range lonelyCases() {
		s := newStore(t, primary, standby, brokerProcess(t), `CREATE TABLE lines (id bigint PRIMARY KEY); CREATE PUBLICATION millrace FOR TABLE lines`)
		s.cfg.TransactionInterval = DefaultConfig().TransactionInterval
		c.set(&s.cfg)
		r := s.start(t)
		s.quiet(t, r)
		cl, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers...), kgo.ConsumeTopics("store.public.lines"), kgo.WithLogger(nil),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
		if err != nil {
			t.Fatal(err)
		}
		var took []time.Duration
		for i := range 120 {
			time.Sleep(40 * time.Millisecond) // longer than the transaction interval
			s.exec(t, fmt.Sprintf("INSERT INTO lines VALUES (%d)", i))
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			for cl.PollFetches(ctx).NumRecords() == 0 && ctx.Err() == nil {
			}
			cancel()
			if i >= 20 { // the first ones find connections cold
				took = append(took, time.Since(begin))
			}
		}
		cl.Close()
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		slices.Sort(took)
		t.Logf("%s: p50 %v, p90 %v, p99 %v", c.name, took[len(took)/2], took[len(took)*9/10], took[len(took)*99/100])
	}
}

func lonelyCases() []lonelyCase {
	return []lonelyCase{
		{"one worker", func(c *Config) { c.EncodeWorkers = 1 }},
		{"two workers", func(c *Config) { c.EncodeWorkers = 2 }},
		{"at least once", func(c *Config) { c.Delivery = AtLeastOnce }},
	}
}

type lonelyCase struct {
	name string
	set  func(*Config)
}
