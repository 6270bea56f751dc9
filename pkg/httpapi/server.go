// Package httpapi is the HTTP side of every process: one router, one OpenAPI document made from the handlers,
// health, readiness and metrics, problem+json errors (RFC 9457), CORS and limits.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace-io/millrace/pkg/telemetry"
)

// Config is the http section.
type Config struct {
	Address        string        `yaml:"address" doc:"address to listen on; port 0 takes a free one"`
	AllowedOrigins []string      `yaml:"allowed_origins" doc:"origins of pages on other addresses that may call the API (CORS)"`
	ShutdownDelay  time.Duration `yaml:"shutdown_delay" doc:"how long /readyz says no before the server stops, for load balancers to notice"`
}

// DefaultConfig listens on loopback only.
func DefaultConfig() Config { return Config{Address: "127.0.0.1:8080"} }

// Validate names the key that is wrong.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return fmt.Errorf("address %q: write host:port, for example 127.0.0.1:8080", c.Address)
	}
	for _, o := range c.AllowedOrigins {
		if o != "*" && !strings.HasPrefix(o, "http://") && !strings.HasPrefix(o, "https://") {
			return fmt.Errorf("allowed_origins: %q is not an origin such as https://shop.example", o)
		}
	}
	return nil
}

// Server is the process's HTTP server. Routes are added before Listen.
type Server struct {
	// Router takes plain handlers.
	Router chi.Router
	// API takes described operations; they appear in /openapi.json.
	API huma.API

	cfg      Config
	log      *slog.Logger
	listener net.Listener
	server   *http.Server
	stopping atomic.Bool
	mu       sync.Mutex
	checks   map[string]func() error
	opened   prometheus.Gauge
}

// New makes the server; it opens nothing.
func New(cfg Config, title, version string, log *slog.Logger, metrics *prometheus.Registry) *Server {
	r := chi.NewRouter()
	s := &Server{Router: r, cfg: cfg, log: log, checks: map[string]func() error{}}
	s.opened = prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_http_open_connections", Help: "HTTP connections open now."})
	metrics.MustRegister(s.opened)
	r.Use(s.recovered, traced, cors(cfg.AllowedOrigins))
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		Problem(w, http.StatusNotFound, "there is nothing at this address; /openapi.json lists what there is")
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, _ *http.Request) {
		Problem(w, http.StatusMethodNotAllowed, "this address does not take that method; /openapi.json lists what it takes")
	})
	hc := huma.DefaultConfig(title, version)
	hc.DocsPath = "" // huma's page loads scripts from another host; /docs is our own
	hc.OpenAPIPath = "/openapi"
	hc.CreateHooks = nil // no $schema links in answers
	s.API = humachi.New(r, hc)
	r.Get("/docs", s.docs)
	r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") })
	r.Get("/readyz", s.readyz)
	r.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return s
}

// AddCheck adds a reason why the process may not be ready. check returns nil or the reason; it must be quick.
func (s *Server) AddCheck(name string, check func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name] = check
}

// Listen takes the port. The error of a port that is taken names it and the flag that changes it.
func (s *Server) Listen(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.cfg.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("cannot serve HTTP on %s: the port is taken by another program; stop it or choose another with --http-address (port 0 takes a free one)", s.cfg.Address)
	}
	if err != nil {
		return fmt.Errorf("cannot serve HTTP on %s (--http-address): %w", s.cfg.Address, err)
	}
	s.listener = l
	s.server = &http.Server{
		Handler: s.Router, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.opened.Inc()
			case http.StateClosed, http.StateHijacked:
				s.opened.Dec()
			}
		},
	}
	return nil
}

// URL is where the server listens, after Listen.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Serve answers until ctx ends: then /readyz says no for the shutdown delay, and requests in flight are finished
// within grace.
func (s *Server) Serve(ctx context.Context, grace time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(s.listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve HTTP on %s: %w", s.cfg.Address, err)
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	wait := time.NewTimer(s.cfg.ShutdownDelay)
	defer wait.Stop()
	<-wait.C
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := s.server.Shutdown(stop); err != nil {
		_ = s.server.Close() // streams such as server-sent events never end by themselves
	}
	<-done
	return nil
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if s.stopping.Load() {
		text(w, http.StatusServiceUnavailable, "stopping\n")
		return
	}
	s.mu.Lock()
	names := make([]string, 0, len(s.checks))
	for n := range s.checks {
		names = append(names, n)
	}
	checks := s.checks
	s.mu.Unlock()
	slices.Sort(names)
	status, body := http.StatusOK, strings.Builder{}
	for _, n := range names {
		if err := checks[n](); err != nil {
			status = http.StatusServiceUnavailable
			fmt.Fprintf(&body, "%s: not ready: %v\n", n, err)
		} else {
			fmt.Fprintf(&body, "%s: ready\n", n)
		}
	}
	text(w, status, body.String())
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // the client has gone: nobody to tell
}

// recovered turns a panic of a handler into a 500 that tells nothing, and a log line that tells where.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(v) // net/http's own way to end a connection
				}
				s.log.ErrorContext(r.Context(), "a handler panicked: this is a defect", "method", r.Method, "path", chi.RouteContext(r.Context()).RoutePattern(), "panic", fmt.Sprintf("%T", v))
				Problem(w, http.StatusInternalServerError, "an error of ours; the server's log tells more")
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func traced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(telemetry.WithTrace(r.Context(), r.Header.Get(telemetry.TraceParent))))
	})
}

// Compressed is the middleware for pages and larger answers.
func Compressed() func(http.Handler) http.Handler {
	return middleware.Compress(5, "text/html", "text/css", "text/javascript", "application/json", "text/csv", "image/svg+xml")
}
