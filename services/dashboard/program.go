package dashboard

import (
	"context"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/postgres"
)

// settings are the sections that the program reads.
type settings struct {
	app.Common `yaml:",inline"`
	Sales      postgres.SalesConfig `yaml:"sales"`
	Dashboard  Config               `yaml:"dashboard"`
}

// Program is the dashboard binary.
func Program(version string) app.Program {
	s := &settings{Common: app.DefaultCommon(), Dashboard: DefaultConfig()}
	return app.Program{
		Name: "dashboard", Version: version, Settings: s,
		Short: "Show sales by hour, seconds old, as a page and an API",
		Long: `dashboard serves the sales page at / and the API behind it (GET /v1/sales, /v1/sales/live, /v1/freshness and more;
/docs describes them). It only reads the sales database, whose tables aggregate makes and fills.

  dashboard run --sales-url postgres://reader@127.0.0.1:5435/millrace`,
		Build: func(_ context.Context, rt *app.Runtime) error {
			service, err := New(s.Dashboard, Deps{Log: rt.Log, Metrics: rt.Metrics, Sales: s.Sales})
			if err != nil {
				return &app.UsageError{Err: err}
			}
			rt.Add("dashboard", service)
			return nil
		},
	}
}
