package images

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/enrich/internal/envelope"
	"github.com/millrace-io/millrace/services/enrich/internal/mapping"
	"github.com/millrace-io/millrace/services/enrich/internal/reference"
)

// maxAmount bounds a line's amount in major units, so that sums of lines in minor units fit into 64 bits.
const maxAmount = 1e13

// epoch stands for "no time" in images of what is gone.
var epoch = time.Unix(0, 0).UTC()

// Key is the key of a changed row: of its new image, or of the old one if it is gone.
func (t *Table) Key(row *envelope.Row) (string, []schemas.Fault) {
	values, side := row.After, schemas.EnvelopeAfter
	if row.Op == 'd' {
		values, side = row.Before, schemas.EnvelopeBefore
	}
	f := faults{table: t, side: side}
	key := f.key(values, t.key)
	return key, f.list
}

// Change is what a row means to the reference store.
func (t *Table) Change(row *envelope.Row, key string) reference.Change {
	c := reference.Change{Table: t.Reference, Key: key, Row: reference.Row{Seq: row.Seq}, Gone: row.Op == 'd'}
	if !c.Gone {
		texts := make([]reference.Text, len(t.texts))
		for i, text := range t.texts {
			texts[i] = text(row.After)
		}
		c.Row = reference.Pack(row.Seq, texts)
	}
	return c
}

// Order is the image of an order's row. missing names the reference row that is not there yet, as table/key.
func (s *Set) Order(row *envelope.Row, key string, refs reference.View) (img *schemas.Order, missing string, list []schemas.Fault) {
	img = &schemas.Order{OrderID: key, Seq: row.Seq, ChangedAt: time.UnixMicro(row.TsUs).UTC(), PlacedAt: epoch, Country: schemas.Unknown, Region: schemas.Unknown}
	if row.Op == 'd' {
		img.Gone = true
		return img, "", nil
	}
	f := faults{table: s.orders, side: schemas.EnvelopeAfter}
	values := row.After
	var p envelope.Problem
	if img.PlacedAt, p = values[s.order.placedAt].Time(s.zone); p != envelope.Fine {
		f.add(s.order.placedAt, p, "a time between the years 1 and 9999")
	}
	img.Status, _ = f.text(s.order.status, values)
	img.Cancelled = slices.Contains(s.mapping.Orders.Cancelled, img.Status)
	currency, ok := f.text(s.order.currency, values)
	switch {
	case !ok:
		f.add(s.order.currency.column, envelope.Missing, "a code of ISO 4217")
	case !mapping.IsCurrency(currency):
		f.add(s.order.currency.column, "not_a_currency", "a code of ISO 4217")
	}
	img.Currency = currency
	if country, ok := f.text(s.order.country, values); ok {
		img.Country = country
	}
	if len(s.order.customer) > 0 {
		switch customer, p := envelope.Key(values, s.order.customer); p {
		case envelope.Fine:
			img.CustomerKey = &customer
		case envelope.Missing:
		default:
			f.add(s.order.customer[0], p, "a key of customers")
		}
	}
	if len(f.list) > 0 {
		return nil, "", f.list
	}
	return img, s.EnrichOrder(img, refs), nil
}

// EnrichOrder fills in what the customer's row tells, with its version. missing names the reference row that is not
// there yet, as table/key; what is known so far is filled in.
func (s *Set) EnrichOrder(img *schemas.Order, refs reference.View) (missing string) {
	if s.customers == nil {
		if s.mapping.Region.Field.Constant != "" {
			img.Region = s.mapping.Region.Field.Constant
		}
		return ""
	}
	if img.CustomerKey == nil {
		return ""
	}
	place, missing := s.place(*img.CustomerKey, refs)
	if !s.mapping.Orders.Country.Set() || img.Country == schemas.Unknown {
		img.Country = place.country
	}
	img.State, img.City, img.Region = place.state, place.city, place.region
	img.RefSeq = place.refSeq
	return missing
}

