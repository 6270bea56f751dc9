package rows

import (
	"slices"
	"testing"

	"github.com/twmb/avro"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

func parsed(t *testing.T, schema string) *avro.Schema {
	t.Helper()
	s, err := avro.Parse(schema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tokens treats columns as personal, and the others as harmless.
func tokens(columns ...string) func(string) Treatment {
	return func(c string) Treatment {
		if slices.Contains(columns, c) {
			return Treatment{Handling: Tokenised}
		}
		return Treatment{}
	}
}

// What an encoder of a derived table writes is what one of the table itself writes.
func TestTablesAreDerivedFromTheirSchemas(t *testing.T) {
	table := Table{Schema: "public", Name: "kinds"}
	row := []pgoutput.Datum{}
	for _, c := range []struct {
		name, text string
		column     Column
	}{
		{"id", "7", Column{Kind: Long, Key: true}}, {"k", "x", Column{Key: true}}, {"i", "1", Column{Kind: Int}}, {"b", "t", Column{Kind: Boolean}},
		{"f", "1.5", Column{Kind: Float}}, {"d", "2.5", Column{Kind: Double}}, {"n", "12.50", Column{Kind: Decimal, Precision: 10, Scale: 2}},
		{"day", "2024-01-02", Column{Kind: Date}}, {"ts", "2024-01-02 03:04:05+00", Column{Kind: Timestamp}},
		{"loc", "2024-01-02 03:04:05", Column{Kind: LocalTimestamp}}, {"raw", `\x00ff`, Column{Kind: Bytes}}, {"email", "a@b.example", Column{Kind: Token}},
		{"at", "03:04:05", Column{Kind: Time}}, {"j", "{}", Column{Semantic: "io.debezium.data.Json"}},
		{"list", "{1,NULL,3}", Column{Kind: Array, Elem: Int, Delimiter: ','}}, {"h", `"a"=>"1"`, Column{Kind: Map}}, {"v", "[1,2]", Column{Kind: Vector}},
	} {
		c.column.Name, c.column.Field = c.name, c.name
		table.Columns = append(table.Columns, c.column)
		row = append(row, text(c.text))
	}
	derived, err := Derive("public", "kinds", parsed(t, table.KeySchema()), parsed(t, table.ValueSchema()), tokens("email"))
	if err != nil {
		t.Fatal(err)
	}
	keys := testKeys(t)
	want, got := NewEncoder(table, Origin{}, keys, 1, 2), NewEncoder(derived, Origin{}, keys, 1, 2)
	ev := Event{Op: 'r', After: row, Mark: "files", Seq: 5}
	a, err := want.AppendValue(nil, &ev)
	if err != nil {
		t.Fatal(err)
	}
	after, err := got.AppendRow(nil, row)
	if err != nil {
		t.Fatal(err)
	}
	if b := got.AppendValueOf(nil, after, &ev); string(a) != string(b) {
		t.Errorf("%x\n%x", a, b)
	}
	a, err = want.AppendKey(nil, row)
	if b, err2 := got.AppendKey(nil, row); err != nil || err2 != nil || string(a) != string(b) {
		t.Errorf("%x, %v\n%x, %v", a, err, b, err2)
	}
}

func TestSchemasThatCannotBeWrittenAreRefused(t *testing.T) {
	table := Table{Schema: "public", Name: "t", Columns: []Column{{Name: "id", Field: "id", Kind: Int, Key: true}}}
	other := `{"type":"record","name":"Envelope","namespace":"store.public.t","fields":[{"name":"before","type":["null",{"type":"record","name":"Value",
		"fields":[{"name":"id","type":{"type":"enum","name":"E","symbols":["a"]}}]}]},{"name":"after","type":["null","Value"]}]}`
	for _, value := range []string{other, `{"type":"record","name":"Value","fields":[{"name":"id","type":"int"}]}`} {
		if _, err := Derive("public", "t", parsed(t, table.KeySchema()), parsed(t, value), tokens()); err == nil {
			t.Errorf("%s is taken", value)
		}
	}
}
