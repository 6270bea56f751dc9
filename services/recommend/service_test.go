package recommend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/broker"
	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/pkg/httpapi"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
)

type fixture struct {
	*Service
	t        testing.TB
	broker   *broker.Broker
	cfg      kafka.Config
	registry *avro.Registry
	client   *kgo.Client
	encoders map[string]*avro.Encoder
	url      string
	gather   *prometheus.Registry
	seq      int64
}

func quick() Config {
	c := DefaultConfig()
	c.PublishEvery = 20 * time.Millisecond
	return c
}

// prepare makes the world around a service that is not started yet.
func prepare(t testing.TB, cfg Config) *fixture {
	t.Helper()
	f := &fixture{t: t, broker: brokertest.Open(t), cfg: kafka.DefaultConfig(), encoders: map[string]*avro.Encoder{}, gather: prometheus.NewRegistry()}
	f.cfg.Brokers, f.cfg.TopicPrefix = []string{f.broker.Addr()}, "t."
	server := httptest.NewServer(registry.NewMemory())
	t.Cleanup(server.Close)
	var err error
	if f.registry, err = avro.NewRegistry(avro.Config{URL: config.Secret(server.URL)}); err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	if f.client, err = f.cfg.Client("test", quiet, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.client.Close)
	for _, topic := range schemas.Topics() {
		switch topic.Name {
		case schemas.SalesProducts, schemas.SalesOrders, schemas.SalesLines, schemas.ActivityEnriched, schemas.RecommendationsServed:
			if _, err := f.cfg.EnsureTopics(t.Context(), f.client, topic); err != nil {
				t.Fatal(err)
			}
			if f.encoders[topic.Name], err = avro.NewEncoder(t.Context(), f.registry, schemas.Subject(f.cfg.Name(topic.Name)), schemas.Latest(topic.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.Service, err = New(cfg, Deps{Log: quiet, Metrics: f.gather, Kafka: f.cfg, Registry: f.registry})
	if err != nil {
		t.Fatal(err)
	}
	api := httpapi.New(httpapi.DefaultConfig(), "test", "1", quiet, prometheus.NewRegistry())
	f.Operations(api.API)
	web := httptest.NewServer(api.Router)
	t.Cleanup(web.Close)
	f.url = web.URL
	return f
}

func (f *fixture) run() *fixture {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("Run: %v", err)
		}
		closing, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_ = f.Close(closing) // in tests that stop the broker answers stay unrecorded
	})
	f.eventually("ready", func() bool { return f.Ready() == nil })
	return f
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

func (f *fixture) metric(name string) (sum float64) {
	f.t.Helper()
	families, err := f.gather.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "millrace_recommend_"+name {
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// put writes a record; a nil v is a tombstone.
func (f *fixture) put(topic, key string, v any) {
	f.t.Helper()
	r := &kgo.Record{Topic: f.cfg.Name(topic), Key: []byte(key)}
	if v != nil {
		var err error
		if r.Value, err = f.encoders[topic].Append(nil, v); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := f.client.ProduceSync(f.t.Context(), r).FirstErr(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) product(code string, stock int64, change ...func(*schemas.Product)) {
	f.t.Helper()
	f.seq++
	p := &schemas.Product{ProductCode: code, Seq: f.seq, Name: code, Category: "cars", Stock: &stock, ChangedAt: time.Now()}
	for _, c := range change {
		c(p)
	}
	f.put(schemas.SalesProducts, code, p)
}

func (f *fixture) order(id, customer, country string, codes ...string) {
	f.t.Helper()
	f.seq++
	f.put(schemas.SalesOrders, id, &schemas.Order{OrderID: id, Seq: f.seq, PlacedAt: time.Now().Add(-time.Hour), CustomerKey: &customer, Country: country, ChangedAt: time.Now()})
	for _, c := range codes {
		f.put(schemas.SalesLines, id+"|"+c, &schemas.Line{LineID: id + "|" + c, Seq: f.seq, OrderID: id, ProductCode: c, Units: 1, UnitPrice: "1", ChangedAt: time.Now()})
	}
}

func (f *fixture) activity(id, session, action, code string) {
	f.t.Helper()
	f.put(schemas.ActivityEnriched, session, &schemas.EnrichedActivity{Activity: schemas.Activity{EventID: id, EventTime: time.Now(), ReceivedAt: time.Now(),
		SessionID: session, Action: action, ProductCode: &code, Attributes: map[string]string{}}})
}

// store writes a small store: a, b and c are bought together, x and y too; d sells best; h is hidden, n out of stock.
func (f *fixture) store() *fixture {
	for _, c := range []string{"a", "b", "c", "d", "x", "y"} {
		f.product(c, 5)
	}
	f.product("h", 5, func(p *schemas.Product) { p.Hidden = true })
	f.product("n", 0)
	for i := range 3 {
		f.order(fmt.Sprint("abc", i), fmt.Sprint("k", i), "France", "a", "b", "c", "h", "n")
		f.order(fmt.Sprint("xy", i), fmt.Sprint("m", i), "Japan", "x", "y")
		f.order(fmt.Sprint("d", i), "d", "Japan", "d")
		f.order(fmt.Sprint("e", i), "d", "Japan", "d")
	}
	return f
}

type response struct {
	RequestID        string           `json:"request_id"`
	ModelVersion     string           `json:"model_version"`
	Level            string           `json:"level"`
	RecommendedItems []map[string]any `json:"recommended_items"`
	SimilarItems     json.RawMessage  `json:"similar_items"`
}

func codes(items []map[string]any) string {
	var out []string
	for _, i := range items {
		out = append(out, i["id"].(string))
	}
	return strings.Join(out, " ")
}

func (f *fixture) request(method, path, body string) (int, string) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (f *fixture) get(query string) response {
	f.t.Helper()
	return f.parse(f.request(http.MethodGet, "/v1/recommendations?"+query, ""))
}

func (f *fixture) post(body string) response {
	f.t.Helper()
	return f.parse(f.request(http.MethodPost, "/v1/recommendations", body))
}

func (f *fixture) parse(status int, body string) response {
	f.t.Helper()
	var r response
	if err := json.Unmarshal([]byte(body), &r); err != nil || status != 200 || r.RequestID == "" || r.ModelVersion == "" || r.RecommendedItems == nil {
		f.t.Fatalf("%d %s: %v", status, body, err)
	}
	return r
}

func TestAnswersBeforeAnythingIsKnown(t *testing.T) {
	f := prepare(t, quick())
	if r := f.get("session_id=s&customer_number=1"); r.Level != "popular" || len(r.RecommendedItems) != 0 {
		t.Errorf("answered %+v", r)
	}
	if f.Ready() == nil {
		t.Error("ready before the catalogue was read")
	}
}

func TestAnswersFollowTheShopper(t *testing.T) {
	f := prepare(t, quick()).store().run()
	if r := f.get("limit=3&unknown=1"); r.Level != "popular" || !strings.HasPrefix(codes(r.RecommendedItems), "d ") || len(r.RecommendedItems) != 3 {
		t.Errorf("nobody: %+v", r)
	}
	if r := f.get("cart=a%2Cx&limit=2"); r.Level != "similarity" || strings.ContainsAny(codes(r.RecommendedItems), "axhn") || r.RecommendedItems[0]["reason"] != "cart" {
		t.Errorf("cart: %+v", r)
	}
	if r := f.get("customer_number=k1&limit=10"); r.Level != "similarity" || len(r.RecommendedItems) != 6 {
		t.Errorf("customer: %+v", r)
	}
	before := f.get("session_id=s1&limit=2")
	for i, c := range []string{"b", "a", "c"} {
		f.activity(fmt.Sprint("e", i), "s1", "view", c)
	}
	f.activity("e9", "s1", "add_to_cart", "x")
	f.eventually("the views change the next answer", func() bool {
		r := f.get("session_id=s1&limit=2")
		return r.Level == "similarity" && codes(r.RecommendedItems) != codes(before.RecommendedItems) && codes(r.RecommendedItems)[:1] == "y"
	})
	if r := f.get("session_id=s1&limit=100"); strings.Contains(codes(r.RecommendedItems), "x") {
		t.Errorf("what is in the cart was recommended: %+v", r)
	}
}

func TestBrowseHistory(t *testing.T) {
	f := prepare(t, quick()).store().run()
	f.activity("v", "s2", "view", "x")
	f.eventually("session known", func() bool { return f.metric("sessions_count") == 1 })
	r := f.post(`{"session_id":"s2","customer_number":478,"city":"Pasadena","country":"USA","credit_limit":59811,"limit":3,"browse_history":[
		{"product_code":"a","quantity":"1","in_shopping_cart":true},{"product_code":"b","quantity":7,"in_shopping_cart":false}]}`)
	var similar struct {
		ProductCode  string           `json:"product_code"`
		SimilarItems []map[string]any `json:"similar_items"`
	}
	if err := json.Unmarshal(r.SimilarItems, &similar); err != nil {
		t.Fatal(err)
	}
	got := codes(r.RecommendedItems)
	if r.Level != "similarity" || got[:1] != "c" || !strings.Contains(got, "y") || strings.ContainsAny(got, "ab") {
		t.Errorf("answered %+v", r)
	}
	if similar.ProductCode != "b" || codes(similar.SimilarItems)[:1] != "c" || strings.Contains(codes(similar.SimilarItems), "a") {
		t.Errorf("similar: %+v", similar)
	}
	if r := f.post(`{"filters":{"category":"none"}}`); len(r.RecommendedItems) != 0 || r.Level != "popular" {
		t.Errorf("everything filtered: %+v", r)
	}
	if r := f.post(`{"filters":{"exclude":["d"]},"limit":100}`); strings.Contains(codes(r.RecommendedItems), "d") {
		t.Errorf("excluded: %+v", r)
	}
}

func TestSimilar(t *testing.T) {
	f := prepare(t, quick()).store().run()
	status, body := f.request(http.MethodGet, "/v1/products/x/similar?limit=2", "")
	var r struct {
		Level, ProductCode string
		SimilarItems       []map[string]any `json:"similar_items"`
	}
	if err := json.Unmarshal([]byte(body), &r); err != nil || status != 200 || r.Level != "similarity" || codes(r.SimilarItems)[:1] != "y" || len(r.SimilarItems) != 2 {
		t.Errorf("%d %s", status, body)
	}
	if status, body := f.request(http.MethodGet, "/v1/products/no%22such/similar", ""); status != 200 || !strings.Contains(body, `"level":"popular"`) || !json.Valid([]byte(body)) {
		t.Errorf("unknown product: %d %s", status, body)
	}
}

func TestTheCatalogueIsFollowed(t *testing.T) {
	f := prepare(t, quick()).store().run()
	has := func(code string) bool { return strings.Contains(codes(f.get("limit=100").RecommendedItems), code) }
	steps := []struct {
		name string
		do   func()
		want bool
	}{
		{"there", func() {}, true},
		{"out of stock", func() { f.product("d", 0) }, false},
		{"in stock", func() { f.product("d", 1) }, true},
		{"hidden", func() { f.product("d", 1, func(p *schemas.Product) { p.Hidden = true }) }, false},
		{"shown", func() { f.product("d", 1) }, true},
		{"gone", func() { f.product("d", 1, func(p *schemas.Product) { p.Gone = true }) }, false},
		{"back", func() { f.product("d", 1) }, true},
		{"deleted", func() { f.put(schemas.SalesProducts, "d", nil) }, false},
	}
	for _, st := range steps {
		st.do()
		f.eventually(st.name, func() bool { return has("d") == st.want })
	}
}

func TestBadRequestsNameTheFieldAndNeverTheValue(t *testing.T) {
	f := prepare(t, quick())
	const secret = "zq9-personal"
	for _, c := range []struct {
		method, query, body string
		status              int
		contains            string
	}{
		{"GET", "limit=" + secret, "", 422, `"location":"query.limit"`},
		{"GET", "limit=0", "", 422, `"location":"query.limit"`},
		{"GET", "limit=101", "", 422, `from 1 to 100`},
		{"GET", "session_id=" + strings.Repeat(secret, 20), "", 422, `"location":"query.session_id"`},
		{"GET", "cart=%zz", "", 422, `"location":"query.cart"`},
		{"GET", "session_id=%ff", "", 422, `"location":"query.session_id"`},
		{"GET", "cart=" + strings.Repeat("a,", 300), "", 422, `"location":"query.cart"`},
		{"POST", "", `{"limit":"` + secret + `"}`, 422, `"location":"body.limit"`},
		{"POST", "", `{"limit":[]}`, 422, `"location":"body.limit"`},
		{"POST", "", `{"browse_history":[{"product_code":"a"},{"product_code":"b","quantity":"` + secret + `"}]}`, 422, `"location":"body.browse_history[1].quantity"`},
		{"POST", "", `{"browse_history":[{"quantity":1}]}`, 422, `"location":"body.browse_history[0].product_code"`},
		{"POST", "", `{"browse_history":[{"product_code":"a","in_shopping_cart":"` + secret + `"}]}`, 422, `"location":"body.browse_history[0].in_shopping_cart"`},
		{"POST", "", `{"browse_history":"` + secret + `"}`, 422, `"location":"body.browse_history"`},
		{"POST", "", `{"customer_number":{"a":"` + secret + `"}}`, 422, `"location":"body.customer_number"`},
		{"POST", "", `{"credit_limit":"` + secret + `"}`, 422, `"location":"body.credit_limit"`},
		{"POST", "", `"` + secret + `"`, 422, `"location":"body"`},
		{"POST", "", `{"` + secret, 400, "not valid JSON"},
		{"POST", "", strings.Repeat(" ", maxBody+1), 413, "larger than"},
	} {
		status, body := f.request(c.method, "/v1/recommendations?"+c.query, c.body)
		if status != c.status || !strings.Contains(body, c.contains) || strings.Contains(body, secret) {
			t.Errorf("%s %.60s %.80s: %d %s; want %d with %s", c.method, c.query, c.body, status, body, c.status, c.contains)
		}
	}
}

func TestEveryAnswerIsRecorded(t *testing.T) {
	f := prepare(t, quick()).store()
	early := f.get("context=home") // before the service runs
	f.run()
	late := f.post(`{"session_id":"s","customer_number":7,"context":"cart","browse_history":[{"product_code":"a","in_shopping_cart":true},{"product_code":"b"}]}`)
	cl, err := f.cfg.Client("reader", slog.New(slog.DiscardHandler), nil, kgo.ConsumeTopics(f.cfg.Name(schemas.RecommendationsServed)), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	dec, err := avro.NewDecoder(f.registry, schemas.Latest(schemas.RecommendationsServed))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]schemas.Served{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(got) < 3 && ctx.Err() == nil {
		for _, r := range cl.PollFetches(ctx).Records() {
			var a schemas.Served
			if err := dec.Decode(ctx, r.Value, &a); err != nil {
				t.Fatal(err)
			}
			got[string(r.Key)] = a
		}
	}
	if a, ok := got[early.RequestID]; !ok || a.Context != "home" || a.Level != "popular" {
		t.Errorf("the first answer: %+v", a)
	}
	a := got[late.RequestID]
	if *a.SessionID != "s" || *a.CustomerNumber != "7" || a.Level != late.Level || a.ModelVersion != late.ModelVersion || len(a.Items) != len(late.RecommendedItems) ||
		a.Items[0].ProductCode != late.RecommendedItems[0]["id"] || fmt.Sprint(a.Cart, a.Viewed) != "[a] [b a]" {
		t.Errorf("the second answer: %+v", a)
	}
	if a := got[late.RequestID+"/similar"]; a.Context != "similar" || len(a.Items) == 0 {
		t.Errorf("its similar products: %+v", a)
	}
}

func TestKafkaAway(t *testing.T) {
	cfg := quick()
	cfg.MaxServedBytes = 1 << 16
	f := prepare(t, cfg)
	f.cfg.MaxBufferedBytes = 1 << 20
	f.Service.deps.Kafka.MaxBufferedBytes = 1 << 20
	f.store().run()
	if err := f.broker.Close(); err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"session_id":"s","browse_history":[{"product_code":"a"}],"limit":6}`)
	slowest := time.Duration(0)
	for n := 0; n%100 > 0 || f.metric("served_lost_total") == 0; n++ {
		began := time.Now()
		w := httptest.NewRecorder()
		f.postRecommendations(w, httptest.NewRequest(http.MethodPost, "/v1/recommendations", bytes.NewReader(body)))
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"level":"similarity"`) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		slowest = max(slowest, time.Since(began))
	}
	if slowest > time.Second {
		t.Errorf("an answer took %v", slowest)
	}
	if f.metric("served_lost_total") == 0 || f.metric("served_waiting_bytes") > 1<<16 || f.Ready() != nil {
		t.Errorf("lost %v, waiting %v bytes, ready %v", f.metric("served_lost_total"), f.metric("served_waiting_bytes"), f.Ready())
	}
}

func TestABadRecordIsLeftOut(t *testing.T) {
	f := prepare(t, quick()).store()
	for _, topic := range []string{schemas.SalesProducts, schemas.ActivityEnriched} {
		if err := f.client.ProduceSync(t.Context(), &kgo.Record{Topic: f.cfg.Name(topic), Key: []byte("k"), Value: []byte("no Avro")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	f.run()
	f.product("z", 1)
	f.eventually("what follows is read", func() bool { return strings.Contains(codes(f.get("limit=100").RecommendedItems), "z") })
}

func TestActivityIsReadFromSomeHoursBack(t *testing.T) {
	f := prepare(t, quick()).store()
	f.activity("e", "before", "view", "x")
	f.run()
	f.eventually("the session is known", func() bool {
		r := f.get("session_id=before&limit=1")
		return r.Level == "similarity" && codes(r.RecommendedItems) == "y"
	})
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "half_life") {
		t.Errorf("an empty configuration: %v", err)
	}
}

func TestOpenAPI(t *testing.T) {
	f := prepare(t, quick())
	_, text := f.request(http.MethodGet, "/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]struct{ Responses map[string]any }
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	for path, method := range map[string]string{"/v1/recommendations": "get", "/v1/products/{code}/similar": "get"} {
		if doc.Paths[path][method].Responses["200"] == nil {
			t.Errorf("%s %s is not described", method, path)
		}
	}
	if doc.Paths["/v1/recommendations"]["post"].Responses["422"] == nil {
		t.Error("the refusal of a POST is not described")
	}
}

// FuzzQuestion: whatever is asked, the answer is JSON, and either an answer or a problem.
func FuzzQuestion(f *testing.F) {
	for _, s := range []string{``, `{}`, `null`, `[]`, `limit=5&cart=a,b`, `{"limit":"5","browse_history":[{"product_code":7,"quantity":"1e3","in_shopping_cart":"true"}]}`,
		`{"browse_history":[null,{"product_code":null}],"filters":null}`, `cart=%ff,%`, `{"filters":{"exclude":["a",7,true,null]}}`, `{"customer_number":1e999}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		reg, err := avro.NewRegistry(avro.Config{URL: "http://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(DefaultConfig(), Deps{Log: slog.New(slog.DiscardHandler), Kafka: kafka.DefaultConfig(), Registry: reg})
		if err != nil {
			t.Fatal(err)
		}
		get := httptest.NewRequest(http.MethodGet, "/", nil)
		get.URL.RawQuery = text
		post := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(text))
		for name, answer := range map[string]func(http.ResponseWriter){
			"get":     func(w http.ResponseWriter) { s.getRecommendations(w, get) },
			"post":    func(w http.ResponseWriter) { s.postRecommendations(w, post) },
			"similar": func(w http.ResponseWriter) { s.getSimilar(w, get, text) },
		} {
			w := httptest.NewRecorder()
			answer(w)
			if !json.Valid(w.Body.Bytes()) || w.Code >= 500 {
				t.Errorf("%s: %d %q", name, w.Code, w.Body)
			}
		}
	})
}

// BenchmarkHandler compares the handlers, serving log on, with one that returns a constant of the same size.
func BenchmarkHandler(b *testing.B) {
	f := prepare(b, DefaultConfig())
	for i := range 110 {
		f.product(fmt.Sprintf("S%02d_%d", i, i), 10)
	}
	for i := range 60 {
		f.order(fmt.Sprint(i), fmt.Sprint(i%20), "France", fmt.Sprintf("S%02d_%d", i, i), fmt.Sprintf("S%02d_%d", i+1, i+1), fmt.Sprintf("S%02d_%d", i+2, i+2))
	}
	f.run()
	f.activity("v1", "s", "view", "S10_10")
	f.activity("v2", "s", "add_to_cart", "S20_20")
	path := "/v1/recommendations?session_id=s&customer_number=7&limit=10"
	_, constant := f.request(http.MethodGet, path, "")
	plain := chi.NewRouter()
	plain.Get("/v1/recommendations", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, constant)
	})
	ours := httpapi.New(httpapi.DefaultConfig(), "test", "1", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	f.Operations(ours.API)
	for _, c := range []struct {
		name    string
		handler http.Handler
	}{{"constant", plain}, {"recommend", ours.Router}} {
		b.Run("direct/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				c.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			}
		})
		b.Run("http/"+c.name, func(b *testing.B) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					resp, err := client.Get(server.URL + path)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
	b.Logf("lost %v of %v", f.metric("served_lost_total"), f.metric("requests_total"))
}
