package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/postgres"
)

func TestMigrateFromSeveralProcessesAtOnce(t *testing.T) {
	dsn := config.Secret(pgtest.Database(t))
	files := fstest.MapFS{
		"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE millrace.a (x int);\n-- +goose Down\nDROP TABLE millrace.a;\n")},
		"00002_b.sql": {Data: []byte("-- +goose Up\nINSERT INTO millrace.a VALUES (1);\n-- +goose Down\nDELETE FROM millrace.a;\n")},
	}
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			pool, err := postgres.Open(t.Context(), dsn, "test", "sales database")
			if err != nil {
				errs[i] = err
				return
			}
			defer pool.Close()
			errs[i] = postgres.Migrate(t.Context(), pool, files, slog.New(slog.DiscardHandler))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	conn := pgtest.Connect(t, dsn.Reveal())
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM millrace.a").Scan(&n); err != nil || n != 1 {
		t.Fatal(n, err)
	}
}

func TestUnreachableDatabaseIsNamedWithoutPassword(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := postgres.Open(ctx, "postgres://u:hunter2@127.0.0.1:1/db", "test", "sales database (sales.url)")
	if err == nil || !strings.Contains(err.Error(), "sales database (sales.url) at 127.0.0.1:1") || strings.Contains(err.Error(), "hunter2") {
		t.Fatal(err)
	}
	if _, err = postgres.Open(ctx, "", "test", "sales database"); err == nil || !strings.Contains(err.Error(), "not set") {
		t.Fatal(err)
	}
	if _, err = postgres.Open(ctx, "postgres://u:hunter2@h:port/db", "test", "sales database"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Fatal(err)
	}
	if err := (postgres.SalesConfig{URL: "postgres://u:hunter2@h:port/db"}).Validate(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Fatal(err)
	}
}

func TestRetryable(t *testing.T) {
	f := func(err error, want bool) {
		t.Helper()
		if got := postgres.Retryable(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
	code := func(c string) error { return fmt.Errorf("write: %w", &pgconn.PgError{Code: c}) }
	f(code("40001"), true)
	f(code("40P01"), true)
	f(code("57P01"), true)
	f(code("08006"), true)
	f(code("53100"), true) // disk full: an operator makes room
	f(code("22003"), false)
	f(code("23505"), false)
	f(code("42P01"), false)
	f(errors.New("unexpected EOF"), true)
	f(errors.New("anything else"), false)
}
