package rows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

func testKeys(t testing.TB) *privacy.Keys {
	t.Helper()
	k, err := privacy.NewKeys(privacy.Config{Key: config.Secret(strings.Repeat("2a", 32))})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// allKinds has a column of each kind, and a key of two columns.
func allKinds() Table {
	t := Table{Schema: "public", Name: "all"}
	for _, c := range []Column{
		{Name: "k1", Kind: Long, Key: true}, {Name: "s", Kind: String}, {Name: "i", Kind: Int}, {Name: "l", Kind: Long}, {Name: "b", Kind: Boolean},
		{Name: "f", Kind: Float}, {Name: "d", Kind: Double}, {Name: "n", Kind: Decimal, Precision: 12, Scale: 3},
		{Name: "w", Kind: Decimal, Precision: 60, Scale: 20}, {Name: "day", Kind: Date}, {Name: "ts", Kind: Timestamp}, {Name: "raw", Kind: Bytes},
		{Name: "email", Kind: Token}, {Name: "k2", Kind: String, Key: true},
	} {
		c.Field = FieldName(c.Name)
		t.Columns = append(t.Columns, c)
	}
	return t
}

func text(s string) pgoutput.Datum { return pgoutput.Datum{Kind: pgoutput.Text, Data: []byte(s)} }

// value is a random value of a column: PostgreSQL's text, and what goavro must read.
func value(r *rand.Rand, c Column, keys *privacy.Keys) (string, any) {
	switch c.Kind {
	case Int:
		n := int32(r.Uint32()) >> r.IntN(31)
		return strconv.Itoa(int(n)), n
	case Long:
		n := int64(r.Uint64()) >> r.IntN(63)
		return strconv.FormatInt(n, 10), n
	case Boolean:
		b := r.IntN(2) == 0
		return strconv.FormatBool(b)[:1], b
	case Float:
		f := math.Float32frombits(r.Uint32()&^(0xff<<23) | uint32(1+r.IntN(250))<<23)
		return strconv.FormatFloat(float64(f), 'g', -1, 32), f
	case Double:
		f := r.NormFloat64() * math.Pow(10, float64(r.IntN(600)-300))
		return strconv.FormatFloat(f, 'g', -1, 64), f
	case Decimal:
		n := new(big.Int)
		for range 1 + r.IntN(c.Precision) {
			n.Add(n.Mul(n, big.NewInt(10)), big.NewInt(r.Int64N(10)))
		}
		if r.IntN(2) == 0 {
			n.Neg(n)
		}
		rat := new(big.Rat).SetFrac(n, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(c.Scale)), nil))
		return rat.FloatString(c.Scale), rat
	case Date:
		d := time.Date(1+r.IntN(9999), 1, 1+r.IntN(365), 0, 0, 0, 0, time.UTC)
		return d.Format("2006-01-02"), d
	case Timestamp:
		ts := time.UnixMicro(r.Int64N(4e15) - 2e15).UTC()
		return ts.Format("2006-01-02 15:04:05.999999-07"), ts
	case Bytes:
		b := make([]byte, r.IntN(20))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return fmt.Sprintf("\\x%x", b), b
	case Token:
		s := strconv.Itoa(r.IntN(1000))
		return s, keys.Token(s)
	default:
		s := strings.Repeat("é\t\n\\", r.IntN(40)) + strconv.Itoa(r.IntN(1000))
		return s, s
	}
}

func same(got, want any) bool {
	switch w := want.(type) {
	case *big.Rat:
		g, ok := got.(*big.Rat)
		return ok && g.Cmp(w) == 0
	case time.Time:
		g, ok := got.(time.Time)
		return ok && g.Equal(w)
	case []byte:
		g, ok := got.([]byte)
		return ok && string(g) == string(w)
	default:
		return got == want
	}
}

