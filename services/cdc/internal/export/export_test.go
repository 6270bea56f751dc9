package export

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

func shape() rows.Table {
	t := rows.Table{Schema: "public", Name: "items", Columns: []rows.Column{
		{Name: "id", Kind: rows.Int, Key: true}, {Name: "a", Kind: rows.String}, {Name: "n", Kind: rows.Decimal, Precision: 12, Scale: 3},
		{Name: "ok", Kind: rows.Boolean}, {Name: "ts", Kind: rows.Timestamp}}}
	for i := range t.Columns {
		t.Columns[i].Field = t.Columns[i].Name
	}
	return t
}

func zipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

// read writes a file and reads it: a line for each row, with ~ for null.
func read(t testing.TB, name, content string) ([]string, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var out []string
	err = Read(t.Context(), store, name, shape(), func(line int, row []pgoutput.Datum) error {
		cells := []string{fmt.Sprint(line)}
		for _, d := range row {
			if d.Kind == pgoutput.Null {
				cells = append(cells, "~")
				continue
			}
			cells = append(cells, string(d.Data))
		}
		out = append(out, strings.Join(cells, "|"))
		return nil
	})
	return out, err
}

const header = "id,a,n,ok,ts\n"

func TestGoodFiles(t *testing.T) {
	for _, c := range []struct {
		name, file, content string
		want                []string
	}{
		{"csv", "f.csv", header + "1,x,1.5,true,2024-01-02T03:04:05Z\n2,,,,\n3,\"\",0,f,2024-01-02 03:04:05.123456+00\n",
			[]string{"2|1|x|1.5|t|2024-01-02 03:04:05+00", "3|2|~|~|~|~", "4|3||0|f|2024-01-02 03:04:05.123456+00"}},
		{"quotes, line feeds and commas", "f.csv", header + "1,\"a \"\"b\"\"\nc,d\",,,\r\n2,e,,,", []string{"2|1|a \"b\"\nc,d|~|~|~", "4|2|e|~|~|~"}},
		{"windows line ends, a byte order mark, another order", "f.csv", "\xef\xbb\xbfts,ok,n,a,id\r\n,,,\"q\"\"\",7\r\n", []string{"2|7|q\"|~|~|~"}},
		{"only the columns' names", "f.csv", header, nil},
		{"compressed", "f.csv.gz", zipped(header + "1,x,,,\n"), []string{"2|1|x|~|~|~"}},
		{"ndjson", "f.ndjson", `{"id": 1, "a": "é\n\u0041\ud83d\ude00", "n": 12345678901234567890.125, "ok": false, "ts": null}` + "\n\n" +
			`{"ts":"2024-01-02T03:04:05.100000000+0530","ok":1,"n":1.5e3,"a":{"bb":1.0,"a":[true,null,"\t"]},"id":2.0}`,
			[]string{"1|1|é\nA😀|12345678901234567890.125|f|~", `3|2|{"a": [true, null, "\t"], "bb": 1.0}|1500|t|2024-01-02 03:04:05.100000+05:30`}},
		{"ndjson, compressed", "f.json.gz", zipped(`{"id":1,"a":true,"n":-0.0,"ok":"no","ts":"infinity"}`), []string{"1|1|true|0.0|f|infinity"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := read(t, c.file, c.content)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestBadFilesSayWhere(t *testing.T) {
	good := `{"id":1,"a":"x","n":1,"ok":true,"ts":null}` + "\n"
	for _, c := range []struct{ name, file, content, want string }{
		{"empty", "f.csv", "", "f.csv: the file is empty"},
		{"too few values", "f.csv", header + "1,x,,,\n2,x\n", "f.csv, line 3: 2 values, and the first line names 5 columns"},
		{"too many values", "f.csv", header + "1,x,,,,\n", "f.csv, line 2: 6 values"},
		{"missing column", "f.csv", "id,a,n,ok\n", "f.csv, line 1, column ts: the column is missing"},
		{"unknown column", "f.csv", "id,a,n,ok,ts,zz\n", "f.csv, line 1, column zz: the table has no such column"},
		{"column twice", "f.csv", "id,a,n,ok,ts,a\n", "f.csv, line 1, column a: the column is there twice"},
		{"an open quote", "f.csv", header + "1,x,,,\n2,\"x,,,\n", "f.csv, line 4, column a: the file ends within quotes"},
		{"a stray quote", "f.csv", header + "1,x\"y,,,\n", "f.csv, line 2, column a: a quote within a field"},
		{"something after a quote", "f.csv", header + "1,\"x\"y,,,\n", "f.csv, line 2, column a: something follows a closing quote"},
		{"not UTF-8", "f.csv", header + "1,\xff,,,\n", "f.csv, line 2, column a: this is not UTF-8"},
		{"a zero byte", "f.csv", header + "1,a\x00b,,,\n", "f.csv, line 2, column a: a zero byte"},
		{"key is null", "f.csv", header + ",x,,,\n", "f.csv, line 2, column id: a column of the key is null"},
		{"no boolean", "f.csv", header + "1,x,,maybe,\n", "f.csv, line 2, column ok: this is no boolean"},
		{"no offset", "f.csv", header + "1,x,,,2024-01-02T03:04:05\n", "f.csv, line 2, column ts: this is no time"},
		{"too many decimals", "f.csv", header + "1,x,1.2345,,\n", "f.csv, line 2, column n: a value does not fit its type"},
		{"no whole number", "f.csv", header + "1.5,x,,,\n", "f.csv, line 2, column id: this is no whole number"},
		{"cut off", "f.csv.gz", zipped(header + strings.Repeat("1,x,,,\n", 1000))[:60], "the file is cut off"},
		{"not compressed", "f.csv.gz", header, "f.csv.gz: the compressed file is damaged, or is no gzip file"},
		{"broken JSON", "f.ndjson", good + `{"id":1,"a":secret}`, "f.ndjson, line 2: broken JSON at byte"},
		{"cut JSON", "f.ndjson", good + `{"id":1,"a":"sec`, "f.ndjson, line 2: broken JSON"},
		{"a list", "f.ndjson", good + `[1]`, "f.ndjson, line 2: the line is not one JSON object"},
		{"two objects", "f.ndjson", strings.TrimSpace(good) + good, "f.ndjson, line 1: the line is not one JSON object"},
		{"missing member", "f.ndjson", `{"id":1,"a":"x","n":1,"ok":true}`, "f.ndjson, line 1, column ts: the column is missing; write null"},
		{"unknown member", "f.ndjson", `{"id":1,"b":"x"}`, "f.ndjson, line 1, column b: the table has no such column"},
		{"member twice", "f.ndjson", `{"id":1,"a":"x","a":"y"}`, "f.ndjson, line 1, column a: the column is there twice"},
		{"half a surrogate", "f.ndjson", `{"id":1,"a":"\ud800x"}`, "f.ndjson, line 1, column a: half a surrogate pair"},
		{"JSON not UTF-8", "f.ndjson", "{\"id\":1,\"a\":\"\xff\"}", "f.ndjson, line 1: this is not UTF-8"},
		{"a number beyond reason", "f.ndjson", `{"id":1e99999999999}`, "f.ndjson, line 1, column id: this is not a number"},
		{"another kind", "f.parquet", "x", "this is neither"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(t, c.file, c.content)
			var at *Error
			if err == nil || !errors.As(err, &at) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "sec") {
				t.Error("the error repeats a value")
			}
		})
	}
}

func TestFilesBelongToTables(t *testing.T) {
	tables := []string{"public.orders", "public.orders_archive", "public.items"}
	got, err := Assign([]string{"day/public.orders.csv.gz", "public.orders-1.csv", "public.orders_archive.ndjson", "public.orders_archive_2.csv",
		"public.items.2024-01-01.json", "_SUCCESS", "README.md"}, tables)
	want := map[string][]string{"public.orders": {"day/public.orders.csv.gz", "public.orders-1.csv"},
		"public.orders_archive": {"public.orders_archive.ndjson", "public.orders_archive_2.csv"}, "public.items": {"public.items.2024-01-01.json"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Assign([]string{"public.ordersx.csv"}, tables); err == nil || !strings.Contains(err.Error(), "public.ordersx.csv") {
		t.Error(err)
	}
}

func TestReadingEndsWithItsContextAndItsVisitor(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f.csv"), []byte(header+strings.Repeat("1,x,,,\n", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Read(ctx, store, "f.csv", shape(), func(int, []pgoutput.Datum) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	stop := errors.New("enough")
	if err := Read(t.Context(), store, "f.csv", shape(), func(int, []pgoutput.Datum) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	if err := Read(t.Context(), store, "../f.csv", shape(), nil); err == nil {
		t.Error("a file outside of the directory is read")
	}
}

func TestBucket(t *testing.T) {
	files := map[string]string{"daily/public.items.csv": header + "1,x,,,\n", "daily/b/public.items-2.csv": header + "2,y,,,\n"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("list-type") == "2" {
			type object struct{ Key string }
			out := struct {
				XMLName  xml.Name `xml:"ListBucketResult"`
				Contents []object
			}{}
			for name := range files {
				if strings.HasPrefix(name, r.URL.Query().Get("prefix")) {
					out.Contents = append(out.Contents, object{name})
				}
			}
			_ = xml.NewEncoder(w).Encode(out)
			return
		}
		content, ok := files[strings.TrimPrefix(r.URL.Path, "/exports/")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, content)
	}))
	defer server.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	store, err := OpenBucket(t.Context(), "s3://exports/daily", Bucket{Endpoint: server.URL, Region: "eu-west-1"})
	if err != nil {
		t.Fatal(err)
	}
	names, err := store.List(t.Context())
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"b/public.items-2.csv", "public.items.csv"}) {
		t.Fatalf("%v, %v", names, err)
	}
	n := 0
	for _, name := range names {
		if err := Read(t.Context(), store, name, shape(), func(int, []pgoutput.Datum) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := Read(t.Context(), store, "gone.csv", shape(), nil); n != 2 || err == nil {
		t.Errorf("%d rows, %v", n, err)
	}
	if _, err := OpenBucket(t.Context(), "s3://", Bucket{}); err == nil {
		t.Error("a location without bucket is taken")
	}
}

// FuzzCSV writes what was read again, which must be read as the same.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{header + "1,x,,,\n", "a,\"b\"\"c\"\r\n,\n", "\"", "a\"b", "\n\n", "\"a\"\r", ",,\n\"\",\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		records := func(in []byte) (out [][]Cell, err error) {
			r := newCSV(bytes.NewReader(in))
			for {
				cells, _, err := r.next(nil)
				if errors.Is(err, io.EOF) {
					return out, nil
				}
				if err != nil {
					return out, err
				}
				out = append(out, cells)
			}
		}
		first, err := records(content)
		if err != nil {
			return
		}
		var b bytes.Buffer
		for _, cells := range first {
			for i, c := range cells {
				if i > 0 {
					b.WriteByte(',')
				}
				if !c.Null {
					b.WriteString(`"` + strings.ReplaceAll(c.Text, `"`, `""`) + `"`)
				}
			}
			b.WriteString("\r\n")
		}
		again, err := records(b.Bytes())
		if err != nil || !reflect.DeepEqual(first, again) {
			t.Fatalf("%q is read as %v, and that as %v (%v)", content, first, again, err)
		}
	})
}

