package quarantine

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/schemas"
)

func newKeys(t *testing.T, digit string) *privacy.Keys {
	t.Helper()
	keys, err := privacy.NewKeys(privacy.Config{Key: config.Secret(strings.Repeat(digit, 64))})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// newQuarantine is a quarantine and the decoder of what it writes, on a registry with the one schema.
func newQuarantine(t *testing.T, keys *privacy.Keys) (*Quarantine, *avro.Decoder) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
		if strings.HasSuffix(r.URL.Path, "/schema") {
			fmt.Fprint(w, schemas.Latest(schemas.Quarantine))
			return
		}
		text, err := json.Marshal(schemas.Latest(schemas.Quarantine))
		if err != nil {
			t.Error(err)
		}
		format := `{"id":7,"version":1,"subject":"quarantine-value","schema":%s}`
		if strings.HasSuffix(r.URL.Path, "/versions") && r.Method == http.MethodGet {
			format = "[" + format + "]"
		}
		fmt.Fprintf(w, format, text)
	}))
	t.Cleanup(srv.Close)
	reg, err := avro.NewRegistry(avro.Config{URL: config.Secret(srv.URL)})
	if err != nil {
		t.Fatal(err)
	}
	enc, err := avro.NewEncoder(t.Context(), reg, schemas.Subject(schemas.Quarantine), schemas.Latest(schemas.Quarantine))
	if err != nil {
		t.Fatal(err)
	}
	dec, err := avro.NewDecoder(reg, schemas.Latest(schemas.Quarantine))
	if err != nil {
		t.Fatal(err)
	}
	return New(keys, enc, "p.quarantine", "enrich"), dec
}

func TestWhatIsQuarantinedCanBeOpened(t *testing.T) {
	noise := make([]byte, 300<<10)
	rand.Read(noise)
	headers := []kgo.RecordHeader{{Key: "traceparent", Value: []byte("00-x")}, {Key: "empty", Value: []byte{}}, {Key: "none"}}
	keys := newKeys(t, "a")
	q, dec := newQuarantine(t, keys)
	for name, rec := range map[string]*kgo.Record{
		"plain":      {Topic: "store.public.orders", Partition: 3, Offset: 9, Key: []byte("jane@example.org"), Value: []byte("secret value"), Headers: headers},
		"null value": {Topic: "t", Offset: 1, Key: []byte{}},
		"repetitive": {Topic: "t", Offset: 2, Value: bytes.Repeat([]byte("abc"), 1<<20)},
		"noise":      {Topic: "t", Offset: 3, Value: noise},
	} {
		t.Run(name, func(t *testing.T) {
			src := FromRecord(rec)
			src.EventID = "e1"
			faults := []schemas.Fault{{Path: "after.quantity", Code: "not_an_integer", Expected: "a whole number"}}
			out, err := q.Record(src, schemas.ClassDataQuality, faults, time.Unix(5, 123456789))
			if err != nil {
				t.Fatal(err)
			}
			if out.Topic != "p.quarantine" || string(out.Key) != ID(src, "enrich") {
				t.Fatalf("topic %q, key %q", out.Topic, out.Key)
			}
			if len(rec.Value) > 0 && bytes.Contains(out.Value, rec.Value) || len(rec.Key) > 0 && bytes.Contains(out.Value, rec.Key) {
				t.Fatal("the input is readable in the entry")
			}
			var entry schemas.Quarantined
			if err := dec.Decode(t.Context(), out.Value, &entry); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(entry.Errors, faults) || entry.Stage != "enrich" || entry.Class != schemas.ClassDataQuality ||
				!entry.FirstFailedAt.Equal(time.Unix(5, 123456000)) {
				t.Fatalf("entry %+v", entry)
			}
			got, err := Open(keys, &entry)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, src) {
				t.Fatal("another input came out")
			}
			if _, err := Open(newKeys(t, "b"), &entry); err == nil {
				t.Fatal("another key opens it")
			}
			entry.QuarantineID = "moved"
			if _, err := Open(keys, &entry); err == nil {
				t.Fatal("the sealed bytes of one entry open under another id")
			}
		})
	}
}

func TestTooLargeAnInputKeepsItsSource(t *testing.T) {
	noise := make([]byte, 1<<20)
	rand.Read(noise)
	keys := newKeys(t, "a")
	q, dec := newQuarantine(t, keys)
	out, err := q.Record(Source{Topic: "t", Partition: 1, Offset: 4, Value: noise}, schemas.ClassDecodePoison, nil, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Value) > 10_000 {
		t.Fatalf("%d bytes: the broker would refuse it for ever", len(out.Value))
	}
	var entry schemas.Quarantined
	if err := dec.Decode(t.Context(), out.Value, &entry); err != nil {
		t.Fatal(err)
	}
	if len(entry.Errors) != 1 || entry.Errors[0].Code != CodeTooLarge || entry.SourceOffset != 4 {
		t.Fatalf("entry %+v", entry)
	}
	if _, err := Open(keys, &entry); !errors.Is(err, ErrNoPayload) {
		t.Fatalf("open: %v", err)
	}
}

func TestIDs(t *testing.T) {
	base := Source{Topic: "t", Partition: 1, Offset: 2, Value: []byte("v")}
	same := base
	same.Value, same.EventID = []byte("other"), "e"
	if ID(base, "s") != ID(same, "s") {
		t.Error("a position has one id")
	}
	// The documented form: sha256(topic|partition|offset|stage).
	if got, want := ID(base, "s"), "36846f8542f6a797540b7592faa1cfac1c69d6828b04545e4bc75c858e8165ff"; got != want {
		t.Errorf("id %s, want %s", got, want)
	}
	seen := map[string]int{}
	for i, s := range []Source{
		base, {Topic: "t", Partition: 1, Offset: 3}, {Topic: "t", Partition: 12, Offset: 2}, {Topic: "u", Partition: 1, Offset: 2},
		{Topic: HTTP, Offset: -1, Value: []byte("a")}, {Topic: HTTP, Offset: -1, Value: []byte("b")},
		{Topic: HTTP, Offset: -1, EventID: "b"}, {Topic: HTTP, Offset: -1, Key: []byte("b")},
	} {
		id := ID(s, "s")
		if j, ok := seen[id]; ok {
			t.Errorf("sources %d and %d have the same id", i, j)
		}
		seen[id] = i
	}
	if ID(base, "s") == ID(base, "z") {
		t.Error("two stages, one id")
	}
}

func FuzzUnpack(f *testing.F) {
	for _, src := range []Source{{}, {Key: []byte("k"), Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "h"}}}} {
		packed, err := pack(src)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Add([]byte{formDeflated, 1, 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		src, err := unpack(data)
		if err != nil {
			return
		}
		again, err := pack(src)
		if err != nil {
			t.Fatal(err)
		}
		back, err := unpack(again)
		if err != nil || !reflect.DeepEqual(src, back) {
			t.Fatalf("%v", err)
		}
	})
}
