package admin

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/schemas"
)

// lateAfter is from when on a stage counts as behind: the promise to marketing is an hour, the norm is seconds.
const lateAfter = time.Minute

// status prints the picture part by part; what does not answer is told and does not hide the rest.
func status(ctx context.Context, s *settings, env app.Env) error {
	behind := false
	cl, err := s.client(env)
	if err != nil {
		return err
	}
	defer cl.Close()
	w := tabwriter.NewWriter(env.Out, 0, 4, 2, ' ', 0)
	if err := s.Kafka.CheckReachable(ctx, cl); err != nil {
		fmt.Fprintf(w, "kafka\t%v\n", err)
		behind = true
	} else {
		behind = claims(ctx, s, env.Runtime.Log, w) || behind
		behind = groups(ctx, s, cl, w) || behind
	}
	behind = sinks(ctx, s, w) || behind
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the status: %w", err)
	}
	if behind {
		return fmt.Errorf("something is behind, stopped or away: %w", app.ErrDifferences)
	}
	return nil
}

// claims shows the newest claim of each stage.
func claims(ctx context.Context, s *settings, log *slog.Logger, w io.Writer) (behind bool) {
	latest, err := readClaims(ctx, s, log)
	if err != nil {
		fmt.Fprintf(w, "progress\t%v\n", err)
		return true
	}
	fmt.Fprintf(w, "STAGE\tCOMPLETE THROUGH\tAGE\tSOURCE POSITION\tNOTE\n")
	for _, key := range sortedKeys(latest) {
		c := latest[key]
		age := time.Since(c.ValidThrough).Round(time.Second)
		note := ""
		if !c.Fresh {
			note = "the standby has not heard from its primary in the last 10 s"
		}
		if len(c.Incomplete) > 0 {
			note = "stopped tables: " + strings.Join(c.Incomplete, ", ") + "; see `cdc status`"
			behind = true
		}
		if age > lateAfter {
			behind = true
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", key, c.ValidThrough.UTC().Format(time.RFC3339), age, lsn(c.SourceLSN), note)
	}
	return behind
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// lsn is a position as PostgreSQL prints it.
func lsn(v int64) string { return fmt.Sprintf("%X/%X", uint64(v)>>32, uint32(v)) }

// readClaims folds the progress topic up to its present end.
func readClaims(ctx context.Context, s *settings, log *slog.Logger) (map[string]schemas.Claim, error) {
	reg, err := avro.NewRegistry(s.Registry)
	if err != nil {
		return nil, err
	}
	dec, err := avro.NewDecoder(reg, schemas.Latest(schemas.Progress))
	if err != nil {
		return nil, err
	}
	out := map[string]schemas.Claim{}
	topic := s.Kafka.Name(schemas.Progress)
	follower := kafka.NewFollower(s.Kafka, "admin", log, func(ctx context.Context, records []*kgo.Record) error {
		for _, r := range records {
			var c schemas.Claim
			if r.Value == nil {
				delete(out, string(r.Key))
			} else if err := dec.Decode(ctx, r.Value, &c); err != nil {
				return fmt.Errorf("read %s: %w", topic, err)
			} else {
				out[string(r.Key)] = c
			}
		}
		return nil
	}, topic)
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- follower.Run(ctx) }()
	select {
	case <-follower.CaughtUp():
		cancel()
		return out, <-done
	case err := <-done:
		if err == nil {
			err = fmt.Errorf("topic %s cannot be read whole in 15 s; `admin topics apply` makes it if it is missing", topic)
		}
		return nil, err
	}
}

// groups shows the lag of each consumer group.
func groups(ctx context.Context, s *settings, cl *kgo.Client, w io.Writer) (behind bool) {
	adm := kadm.NewClient(cl)
	lags, err := adm.Lag(ctx)
	if err != nil {
		fmt.Fprintf(w, "groups\t%v\n", err)
		return true
	}
	fmt.Fprintf(w, "\nGROUP\tSTATE\tMEMBERS\tLAG (records)\n")
	for _, g := range lags.Sorted() {
		if !strings.HasPrefix(g.Group, s.Kafka.TopicPrefix) {
			continue
		}
		if g.Error() != nil {
			fmt.Fprintf(w, "%s\t%v\n", g.Group, g.Error())
			behind = true
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", g.Group, g.State, len(g.Members), g.Lag.Total())
	}
	return behind
}

// sinks shows how fresh the totals are.
func sinks(ctx context.Context, s *settings, w io.Writer) (behind bool) {
	fmt.Fprintf(w, "\nSINK\tCOMPLETE THROUGH\tAGE\tSOURCE POSITION\tNOTE\n")
	pool, err := postgres.Open(ctx, s.Sales.URL, "admin", "sales database (sales.url)")
	if err != nil {
		fmt.Fprintf(w, "postgres\t%v\n", err)
		return true
	}
	defer pool.Close()
	rows, err := pool.Query(ctx, `SELECT sink, valid_through, coalesce(source_lsn::text, ''), coalesce(array_to_string(incomplete, ', '), '') FROM millrace.sales_progress ORDER BY sink`)
	if err != nil {
		fmt.Fprintf(w, "postgres\t%v; `aggregate run` makes the tables\n", err)
		return true
	}
	var sink, position, incomplete string
	var through time.Time
	tag, err := pgx.ForEachRow(rows, []any{&sink, &through, &position, &incomplete}, func() error {
		age, note := time.Since(through).Round(time.Second), ""
		if incomplete != "" {
			note = "without stopped tables: " + incomplete
		}
		behind = behind || age > lateAfter || incomplete != ""
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", sink, through.UTC().Format(time.RFC3339), age, position, note)
		return nil
	})
	if err != nil {
		fmt.Fprintf(w, "postgres\t%v\n", err)
		return true
	}
	if tag.RowsAffected() == 0 {
		fmt.Fprintf(w, "postgres\tnothing is complete yet\n")
		return true
	}
	return behind
}
