// Package mapping says how a store's tables become orders, lines, customers and products. It is configuration: another
// store's database is served by another mapping, without code.
package mapping

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/millrace-io/millrace/schemas"
)

// Mapping is one store. Names of tables are schema.table; without a dot the schema is public.
type Mapping struct {
	Zone      string     `yaml:"zone"` // of times without zone, and of dates; UTC if empty
	Orders    Orders     `yaml:"orders"`
	Lines     Lines      `yaml:"lines"`
	Customers *Customers `yaml:"customers,omitempty"` // left out where the store keeps none
	Products  *Products  `yaml:"products,omitempty"`  // left out where the store keeps none
	Region    Region     `yaml:"region,omitempty"`
}

// Orders is the table of order headers.
type Orders struct {
	Table     string   `yaml:"table"`
	Key       Columns  `yaml:"key"`
	PlacedAt  string   `yaml:"placed_at"`
	Status    Field    `yaml:"status,omitempty"`
	Cancelled []string `yaml:"cancelled,omitempty"` // statuses of orders that do not count
	Customer  Columns  `yaml:"customer,omitempty"`  // the customer's key
	Country   Field    `yaml:"country,omitempty"`   // of the order; where it is null, the customer's
	Currency  Field    `yaml:"currency"`
}

// Lines is the table of order lines.
type Lines struct {
	Table     string  `yaml:"table"`
	Key       Columns `yaml:"key"`
	Order     Columns `yaml:"order"`             // the order's key
	Product   Columns `yaml:"product,omitempty"` // the product's key
	Quantity  string  `yaml:"quantity"`
	UnitPrice string  `yaml:"unit_price"`
}

// Customers is the table of customers.
type Customers struct {
	Table   string  `yaml:"table"`
	Key     Columns `yaml:"key"`
	Country Field   `yaml:"country,omitempty"`
	State   Field   `yaml:"state,omitempty"`
	City    Field   `yaml:"city,omitempty"`
}

// Products is the table of products.
type Products struct {
	Table     string  `yaml:"table"`
	Key       Columns `yaml:"key"`
	Name      Field   `yaml:"name"`
	Category  Field   `yaml:"category,omitempty"`
	Scale     Field   `yaml:"scale,omitempty"`
	Vendor    Field   `yaml:"vendor,omitempty"`
	Stock     string  `yaml:"stock,omitempty"`
	ListPrice string  `yaml:"list_price,omitempty"`
	Hidden    string  `yaml:"hidden,omitempty"`
}

// Region is found from the customer's row: the hops lead from row to row, and the last row has it.
type Region struct {
	Hops  []Hop `yaml:"hops,omitempty"`
	Field Field `yaml:"field,omitempty"`
}

// Hop leads from a row to a row of another table.
type Hop struct {
	Via   Columns `yaml:"via"`   // columns of the row so far that hold the other row's key
	Table string  `yaml:"table"` // the other table
	Key   Columns `yaml:"key"`   // its key
}

// Field is a column, or a constant: in YAML a name, or {constant: text}. The zero Field is not there.
type Field struct{ Column, Constant string }

// Set tells whether the field is there.
func (f Field) Set() bool { return f != Field{} }

// UnmarshalYAML reads either form.
func (f *Field) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&f.Column)
	}
	if n.Kind != yaml.MappingNode || len(n.Content) != 2 || n.Content[0].Value != "constant" {
		return fmt.Errorf("line %d: write the name of a column, or {constant: text}", n.Line)
	}
	return n.Content[1].Decode(&f.Constant)
}

// Columns are the columns of a key: in YAML a name or a list.
type Columns []string

// UnmarshalYAML reads either form.
func (c *Columns) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*c = Columns{n.Value}
		return nil
	}
	return n.Decode((*[]string)(c))
}

// Location is the zone of times without one. It is UTC for a mapping that was not validated and names none that exists.
func (m *Mapping) Location() *time.Location {
	loc, err := time.LoadLocation(m.Zone)
	if err != nil {
		return time.UTC
	}
	return loc
}

// Topic is the topic of a table, without prefix.
func Topic(table string) string {
	if !strings.Contains(table, ".") {
		table = "public." + table
	}
	return schemas.StorePrefix + table
}

// Topics are the topics of all mapped tables, without prefix, orders and lines first.
func (m *Mapping) Topics() []string {
	tables := []string{m.Orders.Table, m.Lines.Table}
	if m.Products != nil {
		tables = append(tables, m.Products.Table)
	}
	if m.Customers != nil {
		tables = append(tables, m.Customers.Table)
	}
	for _, h := range m.Region.Hops {
		tables = append(tables, h.Table)
	}
	var out []string
	for _, t := range tables {
		if topic := Topic(t); !slices.Contains(out, topic) {
			out = append(out, topic)
		}
	}
	return out
}

