package aggregate

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/aggregate/internal/claims"
	"github.com/millrace-io/millrace/services/aggregate/internal/ledger"
)

const (
	// progressEvery is how often the progress is written and changed hours are announced.
	progressEvery = 200 * time.Millisecond
	// slowly is how often the waiting lines are counted and the topics' ids are looked at, in ticks of progressEvery.
	slowly = 25
)

// progress turns the claims of the stages before into what the totals are complete through, and announces the hours
// that change.
type progress struct {
	s      *Service
	ledger *ledger.Ledger

	mu      sync.Mutex
	book    *claims.Book
	cluster string
	hours   map[time.Time]bool
}

func newProgress(s *Service, l *ledger.Ledger) *progress {
	return &progress{s: s, ledger: l, book: claims.NewBook(), hours: map[time.Time]bool{}}
}

// setCluster says which cluster's positions the claims are about.
func (p *progress) setCluster(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cluster = id
}

// changed notes hours to announce.
func (p *progress) changed(hours []time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range hours {
		p.hours[h] = true
	}
}

// follow reads the progress topic until ctx ends.
func (p *progress) follow(ctx context.Context) {
	d, err := avro.NewDecoder(p.s.deps.Registry, schemas.Latest(schemas.Progress))
	for try := 0; ctx.Err() == nil; try++ {
		if err == nil {
			f := kafka.NewFollower(p.s.deps.Kafka, name+"-progress", p.s.log, func(ctx context.Context, records []*kgo.Record) error {
				return p.take(ctx, d, records)
			}, p.s.deps.Kafka.Name(schemas.Progress))
			err = f.Run(ctx)
		}
		if ctx.Err() == nil {
			p.s.log.Warn("cannot follow the progress of the stages before, trying again", "error", err)
			err = nil
			pause(ctx, try)
		}
	}
}

// take adds claims. One that cannot be read is passed over: the next one says more.
func (p *progress) take(ctx context.Context, d *avro.Decoder, records []*kgo.Record) error {
	for _, r := range records {
		if r.Value == nil {
			continue
		}
		var c schemas.Claim
		for try := 0; ; try++ {
			err := d.Decode(ctx, r.Value, &c)
			if err == nil {
				break
			}
			p.s.log.Warn("cannot read a claim of progress", "offset", r.Offset, "error", err)
			if avro.Bad(err) {
				c = schemas.Claim{}
				break
			}
			if !pause(ctx, try) {
				return ctx.Err()
			}
		}
		p.mu.Lock()
		p.book.Take(c)
		p.mu.Unlock()
	}
	return nil
}

// run writes the progress until ctx ends.
func (p *progress) run(ctx context.Context) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := p.step(ctx)
		if err == nil && n%slowly == slowly-1 {
			err = p.slowStep(ctx)
		}
		if err != nil && ctx.Err() == nil {
			p.s.log.Debug("progress is not written", "error", err) // the batches say it aloud
		}
	}
}

func (p *progress) slowStep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	n, err := p.ledger.Waiting(ctx)
	if err != nil {
		return err
	}
	p.s.metrics.waiting.Set(float64(n))
	if x := p.s.session(); x != nil {
		return x.checkTopics(ctx)
	}
	return nil
}

func (p *progress) step(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	positions, err := p.ledger.Positions(ctx)
	if err != nil {
		return err
	}
	if x := p.s.session(); x != nil {
		x.check(positions)
	}
	if err := p.announce(ctx); err != nil {
		return err
	}
	state, ok := p.state(positions)
	if !ok {
		return nil
	}
	if err := p.ledger.SetProgress(ctx, ledger.Progress{ValidThrough: state.ValidThrough, SourceLSN: state.SourceLSN, Incomplete: state.Incomplete}); err != nil {
		return err
	}
	p.s.metrics.through.Set(float64(state.ValidThrough.UnixMicro()) / 1e6)
	return nil
}

// state is what is complete, by the positions of this cluster.
func (p *progress) state(positions []ledger.Position) (claims.State, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	have := map[schemas.Partition]int64{}
	var stopped []string
	for _, pos := range positions {
		if pos.Stopped != "" {
			stopped = append(stopped, fmt.Sprintf("%s/%d", pos.Topic, pos.Part))
		} else if pos.Cluster == p.cluster {
			have[schemas.Partition{Topic: pos.Topic, Partition: pos.Part}] = pos.Next
		}
	}
	p.s.metrics.stopped.Set(float64(len(stopped)))
	state, missing, ok := p.book.At(have)
	p.s.metrics.unclaims.Set(float64(len(missing)))
	state.Incomplete = append(state.Incomplete, stopped...)
	return state, ok && p.cluster != ""
}

// announce tells listeners which hours have changed.
func (p *progress) announce(ctx context.Context) error {
	p.mu.Lock()
	var hours []time.Time
	for h := range p.hours {
		hours = append(hours, h)
	}
	clear(p.hours)
	p.mu.Unlock()
	if len(hours) == 0 {
		return nil
	}
	return p.ledger.Announce(ctx, hours)
}
