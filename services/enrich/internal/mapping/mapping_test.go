package mapping

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestShippedMappingsAreValid(t *testing.T) {
	want := map[string][]string{
		"demo":          {"store.public.orders", "store.public.order_details", "store.public.products", "store.public.customers", "store.public.employees", "store.public.offices"},
		"classicmodels": {"store.public.orders", "store.public.orderdetails", "store.public.products", "store.public.customers", "store.public.employees", "store.public.offices"},
		"online-retail": {"store.public.invoices", "store.public.invoice_lines", "store.public.items"},
	}
	if len(Names()) != len(want) {
		t.Errorf("shipped: %v", Names())
	}
	for name, topics := range want {
		m, err := Named(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := m.Topics(); !reflect.DeepEqual(got, topics) {
			t.Errorf("%s: topics %v", name, got)
		}
	}
	if _, err := Named("nosuch"); err == nil || !strings.Contains(err.Error(), "demo") {
		t.Errorf("an unknown name: %v", err)
	}
}

// small is a valid mapping of another store's database.
const small = `
zone: Europe/Berlin
orders:
  table: shop.bestellung
  key: [mandant, nummer]
  placed_at: datum
  status: {constant: done}
  currency: {constant: EUR}
lines: {table: shop.position, key: [mandant, nummer, pos], order: [mandant, nummer], quantity: menge, unit_price: preis}
`

func TestAnotherStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.yaml")
	if err := os.WriteFile(path, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := File(path)
	if err != nil {
		t.Fatal(err)
	}
	if m.Location().String() != "Europe/Berlin" || m.Orders.Status != (Field{Constant: "done"}) ||
		!reflect.DeepEqual(m.Lines.Key, Columns{"mandant", "nummer", "pos"}) || !reflect.DeepEqual(m.Topics(), []string{"store.shop.bestellung", "store.shop.position"}) {
		t.Errorf("%+v", m)
	}
	if Topic("plain") != "store.public.plain" {
		t.Error(Topic("plain"))
	}
}

func TestMistakesNameTheKey(t *testing.T) {
	for name, c := range map[string]struct{ change, to, want string }{
		"unknown key":        {"placed_at:", "placed:", "placed"},
		"no table":           {"table: shop.bestellung", "table: ''", "orders.table"},
		"no key":             {"key: [mandant, nummer]", "key: []", "orders.key"},
		"no time":            {"placed_at: datum", "placed_at: ''", "orders.placed_at"},
		"zone":               {"Europe/Berlin", "Europe/Nowhere", "zone"},
		"currency":           {"constant: EUR", "constant: Euro", "orders.currency"},
		"field form":         {"{constant: done}", "{const: done}", "constant"},
		"order's key length": {"order: [mandant, nummer]", "order: nummer", "lines.order"},
		"same table twice":   {"shop.position", "shop.bestellung", "lines.table"},
		"region alone":       {"zone: Europe/Berlin", "region: {field: territory}", "region"},
		"cancelled alone":    {"status: {constant: done}", "cancelled: [x]", "orders.cancelled"},
		"products' key":      {"zone: Europe/Berlin", "products: {table: p, key: id, name: n}", "lines.product"},
		"customer's key":     {"zone: Europe/Berlin", "customers: {table: c}", "customers.key"},
		"hop": {"zone: Europe/Berlin", "customers: {table: c, key: id}\nregion: {hops: [{via: [a, b], table: o, key: id}], field: f}",
			"region.hops[0].via"},
		"region's field": {"zone: Europe/Berlin", "customers: {table: c, key: id}\nregion: {hops: [{via: a, table: o, key: id}]}", "region.field"},
	} {
		text := strings.Replace(small, c.change, c.to, 1)
		if text == small {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse(nil); err == nil || !strings.Contains(err.Error(), "orders.table") {
		t.Errorf("an empty file: %v", err)
	}
}
