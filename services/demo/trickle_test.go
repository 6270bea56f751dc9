package demo

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/services/demo/internal/gen"
)

// fakeCollect takes activity as collect does.
type fakeCollect struct {
	*httptest.Server
	mu     sync.Mutex
	events []event
	status int
}

func newFakeCollect(t *testing.T) *fakeCollect {
	c := &fakeCollect{status: http.StatusAccepted}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var batch struct {
			Events []event `json:"events"`
		}
		if r.URL.Path != "/v1/activity" || json.NewDecoder(r.Body).Decode(&batch) != nil {
			t.Errorf("collect was sent something odd at %s", r.URL.Path)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.status == http.StatusAccepted {
			c.events = append(c.events, batch.Events...)
		}
		w.WriteHeader(c.status)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *fakeCollect) setStatus(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
}

func (c *fakeCollect) actions() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := map[string]int{}
	for _, e := range c.events {
		n[e.Action]++
	}
	return n
}

func TestTrickleMakesEveryKindOfChange(t *testing.T) {
	t.Parallel()
	dsn, collect := pgtest.Database(t), newFakeCollect(t)
	s := start(t, dsn, func(c *Config) { c.Rate, c.InternalCollectURL = 300, collect.URL })
	conn := pgtest.Connect(t, dsn)
	for _, c := range (&trickler{}).changes() {
		eventually(t, 20*time.Second, "there is a change of kind "+c.kind, func() bool { return s.value(t, "millrace_demo_changes_total", c.kind) > 0 })
	}
	for _, action := range []string{"view", "search", "add_to_cart", "remove_from_cart", "checkout", "purchase"} {
		eventually(t, 30*time.Second, "there is an event "+action, func() bool { return collect.actions()[action] > 0 })
	}
	if orders := query[int](t, conn, "SELECT count(*) FROM orders WHERE ordered_at > now() - interval '5 minutes' AND status = 'In Process'"); orders < 50 {
		t.Errorf("only %d live orders", orders)
	}
	if n := query[int](t, conn, "SELECT count(*) FROM orders o WHERE (status = 'Returned') <> (SELECT bool_and(quantity_ordered < 0) FROM order_details d WHERE d.order_number = o.order_number)"); n != 0 {
		t.Errorf("%d orders are neither all return nor all sale", n)
	}
	if n := query[int](t, conn, "SELECT count(*) FROM orders WHERE status = 'Returned' AND comments = 'Return' AND ordered_at > now() - interval '5 minutes'"); n == 0 {
		t.Error("no live return")
	}
	if s.value(t, "millrace_demo_failures_total", "") != 0 {
		t.Error("some changes failed")
	}
	collect.mu.Lock()
	defer collect.mu.Unlock()
	seen := map[string]bool{}
	for _, e := range collect.events {
		at, err := time.Parse(time.RFC3339Nano, e.Time)
		if err != nil || time.Since(at) > time.Minute || seen[e.ID] || e.Session == "" || (e.Customer == 0) == (e.Anonymous == "") || e.IP == "" || e.Agent == "" {
			t.Fatalf("event %+v is not sound: %v", e, err)
		}
		seen[e.ID] = true
		if (e.Action == "add_to_cart" || e.Action == "purchase") && (e.Product == "" || e.Quantity < 1) {
			t.Fatalf("event %+v lacks what was bought", e)
		}
	}
}

func TestTrickleGoesOnWithoutCollect(t *testing.T) {
	t.Parallel()
	collect := newFakeCollect(t)
	collect.setStatus(http.StatusServiceUnavailable)
	s := start(t, quiet(t, pgtest.Database(t)), func(c *Config) { c.Rate, c.CollectURL = 100, collect.URL })
	eventually(t, 10*time.Second, "events failed", func() bool { return s.value(t, "millrace_demo_activity_events_total", outcomeFailed) > 0 })
	orders := s.value(t, "millrace_demo_orders_total", "trickle")
	eventually(t, 10*time.Second, "orders go on", func() bool { return s.value(t, "millrace_demo_orders_total", "trickle") > orders })
	collect.setStatus(http.StatusAccepted)
	eventually(t, 10*time.Second, "events arrive again", func() bool { return s.value(t, "millrace_demo_activity_events_total", outcomeSent) > 0 })
}

func TestTrickleSurvivesARestartOfTheDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.Primary(t)
	s := start(t, quiet(t, server.DSN("postgres", "postgres")), func(c *Config) { c.Rate = 50 })
	sold := func() float64 { return s.value(t, "millrace_demo_orders_total", "trickle") }
	eventually(t, 10*time.Second, "orders are made", func() bool { return sold() > 5 })
	server.Kill()
	eventually(t, 10*time.Second, "the service says that it is not ready", func() bool { return s.Ready() != nil })
	status, _, _ := s.get(t, "/shop/api/products")
	if status != http.StatusServiceUnavailable {
		t.Errorf("the shop answers %d without a database", status)
	}
	eventually(t, 10*time.Second, "the failure is counted", func() bool { return s.value(t, "millrace_demo_failures_total", "") > 0 })
	server.Start(t)
	before := sold()
	eventually(t, 20*time.Second, "orders are made again", func() bool { return sold() > before+5 })
	if s.Ready() != nil {
		t.Error("not ready though the database is back")
	}
}

