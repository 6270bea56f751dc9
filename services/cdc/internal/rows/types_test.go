package rows

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

func appender(c Column) appendFunc { return c.appender(nil) }

func TestWhatDoesNotFit(t *testing.T) {
	array := func(of Kind) Column { return Column{Kind: Array, Elem: of, Delimiter: ','} }
	for _, c := range []struct {
		name   string
		column Column
		texts  []string
	}{
		{"array", array(String), []string{"", "{", "}", "{}}", "{a", "{a}b", "{a,}", "{,a}", `{"a}`, `{"a\`, `{"a"b}`, `{a"b"}`, `{a\b}`, "{a}{b}", "[0:1]={a,b}", "{\xff}"}},
		{"array of several dimensions", array(Int), []string{"{{1,2},{3,4}}", "[1:1][-2:-1]={{1,2}}", "{{}}"}},
		{"array's elements", array(Int), []string{"{x}", "{1,99999999999}", `{""}`}},
		{"hstore", Column{Kind: Map}, []string{`"a"`, `"a"=>`, `"a"=>x`, `a=>"b"`, `"a"=>"b",`, `"a"=>"b", `, `"a"=>"b"  `, `"a"=>"b" "c"=>"d"`, `"a=>"b"`, `"a"=>NULLx`}},
		{"vector", Column{Kind: Vector}, []string{"", "[", "]", "[1,]", "[,1]", "[a]", "{1:2}/3"}},
		{"money", Column{Kind: Money, Precision: 19, Scale: 2}, []string{"", "$", "1.00", "$1", "$1.0", "$1.000", "1,00 €", "$-1.00", "--$1.00", "$1.0.00", "$" + strings.Repeat("1", 40) + ".00"}},
		{"money as text", Column{Kind: MoneyText}, []string{"€1.00", "$1.0x"}},
		{"time", Column{Kind: Time}, []string{"", "24:00:01", "24:00:00.000001", "12:00", "12:00:00+00", "12:00:00.", "12:00:00.1234567"}},
		{"milliseconds", Column{Kind: TimestampMillis}, []string{"", "2024-01-01", "294276-12-31 23:59:59.999999"}},
		{"ISO date", Column{Kind: ISODate}, []string{"", "2024-1-1", "2024-01-01 00:00:00", "yesterday"}},
		{"ISO time", Column{Kind: ISOTimestamp}, []string{"", "2024-01-01", "2024-01-01 00:00:00+", "2024-01-01T00:00:00", "2024-01-01 00:00:00" + strings.Repeat("1", 40)}},
		{"base64", Column{Kind: Base64}, []string{"", "00", `\x0`, `\xgg`, `\x` + strings.Repeat("00", 60) + "zz"}},
		{"hex", Column{Kind: Hex}, []string{"", "00", `\x0`, `\xgg`}},
		{"geometry", Column{Kind: Geometry}, []string{"POINT(1 2)", "010"}},
	} {
		for _, text := range c.texts {
			if got, err := appender(c.column)(nil, []byte(text)); !errors.Is(err, ErrDoesNotFit) {
				t.Errorf("%s: %q is taken as %x, %v", c.name, text, got, err)
			}
		}
	}
}

func TestAnArrayOfSeveralDimensionsIsText(t *testing.T) {
	elem := Type{Name: "int4", Modifier: -1}
	if c := (Type{Elem: &elem, Delimiter: ',', Dimensions: 2}).Column(Modes{}); c.Kind != String {
		t.Errorf("an array of two dimensions is of kind %d", c.Kind)
	}
	array := Type{Elem: &elem, Delimiter: ','}
	if c := (Type{Elem: &array, Delimiter: ','}).Column(Modes{}); c.Kind != String {
		t.Errorf("an array of arrays is of kind %d", c.Kind)
	}
}

// The id of a key's schema is in the key's bytes, which decide where a row is: it must not change with a label.
func TestLabelsAreInTheValuesSchemaOnly(t *testing.T) {
	mood := func(labels ...string) Table {
		c := Type{Enum: true, Labels: labels}.Column(Modes{})
		c.Name, c.Field, c.Key = "mood", "mood", true
		return Table{Schema: "public", Name: "moods", Columns: []Column{c}}
	}
	before, after := mood("sad", "ok"), mood("sad", "ok", "happy")
	if before.KeySchema() != after.KeySchema() {
		t.Errorf("a new label changed the schema of keys: %s", after.KeySchema())
	}
	if before.Equal(after) || !strings.Contains(after.ValueSchema(), `"allowed":"sad,ok,happy"`) {
		t.Errorf("a new label is not in the schema of values: %s", after.ValueSchema())
	}
}

func TestKeyOfTheWholeRow(t *testing.T) {
	table := Table{Schema: "public", Name: "loose", Columns: []Column{
		{Name: "a", Field: "a", Kind: Int, Key: true, Nullable: true}, {Name: "b", Field: "b", Key: true, Nullable: true}}}
	if err := table.Validate(); err != nil {
		t.Fatal(err)
	}
	e := NewEncoder(table, Origin{}, testKeys(t), 1, 2)
	null, empty := pgoutput.Datum{Kind: pgoutput.Null}, text("")
	if !e.KeyChanged([]pgoutput.Datum{text("1"), null}, []pgoutput.Datum{text("1"), empty}) {
		t.Error("null and the empty text are one key")
	}
	if _, err := e.AppendKey(nil, []pgoutput.Datum{text("1"), {Kind: pgoutput.Unchanged}}); !errors.Is(err, ErrDoesNotFit) {
		t.Errorf("a value that is not there is part of a key: %v", err)
	}
	first, err1 := e.AppendKey(nil, []pgoutput.Datum{text("1"), null})
	second, err2 := e.AppendKey(nil, []pgoutput.Datum{text("1"), empty})
	if err1 != nil || err2 != nil || string(first) == string(second) {
		t.Errorf("keys %x and %x, %v, %v", first, second, err1, err2)
	}
}

func TestSchemasOfEveryKindAreValid(t *testing.T) {
	for kind := String; kind <= Array; kind++ {
		c := Column{Name: "v", Field: "v", Kind: kind, Precision: 19, Scale: 2, Elem: Map, Delimiter: ',', Semantic: "x.Y", Labels: "a"}
		table := Table{Schema: "public", Name: "t", Columns: []Column{{Name: "k", Field: "k", Key: true}, c}}
		if _, err := goavro.NewCodec(table.ValueSchema()); err != nil || !json.Valid([]byte(c.AvroType())) {
			t.Errorf("kind %d: %v: %s", kind, err, c.AvroType())
		}
	}
}

// A key that lost digits or microseconds would be that of two rows.
func TestKeysAreExact(t *testing.T) {
	lossy := Modes{Decimal: DecimalDouble, Time: TimeConnect, Binary: BinaryHex}
	for _, name := range []string{"numeric", "money", "date", "time", "timestamp", "timestamptz", "bytea"} {
		c := Type{Name: name, Modifier: -1}.Column(lossy.Exact())
		switch c.Kind {
		case Double, MoneyDouble, TimeMillis, TimestampMillis:
			t.Errorf("a key of %s is of kind %d", name, c.Kind)
		}
	}
}

func TestModes(t *testing.T) {
	good := Modes{Decimal: DecimalPrecise, Time: TimeMicros, Binary: BinaryBytes}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, m := range map[string]Modes{
		"decimal": {Decimal: "exact", Time: TimeMicros, Binary: BinaryBytes},
		"time":    {Decimal: DecimalDouble, Time: "adaptive", Binary: BinaryBytes},
		"binary":  {Decimal: DecimalString, Time: TimeISO, Binary: ""},
	} {
		if err := m.Validate(); err == nil || !strings.HasPrefix(err.Error(), want+": ") {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

// FuzzEncode: whatever the text, a record is whole and readable, or nothing of it is written.
func FuzzEncode(f *testing.F) {
	for _, seed := range []string{"", "1", "t", "NaN", "1.25", "infinity", "2024-05-06", "2024-05-06 07:08:09.5+00", "0044-03-15 BC", "12:00:00", "-$1,234.56", `\x00ff`,
		"00ff", `{1,NULL,"a\"b"}`, "{{1},{2}}", "[0:0]={1}", `"a"=>"1", "b"=>NULL`, "[1,2.5]", "\xff"} {
		for kind := String; kind <= Array; kind++ {
			f.Add(uint8(kind), uint8(Int), seed)
		}
	}
	keys := testKeys(f)
	f.Fuzz(func(t *testing.T, kind, elem uint8, input string) {
		kind, elem = kind%uint8(Array+1), elem%uint8(Array)
		c := Column{Name: "v", Field: "v", Kind: Kind(kind), Elem: Kind(elem), Precision: 19, Scale: 2, Delimiter: ',', Key: true}
		table := Table{Schema: "public", Name: "t", Columns: []Column{c}}
		e := NewEncoder(table, Origin{}, keys, 1, 2)
		row := []pgoutput.Datum{text(input)}
		prefix := []byte("before")
		key, err := e.AppendKey(prefix, row)
		value, err2 := e.AppendValue(prefix, &Event{Op: 'c', After: row})
		if (err == nil) != (err2 == nil) {
			t.Fatalf("the key says %v, the value %v", err, err2)
		}
		if err != nil {
			if string(key) != "before" || string(value) != "before" || !errors.Is(err, ErrDoesNotFit) {
				t.Fatalf("after %v there is %q, %q", err, key, value)
			}
			return
		}
		readable(t, table.KeySchema(), key[len(prefix)+5:])
		readable(t, table.ValueSchema(), value[len(prefix)+5:])
		deleted, err := e.AppendDeleteOf(prefix, key[len(prefix)+5:], &Event{Op: 'd'})
		if err != nil {
			t.Fatal(err)
		}
		readable(t, table.ValueSchema(), deleted[len(prefix)+5:])
		if texts, ok := table.KeyTexts(key[len(prefix)+5:]); ok {
			if again, err := e.AppendKey(prefix, texts); err != nil || string(again) != string(key) && !sameFloat(c.Kind, elem) {
				t.Fatalf("read back as %q the key is %x, %v; was %x", texts[0].Data, again, err, key)
			}
		}
	})
}

// sameFloat tells whether a kind has a NaN, of which there are many.
func sameFloat(kind Kind, elem uint8) bool {
	float := func(k Kind) bool { return k == Float || k == Double || k == Vector }
	return float(kind) || kind == Array && float(Kind(elem))
}

func readable(t *testing.T, schema string, b []byte) {
	t.Helper()
	codec, err := goavro.NewCodec(strings.ReplaceAll(schema, `"logicalType"`, `"was"`)) // goavro refuses times far away
	if err != nil {
		t.Fatal(err)
	}
	if _, rest, err := codec.NativeFromBinary(b); err != nil || len(rest) > 0 {
		t.Fatalf("goavro: %v, %d bytes left", err, len(rest))
	}
}

// FuzzKey: arbitrary bytes as a key give a whole record or nothing.
func FuzzKey(f *testing.F) {
	f.Add(uint8(Array), uint8(Map), []byte{2, 2, 2, 2, 'a', 0, 0, 0})
	f.Add(uint8(Vector), uint8(0), []byte{2, 0, 0, 0, 0, 0})
	keys := testKeys(f)
	f.Fuzz(func(t *testing.T, kind, elem uint8, key []byte) {
		c := Column{Name: "v", Field: "v", Kind: Kind(kind % uint8(Array+1)), Elem: Kind(elem % uint8(Array)), Precision: 12, Scale: 3, Key: true, Nullable: elem > 128}
		e := NewEncoder(Table{Schema: "public", Name: "t", Columns: []Column{c}}, Origin{}, keys, 1, 2)
		if b, err := e.AppendDeleteOf([]byte("before"), key, &Event{Op: 'd'}); err != nil && string(b) != "before" {
			t.Fatalf("after %v there is %q", err, b)
		}
		e.Table.KeyTexts(key) // does not panic
	})
}

// BenchmarkKinds writes one value of each kind; those that must not allocate are in one row.
func BenchmarkKinds(b *testing.B) {
	for _, c := range []struct {
		name   string
		column Column
		text   string
	}{
		{"text", Column{}, "S18_1749"}, {"decimal", Column{Kind: Decimal, Precision: 10, Scale: 2}, "136.25"}, {"timestamp", Column{Kind: Timestamp}, "2024-05-06 07:08:09.123456+00"},
		{"time", Column{Kind: Time}, "07:08:09.123456"}, {"iso", Column{Kind: ISOTimestamp}, "2024-05-06 07:08:09.123456+00"}, {"money", Column{Kind: Money, Precision: 19, Scale: 2}, "-$1,234.56"},
		{"bytes", Column{Kind: Bytes}, `\x00ff00ff00ff00ff`}, {"base64", Column{Kind: Base64}, `\x00ff00ff00ff00ff`}, {"ints", Column{Kind: Array, Elem: Int, Delimiter: ','}, "{1,2,3,4,5,6,7,8,NULL,10}"},
		{"texts", Column{Kind: Array, Delimiter: ','}, `{red,"dark green",blue}`}, {"hstore", Column{Kind: Map}, `"a"=>"1", "b"=>NULL`}, {"vector", Column{Kind: Vector}, "[0.1,0.2,0.3,0.4]"},
	} {
		b.Run(c.name, func(b *testing.B) {
			f, text, buf := appender(c.column), []byte(c.text), make([]byte, 0, 1024)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f(buf, text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