func TestEncodedRowsAreReadAlikeByGoavro(t *testing.T) {
	table, keys := allKinds(), testKeys(t)
	keyCodec, err := goavro.NewCodec(table.KeySchema())
	if err != nil {
		t.Fatal(err)
	}
	codec, err := goavro.NewCodec(table.ValueSchema())
	if err != nil {
		t.Fatal(err)
	}
	e := NewEncoder(table, Origin{Version: "1", Name: "millrace", Database: "shop"}, keys, 7, 8)
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		row := make([]pgoutput.Datum, len(table.Columns))
		want := map[string]any{}
		for i, c := range table.Columns {
			if !c.Key && r.IntN(5) == 0 {
				row[i], want[c.Field] = pgoutput.Datum{Kind: pgoutput.Null}, nil
				continue
			}
			s, v := value(r, c, keys)
			row[i], want[c.Field] = text(s), v
		}
		key, err := e.AppendKey(nil, row)
		if err != nil {
			t.Fatal(err)
		}
		native, rest, err := keyCodec.NativeFromBinary(key[5:])
		if err != nil || len(rest) > 0 || binary.BigEndian.Uint32(key[1:]) != 7 {
			t.Fatalf("key: %v, %d bytes left", err, len(rest))
		}
		for k, v := range native.(map[string]any) {
			if !same(v, want[k]) {
				t.Fatalf("key column %s: %v, want %v", k, v, want[k])
			}
		}
		ev := Event{Op: 'u', After: row, CommitTime: 1_700_000_000_123_456, XID: 77, LSN: 99, Seq: 1234567, Now: 5, TxID: "77:99", TotalOrder: 3, TableOrder: 2, Sequence: "[]"}
		if r.IntN(2) == 0 {
			ev.Before = row
		}
		checkValue(t, e, codec, ev, want)
		checkDelete(t, e, codec, key[5:], want)
	}
}

func checkValue(t *testing.T, e *Encoder, codec *goavro.Codec, ev Event, want map[string]any) {
	t.Helper()
	b, err := e.AppendValue(nil, &ev)
	if err != nil {
		t.Fatal(err)
	}
	native, rest, err := codec.NativeFromBinary(b[5:])
	if err != nil || len(rest) > 0 {
		t.Fatalf("value: %v, %d bytes left", err, len(rest))
	}
	v := native.(map[string]any)
	checkRow(t, v["after"], want)
	if (v["before"] == nil) != (ev.Before == nil) {
		t.Fatalf("before is %v", v["before"])
	}
	source := v["source"].(map[string]any)
	if source["seq"] != ev.Seq || source["schema"] != "public" || source["table"] != "all" || source["db"] != "shop" ||
		source["ts_ms"] != ev.CommitTime/1000 || source["lsn"].(map[string]any)["long"] != int64(99) || v["op"] != "u" {
		t.Fatalf("source is %v, op %v", source, v["op"])
	}
}

func checkDelete(t *testing.T, e *Encoder, codec *goavro.Codec, key []byte, want map[string]any) {
	t.Helper()
	b, err := e.AppendDeleteOf(nil, key, &Event{Op: 'd', Snapshot: true})
	if err != nil {
		t.Fatal(err)
	}
	native, rest, err := codec.NativeFromBinary(b[5:])
	if err != nil || len(rest) > 0 {
		t.Fatalf("delete: %v, %d bytes left", err, len(rest))
	}
	checkRow(t, native.(map[string]any)["before"], map[string]any{"k1": want["k1"], "k2": want["k2"]})
}

func checkRow(t *testing.T, union any, want map[string]any) {
	t.Helper()
	row := union.(map[string]any)
	for _, v := range row { // of the union
		row = v.(map[string]any)
	}
	for field, got := range row {
		if u, ok := got.(map[string]any); ok {
			for _, v := range u {
				got = v
			}
		}
		if !same(got, want[field]) {
			t.Fatalf("column %s: %v, want %v", field, got, want[field])
		}
	}
}

