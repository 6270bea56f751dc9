package cdc

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// BenchmarkPipeline is everything between the stream's bytes and the records, without a source and without Kafka: ns and
// allocations per row.
func BenchmarkPipeline(b *testing.B) {
	for _, size := range []int{1000, 1} {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("transactions of %d rows, %d workers", size, workers), func(b *testing.B) { benchmarkPipeline(b, size, workers) })
		}
	}
}

func benchmarkPipeline(b *testing.B, size, workers int) {
	s := &script{}
	const block = 1000 // rows
	for row := 0; row < block; {
		s.begin(size)
		for range size {
			s.change(pgoutput.KindInsert, linesID, nil, wireRow(strconv.Itoa(1_000_000+row), "S18_1749", strconv.Itoa(row), "99.95", "2026-01-02 03:04:05.678+00", "some text of a line"))
			row++
		}
		s.commit()
	}
	c := newCourse(b, workers, newPoison(b))
	table := rows.Table{Schema: "public", Name: "lines", Columns: []rows.Column{{Name: "id", Field: "id", Kind: rows.Long, Key: true},
		{Name: "product", Field: "product"}, {Name: "quantity", Field: "quantity", Kind: rows.Int}, {Name: "price", Field: "price", Kind: rows.Decimal, Precision: 10, Scale: 2},
		{Name: "at", Field: "at", Kind: rows.Timestamp}, {Name: "note", Field: "note"}}}
	c.relations[linesID].encoder = rows.NewEncoder(table, rows.Origin{Version: "test", Name: "millrace", Database: "shop"}, nil, 1, 2)
	free := newPool()
	for _, x := range append(c.pipeline.others, c.pipeline.own) {
		x.pool = free
	}
	c.pipeline.seq.emit = func(_ context.Context, out *batch) error {
		barrier := out.barrier
		free.put(out)
		if barrier != nil {
			close(barrier)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(b.Context())
	group, ctx := errgroup.WithContext(ctx)
	c.pipeline.start(ctx, group)
	var buf []byte
	for _, m := range s.messages {
		buf = appendMessage(buf, m)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += block {
		for rest := buf; len(rest) > 0; {
			m, after := nextMessage(rest)
			if err := c.handle(ctx, m); err != nil {
				b.Fatal(err)
			}
			rest = after
		}
		c.more = true
		if err := c.flush(ctx, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.barrier(ctx); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	cancel()
	_ = group.Wait() // it was told to end
}
