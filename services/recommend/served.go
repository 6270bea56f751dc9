package recommend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
)

// servedLog holds answers until they are recorded. It is bounded in bytes and never makes an answer wait.
type servedLog struct {
	max     int64
	metrics *metrics
	wake    chan struct{}

	mu     sync.Mutex
	queue  []*schemas.Served
	bytes  int64
	client *kgo.Client // nil until the registry has answered
	enc    *avro.Encoder
}

func newServedLog(max int64, m *metrics) *servedLog {
	return &servedLog{max: max, metrics: m, wake: make(chan struct{}, 1)}
}

// add takes an answer, or counts its loss when there is no room.
func (l *servedLog) add(a *schemas.Served) {
	n := weigh(a)
	l.mu.Lock()
	ok := l.bytes+n <= l.max
	if ok {
		l.bytes += n
		l.queue = append(l.queue, a)
	}
	l.mu.Unlock()
	if !ok {
		l.metrics.servedLost.Inc()
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// weigh is about the memory that an answer takes.
func weigh(a *schemas.Served) int64 {
	n := 400 + len(a.Context)
	for i := range a.Items {
		n += 56 + len(a.Items[i].ProductCode)
	}
	for _, list := range [2][]string{a.Cart, a.Viewed} {
		for _, c := range list {
			n += 16 + len(c)
		}
	}
	return int64(n)
}

// next takes up to n answers off the queue; they no longer count as waiting.
func (l *servedLog) next(n int) []*schemas.Served {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, len(l.queue))
	batch := l.queue[:n:n]
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
	}
	for _, a := range batch {
		l.bytes -= weigh(a)
	}
	return batch
}

func (l *servedLog) waiting() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// recordServed hands answers on to Kafka until ctx ends. The error is a registry that refuses the contract.
func (s *Service) recordServed(ctx context.Context) error {
	client, enc, err := s.connectServed(ctx)
	if client == nil {
		return err
	}
	s.served.mu.Lock()
	s.served.client, s.served.enc = client, enc
	s.served.mu.Unlock()
	room := int64(s.deps.Kafka.MaxBufferedBytes / 2)
	for {
		for client.BufferedProduceBytes() < room {
			batch := s.served.next(64)
			if len(batch) == 0 {
				break
			}
			s.produceServed(ctx, client, enc, batch)
		}
		wake := s.served.wake
		if client.BufferedProduceBytes() >= room {
			wake = nil // Kafka is away or slow: look again in a moment
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *Service) produceServed(ctx context.Context, client *kgo.Client, enc *avro.Encoder, batch []*schemas.Served) {
	ctx = context.WithoutCancel(ctx) // what is on its way at the end is flushed by Close
	for _, a := range batch {
		value, err := enc.Append(nil, a)
		if err != nil {
			s.metrics.servedLost.Inc()
			s.deps.Log.Error("an answer cannot be recorded: this is a defect", "error", err)
			continue
		}
		client.Produce(ctx, &kgo.Record{Topic: s.deps.Kafka.Name(schemas.RecommendationsServed), Key: []byte(a.RequestID), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				s.metrics.servedLost.Inc()
				return
			}
			s.metrics.served.Inc()
		})
	}
}

// connectServed waits for a registry that is away. All results are nil when ctx ended first.
func (s *Service) connectServed(ctx context.Context) (*kgo.Client, *avro.Encoder, error) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		enc, err := avro.NewEncoder(ctx, s.deps.Registry, schemas.Subject(s.deps.Kafka.Name(schemas.RecommendationsServed)), schemas.Latest(schemas.RecommendationsServed))
		switch {
		case err == nil:
			// Answers are many and nobody waits for their record: a little lingering makes batches of them.
			client, err := s.deps.Kafka.Client("recommend-served", s.deps.Log, s.deps.Metrics, kgo.ProducerLinger(20*time.Millisecond), kgo.UnknownTopicRetries(-1))
			return client, enc, err
		case ctx.Err() != nil:
			return nil, nil, nil
		case !errors.Is(err, avro.ErrUnavailable):
			return nil, nil, fmt.Errorf("the contract of %s is not accepted: %w", schemas.RecommendationsServed, err)
		}
		s.deps.Log.Warn("waiting for the schema registry", "error", err)
		select {
		case <-ctx.Done():
			return nil, nil, nil
		case <-time.After(wait):
		}
	}
}

// Close records, at most until ctx ends, the answers that are still waiting; the rest is counted as lost.
func (s *Service) Close(ctx context.Context) error {
	s.served.mu.Lock()
	client, enc := s.served.client, s.served.enc
	s.served.mu.Unlock()
	rest := s.served.next(1 << 30)
	if client == nil {
		s.metrics.servedLost.Add(float64(len(rest)))
		return lost(len(rest))
	}
	defer client.Close()
	room := int64(s.deps.Kafka.MaxBufferedBytes / 2)
	for len(rest) > 0 && client.BufferedProduceBytes() < room {
		n := min(64, len(rest))
		s.produceServed(ctx, client, enc, rest[:n])
		rest = rest[n:]
	}
	s.metrics.servedLost.Add(float64(len(rest)))
	if err := client.Flush(ctx); err != nil {
		return lost(len(rest) + int(client.BufferedProduceRecords()))
	}
	return lost(len(rest))
}

func lost(n int) error {
	if n == 0 {
		return nil
	}
	return fmt.Errorf("recommend: %d answers were given and not recorded", n)
}
