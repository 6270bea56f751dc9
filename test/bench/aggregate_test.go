//go:build bench

package bench

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/test/harness"
)

// benchAggregate brings the order lines that enrich has left in Kafka into the ledger, durably.
func (p *pipeline) benchAggregate(t *testing.T) {
	missing(t, "aggregate")
	lines := p.records(t, schemas.SalesLines)
	sales, err := pgxpool.New(t.Context(), p.sales.DSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sales.Close)
	for table, key := range map[string]string{"bench_plain": "NOT NULL", "bench_key": "PRIMARY KEY"} {
		if err := runSQL(t.Context(), sales, linesTable(table, key)); err != nil {
			t.Fatal(err)
		}
	}
	task := side{Kind: "copy", Brokers: p.brokers, Registry: p.registry, Topic: schemas.SalesLines, DSN: p.sales.DSN("postgres", "postgres"), Wanted: lines}
	server := func() time.Duration { return harness.TreeCPU(p.sales.Pid()) }
	task.To = "bench_plain"
	cpu0 := server()
	plain := task.run(t)
	a := p.program(t, "aggregate")
	cpu1 := server()
	w := p.aggregated(t, a, sales)
	cpu2 := server()
	p.stop(t, a, "order lines")
	task.To = "bench_key"
	keyed := task.run(t)

	share := float64(lines) / float64(p.mustEnds(t, schemas.SalesLines, schemas.SalesOrders))
	ours := float64(w.done) * share / w.wall.Seconds()
	p.ratio(t, "aggregate, order lines durable (their headers on top)", "lines/s", ours, "Kafka → COPY into one table", plain.rate(), 0.12)
	p.ratio(t, "aggregate, order lines durable (their headers on top)", "lines/s", ours, "COPY into a table with the ledger's key", keyed.rate(), 0.18)
	_, reached, err := sink(t.Context(), sales)
	if err != nil {
		t.Fatal(err)
	}
	// PostgreSQL's part is of the whole time, so it is divided by all lines.
	perLine := func(d time.Duration, n float64) float64 { return d.Seconds() * 1e6 / n }
	process, database := perLine(w.cpu, float64(w.done)*share), perLine(cpu2-cpu1, float64(reached)*share)
	other := perLine(plain.CPU, float64(plain.Records)) + perLine(cpu1-cpu0, float64(plain.Records))
	p.add(t, line{what: "aggregate, CPU a line: its process + PostgreSQL", ours: fmt.Sprintf("%.1f + %.1f µs", process, database),
		other: fmt.Sprintf("Kafka → COPY into one table: %.1f µs", other), ratio: fmt.Sprintf("%.1f", (process+database)/other), target: "-", met: "-"})
	p.benchKill(t, a)
}

// aggregated follows the sink until it has read orders and lines.
func (p *pipeline) aggregated(t *testing.T, a *harness.Process, sales *pgxpool.Pool) window {
	t.Helper()
	return work(t, a, p.mustEnds(t, schemas.SalesLines, schemas.SalesOrders), 2*time.Minute, func() (int64, error) {
		_, offset, err := sink(t.Context(), sales)
		return offset, err
	})
}

// sink is the newest epoch and how far orders and lines are in.
func sink(ctx context.Context, sales *pgxpool.Pool) (epoch, offset int64, err error) {
	err = sales.QueryRow(ctx, `SELECT coalesce(max(epoch), 0), coalesce(sum(next_offset), 0)::bigint FROM millrace.sink_partition WHERE topic = ANY ($1)`,
		[]string{schemas.SalesLines, schemas.SalesOrders}).Scan(&epoch, &offset)
	return epoch, offset, err
}

// benchKill kills aggregate in the middle of the same work in an empty database, and measures until it commits again.
func (p *pipeline) benchKill(t *testing.T, a *harness.Process) {
	t.Helper()
	owner, err := pgxpool.New(t.Context(), p.sales.DSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if err := runSQL(t.Context(), owner, "CREATE DATABASE again"); err != nil {
		t.Fatal(err)
	}
	dsn := p.sales.DSN("postgres", "again")
	sales, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer sales.Close()
	total := p.mustEnds(t, schemas.SalesLines, schemas.SalesOrders)
	again := p.program(t, "aggregate", env("SALES_URL", dsn)...)
	var took []time.Duration
	for share := range 2 {
		harness.Eventually(t, time.Minute, func() bool {
			_, offset, err := sink(t.Context(), sales)
			return err == nil && offset > total*int64(1+2*share)/10
		}, func() string { return "aggregate does not work:\n" + again.Tail(20) })
		epoch, _, err := sink(t.Context(), sales)
		if err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		again.Kill(t)
		claimed := int64(-1) // the offset when the new owner took over
		harness.Eventually(t, time.Minute, func() bool {
			now, offset, err := sink(t.Context(), sales)
			if err != nil || now == epoch {
				return false
			}
			if claimed < 0 {
				claimed = offset
			}
			return offset > claimed
		}, func() string { return "aggregate does not come back:\n" + again.Tail(20) })
		took = append(took, time.Since(killed))
	}
	again.Stop(syscall.SIGTERM)
	slowest := max(took[0], took[1])
	p.limit(t, "aggregate, commits again after kill -9", fmt.Sprintf("%s and %s", round(took[0]), round(took[1])), "5s", slowest < 5*time.Second)
}
