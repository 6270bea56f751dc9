package catalog_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/linkedin/goavro/v2"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// modes are the sets of modes that every type is tried under; between them each mode occurs.
func modes() []rows.Modes {
	return []rows.Modes{
		{Decimal: rows.DecimalPrecise, Time: rows.TimeMicros, Binary: rows.BinaryBytes},
		{Decimal: rows.DecimalString, Time: rows.TimeConnect, Binary: rows.BinaryBase64},
		{Decimal: rows.DecimalDouble, Time: rows.TimeISO, Binary: rows.BinaryHex},
	}
}

// hostile are settings of the database that change the text of types: capture must not depend on them.
const hostile = `ALTER DATABASE types SET DateStyle = 'German, DMY'; ALTER DATABASE types SET IntervalStyle = 'sql_standard';
	ALTER DATABASE types SET bytea_output = 'escape'; ALTER DATABASE types SET extra_float_digits = -10;
	ALTER DATABASE types SET TimeZone = 'Asia/Kolkata'; ALTER DATABASE types SET quote_all_identifiers = on`

// source is a database with a table that has a column of each type, and what SQL says of its values.
type source struct {
	server    *pgtest.Server
	conn      *pgx.Conn // with the settings of capture
	version   int
	cases     []typeCase
	extension []typeCase // of extensions that are not here
	rows      int
}

func newSource(t *testing.T) *source {
	t.Helper()
	s := &source{server: pgtest.Primary(t)}
	s.server.Exec(t, "CREATE DATABASE types")
	s.server.Exec(t, hostile)
	cfg, err := pgx.ParseConfig(s.server.DSN("postgres", "types"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range replica.Settings() {
		cfg.RuntimeParams[name] = value
	}
	if s.conn, err = pgx.ConnectConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close(context.Background()) }) // the server may be gone
	if err := s.conn.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int / 10000").Scan(&s.version); err != nil {
		t.Fatal(err)
	}
	for _, c := range typeCases() {
		switch {
		case c.captured != nil:
			s.extension = append(s.extension, c)
		case c.since <= s.version:
			s.cases = append(s.cases, c)
		}
		s.rows = max(s.rows, len(c.values))
	}
	return s
}

func (s *source) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := s.conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%.300s: %v", sql, err)
	}
}

// create makes the table.
func (s *source) create(t *testing.T) {
	t.Helper()
	s.exec(t, "SET search_path = public; "+typesSetup)
	columns := []string{"id int PRIMARY KEY"}
	for i, c := range s.cases {
		columns = append(columns, fmt.Sprintf("c%d %s", i, c.sql))
	}
	s.exec(t, "CREATE TABLE every ("+strings.Join(columns, ", ")+"); CREATE PUBLICATION p FOR TABLE every")
}

// fill writes the rows; where a type has no more values there is a null.
func (s *source) fill(t *testing.T) {
	t.Helper()
	for r := range s.rows + 1 {
		values := []string{strconv.Itoa(r)}
		for _, c := range s.cases {
			v := "NULL"
			if r < len(c.values) {
				v = c.literal(r)
			}
			values = append(values, v)
		}
		s.exec(t, "INSERT INTO every VALUES ("+strings.Join(values, ", ")+")")
	}
	s.exec(t, "SET search_path = pg_catalog")
}

// expected is what SQL says of every value under a set of modes, by row and column, as JSON.
func (s *source) expected(t *testing.T, mode int) [][]any {
	t.Helper()
	list := []string{"to_jsonb(id)"}
	for i, c := range s.cases {
		list = append(list, "("+strings.ReplaceAll(c.want(mode), "$", fmt.Sprintf("c%d", i))+")::text")
	}
	result := s.conn.PgConn().ExecParams(t.Context(), "SELECT "+strings.Join(list, ", ")+" FROM public.every ORDER BY id", nil, nil, nil, nil).Read()
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	var out [][]any
	for _, row := range result.Rows {
		var values []any
		for _, v := range row {
			values = append(values, fromJSON(t, v))
		}
		out = append(out, values)
	}
	return out
}

