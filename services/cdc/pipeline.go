package cdc

import (
	"context"
	"log/slog"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// slabsPerWorker is how many slabs may be under way for each worker: enough that none waits for another's long one.
const slabsPerWorker = 3

// pipeline encodes slabs by several workers and passes them on in the order in which they came. With one worker all
// is done by the goroutine that dispatches, and so is a lonely slab in any case: a change on a quiet system is not
// handed about.
type pipeline struct {
	workers  int
	own      *coder   // of the goroutine that dispatches
	others   []*coder // each of a worker
	seq      *sequencer
	verdicts *verdicts
	work     chan *slab
	order    chan *slab // the same slabs, for the sequencer
	underway atomic.Int64
	free     chan *slab
}

// newPipeline makes a pipeline of so many workers; emit gets the batches, in order, and giveBack the slabs' chunks.
func newPipeline(workers int, coders func() *coder, emit func(context.Context, *batch) error, giveBack func([]byte), m *metrics, log *slog.Logger) *pipeline {
	depth := slabsPerWorker * workers
	p := &pipeline{workers: workers, own: coders(), verdicts: &verdicts{}, free: make(chan *slab, depth+2)}
	p.seq = &sequencer{emit: emit, giveBack: giveBack, verdicts: p.verdicts, limit: maxPoisoned, metrics: m, log: log}
	if workers == 1 {
		return p
	}
	p.work, p.order = make(chan *slab, depth), make(chan *slab, depth)
	for range workers {
		p.others = append(p.others, coders())
	}
	return p
}

// start runs the workers and the sequencer in the group until ctx ends.
func (p *pipeline) start(ctx context.Context, group *errgroup.Group) {
	if p.workers == 1 {
		return
	}
	for _, c := range p.others {
		group.Go(func() error { return p.worker(ctx, c) })
	}
	group.Go(func() error { return p.sequence(ctx) })
}

func (p *pipeline) worker(ctx context.Context, c *coder) error {
	for {
		select {
		case s := <-p.work:
			c.encode(s)
			s.done <- struct{}{}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *pipeline) sequence(ctx context.Context) error {
	for {
		select {
		case s := <-p.order:
			select {
			case <-s.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := p.pass(ctx, s); err != nil {
				return err
			}
			p.underway.Add(-1)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *pipeline) pass(ctx context.Context, s *slab) error {
	if err := p.seq.pass(ctx, s); err != nil {
		return err
	}
	s.reset()
	select {
	case p.free <- s:
	default:
	}
	return nil
}

// slab is an empty one.
func (p *pipeline) slab() *slab {
	select {
	case s := <-p.free:
		return s
	default:
		return newSlab()
	}
}

// dispatch has a slab encoded and passed on after those before it. It waits while too many are under way, and is for one
// goroutine.
func (p *pipeline) dispatch(ctx context.Context, s *slab) error {
	if p.workers == 1 {
		p.own.encode(s)
		return p.pass(ctx, s)
	}
	lonely := len(s.items) == 0 || !s.more && p.underway.Load() == 0
	if lonely {
		p.own.encode(s)
		s.done <- struct{}{}
	}
	p.underway.Add(1)
	select {
	case p.order <- s:
	case <-ctx.Done():
		return ctx.Err()
	}
	if lonely {
		return nil
	}
	select {
	case p.work <- s:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sequencer passes batches on and keeps the books of what does not fit. It is for one goroutine at a time.
type sequencer struct {
	emit     func(context.Context, *batch) error
	giveBack func([]byte)
	verdicts *verdicts
	limit    int // of poisoned keys of a table
	metrics  *metrics
	log      *slog.Logger
}

func (q *sequencer) pass(ctx context.Context, s *slab) error {
	if s.err != nil {
		return s.err
	}
	q.verdicts.forget(s.absorbed)
	pending := q.verdicts.after(s.absorbed)
	if len(pending) > 0 || len(s.findings) > 0 || len(s.position.Poisoned) > 0 {
		q.judge(s, pending)
	}
	b := s.out
	s.out = nil
	b.position, b.boundary, b.barrier, b.more, b.keep = s.position, s.boundary, s.barrier, s.more, s.keep
	q.giveBack(s.chunk)
	return q.emit(ctx, b)
}
