//go:build e2e

package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/test/harness"
)

// badRequest is one that must be refused.
type badRequest struct {
	name, method, path, contentType, body string
	status                                int
	location                              string // of one of errors; empty if the request as a whole is wrong
}

// TestBadRequests: whatever is wrong with a request, the answer is problem+json with the right status that names the
// field or parameter and never repeats what was sent.
func TestBadRequests(t *testing.T) {
	brokers, registryURL := infrastructure(t)
	env := []string{"MILLRACE_KAFKA_BROKERS=" + strings.Join(brokers, ","), "MILLRACE_REGISTRY_URL=" + registryURL, "MILLRACE_SALES_URL=" + pgtest.Database(t),
		"MILLRACE_PRIVACY_KEY_FILE=" + harness.KeyFile(t), "MILLRACE_KAFKA_INSTANCE_ID=0"}
	runTool(t, env, "admin", "topics", "apply").expect(t, done)
	collect, recommend, dashboard := harness.Start(t, "collect", env), harness.Start(t, "recommend", env), harness.Start(t, "dashboard", env)
	collect.Ready(t, 20*time.Second)
	recommend.Ready(t, 20*time.Second)
	readyzSays(t, dashboard, 20*time.Second, "aggregate")
	status, header, body := request(t, http.MethodGet, "http://"+dashboard.Addr+"/v1/sales", "", "")
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("a dashboard without tables answers %d %s", status, body)
	}
	says(t, "a dashboard without tables", body, "aggregate")
	aggregate := harness.Start(t, "aggregate", env)
	aggregate.Ready(t, 20*time.Second)
	dashboard.Ready(t, 20*time.Second)

	refuses(t, collect, []badRequest{
		{"no JSON", "POST", "/v1/activity", "application/json", "{not json", 400, ""},
		{"empty", "POST", "/v1/activity", "application/json", "", 400, ""},
		{"not UTF-8", "POST", "/v1/activity", "application/json", "{\"session_id\":\"\xff\"}", 400, ""},
		{"another kind of body", "POST", "/v1/activity", "application/json", `"private@example.org"`, 422, "body"},
		{"no events", "POST", "/v1/activity", "application/json", `{"events":[]}`, 422, "body.events"},
		{"events is no list", "POST", "/v1/activity", "application/json", `{"events":"private@example.org"}`, 422, "body.events"},
		{"unknown action", "POST", "/v1/activity", "application/json", `{"session_id":"s","action":"private@example.org"}`, 422, "body.action"},
		{"no session", "POST", "/v1/activity", "application/json", `{"action":"view","product_code":"P1"}`, 422, "body.session_id"},
		{"a wrong kind", "POST", "/v1/activity", "application/json", `{"session_id":"s","action":"view","product_code":["private@example.org"]}`, 422, "body.product_code"},
		{"a bad time", "POST", "/v1/activity", "application/json", `{"session_id":"s","action":"view","product_code":"P1","event_time":"private@example.org"}`, 422, "body.event_time"},
		{"the second of two", "POST", "/v1/activity", "application/json", `{"events":[{"session_id":"s","action":"x"},{"action":"view","product_code":"P1"}]}`, 422, "body.events[1].session_id"},
		{"too many events", "POST", "/v1/activity", "application/json", `{"events":[` + strings.TrimSuffix(strings.Repeat(`{},`, 501), ",") + `]}`, 413, ""},
		{"too large", "POST", "/v1/activity", "application/json", strings.Repeat(" ", 1<<20+1), 413, ""},
		{"another media type", "POST", "/v1/activity", "application/xml", "<a/>", 415, ""},
		{"another method", "GET", "/v1/activity", "", "", 405, ""},
		{"another address", "POST", "/v1/private@example.org", "application/json", "{}", 404, ""},
	})
	refuses(t, recommend, []badRequest{
		{"limit is no number", "GET", "/v1/recommendations?limit=private@example.org", "", "", 422, "query.limit"},
		{"limit is 0", "GET", "/v1/recommendations?limit=0", "", "", 422, "query.limit"},
		{"limit is too large", "GET", "/v1/recommendations?limit=101", "", "", 422, "query.limit"},
		{"a session too long", "GET", "/v1/recommendations?session_id=" + strings.Repeat("s", 129), "", "", 422, "query.session_id"},
		{"a session not UTF-8", "GET", "/v1/recommendations?session_id=%ff", "", "", 422, "query.session_id"},
		{"a bad escape", "GET", "/v1/recommendations?category=%zz", "", "", 422, "query.category"},
		{"a cart too large", "GET", "/v1/recommendations?cart=" + strings.Repeat("P,", 300), "", "", 422, "query.cart"},
		{"similar: a bad limit", "GET", "/v1/products/P1/similar?limit=-1", "", "", 422, "query.limit"},
		{"no JSON", "POST", "/v1/recommendations", "application/json", "{", 400, ""},
		{"a list", "POST", "/v1/recommendations", "application/json", "[]", 422, "body"},
		{"a session that is a list", "POST", "/v1/recommendations", "application/json", `{"session_id":["private@example.org"]}`, 422, "body.session_id"},
		{"a limit that is text", "POST", "/v1/recommendations", "application/json", `{"limit":"private@example.org"}`, 422, "body.limit"},
		{"a visit without product", "POST", "/v1/recommendations", "application/json", `{"browse_history":[{"product_code":"P1"},{"quantity":1}]}`, 422, "body.browse_history[1].product_code"},
		{"a quantity that is text", "POST", "/v1/recommendations", "application/json", `{"browse_history":[{"product_code":"P1","quantity":"many"}]}`, 422, "body.browse_history[0].quantity"},
		{"filters of a wrong kind", "POST", "/v1/recommendations", "application/json", `{"filters":"private@example.org"}`, 422, "body.filters"},
		{"too large", "POST", "/v1/recommendations", "application/json", `{"session_id":"` + strings.Repeat("s", 256<<10) + `"}`, 413, ""},
		{"another media type", "POST", "/v1/recommendations", "text/csv", "a;b", 415, ""},
		{"another method", "DELETE", "/v1/recommendations", "", "", 405, ""},
	})
	refuses(t, dashboard, []badRequest{
		{"an unknown parameter", "GET", "/v1/sales?regoin=private@example.org", "", "", 422, "query"},
		{"a bad time", "GET", "/v1/sales?from=private@example.org", "", "", 422, "query.from"},
		{"from after to", "GET", "/v1/sales?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z", "", "", 422, "query.from"},
		{"a range too long", "GET", "/v1/sales?from=1990-01-01T00:00:00Z", "", "", 422, "query.from"},
		{"an unknown zone", "GET", "/v1/sales?tz=private@example.org", "", "", 422, "query.tz"},
		{"an unknown grain", "GET", "/v1/sales?grain=minute", "", "", 422, "query.grain"},
		{"an unknown grouping", "GET", "/v1/sales?group_by=private@example.org", "", "", 422, "query.group_by"},
		{"an unknown format", "GET", "/v1/sales?format=xml", "", "", 422, "query.format"},
		{"twice", "GET", "/v1/sales?grain=hour&grain=day", "", "", 422, "query.grain"},
		{"a filter not UTF-8", "GET", "/v1/sales?region=%ff", "", "", 422, "query.region"},
		{"a filter with the character zero", "GET", "/v1/sales?region=%00", "", "", 422, "query.region"},
		{"too many filters", "GET", "/v1/sales?" + manyFilters(201), "", "", 422, "query.region"},
		{"live: a parameter", "GET", "/v1/sales/live?tz=private@example.org", "", "", 422, "query"},
		{"summary: an unknown zone", "GET", "/v1/sales/summary?tz=private@example.org", "", "", 422, "query.tz"},
		{"another method", "POST", "/v1/sales", "application/json", "{}", 405, ""},
		{"another address", "GET", "/v2/sales", "", "", 404, ""},
	})
	for _, p := range []*harness.Process{collect, recommend, dashboard} {
		keepsQuiet(t, p.Name+"'s log", p.Tail(1<<20))
	}
	runTool(t, env, "enrich", "quarantine", "list").expect(t, done, "collect", "http/0@-1", "session_id missing")
}

