// Package collect is the activity intake: what shoppers do comes in over HTTP, is checked against the contract, stripped
// of personal data, and acknowledged only after Kafka has it. An event that is refused is answered with the field that
// is wrong and kept, sealed, in the quarantine.
package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/collect/internal/intake"
)

// Deps is what the service is given. All but Metrics and Now are required; a nil Metrics registers nothing, a nil Now
// is the system's clock.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Kafka    kafka.Config
	Registry *avro.Registry
	Keys     *privacy.Keys
	Now      func() time.Time
}

// Service is the intake. Its methods are safe for concurrent use; Run and Close are called once, Close after the last
// request.
type Service struct {
	cfg      Config
	deps     Deps
	parser   intake.Parser
	metrics  *metrics
	inFlight atomic.Int64
	output   atomic.Pointer[output] // nil until the registry has answered
	health   atomic.Pointer[string] // why not ready; nil when ready
}

// output is what a request needs to hand events on.
type output struct {
	client     *kgo.Client
	topic      string
	encoder    *avro.Encoder
	quarantine *quarantine.Quarantine
}

// New checks the configuration and makes the service. It does no I/O.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("collect.%w", err)
	}
	if deps.Log == nil || deps.Registry == nil || deps.Keys == nil {
		return nil, errors.New("collect: a logger, a registry and keys are needed")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	s := &Service{cfg: cfg, deps: deps}
	var err error
	if s.metrics, err = newMetrics(deps.Metrics, func() float64 { return float64(s.inFlight.Load()) }); err != nil {
		return nil, fmt.Errorf("register the metrics of collect: %w", err)
	}
	s.parser = intake.Parser{
		Limits: intake.Limits{Events: cfg.MaxBatchEvents, EventBytes: cfg.MaxEventBytes},
		Token:  deps.Keys.Token,
		NewID:  newID,
	}
	s.setHealth("starting")
	return s, nil
}

// newID is a UUID that sorts by time.
func newID() string { return uuid.Must(uuid.NewV7()).String() } // fails only if the system has no randomness

// Ready is nil while Kafka answers and has the topics, else it says what is missing.
func (s *Service) Ready() error {
	if why := s.health.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

func (s *Service) setHealth(why string) {
	if why == "" {
		s.health.Store(nil)
		return
	}
	s.health.Store(&why)
}

// Run connects to the registry and to Kafka and watches over them until ctx ends. Requests are answered 503 until it
// has connected. It leaves the connection open, for requests in hand may outlast ctx: Close ends it. The error is a
// registry that refuses the contract.
func (s *Service) Run(ctx context.Context) error {
	out, err := s.connect(ctx)
	if err != nil || out == nil {
		return err
	}
	s.output.Store(out)
	s.watch(ctx, out.client)
	return nil
}

// Close waits, at most until ctx ends, until Kafka has what is still on its way (refused events on their way to the
// quarantine), and ends the connection.
func (s *Service) Close(ctx context.Context) error {
	out := s.output.Swap(nil)
	if out == nil {
		return nil
	}
	defer out.client.Close()
	if err := out.client.Flush(ctx); err != nil {
		return fmt.Errorf("collect: %d records were not delivered before the end: %w", out.client.BufferedProduceRecords(), err)
	}
	return nil
}

// connect makes the output; it waits for a registry that is away. Both results are nil when ctx ended first.
func (s *Service) connect(ctx context.Context) (*output, error) {
	raw, err := s.encoder(ctx, schemas.ActivityRaw)
	if raw == nil {
		return nil, err
	}
	refused, err := s.encoder(ctx, schemas.Quarantine)
	if refused == nil {
		return nil, err
	}
	client, err := s.deps.Kafka.Client("collect", s.deps.Log, s.deps.Metrics, kgo.RecordDeliveryTimeout(s.cfg.ProduceTimeout),
		// Whoever was answered 503 sends the events again, so giving up a record that may have arrived adds no
		// duplicate that is not there already; not giving it up would hold its bytes as long as Kafka is away.
		kgo.AllowIdempotentProduceCancellation())
	if err != nil {
		return nil, err
	}
	return &output{client: client, topic: s.deps.Kafka.Name(schemas.ActivityRaw), encoder: raw,
		quarantine: quarantine.New(s.deps.Keys, refused, s.deps.Kafka.Name(schemas.Quarantine), "collect")}, nil
}

func (s *Service) encoder(ctx context.Context, topic string) (*avro.Encoder, error) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		enc, err := avro.NewEncoder(ctx, s.deps.Registry, schemas.Subject(s.deps.Kafka.Name(topic)), schemas.Latest(topic))
		switch {
		case err == nil:
			return enc, nil
		case ctx.Err() != nil:
			return nil, nil
		case !errors.Is(err, avro.ErrUnavailable):
			return nil, fmt.Errorf("the contract of %s is not accepted: %w", topic, err)
		}
		s.setHealth("waiting for the schema registry (registry.url)")
		s.deps.Log.Warn("waiting for the schema registry", "error", err)
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(wait):
		}
	}
}
