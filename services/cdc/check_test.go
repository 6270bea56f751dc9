package cdc

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/services/cdc/internal/preflight"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// TestCheckNamesWhatIsMissing looks at sources that cannot be captured from.
func TestCheckNamesWhatIsMissing(t *testing.T) {
	primary := pgtest.Primary(t, "wal_level", "replica")
	primary.Exec(t, `CREATE ROLE cdc LOGIN; CREATE TABLE a (id int); CREATE TABLE b (id int PRIMARY KEY, g int GENERATED ALWAYS AS (1) STORED);
		ALTER TABLE b REPLICA IDENTITY FULL; CREATE TABLE c (id int PRIMARY KEY); CREATE TABLE d (id int PRIMARY KEY); ALTER TABLE d ENABLE ROW LEVEL SECURITY;
		CREATE TABLE e (id int PRIMARY KEY); ALTER TABLE e REPLICA IDENTITY NOTHING; GRANT SELECT ON a, b, d, e TO cdc;
		CREATE PUBLICATION millrace FOR TABLE a, b, c, d, e WITH (publish = 'insert'); CREATE PUBLICATION empty`)
	cfg := DefaultConfig()
	look := func(role string) string {
		t.Helper()
		var out strings.Builder
		err := Check(t.Context(), &out, cfg, SourceConfig{URL: config.Secret(primary.DSN(role, "postgres"))})
		if !errors.Is(err, app.ErrDifferences) {
			t.Errorf("check ends with %v", err)
		}
		return out.String()
	}
	expect := func(out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("not said: %s\nin\n%s", want, out)
			}
		}
	}
	expect(look("cdc"), "note: the source is a primary", "wal_level is replica", "ALTER SYSTEM SET wal_level = 'logical'", "standby freshness unknown",
		`GRANT pg_read_all_stats TO "cdc"`, `ALTER ROLE "cdc" REPLICATION`, "leaves out some kinds of change", `"public"."a" ADD PRIMARY KEY`,
		"FAIL on the primary", "publish_generated_columns = stored", `GRANT SELECT ON "public"."c" TO "cdc"`, "row security hides rows of public.d",
		"public.e has replica identity nothing")
	cfg.Publication = "empty"
	expect(look("postgres"), "the publication empty has no tables")
	cfg.Publication = "missing"
	expect(look("postgres"), "the publication missing does not exist", "CREATE PUBLICATION")
	cfg.Publication, cfg.Tables = "millrace", []string{"public.nowhere"}
	expect(look("postgres"), `ADD TABLE "public"."nowhere"`)
}

func TestCheckOfAStandby(t *testing.T) {
	primary := pgtest.Primary(t)
	standby := pgtest.Standby(t, primary, "standby", "hot_standby_feedback", "off", "max_standby_streaming_delay", "1s", "max_slot_wal_keep_size", "64MB",
		"recovery_min_apply_delay", "1ms")
	primary.Exec(t, `CREATE TABLE a (id int PRIMARY KEY, g int GENERATED ALWAYS AS (1) STORED); ALTER TABLE a REPLICA IDENTITY FULL;
		CREATE PUBLICATION millrace FOR ALL TABLES WITH (publish_generated_columns = stored); CREATE PUBLICATION "other's" FOR TABLE a`)
	standby.Sync(t)
	s := &store{primary: primary, source: standby, cfg: DefaultConfig()}
	s.cfg.Slot = "foreign"
	s.makeSlot(t, "postgres")
	standby.Exec(t, "SELECT pg_wal_replay_pause()")
	report, err := check(t.Context(), DefaultConfig(), SourceConfig{URL: config.Secret(standby.DSN("postgres", "postgres"))})
	if err != nil || !errors.Is(report.err(), app.ErrDifferences) {
		t.Fatal(err, report.err())
	}
	said := map[preflight.Code]string{}
	for _, f := range report.Findings {
		said[f.Code] = f.String()
	}
	for code, want := range map[preflight.Code]string{
		preflight.CodeFeedback:             "on the replica: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf()",
		preflight.CodeStandbyDelay:         "cancels the snapshot",
		preflight.CodeKeepSize:             "warning: max_slot_wal_keep_size is 64 MB",
		preflight.CodeApplyDelay:           "recovery_min_apply_delay is 1ms",
		preflight.CodeReplayPaused:         "problem: replay is paused on the replica: nothing arrives; on the replica: SELECT pg_wal_replay_resume()",
		preflight.CodeForeignSlot:          "nobody reads the slot foreign since",
		preflight.CodeGeneratedColumn:      `ALTER PUBLICATION "other's" SET (publish_generated_columns = stored)`,
		preflight.CodePublicationAllTables: "for all tables",
	} {
		if !strings.Contains(said[code], want) {
			t.Errorf("%s: %q, want %q", code, said[code], want)
		}
	}
	standby.Exec(t, "SELECT pg_wal_replay_resume()")
}

