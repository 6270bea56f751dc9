package images

import (
	"reflect"
	"testing"
	"time"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/enrich/internal/envelope"
	"github.com/millrace-io/millrace/services/enrich/internal/mapping"
	"github.com/millrace-io/millrace/services/enrich/internal/reference"
)

func shipped(t *testing.T, name string) *Set {
	t.Helper()
	m, err := mapping.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	return New(m)
}

// values of a row.
func text(s string) envelope.Value { return envelope.Value{Kind: envelope.Text, Bytes: []byte(s)} }
func num(n int64) envelope.Value   { return envelope.Value{Kind: envelope.Int, Int: n} }

func day(s string) envelope.Value {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return envelope.Value{} // a time missing: the test that asked for it fails
	}
	return envelope.Value{Kind: envelope.Date, Int: t.Unix() / 86400}
}

// row is a change of a table's row with the columns given; the others are null.
func row(t *testing.T, s *Set, role Role, op byte, seq int64, columns map[string]envelope.Value) (*Table, *envelope.Row) {
	t.Helper()
	var table *Table
	for _, x := range s.Tables {
		if table == nil && x.Role == role && (role != HopTable || hasKey(x, columns)) {
			table = x
		}
	}
	values := make([]envelope.Value, len(table.Columns))
	for name, v := range columns {
		at := -1
		for i, c := range table.Columns {
			if c.Name == name {
				at = i
			}
		}
		if at < 0 {
			t.Fatalf("%s does not read %s: %v", table.Name, name, table.Columns)
		}
		values[at] = v
	}
	r := &envelope.Row{Op: op, Seq: seq, TsUs: 1_000_000, HasAfter: op != 'd', HasBefore: op == 'd', After: values}
	if op == 'd' {
		r.Before, r.After = values, make([]envelope.Value, len(values))
	}
	return table, r
}

func hasKey(t *Table, columns map[string]envelope.Value) bool {
	_, ok := columns[t.Columns[t.key[0]].Name]
	return ok
}

func (s *Set) testPut(t *testing.T, refs *reference.Store, role Role, seq int64, columns map[string]envelope.Value) {
	t.Helper()
	table, r := row(t, s, role, 'c', seq, columns)
	key, faults := table.Key(r)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	refs.Apply([]reference.Change{table.Change(r, key)})
}

func (s *Set) testOrder(t *testing.T, refs *reference.Store, columns map[string]envelope.Value) (img *schemas.Order, missing string, faults []schemas.Fault) {
	t.Helper()
	table, r := row(t, s, Orders, 'c', 50, columns)
	key, faults := table.Key(r)
	if len(faults) > 0 {
		return nil, "", faults
	}
	refs.View(func(v reference.View) { img, missing, faults = s.Order(r, key, v) })
	return img, missing, faults
}

func TestClassicModels(t *testing.T) {
	s := shipped(t, "classicmodels")
	refs := reference.New(s.References())
	order := map[string]envelope.Value{"ordernumber": num(10100), "orderdate": day("2004-11-24"), "status": text("Cancelled"), "customernumber": num(363)}
	img, missing, faults := s.testOrder(t, refs, order)
	if len(faults) > 0 || missing != "public.customers/363" || img.Country != schemas.Unknown || img.RefSeq != 0 {
		t.Fatalf("%+v %q %v", img, missing, faults)
	}
	s.testPut(t, refs, Customers, 5, map[string]envelope.Value{"customernumber": num(363), "country": text("USA"), "state": text("NH"), "city": text("Nashua"), "salesrepemployeenumber": num(1216)})
	if img, missing, _ = s.testOrder(t, refs, order); missing != "public.employees/1216" || img.Country != "USA" || img.Region != schemas.Unknown || img.RefSeq != 5 {
		t.Fatalf("%+v %q", img, missing)
	}
	s.testPut(t, refs, HopTable, 9, map[string]envelope.Value{"employeenumber": num(1216), "officecode": text("2")})
	s.testPut(t, refs, HopTable, 3, map[string]envelope.Value{"officecode": text("2"), "territory": text("NA")})
	img, missing, _ = s.testOrder(t, refs, order)
	key, nh, nashua := "363", "NH", "Nashua"
	want := &schemas.Order{OrderID: "10100", Seq: 50, RefSeq: 9, PlacedAt: time.Date(2004, 11, 24, 0, 0, 0, 0, time.UTC), Status: "Cancelled", Cancelled: true, CustomerKey: &key,
		Country: "USA", Region: "NA", State: &nh, City: &nashua, Currency: "USD", ChangedAt: time.UnixMicro(1_000_000).UTC()}
	if missing != "" || !reflect.DeepEqual(img, want) {
		t.Fatalf("%+v %q", img, missing)
	}
	// A customer without a sales representative has no region, and nothing is waited for.
	s.testPut(t, refs, Customers, 6, map[string]envelope.Value{"customernumber": num(363), "country": text("USA")})
	if img, missing, _ = s.testOrder(t, refs, order); missing != "" || img.Region != schemas.Unknown || img.State != nil {
		t.Fatalf("%+v %q", img, missing)
	}
}

