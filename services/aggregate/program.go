package aggregate

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/services/aggregate/internal/ledger"
)

type settings struct {
	app.Common `yaml:",inline"`
	Kafka      kafka.Config         `yaml:"kafka"`
	Registry   avro.Config          `yaml:"registry"`
	Sales      postgres.SalesConfig `yaml:"sales"`
	Privacy    privacy.Config       `yaml:"privacy"`
	Aggregate  Config               `yaml:"aggregate"`
}

// Program is the binary.
func Program(version string) app.Program {
	s := &settings{Common: app.DefaultCommon(), Kafka: kafka.DefaultConfig(), Registry: avro.DefaultConfig(), Aggregate: DefaultConfig()}
	return app.Program{
		Name: name, Version: version, Settings: s,
		Short: "Keep hourly sales in PostgreSQL",
		Long: `aggregate reads orders, order lines and products from Kafka and keeps a ledger and hourly totals in the sales database, which it
creates and migrates itself. Any number of instances share the partitions.

  aggregate run                    work until stopped
  aggregate verify                 compare the ledger with the totals
  aggregate reset-offsets --yes    read partitions again that were stopped because their position did not fit the topic`,
		Build:    func(_ context.Context, rt *app.Runtime) error { return build(rt, s) },
		Commands: []app.Command{verifyCommand(s), resetCommand(s)},
	}
}

func build(rt *app.Runtime, s *settings) error {
	registry, err := avro.NewRegistry(s.Registry)
	if err != nil {
		return err
	}
	keys, err := privacy.NewKeys(s.Privacy)
	if err != nil {
		return &app.UsageError{Err: err}
	}
	service, err := New(s.Aggregate, Deps{Log: rt.Log, Metrics: rt.Metrics, Kafka: s.Kafka, Registry: registry, Sales: s.Sales, Keys: keys})
	if err != nil {
		return &app.UsageError{Err: err}
	}
	rt.Add(name, service)
	return nil
}

func openLedger(ctx context.Context, s *settings, env app.Env) (*ledger.Ledger, error) {
	if s.Sales.URL == "" {
		return nil, &app.UsageError{Err: errors.New("sales.url is not set: write the address of the sales database, postgres://user@host:5432/database")}
	}
	return ledger.Open(ctx, ledger.Options{URL: s.Sales.URL, Owner: s.Kafka.Instance(), Log: env.Runtime.Log, ZombieAfter: s.Aggregate.ClaimWait})
}

// shown is how many differences of each kind verify prints.
const shown = 20

func verifyCommand(s *settings) app.Command {
	return app.Command{Use: "verify", Short: "Compare the ledger with the totals (exit code 3 and the differences if they differ)",
		Long: `verify compares, in one snapshot and while instances go on working: what each order and line counts with what its image says,
and the sum of what they count with the totals of every quarter of an hour.`,
		Run: func(ctx context.Context, env app.Env, _ []string) error {
			l, err := openLedger(ctx, s, env)
			if err != nil {
				return err
			}
			defer l.Close()
			v, err := l.Verify(ctx, shown)
			if err != nil {
				return err
			}
			for _, d := range v.Differences {
				fmt.Fprintln(env.Out, d.Where+": "+d.What)
			}
			if v.Found > 0 {
				return fmt.Errorf("%d places where the ledger does not add up, %d of them shown: %w", v.Found, len(v.Differences), app.ErrDifferences)
			}
			fmt.Fprintf(env.Out, "%d orders, %d lines (%d wait for their order's header), %d cells: all equal\n", v.Orders, v.Lines, v.Waiting, v.Cells)
			return nil
		}}
}

func resetCommand(s *settings) app.Command {
	var yes, all bool
	return app.Command{Use: "reset-offsets", Short: "Read stopped partitions (--all: every partition) again from their start",
		Long: `reset-offsets sets positions to the start of their partitions and lets stopped ones go on; running instances notice. Records that
are in the ledger already change nothing. Rows that the source deleted while the topic was lost are not noticed by it.`,
		Flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&yes, "yes", false, "really do it")
			c.Flags().BoolVar(&all, "all", false, "every partition, not only the stopped ones")
		},
		Run: func(ctx context.Context, env app.Env, _ []string) error {
			if !yes {
				return &app.UsageError{Err: errors.New("this reads partitions again from their start, which takes a while; say --yes to do it")}
			}
			l, err := openLedger(ctx, s, env)
			if err != nil {
				return err
			}
			defer l.Close()
			parts, err := l.Reset(ctx, !all)
			if err != nil {
				return err
			}
			for _, p := range parts {
				fmt.Fprintf(env.Out, "%s/%d is read again from its start\n", p.Topic, p.Part)
			}
			if len(parts) == 0 {
				fmt.Fprintln(env.Out, "no partition is stopped: nothing to do")
			}
			return nil
		}}
}
