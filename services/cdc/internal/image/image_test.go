package image

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/avro"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

func column(name string, kind rows.Kind, key bool) rows.Column {
	return rows.Column{Name: name, Field: name, Kind: kind, Key: key, Precision: 12, Scale: 3}
}

func items() rows.Table {
	return rows.Table{Schema: "public", Name: "items", Columns: []rows.Column{
		column("id", rows.Int, true), column("a", rows.String, false), column("n", rows.Decimal, false), column("ok", rows.Boolean, false),
		column("f", rows.Float, false), column("d", rows.Double, false), column("day", rows.Date, false), column("ts", rows.Timestamp, false),
		column("raw", rows.Bytes, false), column("big", rows.String, false)}}
}

type written struct {
	encoder *rows.Encoder
	layout  *Layout
}

func write(t testing.TB, table rows.Table, reader Reader) written {
	t.Helper()
	keys, err := privacy.NewKeys(privacy.Config{Key: config.Secret(strings.Repeat("2a", 32))})
	if err != nil {
		t.Fatal(err)
	}
	schema, err := avro.Parse(table.ValueSchema())
	if err != nil {
		t.Fatal(err)
	}
	layout, err := Compile(schema, reader)
	if err != nil {
		t.Fatal(err)
	}
	return written{rows.NewEncoder(table, rows.Origin{Version: "1", Name: "m", Database: "d"}, keys, 1, 2), layout}
}

// row is in the order of the table's columns; a column that values has not is null.
func (w written) row(values map[string]string) []pgoutput.Datum {
	var out []pgoutput.Datum
	for _, c := range w.encoder.Table.Columns {
		v, ok := values[c.Name]
		if !ok {
			out = append(out, pgoutput.Datum{Kind: pgoutput.Null})
			continue
		}
		out = append(out, pgoutput.Datum{Kind: pgoutput.Text, Data: []byte(v)})
	}
	return out
}

func (w written) body(t testing.TB, values map[string]string, ev rows.Event) []byte {
	t.Helper()
	ev.After = w.row(values)
	b, err := w.encoder.AppendValue(nil, &ev)
	if err != nil {
		t.Fatal(err)
	}
	return b[5:]
}

