package preflight

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

func (c *check) publication(ctx context.Context) error {
	gencols := "'n'" // pubgencols is new in 18
	if c.result.Version >= 180000 {
		gencols = "pubgencols::text"
	}
	var kinds, root, all bool
	var generated string
	err := c.conn.QueryRow(ctx, "SELECT oid, pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot, puballtables, "+gencols+
		" FROM pg_publication WHERE pubname = $1", c.req.Publication).Scan(&c.result.PublicationID, &kinds, &root, &all, &generated)
	name := rows.Quote(c.req.Publication)
	alter := func(what string) mend { return mend{on: "primary", sql: "ALTER PUBLICATION " + name + " " + what} }
	if errors.Is(err, pgx.ErrNoRows) {
		c.add(CodePublicationMissing, Problem, mend{on: "primary", sql: "CREATE PUBLICATION " + name + " FOR TABLE … WITH (publish_via_partition_root = true)"},
			"the publication %s does not exist in this database", c.req.Publication)
		return nil
	}
	if err != nil {
		return fmt.Errorf("publication: %w", err)
	}
	if !kinds {
		c.add(CodePublicationKinds, Problem, alter("SET (publish = 'insert, update, delete, truncate')"),
			"the publication %s leaves out some kinds of change", c.req.Publication)
	}
	if all {
		c.add(CodePublicationAllTables, Warning, mend{on: "primary", sql: "DROP PUBLICATION " + name + "; CREATE PUBLICATION " + name + " FOR TABLE …, before the first start of cdc"},
			"the publication %s is for all tables: one that is made without a key refuses its updates and deletes on the primary", c.req.Publication)
	}
	tables, err := catalog.Tables(ctx, c.conn, c.req.Publication)
	if err != nil {
		return err
	}
	if len(tables) == 0 {
		c.add(CodePublicationEmpty, Problem, alter("ADD TABLE …"), "the publication %s has no tables", c.req.Publication)
		return nil
	}
	c.result.Tables = c.chosen(tables)
	for _, t := range c.result.Tables {
		c.table = t.Schema + "." + t.Name
		if err := c.oneTable(ctx, t, generated); err != nil {
			return err
		}
		if t.Partitioned && !root {
			c.add(CodePartitionRoot, Problem, alter("SET (publish_via_partition_root = true)"), "the table %s is partitioned and published by partition", c.table)
		}
	}
	c.table = ""
	return nil
}

// chosen are the configured tables in the configured order, else all.
func (c *check) chosen(tables []catalog.Table) []catalog.Table {
	var out []catalog.Table
	if len(c.req.Tables) == 0 {
		for _, t := range tables {
			if c.req.Policy.Captured(t.Schema, t.Name) {
				out = append(out, t)
			}
		}
		return out
	}
	for _, want := range c.req.Tables {
		found := false
		for _, t := range tables {
			if t.Schema+"."+t.Name != want {
				continue
			}
			if found = true; c.req.Policy.Captured(t.Schema, t.Name) {
				out = append(out, t)
			}
		}
		if !found {
			schema, table, _ := strings.Cut(want, ".")
			c.table = want
			c.add(CodeTableUnpublished, Problem, mend{on: "primary", sql: "ALTER PUBLICATION " + rows.Quote(c.req.Publication) + " ADD TABLE " + rows.Quote(schema) + "." + rows.Quote(table)},
				"the table %s of cdc.tables is not in the publication %s", want, c.req.Publication)
		}
	}
	c.table = ""
	return out
}

func (c *check) oneTable(ctx context.Context, t catalog.Table, generated string) error {
	shape := t.Rows(c.req.Policy.Treat, c.req.Options)
	shape.Filter = c.req.Policy.Filter(t.Schema, t.Name)
	if err := c.privileges(ctx, t, shape); err != nil {
		return err
	}
	alter := func(what string) mend { return mend{on: "primary", sql: "ALTER TABLE " + shape.Ident() + " " + what} }
	switch {
	case t.Identity == 'n':
		c.add(CodeIdentityNothing, Problem, alter("REPLICA IDENTITY DEFAULT"),
			"the table %s has replica identity nothing: while it is published its updates and deletes FAIL on the primary", c.table)
	case shape.Refusal() != nil:
		c.add(CodeRefused, Problem, mend{}, "the table %s: %v", c.table, shape.Refusal())
	case len(t.Key) == 0 && c.req.Options.WholeRow && t.Identity != 'f':
		c.add(CodeNoKey, Problem, alter("REPLICA IDENTITY FULL"), "the table %s has no primary key, and its old rows are not published, which would be its key", c.table)
	case shape.Validate() != nil:
		c.add(CodeNoKey, Problem, alter("ADD PRIMARY KEY (…)"), "the table %s: %v", c.table, shape.Validate())
	}
	if err := c.hazards(ctx, t, generated); err != nil {
		return err
	}
	c.chosenColumns(t, shape)
	c.large(t, shape)
	return nil
}

// chosenColumns tells what the rules for columns and rows mean for the table.
func (c *check) chosenColumns(t catalog.Table, shape rows.Table) {
	if withheld := shape.Withheld(); len(withheld) > 0 {
		c.add(CodeWithheld, Warning, mend{}, "columns of %s are withheld until somebody says what they are: %s; name each in cdc.clear, cdc.tokenise, cdc.mask or cdc.exclude_columns",
			c.table, strings.Join(withheld, ", "))
	}
	if shape.Filter != nil && t.Identity != 'f' && !shape.FilterKeyed() {
		c.add(CodeOldRows, Note, mend{on: "primary", sql: "ALTER TABLE " + shape.Ident() + " REPLICA IDENTITY FULL"},
			"the row filter of %s reads columns that old rows do not have: every update of a row outside it writes a delete, and a row that enters it is an update", c.table)
	}
}

