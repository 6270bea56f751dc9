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
	"github.com/millrace-io/millrace/schemas"
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
		Commands: []app.Command{s.check(), s.plan(), s.status(version), s.verify(version), s.reconcile(version), s.snapshot(version), s.pause(version),
			s.resume(version), s.reset(version), s.uninstall(version)},
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

func (s *settings) verify(version string) app.Command {
	o := VerifyOptions{Sample: 1, Keys: 20}
	return app.Command{Use: "verify [TABLE...]", Args: cobra.ArbitraryArgs,
		Short: "Compare tables with their topics while capture goes on, and name the keys that differ (exit code 3)",
		Long: "verify reads the tables and folds their topics, compares hashes of the rows by key, and settles what looks different at a\n" +
			"position that both have in common: so changes that are made meanwhile are no differences. It writes nothing, and needs room\n" +
			"for about 100 bytes a row in cdc.spill_dir. Tables that are stopped or being read are shown as incomplete (exit code 3).\n\n" +
			"Example: cdc verify public.orders --rate 50000",
		Flags: func(c *cobra.Command) {
			c.Flags().IntVar(&o.Rate, "rate", o.Rate, "rows a second that the source is read with at most; 0 for no limit")
			c.Flags().Float64Var(&o.Sample, "sample", o.Sample, "share of the keys that is compared, such as 0.1")
			c.Flags().IntVar(&o.Keys, "keys", o.Keys, "keys that are named at most for each table; 0 for all")
			c.Flags().BoolVar(&o.JSON, "json", o.JSON, "write JSON")
		},
		Run: func(ctx context.Context, env app.Env, tables []string) error {
			service, err := s.service(env, version)
			if err != nil {
				return err
			}
			o.Tables = tables
			return service.Verify(ctx, env.Out, o)
		}}
}

func (s *settings) reconcile(version string) app.Command {
	o := FilesOptions{MaxDeletes: 0.5, Keys: 20}
	c := s.ask(version, app.Command{Use: "reconcile [TABLE...]", Args: cobra.ArbitraryArgs,
		Short: "Make topics equal to the tables, or to an export of them, writing only what differs",
		Long: "reconcile folds the topics and compares them with the tables, all that are captured or those named; what differs is read again\n" +
			"beside the stream and written, and what the tables do not have any more is deleted.\n\n" +
			"With --from-files the rows are those of an export, for times when the replica is away: files <schema>.<table>*.csv, .ndjson or\n" +
			".json, with .gz if compressed, in a directory or a bucket. Stop cdc before. All files are read and found good before anything\n" +
			"is written; the next `cdc run` compares the same tables with the source.\n\n" +
			"Example: cdc reconcile --from-files s3://exports/2024-05-01 --dry-run",
		Flags: func(c *cobra.Command) {
			c.Flags().StringVar(&o.From, "from-files", o.From, "directory or s3://bucket/prefix of the export")
			c.Flags().BoolVar(&o.DryRun, "dry-run", o.DryRun, "of files: say what would be written, and write nothing (exit code 3)")
			c.Flags().Float64Var(&o.MaxDeletes, "max-deletes", o.MaxDeletes, "of files: share of a table's rows that they may delete")
			c.Flags().IntVar(&o.Keys, "keys", o.Keys, "of files: keys that a dry run names at most for each table; 0 for all")
		},
	}, func(_ *cobra.Command, q *schemas.CaptureRequest) error {
		if o.DryRun {
			return errors.New("--dry-run is for --from-files; `cdc verify` says what differs from the source")
		}
		q.Kind = schemas.CaptureReconcile
		return nil
	})
	online := c.Run
	c.Run = func(ctx context.Context, env app.Env, tables []string) error {
		if o.From == "" {
			return online(ctx, env, tables)
		}
		service, err := s.service(env, version)
		if err != nil {
			return err
		}
		o.Tables = tables
		return service.ReconcileFiles(ctx, env.Out, o)
	}
	return c
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
