// Package evolve compares the versions of a table's schema: which column is new, gone, renamed or of another type, and
// whether readers of the topic can follow. It knows the registered schemas of values, and nothing else; it does no I/O.
package evolve

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Field is a column in a registered schema.
type Field struct {
	Name      string
	Type      any // of Avro, as JSON gives it, without null
	Aliases   []string
	Formerly  []string // names in the source that it had before, oldest first
	Number    int16    // of pg_attribute; 0 if the schema does not say
	Treatment string   // "" for clear
}

// Version is one registered schema of a topic's values, seen as a table.
type Version struct {
	Fields []Field
	Hidden map[string]rows.Hidden // columns that are not written, by name in the source
}

// ErrSchema: a schema is not that of a table's topic.
var ErrSchema = errors.New("not the schema of a table")

// Parse reads the schema of a topic's values: the row of an envelope, or a row by itself.
func Parse(schema string) (Version, error) {
	var top any
	if err := json.Unmarshal([]byte(schema), &top); err != nil {
		return Version{}, fmt.Errorf("%w: it is not JSON", ErrSchema)
	}
	row := find(top, "Value")
	if row == nil {
		row, _ = top.(map[string]any)
	}
	// What was decoded into maps is decoded once more, into the form that it has.
	data, err := json.Marshal(row)
	if err != nil {
		return Version{}, fmt.Errorf("%w: it has no row", ErrSchema)
	}
	var r struct {
		Fields []struct {
			Name      string   `json:"name"`
			Type      any      `json:"type"`
			Aliases   []string `json:"aliases"`
			Formerly  []string `json:"formerly"`
			Number    int16    `json:"attnum"`
			Treatment string   `json:"treatment"`
		} `json:"fields"`
		Hidden map[string]rows.Hidden `json:"hidden"`
	}
	if err := json.Unmarshal(data, &r); err != nil || r.Fields == nil {
		return Version{}, fmt.Errorf("%w: it has no row", ErrSchema)
	}
	v := Version{Hidden: r.Hidden}
	for _, f := range r.Fields {
		v.Fields = append(v.Fields, Field{Name: f.Name, Type: withoutNull(f.Type), Aliases: f.Aliases, Formerly: f.Formerly, Number: f.Number, Treatment: f.Treatment})
	}
	return v, nil
}

// find is the record of a name within a schema.
func find(v any, name string) map[string]any {
	switch v := v.(type) {
	case map[string]any:
		if v["name"] == name && v["type"] == "record" {
			return v
		}
		for _, k := range []string{"fields", "type", "items", "values"} {
			if r := find(v[k], name); r != nil {
				return r
			}
		}
	case []any:
		for _, e := range v {
			if r := find(e, name); r != nil {
				return r
			}
		}
	}
	return nil
}

func withoutNull(t any) any {
	union, ok := t.([]any)
	if !ok {
		return t
	}
	var rest []any
	for _, e := range union {
		if e != "null" {
			rest = append(rest, e)
		}
	}
	if len(rest) == 1 {
		return rest[0]
	}
	return rest
}

func (v Version) field(name string) *Field {
	for i := range v.Fields {
		if v.Fields[i].Name == name {
			return &v.Fields[i]
		}
	}
	return nil
}

// Trace finds where the columns of a table come from: numbers are those of pg_attribute, as far as the catalog, which may
// be newer or older than columns, has them; last is the newest registered version, nil if there is none.
func Trace(columns []string, numbers map[string]int16, last *Version) rows.Lineage {
	l := rows.Lineage{Numbers: map[string]int16{}, Formerly: map[string][]string{}}
	for _, c := range columns {
		n, was := numbers[c], []string(nil)
		if last != nil {
			n, was = last.trace(c, n, columns)
		}
		if n != 0 {
			l.Numbers[c] = n
		}
		if was = slices.DeleteFunc(was, func(w string) bool { return w == c }); len(was) > 0 {
			l.Formerly[c] = was
		}
	}
	return l
}