func (w written) image(t testing.TB, values map[string]string, unchanged ...string) Image {
	t.Helper()
	var out Image
	if err := w.layout.Read(w.body(t, values, rows.Event{Op: 'c', Seq: 5}), unchanged, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func fields(t rows.Table) (out []string) {
	for _, c := range t.Columns {
		out = append(out, c.Field)
	}
	return out
}

func random(r *rand.Rand) map[string]string {
	out := map[string]string{"id": strconv.Itoa(r.IntN(1000))}
	for name, value := range map[string]func() string{
		"a": func() string { return strings.Repeat("é", r.IntN(9)) }, "n": func() string { return strconv.Itoa(r.IntN(999)) + ".5" },
		"ok": func() string { return []string{"t", "f"}[r.IntN(2)] }, "f": func() string { return "1.5" }, "d": func() string { return strconv.Itoa(r.IntN(9)) },
		"day": func() string { return "2024-01-0" + strconv.Itoa(1+r.IntN(9)) }, "ts": func() string { return "2024-01-02 03:04:05.5+00" },
		"raw": func() string { return `\x00ff` }, "big": func() string { return strings.Repeat("x", r.IntN(3000)) },
	} {
		if r.IntN(4) > 0 {
			out[name] = value()
		}
	}
	return out
}

func TestSumsDoNotDependOnTheVersionOfTheTable(t *testing.T) {
	old := items()
	now := items()
	slices.Reverse(now.Columns)
	now.Columns = append(now.Columns, column("added", rows.String, false))
	for i := range now.Columns {
		if now.Columns[i].Name == "id" {
			now.Columns[i].Kind = rows.Long // widened
		}
		if now.Columns[i].Name == "a" {
			now.Columns[i].Field = "renamed"
		}
	}
	old.Columns = append(old.Columns, column("dropped", rows.Int, false))
	for _, large := range [][]string{nil, {"big", "raw"}} {
		reader := Reader{Fields: fields(now), Renamed: map[string]string{"a": "renamed"}, Large: large}
		before, after := write(t, old, reader), write(t, now, reader)
		r := rand.New(rand.NewPCG(1, 2))
		seen := map[string]map[string]string{}
		for range 2000 {
			values := random(r)
			x, y := before.image(t, values), after.image(t, values)
			if x.Sum != y.Sum || !bytes.Equal(x.Parts, y.Parts) || !x.Row || x.Seq != 5 {
				t.Fatalf("the sums of %v differ", values)
			}
			id := string(x.Sum[:]) + string(x.Parts)
			if other, ok := seen[id]; ok && !equal(other, values) {
				t.Fatalf("%v and %v have one sum", other, values)
			}
			seen[id] = values
			values["dropped"] = "7"
			if z := before.image(t, values); z.Sum != y.Sum {
				t.Fatal("a dropped column counts")
			}
			values["added"] = "7"
			if z := after.image(t, values); z.Sum == y.Sum {
				t.Fatal("an added column does not count")
			}
		}
	}
}

func equal(a, b map[string]string) bool {
	for _, k := range []string{"id", "a", "n", "ok", "f", "d", "day", "ts", "raw", "big"} {
		x, ok1 := a[k]
		y, ok2 := b[k]
		if x != y || ok1 != ok2 {
			return false
		}
	}
	return true
}

func TestUnchangedColumnsKeepWhatTheyWere(t *testing.T) {
	w := write(t, items(), Reader{Fields: fields(items()), Large: []string{"big", "raw"}})
	full := w.image(t, map[string]string{"id": "1", "a": "new", "big": "B", "raw": `\x01`})
	part := w.image(t, map[string]string{"id": "1", "a": "new", "raw": `\x01`}, "big")
	if Known(part.Parts) || !Known(full.Parts) || part.Sum != full.Sum {
		t.Fatal("what is known is told wrongly")
	}
	former := w.image(t, map[string]string{"id": "1", "a": "old", "big": "B"})
	Merge(former.Parts, part.Parts)
	if !bytes.Equal(part.Parts, full.Parts) {
		t.Error("the unchanged column is not that of before")
	}
	null := w.image(t, map[string]string{"id": "1", "a": "new", "raw": `\x01`})
	if bytes.Equal(null.Parts, full.Parts) {
		t.Error("null is taken for a value")
	}
}

func TestWhereAnEventStands(t *testing.T) {
	w := write(t, items(), Reader{Fields: fields(items())})
	var got Image
	streamed := w.body(t, map[string]string{"id": "1"}, rows.Event{Op: 'u', LSN: 100, TxID: "77:123", Seq: 9})
	if err := w.layout.Read(streamed, nil, &got); err != nil || got.Commit != 123 || got.Seq != 9 || got.Op != 'u' {
		t.Errorf("%+v, %v", got, err)
	}
	read := w.body(t, map[string]string{"id": "1"}, rows.Event{Op: 'r', LSN: 100, Snapshot: true})
	if err := w.layout.Read(read, nil, &got); err != nil || got.Commit != 99 || got.Op != 'r' {
		t.Errorf("%+v, %v", got, err)
	}
	gone, err := w.encoder.AppendValue(nil, &rows.Event{Op: 'd', Before: w.row(map[string]string{"id": "1"})})
	if err == nil {
		err = w.layout.Read(gone[5:], nil, &got)
	}
	if err != nil || got.Row || got.Op != 'd' {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestKeysAreReadAsPostgreSQLWritesThem(t *testing.T) {
	table := rows.Table{Schema: "public", Name: "k"}
	values := map[string]string{}
	for _, c := range []struct {
		kind   rows.Kind
		values string
	}{
		{rows.Int, "-5"}, {rows.Long, "9223372036854775807"}, {rows.String, "tab\t'quote"}, {rows.Boolean, "t"}, {rows.Double, "1.25"}, {rows.Float, "0.1"},
		{rows.Decimal, "-0.120"}, {rows.Decimal, "123456789.120"}, {rows.Date, "2024-02-29"}, {rows.Date, "infinity"},
		{rows.Timestamp, "2024-01-02 03:04:05.5+00"}, {rows.LocalTimestamp, "2024-01-02 03:04:05"}, {rows.LocalTimestamp, "-infinity"}, {rows.Bytes, `\x00ff`},
	} {
		name := "c" + strconv.Itoa(len(table.Columns))
		table.Columns = append(table.Columns, column(name, c.kind, true))
		values[name] = c.values
	}
	w := write(t, table, Reader{Fields: fields(table)})
	key, err := w.encoder.AppendKey(nil, w.row(values))
	if err != nil {
		t.Fatal(err)
	}
	schema, err := avro.Parse(table.KeySchema())
	if err != nil {
		t.Fatal(err)
	}
	layout, err := CompileKey(schema)
	if err != nil {
		t.Fatal(err)
	}
	columns, err := layout.Read(key[5:])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range columns {
		if c.Text != values[c.Field] {
			t.Errorf("%s is %q; want %q", c.Field, c.Text, values[c.Field])
		}
	}
	for n := range key[5:] {
		if _, err := layout.Read(key[5 : 5+n]); err == nil {
			t.Errorf("%d bytes of the key are taken as a key", n)
		}
	}
}

func TestTypesThatOthersWrite(t *testing.T) {
	schema, err := avro.Parse(`{"type":"record","name":"Envelope","namespace":"x.y","fields":[
		{"name":"before","type":["null",{"type":"record","name":"Value","fields":[
			{"name":"id","type":"int"},{"name":"list","type":["null",{"type":"array","items":["null","string"]}]},
			{"name":"map","type":{"type":"map","values":"long"}},{"name":"e","type":{"type":"enum","name":"E","symbols":["a","b"]}},
			{"name":"u","type":{"type":"fixed","name":"F","size":4}}, {"name":"e2","type":["null","E"]}]}]},
		{"name":"after","type":["null","Value"]},{"name":"op","type":"string"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Compile(schema, Reader{Fields: []string{"id", "list", "map", "e", "u", "e2"}})
	if err != nil {
		t.Fatal(err)
	}
	s := "a"
	body, err := schema.Encode(map[string]any{"before": nil, "op": "u", "after": map[string]any{"id": 3, "list": []any{nil, s}, "map": map[string]any{"k": 5},
		"e": "b", "u": []byte{1, 2, 3, 4}, "e2": "a"}})
	if err != nil {
		t.Fatal(err)
	}
	var got Image
	if err := l.Read(body, nil, &got); err != nil || !got.Row || got.Op != 'u' {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRowsWithoutEnvelope(t *testing.T) {
	schema, err := avro.Parse(`{"type":"record","name":"Value","fields":[{"name":"id","type":"int"},{"name":"a","type":["null","string"]},
		{"name":"__deleted","type":"string"},{"name":"__op","type":"string"},{"name":"__lsn","type":["null","long"]},{"name":"__seq","type":"long"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Compile(schema, Reader{Fields: []string{"id", "a"}})
	if err != nil {
		t.Fatal(err)
	}
	var first, second, gone Image
	for op, into := range map[string]*Image{"r": &first, "u": &second, "d": &gone} {
		body, err := schema.Encode(map[string]any{"id": 1, "a": "x", "__deleted": strconv.FormatBool(op == "d"), "__op": op, "__lsn": int64(len(op)), "__seq": 7})
		if err == nil {
			err = l.Read(body, nil, into)
		}
		if err != nil || into.Seq != 7 {
			t.Fatal(err, into.Seq)
		}
	}
	if !first.Row || first.Sum != second.Sum || gone.Row {
		t.Errorf("%+v, %+v, %+v", first, second, gone)
	}
}

func FuzzRead(f *testing.F) {
	w := write(f, items(), Reader{Fields: fields(items()), Large: []string{"big"}})
	f.Add(w.body(f, map[string]string{"id": "1", "big": "b"}, rows.Event{Op: 'u', TxID: "1:2"}))
	f.Fuzz(func(t *testing.T, body []byte) {
		var got Image
		if err := w.layout.Read(body, []string{"big"}, &got); err == nil && got.Row && len(got.Parts) != partSize {
			t.Error("a row without its parts")
		}
	})
}

func BenchmarkRead(b *testing.B) {
	w := write(b, items(), Reader{Fields: fields(items())})
	body := w.body(b, map[string]string{"id": "1", "a": "some text of a row", "n": "12.5", "ok": "t", "f": "1", "d": "2", "day": "2024-01-01",
		"ts": "2024-01-02 03:04:05+00", "big": strings.Repeat("b", 60)}, rows.Event{Op: 'u', TxID: "1:2"})
	b.ReportAllocs()
	var got Image
	for b.Loop() {
		if err := w.layout.Read(body, nil, &got); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGenericDecode is what the layout is compared with: the library's decoding into maps, without any sum.
func BenchmarkGenericDecode(b *testing.B) {
	w := write(b, items(), Reader{Fields: fields(items())})
	body := w.body(b, map[string]string{"id": "1", "a": "some text of a row", "n": "12.5", "ok": "t", "f": "1", "d": "2", "day": "2024-01-01",
		"ts": "2024-01-02 03:04:05+00", "big": strings.Repeat("b", 60)}, rows.Event{Op: 'u', TxID: "1:2"})
	schema, err := avro.Parse(items().ValueSchema())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var got any
		if _, err := schema.Decode(body, &got); err != nil {
			b.Fatal(err)
		}
	}
}
