package demo

import (
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/pkg/httpapi"
)

//go:embed web
var web embed.FS

// Routes adds the storefront page and what it calls to r: everything is below
// /shop. Until the store is set up the API answers 503.
func (s *Service) Routes(r chi.Router) {
	r.Route("/shop", func(r chi.Router) {
		r.Use(httpapi.Compressed(), s.headers)
		r.Get("/", s.asset("index.html"))
		for _, name := range s.assets() {
			r.Get("/"+name, s.asset(name))
		}
		r.Get("/api/config", s.getConfig)
		r.Get("/api/lines", s.getLines)
		r.Get("/api/products", s.getProducts)
		r.Get("/api/products/{code}", s.getProduct)
		r.Get("/api/customers", s.getCustomers)
		r.Post("/api/checkout", s.postCheckout)
	})
}

// assets are the names of the page's files but for the page itself.
func (s *Service) assets() []string {
	names, err := fs.Glob(web, "web/*")
	if err != nil {
		return nil // only a malformed pattern is an error
	}
	var out []string
	for _, n := range names {
		if n = strings.TrimPrefix(n, "web/"); n != "index.html" {
			out = append(out, n)
		}
	}
	return out
}

func (s *Service) asset(name string) http.HandlerFunc {
	types := map[string]string{"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := web.ReadFile("web/" + name)
		if err != nil {
			httpapi.Problem(w, http.StatusNotFound, "no such file")
			return
		}
		w.Header().Set("Content-Type", types[name[strings.LastIndexByte(name, '.')+1:]])
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(body) // the client has gone: nobody to tell
	}
}

// headers keeps the page to itself: no foreign scripts, no inline ones, no frames.
func (s *Service) headers(next http.Handler) http.Handler {
	connect := "'self'"
	for _, base := range []string{s.cfg.CollectURL, s.cfg.RecommendURL} {
		if u, err := url.Parse(base); err == nil && u.Host != "" {
			connect += " " + u.Scheme + "://" + u.Host
		}
	}
	policy := "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src " + connect +
		"; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // our own types always encode; a client that has gone cannot be told
}

// database is the pool, or nil after a 503 was answered.
func (s *Service) database(w http.ResponseWriter) *pgxpool.Pool {
	db := s.pool.Load()
	if db == nil {
		s.unavailable(w)
	}
	return db
}

func (s *Service) unavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "2")
	httpapi.Problem(w, http.StatusServiceUnavailable, "the store's database does not answer yet; try again in a moment")
}

// failed answers for an error of the database; its text may quote rows and stays here.
func (s *Service) failed(w http.ResponseWriter, r *http.Request, what string, err error) {
	if r.Context().Err() == nil {
		s.deps.Log.Warn("the storefront could not answer", "what", what, "sqlstate", sqlState(err))
	}
	s.unavailable(w)
}

func invalid(w http.ResponseWriter, location, message string) {
	httpapi.Problem(w, http.StatusUnprocessableEntity, "the request is not valid: "+location+": "+message,
		&huma.ErrorDetail{Location: location, Message: message})
}

func (s *Service) getConfig(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{
		"collect_url":   strings.TrimSuffix(s.cfg.CollectURL, "/"),
		"recommend_url": strings.TrimSuffix(s.cfg.RecommendURL, "/"),
	})
}
