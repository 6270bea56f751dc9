package cdc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

const (
	// patience bounds one step with Kafka; beyond it the session is in doubt and begins again.
	patience = 30 * time.Second
	// longestTransaction is far below the broker's limit, for an open transaction stalls all readers.
	longestTransaction = 10 * time.Second
	// commitShare and longestBacklogged: while changes are waiting anyway, a transaction is let grow until its commit is a
	// small part of the time that it takes.
	commitShare       = 5
	longestBacklogged = 250 * time.Millisecond
)

// errInDoubt: a Kafka transaction may or may not be committed; only reading the position again can tell.
var errInDoubt = errors.New("a Kafka transaction is in doubt")

// committer writes batches to Kafka in transactions, each with the position after it; or, at least once, without
// transactions and with positions that follow. It is for one goroutine.
type committer struct {
	cfg      Config
	client   *kgo.Client
	encoder  *avro.Encoder // of positions
	topic    string        // of positions
	metrics  *metrics
	state    *state
	pool     pool
	ack      func(pgoutput.LSN) // nil while there is no stream
	position schemas.Position
	boundary bool
	more     bool // the next batch is on its way

	open     bool
	bytes    int
	since    time.Time
	last     time.Time // of the last commit
	took     time.Duration
	recorded int64 // LSN of the last recorded position
	batches  []*batch
	failed   atomic.Pointer[error]
	ends     map[string][]int64 // offsets after the last data, by topic

	flight []*shipment   // at least once: oldest first
	heard  chan struct{} // at least once: something was acknowledged, or failed
	noted  *note         // at least once: the position on its way
	moved  bool          // at least once: the position is not sent yet
}

// run commits what comes until in is closed, or ctx ends, or something fails.
func (c *committer) run(ctx context.Context, in <-chan *batch) error {
	if c.cfg.Delivery == AtLeastOnce {
		return c.deliver(ctx, in)
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(c.untilDue())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case b, ok := <-in:
			if !ok {
				return c.commit(ctx)
			}
			if err := c.take(ctx, b); err != nil {
				return err
			}
		}
		if err := c.maybeCommit(ctx, len(in)); err != nil {
			return err
		}
	}
}

// untilDue is how long to wait for more.
func (c *committer) untilDue() time.Duration {
	switch {
	case c.open && c.boundary && c.more:
		return max(0, c.backlogged()-time.Since(c.since))
	case c.open && c.boundary:
		return max(0, c.cfg.TransactionInterval-time.Since(c.last))
	case c.open:
		return max(0, longestTransaction-time.Since(c.since))
	default:
		return max(10*time.Millisecond, c.cfg.PositionInterval-time.Since(c.last))
	}
}

// backlogged is how long a transaction is to be open while more is waiting.
func (c *committer) backlogged() time.Duration {
	return max(c.cfg.TransactionInterval, min(commitShare*c.took, longestBacklogged))
}

func (c *committer) take(ctx context.Context, b *batch) error {
	b.position.Seq = max(b.position.Seq, c.position.Seq) // workers of a snapshot overtake each other
	c.position, c.boundary, c.more = b.position, b.boundary, b.more
	if (len(b.records) > 0 || b.keep) && !c.open {
		if err := c.begin(); err != nil {
			return err
		}
	}
	promise := c.produced // one for all
	for i := range b.records {
		c.client.Produce(ctx, &b.records[i], promise)
	}
	c.bytes += b.size()
	c.state.handed(b.position.LSN)
	c.batches = append(c.batches, b)
	if barrier := b.barrier; barrier != nil { // the commit recycles the batch
		if err := c.commit(ctx); err != nil {
			return err
		}
		close(barrier)
	}
	if !c.open {
		c.release()
		c.state.reached(c.position)
	}
	return nil
}

func (c *committer) begin() error {
	if err := c.client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin a Kafka transaction: %w: %w", errInDoubt, err)
	}
	c.open, c.since = true, time.Now()
	return nil
}

