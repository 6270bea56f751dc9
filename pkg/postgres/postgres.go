// Package postgres opens pools to PostgreSQL, applies migrations and tells what kind of failure an error is.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/millrace-io/millrace/pkg/config"
)

// SalesConfig is the sales section: the database that holds the ledger and the totals.
type SalesConfig struct {
	URL config.Secret `yaml:"url" doc:"sales database, postgres://user@host:5432/database"`
}

// Validate names the key that is wrong.
func (c SalesConfig) Validate() error { return ValidateURL("url", c.URL) }

// ValidateURL checks a connection URL without showing it: it may hold a password.
func ValidateURL(key string, url config.Secret) error {
	if url == "" {
		return nil
	}
	if _, err := pgconn.ParseConfig(url.Reveal()); err != nil {
		return fmt.Errorf("%s: not a PostgreSQL connection URL: write postgres://user@host:5432/database", key)
	}
	return nil
}

// Open makes a pool and checks that the database answers. application names us in pg_stat_activity; what names the
// database in errors ("sales database", with the setting that changes it).
func Open(ctx context.Context, url config.Secret, application, what string, options ...func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	if url == "" {
		return nil, fmt.Errorf("the address of the %s is not set", what)
	}
	cfg, err := pgxpool.ParseConfig(url.Reveal())
	if err != nil {
		return nil, fmt.Errorf("the address of the %s is not a PostgreSQL connection URL", what)
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "millrace-" + application
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	for _, o := range options {
		o(cfg)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the %s: %w", what, err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("the %s at %s:%d does not answer: %w", what, cfg.ConnConfig.Host, cfg.ConnConfig.Port, Cause(err))
	}
	return pool, nil
}

// Migrate brings the schema up to date. Several processes may call it at once: an advisory lock lets one work.
func Migrate(ctx context.Context, pool *pgxpool.Pool, migrations fs.FS, log *slog.Logger) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("migrate the sales database: %w", err)
	}
	defer conn.Release()
	const lock = 0x6d696c6c72616365 // "millrace"
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(lock)); err != nil {
		return fmt.Errorf("migrate the sales database: take the lock: %w", err)
	}
	defer conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", int64(lock)) //nolint:errcheck // the session's end unlocks too
	if _, err := conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS millrace"); err != nil {
		return fmt.Errorf("migrate the sales database: create the schema millrace (the role needs CREATE on the database): %w", err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations, goose.WithTableName("millrace.schema_version"))
	if err != nil {
		return fmt.Errorf("migrate the sales database: %w", err)
	}
	results, err := p.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate the sales database: %w", err)
	}
	for _, r := range results {
		log.Info("sales database migrated", "migration", r.Source.Path, "took", r.Duration)
	}
	return nil
}

// Retryable tells whether the same statement may succeed later: the server was away or restarting, the transaction
// was a victim of a deadlock or a conflict, or a resource was short. Data errors are not retryable.
func Retryable(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code[:2] {
		case "08", "40", "53", "57", "58":
			return true
		}
		return pg.Code == "55P03" || pg.Code == "25P03" || pg.Code == "25006"
	}
	var ne net.Error
	return errors.As(err, &ne) || pgconn.SafeToRetry(err) || pgconn.Timeout(err) || strings.Contains(err.Error(), "conn closed") ||
		strings.Contains(err.Error(), "unexpected EOF") || strings.Contains(err.Error(), "connection reset") || strings.Contains(err.Error(), "broken pipe")
}