func fromJSON(t *testing.T, text []byte) (v any) {
	t.Helper()
	if text == nil {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// copied are the rows as COPY gives them.
func (s *source) copied(t *testing.T) [][]pgoutput.Datum {
	t.Helper()
	var buf bytes.Buffer
	if _, err := s.conn.PgConn().CopyTo(t.Context(), &buf, "COPY (SELECT * FROM public.every ORDER BY id) TO STDOUT"); err != nil {
		t.Fatal(err)
	}
	unescape := strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t", `\r`, "\r", `\b`, "\b", `\f`, "\f", `\v`, "\v")
	var out [][]pgoutput.Datum
	for line := range strings.Lines(buf.String()) {
		var row []pgoutput.Datum
		for cell := range strings.SplitSeq(strings.TrimSuffix(line, "\n"), "\t") {
			d := pgoutput.Datum{Kind: pgoutput.Text, Data: []byte(unescape.Replace(cell))}
			if cell == `\N` {
				d = pgoutput.Datum{Kind: pgoutput.Null}
			}
			row = append(row, d)
		}
		out = append(out, row)
	}
	return out
}

// streamed are the rows as the stream gives them, and how it describes the table.
func (s *source) streamed(t *testing.T, stream *replica.Stream) (r pgoutput.Relation, out [][]pgoutput.Datum) {
	t.Helper()
	for len(out) < s.rows+1 {
		m, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Keepalive {
			continue
		}
		switch m.Data[0] {
		case pgoutput.KindRelation:
			if r, err = pgoutput.ParseRelation(m.Data); err != nil {
				t.Fatal(err)
			}
		case pgoutput.KindInsert:
			var c pgoutput.Change
			if err := c.Parse(bytes.Clone(m.Data)); err != nil {
				t.Fatal(err)
			}
			out = append(out, c.New)
		}
	}
	return r, out
}

func noPersonal(string, string, string) rows.Treatment { return rows.Treatment{} }

func TestEveryTypeIsReadAsSQLSaysItIs(t *testing.T) {
	s := newSource(t)
	s.create(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := replica.Connect(ctx, s.server.DSN("postgres", "types"), "test")
	if err != nil {
		t.Fatal(err)
	}
	at, _, err := conn.CreateSlot(ctx, "types")
	if err != nil {
		t.Fatal(err)
	}
	s.fill(t)
	stream, err := conn.Start(ctx, "types", "p", at)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	relation, streamed := s.streamed(t, stream)
	copied := s.copied(t)
	tables, err := catalog.Tables(ctx, s.conn, "p")
	if err != nil {
		t.Fatal(err)
	}
	var types catalog.Types
	if err := types.LearnRelation(ctx, s.conn, relation, false); err != nil {
		t.Fatal(err)
	}
	t.Logf("PostgreSQL %d: %d types, %d rows", s.version, len(s.cases), len(copied))
	for mode, m := range modes() {
		options := catalog.Options{Modes: m}
		table := tables[0].Rows(noPersonal, options)
		if other := catalog.FromRelation(relation, nil, &types, noPersonal, options); !table.Equal(other) {
			t.Errorf("the stream's table differs from the catalog's:\n%+v\n%+v", other, table)
		}
		s.compare(t, table, copied, streamed, s.expected(t, mode), mode)
	}
	if s.version == pageVersion {
		page(t, append(s.described(t, tables[0], copied), extensions(t, s.extension)...))
	}
}

func (s *source) compare(t *testing.T, table rows.Table, copied, streamed [][]pgoutput.Datum, want [][]any, mode int) {
	t.Helper()
	d := newDecoder(t, table)
	for r := range copied {
		fromCopy, fromStream := d.row(t, copied[r]), d.row(t, streamed[r])
		for i := range table.Columns {
			name := "integer"
			if i > 0 {
				name = s.cases[i-1].sql
			}
			if !equal(fromCopy[i], want[r][i]) {
				t.Errorf("%s, modes %d, from COPY's %q: %v, want %v", name, mode, copied[r][i].Data, fromCopy[i], want[r][i])
			}
			if !equal(fromStream[i], want[r][i]) {
				t.Errorf("%s, modes %d, from the stream's %q: %v, want %v", name, mode, streamed[r][i].Data, fromStream[i], want[r][i])
			}
			if streamed[r][i].Kind != pgoutput.Null {
				d.key(t, i, streamed[r][i], want[r][i])
			}
		}
		d.wholeKey(t, streamed[r], want[r])
	}
}

// decoder writes rows with the encoder and reads them with goavro, which shares no code with it.
type decoder struct {
	table   rows.Table
	encoder *rows.Encoder
	codec   *goavro.Codec
	whole   *decoder // all columns are the key
}

func codecOf(t *testing.T, schema string) *goavro.Codec {
	t.Helper()
	// goavro's times overflow far from today, so it is to read plain numbers: only decimals keep their logical type.
	var v any
	if err := json.Unmarshal([]byte(schema), &v); err != nil {
		t.Fatal(err)
	}
	plain(v)
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	codec, err := goavro.NewCodec(string(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, schema)
	}
	return codec
}

func plain(v any) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			plain(x)
		}
	case map[string]any:
		if v["logicalType"] != "decimal" {
			delete(v, "logicalType")
		}
		for _, x := range v {
			plain(x)
		}
	}
}

