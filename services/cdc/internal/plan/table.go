package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/evolve"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// table compares a table before and after; nil if nothing is to be said. after is nil if it is not captured any more.
func (r *rehearsal) table(ctx context.Context, before, after *catalog.Table, was, now state) (*Table, error) {
	name := before.Schema + "." + before.Name
	topic, history, err := r.history(ctx, before.Schema, before.Name)
	if err != nil {
		return nil, err
	}
	t := &Table{Name: name, Topic: topic}
	switch {
	case after == nil:
		t.Event = "is dropped, or leaves the publication"
		t.Notices = append(t.Notices, "the topic stays, and gets no more events")
		r.readers(t, before, func(string) (string, bool) { return "no more events come", true })
		if len(t.Readers) > 0 {
			t.Breaks = append(t.Breaks, "the table ends, and programs read it")
		}
		return t, nil
	case after.Schema != before.Schema || after.Name != before.Name:
		t.Event = "is renamed to " + after.Schema + "." + after.Name
		t.Breaks = append(t.Breaks, "its topic ends, and "+r.Topic(after.Schema, after.Name, 1)+" begins")
		t.Reread = "a running cdc reads it whole under the new name, by itself"
		r.readers(t, before, func(string) (string, bool) { return "no more events come under the old name", true })
		r.health(t, *after, r.shape(*after, nil), now)
		return t, nil
	}
	old := r.shape(*before, latest(history))
	first, err := evolve.Parse(old.SchemaIn(r.Form))
	if err != nil {
		return nil, err
	}
	next := r.shape(*after, &first)
	second, err := evolve.Parse(next.SchemaIn(r.Form))
	if err != nil {
		return nil, err
	}
	t.Changes = evolve.Diff(first, second)
	keyChanged := old.KeySchema() != next.KeySchema()
	var ill, worse Table
	r.health(&ill, *before, old, was)
	r.health(&worse, *after, next, now)
	if len(t.Changes) == 0 && !keyChanged && same(old, next) && before.Identity == after.Identity && slices.Equal(ill.Breaks, worse.Breaks) {
		return nil, nil
	}
	if err := r.subjects(ctx, t, next, append(history, first), second, keyChanged); err != nil {
		return nil, err
	}
	t.Breaks, t.Notices = append(t.Breaks, worse.Breaks...), append(t.Notices, worse.Notices...)
	r.columns(t, before, after, old, next, now)
	return t, nil
}

// same tells whether two shapes hide the same columns.
func same(a, b rows.Table) bool { return slices.Equal(hidden(a), hidden(b)) }

func hidden(t rows.Table) (out []string) {
	for _, c := range t.Columns {
		if !c.Treatment.Written() {
			out = append(out, c.Name)
		}
	}
	slices.Sort(out)
	return out
}

func latest(history []evolve.Version) *evolve.Version {
	if len(history) == 0 {
		return nil
	}
	return &history[len(history)-1]
}

// history finds the topic that a table is at, and its versions in the registry.
func (r *rehearsal) history(ctx context.Context, schema, table string) (topic string, out []evolve.Version, err error) {
	for version := int32(1); ; version++ {
		next := r.Topic(schema, table, version)
		texts, err := r.Registry.Versions(ctx, next+"-value")
		if err != nil {
			return "", nil, err
		}
		if version > 1 && len(texts) == 0 {
			return topic, out, nil
		}
		topic, out = next, nil
		for i, text := range texts {
			v, err := evolve.Parse(text)
			if err != nil {
				return "", nil, fmt.Errorf("version %d of subject %s-value: %w", i+1, topic, err)
			}
			out = append(out, v)
		}
	}
}

// subjects asks the registry, and our own rules, about the new schemas.
func (r *rehearsal) subjects(ctx context.Context, t *Table, next rows.Table, history []evolve.Version, second evolve.Version, keyChanged bool) error {
	stops := fmt.Sprintf("the table stops; go on in a new topic with `cdc resume %s --as v%d`", t.Name, r.nextVersion(t))
	key := Subject{Name: t.Topic + "-key", Compatible: !keyChanged}
	if keyChanged {
		key.Reason = "the key is another one, and it is by their keys that rows are told apart"
	}
	value := Subject{Name: t.Topic + "-value", Compatible: true}
	err := r.Registry.Compatible(ctx, value.Name, next.SchemaIn(r.Form))
	if err == nil {
		if own := evolve.Check(history, second); own != nil {
			value.Compatible, value.Reason = false, own.Error()
		}
	} else if errors.Is(err, r.Incompatible) {
		value.Compatible, value.Reason = false, err.Error()
		if own := evolve.Check(history, second); own != nil {
			value.Reason = own.Error()
		}
	} else {
		return err
	}
	t.Subjects = []Subject{key, value}
	for _, s := range t.Subjects {
		if !s.Compatible {
			t.Breaks = append(t.Breaks, "readers of "+s.Name+" cannot follow: "+s.Reason)
		}
	}
	if len(t.Breaks) > 0 {
		t.Reread = stops
	}
	return nil
}

