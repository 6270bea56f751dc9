// Package policy turns the configuration into what happens to each table, column and row of the source: whether it is
// captured, and in which form its values leave. It does no I/O.
//
// Rules are patterns of names, table.column or schema.table.column, in which * stands for any characters, ? for one and
// [abc] for one of several; case does not matter. A rule without any of these is exact, and stands before all patterns.
// Two rules of equal rank that say different things about a column contradict each other: the column's table is refused.
package policy

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/services/cdc/internal/rowfilter"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Config is the part of the configuration that rules come from; the names are those of its keys.
type Config struct {
	Tables          []string // exact; empty for all
	IncludeTables   []string
	ExcludeTables   []string
	ExcludeColumns  []string
	Mask            []string
	Tokenise        []string
	Truncate        []string // pattern:length
	Clear           []string
	SensitiveTables []string
	RowFilters      []string // schema.table: expression
}

// Policy answers what happens to tables, columns and rows. It is immutable and safe for concurrent use.
type Policy struct {
	tables           []string
	include, exclude []pattern
	sensitive        []pattern
	columns          []rule
	filters          map[string]*rowfilter.Filter
}

// rule is one pattern of columns.
type rule struct {
	pattern
	treatment rows.Treatment
}

// pattern is a pattern of dotted names.
type pattern struct {
	key, text string
	parts     []string
	exact     bool
}

// String is the rule as the configuration has it.
func (p pattern) String() string { return "cdc." + p.key + " " + strconv.Quote(p.text) }

