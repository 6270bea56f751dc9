//go:build bench

package bench

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/test/harness"
)

// slot is cdc's, as it comes.
const slot = "millrace"

// benchCDC takes a snapshot and then streams.
func (p *pipeline) benchCDC(t *testing.T) {
	missing(t, "cdc")
	p.follow(t)
	snapshot := size(1_000_000, 200_000)
	p.exec(t, fmt.Sprintf(`INSERT INTO bench_rows SELECT -i, i / 5, 'S18_' || i %% 997, 1 + i %% 50, (i %% 20000) / 100.0, now(), 'note ' || md5(i::text)
		FROM generate_series(1, %d) AS i`, snapshot))
	p.standby.Sync(t)
	p.cdc = p.program(t, "cdc")
	p.benchSnapshot(t, snapshot)
	p.cdc.Ready(t, time.Minute)

	transactions := size(600, 100)
	p.benchStream(t, "transactions of 1,000 rows", transactions*1000, func() { p.writeOrders(t, transactions) })
	single := size(150_000, 20_000)
	p.benchStream(t, "single-row transactions", single, func() { p.writeSingle(t, single) })
	p.stop(t, p.cdc, "streaming")
}

// benchSnapshot compares with COPY of the same table, before and after.
func (p *pipeline) benchSnapshot(t *testing.T, rows int) {
	t.Helper()
	conn := pgtest.Connect(t, p.standby.DSN("postgres", "postgres"))
	var begin time.Time
	harness.Eventually(t, time.Minute, func() bool {
		for range 10 { // the pace of Eventually is too coarse
			var copying bool
			if err := conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_progress_copy)").Scan(&copying); err != nil {
				t.Fatal(err)
			}
			if copying {
				begin = time.Now()
				return true
			}
			time.Sleep(time.Millisecond)
		}
		return false
	}, func() string { return "no snapshot begins:\n" + p.cdc.Tail(20) })
	cpu := p.cdc.CPU()
	done := p.positions.await(t, 2*time.Minute, func(pos schemas.Position) bool { return pos.Snapshot == "done" })
	used := p.cdc.CPU() - cpu
	p.cdc.Stop(syscall.SIGTERM) // PostgreSQL has the machine to itself
	defer p.cdc.Launch(t)
	copied := p.copyOut(t, conn, rows)
	ours := float64(rows) / done.Sub(begin).Seconds()
	p.ratio(t, "cdc snapshot", "rows/s", ours, "COPY binary, discarded", copied, 0.4)
	p.tell(t, "cdc snapshot, per core-second", count(float64(rows)/used.Seconds())+" rows")
}

// copyOut is the rate of COPY over at least two seconds.
func (p *pipeline) copyOut(t *testing.T, conn *pgx.Conn, rows int) float64 {
	t.Helper()
	begin, n := time.Now(), 0
	for time.Since(begin) < 2*time.Second {
		if _, err := conn.PgConn().CopyTo(t.Context(), discard{}, "COPY bench_rows TO STDOUT (FORMAT binary)"); err != nil {
			t.Fatal(err)
		}
		n += rows
	}
	return float64(n) / time.Since(begin).Seconds()
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// benchStream lets rows pile up while cdc is stopped, and reads them by cdc and, before and after it, to nothing.
func (p *pipeline) benchStream(t *testing.T, what string, rows int, write func()) {
	t.Helper()
	p.cdc.Stop(syscall.SIGTERM)
	conn := pgtest.Connect(t, p.standby.DSN("postgres", "postgres"))
	slots := []string{"bench_before", "bench_after", "bench_tool"}
	if testing.Short() {
		slots = slots[:1]
	}
	for _, s := range slots {
		if _, err := conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", s); err != nil {
			t.Fatal(err)
		}
	}
	write()
	var target int64
	if err := p.source.QueryRow(t.Context(), "SELECT pg_current_wal_lsn() - '0/0'").Scan(&target); err != nil {
		t.Fatal(err)
	}
	p.exec(t, fmt.Sprintf("INSERT INTO bench_rows VALUES (%d, 0, 'sentinel', 1, 1, now(), NULL)", time.Now().UnixNano()))
	p.standby.Sync(t)

	task := side{Kind: "slot", DSN: p.standby.DSN("postgres", "postgres"), Slot: slots[0], Wanted: rows}
	bare := task.run(t).rate()
	p.cdc.Launch(t)
	begin := p.active(t, conn)
	cpu := p.cdc.CPU()
	end := p.positions.await(t, 2*time.Minute, func(pos schemas.Position) bool { return pos.LSN > target })
	cpu = p.cdc.CPU() - cpu
	ours := float64(rows) / end.Sub(begin).Seconds()
	p.cdc.Stop(syscall.SIGTERM)
	if len(slots) > 1 {
		task.Slot = slots[1]
		bare = 2 / (1/bare + 1/task.run(t).rate())
	}
	p.ratio(t, "cdc streaming, "+what, "rows/s", ours, "the slot read to nothing", bare, 0.7)
	if len(slots) > 2 {
		if tool := p.recvlogical(t, task.DSN, slots[2], rows); tool > 0 {
			p.ratio(t, "cdc streaming, "+what, "rows/s", ours, "pg_recvlogical to /dev/null", tool, 0)
		}
	}
	p.tell(t, "cdc streaming, "+what+", CPU", fmt.Sprintf("%.1f s a million rows", cpu.Seconds()*1e6/float64(rows)))
	for _, s := range slots {
		if _, err := conn.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", s); err != nil {
			t.Fatal(err)
		}
	}
	p.cdc.Launch(t)
	p.cdc.Ready(t, time.Minute)
}

