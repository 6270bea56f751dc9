package enrich

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// counted sums a metric over its labels that are not named.
func counted(t testing.TB, reg *prometheus.Registry, name string, labels map[string]string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	next:
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if want, ok := labels[l.GetName()]; ok && want != l.GetValue() {
					continue next
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// fold is the newest image of each key by version, and by position, as compaction would leave it.
func foldOrders(t testing.TB, w *world) map[string]*schemas.Order {
	t.Helper()
	out := map[string]*schemas.Order{}
	for _, o := range readOf[schemas.Order](t, w, schemas.SalesOrders) {
		if img, ok := o.value.(*schemas.Order); ok {
			old := out[o.key]
			if old != nil && !(schemas.Version{Seq: img.Seq, RefSeq: img.RefSeq}).Newer(schemas.Version{Seq: old.Seq, RefSeq: old.RefSeq}) {
				t.Errorf("order %s: version %d/%d stands behind %d/%d: compaction would lose the newer", o.key, img.Seq, img.RefSeq, old.Seq, old.RefSeq)
				continue
			}
			out[o.key] = img
		}
	}
	return out
}

func foldLines(t testing.TB, w *world) map[string]*schemas.Line {
	t.Helper()
	out := map[string]*schemas.Line{}
	for _, o := range readOf[schemas.Line](t, w, schemas.SalesLines) {
		if img, ok := o.value.(*schemas.Line); ok {
			old := out[o.key]
			if old != nil && !(schemas.Version{Seq: img.Seq, RefSeq: img.RefSeq}).Newer(schemas.Version{Seq: old.Seq, RefSeq: old.RefSeq}) {
				t.Errorf("line %s: version %d/%d stands behind %d/%d", o.key, img.Seq, img.RefSeq, old.Seq, old.RefSeq)
				continue
			}
			out[o.key] = img
		}
	}
	return out
}

func TestOrdersBeforeTheirCustomersAreMended(t *testing.T) {
	w := newWorld(t)
	src := newSource(t, w)
	first := w.start(t, "a")
	order := src.put("orders", "1", "c", orderRow(1, noon, "Cancelled", 7))
	src.put("orders", "2", "c", orderRow(2, noon, "Shipped", nil))
	line := src.put("order_details", "1|P|1", "c", lineRow(1, `P|1`, -2, 1005))
	src.commit(true)
	w.quiet(t, src)
	orders := foldOrders(t, w)
	if o := orders["1"]; o == nil || o.Country != schemas.Unknown || !o.Cancelled || o.Seq != order.seq || !o.PlacedAt.Equal(noon) || o.Currency != "EUR" || *o.CustomerKey != "7" {
		t.Fatalf("order 1: %+v", o)
	}
	if o := orders["2"]; o == nil || o.CustomerKey != nil || o.RefSeq != 0 {
		t.Fatalf("order 2: %+v", o)
	}
	if l := foldLines(t, w)[`1|P\|1`]; l == nil || l.Units != -2 || l.UnitPrice != "10.05" || l.OrderID != "1" || l.ProductCode != "P|1" || l.ProductName != schemas.Unknown || l.Seq != line.seq {
		t.Fatalf("line: %+v", l)
	}
	if n := counted(t, first.metrics, "millrace_enrich_waiting_images", nil); n != 2 {
		t.Errorf("%v images wait", n)
	}
	first.stop() // what waits survives a restart

	w.start(t, "b")
	src.put("customers", "7", "c", customerRow(7, "France", 11))
	src.put("products", "P|1", "c", productRow("P|1", "Thing", "Things"))
	src.commit(true)
	w.quiet(t, src)
	if o := foldOrders(t, w)["1"]; o.Country != "France" || o.Region != schemas.Unknown || o.Seq != order.seq {
		t.Fatalf("order 1: %+v", o)
	}
	if l := foldLines(t, w)[`1|P\|1`]; l.ProductName != "Thing" || l.Category != "Things" || l.Seq != line.seq {
		t.Fatalf("line: %+v", l)
	}
	// The last hop comes late, with a version below the first one's: topics are read side by side.
	src.put("offices", "1", "c", officeRow("1", "EMEA"))
	office := src.open
	src.open = nil
	src.put("employees", "11", "c", employeeRow(11, "1"))
	src.commit(true)
	w.quiet(t, src)
	src.open = office
	src.commit(true)
	w.quiet(t, src)
	if o := foldOrders(t, w)["1"]; o.Country != "France" || o.Region != "EMEA" || *o.City != "City" {
		t.Fatalf("order 1: %+v", o)
	}
	waiting := map[string]bool{}
	for _, o := range readOf[schemas.Waiting](t, w, schemas.EnrichWaiting) {
		waiting[o.key] = o.value != nil
	}
	for key, is := range waiting {
		if is {
			t.Errorf("%s still waits", key)
		}
	}
}

func TestDeletesAndTruncates(t *testing.T) {
	w := newWorld(t)
	src := newSource(t, w)
	s := w.start(t, "a")
	src.put("orders", "1", "c", orderRow(1, noon, "Shipped", 7)) // waits
	src.put("order_details", "1|P", "r", lineRow(1, "P", 1, 5))
	src.put("products", "P", "c", productRow("P", "Thing", "Things"))
	src.commit(true)
	gone := src.put("orders", "1", "d", orderRow(1, time.UnixMicro(0), "", nil))
	src.put("order_details", "1|P", "d", lineRow(1, "P", 0, 0))
	src.put("products", "P", "d", productRow("P", "", ""))
	src.put("orders", "t", "t", nil)
	src.open[len(src.open)-1].raw = truncate(src, "orders")
	src.commit(true)
	w.quiet(t, src)
	if o := foldOrders(t, w)["1"]; !o.Gone || o.Seq != gone.seq {
		t.Errorf("order: %+v", o)
	}
	if l := foldLines(t, w)["1|P"]; !l.Gone || l.OrderID != "1" {
		t.Errorf("line: %+v", l)
	}
	for topic, all := range map[string][]output{schemas.SalesOrders: readOf[schemas.Order](t, w, schemas.SalesOrders),
		schemas.SalesLines: readOf[schemas.Line](t, w, schemas.SalesLines), schemas.SalesProducts: readOf[schemas.Product](t, w, schemas.SalesProducts)} {
		if last := all[len(all)-1]; last.value != nil {
			t.Errorf("%s: no tombstone behind what is gone", topic)
		}
	}
	if n := counted(t, s.metrics, "millrace_enrich_waiting_images", nil); n != 0 {
		t.Errorf("%v images wait for the customer of an order that is gone", n)
	}
	if n := counted(t, s.metrics, "millrace_enrich_in_records_total", nil); n != float64(len(src.sent)) {
		t.Errorf("%v outcomes for %d records", n, len(src.sent))
	}
}

func truncate(s *source, table string) []byte {
	body, err := s.codecs[table].BinaryFromNative(avro.AppendFrame(nil, s.ids[table]), map[string]any{"before": nil, "after": nil, "op": "t", "ts_ms": nil,
		"source": map[string]any{"table": table, "ts_us": int64(0), "lsn": int64(0), "seq": int64(5)}})
	if err != nil {
		s.t.Fatal(err)
	}
	return body
}

func TestPoisonIsQuarantinedAndTheRestGoesOn(t *testing.T) {
	w := newWorld(t)
	src := newSource(t, w)
	s := w.start(t, "a")
	raw := func(table, key string, value []byte) {
		src.open = append(src.open, change{table: table, key: key, op: "c", raw: value})
	}
	good := src.encode(change{table: "orders", op: "c", seq: 5, row: orderRow(5, noon, "Shipped", nil)})
	raw("orders", "a", []byte("no frame"))
	raw("orders", "b", avro.AppendFrame(nil, 424242))
	raw("orders", "c", good[:len(good)-1])
	raw("orders", "d", append(append([]byte(nil), good...), 0))
	raw("customers", "e", []byte{})
	late := orderRow(6, noon, "secret-status", 7)
	late["ordered_at"] = nil
	late["currency"] = opt("string", "Euro")
	src.put("orders", "6", "c", late)
	src.put("order_details", "6|P", "c", map[string]any{"order_number": int64(6), "product_code": "P", "quantity_ordered": nil, "price_each": nil})
	src.put("orders", "7", "c", orderRow(7, noon, "Shipped", nil))
	src.commit(true)
	client, err := w.kafka("x").Client("x", testLog(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "t.activity.raw", Value: []byte("{}")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	w.quiet(t, src)
	if o := foldOrders(t, w); len(o) != 1 || o["7"] == nil {
		t.Errorf("orders: %v", o)
	}
	until(t, 10*time.Second, "all are quarantined", func() bool {
		return counted(t, s.metrics, "millrace_enrich_in_records_total", map[string]string{"outcome": "quarantined"}) == 8
	})
	want := map[string]string{"a": schemas.ClassDecodePoison, "b": schemas.ClassSchemaUnknown, "c": schemas.ClassDecodePoison, "d": schemas.ClassDecodePoison,
		"e": schemas.ClassDecodePoison, "6": schemas.ClassDataQuality, "6|P": schemas.ClassDataQuality, "": schemas.ClassDecodePoison}
	paths := map[string][]string{"6": {"after.ordered_at missing", "after.currency not_a_currency"}, "6|P": {"after.quantity_ordered missing", "after.price_each missing"}}
	for _, o := range readOf[schemas.Quarantined](t, w, schemas.Quarantine) {
		e := o.value.(*schemas.Quarantined)
		in, err := quarantine.Open(testKeys(t), e)
		if err != nil {
			t.Fatal(err)
		}
		key := string(in.Key)
		if e.Class != want[key] || e.Stage != "enrich" || len(e.Errors) == 0 {
			t.Errorf("%q: %s %v", key, e.Class, e.Errors)
		}
		delete(want, key)
		var got []string
		for _, f := range e.Errors {
			got = append(got, strings.TrimSpace(f.Path+" "+f.Code))
			if strings.Contains(f.Path+f.Code+f.Expected, "secret") {
				t.Errorf("a fault repeats a value: %+v", f)
			}
		}
		if paths[key] != nil && !reflect.DeepEqual(got, paths[key]) {
			t.Errorf("%q: %v", key, got)
		}
	}
	if len(want) > 0 {
		t.Errorf("not quarantined: %v", want)
	}
}

func TestARegistryThatIsAwayStalls(t *testing.T) {
	w := newWorld(t)
	var away atomic.Bool
	inner := registry.NewMemory()
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if away.Load() {
			http.Error(rw, "away", http.StatusServiceUnavailable)
			return
		}
		inner.ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	w.registry = front.URL
	src := newSource(t, w)
	s := w.start(t, "a")
	until(t, 20*time.Second, "ready", func() bool { return s.Ready() == nil })
	away.Store(true)
	src.put("orders", "1", "c", orderRow(1, noon, "Shipped", nil))
	src.put("customers", "7", "c", customerRow(7, "France", nil))
	src.commit(true)
	until(t, 10*time.Second, "not ready, with the reason", func() bool { err := s.Ready(); return errors.Is(err, avro.ErrUnavailable) })
	if n := counted(t, s.metrics, "millrace_enrich_stalled", nil); n == 0 {
		t.Error("the metric does not tell")
	}
	away.Store(false)
	w.quiet(t, src)
	if o := foldOrders(t, w); o["1"] == nil {
		t.Error("the order is lost")
	}
	if q := readOf[schemas.Quarantined](t, w, schemas.Quarantine); len(q) > 0 {
		t.Errorf("%d good records were quarantined", len(q))
	}
	until(t, 10*time.Second, "ready again", func() bool { return s.Ready() == nil })
}

func TestActivityIsEnriched(t *testing.T) {
	w := newWorld(t)
	src := newSource(t, w)
	src.put("products", "P", "c", productRow("P", "Thing", "Things"))
	src.put("customers", "7", "c", customerRow(7, "France", nil))
	src.commit(true)
	w.start(t, "a")
	enc, err := avro.NewEncoder(t.Context(), w.avro(t), schemas.Subject(schemas.ActivityRaw), schemas.Latest(schemas.ActivityRaw))
	if err != nil {
		t.Fatal(err)
	}
	seven, product := "7", "P"
	a := schemas.Activity{EventID: "e", EventTime: noon, ReceivedAt: noon, SessionID: "s", Action: "view", CustomerNumber: &seven, ProductCode: &product, Attributes: map[string]string{"k": "v"}}
	value, err := enc.Append(nil, &a)
	if err != nil {
		t.Fatal(err)
	}
	client, err := w.kafka("x").Client("x", testLog(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "t.activity.raw", Key: []byte("s"), Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	var got []output
	until(t, 20*time.Second, "enriched", func() bool {
		got = readOf[schemas.EnrichedActivity](t, w, schemas.ActivityEnriched)
		return len(got) == 1
	})
	e := got[0].value.(*schemas.EnrichedActivity)
	if e.ProductName != "Thing" || e.Category != "Things" || e.Country != "France" || e.Region != schemas.Unknown || e.EventID != "e" || e.Attributes["k"] != "v" || got[0].key != "s" {
		t.Errorf("%+v", e)
	}
}
