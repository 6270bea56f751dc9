package dashboard

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/pkg/httpapi"
	"github.com/millrace-io/millrace/pkg/postgres"
)

// respond answers with what ask gives. Requests with the same key at the same time share one asking, which does not
// end with the request that began it. The entity tag is made of the body, so it changes whenever a number does.
func (s *Service) respond(w http.ResponseWriter, r *http.Request, operation, kind, key string, ask func(context.Context) ([]byte, error)) {
	body, err := s.shared(r.Context(), operation, key, ask)
	if err != nil {
		w.Header().Del("Content-Disposition")
		s.fail(w, r, operation, err)
		return
	}
	sum := sha256.Sum256(body)
	tag := `W/"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	h := w.Header()
	h.Set("ETag", tag)
	h.Set("Cache-Control", "private, no-cache")
	if matches(r.Header.Values("If-None-Match"), tag) {
		h.Del("Content-Disposition")
		s.count(operation, http.StatusNotModified)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", kind)
	s.count(operation, http.StatusOK)
	_, _ = w.Write(body) // the client has gone: nobody to tell
}

// shared runs ask once for all who ask the same at the same time, within the time and the connections there are.
func (s *Service) shared(ctx context.Context, operation, key string, ask func(context.Context) ([]byte, error)) ([]byte, error) {
	done := s.flights.DoChan(operation+" "+key, func() (any, error) {
		begin := time.Now()
		defer func() { s.metrics.seconds.WithLabelValues(operation).Observe(time.Since(begin).Seconds()) }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.QueryTimeout)
		defer cancel()
		if err := s.slots.Acquire(ctx, 1); err != nil {
			return nil, fmt.Errorf("%w: no connection was free", errSlow)
		}
		defer s.slots.Release(1)
		return ask(ctx)
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-done:
		body, _ := result.Val.([]byte)
		return body, result.Err
	}
}

// matches tells whether an If-None-Match header names the tag.
func matches(header []string, tag string) bool {
	for candidate := range strings.SplitSeq(strings.Join(header, ","), ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

// fail answers with a problem. What the database says may quote data, so it goes to the log only.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, operation string, err error) {
	var bad *invalid
	status := http.StatusServiceUnavailable
	switch {
	case errors.As(err, &bad):
		status = http.StatusUnprocessableEntity
		httpapi.Problem(w, status, "the request is not valid: "+bad.Error(), bad.problems...)
	case r.Context().Err() != nil:
		status = 499 // the client has gone: for the metric only
	case errors.Is(err, errSlow):
		w.Header().Set("Retry-After", "5")
		httpapi.Problem(w, status, "the sales database took too long: try again in a moment, or ask for a shorter range")
	case errors.Is(err, errNoViews):
		w.Header().Set("Retry-After", "5")
		httpapi.Problem(w, status, errNoViews.Error())
	case errors.Is(err, errAway):
		w.Header().Set("Retry-After", "2")
		httpapi.Problem(w, status, "the sales database does not answer: try again in a moment")
	case errors.Is(err, errFull):
		w.Header().Set("Retry-After", "5")
		httpapi.Problem(w, status, errFull.Error())
	default:
		status = http.StatusInternalServerError
		s.deps.Log.ErrorContext(r.Context(), "a question was not answered", "operation", operation, "cause", cause(err))
		httpapi.Problem(w, status, "the question could not be answered; the server's log tells why")
	}
	s.count(operation, status)
}

// cause is an error for the log: of the database's own errors the code, for their text may quote data.
func cause(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return "SQLSTATE " + pg.Code
	}
	return postgres.Cause(err).Error()
}

func (s *Service) count(operation string, status int) {
	s.metrics.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
}