func TestNoTrickleAtRateZero(t *testing.T) {
	dsn := pgtest.Database(t)
	s := start(t, dsn, nil)
	conn := pgtest.Connect(t, dsn)
	before := contents(t, conn)
	time.Sleep(5 * tick) // long enough for a trickle to show, were there one
	if contents(t, conn) != before || s.value(t, "millrace_demo_orders_total", "") != 0 {
		t.Error("something was changed")
	}
}

func TestSecondStartDoesNotBackFill(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	if err := Setup(t.Context(), dsn, Options{Seed: 5, HistoryDays: 3, Now: time.Now().Add(-30 * 24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	s := start(t, dsn, func(c *Config) { c.Rate = 20 })
	eventually(t, 10*time.Second, "orders are made", func() bool { return s.value(t, "millrace_demo_orders_total", "trickle") > 5 })
	conn := pgtest.Connect(t, dsn)
	if n := query[int](t, conn, "SELECT count(*) FROM orders WHERE ordered_at BETWEEN now() - interval '29 days' AND now() - interval '1 minute'"); n != 0 {
		t.Errorf("%d orders were made for the time of the stop", n)
	}
}

func TestLogsHoldNothingPersonal(t *testing.T) {
	t.Parallel()
	dsn := quiet(t, pgtest.Database(t))
	s := start(t, dsn, func(c *Config) { c.Rate = 300 })
	conn := pgtest.Connect(t, dsn)
	// A rule that refuses every order and quotes the row in its message.
	exec(t, conn, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		RAISE EXCEPTION 'refused %', (SELECT email FROM customers WHERE customer_number = NEW.customer_number); END $$;
		CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION refuse()`)
	eventually(t, 10*time.Second, "an order is refused", func() bool { return strings.Contains(s.logs.String(), "P0001") })
	if strings.Contains(s.logs.String(), "@") {
		t.Errorf("a mail address is in the log:\n%s", s.logs)
	}
}

func TestSenderDropsWhatDoesNotFit(t *testing.T) {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSender("http://127.0.0.1:1", nil, m)
	big := event{Page: strings.Repeat("x", 100<<10)}
	for range 40 {
		s.send(big)
	}
	if s.bytes > queueBytes || s.bytes < queueBytes/2 {
		t.Errorf("%d bytes are queued, the bound is %d", s.bytes, queueBytes)
	}
	n := 0
	for batch := s.take(); len(batch) > 0; batch = s.take() {
		n += len(batch)
	}
	if s.bytes != 0 || n != 20 {
		t.Errorf("took %d events, %d bytes are left", n, s.bytes)
	}
}

func TestHundredths(t *testing.T) {
	conn := pgtest.Connect(t, pgtest.Database(t))
	for sql, want := range map[string]int64{"12.34": 1234, "1500": 150000, "0.05": 5, "-7.5": -750, "0": 0, "99999999.99": 9999999999} {
		n := query[pgtype.Numeric](t, conn, "SELECT "+sql+"::numeric")
		got, err := hundredths(n)
		if err != nil || int64(got) != want {
			t.Errorf("%s: got %d, %v", sql, got, err)
		}
		if !query[bool](t, conn, "SELECT $1::numeric = "+sql+"::numeric", amount(got)) {
			t.Errorf("%s does not come back", sql)
		}
	}
	if _, err := hundredths(query[pgtype.Numeric](t, conn, "SELECT 'NaN'::numeric")); err == nil {
		t.Error("NaN is money")
	}
}

func TestFewBuyAtNight(t *testing.T) {
	for at, want := range map[time.Time]string{ // territories awake at that time, the others asleep
		time.Date(2026, 3, 18, 11, 0, 0, 0, time.UTC): "Japan", // 20 h in Japan, 5 h in Chicago
		time.Date(2026, 3, 18, 2, 0, 0, 0, time.UTC):  "NA",    // 20 h in Chicago, 2 h in London
	} {
		s := &Service{deps: Deps{Now: func() time.Time { return at }}, markets: gen.Markets()}
		tr := &trickler{Service: s, r: rand.New(rand.NewPCG(1, 1))}
		for i := range 2400 {
			tr.people = append(tr.people, person{number: i, market: i % len(s.markets)})
		}
		buyers, members := map[string]float64{}, map[string]float64{}
		for _, m := range s.markets {
			members[m.Territory]++
		}
		for range 20_000 {
			buyers[s.markets[tr.awake().market].Territory]++
		}
		asleep := map[string]string{"Japan": "NA", "NA": "EMEA"}[want]
		if buyers[want]/members[want] < 3*buyers[asleep]/members[asleep] {
			t.Errorf("at %s UTC %.0f buyers are from %s, %.0f from %s", at, buyers[want], want, buyers[asleep], asleep)
		}
	}
}

func TestHistoryFollowsTheConfiguredRate(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	start(t, dsn, func(c *Config) { c.Rate = 0.2 })
	day := query[int](t, pgtest.Connect(t, dsn), "SELECT count(*) FROM orders WHERE ordered_at > now() - interval '1 day'")
	if day < 9_000 || day > 25_000 { // 17,280 in an average day of the week
		t.Errorf("%d orders in the last day of a store that sells 0.2 a second", day)
	}
}
