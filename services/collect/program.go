package collect

import (
	"context"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
)

// settings are the sections that the program reads.
type settings struct {
	app.Common `yaml:",inline"`
	Kafka      kafka.Config   `yaml:"kafka"`
	Registry   avro.Config    `yaml:"registry"`
	Privacy    privacy.Config `yaml:"privacy"`
	Collect    Config         `yaml:"collect"`
}

// Program is the collect binary.
func Program(version string) app.Program {
	set := &settings{Common: app.DefaultCommon(), Kafka: kafka.DefaultConfig(), Registry: avro.DefaultConfig(), Collect: DefaultConfig()}
	return app.Program{
		Name: "collect", Version: version, Short: "Take what shoppers do into Kafka",
		Long: "collect takes the storefront's activity events over HTTP (POST /v1/activity), checks them, makes tokens of\n" +
			"personal data, and answers 202 after Kafka has them.\n\n  collect run --config millrace.yaml",
		Settings: set,
		Build: func(_ context.Context, rt *app.Runtime) error {
			registry, err := avro.NewRegistry(set.Registry)
			if err != nil {
				return err
			}
			keys, err := privacy.NewKeys(set.Privacy)
			if err != nil {
				return &app.UsageError{Err: err}
			}
			s, err := New(set.Collect, Deps{Log: rt.Log, Metrics: rt.Metrics, Kafka: set.Kafka, Registry: registry, Keys: keys})
			if err != nil {
				return err
			}
			rt.Add("collect", s)
			rt.OnStop(s.Close)
			return nil
		},
	}
}
