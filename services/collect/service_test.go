package collect

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/broker"
	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/pkg/httpapi"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
)

// secret stands for personal data: it must turn up nowhere but in the quarantine's seal.
const secret = "zq9-personal"

type fixture struct {
	*Service
	t        testing.TB
	broker   *broker.Broker
	cfg      kafka.Config
	registry *avro.Registry
	keys     *privacy.Keys
	url      string
	logs     *logBuffer
	gather   *prometheus.Registry
}

type logBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *logBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

func start(t testing.TB, cfg Config) *fixture {
	t.Helper()
	f := &fixture{t: t, broker: brokertest.Open(t), logs: &logBuffer{}}
	f.cfg = kafka.DefaultConfig()
	f.cfg.Brokers, f.cfg.TopicPrefix = []string{f.broker.Addr()}, "t."
	server := httptest.NewServer(registry.NewMemory())
	t.Cleanup(server.Close)
	var err error
	if f.registry, err = avro.NewRegistry(avro.Config{URL: config.Secret(server.URL)}); err != nil {
		t.Fatal(err)
	}
	if f.keys, err = privacy.NewKeys(privacy.Config{Key: config.Secret(strings.Repeat("ab", 32))}); err != nil {
		t.Fatal(err)
	}
	f.topics()
	log := slog.New(slog.NewTextHandler(f.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	metrics := prometheus.NewRegistry()
	f.gather = metrics
	f.Service, err = New(cfg, Deps{Log: log, Metrics: metrics, Kafka: f.cfg, Registry: f.registry, Keys: f.keys})
	if err != nil {
		t.Fatal(err)
	}
	api := httpapi.New(httpapi.DefaultConfig(), "test", "1", log, metrics)
	f.Operations(api.API)
	web := httptest.NewServer(api.Router)
	t.Cleanup(web.Close)
	f.url = web.URL
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		closing, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_ = f.Close(closing) // in tests that stop the broker something stays undelivered
	})
	return f
}