func TestConfigIsValidated(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for key, change := range map[string]func(*Config){
		"slot":              func(c *Config) { c.Slot = "Bad-Name" },
		"publication":       func(c *Config) { c.Publication = "" },
		"tables":            func(c *Config) { c.Tables = []string{"orders"} },
		"include_tables":    func(c *Config) { c.IncludeTables = []string{"a.b.c"} },
		"exclude_tables":    func(c *Config) { c.ExcludeTables = []string{"[a"} },
		"sensitive_tables":  func(c *Config) { c.SensitiveTables = []string{""} },
		"exclude_columns":   func(c *Config) { c.ExcludeColumns = []string{"email"} },
		"mask":              func(c *Config) { c.Mask = []string{"email"} },
		"truncate":          func(c *Config) { c.Truncate = []string{"orders.comments"} },
		"clear":             func(c *Config) { c.Clear = []string{"a.b.c.d"} },
		"row_filters":       func(c *Config) { c.RowFilters = []string{"public.orders: status ="} },
		"consumers":         func(c *Config) { c.Consumers = []string{"enrich"} },
		"scratch_url":       func(c *Config) { c.ScratchURL = "nowhere" },
		"tokenise":          func(c *Config) { c.Tokenise = []string{"*.[a"} },
		"decimal":           func(c *Config) { c.Decimal = "exact" },
		"time":              func(c *Config) { c.Time = "" },
		"binary":            func(c *Config) { c.Binary = "utf8" },
		"text":              func(c *Config) { c.Text = []string{"orders.total"} },
		"keyless":           func(c *Config) { c.Keyless = "drop" },
		"slot_timeout":      func(c *Config) { c.SlotTimeout = 0 },
		"transaction_bytes": func(c *Config) { c.TransactionBytes = 1 },
		"queue_bytes":       func(c *Config) { c.QueueBytes = 1 },
		"snapshot_workers":  func(c *Config) { c.SnapshotWorkers = 0 },
		"slot_max_bytes, slot_max_age, slot_max_xmin_age": func(c *Config) { c.SlotMaxAge = -1 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestDefaultPatternsOfPersonalData(t *testing.T) {
	rules, err := DefaultConfig().policy()
	if err != nil {
		t.Fatal(err)
	}
	personal := func(table, column string) bool {
		return rules.Column("public", table, column).Handling == rows.Tokenised
	}
	for _, name := range []string{"customers.email", "customers.Phone", "customers.contact_first_name", "employees.last_name", "customers.customer_name",
		"customers.address_line1", "orders.comments", "customers.contactLastName", "customers.addressLine2", "clicks.ip"} {
		if table, column, _ := strings.Cut(name, "."); !personal(table, column) {
			t.Errorf("%s stays in clear", name)
		}
	}
	for _, name := range []string{"products.product_name", "customers.city", "customers.customer_number", "customers.country", "customers.postal_code",
		"orders.status", "products.product_description", "shipping.zip"} {
		if table, column, _ := strings.Cut(name, "."); personal(table, column) {
			t.Errorf("%s becomes a token", name)
		}
	}
}
