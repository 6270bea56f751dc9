package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/services/cdc/internal/plan"
)

const planned = `CREATE SCHEMA crm; CREATE TYPE mood AS ENUM ('fine', 'sad'); CREATE DOMAIN crm.short AS varchar(10); CREATE TYPE crm.pair AS (a int, b crm.short);
	CREATE TABLE orders (id int PRIMARY KEY, gone int, status text NOT NULL, total numeric(9,2), units int, note crm.short, m mood, p crm.pair, email text, total_twice numeric GENERATED ALWAYS AS (total * 2) STORED);
	ALTER TABLE orders DROP gone; CREATE INDEX orders_status ON orders (status); CREATE TABLE untouched (id uuid PRIMARY KEY, j jsonb, UNIQUE (j));
	CREATE TABLE lines (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id int REFERENCES orders, CHECK (id > 0)); ALTER TABLE lines REPLICA IDENTITY FULL;
	CREATE TABLE visits (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day); CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
	CREATE TABLE other (id int PRIMARY KEY); CREATE TABLE people (id int PRIMARY KEY, city text); CREATE VIEW of_lines AS SELECT order_id FROM lines;
	CREATE PUBLICATION millrace FOR TABLE orders, untouched, lines, visits, people WITH (publish_via_partition_root = true);
	GRANT USAGE ON SCHEMA crm TO cdc`

// scratchServer is a server with a system identifier of its own, which the copies of the tests' template have not.
func scratchServer(t *testing.T) string {
	t.Helper()
	server, err := pgserver.Open(t.Context(), pgserver.Options{Installation: pgtest.Installation(t), Dir: pgtest.Dir(t), NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return server.DSN("postgres", "postgres")
}

// TestPlan rehearses one change after another against one source.
func TestPlan(t *testing.T) {
	primary := pgtest.Primary(t, "wal_level", "logical")
	prepare(t, primary)
	s := newStore(t, primary, primary, brokertest.New(t), planned)
	s.cfg.SensitiveTables = []string{"people"}
	s.cfg.Clear = []string{"people.*"}
	s.cfg.Consumers = []string{"enrich=public.orders.status", "report=public.orders.units", "enrich=public.lines.order_id"}
	s.cfg.Clear = []string{"people.id", "people.city"}
	r := s.start(t) // registers the schemas
	s.quiet(t, r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	scratch := scratchServer(t)
	rehearse := func(t *testing.T, script string, asJSON bool) (string, error) {
		t.Helper()
		var out strings.Builder
		err := Plan(t.Context(), &out, s.cfg, SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))}, s.registry, s.kafka.Name,
			PlanRequest{Script: script, URL: config.Secret(scratch), JSON: asJSON})
		return out.String(), err
	}
	t.Run("changes", func(t *testing.T) { rehearsals(t, rehearse) })
	t.Run("JSON", func(t *testing.T) {
		out, err := rehearse(t, "ALTER TABLE orders DROP units", true)
		var got plan.Report
		if bad := json.Unmarshal([]byte(out), &got); bad != nil || !errors.Is(err, app.ErrDifferences) || !got.Breaks || len(got.Tables) != 1 || got.Tables[0].Readers[0].Program != "report" {
			t.Errorf("%v, %v: %s", bad, err, out)
		}
	})
	t.Run("a generated column under full identity", func(t *testing.T) {
		out, err := rehearse(t, "ALTER TABLE lines ADD twice bigint GENERATED ALWAYS AS (order_id * 2) STORED", false)
		hazard := strings.Contains(out, "a stored generated column that is not published: updates and deletes FAIL on the primary")
		if eighteen := primary.Query(t, "SELECT current_setting('server_version_num')::int >= 180000") == "true"; eighteen != hazard || errors.Is(err, app.ErrDifferences) != hazard {
			t.Errorf("PostgreSQL 18: %v, %v\n%s", eighteen, err, out)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := Plan(ctx, &strings.Builder{}, s.cfg, SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))}, s.registry, s.kafka.Name,
			PlanRequest{Script: "SELECT pg_sleep(60)", URL: config.Secret(scratch)})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	t.Run("nothing stays", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), scratch)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		var n int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname LIKE 'millrace_plan_%'").Scan(&n); err != nil || n != 0 {
			t.Errorf("%d databases are left: %v", n, err)
		}
		if versions, err := s.registry.Versions(t.Context(), "store.public.orders-value"); err != nil || len(versions) != 1 {
			t.Errorf("%d versions are registered: %v", len(versions), err)
		}
	})
	t.Run("the source is no scratch server", func(t *testing.T) {
		err := Plan(t.Context(), &strings.Builder{}, s.cfg, SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))}, s.registry, s.kafka.Name,
			PlanRequest{Script: "SELECT 1", URL: config.Secret(s.source.DSN("postgres", "postgres"))})
		if err == nil || !strings.Contains(err.Error(), "the scratch server is the source") {
			t.Error(err)
		}
	})
	t.Run("the registry is away", func(t *testing.T) {
		away, err := avro.NewRegistry(avro.Config{URL: "http://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		err = Plan(t.Context(), &strings.Builder{}, s.cfg, SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))}, away, s.kafka.Name,
			PlanRequest{Script: "SELECT 1", URL: config.Secret(scratch)})
		if !errors.Is(err, avro.ErrUnavailable) {
			t.Error(err)
		}
	})
}

