package enrich

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
)

func quarantineCommand(set *settings) app.Command {
	return app.Command{Use: "quarantine", Short: "Look at what was refused", Commands: []app.Command{
		{Use: "list", Short: "List all entries, of every stage", Args: cobra.NoArgs,
			Run: func(ctx context.Context, env app.Env, _ []string) error {
				return set.eachEntry(ctx, env, func(e *schemas.Quarantined) error { return printEntry(env.Out, e) })
			}},
		{Use: "show ID", Short: "Show one entry: why it was refused and where it came from", Args: cobra.ExactArgs(1),
			Long: `Shows one entry by its id, or the beginning of it. What the input was is sealed; --payload opens it with privacy.key and
prints its key, headers and value, which may hold personal data.`,
			Flags: func(c *cobra.Command) { c.Flags().Bool("payload", false, "open and print the input itself") },
			Run: func(ctx context.Context, env app.Env, args []string) error {
				payload, err := env.Command.Flags().GetBool("payload")
				if err != nil {
					return err
				}
				return set.showEntry(ctx, env, args[0], payload)
			}},
	}}
}

func (set *settings) showEntry(ctx context.Context, env app.Env, id string, payload bool) error {
	_, keys, err := set.open()
	if err != nil {
		return err
	}
	found := map[string]*schemas.Quarantined{}
	err = set.eachEntry(ctx, env, func(e *schemas.Quarantined) error {
		if strings.HasPrefix(e.QuarantineID, id) {
			found[e.QuarantineID] = e
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%d entries have an id that begins with %s; `enrich quarantine list` shows them", len(found), id)
	}
	for _, e := range found {
		if err := printEntry(env.Out, e); err != nil || !payload {
			return err
		}
		src, err := quarantine.Open(keys, e)
		if err != nil {
			return err
		}
		return printPayload(env.Out, src)
	}
	return nil
}

func printEntry(w io.Writer, e *schemas.Quarantined) error {
	_, err := fmt.Fprintf(w, "%s  %s  %s  %s  %s/%d@%d", e.QuarantineID, e.FirstFailedAt.UTC().Format(time.RFC3339), e.Stage, e.Class,
		e.SourceTopic, e.SourcePartition, e.SourceOffset)
	if err == nil && e.EventID != "" {
		_, err = fmt.Fprintf(w, "  event %s", e.EventID)
	}
	for _, f := range e.Errors {
		if err == nil {
			_, err = fmt.Fprintf(w, "\n    %s %s: expected %s", f.Path, f.Code, f.Expected)
		}
	}
	if err == nil {
		_, err = fmt.Fprintln(w)
	}
	return err
}

func printPayload(w io.Writer, src quarantine.Source) error {
	_, err := fmt.Fprintf(w, "    key      %s\n", readable(src.Key))
	for _, h := range src.Headers {
		if err == nil {
			_, err = fmt.Fprintf(w, "    header   %s: %s\n", h.Key, readable(h.Value))
		}
	}
	if err == nil {
		_, err = fmt.Fprintf(w, "    value    %s\n", readable(src.Value))
	}
	return err
}

// readable is text as it is, quoted where it could disturb a terminal, and anything else in hexadecimal.
func readable(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case utf8.Valid(b) && !strings.ContainsRune(string(b), 0):
		return fmt.Sprintf("%q", b)
	default:
		return hex.EncodeToString(b)
	}
}

// eachEntry reads the quarantine topic from its start to the end that it has now.
func (set *settings) eachEntry(ctx context.Context, env app.Env, f func(*schemas.Quarantined) error) error {
	registry, err := avro.NewRegistry(set.Registry)
	if err != nil {
		return err
	}
	dec, err := avro.NewDecoder(registry, schemas.Latest(schemas.Quarantine))
	if err != nil {
		return err
	}
	client, err := set.Kafka.Client("enrich-quarantine", env.Runtime.Log, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := set.Kafka.CheckReachable(ctx, client); err != nil {
		return err
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	follower := kafka.NewFollower(set.Kafka, "enrich-quarantine", env.Runtime.Log, func(ctx context.Context, records []*kgo.Record) error {
		for _, r := range records {
			var e schemas.Quarantined
			if err := dec.Decode(ctx, r.Value, &e); err != nil {
				return fmt.Errorf("quarantine, partition %d, offset %d: %w", r.Partition, r.Offset, err)
			}
			if err := f(&e); err != nil {
				return err
			}
		}
		return nil
	}, set.Kafka.Name(schemas.Quarantine))
	ended := make(chan error, 1)
	go func() { ended <- follower.Run(ctx) }()
	select {
	case err := <-ended:
		return errors.Join(err, ctx.Err())
	case <-follower.CaughtUp():
		done()
		return <-ended
	}
}
