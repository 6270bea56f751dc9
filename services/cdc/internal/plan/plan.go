// Package plan rehearses announced DDL: in a scratch database made from the source's catalog it runs the statements, and
// tells what they will do to the topics and to those who read them. It only reads the source's catalog, and registers
// nothing.
package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/evolve"
	"github.com/millrace-io/millrace/services/cdc/internal/policy"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Registry is asked, and told nothing.
type Registry interface {
	// Versions are the texts of a subject's schemas, oldest first; none for a subject that is not there.
	Versions(ctx context.Context, subject string) ([]string, error)
	// Compatible is nil if the schema could be registered, and names the reason if not.
	Compatible(ctx context.Context, subject, schema string) error
}

// Request is what to rehearse, and where.
type Request struct {
	Source       *pgx.Conn // the replica, of which only the catalog is read
	System       string    // its system identifier
	Scratch      string    // URL of the scratch server
	Publication  string
	Script       string
	Policy       *policy.Policy
	Options      catalog.Options
	Form         rows.Form // of the events
	Registry     Registry
	Incompatible error // that Registry's errors wrap when a schema does not fit
	// Topic is the topic of a table in a version, 1 being the first.
	Topic func(schema, table string, version int32) string
	// Consumers are the programs that need a column, schema.table.column.
	Consumers map[string][]string
}

// Report is what would happen.
type Report struct {
	Breaks bool     `json:"breaks"`
	Tables []*Table `json:"tables"`
	Notes  []string `json:"notes,omitempty"`
}

// Table is what would happen to one table and its subjects.
type Table struct {
	Name     string          `json:"table"`
	Topic    string          `json:"topic,omitempty"`
	Event    string          `json:"event,omitempty"` // created, dropped, renamed to …; "" if it stays
	Changes  []evolve.Change `json:"changes,omitempty"`
	Subjects []Subject       `json:"subjects,omitempty"`
	Breaks   []string        `json:"breaks,omitempty"`  // what will not work any more
	Notices  []string        `json:"notices,omitempty"` // what somebody should know or do
	Reread   string          `json:"reread,omitempty"`  // why the table should be read anew, and by which command
	Readers  []Effect        `json:"consumers,omitempty"`
}

// Subject is what the registry says about a schema.
type Subject struct {
	Name       string `json:"subject"`
	Compatible bool   `json:"compatible"`
	Reason     string `json:"reason,omitempty"`
}

// Effect is what a program downstream will notice.
type Effect struct {
	Program string `json:"program"`
	Column  string `json:"column"`
	Effect  string `json:"effect"`
	Breaks  bool   `json:"breaks"`
}

// Run rehearses. The scratch database is gone when it returns. The error wraps ErrScript when the script is at fault.
func Run(ctx context.Context, req Request) (report *Report, err error) {
	objects, err := extract(ctx, req.Source, req.Publication)
	if err != nil {
		return nil, err
	}
	var version int
	if err := req.Source.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return nil, fmt.Errorf("read the source's version: %w", err)
	}
	s, err := openScratch(ctx, req.Scratch, req.System)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	r := &rehearsal{Request: req, scratch: s, report: &Report{}, version: version}
	left, err := s.build(ctx, objects)
	for _, l := range left {
		r.note("not in the scratch database, so that what depends on it is not rehearsed: %s", l)
	}
	if err == nil {
		err = r.run(ctx)
	}
	if err != nil {
		return nil, err
	}
	return r.report, nil
}

// rehearsal is one run.
type rehearsal struct {
	Request
	scratch *scratch
	report  *Report
	version int // of the source
}

func (r *rehearsal) note(format string, args ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...))
}

// state is the scratch database at one moment.
type state struct {
	tables    []catalog.Table
	generated string // publish_generated_columns
	defaults  map[string]bool
}

