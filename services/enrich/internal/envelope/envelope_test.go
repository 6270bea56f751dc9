package envelope

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro"
)

// wide is an envelope as cdc writes it, with every type and things to skip: nested, recursive, arrays and maps.
const wide = `{"type":"record","name":"Envelope","namespace":"store.public.t","fields":[
 {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
   {"name":"id","type":"long"},
   {"name":"skipped","type":["null","string"],"default":null},
   {"name":"small","type":["null","int"],"default":null},
   {"name":"flag","type":["null","boolean"],"default":null},
   {"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":20,"scale":2}],"default":null},
   {"name":"day","type":["null",{"type":"int","logicalType":"date"}],"default":null},
   {"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null},
   {"name":"local","type":["null",{"type":"long","logicalType":"local-timestamp-micros"}],"default":null},
   {"name":"f","type":["null","float"],"default":null},
   {"name":"d","type":["null","double"],"default":null},
   {"name":"name","type":["null","string"],"default":null},
   {"name":"blob","type":["null","bytes"],"default":null},
   {"name":"kind","type":["null",{"type":"enum","name":"Kind","symbols":["A","B"]}],"default":null},
   {"name":"sum","type":["null",{"type":"fixed","name":"Sum","size":4}],"default":null},
   {"name":"list","type":{"type":"array","items":["null","string"]},"default":[]},
   {"name":"dict","type":{"type":"map","values":"long"},"default":{}}]}],"default":null},
 {"name":"after","type":["null","Value"],"default":null},
 {"name":"source","type":{"type":"record","name":"Source","fields":[
   {"name":"version","type":"string"},{"name":"ts_us","type":"long"},{"name":"lsn","type":["null","long"]},{"name":"seq","type":"long"}]}},
 {"name":"op","type":"string"},
 {"name":"ts_ms","type":["null","long"]},
 {"name":"tree","type":["null",{"type":"record","name":"Tree","fields":[{"name":"next","type":["null","Tree"]},{"name":"x","type":"int"}]}]}]}`

func columnsOf(names ...string) []Column {
	var out []Column
	for _, n := range names {
		out = append(out, Column{Name: n})
	}
	return out
}

func union(kind string, v any) any {
	if v == nil {
		return nil
	}
	return goavro.Union(kind, v)
}

// randomRow is a row for the independent writer, with what each column must read as.
func randomRow(rng *rand.Rand) (native map[string]any, id int64, name any, small any) {
	id = rng.Int64() - math.MaxInt64/2
	native = map[string]any{"id": id, "list": []any{}, "dict": map[string]any{}}
	for _, c := range []string{"skipped", "small", "flag", "price", "day", "at", "local", "f", "d", "name", "blob", "kind", "sum"} {
		native[c] = nil
	}
	if rng.IntN(2) == 0 {
		name = fmt.Sprint("n", rng.IntN(1e6))
		native["name"] = union("string", name)
	}
	if rng.IntN(2) == 0 {
		small = int32(rng.Uint32())
		native["small"] = union("int", small)
	}
	if rng.IntN(2) == 0 {
		native["skipped"] = union("string", string(make([]byte, rng.IntN(300))))
		native["blob"] = union("bytes", make([]byte, rng.IntN(300)))
		native["f"], native["d"] = union("float", rng.Float32()), union("double", rng.Float64())
		native["flag"] = union("boolean", true)
		native["kind"], native["sum"] = union("store.public.t.Kind", "B"), union("store.public.t.Sum", []byte{1, 2, 3, 4})
		native["list"], native["dict"] = []any{nil, union("string", "x")}, map[string]any{"a": int64(-9)}
	}
	return native, id, name, small
}

