// Package admin is the operator's command: topics and schemas applied as declared, keys made, and one picture of lag
// and freshness over all stages.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/schemas"
)

type settings struct {
	app.Common `yaml:",inline"`
	Kafka      kafka.Config         `yaml:"kafka"`
	Registry   avro.Config          `yaml:"registry"`
	Sales      postgres.SalesConfig `yaml:"sales"`
}

// Program is the binary.
func Program(version string) app.Program {
	s := &settings{Common: app.DefaultCommon(), Kafka: kafka.DefaultConfig(), Registry: avro.DefaultConfig()}
	return app.Program{
		Name: "admin", Version: version, Settings: s,
		Short: "Look after Millrace: topics, schemas, keys, and what is where",
		Long: `admin applies what is declared (topics, schemas), makes keys, and shows lag and freshness of every stage.

  admin status                     how far every stage is, and how fresh the totals are
  admin topics apply               create missing topics, mend settings
  admin schemas apply              register the schemas under FULL_TRANSITIVE compatibility
  admin keys init /keys/privacy    make the key for tokens and sealing, once`,
		Commands: []app.Command{
			{Use: "status", Short: "Show lag and freshness of every stage (exit code 3 when something is behind or stopped)",
				Run: func(ctx context.Context, env app.Env, _ []string) error { return status(ctx, s, env) }},
			{Use: "topics", Short: "The declared topics", Commands: []app.Command{
				{Use: "apply", Short: "Create missing topics and mend settings; nothing is ever deleted",
					Run: func(ctx context.Context, env app.Env, _ []string) error { return applyTopics(ctx, s, env) }},
				{Use: "list", Short: "Show the declarations",
					Run: func(_ context.Context, env app.Env, _ []string) error { return listTopics(env) }},
			}},
			{Use: "schemas", Short: "The released schemas", Commands: []app.Command{
				{Use: "apply", Short: "Register them, oldest first, and hold each subject to FULL_TRANSITIVE",
					Run: func(ctx context.Context, env app.Env, _ []string) error { return applySchemas(ctx, s, env) }},
			}},
			{Use: "keys", Short: "Keys for tokens and sealing", Commands: []app.Command{keysInit()}},
		},
	}
}

func keysInit() app.Command {
	mode := "0640"
	return app.Command{Use: "init FILE", Short: "Make a new random key unless the file exists", Args: cobra.ExactArgs(1),
		Long: "Whoever has this key can link tokens to persons and open quarantined records: keep it where only cdc, collect, enrich and aggregate can read it.",
		Flags: func(c *cobra.Command) {
			c.Flags().StringVar(&mode, "mode", mode, "permissions of the file, octal")
		},
		Run: func(_ context.Context, env app.Env, args []string) error {
			bits, err := strconv.ParseUint(mode, 8, 12)
			if err != nil {
				return &app.UsageError{Err: fmt.Errorf("--mode %q is not octal, for example 0640", mode)}
			}
			wrote, err := privacy.InitKeyFile(args[0], fs.FileMode(bits)&os.ModePerm)
			switch {
			case err != nil:
				return err
			case wrote:
				fmt.Fprintf(env.Out, "%s: new key\n", args[0])
			default:
				fmt.Fprintf(env.Out, "%s: there already, left as it is\n", args[0])
			}
			return nil
		}}
}

func (s *settings) client(env app.Env) (*kgo.Client, error) {
	return s.Kafka.Client("admin", env.Runtime.Log, nil)
}

func applyTopics(ctx context.Context, s *settings, env app.Env) error {
	cl, err := s.client(env)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := s.Kafka.CheckReachable(ctx, cl); err != nil {
		return err
	}
	applied, err := s.Kafka.EnsureTopics(ctx, cl, schemas.Topics()...)
	if err != nil {
		return err
	}
	var problems []error
	for _, a := range applied {
		switch {
		case a.Problem != "":
			problems = append(problems, fmt.Errorf("%s %s", a.Topic, a.Problem))
		case a.Created:
			fmt.Fprintf(env.Out, "%s: created\n", a.Topic)
		default:
			fmt.Fprintf(env.Out, "%s: as declared\n", a.Topic)
		}
	}
	if len(problems) > 0 {
		return errors.Join(append(problems, app.ErrDifferences)...)
	}
	return nil
}

func listTopics(env app.Env) error {
	for _, t := range schemas.Topics() {
		policy := "delete after " + t.Retention.String()
		if t.Compact {
			policy = "compact, tombstones kept " + t.Retention.String() + ", nothing compacted before " + t.MinLag.String()
		}
		fmt.Fprintf(env.Out, "%-24s %d partitions  %s\n", t.Name, t.Partitions, policy)
	}
	fmt.Fprintf(env.Out, "%-24s made by cdc from the source's catalog, %d partitions, compact\n", schemas.StorePrefix+"<schema>.<table>", schemas.Partitions)
	return nil
}

func applySchemas(ctx context.Context, s *settings, env app.Env) error {
	reg, err := avro.NewRegistry(s.Registry)
	if err != nil {
		return err
	}
	for _, t := range schemas.Topics() {
		subject := schemas.Subject(s.Kafka.Name(t.Name))
		var id int
		for _, text := range schemas.Released(t.Name) {
			if id, err = registerPatiently(ctx, env, reg, subject, text); err != nil {
				return err
			}
		}
		if err := reg.SetCompatibility(ctx, subject, schemas.Compatibility); err != nil {
			return err
		}
		fmt.Fprintf(env.Out, "%s: version %d, id %d\n", subject, len(schemas.Released(t.Name)), id)
	}
	return nil
}

// patience is how long a registry that is still starting is waited for.
const patience = time.Minute

// registerPatiently tries again while the registry does not answer: in a new installation everything starts at once.
func registerPatiently(ctx context.Context, env app.Env, reg *avro.Registry, subject, text string) (int, error) {
	deadline := time.Now().Add(patience)
	for {
		id, err := reg.Register(ctx, subject, text)
		if !errors.Is(err, avro.ErrUnavailable) || time.Now().After(deadline) {
			return id, err
		}
		env.Runtime.Log.Info("waiting for the registry", "reason", err)
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