// place is what a customer's row, and the rows it leads to, tell.
type place struct {
	country, region string
	state, city     *string
	refSeq          int64
}

func (s *Set) place(customer string, refs reference.View) (out place, missing string) {
	out = place{country: schemas.Unknown, region: schemas.Unknown}
	row, ok := refs.Row(s.customers.Reference, customer)
	if !ok {
		return out, s.customers.Name + "/" + customer
	}
	out.refSeq = row.Seq
	if country, ok := row.Text(textCountry); ok && country != "" {
		out.country = country
	}
	if state, ok := row.Text(textState); ok {
		out.state = &state
	}
	if city, ok := row.Text(textCity); ok {
		out.city = &city
	}
	next, ok := row.Text(textHop)
	for _, hop := range s.hops {
		if !ok {
			return out, ""
		}
		if row, ok = refs.Row(hop.Reference, next); !ok {
			return out, hop.Name + "/" + next
		}
		out.refSeq = max(out.refSeq, row.Seq)
		next, ok = row.Text(0)
	}
	if ok && next != "" {
		out.region = next
	}
	return out, ""
}

// Line is the image of a line's row. missing is as in Order.
func (s *Set) Line(row *envelope.Row, key string, refs reference.View) (img *schemas.Line, missing string, list []schemas.Fault) {
	img = &schemas.Line{LineID: key, Seq: row.Seq, ChangedAt: time.UnixMicro(row.TsUs).UTC(), ProductName: schemas.Unknown, Category: schemas.Unknown, UnitPrice: "0"}
	if row.Op == 'd' {
		img.Gone = true
		if order, p := envelope.Key(row.Before, s.line.order); p == envelope.Fine {
			img.OrderID = order
		}
		return img, "", nil
	}
	f := faults{table: s.lines, side: schemas.EnvelopeAfter}
	values := row.After
	img.OrderID = f.key(values, s.line.order)
	var p envelope.Problem
	if img.Units, p = values[s.line.quantity].Integer(); p != envelope.Fine {
		f.add(s.line.quantity, p, "a whole number")
	}
	if img.UnitPrice, p = values[s.line.unitPrice].Decimal(); p != envelope.Fine {
		f.add(s.line.unitPrice, p, "a decimal number")
	} else if !amountFits(img.Units, img.UnitPrice) {
		f.add(s.line.unitPrice, envelope.OutOfRange, "an amount of less than 10 million million")
	}
	if len(s.line.product) > 0 {
		switch product, p := envelope.Key(values, s.line.product); p {
		case envelope.Fine:
			img.ProductCode = product
		case envelope.Missing:
		default:
			f.add(s.line.product[0], p, "a key of products")
		}
	}
	if len(f.list) > 0 {
		return nil, "", f.list
	}
	return img, s.EnrichLine(img, refs), nil
}

func amountFits(units int64, price string) bool {
	x, err := strconv.ParseFloat(price, 64)
	amount := float64(units) * x
	return err == nil && amount > -maxAmount && amount < maxAmount && x > -maxAmount && x < maxAmount
}

// EnrichLine is as EnrichOrder, for a line and its product.
func (s *Set) EnrichLine(img *schemas.Line, refs reference.View) (missing string) {
	if s.products == nil || img.ProductCode == "" {
		return ""
	}
	row, ok := refs.Row(s.products.Reference, img.ProductCode)
	if !ok {
		return s.products.Name + "/" + img.ProductCode
	}
	img.RefSeq = row.Seq
	img.ProductName, img.Category = productTexts(row)
	return ""
}

func productTexts(row reference.Row) (name, category string) {
	name, category = schemas.Unknown, schemas.Unknown
	if text, ok := row.Text(textName); ok && text != "" {
		name = text
	}
	if text, ok := row.Text(textCategory); ok && text != "" {
		category = text
	}
	return name, category
}

