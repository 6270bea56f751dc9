// Package aggregate keeps hourly sales in PostgreSQL from the topics sales.orders, sales.lines and sales.products.
//
// Each batch of records is one transaction: it moves the partitions' positions, which are fenced by an epoch that the
// database issues, brings the ledger up to date and adds the difference to the totals. So every record counts once,
// whatever was late, repeated, reordered, corrected or replayed, and whatever died on the way.
package aggregate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/services/aggregate/internal/ledger"
)

// name is the consumer group, the role of the clients and the stage in quarantine.
const name = "aggregate"

// Deps is what the service is given. A nil Metrics registers nothing, a nil Now is the system's clock; everything else
// is required.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Kafka    kafka.Config
	Registry *avro.Registry
	Sales    postgres.SalesConfig
	Keys     *privacy.Keys
	Now      func() time.Time
}

// Service is the aggregation. Run is called once; Ready at any time.
type Service struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	problem error // why it does not work now, or nil
	current *session
}

// New checks the configuration and makes the service. It does no I/O.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("aggregate.%w", err)
	}
	switch {
	case deps.Log == nil || deps.Registry == nil || deps.Keys == nil:
		return nil, errors.New("aggregate: a logger, a registry and keys are needed")
	case deps.Sales.URL == "":
		return nil, errors.New("sales.url is not set: write the address of the sales database, postgres://user@host:5432/database")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of aggregate: %w", err)
	}
	return &Service{cfg: cfg, deps: deps, log: deps.Log.With("service", name), metrics: m, problem: errors.New("starting")}, nil
}

// Ready is nil while batches can be written, else the reason why not.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem
}

// setProblem remembers why the service does not work, and logs a change of it.
func (s *Service) setProblem(err error) {
	s.mu.Lock()
	before := s.problem
	s.problem = err
	s.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		s.log.Warn("not working, trying again", "reason", err)
	case err == nil && before != nil:
		s.log.Info("working")
	}
}

// Run brings the database up to date and works until ctx ends. It waits for whatever does not answer.
func (s *Service) Run(ctx context.Context) error {
	l, err := s.open(ctx)
	if err != nil {
		return nil // ctx has ended: nothing else ends the attempts
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	p := newProgress(s, l)
	wg.Go(func() { p.follow(ctx) })
	wg.Go(func() { p.run(ctx) })
	for try := 0; ; try++ {
		began := time.Now()
		err := s.work(ctx, l, p)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ledger.ErrFenced) {
			s.metrics.fenced.Inc()
			s.log.Warn("another instance has claimed a partition of this one: claiming anew what the group gives")
		} else {
			s.setProblem(err)
		}
		if time.Since(began) > time.Minute {
			try = 0
		}
		if !pause(ctx, try) {
			return nil
		}
	}
}

// open opens the migrated database, for as long as it takes.
func (s *Service) open(ctx context.Context) (*ledger.Ledger, error) {
	for try := 0; ; try++ {
		began := time.Now()
		err := ledger.Migrate(ctx, s.deps.Sales.URL, s.log)
		if err == nil {
			s.step("schema is up to date", began)
			var l *ledger.Ledger
			if l, err = ledger.Open(ctx, s.ledgerOptions()); err == nil {
				s.step("ledger is open", began)
				return l, nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.setProblem(err)
		if !pause(ctx, try) {
			return nil, ctx.Err()
		}
	}
}

// step tells how far the way to work has come, for whoever asks where a start spends its time.
func (s *Service) step(what string, began time.Time, args ...any) {
	s.log.Debug("step on the way to work", append(args, "step", what, "after", time.Since(began))...)
}

func (s *Service) ledgerOptions() ledger.Options {
	return ledger.Options{URL: s.deps.Sales.URL, Owner: s.deps.Kafka.Instance(), Log: s.log, ZombieAfter: s.cfg.ClaimWait}
}

// pause waits a random while that grows with the tries, two seconds at most; false if ctx ended.
func pause(ctx context.Context, try int) bool {
	d := min(50*time.Millisecond<<min(try, 8), 2*time.Second)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
