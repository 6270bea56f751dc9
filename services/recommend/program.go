package recommend

import (
	"context"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
)

// settings are the sections that the program reads.
type settings struct {
	app.Common `yaml:",inline"`
	Kafka      kafka.Config `yaml:"kafka"`
	Registry   avro.Config  `yaml:"registry"`
	Recommend  Config       `yaml:"recommend"`
}

// Program is the recommend binary.
func Program(version string) app.Program {
	set := &settings{Common: app.DefaultCommon(), Kafka: kafka.DefaultConfig(), Registry: avro.DefaultConfig(), Recommend: DefaultConfig()}
	return app.Program{
		Name: "recommend", Version: version, Short: "Answer what to show a shopper",
		Long: "recommend answers GET and POST /v1/recommendations and GET /v1/products/{code}/similar from memory: it follows the\n" +
			"catalogue, the orders and what shoppers do, and records every answer.\n\n  recommend run --config millrace.yaml",
		Settings: set,
		Build: func(_ context.Context, rt *app.Runtime) error {
			registry, err := avro.NewRegistry(set.Registry)
			if err != nil {
				return err
			}
			s, err := New(set.Recommend, Deps{Log: rt.Log, Metrics: rt.Metrics, Kafka: set.Kafka, Registry: registry})
			if err != nil {
				return err
			}
			rt.Add("recommend", s)
			rt.OnStop(s.Close)
			return nil
		},
	}
}