func manyFilters(n int) string {
	q := url.Values{}
	for i := range n {
		q.Add("region", strings.Repeat("r", i+1))
	}
	return q.Encode()
}

func refuses(t *testing.T, p *harness.Process, requests []badRequest) {
	t.Helper()
	for _, r := range requests {
		t.Run(p.Name+"/"+r.name, func(t *testing.T) {
			status, header, body := request(t, r.method, "http://"+p.Addr+r.path, r.contentType, r.body)
			if status != r.status || header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("%d %s, want %d\n%.500s", status, header.Get("Content-Type"), r.status, body)
			}
			keepsQuiet(t, "the answer", body)
			var problem struct {
				Title  string `json:"title"`
				Status int    `json:"status"`
				Detail string `json:"detail"`
				Errors []struct {
					Location string `json:"location"`
					Message  string `json:"message"`
				} `json:"errors"`
			}
			if err := json.Unmarshal([]byte(body), &problem); err != nil {
				t.Fatalf("%v in %.300s", err, body)
			}
			if problem.Title == "" || problem.Status != r.status || problem.Detail == "" {
				t.Errorf("the problem lacks title, status or detail: %.300s", body)
			}
			if r.location == "" {
				return
			}
			at := slices.IndexFunc(problem.Errors, func(e struct {
				Location string `json:"location"`
				Message  string `json:"message"`
			}) bool {
				return e.Location == r.location
			})
			if at < 0 || problem.Errors[at].Message == "" {
				t.Errorf("%s is not named: %.400s", r.location, body)
			}
		})
	}
}
