package recommend

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
)

type decoders struct{ product, order, line, activity *avro.Decoder }

func newDecoders(r *avro.Registry) (d decoders, err error) {
	for topic, to := range map[string]**avro.Decoder{schemas.SalesProducts: &d.product, schemas.SalesOrders: &d.order,
		schemas.SalesLines: &d.line, schemas.ActivityEnriched: &d.activity} {
		if *to, err = avro.NewDecoder(r, schemas.Latest(topic)); err != nil {
			return d, fmt.Errorf("contract of %s: %w", topic, err)
		}
	}
	return d, nil
}

// Outcomes of records: each has exactly one.
const (
	outcomeApplied   = "applied"
	outcomeTombstone = "tombstone"
	outcomeDuplicate = "duplicate"
	outcomeBad       = "bad"
)

// applySales takes records of products, orders and lines in. Its error is the end of ctx.
func (s *Service) applySales(ctx context.Context, records []*kgo.Record) error {
	for _, r := range records {
		topic := strings.TrimPrefix(r.Topic, s.deps.Kafka.TopicPrefix)
		apply, err := s.sale(ctx, topic, r)
		if err != nil {
			return err
		}
		outcome := outcomeApplied
		switch {
		case apply == nil:
			outcome = outcomeBad
		case r.Value == nil:
			outcome = outcomeTombstone
		}
		s.metrics.records.WithLabelValues(topic, outcome).Inc()
		if apply != nil {
			s.mu.Lock()
			apply()
			s.mu.Unlock()
		}
	}
	return nil
}

// sale is what a record does to the builder; nil if it cannot be read.
func (s *Service) sale(ctx context.Context, topic string, r *kgo.Record) (func(), error) {
	key := string(r.Key)
	switch topic {
	case schemas.SalesProducts:
		if r.Value == nil {
			return func() { s.builder.ProductGone(key) }, nil
		}
		p := new(schemas.Product)
		ok, err := s.decode(ctx, s.decoders.product, r, p)
		return when(ok, func() { s.builder.Product(p) }), err
	case schemas.SalesOrders:
		if r.Value == nil {
			return func() { s.builder.OrderGone(key) }, nil
		}
		o := new(schemas.Order)
		ok, err := s.decode(ctx, s.decoders.order, r, o)
		return when(ok, func() { s.builder.Order(o) }), err
	default:
		if r.Value == nil {
			return func() { s.builder.LineGone(key) }, nil
		}
		l := new(schemas.Line)
		ok, err := s.decode(ctx, s.decoders.line, r, l)
		return when(ok, func() { s.builder.Line(l) }), err
	}
}

func when(ok bool, f func()) func() {
	if ok {
		return f
	}
	return nil
}

// decode reads a record, waiting for a registry that is away. It tells false for a record that is bad: another stage's
// defect, which must not keep this one from answering. The error is the end of ctx.
func (s *Service) decode(ctx context.Context, d *avro.Decoder, r *kgo.Record, v any) (bool, error) {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := d.Decode(ctx, r.Value, v)
		switch {
		case err == nil:
			return true, nil
		case avro.Bad(err):
			s.deps.Log.Error("a record cannot be read and is left out", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "error", err)
			return false, nil
		}
		s.deps.Log.Warn("waiting for the schema registry", "error", err)
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// followActivity keeps the sessions: it reads from some hours ago and then follows, in no group, for every replica
// needs all of it.
func (s *Service) followActivity(ctx context.Context) error {
	from := s.deps.Now().Add(-s.cfg.SessionHistory).UnixMilli()
	cl, err := s.deps.Kafka.Client("recommend-activity", s.deps.Log, s.deps.Metrics, kgo.ConsumeTopics(s.deps.Kafka.Name(schemas.ActivityEnriched)),
		kgo.ConsumeStartOffset(kgo.NewOffset().AfterMilli(from)), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	for ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			s.deps.Log.Warn("cannot follow a topic, trying again", "topic", topic, "partition", partition, "error", err)
		})
		for _, r := range fetches.Records() {
			if err := s.applyActivity(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) applyActivity(ctx context.Context, r *kgo.Record) error {
	var e schemas.EnrichedActivity
	ok, err := s.decode(ctx, s.decoders.activity, r, &e)
	if err != nil {
		return err
	}
	outcome := outcomeBad
	if ok {
		outcome = outcomeDuplicate
		if s.sessions.Apply(&e) {
			outcome = outcomeApplied
		}
	}
	s.metrics.records.WithLabelValues(schemas.ActivityEnriched, outcome).Inc()
	return nil
}
