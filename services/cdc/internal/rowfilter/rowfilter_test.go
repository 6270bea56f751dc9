package rowfilter

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

var columns = []Column{{Name: "id", Class: NumberClass, Key: true}, {Name: "status", Class: TextClass}, {Name: "total"}, {Name: "paid", Class: BoolClass}, {Name: "Odd name"}}

// row makes a row of the columns; ~ is null, ? is a large value that the log does not repeat.
func row(values string) []pgoutput.Datum {
	var out []pgoutput.Datum
	for _, v := range strings.Split(values, "|") {
		switch v {
		case "~":
			out = append(out, pgoutput.Datum{Kind: pgoutput.Null})
		case "?":
			out = append(out, pgoutput.Datum{Kind: pgoutput.Unchanged})
		default:
			out = append(out, pgoutput.Datum{Kind: pgoutput.Text, Data: []byte(v)})
		}
	}
	return out
}

func bind(t *testing.T, expression string) *Bound {
	t.Helper()
	f, err := Parse(expression)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	b, err := f.Bind(columns)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return b
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		expression, row string
		want            bool
	}{
		{"id = 7", "7|a|~|t|~", true},
		{"id = 7.0", "7|a|~|t|~", true},
		{"id <> 7", "70|a|~|t|~", true},
		{"id > -3", "-2|a|~|t|~", true},
		{"id < -3", "-20|a|~|t|~", true},
		{"id >= 9", "10|a|~|t|~", true}, // not as texts
		{"id != 9", "9|a|~|t|~", false},
		{"total > 0.1", "1|a|0.10000000000000000000000000001|t|~", true},
		{"total = 100", "1|a|100.000|t|~", true},
		{"total = 0", "1|a|-0.00|t|~", true},
		{"total > 999999", "1|a|NaN|t|~", true}, // as in PostgreSQL
		{"total < 0", "1|a|-Infinity|t|~", true},
		{"total < 0.5", "1|a|1e-07|t|~", true},
		{"total > 1000000", "1|a|1.5e+20|t|~", true},
		{"status = 'Shipped'", "1|Shipped|~|t|~", true},
		{"status = 'it''s'", "1|it's|~|t|~", true},
		{"status < 'b'", "1|a|~|t|~", true},
		{"status in ('a', 'b')", "1|b|~|t|~", true},
		{"status not in ('a', 'b')", "1|b|~|t|~", false},
		{"status not in ('a')", "1|~|~|t|~", false}, // null is not known to be another
		{"status is null", "1|~|~|t|~", true},
		{"status IS NOT NULL", "1|~|~|t|~", false},
		{"not status = 'a'", "1|~|~|t|~", false},
		{"status = 'a' or id = 1", "1|~|~|t|~", true},
		{"status = 'a' and id = 1", "1|~|~|t|~", false},
		{"not (status = 'a' and id = 2)", "1|~|~|t|~", true}, // false and unknown is false
		{"paid = true", "1|a|~|t|~", true},
		{"paid <> false", "1|a|~|f|~", false},
		{`"Odd name" = 'x'`, "1|a|~|t|x", true},
		{"ID = 1 AND STATUS = 'a'", "1|a|~|t|x", true},
		{"id = 1 or id = 2 and status = 'b'", "1|a|~|t|x", true}, // AND binds closer
	} {
		got, err := bind(t, c.expression).Match(row(c.row))
		if err != nil || got != c.want {
			t.Errorf("%s on %s: %v, %v", c.expression, c.row, got, err)
		}
	}
	if _, err := bind(t, "status = 'a'").Match(row("1|?|~|t|~")); !errors.Is(err, ErrUndecided) {
		t.Errorf("a value that is not there: %v", err)
	}
	_, err := bind(t, "total = 1").Match(row("1|a|secret|t|~"))
	if !errors.Is(err, ErrNotNumber) || strings.Contains(err.Error(), "secret") {
		t.Errorf("a number that is none: %v", err)
	}
}

