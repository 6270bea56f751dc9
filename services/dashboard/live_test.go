package dashboard

import (
	"bufio"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/schemas"
)

// event is one server-sent event.
type event struct{ name, id, data string }

// listen opens a live stream; the channel is closed when it ends.
func (s *site) listen(t *testing.T, last string) <-chan event {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/v1/sales/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("live: %d %v", resp.StatusCode, resp.Header)
	}
	out := make(chan event, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(out)
		var e event
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "event":
				e.name = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			case "":
				if value != "" || strings.HasPrefix(lines.Text(), ":") {
					out <- event{name: "comment"}
				} else if e.name != "" {
					out <- e
				}
				e = event{}
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = resp.Body.Close() // the reader has seen its end
		<-done
	})
	return out
}

// next is the next event of that name for which ok holds.
func next(t *testing.T, from <-chan event, within time.Duration, name string, ok func(event) bool) event {
	t.Helper()
	timeout := time.After(within)
	for {
		select {
		case e, open := <-from:
			if !open {
				t.Fatalf("the stream ended before %s", name)
			}
			if e.name == name && (ok == nil || ok(e)) {
				return e
			}
		case <-timeout:
			t.Fatalf("no %s within %v", name, within)
		}
	}
}

func TestLiveSeesAChangeAndARestart(t *testing.T) {
	server := pgtest.Primary(t)
	dsn := server.DSN("postgres", "postgres")
	migrate(t, dsn)
	cfg := DefaultConfig()
	cfg.KeepAlive = time.Second
	s := serve(t, dsn, time.Now, cfg)
	s.ready(t)
	s.conn = pgtest.Connect(t, dsn)
	here := time.Now().UTC().Format(time.RFC3339)
	quarter := time.Now().UTC().Truncate(15 * time.Minute).Format(time.RFC3339)
	s.sell(t, sold{quarter, "r", "c", "p", "EUR", 1, 1, 100, 0, 0})
	s.complete(t, here)
	stream := s.listen(t, "")
	first := next(t, stream, 5*time.Second, "sales", nil)
	if got := decode[liveEvent](t, first.data); got.Totals[0].Net != "1.00" || got.Running.Totals[0].Units != 1 || got.ValidThrough == nil || first.id == "" {
		t.Errorf("first: %s", first.data)
	}
	begin := time.Now()
	s.sell(t, sold{quarter, "r", "c", "p", "EUR", 1, 1, 250, 0, 0})
	changed := next(t, stream, 5*time.Second, "sales", nil)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the change took %v", took)
	} else {
		t.Logf("a change was seen after %v", took)
	}
	if got := decode[liveEvent](t, changed.data); got.Totals[0].Net != "3.50" {
		t.Errorf("changed: %s", changed.data)
	}
	next(t, stream, 5*time.Second, "comment", nil)

	server.Kill()
	next(t, stream, 10*time.Second, "freshness", func(e event) bool { return decode[liveFreshness](t, e.data).Reason != "" })
	eventually(t, 5*time.Second, "503", func() bool {
		r := s.get(t, "/v1/sales")
		return r.status == http.StatusServiceUnavailable && r.header.Get("Retry-After") != "" && r.header.Get("Content-Type") == "application/problem+json"
	})
	if err := s.service.Ready(); err == nil {
		t.Error("ready without a database")
	}
	server.Start(t)
	next(t, stream, 20*time.Second, "freshness", func(e event) bool { return decode[liveFreshness](t, e.data).Reason == "" })
	s.conn = pgtest.Connect(t, dsn)
	s.sell(t, sold{quarter, "r", "c", "p", "EUR", 1, 1, 1, 0, 0})
	if got := next(t, stream, 10*time.Second, "sales", nil); decode[liveEvent](t, got.data).Totals[0].Net != "3.51" {
		t.Errorf("after the restart: %s", got.data)
	}
	s.ready(t)
}

