package dashboard

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/httpapi"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/pkg/telemetry"
	"github.com/millrace-io/millrace/schemas"
)

// site is a running dashboard over a database of its own.
type site struct {
	*httptest.Server
	service *Service
	conn    *pgx.Conn
	dsn     string
}

func migrate(t testing.TB, dsn string) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := postgres.Migrate(t.Context(), pool, schemas.SalesMigrations(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
}

// open runs a dashboard on a migrated database whose clock shows now.
func open(t testing.TB, now time.Time) *site {
	t.Helper()
	dsn := pgtest.Database(t)
	migrate(t, dsn)
	s := serve(t, dsn, func() time.Time { return now }, DefaultConfig())
	s.conn = pgtest.Connect(t, dsn)
	s.ready(t)
	return s
}

// serve runs a dashboard on whatever is at dsn; it does not wait for it.
func serve(t testing.TB, dsn string, now func() time.Time, cfg Config) *site {
	t.Helper()
	metrics := telemetry.NewMetrics("dashboard", "test")
	log := slog.New(slog.DiscardHandler)
	service, err := New(cfg, Deps{Log: log, Metrics: metrics, Sales: postgres.SalesConfig{URL: config.Secret(dsn)}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	server := httpapi.New(httpapi.DefaultConfig(), "Millrace", "test", log, metrics)
	service.Routes(server.Router)
	service.Operations(server.API)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	s := &site{Server: httptest.NewServer(server.Router), service: service, dsn: dsn}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		s.Close()
	})
	return s
}

func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

func (s *site) ready(t testing.TB) {
	t.Helper()
	eventually(t, 10*time.Second, "ready", func() bool { return s.service.Ready() == nil })
}

func (s *site) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := s.conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// sold is one cell of lines.
type sold struct {
	at, region, country, product, currency      string
	lines, units, gross, cancelledLines, cancel int64
}

func (s *site) sell(t testing.TB, all ...sold) {
	t.Helper()
	for _, c := range all {
		s.exec(t, `INSERT INTO millrace.cells (cell, region, country, product_code, currency, shard, lines, cancelled_lines, units, cancelled_units, gross_minor, cancelled_minor)
			VALUES ($1::text::timestamptz, $2, $3, $4, $5, (SELECT coalesce(max(shard), 0) + 1 FROM millrace.cells), $6, $7, $8, 0, $9, $10)`,
			c.at, c.region, c.country, c.product, c.currency, c.lines, c.cancelledLines, c.units, c.gross, c.cancel)
	}
}

func (s *site) order(t testing.TB, at, region, country, currency string, orders, cancelled int64) {
	t.Helper()
	s.exec(t, `INSERT INTO millrace.order_cells (cell, region, country, currency, shard, orders, cancelled_orders)
		VALUES ($1::text::timestamptz, $2, $3, $4, (SELECT coalesce(max(shard), 0) + 1 FROM millrace.order_cells), $5, $6)`, at, region, country, currency, orders, cancelled)
}

func (s *site) complete(t testing.TB, through string, incomplete ...string) {
	t.Helper()
	if incomplete == nil {
		incomplete = []string{}
	}
	s.exec(t, `INSERT INTO millrace.sink_progress (sink, valid_through, source_lsn, incomplete) VALUES ('postgres', $1::text::timestamptz, '0/16B3748', $2)
		ON CONFLICT (sink) DO UPDATE SET valid_through = excluded.valid_through, incomplete = excluded.incomplete, updated_at = now()`, through, incomplete)
}

func (s *site) product(t testing.TB, code, name, category string) {
	t.Helper()
	s.exec(t, "INSERT INTO millrace.products VALUES ($1, 1, 1, false, $2, $3)", code, name, category)
}

// reply is an answer read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

func (s *site) get(t testing.TB, path string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

// ask gets /v1/sales with name-value pairs.
func (s *site) ask(t testing.TB, pairs ...string) salesAnswer {
	t.Helper()
	r := s.get(t, "/v1/sales?"+encoded(pairs...))
	if r.status != http.StatusOK {
		t.Fatalf("%v: %d %s", pairs, r.status, r.body)
	}
	return decode[salesAnswer](t, r.body)
}

func encoded(pairs ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v.Encode()
}

func decode[T any](t testing.TB, body string) T {
	t.Helper()
	var out T
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return out
}
