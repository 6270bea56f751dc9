package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
	"github.com/millrace-io/millrace/services/cdc/internal/policy"
)

// Deps is what the service is given. Log, Registry and Keys are required; a nil Metrics registers nothing.
type Deps struct {
	Kafka    kafka.Config
	Source   SourceConfig
	Registry *avro.Registry
	Keys     *privacy.Keys
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Version  string // of the program, for the events' source
	// OnSlotWait is called every 100 ms while the slot is being created on a standby: whoever owns the primary, as the
	// demo does, can make it log its running transactions there. cdc itself never talks to the primary. nil: nobody is.
	OnSlotWait func(context.Context)
}

// Service captures one source: through one slot, or, when the configuration has groups of tables, through the slot of
// each, and then it is one Service for each group. Its methods are safe for concurrent use; Run is called once.
type Service struct {
	cfg     Config
	deps    Deps
	policy  *policy.Policy
	metrics *metrics
	state   *state
	// announce tells operators what happened. It neither blocks nor fails.
	announce   func(schemas.CaptureNotification)
	exceeded   chan *limitError // the guard says that the slot is to be given up
	promoted   chan int32       // the guard says that the source is on another timeline
	guardEvery time.Duration
	groups     []*Service // of one slot each; with them the fields above are not used
	notes      *notifier
	hooks      hooks
}

// hooks are for tests, which hold what runs beside the stream where they want it. They are nil otherwise.
type hooks struct {
	read    func(table string, c *chunk.Chunk) // a window has its rows, and the stream does not know yet
	copied  func(table string, block int64)    // the first snapshot has read a range up to a block
	members time.Duration                      // how often the publication is looked at
}

// New checks the configuration and makes the service. It does no I/O.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cdc.%w", err)
	}
	if err := deps.Source.Validate(); err != nil {
		return nil, fmt.Errorf("source.%w", err)
	}
	if deps.Source.URL == "" {
		return nil, errors.New("source.url is not set: write the address of the read replica, postgres://role@host:5432/database")
	}
	if deps.Log == nil || deps.Registry == nil || deps.Keys == nil {
		return nil, errors.New("cdc: a logger, a registry and keys must be given")
	}
	if len(cfg.Groups) > 0 {
		return newGroups(cfg, deps)
	}
	return newSingle(cfg, deps)
}

// newSingle makes the service of one slot.
func newSingle(cfg Config, deps Deps) (*Service, error) {
	rules, err := cfg.policy()
	if err != nil {
		return nil, fmt.Errorf("cdc.%w", err)
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of cdc: %w", err)
	}
	s := &Service{cfg: cfg, deps: deps, policy: rules, metrics: m, state: newState(),
		exceeded: make(chan *limitError, 1), promoted: make(chan int32, 1), guardEvery: guardInterval}
	s.notes = newNotifier(s)
	s.announce = s.notes.tell
	return s, nil
}

// captured tells whether a table, schema.table, is written to its topic.
func (s *Service) captured(name string) bool {
	schema, table, _ := strings.Cut(name, ".")
	return s.cfg.ours(name) && s.policy.Captured(schema, table)
}

// Ready is nil while changes are streaming, otherwise the reason why not. Stopped tables do not make it unready.
func (s *Service) Ready() error {
	if s.groups != nil {
		return s.readyGroups()
	}
	return s.state.ready()
}

// Run captures until ctx ends, when it returns nil. What is away, the source or Kafka or the registry, is waited for; a
// gap is an error that wraps ErrGap and names the next command.
func (s *Service) Run(ctx context.Context) error {
	if s.groups != nil {
		return s.runGroups(ctx)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.capture(ctx) })
	group.Go(func() error { s.claims(ctx); return nil })
	group.Go(func() error { s.guardSlot(ctx); return nil })
	group.Go(func() error { s.notes.run(ctx); return nil })
	return group.Wait()
}

// capture runs one session after another.
func (s *Service) capture(ctx context.Context) error {
	wait := firstPause
	var lost error // the gap over which the next session goes by difference
	for {
		begin, before := time.Now(), s.state.commits()
		err := s.attempt(ctx, lost)
		lost = nil
		if ctx.Err() != nil {
			return nil
		}
		s.state.blocked(err)
		var g *GapError
		if errors.As(err, &g) {
			s.metrics.gaps.WithLabelValues(string(g.Cause)).Inc()
			s.announceGap(g)
			why := "cdc.on_gap asks for it"
			if s.cfg.OnGap != onGapReconcile {
				asked, failed := s.askedToReconcile(ctx)
				if !asked {
					return errors.Join(err, failed)
				}
				why = "an operator asked for it"
			}
			s.deps.Log.Error("going on from a new slot and writing what differs", "gap", err, "why", why)
			lost = err
		}
		if time.Since(begin) > steady || s.state.commits() > before {
			wait = firstPause
		}
		level := slog.LevelWarn
		if wait == firstPause { // a single failure is what a fail-over looks like
			level = slog.LevelInfo
		}
		s.metrics.restarts.Inc()
		s.deps.Log.Log(ctx, level, "capture is interrupted, trying again", "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, longestPause)
	}
}

// Pauses between two sessions. A session that lived for so long, or that got anything into Kafka, begins with the first.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 2 * time.Second
	steady       = 10 * time.Second
)
