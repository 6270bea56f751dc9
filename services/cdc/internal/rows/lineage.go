package rows

import "slices"

// Lineage is where a table's columns come from, by name in the source. It is written into the schema of values, so that
// the next version of the table, whoever reads it, can tell a renamed column from a new one.
type Lineage struct {
	Numbers  map[string]int16    // of pg_attribute
	Formerly map[string][]string // names that the column had before, oldest first
}

// Hidden is what the schema says about a column that is not in it.
type Hidden struct {
	Number   int16    `json:"attnum,omitempty"`
	Formerly []string `json:"formerly,omitempty"`
}

// provenance is what a field of the schema says about its column: aliases for Avro's readers, the rest for the next
// version of the table and for people.
type provenance struct {
	Aliases   []string `json:"aliases,omitempty"`
	Formerly  []string `json:"formerly,omitempty"`
	Number    int16    `json:"attnum,omitempty"`
	Treatment string   `json:"treatment,omitempty"`
}

// describe adds to the record of a table's rows what it says beside the types.
func (t Table) describe(row *record) {
	at := 0
	for _, c := range t.Columns {
		formerly, number := t.Lineage.Formerly[c.Name], t.Lineage.Numbers[c.Name]
		if !c.Treatment.Written() {
			if row.Hidden == nil {
				row.Hidden = map[string]Hidden{}
			}
			row.Hidden[c.Name] = Hidden{Number: number, Formerly: formerly}
			continue
		}
		f := &row.Fields[at]
		at++
		f.provenance = provenance{Aliases: t.aliases(c.Name, formerly), Formerly: formerly, Number: number}
		if c.Treatment.Handling != Clear {
			f.Treatment = c.Treatment.Handling.String()
		}
	}
}

// aliases are the earlier names of a column that no other has now, or had before.
func (t Table) aliases(column string, formerly []string) []string {
	var out []string
	for _, name := range formerly {
		alias := FieldName(name)
		taken := slices.Contains(out, alias) || slices.ContainsFunc(t.Columns, func(c Column) bool {
			return c.Field == alias || c.Name != column && slices.Contains(t.Lineage.Formerly[c.Name], name)
		})
		if !taken {
			out = append(out, alias)
		}
	}
	return out
}
