package enrich

import (
	"context"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
)

// settings is the root of the program's configuration.
type settings struct {
	app.Common `yaml:",inline"`
	Kafka      kafka.Config   `yaml:"kafka"`
	Registry   avro.Config    `yaml:"registry"`
	Privacy    privacy.Config `yaml:"privacy"`
	Enrich     Config         `yaml:"enrich"`
}

// Program is the binary.
func Program(version string) app.Program {
	set := &settings{Common: app.DefaultCommon(), Kafka: kafka.DefaultConfig(), Registry: avro.DefaultConfig(), Enrich: DefaultConfig()}
	return app.Program{
		Name: "enrich", Version: version, Settings: set,
		Short: "Turn the store's rows into orders, lines and products, joined with customers, products and regions",
		Long: `Reads the topics store.* that cdc writes and activity.raw that collect writes, joins the reference data and writes
sales.orders, sales.lines, sales.products and activity.enriched. What cannot be taken goes to quarantine.

  enrich run --config millrace.yaml
  enrich quarantine list --config millrace.yaml`,
		Build: func(_ context.Context, rt *app.Runtime) error {
			registry, keys, err := set.open()
			if err != nil {
				return err
			}
			s, err := New(set.Enrich, Deps{Log: rt.Log, Metrics: rt.Metrics, Kafka: set.Kafka, Registry: registry, Keys: keys})
			if err != nil {
				return &app.UsageError{Err: err}
			}
			rt.Add("enrich", s)
			return nil
		},
		Commands: []app.Command{quarantineCommand(set)},
	}
}

func (set *settings) open() (*avro.Registry, *privacy.Keys, error) {
	registry, err := avro.NewRegistry(set.Registry)
	if err != nil {
		return nil, nil, err
	}
	keys, err := privacy.NewKeys(set.Privacy)
	if err != nil {
		return nil, nil, &app.UsageError{Err: err}
	}
	return registry, keys, nil
}