// trace finds a column's number and earlier names in the version before.
func (v Version) trace(column string, number int16, columns []string) (int16, []string) {
	if f := v.field(rows.FieldName(column)); f != nil {
		return either(number, f.Number), slices.Clone(f.Formerly)
	}
	if h, ok := v.Hidden[column]; ok {
		return either(number, h.Number), slices.Clone(h.Formerly)
	}
	if number == 0 {
		return 0, nil
	}
	there := func(name string) bool {
		return slices.ContainsFunc(columns, func(c string) bool { return c == name || rows.FieldName(c) == name })
	}
	for _, f := range v.Fields {
		if f.Number == number && !there(f.Name) {
			return number, append(slices.Clone(f.Formerly), f.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.Hidden)) {
		if h := v.Hidden[name]; h.Number == number && !there(name) {
			return number, append(slices.Clone(h.Formerly), name)
		}
	}
	return number, nil
}

func either(a, b int16) int16 {
	if a != 0 {
		return a
	}
	return b
}

// Kinds of change.
const (
	Added   = "added"
	Dropped = "dropped"
	Renamed = "renamed"
	Retyped = "retyped"
	Treated = "treated" // in another way than before
)

// Change is one difference between two versions of a table.
type Change struct {
	Kind    string `json:"kind"`
	Column  string `json:"column"`
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Problem string `json:"problem,omitempty"` // why readers cannot follow; "" if they can
}

// String is for people.
func (c Change) String() string {
	out := "column " + c.Column + " " + c.Kind
	switch {
	case c.Kind == Renamed:
		out = "column " + c.From + " renamed to " + c.Column
	case c.From != "" && c.To != "":
		out += fmt.Sprintf(" (%s → %s)", c.From, c.To)
	case c.From != "" || c.To != "":
		out += " (" + c.From + c.To + ")"
	}
	if c.Problem != "" {
		out += ": " + c.Problem
	}
	return out
}

// Diff is what changed from one version to the next.
func Diff(before, after Version) []Change {
	var out []Change
	met := map[string]bool{}
	for _, f := range after.Fields {
		old := before.match(f)
		if old == nil {
			out = append(out, Change{Kind: Added, Column: f.Name, To: TypeName(f.Type)})
			continue
		}
		met[old.Name] = true
		if old.Name != f.Name {
			out = append(out, Change{Kind: Renamed, Column: f.Name, From: old.Name})
		}
		if from, to := TypeName(old.Type), TypeName(f.Type); from != to {
			out = append(out, Change{Kind: Retyped, Column: f.Name, From: from, To: to, Problem: Follows(old.Type, f.Type)})
		}
		if old.Treatment != f.Treatment {
			out = append(out, Change{Kind: Treated, Column: f.Name, From: clear(old.Treatment), To: clear(f.Treatment)})
		}
	}
	for _, f := range before.Fields {
		if !met[f.Name] {
			out = append(out, Change{Kind: Dropped, Column: f.Name, From: TypeName(f.Type)})
		}
	}
	return out
}

func clear(treatment string) string {
	if treatment == "" {
		return "clear"
	}
	return treatment
}

// match is the field that a later field was, by name or alias.
func (v Version) match(f Field) *Field {
	if old := v.field(f.Name); old != nil {
		return old
	}
	for _, a := range slices.Backward(f.Aliases) {
		if old := v.field(a); old != nil {
			return old
		}
	}
	return nil
}

// Check tells why readers that know all versions so far cannot follow to the next; nil if they can. The registry has the
// last word on what Avro allows: this is about what Avro does not look at, such as the scale of a decimal.
func Check(history []Version, next Version) error {
	for i, v := range history {
		for _, f := range next.Fields {
			old := v.match(f)
			if old == nil {
				continue
			}
			if problem := Follows(old.Type, f.Type); problem != "" {
				return fmt.Errorf("column %s, which version %d has as %s, is %s: %s", f.Name, i+1, TypeName(old.Type), TypeName(f.Type), problem)
			}
		}
	}
	return nil
}

// TypeName is an Avro type for people.
func TypeName(t any) string {
	switch t := t.(type) {
	case string:
		return t
	case map[string]any:
		logical, _ := t["logicalType"].(string)
		switch {
		case logical == "decimal":
			return fmt.Sprintf("decimal(%v,%v)", number(t["precision"]), number(t["scale"]))
		case logical != "":
			return logical
		case t["type"] == "array":
			return "array of " + TypeName(withoutNull(t["items"]))
		case t["type"] == "map":
			return "map of " + TypeName(withoutNull(t["values"]))
		}
		if name, ok := t["name"].(string); ok {
			return fmt.Sprint(t["type"], " ", name)
		}
		return TypeName(t["type"])
	case []any:
		var parts []string
		for _, e := range t {
			parts = append(parts, TypeName(e))
		}
		return strings.Join(parts, " or ")
	}
	return "unknown"
}

func number(v any) int {
	f, _ := v.(float64)
	return int(f)
}
