//go:build e2e

package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/embedded/broker"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/test/harness"
)

// switchable is a registry that a test takes away: what stands in its place may answer, too.
type switchable struct {
	good    http.Handler
	instead atomic.Pointer[http.HandlerFunc]
}

func (s *switchable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := s.instead.Load(); h != nil {
		(*h)(w, r)
		return
	}
	s.good.ServeHTTP(w, r)
}

func (s *switchable) set(h http.HandlerFunc) { s.instead.Store(&h) }
func (s *switchable) back()                  { s.instead.Store(nil) }

// fragile is a whole installation, each of whose neighbours can be taken away and brought back at the same address.
type fragile struct {
	*platform
	env       []string
	registry  *switchable
	salesDB   *pgtest.Server
	broker    *broker.Broker
	brokerDir string
	brokerAt  string
}

func newFragile(t *testing.T) *fragile {
	t.Helper()
	f := &fragile{platform: newSource(t, retailTables+retailRows), registry: &switchable{good: registry.NewMemory()}, salesDB: pgtest.Primary(t), brokerDir: t.TempDir(),
		brokerAt: harness.FreeAddress(t)}
	srv := httptest.NewServer(f.registry)
	t.Cleanup(srv.Close)
	t.Cleanup(f.registry.back) // or a handler that hangs would hold Close up
	t.Cleanup(func() {
		if f.broker != nil {
			_ = f.broker.Close() // it was in memory
		}
	})
	f.sales = pool(t, f.salesDB.DSN("postgres", "postgres"))
	f.env = []string{"MILLRACE_KAFKA_BROKERS=" + f.brokerAt, "MILLRACE_REGISTRY_URL=" + strings.Replace(srv.URL, "http://", "http://someone:"+password+"@", 1),
		"MILLRACE_SALES_URL=" + sourceURL(f.salesDB, "postgres", "postgres"), "MILLRACE_SOURCE_URL=" + sourceURL(f.standby, "cdc", "postgres"),
		"MILLRACE_PRIVACY_KEY_FILE=" + harness.KeyFile(t), "MILLRACE_ENRICH_MAPPING=online-retail", "MILLRACE_KAFKA_INSTANCE_ID=0"}
	return f
}

func (f *fragile) kafkaBack(t *testing.T) {
	t.Helper()
	_, port, err := net.SplitHostPort(f.brokerAt)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if f.broker, err = broker.Open(context.Background(), broker.Options{Dir: f.brokerDir, Port: n}); err != nil {
		t.Fatal(err)
	}
}

func (f *fragile) kafkaAway(t *testing.T) {
	t.Helper()
	if err := f.broker.Close(); err != nil {
		t.Fatal(err)
	}
	f.broker = nil
}

func (f *fragile) start(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		f.programs[n] = harness.Start(t, n, f.env)
	}
}

func (f *fragile) ready(t *testing.T) {
	t.Helper()
	for _, p := range f.programs {
		p.Ready(t, 40*time.Second)
	}
}

// nothingQuarantined is what an outage must leave behind.
func (f *fragile) nothingQuarantined(t *testing.T) {
	t.Helper()
	list := runTool(t, f.env, "enrich", "quarantine", "list")
	list.expect(t, done)
	if strings.TrimSpace(list.out) != "" {
		t.Errorf("an outage made good records bad:\n%s", list.out)
	}
}

const oneView = `{"session_id":"s","action":"view","product_code":"P1"}`

