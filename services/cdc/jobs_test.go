package cdc

import (
	"testing"
	"time"
)

// settled waits until no job is left.
func (s *store) settled(t testing.TB, r *running) {
	t.Helper()
	waitFor(t, "the end of all jobs", 30*time.Second, func() bool {
		r.state.mu.Lock()
		defer r.state.mu.Unlock()
		return r.state.live && len(r.state.position.Jobs) == 0
	})
	s.quiet(t, r)
}