// active is when somebody starts to read cdc's slot.
func (p *pipeline) active(t *testing.T, conn *pgx.Conn) time.Time {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		var active bool
		if err := conn.QueryRow(t.Context(), "SELECT active FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&active); err != nil {
			t.Fatal(err)
		}
		if active {
			return time.Now()
		}
		if time.Now().After(deadline) {
			t.Fatalf("cdc does not stream:\n%s", p.cdc.Tail(20))
		}
		time.Sleep(2 * time.Millisecond) // the resolution
	}
}

// recvlogical is PostgreSQL's own reader, where it is installed; 0 where not.
func (p *pipeline) recvlogical(t *testing.T, dsn, slot string, rows int) float64 {
	t.Helper()
	tool, err := exec.LookPath("pg_recvlogical")
	if err != nil {
		return 0
	}
	end := p.standby.Query(t, "SELECT pg_last_wal_replay_lsn()")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, "--dbname", dsn, "--slot", slot, "--start", "--no-loop", "--endpos", end, "--file", "/dev/null",
		"--option", "proto_version=1", "--option", "publication_names="+publication)
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Logf("pg_recvlogical: %v\n%s", err, out)
		return 0
	}
	return float64(rows) / time.Since(begin).Seconds()
}

// firstOrder is beyond the numbers of the demo store.
const firstOrder = 10_000_000

// writeOrders writes transactions of 200 orders with four lines each, going on after what is there, placed at the pace
// of 500 lines a second: many lines share a quarter of an hour, a country and a product. Foreign keys hold but are not
// checked, for the source is not what is measured.
func (p *pipeline) writeOrders(t *testing.T, transactions int) {
	t.Helper()
	p.do(t, `DO $$
DECLARE
	products text[] := (SELECT array_agg(product_code ORDER BY product_code) FROM products);
	customers int[] := (SELECT array_agg(customer_number ORDER BY customer_number) FROM customers);
	base bigint := (SELECT greatest(max(order_number) + 1, `+strconv.Itoa(firstOrder)+`) FROM orders);
BEGIN
	FOR t IN 0..`+strconv.Itoa(transactions-1)+` LOOP
		INSERT INTO orders (order_number, ordered_at, required_date, status, customer_number, currency)
		SELECT base + t * 200 + i, now() - make_interval(secs => 3600 - (t * 200 + i) * 0.008), current_date + 7, 'Shipped',
			customers[1 + (t * 200 + i) % cardinality(customers)], 'USD' FROM generate_series(0, 199) AS i;
		INSERT INTO order_details (order_number, product_code, quantity_ordered, price_each, order_line_number)
		SELECT base + t * 200 + i / 4, products[1 + ((t * 200 + i / 4) * 7 + i % 4) % cardinality(products)], 1 + i % 50, (1000 + i * 7 % 9000) / 100.0, 1 + i % 4
		FROM generate_series(0, 799) AS i;
		COMMIT;
	END LOOP;
END $$`)
}

// writeSingle writes transactions of one row.
func (p *pipeline) writeSingle(t *testing.T, rows int) {
	t.Helper()
	p.do(t, `DO $$
DECLARE base bigint := (SELECT greatest(max(id), 0) + 1 FROM bench_rows);
BEGIN
	FOR i IN 0..`+strconv.Itoa(rows-1)+` LOOP
		INSERT INTO bench_rows VALUES (base + i, i / 5, 'S18_' || i % 997, 1 + i % 50, (i % 20000) / 100.0, now(), 'note');
		COMMIT;
	END LOOP;
END $$`)
}

// do runs a block that commits by itself.
func (p *pipeline) do(t *testing.T, block string) {
	t.Helper()
	conn := pgtest.Connect(t, p.primary.DSN("postgres", "postgres"))
	for _, sql := range []string{"SET session_replication_role = replica; SET synchronous_commit = off", block} {
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
}
