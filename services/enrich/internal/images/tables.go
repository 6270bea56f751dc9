// Package images makes the images of orders, lines and products from rows and reference data, as a mapping says. It is
// pure: no transport, no clock.
package images

import (
	"slices"
	"time"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/enrich/internal/envelope"
	"github.com/millrace-io/millrace/services/enrich/internal/mapping"
	"github.com/millrace-io/millrace/services/enrich/internal/reference"
)

// Role is what a table is to us.
type Role int

// Roles of tables.
const (
	Orders Role = iota
	Lines
	Products
	Customers
	HopTable
)

// Table is a mapped table, compiled.
type Table struct {
	Name      string // schema.table
	Topic     string // without prefix
	Role      Role
	Columns   []envelope.Column // that are read
	Reference int               // its place in the reference store, or -1

	key   []int
	texts []func([]envelope.Value) reference.Text // what the reference store keeps of a row
}

// Set is a compiled mapping. It does not change and is safe for concurrent use.
type Set struct {
	Tables []*Table

	mapping   *mapping.Mapping
	zone      *time.Location
	orders    *Table
	lines     *Table
	products  *Table // nil where there is none
	customers *Table // nil where there is none
	hops      []*Table

	order   orderColumns
	line    lineColumns
	product productColumns

	refs int // number of reference tables

}

type orderColumns struct {
	placedAt         int
	status, currency field
	country          field
	customer         []int
}

type lineColumns struct {
	order, product      []int
	quantity, unitPrice int
}

type productColumns struct {
	name, category, scale, vendor field
	stock, listPrice, hidden      int // -1 where there is none
}

// field is a column or a constant.
type field struct {
	column   int // -1 for a constant, or for nothing
	constant string
}

// Places of the texts that the reference store keeps.
const (
	textCountry = iota
	textState
	textCity
	textHop // the first hop's key, or the region; a hop's row has only that, at 0
)

const (
	textName = iota
	textCategory
)

// New compiles a valid mapping.
func New(m *mapping.Mapping) *Set {
	s := &Set{mapping: m, zone: m.Location()}
	s.orders = s.table(m.Orders.Table, Orders, m.Orders.Key)
	s.order = orderColumns{placedAt: s.orders.column(m.Orders.PlacedAt, true), status: s.orders.field(m.Orders.Status, false),
		currency: s.orders.field(m.Orders.Currency, true), country: s.orders.field(m.Orders.Country, false),
		customer: s.orders.columns(m.Orders.Customer, false)}
	s.lines = s.table(m.Lines.Table, Lines, m.Lines.Key)
	s.line = lineColumns{order: s.lines.columns(m.Lines.Order, true), product: s.lines.columns(m.Lines.Product, false),
		quantity: s.lines.column(m.Lines.Quantity, true), unitPrice: s.lines.column(m.Lines.UnitPrice, true)}
	if p := m.Products; p != nil {
		s.addProducts(p)
	}
	if c := m.Customers; c != nil {
		s.addCustomers(c)
	}
	return s
}

func (s *Set) addProducts(p *mapping.Products) {
	t := s.table(p.Table, Products, p.Key)
	s.products = t
	s.product = productColumns{name: t.field(p.Name, false), category: t.field(p.Category, false), scale: t.field(p.Scale, false),
		vendor: t.field(p.Vendor, false), stock: t.optional(p.Stock), listPrice: t.optional(p.ListPrice), hidden: t.optional(p.Hidden)}
	s.reference(t)
	t.texts = []func([]envelope.Value) reference.Text{s.product.name.keep, s.product.category.keep}
}

func (s *Set) addCustomers(c *mapping.Customers) {
	t := s.table(c.Table, Customers, c.Key)
	s.customers = t
	s.reference(t)
	t.texts = []func([]envelope.Value) reference.Text{t.field(c.Country, false).keep, t.field(c.State, false).keep, t.field(c.City, false).keep}
	at := t
	for _, h := range s.mapping.Region.Hops {
		via := at.columns(h.Via, false)
		at.texts = append(at.texts, func(values []envelope.Value) reference.Text {
			key, p := envelope.Key(values, via)
			return reference.Text{Value: key, Valid: p == envelope.Fine}
		})
		at = s.table(h.Table, HopTable, h.Key)
		s.reference(at)
		s.hops = append(s.hops, at)
	}
	at.texts = append(at.texts, at.field(s.mapping.Region.Field, false).keep)
}

func (s *Set) table(name string, role Role, key mapping.Columns) *Table {
	topic := mapping.Topic(name)
	t := &Table{Name: topic[len(schemas.StorePrefix):], Topic: topic, Role: role, Reference: -1}
	t.key = t.columns(key, true)
	s.Tables = append(s.Tables, t)
	return t
}

func (s *Set) reference(t *Table) {
	t.Reference = s.refs
	s.refs++
}

// References is the number of reference tables.
func (s *Set) References() int { return s.refs }

func (t *Table) column(name string, required bool) int {
	if at := slices.IndexFunc(t.Columns, func(c envelope.Column) bool { return c.Name == name }); at >= 0 {
		t.Columns[at].Required = t.Columns[at].Required || required
		return at
	}
	t.Columns = append(t.Columns, envelope.Column{Name: name, Required: required})
	return len(t.Columns) - 1
}

func (t *Table) optional(name string) int {
	if name == "" {
		return -1
	}
	return t.column(name, false)
}

func (t *Table) columns(names mapping.Columns, required bool) []int {
	var out []int
	for _, n := range names {
		out = append(out, t.column(n, required))
	}
	return out
}

func (t *Table) field(f mapping.Field, required bool) field {
	if f.Column != "" {
		return field{column: t.column(f.Column, required)}
	}
	return field{column: -1, constant: f.Constant}
}

// text is the field's text; false where it is null or not there. A problem is told only of a text that is none.
func (f field) text(values []envelope.Value) (string, bool, envelope.Problem) {
	if f.column < 0 {
		return f.constant, f.constant != "", envelope.Fine
	}
	text, p := values[f.column].Text()
	if p == envelope.Missing {
		return "", false, envelope.Fine
	}
	return text, p == envelope.Fine, p
}

func (f field) keep(values []envelope.Value) reference.Text {
	text, ok, _ := f.text(values)
	return reference.Text{Value: text, Valid: ok}
}
