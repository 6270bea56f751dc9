package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
)

// logAdapter passes kfake's messages to slog and remembers the ones that mean
// something was not written: kfake only logs a failed write of its state, a
// transaction marker or its shutdown, and goes on.
type logAdapter struct {
	log *slog.Logger

	mu    sync.Mutex
	first error
	count int
}

// Logf implements kfake.Logger.
func (l *logAdapter) Logf(level kfake.LogLevel, format string, args ...any) {
	lost := level == kfake.LogLevelError || level == kfake.LogLevelWarn && writeFailed(format)
	var at slog.Level
	switch {
	case lost:
		at = slog.LevelError
	case level == kfake.LogLevelWarn: // what is left of them tells of slowness: nothing for a person to act on
		at = slog.LevelInfo
	default:
		at = slog.LevelDebug
	}
	if !lost && !l.log.Enabled(context.Background(), at) {
		return
	}
	msg := fmt.Sprintf(format, args...)
	if lost {
		l.mu.Lock()
		if l.count++; l.first == nil {
			l.first = errors.New(msg)
		}
		l.mu.Unlock()
	}
	l.log.Log(context.Background(), at, "embedded broker: "+msg) //nolint:sloglint // the message is kfake's
}

// writeFailed recognises the warnings that follow a failed write.
func writeFailed(format string) bool {
	return strings.HasPrefix(format, "persist ") || strings.HasPrefix(format, "compact ")
}

// damage returns what was not written since the broker started, or nil.
func (l *logAdapter) damage() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		return nil
	}
	return fmt.Errorf("%d writes failed, the first: %w", l.count, l.first)
}
