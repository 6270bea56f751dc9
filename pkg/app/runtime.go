// Package app is the one lifecycle of every program: start, run, ready, drain, stop. The first failure of any part
// stops all parts; the first signal drains them, a second one ends the process at once.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/httpapi"
)

// Service is one long-running part of a process.
type Service interface {
	// Run works until ctx ends, then finishes or gives back what it has in hand and returns nil. Any error stops
	// the process. It is called once.
	Run(ctx context.Context) error
	// Ready is nil when the service does its work, else the reason why not. It is quick and may be called at any time.
	Ready() error
}

// Router is implemented by services with plain HTTP handlers.
type Router interface{ Routes(r chi.Router) }

// Operator is implemented by services with described operations, which appear in the OpenAPI document.
type Operator interface{ Operations(api huma.API) }

// Runtime is what a process is made of. Build it, add services, then Run.
type Runtime struct {
	Log     *slog.Logger
	Metrics *prometheus.Registry
	HTTP    *httpapi.Server

	services []named
	closers  []func(context.Context) error
	onReady  func()
	grace    time.Duration
}

type named struct {
	name    string
	service Service
}

// Add adds a service under its name; its routes and its readiness are served from then on.
func (rt *Runtime) Add(name string, s Service) {
	rt.services = append(rt.services, named{name, s})
	if r, ok := s.(Router); ok {
		r.Routes(rt.HTTP.Router)
	}
	if o, ok := s.(Operator); ok {
		o.Operations(rt.HTTP.API)
	}
	rt.HTTP.AddCheck(name, s.Ready)
}

// OnStop adds something to close after all services have ended, the last added first.
func (rt *Runtime) OnStop(close func(context.Context) error) { rt.closers = append(rt.closers, close) }

// OnReady is called once, when every service is ready for the first time.
func (rt *Runtime) OnReady(f func()) { rt.onReady = f }

// Run serves until ctx ends or a part fails, then drains and closes everything.
func (rt *Runtime) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return rt.HTTP.Serve(ctx, rt.grace) })
	for _, n := range rt.services {
		group.Go(func() error {
			rt.Log.Debug("service starts", "service", n.name)
			err := n.service.Run(ctx)
			if err == nil && ctx.Err() == nil {
				err = errors.New("ended by itself")
			}
			if err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			rt.Log.Debug("service stopped", "service", n.name)
			return nil
		})
	}
	if rt.onReady != nil {
		group.Go(func() error { rt.awaitReady(ctx); return nil })
	}
	return group.Wait()
}

func (rt *Runtime) awaitReady(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if !slices.ContainsFunc(rt.services, func(n named) bool { return n.service.Ready() != nil }) {
			rt.onReady()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// close runs the closers in reverse order and joins their errors.
func (rt *Runtime) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), rt.grace)
	defer cancel()
	var errs []error
	for _, c := range slices.Backward(rt.closers) {
		errs = append(errs, c(ctx))
	}
	return errors.Join(errs...)
}
