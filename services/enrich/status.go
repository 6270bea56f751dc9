package enrich

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Parts that can wait for something.
const (
	partStart     = "start"
	partInput     = "input"
	partReference = "reference"
	partKafka     = "kafka"
)

// status is why the service does not do its work, part by part. It is safe for concurrent use.
type status struct {
	log     *slog.Logger
	stalled *prometheus.GaugeVec

	mu      sync.Mutex
	reasons map[string]error
}

func newStatus(log *slog.Logger, stalled *prometheus.GaugeVec) *status {
	return &status{log: log, stalled: stalled, reasons: map[string]error{}}
}

// stall notes why a part waits; a nil reason is none.
func (s *status) stall(part string, reason error) {
	if reason == nil {
		return
	}
	s.mu.Lock()
	old := s.reasons[part]
	s.reasons[part] = reason
	s.mu.Unlock()
	s.stalled.WithLabelValues(part).Set(1)
	if old == nil || old.Error() != reason.Error() {
		s.log.Warn("enrich waits", "part", part, "reason", reason)
	}
}

func (s *status) clear(part string) {
	s.mu.Lock()
	old := s.reasons[part]
	delete(s.reasons, part)
	s.mu.Unlock()
	s.stalled.WithLabelValues(part).Set(0)
	if old != nil {
		s.log.Info("enrich goes on", "part", part)
	}
}

// ready is nil when nothing waits.
func (s *status) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, part := range slices.Sorted(maps.Keys(s.reasons)) {
		errs = append(errs, fmt.Errorf("%s: %w", part, s.reasons[part]))
	}
	return errors.Join(errs...)
}

// Pauses between tries.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// retry tries until f is done or ctx ends; between tries the part stalls with f's error. f tells an error that no
// retry mends by final.
func (s *status) retry(ctx context.Context, part string, f func() (final bool, err error)) error {
	pause := firstPause
	for {
		final, err := f()
		if err == nil {
			s.clear(part)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if final {
			s.clear(part)
			return err
		}
		s.stall(part, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}