// Product is the image of a product's row.
func (s *Set) Product(row *envelope.Row, key string) (*schemas.Product, []schemas.Fault) {
	img := &schemas.Product{ProductCode: key, Seq: row.Seq, ChangedAt: time.UnixMicro(row.TsUs).UTC(), Category: schemas.Unknown}
	if row.Op == 'd' {
		img.Gone = true
		return img, nil
	}
	f := faults{table: s.products, side: schemas.EnvelopeAfter}
	values := row.After
	img.Name, _ = f.text(s.product.name, values)
	if category, ok := f.text(s.product.category, values); ok && category != "" {
		img.Category = category
	}
	if scale, ok := f.text(s.product.scale, values); ok {
		img.Scale = &scale
	}
	if vendor, ok := f.text(s.product.vendor, values); ok {
		img.Vendor = &vendor
	}
	if at := s.product.stock; at >= 0 && values[at].Kind != envelope.Null {
		stock, p := values[at].Integer()
		if p != envelope.Fine {
			f.add(at, p, "a whole number")
		}
		img.Stock = &stock
	}
	if at := s.product.listPrice; at >= 0 && values[at].Kind != envelope.Null {
		price, p := values[at].Decimal()
		if p != envelope.Fine {
			f.add(at, p, "a decimal number")
		}
		img.ListPrice = &price
	}
	if at := s.product.hidden; at >= 0 && values[at].Kind != envelope.Null {
		hidden, p := values[at].Bool()
		if p != envelope.Fine {
			f.add(at, p, "true or false")
		}
		img.Hidden = hidden
	}
	if len(f.list) > 0 {
		return nil, f.list
	}
	return img, nil
}

// Activity is an event with the dimensions of its product and its customer; what is not there is unknown.
func (s *Set) Activity(a *schemas.Activity, refs reference.View) *schemas.EnrichedActivity {
	out := &schemas.EnrichedActivity{Activity: *a, ProductName: schemas.Unknown, Category: schemas.Unknown, Country: schemas.Unknown, Region: schemas.Unknown}
	if s.products != nil && a.ProductCode != nil {
		if row, ok := refs.Row(s.products.Reference, *a.ProductCode); ok {
			out.ProductName, out.Category = productTexts(row)
			out.RefSeq = row.Seq
		}
	}
	if s.customers != nil && a.CustomerNumber != nil {
		place, _ := s.place(*a.CustomerNumber, refs)
		out.Country, out.Region = place.country, place.region
		out.RefSeq = max(out.RefSeq, place.refSeq)
	}
	return out
}

// Has tells whether the reference row of that name, table/key, is there.
func (s *Set) Has(name string, refs reference.View) bool {
	table, key, _ := strings.Cut(name, "/")
	for _, t := range s.Tables {
		if t.Reference >= 0 && t.Name == table {
			_, ok := refs.Row(t.Reference, key)
			return ok
		}
	}
	return false
}

// faults collects what is wrong with a row, without its values.
type faults struct {
	table *Table
	side  string
	list  []schemas.Fault
}

func (f *faults) add(column int, p envelope.Problem, expected string) {
	path := f.side
	if column >= 0 {
		path += "." + f.table.Columns[column].Name
	}
	f.list = append(f.list, schemas.Fault{Path: path, Code: string(p), Expected: expected})
}

func (f *faults) text(of field, values []envelope.Value) (string, bool) {
	text, ok, p := of.text(values)
	if p != envelope.Fine {
		f.add(of.column, p, "text in UTF-8")
	}
	return text, ok
}

func (f *faults) key(values []envelope.Value, columns []int) string {
	key, p := envelope.Key(values, columns)
	if p == envelope.Fine && key != "" {
		return key
	}
	for _, c := range columns {
		if _, p := values[c].Text(); p != envelope.Fine {
			f.add(c, p, "a key")
			return ""
		}
	}
	f.add(columns[0], envelope.Missing, "a key")
	return ""
}
