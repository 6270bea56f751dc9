//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/test/harness"
	"github.com/millrace-io/millrace/test/realparts"
)

// platform is a source with a standby, a sales database and Millrace's programs between them.
type platform struct {
	primary, standby *pgtest.Server
	source           *pgxpool.Pool // on the primary, as its owner
	sales            *pgxpool.Pool
	brokers          []string // of runProcesses
	programs         map[string]*harness.Process
}

// source is a source database of the test's own: primary and standby with the tables of a store.
func newSource(t *testing.T, ddl string) *platform {
	t.Helper()
	p := &platform{programs: map[string]*harness.Process{}}
	p.primary, p.standby = pgtest.Pair(t, "max_wal_size", "4GB", "shared_buffers", "256MB")
	p.source = pool(t, p.primary.DSN("postgres", "postgres"))
	exec1(t, p.source, ddl)
	exec1(t, p.source, `CREATE ROLE cdc LOGIN REPLICATION IN ROLE pg_read_all_stats; GRANT SELECT ON ALL TABLES IN SCHEMA public TO cdc`)
	harness.Busy(t, p.primary)
	return p
}

func pool(t *testing.T, dsn string) *pgxpool.Pool {
	t.Helper()
	p, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func exec1(t testing.TB, p *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := p.Exec(context.Background(), sql); err != nil {
		t.Fatalf("%v in %.80s", err, sql)
	}
}

// runProcesses starts each service as a process of its own, over the embedded broker and registry or the real ones.
func (p *platform) runProcesses(t *testing.T, mapping string, services ...string) {
	t.Helper()
	brokers, registryURL := infrastructure(t)
	p.brokers = brokers
	salesDSN := pgtest.Database(t)
	p.sales = pool(t, salesDSN)
	env := []string{
		"MILLRACE_KAFKA_BROKERS=" + strings.Join(brokers, ","),
		"MILLRACE_REGISTRY_URL=" + registryURL,
		"MILLRACE_SALES_URL=" + salesDSN,
		"MILLRACE_SOURCE_URL=" + p.standby.DSN("cdc", "postgres"),
		"MILLRACE_PRIVACY_KEY_FILE=" + harness.KeyFile(t),
		"MILLRACE_ENRICH_MAPPING=" + mapping,
		"MILLRACE_KAFKA_INSTANCE_ID=0",
	}
	for _, args := range [][]string{{"topics", "apply"}, {"schemas", "apply"}} { // what every installation does first
		cmd := exec.Command(filepath.Join(harness.Root(), "bin", "admin"), args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("admin %v: %v\n%s", args, err, out)
		}
	}
	for _, s := range services {
		p.programs[s] = harness.Start(t, s, env)
	}
	for _, s := range services {
		p.programs[s].Ready(t, time.Minute)
	}
}

// runStandalone starts everything but the source in one process.
func (p *platform) runStandalone(t *testing.T, mapping string) {
	t.Helper()
	dir := pgtest.Dir(t)
	salesPort := strings.Split(harness.FreeAddress(t), ":")[1]
	p.programs["standalone"] = harness.Start(t, "standalone", nil, "--source", p.standby.DSN("cdc", "postgres"), "--enrich-mapping", mapping,
		"--data-dir", dir, "--embedded-kafka-port", "0", "--embedded-registry-port", "0", "--embedded-sales-port", salesPort)
	p.programs["standalone"].Ready(t, 2*time.Minute)
	p.sales = pool(t, "postgres://postgres@127.0.0.1:"+salesPort+"/millrace?sslmode=disable")
}

// infrastructure is a broker and a registry: embedded, or real ones when asked for.
func infrastructure(t *testing.T) (brokers []string, registryURL string) {
	t.Helper()
	if os.Getenv("MILLRACE_TEST_KAFKA") == "real" {
		return realparts.Kafka(t, realparts.Options{}).Seeds(), realparts.Apicurio(t)
	}
	srv := httptest.NewServer(registry.NewMemory())
	t.Cleanup(srv.Close)
	return brokertest.New(t), srv.URL
}

// quiet waits until the totals hold everything that the source has committed so far: a position, never a sleep.
func (p *platform) quiet(t testing.TB, within time.Duration) {
	t.Helper()
	var target string
	if err := p.source.QueryRow(context.Background(), "SELECT pg_current_wal_lsn()::text").Scan(&target); err != nil {
		t.Fatal(err)
	}
	at := "nothing yet"
	harness.Eventually(t, within, func() bool {
		var done bool
		err := p.sales.QueryRow(context.Background(),
			"SELECT source_lsn::text, source_lsn >= $1::text::pg_lsn FROM millrace.sales_progress WHERE sink = 'postgres'", target).Scan(&at, &done)
		if err != nil {
			at = err.Error()
		}
		return err == nil && done
	}, func() string {
		var say strings.Builder
		fmt.Fprintf(&say, "the totals are at %s, the source at %s", at, target)
		for _, s := range p.programs {
			fmt.Fprintf(&say, "\n--- %s\n%s", s.Name, s.Tail(15))
		}
		return say.String()
	})
}

// salesCells is what Millrace says, in the form that the tests compare.
const salesCells = `SELECT to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24'), region, country, category, product_code, product_name, currency,
       lines, units, round(gross, 4), round(net, 4), round(cancelled, 4)
  FROM millrace.sales_hourly`

const salesOrders = `SELECT to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24'), region, country, currency, orders, cancelled_orders FROM millrace.sales_orders_hourly`

// equal compares two queries row by row, as sets, and fails with the first differences.
func (p *platform) equal(t testing.TB, what, wantSQL, gotSQL string) {
	t.Helper()
	want, got := rows(t, p.source, wantSQL), rows(t, p.sales, gotSQL)
	if len(want) == 0 {
		t.Fatalf("%s: the source has no cell: nothing was compared", what)
	}
	var missing, extra []string
	for k, n := range want {
		if got[k] != n {
			missing = append(missing, k)
		}
	}
	for k, n := range got {
		if want[k] != n {
			extra = append(extra, k)
		}
	}
	if len(missing)+len(extra) > 0 {
		t.Fatalf("%s: %d of %d cells of the source are not in the totals, %d cells of the totals are not in the source\nsource: %s\ntotals: %s",
			what, len(missing), len(want), len(extra), head(missing), head(extra))
	}
	t.Logf("%s: %d cells equal", what, len(want))
}

func head(list []string) string {
	if len(list) > 8 {
		list = list[:8]
	}
	return "\n  " + strings.Join(list, "\n  ")
}

func rows(t testing.TB, p *pgxpool.Pool, sql string) map[string]int {
	t.Helper()
	ctx := context.Background()
	r, err := p.Query(ctx, "SELECT concat_ws(' | ', q.*) FROM ("+sql+") AS q", pgx.QueryExecModeExec)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	var row string
	if _, err := pgx.ForEachRow(r, []any{&row}, func() error { out[row]++; return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}