// TestEverythingAway: a program whose neighbours are away at its start says which and why at /readyz, and works as soon
// as they are back; so it does when they go in the middle. Nothing is lost, doubled or quarantined.
func TestEverythingAway(t *testing.T) {
	f := newFragile(t)
	f.kafkaBack(t)
	runTool(t, f.env, "admin", "topics", "apply").expect(t, done)
	f.kafkaAway(t)
	f.salesDB.Kill()
	f.registry.set(answer(http.StatusInternalServerError, "out of order"))
	f.start(t, "cdc", "enrich", "aggregate", "collect", "recommend", "dashboard")

	t.Log("all away at the start")
	readyzSays(t, f.programs["cdc"], 20*time.Second, "cdc: not ready", "Kafka")
	readyzSays(t, f.programs["enrich"], 20*time.Second, "enrich: not ready", "start:")
	readyzSays(t, f.programs["aggregate"], 20*time.Second, "aggregate: not ready", "sales database", "refused")
	readyzSays(t, f.programs["collect"], 20*time.Second, "collect: not ready", "registry")
	readyzSays(t, f.programs["dashboard"], 20*time.Second, "dashboard: not ready", "sales database")
	f.registry.back()
	f.kafkaBack(t)
	readyzSays(t, f.programs["aggregate"], 20*time.Second, "sales database", "refused")
	f.salesDB.Start(t)
	f.ready(t)
	f.shopEqual(t, "after a start without neighbours")

	t.Log("Kafka away in the middle")
	f.kafkaAway(t)
	retailBranch(t, f.platform, 1)
	status, header, body := request(t, http.MethodPost, "http://"+f.programs["collect"].Addr+"/v1/activity", "application/json", oneView)
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("collect without Kafka answers %d %s", status, body)
	}
	readyzSays(t, f.programs["collect"], 20*time.Second, "Kafka at", f.brokerAt)
	readyzSays(t, f.programs["cdc"], 60*time.Second, "cdc: not ready", "Kafka")
	status, _, body = request(t, http.MethodGet, "http://"+f.programs["recommend"].Addr+"/v1/recommendations?session_id=s", "", "")
	if status != http.StatusOK {
		t.Errorf("recommend without Kafka answers %d %s", status, body)
	}
	f.kafkaBack(t)
	f.ready(t)
	f.shopEqual(t, "after Kafka was away")
	f.takesEvents(t)

	t.Log("the sales database away in the middle")
	f.salesDB.Kill()
	retailBranch(t, f.platform, 3)
	readyzSays(t, f.programs["aggregate"], 20*time.Second, "aggregate: not ready", "cannot be written yet")
	harness.Eventually(t, 20*time.Second, func() bool {
		status, header, body = request(t, http.MethodGet, "http://"+f.programs["dashboard"].Addr+"/v1/sales", "", "")
		return status == http.StatusServiceUnavailable && header.Get("Retry-After") != "" && strings.Contains(body, "sales database")
	}, func() string { return "the dashboard answers " + strconv.Itoa(status) + " " + body })
	f.salesDB.Start(t)
	f.ready(t)
	f.shopEqual(t, "after the sales database was away")

	t.Log("the source away in the middle")
	f.standby.Kill()
	readyzSays(t, f.programs["cdc"], 20*time.Second, "cdc: not ready", "connect to the source")
	f.standby.Start(t)
	retailBranch(t, f.platform, 5)
	f.ready(t)
	f.shopEqual(t, "after the replica was away")

	f.nothingQuarantined(t)
	for _, p := range f.programs {
		keepsQuiet(t, p.Name+"'s log", p.Tail(1<<30))
	}
}

func (f *fragile) takesEvents(t *testing.T) {
	t.Helper()
	status, body := 0, ""
	harness.Eventually(t, 20*time.Second, func() bool {
		status, _, body = request(t, http.MethodPost, "http://"+f.programs["collect"].Addr+"/v1/activity", "application/json", oneView)
		return status == http.StatusAccepted
	}, func() string { return "collect answers " + strconv.Itoa(status) + " " + body })
}

func answer(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}
}