func (r *rehearsal) look(ctx context.Context) (s state, err error) {
	conn := r.scratch.conn
	if s.tables, err = catalog.Tables(ctx, conn, r.Publication); err != nil {
		return s, err
	}
	s.tables = slices.DeleteFunc(s.tables, func(t catalog.Table) bool { return !r.Policy.Captured(t.Schema, t.Name) })
	err = conn.QueryRow(ctx, "SELECT coalesce((SELECT to_jsonb(p) ->> 'pubgencols' FROM pg_publication p WHERE pubname = $1), 'n')", r.Publication).Scan(&s.generated)
	if err != nil {
		return s, fmt.Errorf("look at the scratch database: %w", err)
	}
	rs, err := conn.Query(ctx, `SELECT n.nspname || '.' || c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.attnum > 0 AND a.atthasdef AND c.relkind IN ('r', 'p')`)
	if err != nil {
		return s, fmt.Errorf("look at the scratch database: %w", err)
	}
	names, err := pgx.CollectRows(rs, pgx.RowTo[string])
	if err != nil {
		return s, fmt.Errorf("look at the scratch database: %w", err)
	}
	s.defaults = map[string]bool{}
	for _, n := range names {
		s.defaults[n] = true
	}
	return s, nil
}

func (r *rehearsal) run(ctx context.Context) error {
	if err := r.scratch.exec(ctx, "SET search_path = pg_catalog"); err != nil {
		return err
	}
	before, err := r.look(ctx)
	if err != nil {
		return err
	}
	passed, err := r.scratch.rehearse(ctx, r.Script)
	if err != nil {
		return err
	}
	if len(passed) > 0 {
		r.note("passed over, for they change no schema: the statements at %s", strings.Join(passed, "; "))
	}
	after, err := r.look(ctx)
	if err != nil {
		return err
	}
	if err := r.compare(ctx, before, after); err != nil {
		return err
	}
	r.note("rehearsed on empty tables: a constraint or a cast that rows of the source do not fit shows only there")
	return nil
}

func (r *rehearsal) compare(ctx context.Context, before, after state) error {
	find := func(s state, oid uint32) *catalog.Table {
		for i := range s.tables {
			if s.tables[i].OID == oid {
				return &s.tables[i]
			}
		}
		return nil
	}
	for i := range before.tables {
		b := &before.tables[i]
		t, err := r.table(ctx, b, find(after, b.OID), before, after)
		if err != nil {
			return err
		}
		r.add(t)
	}
	for i := range after.tables {
		a := &after.tables[i]
		if find(before, a.OID) != nil {
			continue
		}
		t := &Table{Name: a.Schema + "." + a.Name, Topic: r.Topic(a.Schema, a.Name, 1), Event: "joins the publication"}
		t.Reread = "a running cdc reads it whole, by itself"
		r.health(t, *a, r.shape(*a, nil), after)
		r.add(t)
	}
	return nil
}

// add keeps a table about which there is something to say.
func (r *rehearsal) add(t *Table) {
	if t == nil {
		return
	}
	slices.SortFunc(t.Readers, func(a, b Effect) int { return strings.Compare(a.Column+a.Program, b.Column+b.Program) })
	r.report.Breaks = r.report.Breaks || len(t.Breaks) > 0 || slices.ContainsFunc(t.Readers, func(e Effect) bool { return e.Breaks })
	r.report.Tables = append(r.report.Tables, t)
}

// shape is a table as it would be captured, after the versions in the registry.
func (r *rehearsal) shape(t catalog.Table, last *evolve.Version) rows.Table {
	names := make([]string, len(t.Columns))
	numbers := map[string]int16{}
	for i, c := range t.Columns {
		names[i], numbers[c.Name] = c.Name, c.Number
	}
	lineage := evolve.Trace(names, numbers, last)
	out := t.Rows(func(schema, table, column string) rows.Treatment {
		return r.Policy.Column(schema, table, column, lineage.Formerly[column]...)
	}, r.Options)
	out.Lineage, out.Filter = lineage, r.Policy.Filter(t.Schema, t.Name)
	return out
}
