package demo

import (
	"context"

	"github.com/millrace-io/millrace/pkg/app"
)

type settings struct {
	app.Common `yaml:",inline"`
	Demo       Config `yaml:"demo"`
}

// Program is the binary.
func Program(version string) app.Program {
	s := &settings{Common: app.DefaultCommon(), Demo: DefaultConfig()}
	return app.Program{
		Name: "demo", Version: version, Settings: s,
		Short: "The demo store: a source database with live orders, and a storefront page",
		Long: `demo fills a PostgreSQL database with a store of sixty days, keeps it alive with orders, corrections and browsing, and
serves the storefront at /shop. It is the only part of Millrace that can write to the source, and no part of a real installation.

  demo run --demo-url postgres://postgres@127.0.0.1:5432/store --demo-rate 2`,
		Build: func(_ context.Context, rt *app.Runtime) error {
			service, err := New(s.Demo, Deps{Log: rt.Log, Metrics: rt.Metrics, Progress: func(step string, done, total int64) {
				rt.Log.Info("setting up the store", "step", step, "done", done, "total", total)
			}})
			if err != nil {
				return &app.UsageError{Err: err}
			}
			rt.Add("demo", service)
			return nil
		},
	}
}
