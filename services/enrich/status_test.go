package enrich

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// log is what has been logged since it was last taken.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// A wait is told when it lasts, with its end; a short one is not, though it counts at once.
func TestShortWaitsAreNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out log
		metrics, err := newMetrics(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := newStatus(slog.New(slog.NewTextHandler(&out, nil)), metrics.stalled)
		told := func(want ...string) {
			t.Helper()
			synctest.Wait()
			text := out.take()
			if strings.Count(text, "\n") != len(want) {
				t.Errorf("told %q, want %q", text, want)
			}
			for _, w := range want {
				if !strings.Contains(text, w) {
					t.Errorf("told %q, want %q", text, w)
				}
			}
		}
		gone := errors.New("gone")
		s.stall(partInput, gone)
		if !errors.Is(s.ready(), gone) {
			t.Error("a wait does not count at once")
		}
		time.Sleep(patience - time.Second)
		s.clear(partInput)
		if s.ready() != nil {
			t.Error("ready after the end of a wait")
		}
		time.Sleep(time.Minute)
		told()
		s.stall(partInput, gone)
		s.stall(partInput, errors.New("elsewhere"))
		told()
		time.Sleep(patience)
		told("level=WARN msg=\"enrich waits\" part=input reason=elsewhere")
		s.stall(partInput, gone)
		told("level=WARN msg=\"enrich waits\" part=input reason=gone")
		s.stall(partInput, gone)
		time.Sleep(time.Minute)
		told()
		s.clear(partInput)
		told("level=INFO msg=\"enrich goes on\" part=input")
		s.stall(partKafka, gone)
		s.silence()
		time.Sleep(time.Minute)
		told()
	})
}