func testKeys(t testing.TB) *privacy.Keys {
	t.Helper()
	k, err := privacy.NewKeys(privacy.Config{Key: config.Secret(strings.Repeat("2a", 32))})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newDecoder(t *testing.T, table rows.Table) *decoder {
	t.Helper()
	d := &decoder{table: table, encoder: rows.NewEncoder(table, rows.Origin{}, testKeys(t), 1, 2), codec: codecOf(t, table.ValueSchema())}
	whole := rows.Table{Schema: table.Schema, Name: table.Name}
	for _, c := range table.Columns {
		c.Key, c.Nullable = true, true
		whole.Columns = append(whole.Columns, c)
	}
	d.whole = &decoder{table: whole, encoder: rows.NewEncoder(whole, rows.Origin{}, testKeys(t), 1, 2), codec: codecOf(t, whole.KeySchema())}
	return d
}

func (d *decoder) row(t *testing.T, row []pgoutput.Datum) []any {
	t.Helper()
	b, err := d.encoder.AppendValue(nil, &rows.Event{Op: 'c', After: row})
	if err != nil {
		t.Fatal(err)
	}
	native, rest, err := d.codec.NativeFromBinary(b[5:])
	if err != nil || len(rest) > 0 {
		t.Fatalf("goavro: %v, %d bytes left", err, len(rest))
	}
	return fields(d.table, inside(native.(map[string]any)["after"]))
}

// inside is what a union holds.
func inside(v any) any {
	if u, ok := v.(map[string]any); ok {
		for _, x := range u {
			return x
		}
	}
	return v
}

func fields(table rows.Table, record any) []any {
	var out []any
	for _, c := range table.Columns {
		v := record.(map[string]any)[c.Field]
		if !c.Key || c.Nullable {
			v = inside(v)
		}
		out = append(out, comparable(c, v))
	}
	return out
}

// comparable is goavro's value as JSON would have it.
func comparable(c rows.Column, v any) any {
	switch v := v.(type) {
	case []byte:
		return hex.EncodeToString(v)
	case *big.Rat:
		return v.FloatString(c.Scale)
	case float32:
		return float64(v)
	case int32:
		return int64(v)
	case []any:
		out := []any{}
		c.Kind = c.Elem
		for _, x := range v {
			out = append(out, comparable(c, inside(x)))
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = inside(x)
		}
		return out
	}
	return v
}

func equal(got, want any) bool {
	switch g := got.(type) {
	case nil:
		return want == nil
	case int64:
		return fmt.Sprint(want) == strconv.FormatInt(g, 10)
	case float64:
		w, err := strconv.ParseFloat(fmt.Sprint(want), 64)
		return err == nil && (g == w || math.IsNaN(g) && math.IsNaN(w))
	case []any:
		w, ok := want.([]any)
		if !ok || len(w) != len(g) {
			return false
		}
		for i := range g {
			if !equal(g[i], w[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		w, ok := want.(map[string]any)
		if !ok || len(w) != len(g) {
			return false
		}
		for k := range g {
			if x, ok := w[k]; !ok || !equal(g[k], x) {
				return false
			}
		}
		return true
	}
	return got == want
}

// key takes a column as the key alone.
func (d *decoder) key(t *testing.T, i int, value pgoutput.Datum, want any) {
	t.Helper()
	c := d.table.Columns[i]
	c.Key = true
	table := rows.Table{Schema: "public", Name: "one", Columns: []rows.Column{c, {Name: "other", Field: "other"}}}
	one := &decoder{table: table, encoder: rows.NewEncoder(table, rows.Origin{}, testKeys(t), 1, 2), codec: codecOf(t, table.ValueSchema())}
	key, err := one.encoder.AppendKey(nil, []pgoutput.Datum{value, {Kind: pgoutput.Null}})
	if err != nil {
		t.Fatal(err)
	}
	native, rest, err := codecOf(t, table.KeySchema()).NativeFromBinary(key[5:])
	if err != nil || len(rest) > 0 {
		t.Fatalf("key: %v, %d bytes left", err, len(rest))
	}
	if got := comparable(c, native.(map[string]any)[c.Field]); !equal(got, want) {
		t.Errorf("as key: %v, want %v", got, want)
	}
	one.deleteOf(t, key[5:], []any{want, nil})
	readBack(t, one.table, one.encoder, key, value)
}

// readBack checks that the key gives back the text that it was made of.
func readBack(t *testing.T, table rows.Table, encoder *rows.Encoder, key []byte, value pgoutput.Datum) {
	t.Helper()
	c := table.Columns[0]
	kind := c.Kind
	if kind == rows.Array {
		kind = c.Elem
	}
	lossy := kind == rows.TimeMillis || kind == rows.TimestampMillis || kind == rows.MoneyDouble
	texts, ok := table.KeyTexts(key[5:])
	if ok == lossy {
		t.Fatalf("%q as a key of kind %d can be read back: %v", value.Data, c.Kind, ok)
	}
	if lossy {
		return
	}
	again, err := encoder.AppendKey(nil, append(texts, pgoutput.Datum{Kind: pgoutput.Null}))
	if err != nil || !bytes.Equal(again, key) {
		t.Errorf("%q is read back from a key as %q: %v", value.Data, texts[0].Data, err)
	}
	if kind != rows.Double && kind != rows.Float && string(texts[0].Data) != string(value.Data) {
		t.Errorf("%q is read back from a key as %q", value.Data, texts[0].Data)
	}
}

// deleteOf checks the delete of a row of which only the key is known.
func (d *decoder) deleteOf(t *testing.T, key []byte, want []any) {
	t.Helper()
	b, err := d.encoder.AppendDeleteOf(nil, key, &rows.Event{Op: 'd'})
	if err != nil {
		t.Fatal(err)
	}
	native, rest, err := codecOf(t, d.table.ValueSchema()).NativeFromBinary(b[5:])
	if err != nil || len(rest) > 0 {
		t.Fatalf("delete: %v, %d bytes left", err, len(rest))
	}
	for i, got := range fields(d.table, inside(native.(map[string]any)["before"])) {
		if !equal(got, want[i]) {
			t.Errorf("column %s of a delete: %v, want %v", d.table.Columns[i].Name, got, want[i])
		}
	}
}

// wholeKey takes the whole row as the key.
func (d *decoder) wholeKey(t *testing.T, row []pgoutput.Datum, want []any) {
	t.Helper()
	w := d.whole
	key, err := w.encoder.AppendKey(nil, row)
	if err != nil {
		t.Fatal(err)
	}
	native, rest, err := w.codec.NativeFromBinary(key[5:])
	if err != nil || len(rest) > 0 {
		t.Fatalf("key of the whole row: %v, %d bytes left", err, len(rest))
	}
	for i, got := range fields(w.table, native) {
		if !equal(got, want[i]) {
			t.Errorf("column %s in the key of the whole row: %v, want %v", w.table.Columns[i].Name, got, want[i])
		}
	}
	w.deleteOf(t, key[5:], want)
}

// The stream may be behind the catalog: it goes on with types that it met and that are gone since.
func TestTypesThatAreGoneStayKnown(t *testing.T) {
	ctx := t.Context()
	conn := pgtest.Connect(t, pgtest.Database(t))
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TYPE mood AS ENUM ('sad'); CREATE DOMAIN cents AS bigint; CREATE TABLE t (id int PRIMARY KEY, c cents, ms mood[], m int[][]); CREATE PUBLICATION p FOR TABLE t`)
	tables, err := catalog.Tables(ctx, conn, "p")
	if err != nil {
		t.Fatal(err)
	}
	before := tables[0].Rows(noPersonal, catalog.Options{})
	r := pgoutput.Relation{ID: tables[0].OID, Schema: "public", Name: "t", Identity: 'd'}
	for _, c := range tables[0].Columns {
		r.Columns = append(r.Columns, pgoutput.Column{Key: c.Name == "id", Name: c.Name, Type: c.Type, Modifier: c.Modifier})
	}
	var types catalog.Types
	learn := func(again bool) rows.Table {
		t.Helper()
		if err := types.LearnRelation(ctx, conn, r, again); err != nil {
			t.Fatal(err)
		}
		return catalog.FromRelation(r, nil, &types, noPersonal, catalog.Options{})
	}
	if got := learn(false); !got.Equal(before) {
		t.Fatalf("the relation is %+v, the table %+v", got, before)
	}
	exec("ALTER TYPE mood ADD VALUE 'ok'")
	if got := learn(true); got.Columns[2].Labels != "sad,ok" {
		t.Errorf("the labels are %q", got.Columns[2].Labels)
	}
	exec("ALTER TABLE t DROP c, DROP ms, DROP m; DROP TYPE mood; DROP DOMAIN cents")
	got := learn(true)
	if got.Columns[2].Labels = before.Columns[2].Labels; !got.Equal(before) {
		t.Errorf("after the types are gone the relation is %+v, want %+v", got, before)
	}
	types = catalog.Types{} // a start that meets them for the first time
	if got := learn(false); got.Columns[1].Kind != rows.String || got.Columns[2].Kind != rows.String {
		t.Errorf("types that nobody knows are %+v", got)
	}
}