func TestOnlineRetail(t *testing.T) {
	s := shipped(t, "online-retail")
	refs := reference.New(s.References())
	at := time.Date(2010, 12, 1, 8, 26, 0, 0, time.UTC)
	img, missing, faults := s.testOrder(t, refs, map[string]envelope.Value{"invoice_no": text("C536379"),
		"invoice_date": {Kind: envelope.LocalTimestamp, Int: at.UnixMicro()}, "customer_id": text("14527"), "country": text("United Kingdom")})
	if len(faults) > 0 || missing != "" || img.Country != "United Kingdom" || img.Region != schemas.Unknown || img.Cancelled || img.Currency != "GBP" || !img.PlacedAt.Equal(at) || *img.CustomerKey != "14527" {
		t.Fatalf("%+v %q %v", img, missing, faults)
	}
	s.testPut(t, refs, Products, 4, map[string]envelope.Value{"stock_code": text("D"), "description": text("Discount")})
	table, r := row(t, s, Lines, 'c', 60, map[string]envelope.Value{"id": num(1), "invoice_no": text("C536379"), "stock_code": text("D"), "quantity": num(-1), "unit_price": text("27.50")})
	key, _ := table.Key(r)
	refs.View(func(v reference.View) {
		line, missing, faults := s.Line(r, key, v)
		want := &schemas.Line{LineID: "1", Seq: 60, RefSeq: 4, OrderID: "C536379", ProductCode: "D", ProductName: "Discount", Category: "unknown", Units: -1, UnitPrice: "27.50", ChangedAt: time.UnixMicro(1_000_000).UTC()}
		if missing != "" || len(faults) > 0 || !reflect.DeepEqual(line, want) {
			t.Errorf("%+v %q %v", line, missing, faults)
		}
	})
}

func TestFaultsNameTheColumn(t *testing.T) {
	s := shipped(t, "demo")
	refs := reference.New(s.References())
	ok := map[string]envelope.Value{"order_number": num(1), "ordered_at": {Kind: envelope.Timestamp}, "status": text("Shipped"), "customer_number": num(1), "currency": text("EUR")}
	for column, c := range map[string]struct {
		v    envelope.Value
		code string
	}{
		"order_number": {envelope.Value{}, "missing"}, "ordered_at": {text("soon"), "not_a_time"}, "status": {text("\xff"), "not_utf8"},
		"currency": {text("eur"), "not_a_currency"}, "customer_number": {text("\xff"), "not_utf8"},
	} {
		bad := map[string]envelope.Value{}
		for k, v := range ok {
			bad[k] = v
		}
		bad[column] = c.v
		if _, _, faults := s.testOrder(t, refs, bad); len(faults) != 1 || faults[0].Path != "after."+column || faults[0].Code != c.code || faults[0].Expected == "" {
			t.Errorf("%s: %+v", column, faults)
		}
	}
	line := map[string]envelope.Value{"order_number": num(1), "product_code": text("P"), "quantity_ordered": num(1), "price_each": text("1")}
	for column, c := range map[string]struct {
		v    envelope.Value
		code string
	}{
		"quantity_ordered": {text("1.5"), "not_an_integer"}, "price_each": {text("NaN"), "out_of_range"}, "product_code": {envelope.Value{}, "missing"},
	} {
		bad := map[string]envelope.Value{}
		for k, v := range line {
			bad[k] = v
		}
		bad[column] = c.v
		table, r := row(t, s, Lines, 'u', 60, bad)
		key, faults := table.Key(r)
		if len(faults) == 0 {
			refs.View(func(v reference.View) { _, _, faults = s.Line(r, key, v) })
		}
		if len(faults) != 1 || faults[0].Path != "after."+column || faults[0].Code != c.code {
			t.Errorf("%s: %+v", column, faults)
		}
	}
	big := map[string]envelope.Value{"order_number": num(1), "product_code": text("P"), "quantity_ordered": num(1 << 40), "price_each": text("99999999")}
	table, r := row(t, s, Lines, 'u', 60, big)
	key, _ := table.Key(r)
	refs.View(func(v reference.View) {
		if _, _, faults := s.Line(r, key, v); len(faults) != 1 || faults[0].Code != "out_of_range" {
			t.Errorf("an amount that no sum could hold: %+v", faults)
		}
	})
}

// What is gone has its key and its versions, and nothing of a row.
func TestGone(t *testing.T) {
	s := shipped(t, "demo")
	refs := reference.New(s.References())
	table, r := row(t, s, Orders, 'd', 70, map[string]envelope.Value{"order_number": num(1), "customer_number": num(7)})
	key, faults := table.Key(r)
	refs.View(func(v reference.View) {
		img, missing, more := s.Order(r, key, v)
		if len(faults)+len(more) > 0 || missing != "" || !img.Gone || img.OrderID != "1" || img.Seq != 70 || img.CustomerKey != nil {
			t.Errorf("%+v %q", img, missing)
		}
	})
}

func TestActivityOfTheUnknown(t *testing.T) {
	s := shipped(t, "demo")
	reference.New(s.References()).View(func(v reference.View) {
		who, what := "7", "P"
		out := s.Activity(&schemas.Activity{EventID: "e", CustomerNumber: &who, ProductCode: &what}, v)
		if out.Country != schemas.Unknown || out.Region != schemas.Unknown || out.ProductName != schemas.Unknown || out.Category != schemas.Unknown || out.RefSeq != 0 || out.EventID != "e" {
			t.Errorf("%+v", out)
		}
	})
}