// FuzzNDJSON compares with the standard library: what it does not take, we do not either, and members have its values.
func FuzzNDJSON(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"a":"\ud800\udc00","b":[1,{"c":null}]}`, `{"a":1}{"b":2}`, `{"a":"\ud800"}`, `{`, `{"a":1e5,}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.ContainsRune(text, '\n') {
			return
		}
		got := map[string]Cell{}
		err := object(text, func(name string, c Cell) error { got[name] = c; return nil })
		var want map[string]any
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if json.Unmarshal(text, &want) != nil || want == nil {
			if err == nil {
				t.Fatalf("%q is taken", text)
			}
			return
		}
		if err != nil { // stricter: not UTF-8, zero bytes, half surrogates, huge numbers
			return
		}
		for name, v := range want {
			c, ok := got[name]
			if s, isText := v.(string); !ok || c.Null != (v == nil) || isText && s != c.Text {
				t.Fatalf("%q: member %q is %q", text, name, c.Text)
			}
		}
	})
}

func BenchmarkCSV(b *testing.B) {
	content := []byte(header + strings.Repeat("12345,some text of a row,1.500,true,2024-01-02T03:04:05.123456Z\n", 10_000))
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		r := &fileReader{ctx: b.Context(), table: shape(), row: make([]pgoutput.Datum, 5), visit: func(int, []pgoutput.Datum) error { return nil }}
		if err := r.csv(bytes.NewReader(content)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*10_000/b.Elapsed().Seconds(), "rows/s")
}
