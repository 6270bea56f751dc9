// Package preflight finds out whether a source can be captured from, and says for each thing that is missing how to mend
// it and where. It only reads.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Severity of a finding.
type Severity string

// Severities.
const (
	Problem Severity = "problem" // capture cannot work
	Warning Severity = "warning" // it works, with a drawback
	Note    Severity = "note"
)

// Finding is one thing that was found.
type Finding struct {
	Severity Severity
	What     string // what is wrong, and where
	Mend     string // SQL or setting; "" if there is nothing to do
	On       string // the server to do it on
	Table    bool   // it concerns one table, not the source as a whole
}

// String is one line.
func (f Finding) String() string {
	out := string(f.Severity) + ": " + f.What
	if f.Mend != "" {
		out += "; on the " + f.On + ": " + f.Mend
	}
	return out
}

// Request is what is going to be captured.
type Request struct {
	URL, Slot, Publication string
	Tables                 []string // schema.table; empty for all of the publication
	Personal               catalog.Personal
	Options                catalog.Options
}

// Result is what was found. Tables are those to capture, in order.
type Result struct {
	Findings []Finding
	Version  int // server_version_num
	Standby  bool
	Stats    bool // the role may read pg_stat_wal_receiver
	Tables   []catalog.Table
}

// Problems are the findings that prevent capture. Those of a single table prevent a snapshot only: a running capture
// stops that table and goes on.
func (r Result) Problems(tables bool) []Finding {
	var out []Finding
	for _, f := range r.Findings {
		if f.Severity == Problem && (tables || !f.Table) {
			out = append(out, f)
		}
	}
	return out
}

type check struct {
	req    Request
	conn   *pgx.Conn
	result Result
	role   string
	table  bool // what is added concerns one table
}

func (c *check) add(s Severity, on, mend, format string, args ...any) {
	c.result.Findings = append(c.result.Findings, Finding{Severity: s, What: fmt.Sprintf(format, args...), Mend: mend, On: on, Table: c.table})
}

func (c *check) source() string {
	if c.result.Standby {
		return "replica"
	}
	return "primary"
}

// Run looks at the source over conn. An error means that it could not look, not that something is missing.
func Run(ctx context.Context, conn *pgx.Conn, req Request) (Result, error) {
	c := &check{req: req, conn: conn}
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_user::text,
		pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')`).Scan(&c.result.Version, &c.result.Standby, &c.role, &c.result.Stats)
	if err != nil {
		return c.result, fmt.Errorf("look at the source: %w", err)
	}
	if c.result.Version < 160000 {
		c.add(Problem, c.source(), "upgrade to PostgreSQL 16 or later", "the source is PostgreSQL %d; a replica can be decoded from 16 on", c.result.Version/10000)
		return c.result, nil
	}
	for _, step := range []func(context.Context) error{c.server, c.standby, c.limits, c.replication, c.publication} {
		if err := step(ctx); err != nil {
			return c.result, fmt.Errorf("look at the source: %w", err)
		}
	}
	return c.result, nil
}

func (c *check) setting(ctx context.Context, name string) (string, error) {
	var v *string
	if err := c.conn.QueryRow(ctx, "SELECT current_setting($1, true)", name).Scan(&v); err != nil {
		return "", fmt.Errorf("setting %s: %w", name, err)
	}
	if v == nil {
		return "", nil
	}
	return *v, nil
}

const alterWALLevel = "ALTER SYSTEM SET wal_level = 'logical'; then restart (RDS: rds.logical_replication = 1 in the parameter group, then reboot)"

func (c *check) server(ctx context.Context) error {
	level, err := c.setting(ctx, "wal_level")
	if err != nil {
		return err
	}
	if level != "logical" {
		c.add(Problem, c.source(), alterWALLevel, "wal_level is %s here; decoding needs logical (the setting is not inherited from the primary)", level)
	}
	if !c.result.Stats {
		c.add(Warning, "primary", "GRANT pg_read_all_stats TO "+rows.Quote(c.role), "the role may not read pg_stat_wal_receiver: standby freshness unknown")
	}
	timeout, err := c.setting(ctx, "idle_replication_slot_timeout")
	if err != nil {
		return err
	}
	if timeout != "" && timeout != "0" {
		c.add(Warning, c.source(), "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()",
			"idle_replication_slot_timeout is %s: a stop of cdc longer than that loses the slot", timeout)
	}
	return nil
}

