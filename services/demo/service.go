// Package demo is the demo store: a PostgreSQL source database made and filled by
// Setup, a trickle of live orders, corrections and browsing by simulated shoppers,
// and the storefront page /shop. It is the only part of the system that holds
// credentials to write to the source, and it runs in demonstrations only.
package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/services/demo/internal/gen"
)

// Deps is what the service is given. Log is required; a nil Metrics registers
// nothing, a nil Progress is not called, a nil Now is the system's clock.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Progress func(step string, done, total int64)
	Now      func() time.Time
}

// Service is the demo store. Its methods are safe for concurrent use; Run is
// called once.
type Service struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	prices  gen.Prices
	markets []gen.Market
	pool    atomic.Pointer[pgxpool.Pool] // nil until the store is set up
}

// New checks the configuration and makes the service. It does no I/O.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("demo.%w", err)
	}
	if cfg.URL == "" {
		return nil, errors.New("demo.url is not set: write the address of the demo store's primary, postgres://user@host:5432/database")
	}
	if deps.Log == nil {
		return nil, errors.New("demo: no logger given")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register the demo store's metrics: %w", err)
	}
	return &Service{cfg: cfg, deps: deps, metrics: m, prices: gen.NewPrices(), markets: gen.Markets()}, nil
}

// Run sets up the store if it is not there yet, then lets the trickle run until
// ctx ends, when it returns nil. A database that does not answer, now or later, is
// waited for; a set-up that cannot succeed is an error.
func (s *Service) Run(ctx context.Context) error {
	pool, err := s.open(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer pool.Close()
	s.pool.Store(pool)
	defer s.pool.Store(nil)
	return s.trickle(ctx, pool)
}

// Ready is nil once the store is set up and while its database answers, otherwise
// it is the reason. It takes a second at most.
func (s *Service) Ready() error {
	pool := s.pool.Load()
	if pool == nil {
		return errors.New("the demo store is being set up, or its database does not answer yet")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		return errors.New("the demo store's database does not answer")
	}
	return nil
}

// open sets the store up and opens the pool, for as long as it takes.
func (s *Service) open(ctx context.Context) (*pgxpool.Pool, error) {
	var wait pause
	for {
		pool, err := s.tryOpen(ctx)
		if err == nil {
			return pool, nil
		}
		if ctx.Err() != nil || !postgres.Retryable(err) {
			return nil, err
		}
		if wait.first() {
			s.deps.Log.Warn("the demo store's database does not answer; waiting for it", "error", err)
		}
		if !wait.sleep(ctx) {
			return nil, ctx.Err()
		}
	}
}

func (s *Service) tryOpen(ctx context.Context) (*pgxpool.Pool, error) {
	start := time.Now()
	var rows int64
	err := Setup(ctx, s.cfg.URL.Reveal(), Options{
		Seed: s.cfg.Seed, HistoryDays: s.cfg.HistoryDays, Rate: s.cfg.Rate, Now: s.deps.Now(),
		Progress: func(done, total int64) {
			rows = done
			if s.deps.Progress != nil {
				s.deps.Progress("fill the demo store", done, total)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	if rows > 0 {
		s.deps.Log.Info("demo store created", "rows", rows, "took", time.Since(start).Round(time.Millisecond))
	}
	return postgres.Open(ctx, s.cfg.URL, "demo", "demo store's database (demo.url)")
}

// pause is an exponential wait between attempts; the zero value is ready for use.
type pause struct{ tries int }

// first tells whether nothing was waited for yet.
func (p *pause) first() bool { return p.tries == 0 }

// sleep waits 100 ms, then twice as long each time, 5 s at most. It is false if
// ctx ended.
func (p *pause) sleep(ctx context.Context) bool {
	d := min(100*time.Millisecond<<min(p.tries, 10), 5*time.Second)
	p.tries++
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
