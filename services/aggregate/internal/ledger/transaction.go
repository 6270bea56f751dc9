package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/services/aggregate/internal/sales"
)

// shards keep writers of the same cell apart. A writer takes the one of its lowest partition.
const shards = 16

// transaction is the writing of one batch.
type transaction struct {
	pgx.Tx
	ledger *Ledger
}

// write does everything but begin and commit.
func (t transaction) write(ctx context.Context, b Batch) (Done, error) {
	if err := t.fence(ctx, b.Spans); err != nil {
		return Done{}, err
	}
	var images []sales.Image
	var index []int // of each image's record
	for i, r := range b.Records {
		if !r.Quarantined {
			images, index = append(images, r.Image), append(index, i)
		}
	}
	batch := sales.NewBatch(images)
	if err := t.fold(ctx, batch, shardOf(b.Spans)); err != nil {
		return Done{}, err
	}
	done := Done{Tally: Tally{}, Hours: batch.Deltas().Hours()}
	for i, o := range batch.Outcomes() {
		done.Tally.add(b.Records[index[i]].Partition, o)
	}
	for _, r := range b.Records {
		if r.Quarantined {
			done.Tally.add(r.Partition, sales.Quarantined)
		}
	}
	return done, t.count(ctx, done.Tally)
}

func (t transaction) fold(ctx context.Context, b *sales.Batch, shard int16) error {
	if err := t.products(ctx, b); err != nil {
		return err
	}
	belongs, err := t.ordersOfLines(ctx, b.Lines())
	if err != nil {
		return fmt.Errorf("read the orders of the lines: %w", err)
	}
	if err := t.orders(ctx, b, b.Orders(belongs)); err != nil {
		return err
	}
	if err := t.lines(ctx, b, slices.Sorted(maps.Keys(belongs))); err != nil {
		return err
	}
	return t.cells(ctx, b.Deltas(), shard)
}

// fence moves the positions and locks them, or finds that they are not ours to move.
func (t transaction) fence(ctx context.Context, spans []Span) error {
	n := len(spans)
	topics, parts, epochs := make([]string, n), make([]int32, n), make([]int64, n)
	from, to, clusters := make([]int64, n), make([]int64, n), make([]string, n)
	for i, s := range spans {
		topics[i], parts[i], epochs[i], clusters[i] = s.Claim.Topic, s.Claim.Part, s.Claim.Epoch, s.Claim.Cluster
		from[i], to[i] = s.From, s.To
	}
	tag, err := t.Exec(ctx, `UPDATE millrace.sink_partition AS p
		SET next_offset = f.upto, backend_pid = pg_backend_pid(), updated_at = now()
		FROM unnest($2::text[], $3::int[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[]) AS f(topic, part, cluster_id, epoch, since, upto)
		WHERE p.sink = $1 AND p.topic = f.topic AND p.part = f.part AND p.cluster_id = f.cluster_id
		  AND p.epoch = f.epoch AND p.next_offset = f.since AND p.stopped IS NULL`,
		Sink, topics, parts, clusters, epochs, from, to)
	if err != nil {
		return fmt.Errorf("move the positions: %w", err)
	}
	if tag.RowsAffected() != int64(n) {
		return ErrFenced
	}
	return nil
}

// count adds the outcomes to the counters.
func (t transaction) count(ctx context.Context, tally Tally) error {
	var topics []string
	var parts []int32
	var columns [sales.Outcomes][]int64
	for p, counts := range tally {
		topics, parts = append(topics, p.Topic), append(parts, p.Part)
		for o, n := range counts {
			columns[o] = append(columns[o], n)
		}
	}
	if _, err := t.Exec(ctx, `INSERT INTO millrace.sink_counters AS c (sink, topic, part, applied, unchanged, superseded, duplicate, quarantined)
		SELECT $1, * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
		ON CONFLICT (sink, topic, part) DO UPDATE SET applied = c.applied + excluded.applied, unchanged = c.unchanged + excluded.unchanged,
		    superseded = c.superseded + excluded.superseded, duplicate = c.duplicate + excluded.duplicate,
		    quarantined = c.quarantined + excluded.quarantined`,
		Sink, topics, parts, columns[sales.Applied], columns[sales.Unchanged], columns[sales.Superseded], columns[sales.Duplicate],
		columns[sales.Quarantined]); err != nil {
		return fmt.Errorf("count the outcomes: %w", err)
	}
	return nil
}

// cells adds the differences, in the order in which every writer takes the cells.
func (t transaction) cells(ctx context.Context, d *sales.Deltas, shard int16) error {
	if keys, cells := d.Cells(); len(keys) > 0 {
		c := newCellColumns(keys, cells)
		if _, err := t.Exec(ctx, `INSERT INTO millrace.cells AS c (cell, region, country, product_code, currency, shard,
			    lines, cancelled_lines, units, cancelled_units, gross_minor, cancelled_minor)
			SELECT cell, region, country, product_code, currency, $1, lines, cancelled_lines, units, cancelled_units, gross, cancelled
			FROM unnest($2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
			  AS d(cell, region, country, product_code, currency, lines, cancelled_lines, units, cancelled_units, gross, cancelled)
			ON CONFLICT (cell, region, country, product_code, currency, shard) DO UPDATE SET
			    lines = c.lines + excluded.lines, cancelled_lines = c.cancelled_lines + excluded.cancelled_lines,
			    units = c.units + excluded.units, cancelled_units = c.cancelled_units + excluded.cancelled_units,
			    gross_minor = c.gross_minor + excluded.gross_minor, cancelled_minor = c.cancelled_minor + excluded.cancelled_minor`,
			shard, c.cell, c.region, c.country, c.product, c.currency, c.lines, c.cancelledLines, c.units, c.cancelledUnits, c.gross, c.cancelled); err != nil {
			return fmt.Errorf("add to the cells: %w", err)
		}
	}
	keys, cells := d.OrderCells()
	if len(keys) == 0 {
		return nil
	}
	c := newOrderCellColumns(keys, cells)
	if _, err := t.Exec(ctx, `INSERT INTO millrace.order_cells AS c (cell, region, country, currency, shard, orders, cancelled_orders)
		SELECT cell, region, country, currency, $1, orders, cancelled_orders
		FROM unnest($2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
		  AS d(cell, region, country, currency, orders, cancelled_orders)
		ON CONFLICT (cell, region, country, currency, shard) DO UPDATE SET
		    orders = c.orders + excluded.orders, cancelled_orders = c.cancelled_orders + excluded.cancelled_orders`,
		shard, c.cell, c.region, c.country, c.currency, c.orders, c.cancelled); err != nil {
		return fmt.Errorf("add to the order cells: %w", err)
	}
	return nil
}

func shardOf(spans []Span) int16 {
	lowest := int32(1 << 30)
	for _, s := range spans {
		lowest = min(lowest, s.Claim.Part)
	}
	return int16(lowest % shards)
}