func (f *fixture) topics() {
	f.t.Helper()
	cl, err := f.cfg.Client("test", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	defer cl.Close()
	for _, topic := range schemas.Topics() {
		if topic.Name == schemas.ActivityRaw || topic.Name == schemas.Quarantine {
			if _, err := f.cfg.EnsureTopics(f.t.Context(), cl, topic); err != nil {
				f.t.Fatal(err)
			}
		}
	}
}

// metric is the sum of a metric over its labels.
func (f *fixture) metric(name string) (sum float64) {
	f.t.Helper()
	families, err := f.gather.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "millrace_collect_"+name {
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func (f *fixture) eventually(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			f.t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (f *fixture) ready() *fixture {
	f.t.Helper()
	f.eventually("ready", func() bool { return f.Ready() == nil })
	return f
}

func (f *fixture) post(contentType, body string) (int, http.Header, string) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.url+"/v1/activity", strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, b.String()
}

// read gives n records of a topic.
func (f *fixture) read(topic string, n int) []*kgo.Record {
	f.t.Helper()
	cl, err := f.cfg.Client("reader", slog.New(slog.DiscardHandler), nil, kgo.ConsumeTopics(f.cfg.Name(topic)), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		f.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n && ctx.Err() == nil {
		out = append(out, cl.PollFetches(ctx).Records()...)
	}
	if len(out) != n {
		f.t.Fatalf("%s has %d records, want %d", topic, len(out), n)
	}
	return out
}

func event(fields string) string {
	return `{"session_id":"s1","anonymous_id":"` + secret + `","action":"view","product_code":"p1"` + fields + `}`
}

func TestOneEventIsStoredBeforeItIsAnswered(t *testing.T) {
	f := start(t, DefaultConfig()).ready()
	status, _, body := f.post("application/json", event(`,"event_id":"e1","ip":"192.0.2.1","user_agent":"UA"`))
	if status != 202 || !strings.Contains(body, `"event_id":"e1"`) {
		t.Fatalf("%d %s", status, body)
	}
	r := f.read(schemas.ActivityRaw, 1)[0]
	if string(r.Key) != "s1" || !strings.HasPrefix(string(kafka.Header(r, "traceparent")), "00-0af7651916cd43dd8448eb211c80319c") {
		t.Errorf("key %q, headers %v", r.Key, r.Headers)
	}
	dec, err := avro.NewDecoder(f.registry, schemas.Latest(schemas.ActivityRaw))
	if err != nil {
		t.Fatal(err)
	}
	var a schemas.Activity
	if err := dec.Decode(t.Context(), r.Value, &a); err != nil {
		t.Fatal(err)
	}
	if a.EventID != "e1" || *a.AnonymousID != f.keys.Token(secret) || *a.IP != f.keys.Token("192.0.2.1") || a.CustomerVerified {
		t.Errorf("stored %+v", a)
	}
	if bytes.Contains(r.Value, []byte(secret)) || bytes.Contains(r.Value, []byte("192.0.2.1")) {
		t.Error("personal data is in the record in clear")
	}
}

func TestGoodEventsOfABadBatchAreKept(t *testing.T) {
	f := start(t, DefaultConfig()).ready()
	bad := `{"session_id":"s1","anonymous_id":"a","action":"view","email":"` + secret + `"}`
	status, _, body := f.post("text/plain;charset=UTF-8", `{"events":[`+event(`,"event_id":"a"`)+`,`+bad+`,`+event(`,"event_id":"a"`)+`,`+event(``)+`]}`)
	var got accepted
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 202 {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	if got.Accepted != 2 || got.Rejected != 1 || len(got.Results) != 4 || got.Results[1].Errors[0].Field != "product_code" || !got.Results[2].Duplicate || got.Results[3].EventID == "" {
		t.Fatalf("answered %s", body)
	}
	f.read(schemas.ActivityRaw, 2)
	q := f.read(schemas.Quarantine, 1)[0]
	dec, err := avro.NewDecoder(f.registry, schemas.Latest(schemas.Quarantine))
	if err != nil {
		t.Fatal(err)
	}
	var entry schemas.Quarantined
	if err := dec.Decode(t.Context(), q.Value, &entry); err != nil {
		t.Fatal(err)
	}
	if entry.Stage != "collect" || entry.Class != schemas.ClassSchemaViolation || entry.SourceTopic != "http" || entry.Errors[0].Path != "product_code" {
		t.Errorf("entry %+v", entry)
	}
	src, err := quarantine.Open(f.keys, &entry)
	if err != nil || string(src.Value) != bad {
		t.Errorf("opened %q: %v", src.Value, err)
	}
	if bytes.Contains(q.Value, []byte(secret)) || strings.Contains(body, secret) || strings.Contains(f.logs.text(), secret) {
		t.Error("a value of the input is in the answer, in the log or in clear in the quarantine")
	}
	f.eventually("the books balance", func() bool {
		return f.metric("in_total") == 4 && f.metric("accepted_total") == 2 && f.metric("duplicates_total") == 1 &&
			f.metric("rejected_total") == 1 && f.metric("quarantined_total") == 1 && f.metric("in_flight_bytes") == 0
	})
}

func TestRefusedRequests(t *testing.T) {
	f := start(t, DefaultConfig()).ready()
	for _, c := range []struct {
		name, contentType, body string
		status                  int
		contains                string
	}{
		{"single bad event", "application/json", event(`,"quantity":"` + secret + `"`), 422, `"location":"body.quantity"`},
		{"all bad", "application/json", `{"events":[{"action":"` + secret + `"},{}]}`, 422, `"location":"body.events[1].session_id"`},
		{"array", "application/json", `[{},{}]`, 422, `"location":"body[1].action"`},
		{"no JSON", "application/json", `{"` + secret, 400, "not valid JSON"},
		{"empty", "application/json", ``, 400, "not valid JSON"},
		{"shape", "application/json", `"` + secret + `"`, 422, `"location":"body"`},
		{"type", "application/xml", event(``), 415, "application/json"},
		{"too many", "", `[` + strings.Repeat(`{},`, 500) + `{}]`, 413, "500 events"},
		{"too large", "", `"` + strings.Repeat("x", maxBody) + `"`, 413, "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, header, body := f.post(c.contentType, c.body)
			var p huma.ErrorModel
			if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != c.status || header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("not a problem: %s %v", body, err)
			}
			if status != c.status || !strings.Contains(body, c.contains) || strings.Contains(body, secret) {
				t.Errorf("%d %.300s; want %d with %s", status, body, c.status, c.contains)
			}
		})
	}
	if strings.Contains(f.logs.text(), secret) {
		t.Error("a value of the input is in the log")
	}
}

func TestBrokerAway(t *testing.T) {
	cfg := DefaultConfig()
	cfg.ProduceTimeout = time.Second
	f := start(t, cfg).ready()
	if status, _, body := f.post("", event(``)); status != 202 {
		t.Fatalf("%d %s", status, body)
	}
	if err := f.broker.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	status, header, body := f.post("", `[`+event(``)+`,{}]`)
	if status != 503 || header.Get("Retry-After") == "" || strings.Contains(body, secret) {
		t.Errorf("%d %v %s", status, header, body)
	}
	if took := time.Since(began); took > 2500*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
	f.eventually("not ready", func() bool { return f.Ready() != nil })
	f.eventually("bytes are given back", func() bool { return f.inFlight.Load() == 0 })
	if in, out := f.metric("in_total"), f.metric("accepted_total")+f.metric("unavailable_total"); in != 3 || out != 3 {
		t.Errorf("in %v, out %v", in, out)
	}
}

func TestBytesInFlightAreBounded(t *testing.T) {
	f := start(t, DefaultConfig()).ready()
	h, ok := f.hold(maxBody)
	if !ok {
		t.Fatal("no room for one request")
	}
	h.grow(f.Service.cfg.MaxInFlightBytes)
	status, header, _ := f.post("", event(``))
	if status != 503 || header.Get("Retry-After") == "" {
		t.Errorf("%d without room", status)
	}
	h.done()
	if status, _, _ := f.post("", event(``)); status != 202 {
		t.Errorf("%d with room", status)
	}
}

func TestMissingTopicsAreNamed(t *testing.T) {
	f := start(t, DefaultConfig())
	cfg := f.cfg
	cfg.TopicPrefix = "other."
	s, err := New(DefaultConfig(), Deps{Log: slog.New(slog.DiscardHandler), Kafka: cfg, Registry: f.registry, Keys: f.keys})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f.eventually("the missing topic is named", func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "other.activity.raw")
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNoEventIsTakenBeforeTheRegistryAnswers(t *testing.T) {
	keys, err := privacy.NewKeys(privacy.Config{Key: config.Secret(strings.Repeat("ab", 32))})
	if err != nil {
		t.Fatal(err)
	}
	reg, err := avro.NewRegistry(avro.Config{URL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(DefaultConfig(), Deps{Log: slog.New(slog.DiscardHandler), Registry: reg, Keys: keys, Kafka: kafka.DefaultConfig()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w := httptest.NewRecorder()
	s.activity(w, httptest.NewRequest(http.MethodPost, "/v1/activity", strings.NewReader(event(``))))
	if w.Code != 503 || s.Ready() == nil {
		t.Errorf("%d, ready %v", w.Code, s.Ready())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOpenAPI(t *testing.T) {
	f := start(t, DefaultConfig())
	resp, err := http.Get(f.url + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc struct {
		Paths map[string]map[string]struct{ Responses map[string]any }
	}
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	for _, status := range []string{"202", "400", "413", "415", "422", "503"} {
		if doc.Paths["/v1/activity"]["post"].Responses[status] == nil {
			t.Errorf("%s is not described", status)
		}
	}
}

func TestConfig(t *testing.T) {
	for key, spoil := range map[string]func(*Config){
		"max_event_bytes":     func(c *Config) { c.MaxEventBytes = 0 },
		"max_batch_events":    func(c *Config) { c.MaxBatchEvents = 0 },
		"max_in_flight_bytes": func(c *Config) { c.MaxInFlightBytes = 1 },
		"produce_timeout":     func(c *Config) { c.ProduceTimeout = time.Millisecond },
	} {
		c := DefaultConfig()
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	f := start(b, DefaultConfig()).ready()
	for _, n := range []int{1, 50} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			body := `[` + strings.Repeat(event(``)+`,`, n-1) + event(``) + `]`
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					w := httptest.NewRecorder()
					f.activity(w, httptest.NewRequest(http.MethodPost, "/v1/activity", strings.NewReader(body)))
					if w.Code != 202 {
						b.Errorf("%d %s", w.Code, w.Body)
					}
				}
			})
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
