package evolve

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// makeTable makes a table of "name kind" columns, the first of which is the key.
func makeTable(columns ...rows.Column) rows.Table {
	t := rows.Table{Schema: "public", Name: "t"}
	for i, c := range columns {
		c.Field, c.Key = rows.FieldName(c.Name), i == 0
		t.Columns = append(t.Columns, c)
	}
	return t
}

func version(t *testing.T, table rows.Table) Version {
	t.Helper()
	v, err := Parse(table.ValueSchema())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func column(name string, kind rows.Kind) rows.Column { return rows.Column{Name: name, Kind: kind} }

func names(t rows.Table) (out []string) {
	for _, c := range t.Columns {
		out = append(out, c.Name)
	}
	return out
}

// step is the next version of a table, whose columns have the numbers.
func step(t *testing.T, next rows.Table, numbers map[string]int16, before *Version) (rows.Table, Version) {
	t.Helper()
	next.Lineage = Trace(names(next), numbers, before)
	return next, version(t, next)
}

func TestRenamesAreRecognised(t *testing.T) {
	_, one := step(t, makeTable(column("id", rows.Int), column("phone", rows.String), column("note", rows.String)),
		map[string]int16{"id": 1, "phone": 2, "note": 3}, nil)
	_, two := step(t, makeTable(column("id", rows.Int), column("tel", rows.String), column("note", rows.String)),
		map[string]int16{"id": 1, "tel": 2, "note": 3}, &one)
	if f := two.field("tel"); !slices.Equal(f.Aliases, []string{"phone"}) || !slices.Equal(f.Formerly, []string{"phone"}) {
		t.Fatalf("%+v", f)
	}
	if got := Diff(one, two); len(got) != 1 || got[0].String() != "column phone renamed to tel" {
		t.Errorf("%v", got)
	}
	// The names stay when the catalog says nothing, and grow by the next rename.
	_, three := step(t, makeTable(column("id", rows.Int), column("tel", rows.String)), nil, &two)
	if f := three.field("tel"); f.Number != 2 || !slices.Equal(f.Aliases, []string{"phone"}) {
		t.Errorf("%+v", f)
	}
	_, four := step(t, makeTable(column("id", rows.Int), column("mobile", rows.String)), map[string]int16{"id": 1, "mobile": 2}, &three)
	if f := four.field("mobile"); !slices.Equal(f.Aliases, []string{"phone", "tel"}) {
		t.Errorf("%+v", f)
	}
	// A new column under an old name takes the alias, and the memory of it stays.
	_, five := step(t, makeTable(column("id", rows.Int), column("mobile", rows.String), column("phone", rows.String)),
		map[string]int16{"id": 1, "mobile": 2, "phone": 4}, &four)
	if f := five.field("mobile"); !slices.Equal(f.Aliases, []string{"tel"}) || !slices.Equal(f.Formerly, []string{"phone", "tel"}) {
		t.Errorf("%+v", f)
	}
	// A column that is dropped and another that is added are two columns.
	_, six := step(t, makeTable(column("id", rows.Int), column("fax", rows.String)), map[string]int16{"id": 1, "fax": 5}, &five)
	if f := six.field("fax"); f.Aliases != nil || f.Formerly != nil {
		t.Errorf("%+v", f)
	}
}

func TestRenamesOfHiddenColumnsAreRecognised(t *testing.T) {
	hidden := rows.Column{Name: "ssn", Treatment: rows.Treatment{Handling: rows.Excluded}}
	_, one := step(t, makeTable(column("id", rows.Int), hidden), map[string]int16{"id": 1, "ssn": 2}, nil)
	if one.field("ssn") != nil || one.Hidden["ssn"].Number != 2 {
		t.Fatalf("%+v", one)
	}
	l := Trace([]string{"id", "number"}, map[string]int16{"id": 1, "number": 2}, &one)
	if !slices.Equal(l.Formerly["number"], []string{"ssn"}) {
		t.Fatalf("%+v", l)
	}
	hidden.Name = "number"
	_, two := step(t, makeTable(column("id", rows.Int), hidden), map[string]int16{"id": 1, "number": 2}, &one)
	if l := Trace([]string{"id", "n"}, map[string]int16{"id": 1, "n": 2}, &two); !slices.Equal(l.Formerly["n"], []string{"ssn", "number"}) {
		t.Errorf("%+v", l)
	}
}

func TestFollows(t *testing.T) {
	decimal := func(p, s int) rows.Column { return rows.Column{Name: "c", Kind: rows.Decimal, Precision: p, Scale: s} }
	for _, c := range []struct {
		name          string
		before, after rows.Column
		want          string // of the problem; "" for none
	}{
		{"int4 to int8", column("c", rows.Int), column("c", rows.Long), ""},
		{"int8 to int4", column("c", rows.Long), column("c", rows.Int), "no values of the other"},
		{"int4 to float8", column("c", rows.Int), column("c", rows.Double), ""},
		{"int8 to float8 loses digits", column("c", rows.Long), column("c", rows.Double), "no values"},
		{"float4 to float8", column("c", rows.Float), column("c", rows.Double), ""},
		{"more digits", decimal(10, 2), decimal(12, 2), ""},
		{"fewer digits", decimal(12, 2), decimal(10, 2), "fewer digits"},
		{"another scale", decimal(12, 2), decimal(12, 3), "scale is another"},
		{"decimal to text", decimal(12, 2), column("c", rows.String), "no values"},
		{"a text of any length", column("c", rows.String), column("c", rows.String), ""},
		{"text to bytes", column("c", rows.String), column("c", rows.Bytes), "no values"},
		{"date to int, which Avro would allow", column("c", rows.Date), column("c", rows.Int), "no values"},
		{"timestamp to timestamptz, which Avro would allow", column("c", rows.LocalTimestamp), column("c", rows.Timestamp), "no values"},
		{"text to token", column("c", rows.String), column("c", rows.Token), ""},
	} {
		before, after := version(t, makeTable(column("id", rows.Int), c.before)), version(t, makeTable(column("id", rows.Int), c.after))
		err := Check([]Version{before}, after)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestFollowsNestedTypes(t *testing.T) {
	array := func(items any) any { return map[string]any{"type": "array", "items": []any{"null", items}} }
	enum := func(symbols ...any) any { return map[string]any{"type": "enum", "name": "E", "symbols": symbols} }
	for _, c := range []struct {
		before, after any
		want          bool
	}{
		{array("int"), array("long"), true},
		{array("long"), array("int"), false},
		{enum("a"), enum("b", "a"), true},
		{enum("a", "b"), enum("a"), false},
		{enum("a"), "string", true},
		{[]any{"int", "string"}, []any{"string", "long"}, true},
		{[]any{"int", "string"}, "long", false},
		{map[string]any{"type": "string", "connect.name": "x"}, "string", true},
	} {
		if got := Follows(c.before, c.after) == ""; got != c.want {
			t.Errorf("%v to %v: %v", c.before, c.after, got)
		}
	}
}

func TestAllVersionsAreLookedAt(t *testing.T) {
	one := version(t, makeTable(column("id", rows.Int), rows.Column{Name: "c", Kind: rows.Decimal, Precision: 9, Scale: 2}))
	two := version(t, makeTable(column("id", rows.Int)))
	three := version(t, makeTable(column("id", rows.Int), rows.Column{Name: "c", Kind: rows.Decimal, Precision: 9, Scale: 3}))
	if err := Check([]Version{one, two}, three); err == nil || !strings.Contains(err.Error(), "version 1") {
		t.Errorf("%v", err)
	}
}

func TestDiff(t *testing.T) {
	one := version(t, makeTable(column("id", rows.Int), column("a", rows.Int), column("b", rows.String)))
	masked := column("b", rows.String)
	masked.Treatment = rows.Treatment{Handling: rows.Masked}
	two := version(t, makeTable(column("id", rows.Int), masked, column("c", rows.Date)))
	var got []string
	for _, c := range Diff(one, two) {
		got = append(got, c.String())
	}
	want := "column b treated (clear → mask)|column c added (date)|column a dropped (int)"
	if strings.Join(got, "|") != want {
		t.Errorf("%s", strings.Join(got, "|"))
	}
}

func TestParseRefusesOtherSchemas(t *testing.T) {
	for _, s := range []string{"", `"string"`, `[]`, `{"type":"record"}`, `null`} {
		if v, err := Parse(s); err == nil {
			t.Errorf("%s: %+v", s, v)
		}
	}
}
