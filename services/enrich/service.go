// Package enrich turns the store's rows into images of orders, lines and products, and activity into enriched activity:
// it reads the topics store.* and activity.raw, joins customers, products and regions, and writes sales.* and
// activity.enriched, each batch in one Kafka transaction with its offsets.
//
// An image whose customer or product has not arrived yet is written at once with "unknown" and written again, with a
// higher version, when the row arrives. What cannot be taken goes to quarantine; what depends on something that is
// away waits.
package enrich

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/enrich/internal/images"
)

// Deps is what the service is given. Log, Registry and Keys are required; a nil Metrics registers nothing, a nil Now
// is the system's clock.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Kafka    kafka.Config
	Registry *avro.Registry
	Keys     *privacy.Keys
	Now      func() time.Time
}

// Service is the stage. Run is called once; Ready is safe for concurrent use.
type Service struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	set     *images.Set
	metrics *metrics
	status  *status
	streams atomic.Bool

	maxWaiting int // bytes of memory for images that wait

	offsetsPatience time.Duration // with a group that keeps the offsets of our partitions back
}

// New checks the configuration, reads the mapping and makes the service. It does no other I/O.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("enrich.%w", err)
	}
	if deps.Log == nil || deps.Registry == nil || deps.Keys == nil {
		return nil, errors.New("enrich: a logger, a registry and keys are needed")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	m, err := cfg.load()
	if err != nil {
		return nil, err
	}
	topics := append(m.Topics(), schemas.ActivityRaw)
	metrics, err := newMetrics(deps.Metrics, topics)
	if err != nil {
		return nil, err
	}
	log := deps.Log.With("service", stage)
	return &Service{cfg: cfg, deps: deps, log: log, set: images.New(m), metrics: metrics, status: newStatus(log, metrics.stalled),
		maxWaiting: maxWaiting, offsetsPatience: offsetsPatience}, nil
}

// Run works until ctx ends, when it returns nil. A broker or a registry that is away is waited for.
func (s *Service) Run(ctx context.Context) error {
	defer s.status.silence()
	pause := firstPause
	for ctx.Err() == nil {
		begun := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, avro.ErrIncompatible) {
			return fmt.Errorf("a schema of ours does not fit the released ones in the registry, so records of older programs could not be read: %w", err)
		}
		if time.Since(begun) > time.Minute {
			pause = firstPause
		}
		s.status.stall(partStart, fmt.Errorf("starting again after a failure: %w", err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
	return nil
}

func (s *Service) once(ctx context.Context) error {
	client, err := s.deps.Kafka.Client("enrich-admin", s.log, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	session := s.newSession(client)
	if err := session.prepare(ctx, client); err != nil {
		return err
	}
	defer s.streams.Store(false)
	return session.run(ctx)
}

// Ready is nil while the service streams, else the reason why not.
func (s *Service) Ready() error {
	if err := s.status.ready(); err != nil {
		return err
	}
	if !s.streams.Load() {
		return errors.New("starting")
	}
	return nil
}
