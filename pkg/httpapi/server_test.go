package httpapi

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/millrace-io/millrace/pkg/telemetry"
)

func server(t *testing.T, origins ...string) *Server {
	t.Helper()
	return New(Config{Address: "127.0.0.1:0", AllowedOrigins: origins}, "test", "1", slog.New(slog.DiscardHandler), telemetry.NewMetrics("test", "1"))
}

func ask(s *Server, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Router.ServeHTTP(w, r)
	return w
}

func TestCORS(t *testing.T) {
	s := server(t, "https://shop.example")
	s.Router.Post("/x", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	w := ask(s, http.MethodOptions, "/x", "Origin", "https://shop.example", "Access-Control-Request-Method", "POST")
	if w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != "https://shop.example" {
		t.Fatal("preflight", w.Code, w.Header())
	}
	if w = ask(s, http.MethodPost, "/x", "Origin", "https://shop.example"); w.Code != 202 || w.Header().Get("Access-Control-Allow-Origin") == "" {
		t.Fatal("allowed origin", w.Code, w.Header())
	}
	if w = ask(s, http.MethodPost, "/x", "Origin", "https://evil.example"); w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Fatal("a foreign origin is allowed", w.Header())
	}
	if w.Header().Get("Access-Control-Allow-Credentials") != "" {
		t.Fatal("credentials are allowed")
	}
	if w = ask(server(t), http.MethodGet, "/healthz", "Origin", "https://shop.example"); w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Fatal("allowed though none is configured")
	}
}

func TestProblems(t *testing.T) {
	w := httptest.NewRecorder()
	Problem(w, http.StatusUnprocessableEntity, "one field is wrong", &huma.ErrorDetail{Location: "body.action", Message: "must be one of view, search"})
	var p huma.ErrorModel
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != 422 || p.Errors[0].Location != "body.action" ||
		w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatal(w.Body, err)
	}
	for _, r := range []*httptest.ResponseRecorder{ask(server(t), http.MethodGet, "/nothing"), ask(server(t), http.MethodPost, "/healthz")} {
		if r.Header().Get("Content-Type") != "application/problem+json" {
			t.Error("not a problem:", r.Code, r.Body)
		}
	}
}

func TestConfigNamesTheMistake(t *testing.T) {
	f := func(c Config, want string) {
		t.Helper()
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	f(Config{Address: "8080"}, "host:port")
	f(Config{Address: ":8080", AllowedOrigins: []string{"shop.example"}}, "not an origin")
}
