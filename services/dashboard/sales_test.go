package dashboard

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// show is a row in short, for comparison with numbers made by hand.
func (r salesRow) show() string {
	out := r.Start.Format("02T15:04-07:00")
	for _, v := range r.fields() {
		out += " " + *v
	}
	out += fmt.Sprintf(" %s %d/%d %s-%s=%s", r.Currency, r.Lines, r.Units, r.Gross, r.Cancelled, r.Net)
	if r.Orders != nil {
		out += fmt.Sprintf(" %d-%d", *r.Orders, *r.CancelledOrders)
	}
	if r.Partial {
		out += " partial"
	}
	return out
}

func show(rows []salesRow) string {
	var out []string
	for _, r := range rows {
		out = append(out, r.show())
	}
	return strings.Join(out, "\n")
}

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

// fill is a small store: two regions, three currencies of 0, 2 and 3 decimals, cancellations, returns, an order
// without lines.
func fill(t *testing.T, s *site) {
	s.product(t, "A1", "Clipper", "Ships")
	s.product(t, "B2", "Roadster", "Cars")
	s.sell(t,
		sold{"2026-03-10T10:00Z", "EMEA", "France", "A1", "EUR", 2, 3, 1050, 0, 0},
		sold{"2026-03-10T10:00Z", "EMEA", "France", "A1", "EUR", 1, 1, 5, 1, 5}, // another shard of the same cell
		sold{"2026-03-10T10:45Z", "EMEA", "Spain", "B2", "EUR", 1, -1, -300, 0, 0},
		sold{"2026-03-10T12:15Z", "EMEA", "Spain", "B2", "EUR", 1, 4, 100000, 0, 0},
		sold{"2026-03-10T10:15Z", "APAC", "Japan", "A1", "JPY", 1, 2, 1999, 0, 0},
		sold{"2026-03-10T12:30Z", "EMEA", "Kuwait", "ghost", "KWD", 1, 1, 1234, 1, 1234},
	)
	s.order(t, "2026-03-10T10:00Z", "EMEA", "France", "EUR", 2, 1)
	s.order(t, "2026-03-10T10:45Z", "EMEA", "Spain", "EUR", 1, 0)
	s.order(t, "2026-03-10T12:15Z", "EMEA", "Spain", "EUR", 1, 0)
	s.order(t, "2026-03-10T10:15Z", "APAC", "Japan", "JPY", 1, 0)
	s.order(t, "2026-03-10T12:30Z", "EMEA", "Kuwait", "KWD", 1, 1)
	s.order(t, "2026-03-10T11:00Z", "EMEA", "Kuwait", "KWD", 1, 0) // no line yet
	s.complete(t, "2026-03-10T12:40:00Z")
}

