//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/test/harness"
)

// retailRows is a small shop: three items, orders 1 to 20 of two lines each.
const retailRows = `
INSERT INTO items SELECT 'P' || n, 'Item ' || n FROM generate_series(1, 3) n;
INSERT INTO invoices SELECT n::text, '2026-03-01 09:00'::timestamp + n * interval '20 minutes', 'Somebody Private ' || n, CASE WHEN n % 2 = 0 THEN 'Norway' ELSE 'France' END FROM generate_series(1, 20) n;
INSERT INTO invoice_lines SELECT n, ((n + 1) / 2)::text, 'P' || 1 + n % 3, 1 + n % 5, 2.50 + n FROM generate_series(1, 40) n;`

// retailBranch is what happens behind capture's back: rows are added, corrected and deleted.
func retailBranch(t testing.TB, p *platform, n int) {
	t.Helper()
	exec1(t, p.source, fmt.Sprintf(`
		INSERT INTO invoices VALUES ('%[1]d', '2026-03-02 12:00', NULL, 'Japan');
		INSERT INTO invoice_lines VALUES (%[1]d, '%[1]d', 'P1', 7, 1.99);
		UPDATE invoice_lines SET quantity = quantity + 3 WHERE id = %[2]d;
		DELETE FROM invoice_lines WHERE id = %[2]d + 1;
		DELETE FROM invoice_lines WHERE invoice_no = '%[2]d'; DELETE FROM invoices WHERE invoice_no = '%[2]d'`, 1000+n, n))
}

// shopEqual waits until the totals hold what the source has and compares them.
func (p *platform) shopEqual(t testing.TB, when string) {
	t.Helper()
	p.quiet(t, time.Minute)
	p.equal(t, when, retailCells, salesCells)
	p.equal(t, when+", orders", retailOrders, salesOrders)
}

// TestSlotGoneOrMoved: a slot that somebody dropped, or moved on, while cdc was down would be a silent gap. `cdc run`
// stops and names the next command; after it the totals are right again, rows deleted in between included.
func TestSlotGoneOrMoved(t *testing.T) {
	p := newSource(t, retailTables+retailRows)
	brokers, registryURL := infrastructure(t)
	salesDSN := pgtest.Database(t)
	p.sales = pool(t, salesDSN)
	env := []string{"MILLRACE_KAFKA_BROKERS=" + strings.Join(brokers, ","), "MILLRACE_REGISTRY_URL=" + registryURL, "MILLRACE_SALES_URL=" + salesDSN,
		"MILLRACE_SOURCE_URL=" + sourceURL(p.standby, "cdc", "postgres"), "MILLRACE_PRIVACY_KEY_FILE=" + harness.KeyFile(t),
		"MILLRACE_ENRICH_MAPPING=online-retail", "MILLRACE_KAFKA_INSTANCE_ID=0"}
	runTool(t, env, "admin", "topics", "apply").expect(t, done)
	for _, s := range []string{"cdc", "enrich", "aggregate"} {
		p.programs[s] = harness.Start(t, s, env)
	}
	p.shopEqual(t, "at first")
	cdc := p.programs["cdc"]

	for n, c := range []struct{ name, sql, says string }{
		{"dropped", "SELECT pg_drop_replication_slot('millrace')", "the slot millrace is not on the source any more"},
		{"moved on", "SELECT pg_replication_slot_advance('millrace', pg_last_wal_replay_lsn())", "somebody moved the slot millrace"},
	} {
		cdc.Stop(syscall.SIGTERM)
		retailBranch(t, p, 2*n+1)
		p.standby.Sync(t)
		p.standby.Exec(t, c.sql)
		run := runTool(t, env, "cdc", "run", "--http-address", "127.0.0.1:0")
		run.expect(t, failed, c.says, "nothing was written", "cdc reconcile")
		runTool(t, env, "cdc", "status").expect(t, done, "position")
		runTool(t, env, "cdc", "reset").expect(t, wrongUsage, "cdc reset --yes")
		runTool(t, env, "cdc", "reset", "--yes").expect(t, done)
		cdc.Launch(t)
		p.shopEqual(t, "slot "+c.name)
	}
	runTool(t, env, "cdc", "reset", "--yes").expect(t, failed, "read by process", "another cdc is running")
	runTool(t, env, "enrich", "quarantine", "list").expect(t, done)
	for _, s := range p.programs {
		keepsQuiet(t, s.Name+"'s log", s.Tail(1<<20))
	}
	var slots int
	if err := pool(t, p.standby.DSN("postgres", "postgres")).QueryRow(context.Background(), "SELECT count(*) FROM pg_replication_slots").Scan(&slots); err != nil || slots != 1 {
		t.Errorf("%d slots on the replica, want 1 (%v)", slots, err)
	}
}
