package cdc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
)

// memoryLimit is the soft limit of the Go heap. What is held is bounded without it; garbage is collected sooner near it.
const memoryLimit = 160 << 20

// settings are the sections that the program reads.
type settings struct {
	app.Common `yaml:",inline"`
	Kafka      kafka.Config   `yaml:"kafka"`
	Registry   avro.Config    `yaml:"registry"`
	Privacy    privacy.Config `yaml:"privacy"`
	Source     SourceConfig   `yaml:"source"`
	CDC        Config         `yaml:"cdc"`
}

func (s *settings) deps(rt *app.Runtime, version string) (Deps, error) {
	registry, err := avro.NewRegistry(s.Registry)
	if err != nil {
		return Deps{}, err
	}
	keys, err := privacy.NewKeys(s.Privacy)
	if err != nil {
		return Deps{}, &app.UsageError{Err: err}
	}
	return Deps{Kafka: s.Kafka, Source: s.Source, Registry: registry, Keys: keys, Log: rt.Log, Metrics: rt.Metrics, Version: version}, nil
}

// Program is the whole binary cdc.
func Program(version string) app.Program {
	s := &settings{Common: app.DefaultCommon(), Kafka: kafka.DefaultConfig(), Registry: avro.DefaultConfig(), CDC: DefaultConfig()}
	return app.Program{
		Name: "cdc", Version: version, Short: "Capture a PostgreSQL read replica into Kafka",
		Long: "cdc reads the published tables of a PostgreSQL 16+ read replica, first whole and then change by change, into the topics\n" +
			"store.<schema>.<table>, each committed change once and in order. It writes nothing to the source but its slot on the replica.\n\n" +
			"Example: cdc check --config millrace.yaml && cdc run --config millrace.yaml",
		Settings: s,
		Build: func(_ context.Context, rt *app.Runtime) error {
			if debug.SetMemoryLimit(-1) == math.MaxInt64 { // not set by GOMEMLIMIT
				debug.SetMemoryLimit(memoryLimit)
			}
			deps, err := s.deps(rt, version)
			if err != nil {
				return err
			}
			service, err := New(s.CDC, deps)
			if err != nil {
				return &app.UsageError{Err: err}
			}
			rt.Add("cdc", service)
			return nil
		},
		Commands: []app.Command{s.check(), s.plan(), s.status(version), s.reset(version), s.uninstall(version), s.snapshot(version), s.pause(version), s.resume(version)},
	}
}

// service is for commands: it is made and not run.
func (s *settings) service(env app.Env, version string) (*Service, error) {
	deps, err := s.deps(env.Runtime, version)
	if err != nil {
		return nil, err
	}
	service, err := New(s.CDC, deps)
	if err != nil {
		return nil, &app.UsageError{Err: err}
	}
	return service, nil
}

func (s *settings) check() app.Command {
	return app.Command{Use: "check", Short: "Look whether the source can be captured from, and say what is missing (exit code 3)",
		Flags: asJSON,
		Run: func(ctx context.Context, env app.Env, _ []string) error {
			if s.Source.URL == "" {
				return &app.UsageError{Err: errors.New("source.url is not set: write the address of the read replica, postgres://role@host:5432/database")}
			}
			if err := s.CDC.Validate(); err != nil {
				return &app.UsageError{Err: fmt.Errorf("cdc.%w", err)}
			}
			run := Check
			if wantsJSON(env) {
				run = CheckJSON
			}
			return run(ctx, env.Out, s.CDC, s.Source)
		}}
}

func (s *settings) status(version string) app.Command {
	return app.Command{Use: "status", Short: "Show the position, the slot, the lag, jobs, stopped tables and gaps",
		Long:  "status shows what Kafka and the source know. If one of them does not answer, it shows what the other knows, with exit code 1.",
		Flags: asJSON,
		Run: func(ctx context.Context, env app.Env, _ []string) error {
			service, err := s.service(env, version)
			if err != nil {
				return err
			}
			if wantsJSON(env) {
				return service.StatusJSON(ctx, env.Out)
			}
			return service.Status(ctx, env.Out)
		}}
}

func (s *settings) reset(version string) app.Command {
	return app.Command{Use: "reset", Short: "Give up the slot and the position, so that the next run takes a new snapshot",
		Long: "reset drops the slot on the replica, if it is there, and writes an empty position. The topics stay: the next `cdc run` takes a\n" +
			"new snapshot, writes every row again with a higher seq, and deletes what the tables do not have any more. Stop cdc before.",
		Flags: func(c *cobra.Command) { c.Flags().Bool("yes", false, "do it") },
		Run: func(ctx context.Context, env app.Env, _ []string) error {
			yes, err := env.Command.Flags().GetBool("yes")
			if err != nil || !yes {
				return &app.UsageError{Err: fmt.Errorf("reset makes the next run read all tables again; if that is what you want: cdc reset --yes")}
			}
			service, err := s.service(env, version)
			if err != nil {
				return err
			}
			return service.Reset(ctx)
		}}
}

func (s *settings) uninstall(version string) app.Command {
	return app.Command{Use: "uninstall", Short: "Drop the slot on the replica and say what is left",
		Long: "uninstall drops the slot on the replica, so that it keeps no log any more, and says what is left: the topics in Kafka, and the\n" +
			"publication on the primary with the SQL that drops it. Stop cdc before; nothing is terminated.",
		Flags: func(c *cobra.Command) { c.Flags().Bool("yes", false, "do it") },
		Run: func(ctx context.Context, env app.Env, _ []string) error {
			yes, err := env.Command.Flags().GetBool("yes")
			if err != nil || !yes {
				return &app.UsageError{Err: fmt.Errorf("uninstall drops the slot %s; what changes from then on can only be captured by a new snapshot; if that is what you want: cdc uninstall --yes", s.CDC.Slot)}
			}
			service, err := s.service(env, version)
			if err != nil {
				return err
			}
			return service.Uninstall(ctx, env.Out)
		}}
}

func asJSON(c *cobra.Command) {
	c.Flags().Bool("json", false, "write JSON, in a documented form that is kept")
}

func wantsJSON(env app.Env) bool {
	yes, err := env.Command.Flags().GetBool("json")
	return err == nil && yes
}
