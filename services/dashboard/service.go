// Package dashboard shows sales by hour, seconds old: a page for marketing at / and the API behind it. It only reads
// the views of the sales database, which aggregate makes and fills; every answer says up to when it is complete.
package dashboard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"github.com/millrace-io/millrace/pkg/postgres"
)

// Deps is what the service is given. Log is required; a nil Metrics registers nothing, a nil Now is the system's clock.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Sales   postgres.SalesConfig
	Now     func() time.Time
}

// Service is the dashboard. Its methods are safe for concurrent use; Run is called once.
type Service struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	pool    atomic.Pointer[pgxpool.Pool] // nil until the database has answered once
	slots   *semaphore.Weighted          // questions at the same time; the watch has a connection of its own
	flights singleflight.Group           // the same question at the same time is asked once
	choices atomic.Pointer[choices]      // what there is to filter by, as last read
	hub     *hub
	health  atomic.Pointer[string] // why not ready; nil when ready
	waiting wait                   // of Run's goroutine alone
}

// New checks the configuration and makes the service. It does no I/O.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("dashboard.%w", err)
	}
	if deps.Sales.URL == "" {
		return nil, errors.New("sales.url is not set: write the address of the sales database, postgres://user@host:5432/database")
	}
	if err := deps.Sales.Validate(); err != nil {
		return nil, fmt.Errorf("sales.%w", err)
	}
	if deps.Log == nil {
		return nil, errors.New("dashboard: no logger given")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of the dashboard: %w", err)
	}
	s := &Service{cfg: cfg, deps: deps, metrics: m, slots: semaphore.NewWeighted(int64(cfg.Connections)), hub: newHub(cfg.MaxLiveClients)}
	why := "starting"
	s.health.Store(&why)
	return s, nil
}

// Ready is nil while the sales database answers and has its totals, else the reason.
func (s *Service) Ready() error {
	if why := s.health.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

// Run connects to the sales database and watches it until ctx ends, when it ends the live streams and returns nil. A
// database that is away, now or later, is waited for.
func (s *Service) Run(ctx context.Context) error {
	defer s.hub.close()
	pool := s.connect(ctx)
	if pool == nil {
		return nil
	}
	defer pool.Close()
	s.pool.Store(pool)
	defer s.pool.Store(nil)
	s.watch(ctx, pool)
	return nil
}

// connect gives the pool, or nil when ctx ended first.
func (s *Service) connect(ctx context.Context) *pgxpool.Pool {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		pool, err := postgres.Open(ctx, s.deps.Sales.URL, "dashboard", "sales database (sales.url)", readOnly(s.cfg))
		if err == nil {
			return pool
		}
		if ctx.Err() != nil {
			return nil
		}
		s.setHealth(err)
		s.publish(nil, nil, errAway)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// patience is how long a wait is nothing unusual: databases and the service that makes the views start and restart.
const patience = 5 * time.Second

// wait is the time without the sales database: since when, and what was last said about it and how loudly.
type wait struct {
	since time.Time // zero while there is nothing to wait for
	why   string
	level slog.Level
}

// setHealth keeps the reason why the service is not ready. It is logged when it is another one than before, and as a
// warning once the wait is longer than usual. Only Run's goroutine calls it.
func (s *Service) setHealth(err error) {
	if err == nil {
		s.metrics.up.Set(1)
		s.waiting = wait{}
		if s.health.Swap(nil) != nil {
			s.deps.Log.Info("the sales database answers")
		}
		return
	}
	s.metrics.up.Set(0)
	why := err.Error()
	s.health.Store(&why)
	now := wait{since: s.waiting.since, why: why, level: slog.LevelInfo}
	if now.since.IsZero() {
		now.since = time.Now()
	}
	if time.Since(now.since) >= patience {
		now.level = slog.LevelWarn
	}
	if now != s.waiting {
		s.waiting = now
		s.deps.Log.Log(context.Background(), now.level, "the dashboard waits", "reason", why)
	}
}
