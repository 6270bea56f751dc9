package demo

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

var testNow = time.Date(2026, 3, 18, 15, 42, 7, 123456000, time.UTC)

// logs collects what a service logs.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

type running struct {
	*Service
	URL     string // of the HTTP server
	metrics *prometheus.Registry
	logs    *logs
}

// quiet makes a small store without the ramp, for tests of what comes after.
func quiet(t *testing.T, dsn string) string {
	t.Helper()
	if err := Setup(t.Context(), dsn, Options{Seed: 1, HistoryDays: 4, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return dsn
}

// start runs a service on the database until the test ends, ready.
func start(t *testing.T, dsn string, change func(*Config)) *running {
	t.Helper()
	cfg := DefaultConfig()
	cfg.URL, cfg.Rate, cfg.HistoryDays = config.Secret(dsn), 0, 4
	if change != nil {
		change(&cfg)
	}
	out := &running{metrics: prometheus.NewRegistry(), logs: &logs{}}
	s, err := New(cfg, Deps{Log: slog.New(slog.NewTextHandler(out.logs, nil)), Metrics: out.metrics})
	if err != nil {
		t.Fatal(err)
	}
	out.Service = s
	router := chi.NewRouter()
	s.Routes(router)
	server := httptest.NewServer(router)
	out.URL = server.URL
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		server.Close()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run ended with %v", err)
			}
		case <-time.After(15 * time.Second):
			t.Error("Run did not end")
		}
		if t.Failed() {
			t.Logf("log of the service:\n%s", out.logs)
		}
	})
	eventually(t, 20*time.Second, "the service is ready", func() bool { return s.Ready() == nil })
	return out
}

func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s", within, what)
		}
	}
}

// value is the sum of a metric over all series that have the given label value ("" for any).
func (r *running) value(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || (len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func query[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func exec(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	good := DefaultConfig()
	good.URL = "postgres://user:hunter2@127.0.0.1:1/store"
	deps := Deps{Log: slog.New(slog.DiscardHandler)}
	if _, err := New(good, deps); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no url":        {func(c *Config) { c.URL = "" }, "demo.url"},
		"bad url":       {func(c *Config) { c.URL = "postgres://user:hunter2@host:port/x" }, "demo.url"},
		"negative rate": {func(c *Config) { c.Rate = -1 }, "demo.rate"},
		"huge rate":     {func(c *Config) { c.Rate = 1e9 }, "demo.rate"},
		"no history":    {func(c *Config) { c.HistoryDays = 0 }, "demo.history_days"},
		"collect":       {func(c *Config) { c.CollectURL = "collect:80" }, "demo.collect_url"},
		"recommend":     {func(c *Config) { c.RecommendURL = "https://user:hunter2@x" }, "demo.recommend_url"},
		"internal":      {func(c *Config) { c.InternalCollectURL = "http://x?a=b" }, "demo.internal_collect_url"},
	} {
		cfg := good
		c.change(&cfg)
		_, err := New(cfg, deps)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want an error that names %s and no secret", name, err, c.want)
		}
	}
}

func TestBeforeTheStoreIsThere(t *testing.T) {
	cfg := DefaultConfig()
	cfg.URL = "postgres://nobody@127.0.0.1:1/store"
	s, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	router := chi.NewRouter()
	s.Routes(router)
	w := httptest.NewRecorder()
	router.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/shop/api/products", nil))
	if w.Code != http.StatusServiceUnavailable || s.Ready() == nil {
		t.Errorf("got %d, ready %v", w.Code, s.Ready())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("a database that is away must be waited for, got %v", err)
	}
}

func TestRunEndsWhenSetUpCannotSucceed(t *testing.T) {
	dsn := pgtest.Database(t)
	exec(t, pgtest.Connect(t, dsn), "CREATE TABLE orders (somebody_elses int)")
	cfg := DefaultConfig()
	cfg.URL = config.Secret(dsn)
	s, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "demo.url") {
		t.Errorf("got %v, want an error that says what to do", err)
	}
}
