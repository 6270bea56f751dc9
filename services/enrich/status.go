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
	partWaiting   = "waiting"
)

// patience is how long a part waits before people are told: at a start everything waits for a moment.
const patience = 5 * time.Second

// status is why the service does not do its work, part by part. It is safe for concurrent use.
type status struct {
	log     *slog.Logger
	stalled *prometheus.GaugeVec

	mu    sync.Mutex
	waits map[string]*wait
}

// wait is one wait of a part, from the first reason to its end.
type wait struct {
	reason error
	since  time.Time
	told   bool
	timer  *time.Timer // tells
}

func newStatus(log *slog.Logger, stalled *prometheus.GaugeVec) *status {
	return &status{log: log, stalled: stalled, waits: map[string]*wait{}}
}

// stall notes why a part waits; a nil reason is none. The log warns of a wait that lasts.
func (s *status) stall(part string, reason error) {
	if reason == nil {
		return
	}
	s.stalled.WithLabelValues(part).Set(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.waits[part]
	if w == nil {
		w = &wait{since: time.Now()}
		w.timer = time.AfterFunc(patience, func() { s.tell(part, w) })
		s.waits[part] = w
	} else if w.reason.Error() == reason.Error() {
		return
	}
	w.reason = reason
	level := slog.LevelDebug
	if w.told {
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "enrich waits", "part", part, "reason", reason)
}

// tell warns of a wait unless it is over.
func (s *status) tell(part string, w *wait) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waits[part] == w && !w.told {
		w.told = true
		s.log.Warn("enrich waits", "part", part, "reason", w.reason, "for", time.Since(w.since).Round(time.Second))
	}
}

func (s *status) clear(part string) {
	s.stalled.WithLabelValues(part).Set(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.waits[part]
	if w == nil {
		return
	}
	w.timer.Stop()
	delete(s.waits, part)
	level := slog.LevelDebug
	if w.told {
		level = slog.LevelInfo
	}
	s.log.Log(context.Background(), level, "enrich goes on", "part", part, "after", time.Since(w.since).Round(time.Millisecond))
}

// silence ends the telling of waits that are still there.
func (s *status) silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.waits {
		w.timer.Stop()
		w.told = true
	}
}

// ready is nil when nothing waits.
func (s *status) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, part := range slices.Sorted(maps.Keys(s.waits)) {
		errs = append(errs, fmt.Errorf("%s: %w", part, s.waits[part].reason))
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