// nextVersion is that of the topic after the table's.
func (r *rehearsal) nextVersion(t *Table) int32 {
	schema, name, _ := strings.Cut(t.Name, ".")
	for version := int32(1); ; version++ {
		if r.Topic(schema, name, version) == t.Topic {
			return version + 1
		}
	}
}

// health tells what would keep the table from being captured, or break it on the primary.
func (r *rehearsal) health(t *Table, after catalog.Table, shape rows.Table, now state) {
	refused := shape.Refusal()
	switch {
	case refused != nil:
		t.Breaks = append(t.Breaks, refused.Error())
	case len(after.Key) == 0 && after.Identity != 'f':
		t.Breaks = append(t.Breaks, "without a primary key, updates and deletes of the published table FAIL on the primary")
	case shape.Validate() != nil:
		t.Breaks = append(t.Breaks, shape.Validate().Error())
	}
	if after.Identity == 'n' {
		t.Breaks = append(t.Breaks, "with replica identity nothing, updates and deletes of the published table FAIL on the primary")
	}
	if r.version >= 180000 && after.Identity == 'f' && after.Generated && now.generated != "s" {
		t.Breaks = append(t.Breaks, "replica identity full and a stored generated column that is not published: updates and deletes FAIL on the primary; first ALTER PUBLICATION "+
			rows.Quote(r.Publication)+" SET (publish_generated_columns = stored)")
	}
	if withheld := shape.Withheld(); len(withheld) > 0 {
		t.Notices = append(t.Notices, "withheld until somebody says what they are (cdc.clear, cdc.tokenise, cdc.mask, cdc.exclude_columns): "+strings.Join(withheld, ", "))
	}
}

// columns tells what each change of a column means for the rows that are there and for those who read them.
func (r *rehearsal) columns(t *Table, before, after *catalog.Table, old, next rows.Table, now state) {
	var reread []string
	effects := map[string]Effect{}
	for _, c := range t.Changes {
		switch c.Kind {
		case evolve.Added:
			if now.defaults[t.Name+"."+c.Column] {
				reread = append(reread, c.Column)
			}
		case evolve.Dropped:
			effects[c.Column] = Effect{Effect: "the column is gone: it reads null", Breaks: true}
		case evolve.Renamed:
			effects[c.From] = Effect{Effect: "the column is " + c.Column + " from then on; the old name is an alias", Breaks: true}
		case evolve.Retyped:
			effects[c.Column] = Effect{Effect: "the type is " + c.To + " and no longer " + c.From, Breaks: c.Problem != ""}
		case evolve.Treated:
			effects[c.Column] = Effect{Effect: "the values are written in another way: " + c.To}
		}
	}
	if len(reread) > 0 && t.Reread == "" {
		t.Reread = fmt.Sprintf("rows that are there have a value in %s that the log does not tell: `cdc snapshot %s`", strings.Join(reread, ", "), t.Name)
	}
	if before.Identity != after.Identity {
		t.Notices = append(t.Notices, fmt.Sprintf("the replica identity is %s and no longer %s: old rows have %s", identity(after.Identity), identity(before.Identity), oldRows(after.Identity)))
	}
	for _, c := range next.Columns {
		if c.Treatment.Handling != rows.Clear && !slices.ContainsFunc(old.Columns, func(o rows.Column) bool { return o.Name == c.Name }) {
			t.Notices = append(t.Notices, fmt.Sprintf("column %s: %s, by %s", c.Name, c.Treatment.Handling, c.Treatment.Rule))
		}
	}
	r.readers(t, before, func(column string) (string, bool) {
		e := effects[rows.FieldName(column)]
		return e.Effect, e.Breaks
	})
}

// readers tells the programs that need a column what happens to it.
func (r *rehearsal) readers(t *Table, before *catalog.Table, effect func(column string) (string, bool)) {
	for _, c := range before.Columns {
		what, breaks := effect(c.Name)
		if what == "" {
			continue
		}
		for _, program := range r.Consumers[t.Name+"."+c.Name] {
			t.Readers = append(t.Readers, Effect{Program: program, Column: c.Name, Effect: what, Breaks: breaks})
		}
	}
}

func identity(b byte) string {
	switch b {
	case 'f':
		return "full"
	case 'n':
		return "nothing"
	case 'i':
		return "that of an index"
	}
	return "default"
}

func oldRows(b byte) string {
	switch b {
	case 'f':
		return "all columns"
	case 'n':
		return "nothing"
	}
	return "the key only"
}
