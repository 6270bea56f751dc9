// Package ledger keeps the ledger and the totals in PostgreSQL. A batch of records is one transaction: the fence on the
// partitions' positions first, then the orders' locks, the rows, the cells, the counters.
//
// Locks are taken in one order by everybody: positions, products by code, orders by id, cells by key.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/aggregate/internal/sales"
)

const (
	// Sink names this database in the tables of positions and progress.
	Sink = "postgres"

	application = "aggregate"
	database    = "sales database (sales.url)"
	// transactionTimeout bounds a batch on the client's side: a dead network gives no error.
	transactionTimeout = time.Minute
)

// ErrFenced says that somebody else has claimed a partition, or moved its position, since this process claimed it.
// Nothing was written.
var ErrFenced = errors.New("another process has claimed a partition of this sink")

// Ledger is the ledger in one database. It is safe for concurrent use.
type Ledger struct {
	pool      *pgxpool.Pool
	owner     string
	log       *slog.Logger
	exponents sales.Exponents
	// zombieAfter is how long a claim waits for a transaction of ours that holds the partition.
	zombieAfter time.Duration
}

// Options are what a ledger needs to know.
type Options struct {
	URL         config.Secret
	Owner       string        // names this process in sink_partition
	Log         *slog.Logger  // required
	ZombieAfter time.Duration // after which a claim ends the session that blocks it
}

// Migrate brings the sales database up to date.
func Migrate(ctx context.Context, url config.Secret, log *slog.Logger) error {
	pool, err := postgres.Open(ctx, url, application, database)
	if err != nil {
		return err
	}
	defer pool.Close()
	return postgres.Migrate(ctx, pool, schemas.SalesMigrations(), log)
}

// Open opens a migrated database. options change the pool after ours.
func Open(ctx context.Context, o Options, options ...func(*pgxpool.Config)) (*Ledger, error) {
	pool, err := postgres.Open(ctx, o.URL, application, database, append([]func(*pgxpool.Config){sessions}, options...)...)
	if err != nil {
		return nil, err
	}
	l := &Ledger{pool: pool, owner: o.Owner, log: o.Log, zombieAfter: o.ZombieAfter}
	if l.exponents, err = l.loadExponents(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return l, nil
}

// sessions bounds what a session of a stuck or lost process can hold on to.
func sessions(c *pgxpool.Config) {
	c.MaxConns = 4
	c.MinConns = 1
	for k, v := range map[string]string{
		"idle_in_transaction_session_timeout": "10s",
		"statement_timeout":                   "60s",
		"lock_timeout":                        "20s",
		"tcp_user_timeout":                    "15s",
		// A statement of a process that was killed ends at once, and with it its locks, instead of running on.
		"client_connection_check_interval": "100ms",
		"jit":                              "off",
		// The tables grow from nothing to millions of rows within a session: a plan made for the empty table must not
		// be kept.
		"plan_cache_mode": "force_custom_plan",
	} {
		c.ConnConfig.RuntimeParams[k] = v
	}
}

// Close closes the connections.
func (l *Ledger) Close() { l.pool.Close() }

// Ping is nil if the database answers.
func (l *Ledger) Ping(ctx context.Context) error {
	if err := l.pool.Ping(ctx); err != nil {
		return fmt.Errorf("the %s does not answer: %w", database, postgres.Cause(err))
	}
	return nil
}

func (l *Ledger) loadExponents(ctx context.Context) (sales.Exponents, error) {
	rows, err := l.pool.Query(ctx, `SELECT code, exponent FROM millrace.currencies`)
	if err != nil {
		return nil, fmt.Errorf("load the currencies: %w", err)
	}
	defer rows.Close()
	out := sales.Exponents{}
	for rows.Next() {
		var code string
		var exponent int
		if err := rows.Scan(&code, &exponent); err != nil {
			return nil, fmt.Errorf("load the currencies: %w", err)
		}
		out[code] = exponent
	}
	return out, rows.Err()
}

// dataError tells whether the records are to blame, so that another try fails the same way.
func dataError(err error) bool {
	if errors.Is(err, sales.ErrRange) {
		return true
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "23505": // a row came to be meanwhile: the next try sees it
		return false
	case "54000": // a key too long for an index
		return true
	default:
		return strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23")
	}
}

// safe is an error without the row that PostgreSQL repeats in its details.
func safe(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && dataError(err) {
		return fmt.Errorf("PostgreSQL refuses a value (SQLSTATE %s)", pg.Code)
	}
	return postgres.Cause(err)
}
