package cdc

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// recordInterval is how often, at most, the position is recorded where that is not part of a transaction: what was
// written since is repeated after a failure.
const recordInterval = 250 * time.Millisecond

// shipment is a batch that is on its way to Kafka without a transaction.
type shipment struct {
	batch *batch
	since time.Time
	left  atomic.Int64 // records that are not acknowledged
}

// note is a position on its way to Kafka.
type note struct {
	position schemas.Position
	done     atomic.Bool
}

// deliver writes what comes at least once, until in is closed, or ctx ends, or something fails: records are sent at once,
// and a position when everything before it is acknowledged.
func (c *committer) deliver(ctx context.Context, in <-chan *batch) error {
	timer := time.NewTimer(recordInterval)
	defer timer.Stop()
	for {
		from := in
		if c.bytes >= c.cfg.TransactionBytes { // Kafka has to keep up
			from = nil
		}
		timer.Reset(recordInterval)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.heard:
		case <-timer.C:
		case b, ok := <-from:
			if !ok {
				return c.settleAll(ctx)
			}
			c.ship(ctx, b)
			if barrier := b.barrier; barrier != nil {
				if err := c.settleAll(ctx); err != nil {
					return err
				}
				close(barrier)
			}
		}
		if err := c.settle(); err != nil {
			return err
		}
		if c.noted == nil && c.moved && time.Since(c.last) >= min(recordInterval, c.cfg.PositionInterval) {
			if err := c.note(ctx); err != nil {
				return err
			}
		}
	}
}

// ship sends a batch.
func (c *committer) ship(ctx context.Context, b *batch) {
	s := &shipment{batch: b, since: time.Now()}
	s.left.Store(int64(len(b.records)))
	c.flight = append(c.flight, s)
	c.bytes += b.size()
	promise := func(_ *kgo.Record, err error) {
		if err != nil {
			c.failed.CompareAndSwap(nil, &err)
		}
		if s.left.Add(-1) == 0 || err != nil {
			c.wake()
		}
	}
	for i := range b.records {
		c.client.Produce(ctx, &b.records[i], promise)
	}
}

func (c *committer) wake() {
	select {
	case c.heard <- struct{}{}:
	default: // it will look anyway
	}
}

// settle takes note of what is acknowledged.
func (c *committer) settle() error {
	if err := c.failed.Load(); err != nil {
		return fmt.Errorf("write to Kafka: %w: %w", errInDoubt, *err)
	}
	done, data := 0, false
	for _, s := range c.flight {
		if s.left.Load() > 0 {
			if time.Since(s.since) > patience {
				return fmt.Errorf("write to Kafka: no answer for %v: %w", patience, errInDoubt)
			}
			break
		}
		done, data = done+1, data || len(s.batch.records) > 0
		c.arrived(s)
	}
	if n := copy(c.flight, c.flight[done:]); done > 0 {
		clear(c.flight[n:])
		c.flight = c.flight[:n]
	}
	switch {
	case data:
		c.state.committed(c.position, c.ends)
	case done > 0:
		c.state.reached(c.position)
	}
	if n := c.noted; n != nil && n.done.Load() {
		c.noted = nil
		if c.ack != nil {
			c.ack(pgoutput.LSN(n.position.LSN))
		}
	}
	return nil
}

// arrived takes over a batch that is acknowledged, and so all before it.
func (c *committer) arrived(s *shipment) {
	b := s.batch
	b.position.Seq = max(b.position.Seq, c.position.Seq) // workers of a snapshot overtake each other
	c.moved = c.moved || b.keep || len(b.records) > 0 || b.position.LSN > c.position.LSN
	c.position, c.boundary = b.position, b.boundary
	c.bytes -= b.size()
	c.count(b)
	c.pool.put(b)
}

// note sends the position.
func (c *committer) note(ctx context.Context) error {
	r, err := c.positionRecord(c.position)
	if err != nil {
		return err
	}
	n := &note{position: c.position}
	c.noted, c.moved, c.last = n, false, time.Now()
	c.client.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err != nil {
			c.failed.CompareAndSwap(nil, &err)
		} else {
			n.done.Store(true)
		}
		c.wake()
	})
	return nil
}

// settleAll waits until all that was sent, and then the position after it, is acknowledged.
func (c *committer) settleAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := c.await(ctx, func() bool { return len(c.flight) == 0 && c.noted == nil })
	if err == nil {
		err = c.note(ctx)
	}
	if err == nil {
		err = c.await(ctx, func() bool { return c.noted == nil })
	}
	return err
}

func (c *committer) await(ctx context.Context, done func() bool) error {
	for {
		if err := c.settle(); err != nil || done() {
			return err
		}
		select {
		case <-c.heard:
		case <-ctx.Done():
			return fmt.Errorf("write to Kafka: %w: %w", errInDoubt, ctx.Err())
		}
	}
}
