package cdc

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
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
	_, standby := pgtest.Pair(t, "hot_standby_feedback", "off")
	if got := standby.Query(t, "SELECT current_setting('hot_standby_feedback')"); got != "off" {
		t.Skipf("the test's standby insists on feedback: %s", got)
	}
	var out strings.Builder
	err := Check(t.Context(), &out, DefaultConfig(), SourceConfig{URL: config.Secret(standby.DSN("postgres", "postgres"))})
	if !errors.Is(err, app.ErrDifferences) || !strings.Contains(out.String(), "on the replica: ALTER SYSTEM SET hot_standby_feedback = on") {
		t.Errorf("%v\n%s", err, &out)
	}
}

func TestConfigIsValidated(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for key, change := range map[string]func(*Config){
		"slot":              func(c *Config) { c.Slot = "Bad-Name" },
		"publication":       func(c *Config) { c.Publication = "" },
		"tables":            func(c *Config) { c.Tables = []string{"orders"} },
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
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestDefaultPatternsOfPersonalData(t *testing.T) {
	c := DefaultConfig()
	for _, name := range []string{"customers.email", "customers.Phone", "customers.contact_first_name", "employees.last_name", "customers.customer_name",
		"customers.address_line1", "orders.comments", "customers.contactLastName", "customers.addressLine2", "clicks.ip"} {
		if table, column, _ := strings.Cut(name, "."); !c.personal(table, column) {
			t.Errorf("%s stays in clear", name)
		}
	}
	for _, name := range []string{"products.product_name", "customers.city", "customers.customer_number", "customers.country", "customers.postal_code",
		"orders.status", "products.product_description", "shipping.zip"} {
		if table, column, _ := strings.Cut(name, "."); c.personal(table, column) {
			t.Errorf("%s becomes a token", name)
		}
	}
}