func (c *check) privileges(ctx context.Context, t catalog.Table, shape rows.Table) error {
	var usage, sel, filtered bool
	err := c.conn.QueryRow(ctx, `SELECT has_schema_privilege($2, 'USAGE'), has_table_privilege($1::oid, 'SELECT') OR
		NOT EXISTS (SELECT FROM unnest($3::text[]) u(n) WHERE NOT has_column_privilege($1::oid, n, 'SELECT')), row_security_active($1::oid)`,
		t.OID, t.Schema, shape.Selected()).Scan(&usage, &sel, &filtered)
	if err != nil {
		return fmt.Errorf("privileges on %s: %w", c.table, err)
	}
	role := rows.Quote(c.role)
	if !usage {
		c.add(CodeSchemaUsage, Problem, mend{on: "primary", sql: fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", rows.Quote(t.Schema), role)}, "the role may not look into the schema %s", t.Schema)
	}
	if !sel {
		c.add(CodeSelect, Problem, mend{on: "primary", sql: fmt.Sprintf("GRANT SELECT ON %s TO %s", shape.Ident(), role)}, "the role may not read the table %s", c.table)
	}
	if filtered {
		c.add(CodeRowSecurity, Problem, mend{on: "primary", sql: "ALTER ROLE " + role + " BYPASSRLS", rds: fmt.Sprintf("CREATE POLICY cdc ON %s FOR SELECT TO %s USING (true)", shape.Ident(), role)},
			"row security hides rows of %s from the role", c.table)
	}
	return nil
}

// hazards are publications under which PostgreSQL itself refuses changes of the table, and what a publication leaves out.
func (c *check) hazards(ctx context.Context, t catalog.Table, generated string) error {
	publication := rows.Quote(c.req.Publication)
	others := []string{}
	if c.result.Version >= 180000 && t.Identity == 'f' && t.Generated {
		if generated != "s" {
			others = append(others, c.req.Publication)
		}
		rs, err := c.conn.Query(ctx, `SELECT DISTINCT p.pubname::text FROM pg_publication p JOIN pg_publication_tables v USING (pubname)
			WHERE v.schemaname = $1 AND v.tablename = $2 AND p.pubgencols <> 's' AND p.pubname <> $3 AND (p.pubupdate OR p.pubdelete) ORDER BY 1`, t.Schema, t.Name, c.req.Publication)
		if err != nil {
			return fmt.Errorf("publications of %s: %w", c.table, err)
		}
		more, err := pgx.CollectRows(rs, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("publications of %s: %w", c.table, err)
		}
		others = append(others, more...)
	}
	for _, p := range others {
		c.add(CodeGeneratedColumn, Problem, mend{on: "primary", sql: "ALTER PUBLICATION " + rows.Quote(p) + " SET (publish_generated_columns = stored)"},
			"the table %s has replica identity full and a stored generated column that the publication %s does not publish: from PostgreSQL 18 on its updates and deletes FAIL on the primary", c.table, p)
	}
	var outside []string // columns of the row filter that the old row does not have
	var listed bool
	err := c.conn.QueryRow(ctx, `SELECT coalesce(bool_or(r.prattrs IS NOT NULL), false), coalesce(array_agg(DISTINCT a.attname::text) FILTER (WHERE a.attname IS NOT NULL), '{}')
		FROM pg_publication_rel r LEFT JOIN pg_depend d ON d.classid = 'pg_publication_rel'::regclass AND d.objid = r.oid AND d.refobjid = r.prrelid AND d.refobjsubid > 0
			AND r.prqual IS NOT NULL AND r.prattrs IS NULL
		LEFT JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = d.refobjsubid AND NOT a.attname = ANY ($3::text[])
		WHERE r.prrelid = $1 AND r.prpubid = $2`, t.OID, c.result.PublicationID, t.Key).Scan(&listed, &outside)
	if err != nil {
		return fmt.Errorf("row filter of %s: %w", c.table, err)
	}
	if listed {
		c.add(CodeColumnList, Note, mend{on: "primary", sql: "ALTER PUBLICATION " + publication + " SET TABLE …, without a list of columns"},
			"the publication %s has only some columns of %s: %d", c.req.Publication, c.table, len(t.Columns))
	}
	if t.Filter != "" {
		c.add(CodeRowFilter, Note, mend{}, "the publication %s has only the rows of %s for which its filter is true; a row that leaves the filter is a delete", c.req.Publication, c.table)
	}
	if t.Filter != "" && t.Identity != 'f' && len(outside) > 0 {
		c.add(CodeFilterIdentity, Problem, mend{on: "primary", sql: "ALTER TABLE " + rows.Quote(t.Schema) + "." + rows.Quote(t.Name) + " REPLICA IDENTITY FULL"},
			"the row filter of %s uses columns outside of its replica identity (%s): its updates and deletes FAIL on the primary", c.table, strings.Join(outside, ", "))
	}
	return nil
}

func (c *check) large(t catalog.Table, shape rows.Table) {
	if t.Identity == 'f' {
		return
	}
	var large []string
	for i, col := range t.Columns {
		kind := shape.Columns[i].Kind
		if col.Large && shape.Columns[i].Treatment.Written() && !shape.Columns[i].Key && kind != rows.Decimal && kind != rows.Token {
			large = append(large, col.Name)
		}
	}
	if len(large) > 0 {
		c.add(CodeLargeValues, Note, mend{on: "primary", sql: "ALTER TABLE " + shape.Ident() + " REPLICA IDENTITY FULL"},
			"values over 2 kB in %s (%s) that an update does not touch are marked as unchanged, not repeated", c.table, strings.Join(large, ", "))
	}
}
