package pgtest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
)

// shared is the server of this test process and the counter of its databases. It is state of the process by intent: a
// server for each test would cost every test of the repository a start.
var shared = sync.OnceValues(startShared)

type sharedServer struct {
	server    *pgserver.Server
	databases atomic.Int64
}

// Database makes an empty database on the server that this test process shares and gives its address, as superuser.
// The database is dropped after the test. Use it wherever the test does not touch the server itself.
func Database(t testing.TB) string {
	t.Helper()
	get(t)
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	name := "test_" + strconv.FormatInt(s.databases.Add(1), 10)
	if err := s.run(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.run(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return s.server.DSN("postgres", name)
}

func (s *sharedServer) run(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.server.DSN("postgres", "postgres"))
	if err != nil {
		return fmt.Errorf("shared test server: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("shared test server: %s: %w", sql, err)
	}
	return nil
}

func startShared() (*sharedServer, error) {
	in, err := install()
	if err != nil {
		return nil, err
	}
	dir, err := newDir()
	if err != nil {
		return nil, err
	}
	o, err := serverOptions(in, dir, "shared test server", nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	server, err := pgserver.Open(ctx, o)
	if err != nil {
		_ = os.RemoveAll(dir) // the start is what failed
		return nil, err
	}
	return &sharedServer{server: server}, nil
}