func TestEdgesOfValues(t *testing.T) {
	long := func(n int64) string { return string(appendLong(nil, n)) }
	for _, c := range []struct {
		name, text, want string
		f                appendFunc
	}{
		{"first of the era", "1970-01-01", long(0), appendDate},
		{"before Christ", "0044-03-15 BC", long(-735160), appendDate},
		{"the last date", "5874897-12-31", long(2145042905), appendDate},
		{"the first date", "4713-01-01 BC", long(-2440550), appendDate},
		{"leap day", "2024-02-29", long(19782), appendDate},
		{"infinite date", "infinity", long(math.MaxInt32), appendDate},
		{"infinite time", "-infinity", long(math.MinInt64), appendTimestamp},
		{"year beyond 9999", "12345-01-02 03:04:05.6+00", long(327403479845600000), appendTimestamp},
		{"before Christ", "0001-12-31 23:59:59.999999 BC", long(-62135596800000001), appendTimestamp},
		{"offset with minutes", "2000-01-01 05:30:00+05:30", long(946684800000000), appendTimestamp},
		{"negative offset", "1999-12-31 16:00:00-08", long(946684800000000), appendTimestamp},
		{"zero", "0.00", "\x02\x00", decimal(4, 2)},
		{"negative", "-1.28", "\x02\x80", decimal(4, 2)},
		{"needs a sign byte", "1.28", "\x04\x00\x80", decimal(4, 2)},
		{"fewer digits than the scale", "5", "\x04\x01\xf4", decimal(4, 2)},
		{"smallest bigint", "-9223372036854775808", long(math.MinInt64), appendInt8},
		{"empty bytes", `\x`, "\x00", appender(Column{Kind: Bytes})},
	} {
		got, err := c.f(nil, []byte(c.text))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q is %x, %v; want %x", c.name, c.text, got, err, c.want)
		}
	}
	for _, c := range []struct {
		text string
		f    appendFunc
	}{
		{"NaN", decimal(4, 2)}, {"Infinity", decimal(4, 2)}, {"123.45", decimal(4, 2)}, {"1.234", decimal(4, 2)}, {"", decimal(4, 2)}, {"-", decimal(4, 2)},
		{"294276-12-31 00:00:00", appendTimestamp}, {"2024-01-01", appendTimestamp}, {"2024-01-01 00:00", appendTimestamp}, {"24-1-1", appendDate},
		{"2147483648", appendInt4}, {"9223372036854775808", appendInt8}, {"1x", appendInt8}, {"", appendInt8}, {"x", appendBool}, {`\x0`, appender(Column{Kind: Bytes})},
		{`\xzz`, appender(Column{Kind: Bytes})}, {"\xff", appendText},
	} {
		if got, err := c.f(nil, []byte(c.text)); !errors.Is(err, ErrDoesNotFit) {
			t.Errorf("%q is taken as %x, %v", c.text, got, err)
		}
	}
}

func TestColumnOfDecimals(t *testing.T) {
	for _, c := range []struct {
		modifier         int32
		kind             Kind
		precision, scale int
	}{
		{-1, String, 0, 0},
		{10<<16 | 2 + 4, Decimal, 10, 2},
		{1000<<16 | 1000 + 4, Decimal, 1000, 1000},
		{2<<16 | 0x7fd + 4, String, 0, 0}, // numeric(2,-3)
		{2<<16 | 5 + 4, String, 0, 0},     // numeric(2,5)
	} {
		got := Type{Name: "numeric", Modifier: c.modifier}.Column(Modes{})
		if got.Kind != c.kind || got.Precision != c.precision || got.Scale != c.scale {
			t.Errorf("numeric of modifier %#x is %+v", c.modifier, got)
		}
	}
}

func TestTokensReplacePersonalData(t *testing.T) {
	table := Table{Schema: "public", Name: "people", Columns: []Column{{Name: "email", Field: "email", Kind: Token, Key: true}}}
	keys := testKeys(t)
	e := NewEncoder(table, Origin{}, keys, 1, 2)
	for input, want := range map[string]string{"a@b.example": keys.Token("a@b.example"), "": "", keys.Token("x"): keys.Token(keys.Token("x"))} {
		row := []pgoutput.Datum{text(input)}
		key, err := e.AppendKey(nil, row)
		if err != nil || string(key[6:]) != want {
			t.Errorf("the key is %q, %v; want %q", key[6:], err, want)
		}
		v, err := e.AppendValue(nil, &Event{Op: 'c', After: row})
		if err != nil || strings.Contains(string(v), "a@b") {
			t.Errorf("the value has it in clear, or %v", err)
		}
	}
}

// BenchmarkEncode writes key and value of an order line; the aim is no allocation.
func BenchmarkEncode(b *testing.B) {
	table := Table{Schema: "public", Name: "order_details", Columns: []Column{
		{Name: "order_number", Field: "order_number", Kind: Long, Key: true}, {Name: "product_code", Field: "product_code", Key: true},
		{Name: "quantity", Field: "quantity", Kind: Int}, {Name: "price", Field: "price", Kind: Decimal, Precision: 10, Scale: 2},
		{Name: "at", Field: "at", Kind: Timestamp}, {Name: "rate", Field: "rate", Kind: Double}}}
	e := NewEncoder(table, Origin{Version: "1", Name: "millrace", Database: "shop"}, testKeys(b), 1, 2)
	row := []pgoutput.Datum{text("123456"), text("S18_1749"), text("30"), text("136.00"), text("2024-05-06 07:08:09.123456+00"), text("0.25")}
	ev := Event{Op: 'c', After: row, CommitTime: 1_700_000_000_123_456, Sequence: `["1234567","2345678"]`, XID: 99, LSN: 1 << 33, Seq: 1 << 50, TxID: "99:123456"}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		out, err := e.AppendKey(buf, row)
		if err == nil {
			out, err = e.AppendValue(out, &ev)
		}
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(out)))
	}
}
