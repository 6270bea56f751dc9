package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/postgres"
)

// connect fails with a host that has two addresses, each of which pgx tries with and without TLS.
func connect(t *testing.T, change func(*pgconn.Config)) error {
	t.Helper()
	cfg, err := pgconn.ParseConfig("postgres://someone:hunter2@store.test:1/shop?sslmode=prefer")
	if err != nil {
		t.Fatal(err)
	}
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1", "127.0.0.2"}, nil }
	change(cfg)
	conn, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err == nil {
		_ = conn.Close(t.Context())
		t.Fatal("a connection was made")
	}
	return err
}

func TestCauseIsOneLineThatNamesNobody(t *testing.T) {
	f := func(name, want string, change func(*pgconn.Config)) {
		t.Helper()
		err := connect(t, change)
		if got := postgres.Cause(fmt.Errorf("outer: %w", err)).Error(); got != want {
			t.Errorf("%s: %q from %q, want %q", name, got, err, want)
		}
	}
	f("nobody listens", "connect: connection refused", func(*pgconn.Config) {})
	f("no such host", "look up the host: no such host", func(c *pgconn.Config) {
		c.LookupFunc = func(_ context.Context, host string) ([]string, error) {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
	})
	f("out of time", "no answer in time", func(c *pgconn.Config) {
		c.DialFunc = func(context.Context, string, string) (net.Conn, error) { return nil, context.DeadlineExceeded }
	})
	f("each address for a reason of its own", "connect: connection refused; dial error: one bad line", func(c *pgconn.Config) {
		dial := c.DialFunc
		c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "127.0.0.2") {
				return nil, errors.New("one\nbad\tline")
			}
			return dial(ctx, network, address)
		}
	})
	f("hangs up", "dial error: unexpected EOF", func(c *pgconn.Config) {
		c.DialFunc = func(context.Context, string, string) (net.Conn, error) { return nil, io.ErrUnexpectedEOF }
	})
}

func TestCauseKeepsWhatIsBehindIt(t *testing.T) {
	if err := postgres.Cause(connect(t, func(*pgconn.Config) {})); !postgres.Retryable(err) {
		t.Errorf("%v is not retryable any more", err)
	}
	plain := errors.New("plain")
	if got := postgres.Cause(plain); got != plain { //nolint:errorlint // the very same one
		t.Errorf("%v became %v", plain, got)
	}
}

func TestCauseFromTheServer(t *testing.T) {
	cfg, err := pgconn.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Database = "nosuch"
	_, err = pgconn.ConnectConfig(t.Context(), cfg)
	cause := postgres.Cause(err)
	var pg *pgconn.PgError
	if !errors.As(cause, &pg) || pg.Code != "3D000" || cause.Error() != `FATAL: database "nosuch" does not exist (SQLSTATE 3D000)` {
		t.Errorf("%q from %v", cause, err)
	}
	_, err = postgres.Open(t.Context(), config.Secret("postgres://someone:hunter2@127.0.0.1:1/db"), "test", "sales database (sales.url)")
	if want := "the sales database (sales.url) at 127.0.0.1:1 does not answer: connect: connection refused"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
