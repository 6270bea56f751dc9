package rows

import (
	"reflect"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// native decodes framed bytes with goavro, which shares no code with the encoder.
func native(t *testing.T, schema string, data []byte) map[string]any {
	t.Helper()
	codec, err := goavro.NewCodec(schema)
	if err != nil {
		t.Fatal(err)
	}
	v, rest, err := codec.NativeFromBinary(data[5:])
	if err != nil || len(rest) > 0 {
		t.Fatalf("%v, %d bytes left", err, len(rest))
	}
	return v.(map[string]any)
}

func pairTable() Table {
	return Table{Schema: "public", Name: "t", Columns: []Column{{Name: "id", Field: "id", Kind: Int, Key: true}, {Name: "a", Field: "a", Kind: String}}}
}

func textRow(values ...string) []pgoutput.Datum {
	var out []pgoutput.Datum
	for _, v := range values {
		out = append(out, pgoutput.Datum{Kind: pgoutput.Text, Data: []byte(v)})
	}
	return out
}

func TestFlatForms(t *testing.T) {
	table := pairTable()
	schema := table.SchemaIn(Flat)
	for _, form := range []Form{Flat, FlatTombstone} {
		e := NewEncoder(table, Origin{Form: form}, nil, 1, 2)
		data, err := e.AppendValue([]byte("before"), &Event{Op: 'u', Before: textRow("7", "old"), After: textRow("7", "new"), LSN: 99, CommitTime: 5_000_123, Seq: 11})
		if err != nil || string(data[:6]) != "before" {
			t.Fatal(err)
		}
		want := map[string]any{"id": int32(7), "a": goavro.Union("string", "new"), "__deleted": "false", "__op": "u", "__lsn": goavro.Union("long", int64(99)),
			"__source_ts_ms": goavro.Union("long", int64(5000)), "__seq": int64(11)}
		if got := native(t, schema, data[6:]); !reflect.DeepEqual(got, want) {
			t.Errorf("form %d: %v, want %v", form, got, want)
		}
		remove := Event{Op: 'd', Before: []pgoutput.Datum{{Kind: pgoutput.Text, Data: []byte("7")}, {Kind: pgoutput.Null}}, Seq: 12}
		whole, err := e.AppendValue(nil, &remove)
		if err != nil {
			t.Fatal(err)
		}
		byKey, err := e.AppendDeleteOf(nil, []byte{14}, &remove)
		if err != nil {
			t.Fatal(err)
		}
		if form == Flat && len(whole)+len(byKey) > 0 {
			t.Errorf("a delete has a value of %d and %d bytes besides its tombstone", len(whole), len(byKey))
		}
		if form == FlatTombstone {
			got := native(t, schema, whole)
			if got["__deleted"] != "true" || got["__op"] != "d" || got["id"] != int32(7) || got["a"] != nil || got["__seq"] != int64(12) {
				t.Errorf("a delete is %v", got)
			}
			if !reflect.DeepEqual(native(t, schema, byKey), got) {
				t.Errorf("a delete of a key is %v, of a row %v", native(t, schema, byKey), got)
			}
		}
	}
}

func TestSnapshotMarks(t *testing.T) {
	table := pairTable()
	e := NewEncoder(table, Origin{}, nil, 1, 2)
	for want, ev := range map[string]Event{"false": {}, "true": {Snapshot: true}, "incremental": {Snapshot: true, Mark: "incremental"}} {
		ev.Op, ev.After = 'r', textRow("1", "x")
		data, err := e.AppendValue(nil, &ev)
		if err != nil {
			t.Fatal(err)
		}
		got := native(t, table.ValueSchema(), data)["source"].(map[string]any)["snapshot"].(map[string]any)["string"]
		if got != want {
			t.Errorf("snapshot is %v, want %s", got, want)
		}
	}
	for _, name := range []string{`"connect.name":"io.debezium.connector.postgresql.Source"`, `"connect.name":"io.debezium.data.Enum"`, `"connect.name":"event.block"`} {
		if !strings.Contains(table.ValueSchema(), name) {
			t.Errorf("the schema lacks %s", name)
		}
	}
}

func TestMessages(t *testing.T) {
	m := NewMessages(Origin{Version: "1", Name: "millrace", Database: "shop"}, 1, 2)
	if got := native(t, MessageKeySchema(), m.AppendKey(nil, "audit")); !reflect.DeepEqual(got, map[string]any{"prefix": goavro.Union("string", "audit")}) {
		t.Errorf("key %v", got)
	}
	got := native(t, MessageSchema(), m.AppendValue(nil, &Event{Op: 'm', CommitTime: 3_000, LSN: 7, Seq: 8, Now: 9_000, TxID: "5:6", TotalOrder: 2, TableOrder: 1}, "audit", []byte{0, 1}))
	source := got["source"].(map[string]any)
	if source["db"] != "shop" || source["schema"] != "" || source["table"] != "" || source["seq"] != int64(8) || got["op"] != "m" {
		t.Errorf("value %v", got)
	}
	if want := map[string]any{"prefix": goavro.Union("string", "audit"), "content": goavro.Union("bytes", []byte{0, 1})}; !reflect.DeepEqual(got["message"], want) {
		t.Errorf("message %v", got["message"])
	}
	if tx, ok := got["transaction"].(map[string]any)["io.debezium.connector.postgresql.Block"].(map[string]any); !ok || tx["id"] != "5:6" || tx["total_order"] != int64(2) {
		t.Errorf("transaction %v", got["transaction"])
	}
}

func TestTransactions(t *testing.T) {
	w := NewTransactions(1, 2)
	if got := native(t, TransactionKeySchema(), w.AppendKey(nil, "5:6")); got["id"] != "5:6" {
		t.Errorf("key %v", got)
	}
	begin := native(t, TransactionSchema(), w.AppendValue(nil, &Boundary{ID: "5:6", CommitTime: 3_000_000, Seq: 4}))
	if begin["status"] != "BEGIN" || begin["event_count"] != nil || begin["data_collections"] != nil || begin["annotations"] != nil || begin["ts_ms"] != int64(3000) {
		t.Errorf("begin %v", begin)
	}
	end := native(t, TransactionSchema(), w.AppendValue(nil, &Boundary{ID: "5:6", End: true, Counts: map[string]int64{"public.b": 2, "public.a": 1}, Seq: 5,
		Annotations: map[string]string{"user": "x"}}))
	if end["status"] != "END" || !reflect.DeepEqual(end["event_count"], goavro.Union("long", int64(3))) || end["seq"] != int64(5) {
		t.Errorf("end %v", end)
	}
	list := end["data_collections"].(map[string]any)["array"].([]any)
	if len(list) != 2 || !reflect.DeepEqual(list[0], map[string]any{"data_collection": "public.a", "event_count": int64(1)}) {
		t.Errorf("data collections %v", list)
	}
	if !reflect.DeepEqual(end["annotations"], goavro.Union("map", map[string]any{"user": "x"})) {
		t.Errorf("annotations %v", end["annotations"])
	}
	if empty := native(t, TransactionSchema(), w.AppendValue(nil, &Boundary{ID: "5:6", End: true})); !reflect.DeepEqual(empty["data_collections"], goavro.Union("array", []any{})) {
		t.Errorf("an empty end has %v", empty["data_collections"])
	}
}