func TestParseErrorsNameTheirPlace(t *testing.T) {
	for expression, want := range map[string]string{
		"":                       "character 1: expected a column",
		"status":                 "character 7: expected a comparison",
		"status =":               "character 9: expected a number",
		"status = draft":         "character 10: expected a number, a text in single quotes",
		"status = 'draft":        "character 10: a quote that is not closed",
		"status = null":          "character 10: nothing equals null",
		"(status = 'a'":          "character 14: expected a closing parenthesis",
		"status = 'a' id = 1":    "character 14: expected and, or",
		"id = 1x":                "character 6: this is no number",
		"id in ()":               "character 8: expected a number",
		"id = 1; drop table x":   "character 7: expected and, or",
		"lower(status) = 'a'":    "character 6: expected a comparison",
		"and = 1":                "character 1: expected a column",
		strings.Repeat("(", 500): "nested deeper than",
	} {
		if _, err := Parse(expression); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", expression, err, want)
		}
	}
}

func TestBindRefusesWhatCannotBeCompared(t *testing.T) {
	for expression, want := range map[string]string{
		"missing = 1": "missing, which the table does not have",
		"id = '1'":    "id, a number",
		"status = 1":  "status, a text",
		"paid = 't'":  "paid, a boolean",
	} {
		f, err := Parse(expression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Bind(columns); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", expression, err)
		}
	}
}

func TestChange(t *testing.T) {
	for _, c := range []struct {
		name, filter string
		op           byte
		kind         byte
		old, new     string
		moved        bool
		want         Verdict
	}{
		{"insert in", "status = 'a'", 'I', 0, "", "1|a|~|t|~", false, Pass},
		{"insert out", "status = 'a'", 'I', 0, "", "1|b|~|t|~", false, Drop},
		{"update within", "status = 'a'", 'U', 'O', "1|a|~|t|~", "1|a|5|t|~", false, Pass},
		{"update enters", "status = 'a'", 'U', 'O', "1|b|~|t|~", "1|a|5|t|~", false, Enter},
		{"update leaves", "status = 'a'", 'U', 'O', "1|a|~|t|~", "1|b|5|t|~", false, Leave},
		{"update outside", "status = 'a'", 'U', 'O', "1|b|~|t|~", "1|b|5|t|~", false, Drop},
		{"default identity, now in", "status = 'a'", 'U', 0, "", "1|a|5|t|~", false, Pass},
		{"default identity, now out", "status = 'a'", 'U', 0, "", "1|b|5|t|~", false, Leave},
		{"default identity, filter on the key, out", "id < 5", 'U', 0, "", "9|b|5|t|~", false, Drop},
		{"key leaves", "id < 5", 'U', 'K', "1|~|~|~|~", "9|b|5|t|~", true, Leave},
		{"key enters", "id < 5", 'U', 'K', "9|~|~|~|~", "1|b|5|t|~", true, Enter},
		{"key moves outside", "id < 5", 'U', 'K', "9|~|~|~|~", "8|b|5|t|~", true, Drop},
		{"key moves, old row unknown", "status = 'a'", 'U', 'K', "9|~|~|~|~", "8|a|5|t|~", true, Pass},
		{"delete within", "status = 'a'", 'D', 'O', "1|a|~|t|~", "", false, Pass},
		{"delete outside", "status = 'a'", 'D', 'O', "1|b|~|t|~", "", false, Drop},
		{"delete, old row unknown", "status = 'a'", 'D', 'K', "1|~|~|~|~", "", false, Pass},
	} {
		change := &pgoutput.Change{Op: c.op, OldKind: c.kind}
		if c.old != "" {
			change.Old = row(c.old)
		}
		if c.new != "" {
			change.New = row(c.new)
		}
		got, err := bind(t, c.filter).Change(change, c.moved)
		if err != nil || got != c.want {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"id = 1", "a in ('x', -2.5) and not (b is null or \"C\" <> true)", "'", "((((", "a=1e", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		filter, err := Parse(s)
		if err != nil {
			return
		}
		var cs []Column
		for _, c := range filter.Columns() {
			cs = append(cs, Column{Name: c})
		}
		b, err := filter.Bind(cs)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		for _, v := range []string{"~", "1", "-0.5", "x", "?"} {
			_, _ = b.Match(row(strings.TrimSuffix(strings.Repeat(v+"|", len(cs)), "|")))
		}
	})
}