// What the independent codec writes is read, whatever stands between the columns that are asked for.
func TestDecodeAgainstGoavro(t *testing.T) {
	codec, err := goavro.NewCodec(wide)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := Compile(avro.MustParse(wide), columnsOf("name", "id", "small", "nosuch"))
	if err != nil {
		t.Fatal(err)
	}
	if l := plan.Lacking(); len(l) != 1 || l[0] != "nosuch" {
		t.Errorf("lacking %v", l)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var row Row
	for range 2000 {
		native, id, name, small := randomRow(rng)
		seq := rng.Int64()
		record := map[string]any{"before": nil, "after": nil, "op": "c", "ts_ms": union("long", int64(5)),
			"source": map[string]any{"version": "x", "ts_us": int64(77), "lsn": nil, "seq": seq},
			"tree":   union("store.public.t.Tree", map[string]any{"next": union("store.public.t.Tree", map[string]any{"next": nil, "x": 1}), "x": 2})}
		isBefore := rng.IntN(2) == 0
		if isBefore {
			record["before"], record["op"] = union("store.public.t.Value", native), "d"
		} else {
			record["after"] = union("store.public.t.Value", native)
		}
		body, err := codec.BinaryFromNative(nil, record)
		if err != nil {
			t.Fatal(err)
		}
		if err := plan.Decode(body, &row); err != nil {
			t.Fatal(err)
		}
		values := row.After
		if isBefore {
			values = row.Before
		}
		if row.HasBefore != isBefore || row.HasAfter == isBefore || row.Seq != seq || row.TsUs != 77 || (row.Op == 'd') != isBefore {
			t.Fatalf("%+v", row)
		}
		if values[1].Kind != Int || values[1].Int != id || values[3].Kind != Null {
			t.Fatalf("id %+v, want %d", values[1], id)
		}
		if got := values[0]; (got.Kind == Null) != (name == nil) || name != nil && string(got.Bytes) != name {
			t.Fatalf("name %+v, want %v", got, name)
		}
		if got := values[2]; (got.Kind == Null) != (small == nil) || small != nil && got.Int != int64(small.(int32)) {
			t.Fatalf("small %+v, want %v", got, small)
		}
		// No prefix of a record is a record, and neither is one with bytes behind it.
		if err := plan.Decode(body[:rng.IntN(len(body))], &row); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut short: %v", err)
		}
		if err := plan.Decode(append(body, 0), &row); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("too long: %v", err)
		}
	}
}

