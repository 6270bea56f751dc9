package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/services/cdc/internal/plan"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

// PlanRequest is a change of the source's schema to rehearse.
type PlanRequest struct {
	Script string        // SQL
	URL    config.Secret // of the scratch server
	JSON   bool          // write the report for programs
}

// Plan rehearses a change of the source's schema on a scratch server, and writes to out what it will do to the topics and
// their readers. Of the source only the catalog is read; in the registry nothing is registered. The error wraps
// app.ErrDifferences when something breaks, and is an app.UsageError when the SQL is at fault.
func Plan(ctx context.Context, out io.Writer, cfg Config, source SourceConfig, registry *avro.Registry, name func(string) string, req PlanRequest) error {
	rules, err := cfg.policy()
	if err != nil {
		return fmt.Errorf("cdc.%w", err)
	}
	consumers, err := cfg.consumers()
	if err != nil {
		return fmt.Errorf("cdc.%w", err)
	}
	conn, err := connectSQL(ctx, source, "millrace-cdc-plan")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	system, err := identify(ctx, source)
	if err != nil {
		return err
	}
	f := &factory{name: name}
	report, err := plan.Run(ctx, plan.Request{Source: conn, System: system, Scratch: req.URL.Reveal(), Publication: cfg.Publication, Script: req.Script,
		Policy: rules, Options: cfg.options(), Form: cfg.form(), Registry: registry, Incompatible: avro.ErrIncompatible, Topic: f.topicOf, Consumers: consumers})
	if errors.Is(err, plan.ErrScript) {
		return &app.UsageError{Err: err}
	}
	if err != nil {
		return err
	}
	if req.JSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		err = report.Print(out)
	}
	if err == nil && report.Breaks {
		err = fmt.Errorf("%w: the change breaks something", app.ErrDifferences)
	}
	return err
}

// identify is the source's system identifier.
func identify(ctx context.Context, source SourceConfig) (string, error) {
	conn, err := replica.Connect(ctx, source.URL.Reveal(), "millrace-cdc-plan")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	system, err := conn.Identify(ctx)
	return system.ID, err
}

// plan is the command.
func (s *settings) plan() app.Command {
	return app.Command{Use: "plan CHANGE.sql", Short: "Rehearse an announced change of the source's schema, and tell what it breaks (exit code 3)",
		Long: "plan makes a scratch database like the source, with no rows, on a server that you name (cdc.scratch_url), runs the SQL there, and tells per table\n" +
			"and subject what changes, whether readers can follow, what must be read anew and which consumer notices. The scratch database is dropped in the end.\n" +
			"Of the source only the catalog is read, and nothing is registered. Exit codes: 0 nothing breaks, 2 the SQL is wrong, 3 something breaks.\n\n" +
			"Example: cdc plan --config millrace.yaml --scratch postgres://postgres@127.0.0.1:5432/postgres change.sql",
		Args: cobra.ExactArgs(1),
		Flags: func(c *cobra.Command) {
			c.Flags().String("scratch", "", "address of the scratch server, instead of cdc.scratch_url")
			c.Flags().Bool("json", false, "write the report as JSON")
		},
		Run: func(ctx context.Context, env app.Env, args []string) error {
			req, err := s.planRequest(env, args[0])
			if err != nil {
				return &app.UsageError{Err: err}
			}
			registry, err := avro.NewRegistry(s.Registry)
			if err != nil {
				return err
			}
			return Plan(ctx, env.Out, s.CDC, s.Source, registry, s.Kafka.Name, req)
		}}
}

// planRequest reads the command's flags and file; "-" is the standard input.
func (s *settings) planRequest(env app.Env, file string) (req PlanRequest, err error) {
	flags := env.Command.Flags()
	scratch, err := flags.GetString("scratch")
	if err == nil {
		req.JSON, err = flags.GetBool("json")
	}
	if err != nil {
		return req, err
	}
	if req.URL = config.Secret(scratch); scratch == "" {
		req.URL = s.CDC.ScratchURL
	}
	switch {
	case s.Source.URL == "":
		return req, errors.New("source.url is not set: write the address of the read replica, postgres://role@host:5432/database")
	case req.URL == "":
		return req, errors.New("cdc.scratch_url is not set: name a PostgreSQL server, not the source, on which a database may be made and dropped")
	}
	script, err := readFile(env, file)
	if err != nil {
		return req, fmt.Errorf("read the SQL to rehearse: %w", err)
	}
	req.Script = string(script)
	return req, nil
}

func readFile(env app.Env, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(env.Command.InOrStdin())
	}
	return os.ReadFile(file)
}
