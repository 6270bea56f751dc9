package schemas

import (
	_ "embed"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro"
)

// A FULL_TRANSITIVE subject: every released schema reads what every other wrote.
func TestReleasedSchemasReadEachOther(t *testing.T) {
	for _, topic := range Topics() {
		var parsed []*avro.Schema
		for _, text := range Released(topic.Name) {
			s, err := avro.Parse(text)
			if err != nil {
				t.Fatalf("%s: %v", topic.Name, err)
			}
			parsed = append(parsed, s)
		}
		for i, w := range parsed {
			for j, r := range parsed {
				if err := avro.CheckCompatibility(w, r); err != nil {
					t.Errorf("%s: v%d cannot be read by v%d: %v", topic.Name, i+1, j+1, err)
				}
			}
		}
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	var walk func(where string, v any)
	walk = func(where string, v any) {
		switch x := v.(type) {
		case []any:
			for _, e := range x {
				walk(where, e)
			}
		case map[string]any:
			if x["type"] == "record" && x["doc"] == nil {
				t.Errorf("%s: record %v has no doc", where, x["name"])
			}
			if fields, ok := x["fields"].([]any); ok {
				for _, f := range fields {
					m := f.(map[string]any)
					if d, _ := m["doc"].(string); d == "" {
						t.Errorf("%s: field %v has no doc", where, m["name"])
					}
					walk(where, m["type"])
				}
			}
			if items, ok := x["items"]; ok {
				walk(where, items)
			}
		}
	}
	for _, topic := range Topics() {
		var v any
		if err := json.Unmarshal([]byte(Latest(topic.Name)), &v); err != nil {
			t.Fatal(err)
		}
		walk(topic.Name, v)
	}
}

func ptr[T any](v T) *T { return &v }

// examples holds one value of each contract with every field set.
func examples() map[string]any {
	at := time.Date(2026, 3, 1, 12, 30, 0, 123456000, time.UTC)
	activity := Activity{EventID: "e1", EventTime: at, ReceivedAt: at, SessionID: "s1", Action: "view", CustomerNumber: ptr("103"), CustomerVerified: true,
		AnonymousID: ptr("tok_a"), ProductCode: ptr("P1"), Quantity: ptr(int64(2)), PageURL: ptr("/p"), UserAgent: ptr("ua"), IP: ptr("tok_i"), Attributes: map[string]string{"k": "v"}}
	return map[string]any{
		SalesOrders: &Order{OrderID: "1", Seq: 2, RefSeq: 3, PlacedAt: at, Status: "Shipped", Cancelled: true, CustomerKey: ptr("9"), Country: "France",
			Region: "EMEA", State: ptr("x"), City: ptr("Nantes"), Currency: "EUR", ChangedAt: at},
		SalesLines:       &Line{LineID: "1|P1", Seq: 2, RefSeq: 3, OrderID: "1", ProductCode: "P1", ProductName: "n", Category: "c", Units: -4, UnitPrice: "1.005", ChangedAt: at},
		SalesProducts:    &Product{ProductCode: "P1", Seq: 2, RefSeq: 3, Name: "n", Category: "c", Scale: ptr("1:18"), Vendor: ptr("v"), Stock: ptr(int64(5)), ListPrice: ptr("9.90"), Hidden: true, ChangedAt: at},
		ActivityRaw:      &activity,
		ActivityEnriched: &EnrichedActivity{Activity: activity, ProductName: "n", Category: "c", Country: "France", Region: "EMEA", RefSeq: 7},
		Quarantine: &Quarantined{QuarantineID: "q", Stage: "enrich", Class: ClassDataQuality, Errors: []Fault{{Path: "a.b", Code: "missing", Expected: "a number", RuleID: "r"}},
			SourceTopic: "t", SourcePartition: 1, SourceOffset: 2, EventID: "e", FirstFailedAt: at, ReplayCount: 1, Trace: "00", KeyID: "k", WrappedKey: []byte{1}, Sealed: []byte{2, 3}},
		RecommendationsServed: &Served{RequestID: "r", ServedAt: at, SessionID: ptr("s"), CustomerNumber: ptr("9"), Context: "home", Level: "popular", ModelVersion: "live",
			Items: []ServedItem{{ProductCode: "P1", Score: 0.5, Reason: "popular"}}, Cart: []string{"P2"}, Viewed: []string{"P3"}, LatencyUS: 120},
		Progress: &Claim{Stage: "enrich", Instance: "0", ValidThrough: at, SourceLSN: 99, ReportedAt: at, Fresh: true, Covers: []Partition{{Topic: "t", Partition: 1}},
			Ends: []PartitionOffset{{Topic: "t", Partition: 2, Offset: 3}}, Incomplete: []string{"public.x"}},
		CDCPosition: &Position{Slot: "millrace", SystemID: "7", Timeline: 1, LSN: 2, CommitTime: at, TxLSN: 3, TxOrdinal: 4, TxMessages: 14, Seq: 5, Snapshot: "done", SnapshotLSN: 6,
			Stopped: map[string]string{"public.x": "why"}, UpdatedAt: at, PublicationID: 7, Members: map[string]int64{"public.x": 8},
			Jobs:     []Job{{ID: "j", Kind: CaptureSnapshot, Table: "public.x", Where: "a > 1", Next: 9, Blocks: 10, FileNode: 11, Rows: 12, StartedAt: at}},
			Poisoned: map[string][][]byte{"public.x": {{1, 2}}}, Versions: map[string]int32{"public.x": 2}, Requests: 13},
		CDCRequests: &CaptureRequest{RequestID: "r", Slot: "millrace", Kind: CaptureResume, Tables: []string{"public.x"}, Where: "a > 1", Version: 2, RequestedAt: at},
		CDCNotifications: &CaptureNotification{Slot: "millrace", At: at, Kind: NoteDone, Table: "public.x", RequestID: "r", Message: "m",
			Details: map[string]string{"rows": "1"}},
		EnrichWaiting: &Waiting{InputTopic: "store.public.orders", InputPartition: 1, Missing: []string{"customers/1"}, OutputTopic: SalesOrders, OutputKey: "1", Image: []byte{1}},
	}
}

// Go types and schemas agree, and a codec that shares no code with ours reads what we write.
func TestTypesFitTheirSchemas(t *testing.T) {
	for topic, v := range examples() {
		s := avro.MustParse(Latest(topic))
		data, err := s.Encode(v)
		if err != nil {
			t.Errorf("%s: %v", topic, err)
			continue
		}
		codec, err := goavro.NewCodec(Latest(topic))
		if err != nil {
			t.Fatalf("%s: goavro: %v", topic, err)
		}
		native, rest, err := codec.NativeFromBinary(data)
		if err != nil || len(rest) > 0 {
			t.Errorf("%s: goavro cannot read it: %v, %d bytes left", topic, err, len(rest))
			continue
		}
		again, err := codec.BinaryFromNative(nil, native)
		if err != nil || string(again) != string(data) {
			t.Errorf("%s: goavro writes it otherwise: %v", topic, err)
		}
	}
	if len(examples()) != len(Topics()) {
		t.Errorf("%d examples for %d topics", len(examples()), len(Topics()))
	}
}

// firstReleases are the examples as the golden records hold them: what later versions added has its default.
func firstReleases() map[string]any {
	out := examples()
	p := out[CDCPosition].(*Position)
	*p = Position{Slot: p.Slot, SystemID: p.SystemID, Timeline: p.Timeline, LSN: p.LSN, CommitTime: p.CommitTime, TxLSN: p.TxLSN, TxOrdinal: p.TxOrdinal,
		Seq: p.Seq, Snapshot: p.Snapshot, SnapshotLSN: p.SnapshotLSN, Stopped: p.Stopped, UpdatedAt: p.UpdatedAt,
		Members: map[string]int64{}, Jobs: []Job{}, Poisoned: map[string][][]byte{}, Versions: map[string]int32{}}
	return out
}

// golden holds a record of each contract as it was first released: it must be readable for ever.
//
//go:embed testdata/golden.json
var golden []byte

func TestGoldenRecordsAreStillRead(t *testing.T) {
	records := map[string][]byte{}
	if err := json.Unmarshal(golden, &records); err != nil {
		t.Fatal(err)
	}
	want := firstReleases()
	for topic := range want {
		data, ok := records[topic]
		if !ok {
			t.Errorf("%s has no golden record", topic)
			continue
		}
		resolved, err := avro.Resolve(avro.MustParse(Released(topic)[0]), avro.MustParse(Latest(topic)))
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(want[topic]).Elem()).Interface()
		if rest, err := resolved.Decode(data, got); err != nil || len(rest) > 0 {
			t.Errorf("%s: %v", topic, err)
			continue
		}
		if !reflect.DeepEqual(got, want[topic]) {
			t.Errorf("%s:\n got %+v\nwant %+v", topic, got, want[topic])
		}
	}
}