func TestSales(t *testing.T) {
	s := open(t, at("2026-03-10T12:40:05Z"))
	fill(t, s)
	day := []string{"from", "2026-03-10T10:00Z", "to", "2026-03-10T13:00Z"}
	cases := []struct {
		name  string
		pairs []string
		want  string
	}{
		{"every period and currency", nil, `
10T10:00+00:00 EUR 4/3 7.55-0.05=7.50 3-1
10T10:00+00:00 JPY 1/2 1999-0=1999 1-0
10T10:00+00:00 KWD 0/0 0.000-0.000=0.000 0-0
10T11:00+00:00 EUR 0/0 0.00-0.00=0.00 0-0
10T11:00+00:00 JPY 0/0 0-0=0 0-0
10T11:00+00:00 KWD 0/0 0.000-0.000=0.000 1-0
10T12:00+00:00 EUR 1/4 1000.00-0.00=1000.00 1-0 partial
10T12:00+00:00 JPY 0/0 0-0=0 0-0 partial
10T12:00+00:00 KWD 1/1 1.234-1.234=0.000 1-1 partial`},
		{"by region", []string{"group_by", "region"}, `
10T10:00+00:00 APAC JPY 1/2 1999-0=1999 1-0
10T10:00+00:00 EMEA EUR 4/3 7.55-0.05=7.50 3-1
10T11:00+00:00 EMEA KWD 0/0 0.000-0.000=0.000 1-0
10T12:00+00:00 EMEA EUR 1/4 1000.00-0.00=1000.00 1-0 partial
10T12:00+00:00 EMEA KWD 1/1 1.234-1.234=0.000 1-1 partial`},
		{"by product and country, in any order", []string{"group_by", "product, country", "grain", "day"}, `
10T10:00+00:00 France A1 Clipper EUR 3/4 10.55-0.05=10.50 partial
10T10:00+00:00 Japan A1 Clipper JPY 1/2 1999-0=1999 partial
10T10:00+00:00 Kuwait ghost unknown KWD 1/1 1.234-1.234=0.000 partial
10T10:00+00:00 Spain B2 Roadster EUR 2/3 997.00-0.00=997.00 partial`},
		{"two countries", []string{"country", "Spain", "country", "France", "group_by", "country", "to", "2026-03-10T11:00Z"}, `
10T10:00+00:00 France EUR 3/4 10.55-0.05=10.50 2-1
10T10:00+00:00 Spain EUR 1/-1 -3.00-0.00=-3.00 1-0`},
		{"a category has no orders", []string{"category", "Ships", "to", "2026-03-10T11:00Z"}, `
10T10:00+00:00 EUR 3/4 10.55-0.05=10.50
10T10:00+00:00 JPY 1/2 1999-0=1999`},
		{"a product that was never seen", []string{"category", "unknown", "product", "ghost", "group_by", "category,region", "from", "2026-03-10T12:00Z"}, `
10T12:00+00:00 EMEA unknown KWD 1/1 1.234-1.234=0.000 partial`},
		{"nothing", []string{"region", "Atlantis"}, ``},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			pairs := slices.Clone(c.pairs)
			for i := 0; i < len(day); i += 2 {
				if !slices.Contains(pairs, day[i]) {
					pairs = append(pairs, day[i], day[i+1])
				}
			}
			a := s.ask(t, pairs...)
			if got := show(a.Rows); got != strings.TrimSpace(c.want) {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
	a := s.ask(t)
	if len(a.Rows) != 24*3 || a.From != at("2026-03-09T13:00:00Z") || a.To != at("2026-03-10T13:00:00Z") || a.Zone != "UTC" {
		t.Errorf("default: %d rows from %v to %v in %s", len(a.Rows), a.From, a.To, a.Zone)
	}
	if a.ValidThrough == nil || !a.ValidThrough.Equal(at("2026-03-10T12:40:00Z")) || !a.Complete || a.Incomplete == nil {
		t.Errorf("completeness: %+v", a.completeness)
	}
	want := []string{"EUR 1007.55 5 4", "JPY 1999 1 1", "KWD 1.234 1 2"}
	for i, m := range a.Totals {
		if got := fmt.Sprint(m.Currency, " ", m.Gross, " ", m.Lines, " ", *m.Orders); got != want[i] {
			t.Errorf("total %s, want %s", got, want[i])
		}
	}
}

func TestCompleteness(t *testing.T) {
	s := open(t, at("2026-03-10T12:40:05Z"))
	a := s.ask(t)
	if a.ValidThrough != nil || a.Complete || len(a.Rows) != 0 || len(a.Totals) != 0 {
		t.Errorf("nothing known: %+v", a)
	}
	s.sell(t, sold{"2026-03-10T10:00Z", "EMEA", "France", "A1", "EUR", 1, 1, 100, 0, 0})
	if a = s.ask(t, "from", "2026-03-10T10:00Z", "to", "2026-03-10T11:00Z"); !a.Rows[0].Partial {
		t.Error("a period is whole though nothing is known to be complete")
	}
	s.complete(t, "2026-03-10T11:00:00Z", "public.order_items")
	a = s.ask(t, "from", "2026-03-10T10:00Z", "to", "2026-03-10T12:00Z")
	if a.Rows[0].Partial || !a.Rows[1].Partial || a.Complete || len(a.Incomplete) != 1 {
		t.Errorf("a stopped table: %+v", a)
	}
	f := decode[freshnessAnswer](t, s.get(t, "/v1/freshness").body)
	if g := f.Sinks[0]; len(f.Sinks) != 1 || g.Sink != "postgres" || g.Status != "late" || *g.AgeSeconds != 6005 || *g.SourceLSN != "0/16B3748" || g.Incomplete[0] != "public.order_items" {
		t.Errorf("freshness: %+v", f)
	}
	s.complete(t, "2026-03-10T12:40:07Z")
	if g := decode[freshnessAnswer](t, s.get(t, "/v1/freshness").body).Sinks[0]; g.Status != "fresh" || *g.AgeSeconds != 0 {
		t.Errorf("a source whose clock is ahead: %+v", g)
	}
}

// TestZones has one line in every quarter of an hour around a change of the clock: each row must have as many lines as
// it has quarters, and the rows are what the wall clock shows.
func TestZones(t *testing.T) {
	s := open(t, at("2026-12-01T00:00:00Z"))
	for _, around := range []string{"2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01"} {
		s.exec(t, `INSERT INTO millrace.cells (cell, region, country, product_code, currency, shard, lines, cancelled_lines, units, cancelled_units, gross_minor, cancelled_minor)
			SELECT q, 'r', 'c', 'p', 'EUR', 0, 1, 0, 1, 0, 100, 0 FROM generate_series($1::text::timestamptz - interval '36 hours', $1::text::timestamptz + interval '36 hours', '15 minutes') AS q`, around+"T00:00Z")
	}
	s.complete(t, "2026-12-01T00:00:00Z")
	cases := []struct{ zone, from, to, grain, want string }{
		{"Asia/Kolkata", "2026-03-08T09:00", "2026-03-08T11:00", "hour", "08T09:00+05:30 4|08T10:00+05:30 4"},
		{"Asia/Kolkata", "2026-03-08", "2026-03-09", "day", "08T00:00+05:30 96"},
		{"America/St_Johns", "2026-03-08T01:00", "2026-03-08T04:00", "hour", "08T01:00-03:30 4|08T03:00-02:30 4"},
		{"America/St_Johns", "2026-11-01T01:00", "2026-11-01T02:00", "hour", "01T01:00-02:30 4|01T01:00-03:30 4"},
		{"America/St_Johns", "2026-11-01", "2026-11-02", "day", "01T00:00-02:30 100"},
		{"Europe/Berlin", "2026-03-29T01:00", "2026-03-29T04:00", "hour", "29T01:00+01:00 4|29T03:00+02:00 4"},
		{"Europe/Berlin", "2026-03-29", "2026-03-30", "day", "29T00:00+01:00 92"},
		{"Europe/Berlin", "2026-10-25T02:00", "2026-10-25T03:00", "hour", "25T02:00+02:00 4|25T02:00+01:00 4"},
		{"Europe/Berlin", "2026-10-25", "2026-10-26", "day", "25T00:00+02:00 100"},
		{"Australia/Lord_Howe", "2026-10-04T01:00", "2026-10-04T04:00", "hour", "04T01:00+10:30 4|04T02:30+11:00 2|04T03:00+11:00 4"},
		{"Australia/Lord_Howe", "2026-04-05T01:00", "2026-04-05T03:00", "hour", "05T01:00+11:00 4|05T01:30+10:30 2|05T02:00+10:30 4"},
		{"Australia/Lord_Howe", "2026-10-04", "2026-10-05", "day", "04T00:00+10:30 94"},
		{"Asia/Kathmandu", "2026-10-25T12:10", "2026-10-25T13:05", "hour", "25T12:00+05:45 4|25T13:00+05:45 1"},
	}
	for _, c := range cases {
		var got []string
		for _, r := range s.ask(t, "tz", c.zone, "from", c.from, "to", c.to, "grain", c.grain).Rows {
			got = append(got, fmt.Sprintf("%s %d", r.Start.Format("02T15:04-07:00"), r.Lines))
		}
		if all := strings.Join(got, "|"); all != c.want {
			t.Errorf("%s %s: got %s, want %s", c.zone, c.from, all, c.want)
		}
	}
	if n := len(s.ask(t, "tz", "Europe/Berlin", "from", "2026-10-25", "to", "2026-10-26").Rows); n != 25 {
		t.Errorf("the long day has %d hours", n)
	}
}

func TestCSVEqualsJSON(t *testing.T) {
	s := open(t, at("2026-03-10T12:40:05Z"))
	fill(t, s)
	s.product(t, "ghost", "=HYPERLINK(\"x\"), \"quoted\"\nline", "@cat")
	for _, by := range []string{"", "region,country,category,product", "product"} {
		query := encoded("group_by", by, "tz", "Asia/Kolkata")
		a := decode[salesAnswer](t, s.get(t, "/v1/sales?"+query).body)
		r := s.get(t, "/v1/sales?"+query, "Accept", "text/csv, */*;q=0.1")
		if kind := r.header.Get("Content-Type"); !strings.HasPrefix(kind, "text/csv") || !strings.Contains(r.header.Get("Content-Disposition"), ".csv") {
			t.Errorf("header: %v", r.header)
		}
		if other := s.get(t, "/v1/sales?"+query+"&format=csv", "Accept", "application/json"); other.body != r.body {
			t.Error("format=csv is another answer than Accept: text/csv")
		}
		records, err := csv.NewReader(strings.NewReader(r.body)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if len(records) != len(a.Rows)+1 || len(a.Rows) == 0 {
			t.Fatalf("%d records for %d rows", len(records), len(a.Rows))
		}
		column := func(record []string, name string) string {
			i := slices.Index(records[0], name)
			if i < 0 {
				return "none"
			}
			return record[i]
		}
		for i, row := range a.Rows {
			record := records[i+1]
			want := map[string]string{"start": row.Start.Format(time.RFC3339), "end": row.End.Format(time.RFC3339), "partial": strconv.FormatBool(row.Partial),
				"currency": row.Currency, "lines": strconv.FormatInt(row.Lines, 10), "units": strconv.FormatInt(row.Units, 10), "gross": row.Gross, "net": row.Net,
				"cancelled": row.Cancelled, "valid_through": "2026-03-10T12:40:00Z", "complete": "true", "orders": "none"}
			if row.Orders != nil {
				want["orders"] = strconv.FormatInt(*row.Orders, 10)
			}
			if row.ProductName != nil {
				want["product_name"] = harmless(*row.ProductName)
			}
			for name, value := range want {
				if got := column(record, name); got != value {
					t.Errorf("row %d: %s is %q, want %q", i, name, got, value)
				}
			}
		}
	}
	if r := s.get(t, "/v1/sales", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8"); r.header.Get("Content-Type") != "application/json" {
		t.Errorf("a browser gets %s", r.header.Get("Content-Type"))
	}
	if harmless("=1+1") != "'=1+1" || harmless("plain") != "plain" || harmless("") != "" {
		t.Error("formulas go through")
	}
}

func TestETag(t *testing.T) {
	s := open(t, at("2026-03-10T12:40:05Z"))
	fill(t, s)
	first := s.get(t, "/v1/sales")
	tag := first.header.Get("ETag")
	if r := s.get(t, "/v1/sales", "If-None-Match", `"other", `+tag); r.status != http.StatusNotModified || r.body != "" || r.header.Get("ETag") != tag {
		t.Errorf("the same: %d", r.status)
	}
	for _, path := range []string{"/v1/sales?tz=Asia/Kolkata", "/v1/sales?format=csv", "/v1/sales?group_by=region"} {
		if r := s.get(t, path, "If-None-Match", tag); r.status != http.StatusOK {
			t.Errorf("%s: %d", path, r.status)
		}
	}
	s.complete(t, "2026-03-10T12:40:01Z")
	if r := s.get(t, "/v1/sales", "If-None-Match", tag); r.status != http.StatusOK {
		t.Errorf("complete for longer: %d", r.status)
	}
	tag = s.get(t, "/v1/sales").header.Get("ETag")
	s.sell(t, sold{"2026-03-10T10:00Z", "EMEA", "France", "A1", "EUR", 1, 1, 100, 0, 0}) // as a repair does: nothing says so
	if r := s.get(t, "/v1/sales", "If-None-Match", tag); r.status != http.StatusOK {
		t.Errorf("another number: %d", r.status)
	}
}

func TestFiltersAreOnlyValues(t *testing.T) {
	s := open(t, at("2026-03-10T12:40:05Z"))
	odd := []string{"'; DROP TABLE millrace.cells; --", `"a" OR 1=1`, "Côte d’Ivoire", "日本", "%", "a,b", "{x,NULL}", `\`, "$1", "  spaces ", "NULL", "😀&=#+"}
	for i, country := range odd {
		s.sell(t, sold{"2026-03-10T10:00Z", "r", country, "p", "EUR", 1, int64(i + 1), 100, 0, 0})
	}
	for i, country := range odd {
		a := s.ask(t, "country", country, "group_by", "country")
		if len(a.Rows) != 1 || *a.Rows[0].Country != country || a.Rows[0].Units != int64(i+1) {
			t.Errorf("%q: %s", country, show(a.Rows))
		}
	}
	if n := len(s.ask(t, "group_by", "country").Rows); n != len(odd) {
		t.Errorf("%d countries are left of %d", n, len(odd))
	}
}

func TestBadRequests(t *testing.T) {
	s := open(t, at("2026-03-10T12:40:05Z"))
	long := strings.Repeat("x", maxValueBytes+1)
	for query, where := range map[string]string{
		"from=SECRET":                             "query.from",
		"to=2026-02-30":                           "query.to",
		"from=2026-03-10&to=2026-03-10":           "query.from",
		"from=2027-01-01":                         "query.from",
		"from=2024-01-01":                         "query.from",
		"from=2001-01-01&to=2026-01-01&grain=day": "query.from",
		"from=2026-01-01&from=2026-01-02":         "query.from",
		"tz=Mars/SECRET":                          "query.tz",
		"tz=Local":                                "query.tz",
		"grain=SECRET":                            "query.grain",
		"format=SECRET":                           "query.format",
		"group_by=SECRET":                         "query.group_by",
		"group_by=region,SECRET":                  "query.group_by",
		"region=a%00SECRET":                       "query.region",
		"country=%ff%feSECRET":                    "query.country",
		"product=" + long:                         "query.product",
		"regoin=SECRET":                           "query",
		"region=%zz":                              "query",
		"category=" + strings.Repeat("a&category=", maxValues+1): "",
	} {
		r := s.get(t, "/v1/sales?"+query)
		if where == "" { // repeats of one value are one
			if r.status != http.StatusOK {
				t.Errorf("%.40s: %d", query, r.status)
			}
			continue
		}
		if r.status != http.StatusUnprocessableEntity || r.header.Get("Content-Type") != "application/problem+json" ||
			!strings.Contains(r.body, `"location":"`+where+`"`) || strings.Contains(r.body, "SECRET") || strings.Contains(r.body, "xxxx") {
			t.Errorf("%.60s: %d %s", query, r.status, r.body)
		}
	}
	for _, path := range []string{"/v1/sales/summary?limit=0", "/v1/sales/summary?limit=101", "/v1/freshness?x=1", "/v1/dimensions?x=1", "/v1/sales/live?x=1"} {
		if r := s.get(t, path); r.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", path, r.status)
		}
	}
}

func TestTooManyRows(t *testing.T) {
	s := open(t, at("2026-03-10T12:40:05Z"))
	s.service.cfg.MaxRows = 100
	s.sell(t, sold{"2026-03-10T10:00Z", "r", "c", "p", "EUR", 1, 1, 100, 0, 0})
	if r := s.get(t, "/v1/sales?from=2026-03-01&to=2026-03-11"); r.status != http.StatusUnprocessableEntity || !strings.Contains(r.body, "more than 100 rows") {
		t.Errorf("hours: %d %s", r.status, r.body)
	}
	s.exec(t, `INSERT INTO millrace.cells (cell, region, country, product_code, currency, shard, lines, cancelled_lines, units, cancelled_units, gross_minor, cancelled_minor)
		SELECT '2026-03-10T10:00Z', 'r', 'c', 'p' || i, 'EUR', 0, 1, 0, 1, 0, 100, 0 FROM generate_series(1, 100) AS i`)
	if r := s.get(t, "/v1/sales?group_by=product"); r.status != http.StatusUnprocessableEntity {
		t.Errorf("products: %d", r.status)
	}
	if r := s.get(t, "/v1/sales?group_by=category"); r.status != http.StatusOK {
		t.Errorf("categories: %d %s", r.status, r.body)
	}
}
