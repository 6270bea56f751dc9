package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	sendEvery   = 250 * time.Millisecond
	sendTimeout = 5 * time.Second
	batchBytes  = 128 << 10
	queueBytes  = 2 << 20
)

// sender posts activity events to collect in batches. Its queue is bounded in
// bytes: when collect is away or slow, events are counted and dropped, and nobody
// waits. send is for any goroutine, run for one.
type sender struct {
	url     string // "" sends nothing
	log     *slog.Logger
	metrics *metrics
	client  *http.Client

	mu    sync.Mutex
	queue [][]byte
	bytes int
}

func newSender(base string, log *slog.Logger, m *metrics) *sender {
	s := &sender{log: log, metrics: m, client: &http.Client{Timeout: sendTimeout}}
	if base != "" {
		s.url = strings.TrimSuffix(base, "/") + "/v1/activity"
	}
	return s
}

func (s *sender) send(e event) {
	if s.url == "" {
		return
	}
	body, err := json.Marshal(e)
	if err != nil {
		s.metrics.activity.WithLabelValues(outcomeDropped).Inc()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes+len(body) > queueBytes {
		s.metrics.activity.WithLabelValues(outcomeDropped).Inc()
		return
	}
	s.queue, s.bytes = append(s.queue, body), s.bytes+len(body)
}

// take removes the next batch from the queue, nil if there is none.
func (s *sender) take() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, 0
	for n < len(s.queue) && (n == 0 || size+len(s.queue[n]) <= batchBytes) {
		size += len(s.queue[n])
		n++
	}
	batch := s.queue[:n:n]
	s.queue, s.bytes = s.queue[n:], s.bytes-size
	if len(s.queue) == 0 {
		s.queue = nil // lets the sent events go
	}
	return batch
}

// run posts until ctx ends; what is queued then is lost, as it is when a browser closes.
func (s *sender) run(ctx context.Context) {
	ticker := time.NewTicker(sendEvery)
	defer ticker.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for batch := s.take(); len(batch) > 0 && ctx.Err() == nil; batch = s.take() {
			ok := s.post(ctx, batch)
			outcome := outcomeSent
			if !ok {
				outcome = outcomeFailed
			}
			s.metrics.activity.WithLabelValues(outcome).Add(float64(len(batch)))
			if away == ok && ctx.Err() == nil { // a change is worth one line, the metric has the rest
				away = !ok
				s.log.Info("activity of the demo store's shoppers", "collect_takes_it", ok)
			}
			if !ok {
				break
			}
		}
	}
}

func (s *sender) post(ctx context.Context, batch [][]byte) bool {
	body := append([]byte(`{"events":[`), bytes.Join(batch, []byte{','})...)
	body = append(body, "]}"...)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return false
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20)) // so that the connection can be used again
	return response.StatusCode/100 == 2
}
