// Package recommend answers what to show a shopper, from memory and within milliseconds: from the cart and what was
// looked at a moment ago, from what the customer bought, and from what sells. It follows sales.products, sales.orders,
// sales.lines and activity.enriched, and records every answer in recommendations.served.
//
// It always answers. What it does not know it leaves out: each answer names its level.
package recommend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/recommend/internal/model"
	"github.com/millrace-io/millrace/services/recommend/internal/session"
)

// maxWork bounds what a publication spends on similar products, in pairs: some ten milliseconds.
const maxWork = 2_000_000

// Deps is what the service is given. All but Metrics and Now are required; a nil Metrics registers nothing, a nil Now
// is the system's clock.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Kafka    kafka.Config
	Registry *avro.Registry
	Now      func() time.Time
}

// Service recommends. Its methods are safe for concurrent use; Run and Close are called once, Close after the last
// request.
type Service struct {
	cfg      Config
	deps     Deps
	metrics  *metrics
	decoders decoders
	sessions *session.Store
	served   *servedLog
	scratch  sync.Pool // of *scratch

	mu       sync.Mutex // of builder
	builder  *model.Builder
	snapshot atomic.Pointer[model.Snapshot]
	read     atomic.Bool // catalogue and orders have been read whole
}

// New checks the configuration and makes the service. It does no I/O; answers are given at once, from an empty model.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("recommend.%w", err)
	}
	if deps.Log == nil || deps.Registry == nil {
		return nil, errors.New("recommend: a logger and a registry are needed")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	dec, err := newDecoders(deps.Registry)
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, deps: deps, decoders: dec, sessions: session.New(cfg.MaxSessionBytes, cfg.SessionHistory),
		builder: model.NewBuilder(model.Config{HalfLife: cfg.HalfLife, Neighbours: cfg.Neighbours, MaxLines: cfg.MaxOrderLines})}
	s.scratch.New = func() any { return &scratch{} }
	s.snapshot.Store(s.builder.Publish(deps.Now(), 0))
	if s.metrics, err = newMetrics(deps.Metrics, s); err != nil {
		return nil, fmt.Errorf("register the metrics of recommend: %w", err)
	}
	s.served = newServedLog(cfg.MaxServedBytes, s.metrics)
	return s, nil
}

// Ready is nil once the catalogue and the orders have been read. Answers are given before, from what is known by then.
func (s *Service) Ready() error {
	if !s.read.Load() {
		return errors.New("still reading the catalogue and the orders")
	}
	return nil
}

// Run follows the topics and records the answers until ctx ends. It leaves the record of answers open, for requests in
// hand may outlast ctx: Close ends it. The error is a registry that refuses the contract.
func (s *Service) Run(ctx context.Context) error {
	follower := kafka.NewFollower(s.deps.Kafka, "recommend-sales", s.deps.Log, s.applySales, s.deps.Kafka.Name(schemas.SalesProducts),
		s.deps.Kafka.Name(schemas.SalesOrders), s.deps.Kafka.Name(schemas.SalesLines))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return follower.Run(ctx) })
	group.Go(func() error { s.publish(ctx, follower.CaughtUp()); return nil })
	group.Go(func() error { return s.followActivity(ctx) })
	group.Go(func() error { return s.recordServed(ctx) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// publish makes a new snapshot whenever something has changed.
func (s *Service) publish(ctx context.Context, caughtUp <-chan struct{}) {
	tick := time.NewTicker(s.cfg.PublishEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-caughtUp:
			caughtUp = nil
			s.publishOnce(-1)
			s.read.Store(true)
			s.deps.Log.Info("catalogue and orders read", "products", s.snapshot.Load().Items())
		case <-tick.C:
			if s.read.Load() {
				s.publishOnce(maxWork)
			} else {
				s.publishOnce(0) // similar products are worked out once, at the end
			}
		}
	}
}

// decayEvery is how old a snapshot may be when nothing changes: ages count in days.
const decayEvery = time.Hour

func (s *Service) publishOnce(work int) {
	now := s.deps.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.builder.Changed() && now.Sub(s.snapshot.Load().Built) < decayEvery {
		return
	}
	start := time.Now()
	if work != 0 {
		s.builder.Trim()
	}
	s.snapshot.Store(s.builder.Publish(now, work))
	s.metrics.publish.Observe(time.Since(start).Seconds())
	s.metrics.size(s.builder.Size())
}
