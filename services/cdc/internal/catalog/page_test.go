package catalog_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

//go:generate go test -run TestEveryTypeIsReadAsSQLSaysItIs . -update

var update = flag.Bool("update", false, "write docs/cdc-types.md instead of comparing it")

const (
	pageFile    = "../../../../docs/cdc-types.md"
	pageVersion = 18 // the table is what this version of PostgreSQL has
	pageBegin   = "<!-- generated: types -->\n"
	pageEnd     = "<!-- end of generated -->\n"
)

// described is a line of the page.
type described struct {
	typeCase
	columns [3]rows.Column // by set of modes
	text    []byte         // PostgreSQL's, of the first value
}

func (s *source) described(t *testing.T, table catalog.Table, copied [][]pgoutput.Datum) []described {
	t.Helper()
	var out []described
	for i, c := range s.cases {
		d := described{typeCase: c, text: copied[0][i+1].Data}
		for mode, m := range modes() {
			d.columns[mode] = table.Rows(noPersonal, catalog.Options{Modes: m}).Columns[i+1]
		}
		out = append(out, d)
	}
	return out
}

// extensions checks types of extensions that are not here against the text that they print, which was taken down.
func extensions(t *testing.T, cases []typeCase) []described {
	t.Helper()
	var out []described
	for _, c := range cases {
		d := described{typeCase: c, text: []byte(c.values[0])}
		for mode, m := range modes() {
			d.columns[mode] = c.captured.Column(m)
			d.columns[mode].Name, d.columns[mode].Field = "v", "v"
		}
		table := rows.Table{Schema: "public", Name: "t", Columns: []rows.Column{{Name: "id", Field: "id", Kind: rows.Int, Key: true}, d.columns[0]}}
		decoder := newDecoder(t, table)
		for i, text := range c.values {
			got := decoder.row(t, []pgoutput.Datum{{Kind: pgoutput.Text, Data: []byte("1")}, {Kind: pgoutput.Text, Data: []byte(text)}})
			if want := fromJSON(t, []byte(c.wants[i])); !equalFloat32(got[1], want) {
				t.Errorf("%s: %q is %v, want %v", c.sql, text, got[1], want)
			}
		}
		out = append(out, d)
	}
	return out
}

// equalFloat32 is equal for lists of floats, whose text in JSON is not exact.
func equalFloat32(got, want any) bool {
	list, ok := got.([]any)
	if !ok || len(list) == 0 {
		return equal(got, want)
	}
	if _, ok := list[0].(float64); !ok {
		return equal(got, want)
	}
	return fmt.Sprint(rounded(list)) == fmt.Sprint(rounded(want.([]any)))
}

func rounded(list []any) []string {
	var out []string
	for _, v := range list {
		var f float64
		_, _ = fmt.Sscan(fmt.Sprint(v), &f) // a text that is none stays 0, and differs
		out = append(out, fmt.Sprintf("%.7g", f))
	}
	return out
}

// cells are the line's Avro type, example in Avro's JSON and what other modes have.
func (d described) cells(t *testing.T) []string {
	t.Helper()
	var others []string
	for mode, name := range modeNames(d.columns[0]) {
		if d.columns[mode+1] != d.columns[0] {
			others = append(others, fmt.Sprintf("%s: %s, %s", name, code(d.columns[mode+1].AvroType()), code(d.example(t, mode+1))))
		}
	}
	return []string{code(d.sql), code(d.columns[0].AvroType()), code(string(d.text)), code(d.example(t, 0)), strings.Join(others, "; "), d.note}
}

// modeNames are what the second and the third set of modes are called for a column.
func modeNames(c rows.Column) []string {
	if c.Kind == rows.Array {
		c.Kind = c.Elem
	}
	switch c.Kind {
	case rows.Bytes, rows.Geometry:
		return []string{"base64", "hex"}
	case rows.Date, rows.Time, rows.Timestamp, rows.LocalTimestamp:
		return []string{"connect", "isostring"}
	}
	return []string{"string", "double"}
}

// example is the first value as Avro's JSON has it, read by goavro.
func (d described) example(t *testing.T, mode int) string {
	t.Helper()
	c := d.columns[mode]
	c.Key, c.Name, c.Field = true, "v", "v"
	table := rows.Table{Schema: "public", Name: "t", Columns: []rows.Column{c}}
	key, err := rows.NewEncoder(table, rows.Origin{}, testKeys(t), 1, 2).AppendKey(nil, []pgoutput.Datum{{Kind: pgoutput.Text, Data: d.text}})
	if err != nil {
		t.Fatal(err)
	}
	codec := codecOf(t, strings.ReplaceAll(table.KeySchema(), `"logicalType":"decimal"`, `"was":"decimal"`)) // goavro's JSON of decimals is not Avro's
	native, _, err := codec.NativeFromBinary(key[5:])
	if err != nil {
		t.Fatal(err)
	}
	text, err := codec.TextualFromNative(nil, native)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(text), `{"v":`), "}")
}

// code is a text as code in a table's cell.
func code(text string) string {
	return "`" + strings.NewReplacer("|", `\|`, "\n", `\n`, "\t", `\t`).Replace(text) + "`"
}

// page compares the table in the docs with what the tests of this package have seen, or writes it.
func page(t *testing.T, lines []described) {
	t.Helper()
	var b strings.Builder
	b.WriteString("| type | Avro | a value | in Avro's JSON | other modes | notes |\n|---|---|---|---|---|---|\n")
	for _, d := range lines {
		b.WriteString("| " + strings.Join(d.cells(t), " | ") + " |\n")
	}
	have, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(have), pageBegin)
	table, tail, ok2 := strings.Cut(rest, pageEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", pageFile)
	}
	if table == b.String() {
		return
	}
	if !*update {
		t.Errorf("%s is not what the types are; run go generate ./services/cdc/internal/catalog", pageFile)
		return
	}
	if err := os.WriteFile(pageFile, []byte(head+pageBegin+b.String()+pageEnd+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
