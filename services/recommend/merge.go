package recommend

import (
	"slices"
	"time"

	"github.com/millrace-io/millrace/services/recommend/internal/session"
)

// mergeSession adds what the session did to what the request says, which is the newer, and drops repetitions.
func (s *Service) mergeSession(q *question, now time.Time) (known session.View) {
	if q.session != "" {
		known, q.viewed, q.cart = s.sessions.Read(q.session, now, q.viewed, q.cart)
	}
	q.viewed, q.cart = once(q.viewed), once(q.cart)
	return known
}

// once keeps the first of equal codes.
func once(list []string) []string {
	out := list[:0]
	for _, c := range list {
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}