// With a minute between two turns of its own, a change shows only because it was announced.
func TestLiveHearsAnnouncements(t *testing.T) {
	dsn := pgtest.Database(t)
	migrate(t, dsn)
	cfg := DefaultConfig()
	cfg.LiveInterval = time.Minute
	s := serve(t, dsn, time.Now, cfg)
	s.ready(t)
	s.conn = pgtest.Connect(t, dsn)
	quarter := time.Now().UTC().Truncate(15 * time.Minute).Format(time.RFC3339)
	s.complete(t, time.Now().UTC().Format(time.RFC3339))
	stream := s.listen(t, "")
	next(t, stream, 5*time.Second, "sales", nil)
	s.sell(t, sold{quarter, "r", "c", "p", "EUR", 1, 1, 100, 0, 0})
	eventually(t, 10*time.Second, "the announced change", func() bool {
		s.exec(t, "NOTIFY "+schemas.SalesChanged) // again and again, for the service may have only begun to listen
		select {
		case e := <-stream:
			return e.name == "sales" && decode[liveEvent](t, e.data).Totals[0].Net == "1.00"
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
}

func TestLiveResumes(t *testing.T) {
	s := open(t, time.Now())
	s.sell(t, sold{time.Now().UTC().Truncate(15 * time.Minute).Format(time.RFC3339), "r", "c", "p", "EUR", 1, 1, 100, 0, 0})
	s.complete(t, time.Now().UTC().Format(time.RFC3339))
	first := next(t, s.listen(t, ""), 5*time.Second, "sales", nil)
	again := s.listen(t, first.id)
	next(t, again, 5*time.Second, "freshness", nil)
	s.sell(t, sold{time.Now().UTC().Truncate(15 * time.Minute).Format(time.RFC3339), "r", "c", "p", "EUR", 1, 1, 100, 0, 0})
	if e := next(t, again, 5*time.Second, "sales", nil); e.id == first.id {
		t.Error("what was known already is told again")
	}
}

func TestLiveIsBounded(t *testing.T) {
	dsn := pgtest.Database(t)
	migrate(t, dsn)
	cfg := DefaultConfig()
	cfg.MaxLiveClients = 2
	s := serve(t, dsn, time.Now, cfg)
	s.listen(t, "")
	s.listen(t, "")
	if r := s.get(t, "/v1/sales/live"); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("the third: %d", r.status)
	}
}

func TestHubKeepsOnlyTheNewest(t *testing.T) {
	h := newHub(1)
	s, err := h.join()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "b", "c"} {
		h.setSales(message{id: id})
	}
	if len(s.changed) != 1 {
		t.Errorf("%d notices wait", len(s.changed))
	}
	if sales, _, open := h.state(); sales.id != "c" || !open {
		t.Errorf("state %v %v", sales, open)
	}
	h.close()
	if _, err := h.join(); err == nil {
		t.Error("a closed hub takes streams")
	}
}

func TestWaitsForTheViews(t *testing.T) {
	dsn := pgtest.Database(t)
	s := serve(t, dsn, time.Now, DefaultConfig())
	eventually(t, 5*time.Second, "the reason", func() bool {
		err := s.service.Ready()
		return err != nil && strings.Contains(err.Error(), "aggregate makes them")
	})
	if r := s.get(t, "/v1/sales"); r.status != http.StatusServiceUnavailable || !strings.Contains(r.body, "aggregate") {
		t.Errorf("%d %s", r.status, r.body)
	}
	migrate(t, dsn)
	s.ready(t)
	if r := s.get(t, "/v1/sales"); r.status != http.StatusOK {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestNothingIsWritten(t *testing.T) {
	s := open(t, time.Now())
	if _, err := s.service.pool.Load().Exec(t.Context(), "CREATE TABLE millrace.x ()"); err == nil {
		t.Error("the pool can write")
	}
}

func TestConfiguration(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"query_timeout": func(c *Config) { c.QueryTimeout = 0 }, "live_interval": func(c *Config) { c.LiveInterval = 100 * time.Millisecond },
		"keep_alive": func(c *Config) { c.KeepAlive = 0 }, "late_after": func(c *Config) { c.LateAfter = 0 }, "connections": func(c *Config) { c.Connections = 0 },
		"max_rows": func(c *Config) { c.MaxRows = 1 }, "max_live_clients": func(c *Config) { c.MaxLiveClients = 0 }, "max_hourly_days": func(c *Config) { c.MaxHourlyDays = 0 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), name+":") {
			t.Errorf("%s: %v", name, err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	for _, sales := range []postgres.SalesConfig{{}, {URL: "not a SECRET url"}} {
		if _, err := New(DefaultConfig(), Deps{Log: log, Sales: sales}); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%v", err)
		}
	}
}
