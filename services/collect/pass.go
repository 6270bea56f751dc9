package collect

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/pkg/telemetry"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/collect/internal/intake"
)

// pass hands the good events to Kafka and waits for it, then the bad ones to the quarantine, for which it does not
// wait: the answer does not depend on them.
func (s *Service) pass(ctx context.Context, out *output, batch *intake.Batch, h *holding) (*answer, *refusal) {
	a := newAnswer(batch)
	records, ok := s.records(ctx, out, batch, a)
	if !ok || !s.deliver(ctx, out.client, records, h) {
		s.metrics.unavailable.Add(float64(len(batch.Events)))
		return nil, away()
	}
	s.metrics.accepted.Add(float64(a.Accepted))
	s.metrics.duplicates.Add(float64(a.duplicates))
	for i := range batch.Events {
		if e := &batch.Events[i]; len(e.Faults) > 0 {
			s.metrics.rejected.WithLabelValues(e.Faults[0].Code).Inc()
			s.setAside(ctx, out, e, h)
		}
	}
	return a, nil
}

// records makes the records of the good events, one for each id.
func (s *Service) records(ctx context.Context, out *output, batch *intake.Batch, a *answer) ([]*kgo.Record, bool) {
	records := make([]*kgo.Record, 0, len(batch.Events))
	var seen map[string]struct{}
	if len(batch.Events) > 1 {
		seen = make(map[string]struct{}, len(batch.Events))
	}
	for i := range batch.Events {
		e := &batch.Events[i]
		if len(e.Faults) > 0 {
			a.reject(i, batch)
			continue
		}
		id := e.Activity.EventID
		if _, twice := seen[id]; twice {
			a.repeated(i, id)
			continue
		}
		if seen != nil {
			seen[id] = struct{}{}
		}
		value, err := out.encoder.Append(nil, &e.Activity)
		if err != nil {
			s.deps.Log.Error("an event that was checked cannot be encoded: this is a defect", "error", err)
			return nil, false
		}
		r := &kgo.Record{Topic: out.topic, Key: []byte(e.Activity.SessionID), Value: value}
		kafka.SetTrace(ctx, r)
		records = append(records, r)
		a.accept(i, id)
	}
	return records, true
}

// deliver tells whether Kafka has all the records. When it does not answer in time they stay on their way, and their
// bytes are counted, until the client gives them up or delivers them: the same events sent again may then be there
// twice, with the same ids.
func (s *Service) deliver(ctx context.Context, client *kgo.Client, records []*kgo.Record, h *holding) bool {
	if len(records) == 0 {
		return true
	}
	ctx = context.WithoutCancel(ctx) // a client that hangs up does not take its events back
	start := time.Now()
	var left atomic.Int32
	var failed atomic.Bool
	left.Store(int32(len(records)))
	all := make(chan struct{})
	for _, r := range records {
		h.use()
		client.TryProduce(ctx, r, func(_ *kgo.Record, err error) {
			defer h.done()
			if err != nil {
				failed.Store(true)
			}
			if left.Add(-1) == 0 {
				close(all)
			}
		})
	}
	timeout := time.NewTimer(s.cfg.ProduceTimeout)
	defer timeout.Stop()
	select {
	case <-all:
		s.metrics.produce.Observe(time.Since(start).Seconds())
		return !failed.Load()
	case <-timeout.C:
		return false
	}
}

// setAside writes a refused event to the quarantine, or counts its loss.
func (s *Service) setAside(ctx context.Context, out *output, e *intake.Event, h *holding) {
	faults := make([]schemas.Fault, len(e.Faults))
	for i, f := range e.Faults {
		faults[i] = f.Contract()
	}
	src := quarantine.Source{Topic: quarantine.HTTP, Offset: -1, Value: e.Raw, EventID: e.Activity.EventID, Trace: telemetry.Trace(ctx)}
	r, err := out.quarantine.Record(src, schemas.ClassSchemaViolation, faults, s.deps.Now())
	if err != nil {
		s.metrics.quarantineLost.Inc()
		s.deps.Log.Error("a refused event cannot be put into the quarantine", "error", err)
		return
	}
	h.use()
	out.client.TryProduce(context.WithoutCancel(ctx), r, func(_ *kgo.Record, err error) {
		defer h.done()
		if err != nil {
			s.metrics.quarantineLost.Inc()
			return
		}
		s.metrics.quarantined.Inc()
	})
}