// Validate names every key that is wrong.
func (m *Mapping) Validate() error {
	var errs []error
	if _, err := time.LoadLocation(m.Zone); err != nil {
		errs = append(errs, fmt.Errorf("zone: %q is no time zone; write a name such as Europe/Berlin", m.Zone))
	}
	errs = append(errs,
		table("orders", m.Orders.Table, m.Orders.Key),
		needs("orders.placed_at", m.Orders.PlacedAt, "the column of the time of the order"),
		needsField("orders.currency", m.Orders.Currency, "a column, or {constant: EUR}"),
		currency(m.Orders.Currency),
		table("lines", m.Lines.Table, m.Lines.Key),
		columns("lines.order", m.Lines.Order),
		needs("lines.quantity", m.Lines.Quantity, "the column of the number of units"),
		needs("lines.unit_price", m.Lines.UnitPrice, "the column of the price of one unit"))
	if len(m.Lines.Order) != len(m.Orders.Key) {
		errs = append(errs, fmt.Errorf("lines.order: %d columns, but orders.key has %d", len(m.Lines.Order), len(m.Orders.Key)))
	}
	if len(m.Orders.Cancelled) > 0 && !m.Orders.Status.Set() {
		errs = append(errs, errors.New("orders.cancelled: needs orders.status"))
	}
	errs = append(errs, m.validateCustomers(), m.validateProducts(), m.validateTables())
	return errors.Join(errs...)
}

func (m *Mapping) validateCustomers() error {
	if m.Customers == nil {
		if len(m.Region.Hops) > 0 || m.Region.Field.Column != "" {
			return errors.New("region: is found from the customer's row, so it needs customers; or write field: {constant: text}")
		}
		return nil
	}
	errs := []error{table("customers", m.Customers.Table, m.Customers.Key)}
	if len(m.Orders.Customer) > 0 && len(m.Orders.Customer) != len(m.Customers.Key) {
		errs = append(errs, fmt.Errorf("orders.customer: %d columns, but customers.key has %d", len(m.Orders.Customer), len(m.Customers.Key)))
	}
	if len(m.Region.Hops) > 0 && m.Region.Field.Column == "" {
		errs = append(errs, errors.New("region.field: name the column of the last table that holds the region"))
	}
	for i, h := range m.Region.Hops {
		where := fmt.Sprintf("region.hops[%d]", i)
		errs = append(errs, table(where, h.Table, h.Key), columns(where+".via", h.Via))
		if len(h.Via) != len(h.Key) {
			errs = append(errs, fmt.Errorf("%s.via: %d columns, but its key has %d", where, len(h.Via), len(h.Key)))
		}
	}
	return errors.Join(errs...)
}

func (m *Mapping) validateProducts() error {
	if m.Products == nil {
		return nil
	}
	errs := []error{table("products", m.Products.Table, m.Products.Key), needsField("products.name", m.Products.Name, "a column")}
	if len(m.Lines.Product) != len(m.Products.Key) {
		errs = append(errs, fmt.Errorf("lines.product: %d columns, but products.key has %d", len(m.Lines.Product), len(m.Products.Key)))
	}
	return errors.Join(errs...)
}

// validateTables refuses a table in two parts: each part reads its topic on its own terms.
func (m *Mapping) validateTables() error {
	seen := map[string]string{}
	var errs []error
	add := func(where, table string) {
		if table == "" {
			return
		}
		topic := Topic(table)
		if other, ok := seen[topic]; ok {
			errs = append(errs, fmt.Errorf("%s.table: %s is already used by %s", where, table, other))
		}
		seen[topic] = where
	}
	add("orders", m.Orders.Table)
	add("lines", m.Lines.Table)
	if m.Products != nil {
		add("products", m.Products.Table)
	}
	if m.Customers != nil {
		add("customers", m.Customers.Table)
	}
	for i, h := range m.Region.Hops {
		add(fmt.Sprintf("region.hops[%d]", i), h.Table)
	}
	return errors.Join(errs...)
}

func table(where, name string, key Columns) error {
	return errors.Join(needs(where+".table", name, "the table, as schema.table"), columns(where+".key", key))
}

func needs(where, value, what string) error {
	if value == "" {
		return fmt.Errorf("%s: is missing; write %s", where, what)
	}
	return nil
}

func needsField(where string, f Field, what string) error {
	if !f.Set() {
		return fmt.Errorf("%s: is missing; write %s", where, what)
	}
	return nil
}

func columns(where string, c Columns) error {
	if len(c) == 0 || slices.Contains(c, "") {
		return fmt.Errorf("%s: name at least one column", where)
	}
	return nil
}

func currency(f Field) error {
	if f.Constant == "" {
		return nil
	}
	if !IsCurrency(f.Constant) {
		return errors.New("orders.currency: write a code of ISO 4217, three capital letters such as EUR")
	}
	return nil
}

// IsCurrency tells whether a code has the form of ISO 4217.
func IsCurrency(code string) bool {
	return len(code) == 3 && !strings.ContainsFunc(code, func(r rune) bool { return r < 'A' || r > 'Z' })
}
