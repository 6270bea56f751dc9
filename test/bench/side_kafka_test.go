//go:build bench

package bench

import (
	"bytes"
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
)

// client has the options that every service has.
func client(brokers []string, role string, more ...kgo.Opt) (*kgo.Client, error) {
	cfg := kafka.DefaultConfig()
	cfg.Brokers, cfg.InstanceID = brokers, "bench"
	return cfg.Client(role, slog.New(slog.DiscardHandler), nil, more...)
}

// relay reads records and writes the same bytes to another topic: what enrich does, without its work.
func (s side) relay(ctx context.Context) (cost, error) {
	cl, err := client(s.Brokers, "relay", kgo.ConsumeTopics(s.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return cost{}, err
	}
	defer cl.Close()
	var failed atomic.Pointer[error]
	promise := func(_ *kgo.Record, err error) {
		if err != nil {
			failed.CompareAndSwap(nil, &err)
		}
	}
	var bytes int64
	n, w := 0, stopwatch{}
	for n < s.Wanted {
		fetches := cl.PollRecords(ctx, 10_000)
		if err := fetches.Err0(); err != nil {
			return cost{}, err
		}
		if n == 0 {
			w = startWatch()
		}
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			bytes += int64(len(r.Key) + len(r.Value))
			cl.Produce(ctx, &kgo.Record{Topic: s.To, Key: r.Key, Value: r.Value}, promise)
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return cost{}, err
	}
	if err := failed.Load(); err != nil {
		return cost{}, *err
	}
	return w.cost(n, bytes), nil
}

// copyChunk is about how many bytes one COPY carries, in a transaction of its own.
const copyChunk = 1 << 20

// copy reads order lines, decodes them and puts them into one table, durably: what aggregate does, without its ledger.
func (s side) copy(ctx context.Context) (cost, error) {
	cl, err := client(s.Brokers, "copy", kgo.ConsumeTopics(s.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return cost{}, err
	}
	defer cl.Close()
	registry, err := avro.NewRegistry(avro.Config{URL: config.Secret(s.Registry)})
	if err != nil {
		return cost{}, err
	}
	decoder, err := avro.NewDecoder(registry, schemas.Latest(schemas.SalesLines))
	if err != nil {
		return cost{}, err
	}
	chunks := make(chan []byte, 4)
	group, ctx := errgroup.WithContext(ctx)
	for range 2 { // one connection leaves the second core idle
		conn, err := pgconn.Connect(ctx, s.DSN)
		if err != nil {
			return cost{}, err
		}
		group.Go(func() error {
			defer conn.Close(context.WithoutCancel(ctx))
			for chunk := range chunks {
				if _, err := conn.CopyFrom(ctx, bytes.NewReader(chunk), "COPY "+s.To+" FROM STDIN"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	var n int
	var total int64
	var w stopwatch
	group.Go(func() error {
		defer close(chunks)
		var line schemas.Line
		chunk := make([]byte, 0, copyChunk+64<<10)
		for n < s.Wanted {
			fetches := cl.PollRecords(ctx, 10_000)
			if err := fetches.Err0(); err != nil {
				return err
			}
			if n == 0 {
				w = startWatch()
			}
			for it := fetches.RecordIter(); !it.Done(); {
				r := it.Next()
				if r.Value == nil {
					continue
				}
				if err := decoder.Decode(ctx, r.Value, &line); err != nil {
					return err
				}
				chunk = appendLine(chunk, &line)
				n++
				total += int64(len(r.Value))
			}
			if len(chunk) >= copyChunk || n >= s.Wanted {
				select {
				case chunks <- chunk:
				case <-ctx.Done():
					return ctx.Err()
				}
				chunk = make([]byte, 0, copyChunk+64<<10)
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return cost{}, err
	}
	return w.cost(n, total), nil
}

// linesTable is the table of copy; key is its constraint.
func linesTable(name, key string) string {
	return `CREATE TABLE ` + name + ` (line_id text COLLATE "C" ` + key + `, order_id text COLLATE "C" NOT NULL, seq bigint NOT NULL, ref_seq bigint NOT NULL,
		gone boolean NOT NULL, product_code text COLLATE "C" NOT NULL, units bigint NOT NULL, unit_price numeric NOT NULL, changed_at timestamptz NOT NULL)`
}

func appendLine(b []byte, l *schemas.Line) []byte {
	b = append(append(b, l.LineID...), '\t')
	b = append(append(b, l.OrderID...), '\t')
	b = append(strconv.AppendInt(b, l.Seq, 10), '\t')
	b = append(strconv.AppendInt(b, l.RefSeq, 10), '\t')
	b = append(strconv.AppendBool(b, l.Gone), '\t')
	b = append(append(b, l.ProductCode...), '\t')
	b = append(strconv.AppendInt(b, l.Units, 10), '\t')
	b = append(append(b, l.UnitPrice...), '\t')
	b = l.ChangedAt.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '\n')
}