func rehearsals(t *testing.T, rehearse func(t *testing.T, script string, asJSON bool) (string, error)) {
	const nothing, breaks, wrong = 0, 3, 2
	for _, c := range []struct {
		name, script string
		exit         int
		want         []string
	}{
		{"nothing", "-- only a comment\n;", nothing, []string{"no captured table changes"}},
		{"what goes through", `ALTER TABLE orders ADD coupon text, ADD weight int NOT NULL DEFAULT 7, ADD backup_email text, DROP note, ALTER units TYPE bigint, ALTER units SET NOT NULL;
			ALTER TABLE orders RENAME email TO reach; ALTER TABLE orders DROP total_twice; ALTER TABLE orders ALTER total TYPE numeric(14,2); ALTER TYPE mood ADD VALUE 'angry';
			ALTER TABLE people ADD diagnosis text; CREATE TABLE coupons (id int PRIMARY KEY); ALTER PUBLICATION millrace ADD TABLE coupons; DROP TABLE untouched`, nothing, []string{
			"column coupon added (string)", "store.public.orders-value: compatible", "column weight added (int)", "then: rows that are there have a value in weight that the log does not tell: `cdc snapshot public.orders`",
			`column backup_email: tokenise, by cdc.tokenise "*.*email*"`, "column note dropped (string)", "column units retyped (int → long)", "report notices: it reads units: the type is long and no longer int",
			"column email renamed to reach", "it was email", "decimal(9,2) → decimal(14,2)", "table public.people", "withheld until somebody says what they are (cdc.clear, cdc.tokenise, cdc.mask, cdc.exclude_columns): diagnosis",
			"table public.coupons joins the publication (topic store.public.coupons)", "table public.untouched is dropped", "the topic stays", "result: nothing breaks"}},
		{"what no topic sees", `ALTER TABLE orders ALTER status DROP NOT NULL, ALTER units SET DEFAULT 1; CREATE INDEX CONCURRENTLY i ON orders (units); DROP INDEX orders_status; CREATE TABLE elsewhere (id int);
			CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2027-01-01'); DROP TABLE other; ALTER TABLE lines DROP CONSTRAINT lines_order_id_fkey, DROP CONSTRAINT lines_id_check`,
			nothing, []string{"no captured table changes"}},
		{"drop a column that is needed", "ALTER TABLE orders DROP units", breaks, []string{"column units dropped", "report breaks: it reads units: the column is gone"}},
		{"rename", "ALTER TABLE orders RENAME status TO state", breaks, []string{"column status renamed to state", "store.public.orders-value: compatible", "enrich breaks: it reads status"}},
		{"change a scale", "ALTER TABLE orders DROP total_twice; ALTER TABLE orders ALTER total TYPE numeric(14,4)", breaks, []string{"scale is another", "cdc resume public.orders --as v2"}},
		{"narrow", "ALTER TABLE orders ALTER units TYPE text", breaks, []string{"INCOMPATIBLE", "int", "string", "cdc resume public.orders --as v2"}},
		{"a new table without key", "CREATE TABLE coupons (id int); ALTER PUBLICATION millrace ADD TABLE coupons", breaks, []string{"updates and deletes of the published table FAIL on the primary"}},
		{"drop a table that is needed", "DROP TABLE lines CASCADE", breaks, []string{"enrich breaks: it reads order_id: no more events come"}},
		{"rename a table", "ALTER TABLE untouched RENAME TO touched", breaks, []string{"is renamed to public.touched", "store.public.touched begins"}},
		{"another key", "ALTER TABLE people DROP CONSTRAINT people_pkey; ALTER TABLE people ADD PRIMARY KEY (id, city)", breaks, []string{"store.public.people-key: INCOMPATIBLE"}},
		{"an update while there is no key", "ALTER TABLE people DROP CONSTRAINT people_pkey; UPDATE people SET city = ''", wrong, []string{"line 1, column 49", "does not have a replica identity"}},
		{"no key", "ALTER TABLE people DROP CONSTRAINT people_pkey", breaks, []string{"without a primary key"}},
		{"replica identity", "ALTER TABLE people REPLICA IDENTITY FULL", nothing, []string{"the replica identity is full and no longer default: old rows have all columns"}},
		{"replica identity nothing", "ALTER TABLE people REPLICA IDENTITY NOTHING", breaks, []string{"with replica identity nothing"}},
		{"several statements and comments", "/* a; b */ BEGIN; ALTER TABLE orders ADD \"semi;colon\" text; -- ; \nCOMMENT ON TABLE orders IS 'x;y'; GRANT SELECT ON orders TO nobody; COMMIT;", nothing,
			[]string{"column semi_colon added", "passed over", "line 2, column 1; line 2, column 35"}},
		{"a view in the way", "ALTER TABLE lines ALTER order_id TYPE bigint", wrong, []string{"line 1", "used by a view"}},
		{"a mistake", "ALTER TABLE orders ADD a int;\n\nALTER TABLE orders ADD b nosuchtype;", wrong, []string{"line 3, column 26", "nosuchtype"}},
		{"bad syntax", "ALTER TABEL orders", wrong, []string{"line 1, column 7", "syntax error"}},
		{"an extension that is not there", "CREATE EXTENSION no_such_extension", wrong, []string{"line 1, column 1", "install it on the scratch server"}},
		{"a function that is not there", "SELECT shop_helper(1)", wrong, []string{"line 1, column 8", "functions of the source are not in the scratch database"}},
		{"beyond the database", "ALTER TABLE orders ADD x int; DROP DATABASE postgres", wrong, []string{"line 1, column 31", "beyond the scratch database"}},
		{"an open transaction", "BEGIN; ALTER TABLE orders ADD x int", wrong, []string{"add COMMIT"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, err := rehearse(t, c.script, false)
			var usage *app.UsageError
			exit := nothing
			switch {
			case errors.Is(err, app.ErrDifferences):
				exit = breaks
			case errors.As(err, &usage):
				exit = wrong
				out += err.Error()
			case err != nil:
				t.Fatal(err)
			}
			if exit != c.exit {
				t.Errorf("exit code %d, want %d", exit, c.exit)
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not told", want)
				}
			}
			if t.Failed() {
				t.Logf("%v\n%s", err, out)
			}
		})
	}
}