func (c *check) standby(ctx context.Context) error {
	if !c.result.Standby {
		c.add(Note, "", "", "the source is a primary; capture works, but a read replica would carry the load of reading")
		return nil
	}
	feedback, err := c.setting(ctx, "hot_standby_feedback")
	if err != nil {
		return err
	}
	if feedback != "on" {
		c.add(Problem, "replica", "ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf()",
			"hot_standby_feedback is %s: the primary would vacuum catalog rows that the slot needs, and the slot would be lost", feedback)
	}
	slot, err := c.setting(ctx, "primary_slot_name")
	if err != nil {
		return err
	}
	if slot == "" {
		c.add(Problem, "replica", "SELECT pg_create_physical_replication_slot('replica') on the primary, then ALTER SYSTEM SET primary_slot_name = 'replica'; SELECT pg_reload_conf()",
			"primary_slot_name is not set: feedback is forgotten at every disconnection of the replica, and the slot can be lost")
	}
	return nil
}

func (c *check) limits(ctx context.Context) error {
	var slots, maxSlots, senders, maxSenders int
	var ours bool
	err := c.conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots')::int,
		(SELECT count(*) FROM pg_stat_replication), current_setting('max_wal_senders')::int,
		EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, c.req.Slot).Scan(&slots, &maxSlots, &senders, &maxSenders, &ours)
	if err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	if !ours && slots >= maxSlots {
		c.add(Problem, c.source(), "ALTER SYSTEM SET max_replication_slots = …; then restart, or drop a slot that nobody uses",
			"all %d replication slots are taken", maxSlots)
	}
	if !ours && senders >= maxSenders {
		c.add(Problem, c.source(), "ALTER SYSTEM SET max_wal_senders = …; then restart", "all %d replication connections are taken", maxSenders)
	}
	return nil
}

// replication tries a replication connection, and a start of a slot that does not exist: the server checks what
// decoding needs, the primary's wal_level among it, before it looks for the slot.
func (c *check) replication(ctx context.Context) error {
	conn, err := replica.Connect(ctx, c.req.URL, "millrace-cdc-check")
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		c.add(Problem, "primary", "ALTER ROLE "+rows.Quote(c.role)+" REPLICATION (RDS: GRANT rds_replication TO "+rows.Quote(c.role)+"), and allow it in pg_hba.conf",
			"a replication connection is refused: %s", pg.Message)
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := conn.Start(ctx, "millrace_no_such_slot", c.req.Publication, pgoutput.LSN(0))
	if err == nil {
		stream.Close()
		return nil
	}
	if errors.As(err, &pg) && pg.Code == "55000" {
		c.add(Problem, "primary", alterWALLevel, "decoding is not possible: %s", pg.Message)
		return nil
	}
	if errors.As(err, &pg) {
		return nil // "does not exist": all is well
	}
	return err
}

func (c *check) publication(ctx context.Context) error {
	var gencols string
	var all, root bool
	query := "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot, " // pubgencols is new in 18
	if c.result.Version >= 180000 {
		query += "pubgencols::text"
	} else {
		query += "'n'"
	}
	err := c.conn.QueryRow(ctx, query+" FROM pg_publication WHERE pubname = $1", c.req.Publication).Scan(&all, &root, &gencols)
	name := rows.Quote(c.req.Publication)
	if errors.Is(err, pgx.ErrNoRows) {
		c.add(Problem, "primary", "CREATE PUBLICATION "+name+" FOR TABLE … WITH (publish_via_partition_root = true)",
			"the publication %s does not exist in this database", c.req.Publication)
		return nil
	}
	if err != nil {
		return fmt.Errorf("publication: %w", err)
	}
	if !all {
		c.add(Problem, "primary", "ALTER PUBLICATION "+name+" SET (publish = 'insert, update, delete, truncate')",
			"the publication %s leaves out some kinds of change", c.req.Publication)
	}
	tables, err := catalog.Tables(ctx, c.conn, c.req.Publication)
	if err != nil {
		return err
	}
	if len(tables) == 0 {
		c.add(Problem, "primary", "ALTER PUBLICATION "+name+" ADD TABLE …", "the publication %s has no tables", c.req.Publication)
		return nil
	}
	c.table = true
	c.result.Tables = c.chosen(tables)
	for _, t := range c.result.Tables {
		if err := c.oneTable(ctx, t, gencols); err != nil {
			return err
		}
		if t.Partitioned && !root {
			c.add(Problem, "primary", "ALTER PUBLICATION "+name+" SET (publish_via_partition_root = true)",
				"the table %s.%s is partitioned and published by partition", t.Schema, t.Name)
		}
	}
	return nil
}

