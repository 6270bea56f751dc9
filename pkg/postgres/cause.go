package postgres

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Cause is err; of a connection that was not made, it is why not, in one line and without what the caller names anyway:
// pgx repeats the user, the database and the address, for each address that a host has and with and without TLS. The
// errors behind it stay within reach of [errors.As] and [Retryable].
func Cause(err error) error {
	var ce *pgconn.ConnectError
	if !errors.As(err, &ce) {
		return err
	}
	var reasons []string
	for _, attempt := range attempts(ce.Unwrap()) {
		if r := reason(attempt); !slices.Contains(reasons, r) {
			reasons = append(reasons, r)
		}
	}
	return &connectError{reasons: strings.Join(reasons, "; "), err: ce.Unwrap()}
}

// connectError is a pgconn.ConnectError for people.
type connectError struct {
	reasons string
	err     error
}

func (e *connectError) Error() string { return e.reasons }

func (e *connectError) Unwrap() error { return e.err }

// attempts gives the errors of which err is the sum, if it is one.
func attempts(err error) []error {
	for e := err; e != nil; e = errors.Unwrap(e) {
		sum, ok := e.(interface{ Unwrap() []error })
		if !ok {
			continue
		}
		var all []error
		for _, part := range sum.Unwrap() {
			all = append(all, attempts(part)...)
		}
		return all
	}
	return []error{err}
}

// reason is why one attempt failed, in one line.
func reason(err error) string {
	var server *pgconn.PgError
	var foreign *pgproto3.ExceededMaxBodyLenErr // the first bytes of another protocol, read as a length
	var lookup *net.DNSError
	var network *net.OpError
	text := err.Error()
	switch {
	case errors.As(err, &server):
		text = server.Error()
	case errors.As(err, &foreign):
		text = "what listens there does not speak PostgreSQL's protocol, so it is no PostgreSQL"
	case errors.As(err, &lookup):
		text = "look up the host: " + lookup.Err
	case errors.As(err, &network) && network.Err != nil:
		text = network.Err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		text = "no answer in time"
	case errors.Unwrap(err) != nil:
		text = errors.Unwrap(err).Error() // the outer one adds the address
	}
	return strings.Join(strings.Fields(text), " ")
}