func TestSchemasThatAreNoEnvelopes(t *testing.T) {
	for name, c := range map[string]struct {
		schema string
		want   error
	}{
		"scalar":   {`"string"`, ErrNotEnvelope},
		"no op":    {`{"type":"record","name":"E","fields":[{"name":"after","type":["null","string"]}]}`, ErrNotEnvelope},
		"no seq":   {`{"type":"record","name":"E","fields":[{"name":"after","type":{"type":"record","name":"V","fields":[]}},{"name":"op","type":"string"},{"name":"source","type":{"type":"record","name":"S","fields":[]}}]}`, ErrNotEnvelope},
		"no field": {wide, ErrNoColumn},
	} {
		if _, err := Compile(avro.MustParse(c.schema), []Column{{Name: "nosuch", Required: true}}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	plan, err := Compile(avro.MustParse(wide), columnsOf("name", "id", "price", "at"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 0, 2, 'x', 2, 0, 4, 2, 'c', 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var row Row
		if plan.Decode(data, &row) != nil {
			return
		}
		for i := range row.After {
			row.After[i].Text()
			row.After[i].Integer()
			row.After[i].Decimal()
			row.After[i].Time(time.UTC)
		}
	})
}

func text(s string) Value { return Value{Kind: Text, Bytes: []byte(s)} }

func TestDecimals(t *testing.T) {
	for _, c := range []struct {
		v    Value
		want string
		p    Problem
	}{
		{Value{}, "", Missing},
		{Value{Kind: Int, Int: -7}, "-7", Fine},
		{Value{Kind: Decimal, Bytes: []byte{0x04, 0xd2}, Scale: 2}, "12.34", Fine},
		{Value{Kind: Decimal, Bytes: []byte{0xff}, Scale: 2}, "-0.01", Fine},
		{Value{Kind: Decimal, Bytes: nil, Scale: 2}, "0.00", Fine},
		{Value{Kind: Decimal, Bytes: []byte{5}, Scale: 0}, "5", Fine},
		{Value{Kind: Decimal, Bytes: []byte{0xff, 0, 0, 0, 0, 0, 0, 0, 0}, Scale: 2}, "-184467440737095516.16", Fine},
		{Value{Kind: Decimal, Bytes: make([]byte, 64)}, "", OutOfRange},
		{text("1.005"), "1.005", Fine},
		{text("-0.10"), "-0.10", Fine},
		{text("NaN"), "", OutOfRange},
		{text("-Infinity"), "", OutOfRange},
		{text("1e5"), "", NotDecimal},
		{text(""), "", NotDecimal},
		{text("1.2.3"), "", NotDecimal},
		{text("--1"), "", NotDecimal},
		{Value{Kind: Double, Float: 0.1}, "0.1", Fine},
		{Value{Kind: Double, Float: float64(float32(0.1)), Narrow: true}, "0.1", Fine},
		{Value{Kind: Double, Float: math.NaN()}, "", OutOfRange},
		{Value{Kind: Double, Float: 1e300}, "", OutOfRange},
		{Value{Kind: Bool}, "", WrongType},
	} {
		if got, p := c.v.Decimal(); got != c.want || p != c.p {
			t.Errorf("%+v: %q %q", c.v, got, p)
		}
	}
}

func TestIntegers(t *testing.T) {
	for _, c := range []struct {
		v    Value
		want int64
		p    Problem
	}{
		{Value{}, 0, Missing},
		{Value{Kind: Int, Int: -7}, -7, Fine},
		{Value{Kind: Decimal, Bytes: []byte{0x04, 0xb0}, Scale: 2}, 12, Fine},
		{Value{Kind: Decimal, Bytes: []byte{0x04, 0xb1}, Scale: 2}, 0, NotInteger},
		{text("-3.000"), -3, Fine},
		{text("3.5"), 0, NotInteger},
		{text("many"), 0, NotInteger},
		{text("99999999999999999999"), 0, OutOfRange},
		{Value{Kind: Double, Float: 2}, 2, Fine},
		{Value{Kind: Double, Float: 2.5}, 0, NotInteger},
		{Value{Kind: Double, Float: 1e18}, 0, OutOfRange},
	} {
		if got, p := c.v.Integer(); got != c.want || p != c.p {
			t.Errorf("%+v: %d %q", c.v, got, p)
		}
	}
}

func TestTimes(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 7, 1, 12, 0, 0, 123456000, time.UTC)
	for _, c := range []struct {
		v    Value
		want time.Time
		p    Problem
	}{
		{Value{}, time.Time{}, Missing},
		{Value{Kind: Timestamp, Int: noon.UnixMicro()}, noon, Fine},
		{Value{Kind: TimestampMillis, Int: noon.UnixMilli()}, noon.Truncate(time.Millisecond), Fine},
		{Value{Kind: LocalTimestamp, Int: noon.UnixMicro()}, noon.Add(-2 * time.Hour), Fine},
		{Value{Kind: Date, Int: noon.Unix() / 86400}, time.Date(2026, 6, 30, 22, 0, 0, 0, time.UTC), Fine},
		{text("2026-07-01 12:00:00.123456+00"), noon, Fine},
		{text("2026-07-01T14:00:00.123456+02:00"), noon, Fine},
		{text("2026-07-01 14:00:00.123456"), noon, Fine},
		{text("2026-07-01"), time.Date(2026, 6, 30, 22, 0, 0, 0, time.UTC), Fine},
		{text("yesterday"), time.Time{}, NotTime},
		{text("infinity"), time.Time{}, OutOfRange},
		{Value{Kind: Timestamp, Int: math.MaxInt64}, time.Time{}, OutOfRange},
		{Value{Kind: Timestamp, Int: math.MinInt64}, time.Time{}, OutOfRange},
		{Value{Kind: Date, Int: math.MaxInt64}, time.Time{}, OutOfRange},
		{Value{Kind: Bool}, time.Time{}, WrongType},
	} {
		if got, p := c.v.Time(berlin); !got.Equal(c.want) || p != c.p {
			t.Errorf("%+v: %v %q", c.v, got, p)
		}
	}
}

func TestKeys(t *testing.T) {
	values := []Value{text(`a|b\c`), {Kind: Int, Int: 7}, {}, {Kind: Date, Int: 1}, {Kind: Text, Bytes: []byte{0xff}}}
	for _, c := range []struct {
		columns []int
		want    string
		p       Problem
	}{
		{[]int{0}, `a|b\c`, Fine}, {[]int{0, 1}, `a\|b\\c|7`, Fine}, {[]int{2}, "", Missing}, {[]int{1, 2}, "", Missing},
		{[]int{3}, "1970-01-02", Fine}, {[]int{4}, "", NotText},
	} {
		if got, p := Key(values, c.columns); got != c.want || p != c.p {
			t.Errorf("%v: %q %q", c.columns, got, p)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	codec, err := goavro.NewCodec(wide)
	if err != nil {
		b.Fatal(err)
	}
	native, _, _, _ := randomRow(rand.New(rand.NewPCG(1, 2)))
	body, err := codec.BinaryFromNative(nil, map[string]any{"before": nil, "after": union("store.public.t.Value", native), "op": "c", "ts_ms": nil, "tree": nil,
		"source": map[string]any{"version": "x", "ts_us": int64(77), "lsn": nil, "seq": int64(9)}})
	if err != nil {
		b.Fatal(err)
	}
	plan, err := Compile(avro.MustParse(wide), columnsOf("name", "id", "price", "at"))
	if err != nil {
		b.Fatal(err)
	}
	var row Row
	b.ReportAllocs()
	for b.Loop() {
		if err := plan.Decode(body, &row); err != nil {
			b.Fatal(err)
		}
	}
}