// chosen are the configured tables in the configured order, else all.
func (c *check) chosen(tables []catalog.Table) []catalog.Table {
	if len(c.req.Tables) == 0 {
		return tables
	}
	var out []catalog.Table
	for _, want := range c.req.Tables {
		found := false
		for _, t := range tables {
			if t.Schema+"."+t.Name == want {
				out, found = append(out, t), true
			}
		}
		if !found {
			schema, table, _ := strings.Cut(want, ".")
			c.add(Problem, "primary", "ALTER PUBLICATION "+rows.Quote(c.req.Publication)+" ADD TABLE "+rows.Quote(schema)+"."+rows.Quote(table),
				"the table %s of cdc.tables is not in the publication %s", want, c.req.Publication)
		}
	}
	return out
}

func (c *check) oneTable(ctx context.Context, t catalog.Table, gencols string) error {
	shape := t.Rows(c.req.Personal, c.req.Options)
	name := t.Schema + "." + t.Name
	var usage, sel, filtered bool
	names := make([]string, len(t.Columns))
	for i, col := range t.Columns {
		names[i] = col.Name
	}
	err := c.conn.QueryRow(ctx, `SELECT has_schema_privilege($2, 'USAGE'), has_table_privilege($1::oid, 'SELECT') OR
		NOT EXISTS (SELECT FROM unnest($3::text[]) u(n) WHERE NOT has_column_privilege($1::oid, n, 'SELECT')), row_security_active($1::oid)`,
		t.OID, t.Schema, names).Scan(&usage, &sel, &filtered)
	if err != nil {
		return fmt.Errorf("privileges on %s: %w", name, err)
	}
	if !usage {
		c.add(Problem, "primary", fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", rows.Quote(t.Schema), rows.Quote(c.role)), "the role may not look into the schema %s", t.Schema)
	}
	if !sel {
		c.add(Problem, "primary", fmt.Sprintf("GRANT SELECT ON %s TO %s", shape.Ident(), rows.Quote(c.role)), "the role may not read the table %s", name)
	}
	if filtered {
		c.add(Problem, "primary", "ALTER ROLE "+rows.Quote(c.role)+" BYPASSRLS", "row security hides rows of %s from the role", name)
	}
	switch {
	case t.Identity == 'n':
		c.add(Problem, "primary", "ALTER TABLE "+shape.Ident()+" REPLICA IDENTITY DEFAULT", "the table %s has replica identity nothing: updates and deletes cannot be published", name)
	case len(t.Key) == 0 && c.req.Options.WholeRow && t.Identity != 'f':
		c.add(Problem, "primary", "ALTER TABLE "+shape.Ident()+" REPLICA IDENTITY FULL", "the table %s has no primary key, and its old rows are not published, which would be its key", name)
	case shape.Validate() != nil:
		c.add(Problem, "primary", "ALTER TABLE "+shape.Ident()+" ADD PRIMARY KEY (…)", "the table %s: %v", name, shape.Validate())
	}
	if c.result.Version >= 180000 && t.Identity == 'f' && t.Generated && gencols != "s" {
		c.add(Problem, "primary", "ALTER PUBLICATION "+rows.Quote(c.req.Publication)+" SET (publish_generated_columns = stored)",
			"the table %s has replica identity full and a stored generated column that is not published: from PostgreSQL 18 on its updates and deletes FAIL on the primary", name)
	}
	c.large(t, shape, name)
	return nil
}

func (c *check) large(t catalog.Table, shape rows.Table, name string) {
	if t.Identity == 'f' {
		return
	}
	var large []string
	for i, col := range t.Columns {
		kind := shape.Columns[i].Kind
		if col.Large && !shape.Columns[i].Key && kind != rows.Decimal && kind != rows.Token {
			large = append(large, col.Name)
		}
	}
	if len(large) > 0 {
		c.add(Note, "primary", "ALTER TABLE "+shape.Ident()+" REPLICA IDENTITY FULL",
			"values over 2 kB in %s (%s) that an update does not touch are marked as unchanged, not repeated", name, strings.Join(large, ", "))
	}
}