// TestWrongRegistry: whatever stands in the registry's place, good records wait and are not quarantined. The programs
// are started anew each time, so that they have to ask.
func TestWrongRegistry(t *testing.T) {
	f := newFragile(t)
	f.kafkaBack(t)
	runTool(t, f.env, "admin", "topics", "apply").expect(t, done)
	f.start(t, "cdc", "enrich", "aggregate", "collect")
	f.ready(t)
	f.shopEqual(t, "at first")
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a server notices that its client has gone only when nothing is left to read
		<-r.Context().Done()
	}
	for n, c := range []struct {
		name    string
		instead http.HandlerFunc
	}{
		{"500", answer(http.StatusInternalServerError, "out of order")},
		{"no answer", hang},
		{"a page", answer(http.StatusOK, "<html>a gateway</html>")},
		{"another API", answer(http.StatusOK, `{"status":"ok"}`)},
		{"a proxy's 404", answer(http.StatusNotFound, "<html>no such host</html>")},
	} {
		f.registry.set(c.instead)
		f.programs["enrich"].Kill(t)
		f.programs["aggregate"].Kill(t)
		f.programs["collect"].Kill(t)
		retailBranch(t, f.platform, 2*n+1)
		readyzSays(t, f.programs["enrich"], 20*time.Second, "enrich: not ready", "registry")
		readyzSays(t, f.programs["aggregate"], 20*time.Second, "aggregate: not ready", "registry")
		readyzSays(t, f.programs["collect"], 20*time.Second, "collect: not ready", "registry")
		f.registry.back()
		f.ready(t)
		f.shopEqual(t, "after the registry was "+c.name)
	}
	f.nothingQuarantined(t)
	for _, p := range f.programs {
		keepsQuiet(t, p.Name+"'s log", p.Tail(1<<30))
	}
}

// TestPoisonRecord: what nobody can read lands in quarantine, sealed, with its place and the reason; the rest goes on.
func TestPoisonRecord(t *testing.T) {
	f := newFragile(t)
	f.kafkaBack(t)
	runTool(t, f.env, "admin", "topics", "apply").expect(t, done)
	f.start(t, "cdc", "enrich", "aggregate")
	f.ready(t)
	f.shopEqual(t, "at first")
	client, err := kgo.NewClient(kgo.SeedBrokers(f.brokerAt), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, r := range []*kgo.Record{
		{Topic: "store.public.invoices", Key: []byte("k"), Value: []byte("Somebody Private, no Avro")},
		{Topic: "store.public.invoices", Key: []byte("k"), Value: append([]byte{0, 0x7f, 0xff, 0xff, 0xfe}, "Somebody Private"...)},
		{Topic: "store.public.items", Key: []byte("k"), Value: []byte{0, 0, 0, 0, 1, 0xff, 0xff, 0xff}},
		{Topic: "sales.lines", Key: []byte("k"), Value: []byte("Somebody Private, no Avro either")},
		{Topic: "activity.raw", Key: []byte("k"), Value: []byte("{}")},
	} {
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatalf("%s: %v", r.Topic, err)
		}
	}
	retailBranch(t, f.platform, 1)
	f.shopEqual(t, "beside poison")
	var list ran
	harness.Eventually(t, 20*time.Second, func() bool {
		list = runTool(t, f.env, "enrich", "quarantine", "list")
		return list.code == done && strings.Contains(list.out, "sales.lines/0@") && strings.Contains(list.out, "activity.raw/0@") && strings.Contains(list.out, "store.public.items/0@")
	}, func() string { return "the list lacks something:\n" + list.out })
	says(t, "the list", list.out, "store.public.invoices/0@", "not_framed", "unknown_schema", "enrich", "aggregate")
	f.ready(t)
	for _, p := range f.programs {
		keepsQuiet(t, p.Name+"'s log", p.Tail(1<<30))
	}
	id := strings.Fields(list.out)[0]
	runTool(t, f.env, "enrich", "quarantine", "show", id).expect(t, done, id)
	runTool(t, f.env, "enrich", "quarantine", "show", "nothing-like-it").expect(t, failed, "0 entries", "enrich quarantine list")
}
