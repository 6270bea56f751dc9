package pgtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
)

// Server is a server of one test. Methods with a testing.TB fail that test, so they belong into its goroutine; those
// that return an error can be called anywhere.
type Server struct {
	*pgserver.Server
	options pgserver.Options
	follows *Server // the primary of a standby
	slot    string
}

// Primary starts an empty server that ends with the test. settings are names and values in turn, over the package's.
func Primary(t testing.TB, settings ...string) *Server {
	t.Helper()
	o, err := serverOptions(get(t), Dir(t), "test primary", settings)
	if err != nil {
		t.Fatal(err)
	}
	return begin(t, &Server{options: o})
}

// Pair starts an empty primary and a standby that streams from it over the slot "standby". settings go to both.
func Pair(t testing.TB, settings ...string) (primary, standby *Server) {
	t.Helper()
	primary = Primary(t, settings...)
	return primary, Standby(t, primary, "standby", settings...)
}

// Standby starts another standby of the primary over a physical slot of that name.
func Standby(t testing.TB, primary *Server, slot string, settings ...string) *Server {
	t.Helper()
	o, err := serverOptions(get(t), Dir(t), "test standby "+slot, settings)
	if err != nil {
		t.Fatal(err)
	}
	return begin(t, &Server{options: o, follows: primary, slot: slot})
}

func begin(t testing.TB, s *Server) *Server {
	t.Helper()
	if err := s.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill) // nobody will read it again
	return s
}

func (s *Server) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	var opened *pgserver.Server
	if s.follows == nil {
		opened, err = pgserver.Open(ctx, s.options)
	} else {
		opened, err = pgserver.OpenStandby(ctx, s.options, pgserver.StandbyOptions{Primary: s.follows.Server, Slot: s.slot})
	}
	if err != nil {
		return err
	}
	s.Server = opened
	s.options.Port = opened.Port() // a later start is found at the same address
	return nil
}

// Kill ends the server as a crash does; Start brings it back.
func (s *Server) Kill() { s.Server.Kill() }

// Start starts the server again, after Stop or Kill, on the same port. It must not run beside other methods.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.open(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Set changes a setting; it holds from the next Start on.
func (s *Server) Set(name, value string) { s.options.Settings[name] = value }

// Promote makes a standby a primary and waits until it is.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.Exec(t, "SELECT pg_promote(true, 60)")
	s.follows = nil
}

// Follow starts a stopped standby again, as a standby of another primary, over a physical slot of that name there.
func (s *Server) Follow(t testing.TB, primary *Server, slot string) {
	t.Helper()
	s.follows, s.slot = primary, slot
	s.Start(t)
}

// Connect opens a connection of the superuser to a database; empty means "postgres". It is closed after the test.
func (s *Server) Connect(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	return Connect(t, s.DSN("postgres", orPostgres(database)))
}

// Connect opens a connection that is closed after the test.
func Connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // its server may be gone already
	return conn
}

// Exec runs statements, separated by semicolons, in the database "postgres".
func (s *Server) Exec(t testing.TB, sql string) {
	t.Helper()
	if err := s.Run(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// Run is Exec for any goroutine.
func (s *Server) Run(ctx context.Context, sql string) error {
	return s.withConn(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
		return nil
	})
}

// Query gives the first column of the first row as text, from the database "postgres". No row fails the test.
func (s *Server) Query(t testing.TB, sql string, args ...any) string {
	t.Helper()
	var value string
	err := s.withConn(t.Context(), func(conn *pgx.Conn) error {
		return conn.QueryRow(t.Context(), "SELECT x::text FROM ("+sql+") AS q(x)", args...).Scan(&value)
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func (s *Server) withConn(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres", "postgres"))
	if err != nil {
		return err
	}
	err = do(conn)
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// LogStandbySnapshot makes a primary write the record of running transactions that creating a logical slot on its
// standby waits for. An idle primary writes none, so call it until the slot is there.
func (s *Server) LogStandbySnapshot(ctx context.Context) error {
	return s.Run(ctx, "SELECT pg_log_standby_snapshot()")
}

// LSN is the position up to which a primary has written its WAL, as "0/16B3748", for [Server.WaitReplayed].
func (s *Server) LSN(t testing.TB) string {
	t.Helper()
	return s.Query(t, "SELECT pg_current_wal_lsn()")
}

// WaitReplayed waits until a standby has replayed up to the position.
func (s *Server) WaitReplayed(ctx context.Context, lsn string) error {
	return s.withConn(ctx, func(conn *pgx.Conn) error {
		for {
			var there bool
			if err := conn.QueryRow(ctx, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", lsn).Scan(&there); err != nil {
				return fmt.Errorf("wait for the standby to replay %s: %w", lsn, err)
			}
			if there {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for the standby to replay %s: %w", lsn, ctx.Err())
			case <-time.After(2 * time.Millisecond):
			}
		}
	})
}

// Sync waits until the standby has everything that its primary has written by now.
func (s *Server) Sync(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := s.WaitReplayed(ctx, s.follows.LSN(t)); err != nil {
		t.Fatal(err)
	}
}

func orPostgres(database string) string {
	if database == "" {
		return "postgres"
	}
	return database
}