// produced is the promise of every record: the client calls it from one goroutine.
func (c *committer) produced(_ *kgo.Record, err error) {
	if err != nil {
		c.failed.CompareAndSwap(nil, &err)
	}
}

func (c *committer) maybeCommit(ctx context.Context, waiting int) error {
	now := time.Now()
	switch {
	case c.open && c.bytes >= c.cfg.TransactionBytes:
	case c.open && c.boundary && waiting == 0 && !c.more && now.Sub(c.last) >= c.cfg.TransactionInterval:
	case c.open && c.boundary && now.Sub(c.since) >= c.backlogged():
	case c.open && now.Sub(c.since) >= longestTransaction:
	case !c.open && c.boundary && c.position.LSN > c.recorded && now.Sub(c.last) >= c.cfg.PositionInterval:
		if err := c.begin(); err != nil {
			return err
		}
	default:
		return nil
	}
	return c.commit(ctx)
}

// commit ends the open transaction, if any, with the position; only then may the source forget.
func (c *committer) commit(ctx context.Context) error {
	if !c.open {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin, position := time.Now(), c.position
	r, err := c.positionRecord(position)
	if err != nil {
		return err
	}
	c.client.Produce(ctx, r, c.produced)
	if err := c.client.Flush(ctx); err != nil {
		return fmt.Errorf("write to Kafka: %w: %w", errInDoubt, err)
	}
	if err := c.failed.Load(); err != nil {
		return fmt.Errorf("write to Kafka: %w: %w", errInDoubt, *err)
	}
	if err := c.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("commit to Kafka: %w: %w", errInDoubt, err)
	}
	c.open, c.bytes, c.last, c.recorded = false, 0, time.Now(), position.LSN
	c.took = c.last.Sub(begin)
	if c.ack != nil {
		c.ack(pgoutput.LSN(position.LSN))
	}
	c.metrics.kafkaTx.Inc()
	for _, b := range c.batches {
		c.count(b)
	}
	c.release()
	c.state.committed(position, c.ends)
	return nil
}

func (c *committer) positionRecord(p schemas.Position) (*kgo.Record, error) {
	p.UpdatedAt = time.Now().UTC()
	value, err := c.encoder.Append(nil, p)
	if err != nil {
		return nil, fmt.Errorf("write the position: %w", err)
	}
	return &kgo.Record{Topic: c.topic, Key: []byte(p.Slot), Value: value}, nil
}

// record commits a position that comes with no data.
func (c *committer) record(ctx context.Context, p schemas.Position) error {
	c.position, c.boundary = p, true
	if c.cfg.Delivery == AtLeastOnce {
		return c.settleAll(ctx)
	}
	if !c.open {
		if err := c.begin(); err != nil {
			return err
		}
	}
	return c.commit(ctx)
}

// count counts a batch whose records are all acknowledged, and notes where they are.
func (c *committer) count(b *batch) {
	c.metrics.out.Add(float64(len(b.records)))
	for i := 0; i < len(b.refs); { // runs of the same topic and counter are the rule
		r, n := &b.refs[i], 1
		for i+n < len(b.refs) && b.refs[i+n].table == r.table && b.refs[i+n].op == r.op && b.refs[i+n].topic == r.topic {
			n++
		}
		if r.op != 0 {
			r.table.of(r.op).Add(float64(n))
		}
		if r.table != nil && r.op != opQuarantined { // a topic that is not listed is that of a table that joined
			ends := c.ends[r.topic]
			for j := i; j < i+n; j++ {
				p := int(b.records[j].Partition)
				for len(ends) <= p {
					ends = append(ends, 0)
				}
				ends[p] = max(ends[p], b.records[j].Offset+1)
			}
			c.ends[r.topic] = ends
		}
		i += n
	}
}

func (c *committer) release() {
	for _, b := range c.batches {
		c.pool.put(b)
	}
	c.batches = c.batches[:0]
}
