package policy

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

func compile(t *testing.T, cfg Config) *Policy {
	t.Helper()
	p, err := Compile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestColumns(t *testing.T) {
	p := compile(t, Config{
		ExcludeColumns: []string{"public.customers.password", "*.*secret*"}, Mask: []string{"*.birth_*"}, Tokenise: []string{"*.*email*", "crm.*.phone"},
		Truncate: []string{"orders.comments:20"}, Clear: []string{"products.email_template", "customers.*id"}, SensitiveTables: []string{"public.customers"},
	})
	for name, want := range map[string]rows.Handling{
		"public.customers.password":      rows.Excluded,
		"public.Customers.PassWord":      rows.Excluded,
		"crm.customers.password":         rows.Clear,
		"public.a.my_secret_x":           rows.Excluded,
		"public.a.birth_date":            rows.Masked,
		"public.a.Email2":                rows.Tokenised,
		"crm.people.phone":               rows.Tokenised,
		"public.people.phone":            rows.Clear,
		"public.orders.comments":         rows.Truncated,
		"public.products.email_template": rows.Clear,
		"public.customers.id":            rows.Clear,
		"public.customers.city":          rows.Withheld,
		"public.a.e/mail email":          rows.Tokenised,
	} {
		part := strings.SplitN(name, ".", 3)
		if got := p.Column(part[0], part[1], part[2]); got.Handling != want {
			t.Errorf("%s: %s, want %s", name, got.Handling, want)
		}
	}
	if got := p.Column("public", "orders", "comments"); got.Length != 20 || !strings.Contains(got.Rule, "cdc.truncate") {
		t.Errorf("%+v", got)
	}
}

func TestARenamedColumnKeepsItsTreatment(t *testing.T) {
	p := compile(t, Config{Tokenise: []string{"*.email"}, Clear: []string{"customers.address", "customers.city"}, SensitiveTables: []string{"public.customers"}})
	if got := p.Column("public", "people", "mail", "email"); got.Handling != rows.Tokenised || !strings.Contains(got.Rule, "it was email") {
		t.Errorf("%+v", got)
	}
	if got := p.Column("public", "people", "mail", "email", "contact"); got.Handling != rows.Tokenised {
		t.Errorf("renamed twice: %+v", got)
	}
	if got := p.Column("public", "customers", "address", "email"); got.Handling != rows.Clear {
		t.Errorf("what is said of the new name counts: %+v", got)
	}
	if got := p.Column("public", "customers", "town", "city"); got.Handling != rows.Clear {
		t.Errorf("a classified column stays classified: %+v", got)
	}
}

func TestContradictions(t *testing.T) {
	p := compile(t, Config{Mask: []string{"*.*name"}, Tokenise: []string{"*.last*", "customers.last_name"}, ExcludeColumns: []string{"public.x.last_name"}})
	got := p.Column("public", "people", "last_name")
	if got.Handling != rows.Refused || !strings.Contains(got.Rule, `cdc.mask "*.*name"`) || !strings.Contains(got.Rule, `cdc.tokenise "*.last*"`) {
		t.Errorf("%+v", got)
	}
	if got := p.Column("public", "customers", "last_name"); got.Handling != rows.Tokenised {
		t.Errorf("an exact name counts more than patterns: %+v", got)
	}
	if got := p.Column("public", "x", "last_name"); got.Handling != rows.Excluded {
		t.Errorf("%+v", got)
	}
	_, err := Compile(Config{Mask: []string{"a.b"}, Tokenise: []string{"A.b"}})
	if err == nil || !strings.Contains(err.Error(), `"A.b" contradicts cdc.mask "a.b"`) {
		t.Errorf("%v", err)
	}
}

func TestTables(t *testing.T) {
	p := compile(t, Config{IncludeTables: []string{"public.*", "crm.people"}, ExcludeTables: []string{"*.*_archive", "audit"}})
	for name, want := range map[string]bool{"public.orders": true, "crm.people": true, "crm.notes": false, "public.orders_archive": false, "public.audit": false} {
		if s, n, _ := strings.Cut(name, "."); p.Captured(s, n) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	p = compile(t, Config{Tables: []string{"public.Orders"}, ExcludeTables: []string{"public.x"}})
	if !p.Captured("public", "Orders") || p.Captured("public", "orders") {
		t.Error("tables are exact")
	}
}

func TestRowFilters(t *testing.T) {
	p := compile(t, Config{RowFilters: []string{"public.orders: status = 'a:b'"}})
	if f := p.Filter("public", "orders"); f == nil || p.Filter("public", "lines") != nil {
		t.Error(f)
	}
	for text, want := range map[string]string{
		"public.orders status = 1":  "must be schema.table: expression",
		"orders: status = 1":        "must be schema.table: expression",
		"public.orders: status ? 1": "the filter of public.orders, at character 9",
	} {
		if _, err := Compile(Config{RowFilters: []string{text}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := Compile(Config{RowFilters: []string{"a.b: c = 1", "a.b: c = 2"}}); err == nil || !strings.Contains(err.Error(), "two for a.b") {
		t.Error(err)
	}
}