// parsePattern reads a pattern of least to most names.
func parsePattern(key, text string, least, most int, form string) (pattern, error) {
	p := pattern{key: key, text: text, parts: strings.Split(strings.ToLower(text), "."), exact: !strings.ContainsAny(text, `*?[\`)}
	bad := len(p.parts) < least || len(p.parts) > most
	for i, part := range p.parts {
		_, err := path.Match(part, "")
		bad = bad || err != nil || part == ""
		p.parts[i] = noSlash(part)
	}
	if bad {
		return p, fmt.Errorf("%s: %q must be %s", key, text, form)
	}
	return p, nil
}

// noSlash takes away the one character that a * of path.Match does not stand for.
func noSlash(s string) string { return strings.ReplaceAll(s, "/", "\x01") }

// match tells whether the last of the names fit the pattern's parts, of which there are at most as many.
func (p pattern) match(names ...string) bool {
	names = names[len(names)-len(p.parts):]
	for i, part := range p.parts {
		if ok, err := path.Match(part, noSlash(strings.ToLower(names[i]))); err != nil || !ok {
			return false
		}
	}
	return true
}

// Compile reads the rules. An error begins with the key that is wrong.
func Compile(cfg Config) (*Policy, error) {
	p := &Policy{tables: cfg.Tables, filters: map[string]*rowfilter.Filter{}}
	for _, t := range cfg.Tables {
		if s, n, ok := strings.Cut(t, "."); !ok || s == "" || n == "" {
			return nil, fmt.Errorf("tables: %q must be schema.table", t)
		}
	}
	for _, l := range []struct {
		key  string
		text []string
		into *[]pattern
	}{
		{"include_tables", cfg.IncludeTables, &p.include},
		{"exclude_tables", cfg.ExcludeTables, &p.exclude},
		{"sensitive_tables", cfg.SensitiveTables, &p.sensitive},
	} {
		for _, text := range l.text {
			pattern, err := parsePattern(l.key, text, 1, 2, "a pattern of schema.table or table, such as public.*")
			if err != nil {
				return nil, err
			}
			*l.into = append(*l.into, pattern)
		}
	}
	if len(p.tables) > 0 && len(p.include) > 0 {
		return nil, fmt.Errorf("include_tables: cdc.tables names the tables already; leave one of the two empty")
	}
	if err := p.compileColumns(cfg); err != nil {
		return nil, err
	}
	return p, p.compileFilters(cfg.RowFilters)
}

func (p *Policy) compileColumns(cfg Config) error {
	for _, l := range []struct {
		key      string
		text     []string
		handling rows.Handling
	}{
		{"exclude_columns", cfg.ExcludeColumns, rows.Excluded},
		{"mask", cfg.Mask, rows.Masked},
		{"tokenise", cfg.Tokenise, rows.Tokenised},
		{"truncate", cfg.Truncate, rows.Truncated},
		{"clear", cfg.Clear, rows.Clear},
	} {
		for _, text := range l.text {
			r, err := parseRule(l.key, text, l.handling)
			if err != nil {
				return err
			}
			for _, other := range p.columns {
				if slices.Equal(other.parts, r.parts) && !same(other.treatment, r.treatment) {
					return fmt.Errorf("%s: %q contradicts %s", l.key, text, other.pattern)
				}
			}
			p.columns = append(p.columns, r)
		}
	}
	return nil
}

func parseRule(key, text string, handling rows.Handling) (rule, error) {
	length := 0
	names := text
	if handling == rows.Truncated {
		before, number, ok := cutLast(text, ":")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n < 1 || n > 1<<20 {
			return rule{}, fmt.Errorf("%s: %q must be a pattern of columns and the characters that stay, such as orders.comments:20", key, text)
		}
		names, length = before, n
	}
	pattern, err := parsePattern(key, names, 2, 3, "a pattern of table.column or schema.table.column, such as *.email")
	pattern.text = text
	return rule{pattern: pattern, treatment: rows.Treatment{Handling: handling, Length: length, Rule: pattern.String()}}, err
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func same(a, b rows.Treatment) bool { return a.Handling == b.Handling && a.Length == b.Length }

func (p *Policy) compileFilters(texts []string) error {
	for _, text := range texts {
		name, expression, ok := strings.Cut(text, ":")
		schema, table, dotted := strings.Cut(name, ".")
		if !ok || !dotted || schema == "" || table == "" {
			return fmt.Errorf("row_filters: %q must be schema.table: expression, such as public.orders: status <> 'draft'", text)
		}
		if _, there := p.filters[name]; there {
			return fmt.Errorf("row_filters: there are two for %s; join them by AND", name)
		}
		f, err := rowfilter.Parse(expression)
		if err != nil {
			return fmt.Errorf("row_filters: the filter of %s, %w", name, err)
		}
		p.filters[name] = f
	}
	return nil
}

// Captured tells whether a table is selected at all.
func (p *Policy) Captured(schema, table string) bool {
	match := func(patterns []pattern) bool {
		return slices.ContainsFunc(patterns, func(x pattern) bool { return x.match(schema, table) })
	}
	switch {
	case match(p.exclude):
		return false
	case len(p.tables) > 0:
		return slices.Contains(p.tables, schema+"."+table)
	}
	return len(p.include) == 0 || match(p.include)
}

// Filter is the row filter of a table; nil if it has none.
func (p *Policy) Filter(schema, table string) *rowfilter.Filter { return p.filters[schema+"."+table] }

// Column is how a column is handled. was are the names that it had before, oldest first: what was said of them holds
// until something is said of the new one, so that no column becomes clear by being renamed.
func (p *Policy) Column(schema, table, column string, was ...string) rows.Treatment {
	if t, ok := p.named(schema, table, column); ok {
		return t
	}
	for _, name := range slices.Backward(was) {
		if t, ok := p.named(schema, table, name); ok {
			t.Rule += " (it was " + name + ")"
			return t
		}
	}
	for _, s := range p.sensitive {
		if s.match(schema, table) {
			return rows.Treatment{Handling: rows.Withheld, Rule: s.String()}
		}
	}
	return rows.Treatment{}
}

// Treat is Column for columns that have no past.
func (p *Policy) Treat(schema, table, column string) rows.Treatment {
	return p.Column(schema, table, column)
}

// named is what the rules that name a column say; false if there are none.
func (p *Policy) named(schema, table, column string) (rows.Treatment, bool) {
	for _, exact := range []bool{true, false} {
		var first *rule
		for i := range p.columns {
			r := &p.columns[i]
			if r.exact != exact || !r.match(schema, table, column) {
				continue
			}
			if first == nil {
				first = r
			} else if !same(first.treatment, r.treatment) {
				return rows.Treatment{Handling: rows.Refused,
					Rule: fmt.Sprintf("%s and %s contradict each other about it; name %s.%s in one of them exactly", first.pattern, r.pattern, table, column)}, true
			}
		}
		if first != nil {
			return first.treatment, true
		}
	}
	return rows.Treatment{}, false
}
