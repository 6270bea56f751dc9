package cdc

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/schemas"
)

const asksOf = "\n\nIt asks the cdc that is running, by a request in the topic cdc.requests, and follows its answers; Kafka is all that it needs.\n" +
	"If none is running, the request is kept for the next `cdc run`."

// ask makes a command that writes a request and follows it.
func (s *settings) ask(version string, c app.Command, fill func(*cobra.Command, *schemas.CaptureRequest) error) app.Command {
	own := c.Flags
	c.Long += asksOf
	c.Flags = func(cmd *cobra.Command) {
		cmd.Flags().Bool("detach", false, "do not wait for the end")
		if own != nil {
			own(cmd)
		}
	}
	c.Run = func(ctx context.Context, env app.Env, args []string) error {
		q := schemas.CaptureRequest{Tables: args}
		if err := fill(env.Command, &q); err != nil {
			return &app.UsageError{Err: err}
		}
		detach, err := env.Command.Flags().GetBool("detach")
		if err != nil {
			return &app.UsageError{Err: err}
		}
		service, err := s.service(env, version)
		if err != nil {
			return err
		}
		return service.Ask(ctx, env.Out, q, detach)
	}
	return c
}

func (s *settings) snapshot(version string) app.Command {
	return s.ask(version, app.Command{Use: "snapshot TABLE...", Short: "Read tables again beside the stream, or some of their rows",
		Long: "snapshot writes every row of the tables, schema.table, again as it is now, or with --where those that an SQL condition selects. What\n" +
			"changes meanwhile streams on; nothing is written to the source.\n\nExample: cdc snapshot public.orders --where \"placed_at > '2025-01-01'\"",
		Args:  cobra.MinimumNArgs(1),
		Flags: func(c *cobra.Command) { c.Flags().String("where", "", "SQL condition on the rows") },
	}, func(c *cobra.Command, q *schemas.CaptureRequest) (err error) {
		q.Kind = schemas.CaptureSnapshot
		q.Where, err = c.Flags().GetString("where")
		return err
	})
}

func (s *settings) pause(version string) app.Command {
	return s.ask(version, app.Command{Use: "pause TABLE...", Short: "Stop capturing tables; the others go on",
		Long: "pause drops the changes of the tables until `cdc resume`, which reads what was missed.", Args: cobra.MinimumNArgs(1),
	}, func(_ *cobra.Command, q *schemas.CaptureRequest) error { q.Kind = schemas.CapturePause; return nil })
}

func (s *settings) resume(version string) app.Command {
	return s.ask(version, app.Command{Use: "resume TABLE...", Short: "Capture tables again that were paused or stopped, and read what they missed",
		Long: "resume lets the changes of the tables through again, reads their rows beside the stream, and deletes from their topics what the\n" +
			"tables do not have any more. For a table with rows in quarantine it reads these rows again.",
		Args: cobra.MinimumNArgs(1),
		Flags: func(c *cobra.Command) {
			c.Flags().String("as", "", "number of the topic to resume as, v2 or later, for columns that readers of the present one cannot follow")
		},
	}, func(c *cobra.Command, q *schemas.CaptureRequest) (err error) {
		q.Kind = schemas.CaptureResume
		as, err := c.Flags().GetString("as")
		if err == nil {
			q.Version, err = parseVersion(as)
		}
		return err
	})
}
