package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// object is something of the source, as the SQL that makes it.
type object struct {
	what, sql string
	required  bool
	err       error
}

// user tells the schemas that are the store's own.
const user = `n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`

// notOfExtension leaves out what comes with an extension.
const notOfExtension = `NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '%s'::regclass AND d.objid = %s AND d.deptype = 'e')`

// queries give, each row, what an object is, and the SQL that makes it. They run with an empty search path, so that all
// names are qualified.
func queries() []struct {
	sql      string
	required bool
} {
	own := fmt.Sprintf(notOfExtension, "pg_type", "t.oid")
	return []struct {
		sql      string
		required bool
	}{
		{`SELECT 'schema ' || n.nspname, format('CREATE SCHEMA IF NOT EXISTS %I', n.nspname) FROM pg_namespace n WHERE ` + user, true},
		{`SELECT 'extension ' || e.extname, format('CREATE EXTENSION IF NOT EXISTS %I SCHEMA %I', e.extname, n.nspname)
			FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql' ORDER BY e.oid`, false},
		{`SELECT 'type ' || format_type(t.oid, NULL), format('CREATE TYPE %I.%I AS ENUM (%s)', n.nspname, t.typname,
			(SELECT coalesce(string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder), '') FROM pg_enum e WHERE e.enumtypid = t.oid))
			FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'e' AND ` + user + ` AND ` + own, true},
		{`SELECT 'domain ' || format_type(t.oid, NULL), format('CREATE DOMAIN %I.%I AS %s', n.nspname, t.typname, format_type(t.typbasetype, t.typtypmod))
			FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'd' AND ` + user + ` AND ` + own, true},
		{`SELECT 'type ' || format_type(t.oid, NULL), format('CREATE TYPE %I.%I AS (%s)', n.nspname, t.typname,
			(SELECT coalesce(string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum), '')
			 FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
			FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace JOIN pg_class c ON c.oid = t.typrelid
			WHERE t.typtype = 'c' AND c.relkind = 'c' AND ` + user + ` AND ` + own, true},
		{`SELECT 'type ' || format_type(r.rngtypid, NULL), format('CREATE TYPE %I.%I AS RANGE (SUBTYPE = %s)', n.nspname, t.typname, format_type(r.rngsubtype, NULL))
			FROM pg_range r JOIN pg_type t ON t.oid = r.rngtypid JOIN pg_namespace n ON n.oid = t.typnamespace
			WHERE ` + user + ` AND ` + own, true},
	}
}

// dependants are what hangs on the tables: keys and indexes under their names, then what stands in the way of a change.
func dependants() []struct {
	sql      string
	required bool
} {
	const tables = ` JOIN pg_class c ON c.oid = %s JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ` + user + ` AND c.relkind IN ('r', 'p') AND `
	constraint := `SELECT format('constraint %s of %I.%I', k.conname, n.nspname, c.relname), format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', n.nspname, c.relname, k.conname,
		pg_get_constraintdef(k.oid)) FROM pg_constraint k` + fmt.Sprintf(tables, "k.conrelid") + `k.conparentid = 0 AND k.conislocal AND k.contype IN `
	return []struct {
		sql      string
		required bool
	}{
		{constraint + `('p')`, true},
		{constraint + `('u', 'x')`, false},
		{`SELECT 'index ' || i.indexrelid::regclass, pg_get_indexdef(i.indexrelid) FROM pg_index i` + fmt.Sprintf(tables, "i.indrelid") +
			`NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid) AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)`, false},
		{constraint + `('f', 'c')`, false},
		{`SELECT format('replica identity of %I.%I', n.nspname, c.relname), format('ALTER TABLE %I.%I REPLICA IDENTITY %s', n.nspname, c.relname,
			CASE c.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE 'USING INDEX ' || quote_ident((SELECT x.relname FROM pg_index i
			JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND i.indisreplident)) END)
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ` + user + ` AND c.relkind IN ('r', 'p') AND c.relreplident <> 'd'`, true},
		{`SELECT format('view %I.%I', n.nspname, c.relname), format('CREATE VIEW %I.%I AS %s', n.nspname, c.relname, pg_get_viewdef(c.oid))
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'v' AND ` + user + ` AND ` +
			fmt.Sprintf(notOfExtension, "pg_class", "c.oid") + ` ORDER BY c.oid`, false},
	}
}

// extract reads the source's catalog into the SQL that makes an empty database like it.
func extract(ctx context.Context, conn *pgx.Conn, publication string) ([]object, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("read the source's catalog: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // it has only read
	if _, err := tx.Exec(ctx, "SET LOCAL search_path = pg_catalog"); err != nil {
		return nil, fmt.Errorf("read the source's catalog: %w", err)
	}
	var out []object
	for _, q := range queries() {
		if out, err = collect(ctx, tx, q.sql, q.required, out); err != nil {
			return nil, err
		}
	}
	tables, err := tableObjects(ctx, tx)
	if err != nil {
		return nil, err
	}
	out = append(out, tables...)
	for _, q := range dependants() {
		if out, err = collect(ctx, tx, q.sql, q.required, out); err != nil {
			return nil, err
		}
	}
	p, err := publicationObject(ctx, tx, publication)
	return append(out, p), err
}

func collect(ctx context.Context, tx pgx.Tx, sql string, required bool, out []object) ([]object, error) {
	rs, err := tx.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("read the source's catalog: %w", err)
	}
	var what, makes string
	_, err = pgx.ForEachRow(rs, []any{&what, &makes}, func() error {
		out = append(out, object{what: what, sql: makes, required: required})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the source's catalog: %w", err)
	}
	return out, nil
}

const tablesSQL = `SELECT c.oid, n.nspname::text, c.relname::text, coalesce(pg_get_partkeydef(c.oid), ''), coalesce(pg_get_expr(c.relpartbound, c.oid), ''),
		coalesce((SELECT format('%I.%I', pn.nspname, p.relname) FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent
			JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE h.inhrelid = c.oid AND c.relispartition), '')
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ` + user + ` AND `

// tableObjects are the tables with their columns, at the numbers that they have in the source.
func tableObjects(ctx context.Context, tx pgx.Tx) ([]object, error) {
	rs, err := tx.Query(ctx, tablesSQL+fmt.Sprintf(notOfExtension, "pg_class", "c.oid")+" ORDER BY c.oid")
	if err != nil {
		return nil, fmt.Errorf("read the source's tables: %w", err)
	}
	type table struct {
		OID                                    uint32
		Schema, Name, PartitionBy, Bound, Root string
	}
	tables, err := pgx.CollectRows(rs, pgx.RowToStructByPos[table])
	if err != nil {
		return nil, fmt.Errorf("read the source's tables: %w", err)
	}
	var out []object
	for _, t := range tables {
		name := ident(t.Schema, t.Name)
		sql := "CREATE TABLE " + name + " PARTITION OF " + t.Root + " " + t.Bound
		if t.Root == "" {
			if sql, err = createTable(ctx, tx, t.OID, name); err != nil {
				return nil, err
			}
		}
		if t.PartitionBy != "" {
			first, rest, _ := strings.Cut(sql, ";")
			sql = first + " PARTITION BY " + t.PartitionBy
			if rest != "" {
				sql += ";" + rest
			}
		}
		out = append(out, object{what: "table " + name, sql: sql, required: true})
	}
	return out, nil
}

// createTable makes a table, and drops the columns that the source's table has dropped, so that the numbers agree.
func createTable(ctx context.Context, tx pgx.Tx, oid uint32, name string) (string, error) {
	rs, err := tx.Query(ctx, `SELECT a.attname::text, a.attisdropped, CASE WHEN a.attisdropped THEN '' ELSE format_type(a.atttypid, a.atttypmod) END, a.attnotnull,
			a.attidentity::text, a.attgenerated::text, coalesce(CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END, '')
		FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE a.attrelid = $1 AND a.attnum > 0 ORDER BY a.attnum`, oid)
	if err != nil {
		return "", fmt.Errorf("read the columns of %s: %w", name, err)
	}
	type column struct {
		Name      string
		Dropped   bool
		Type      string
		NotNull   bool
		Identity  string
		Generated string
		Expr      string
	}
	columns, err := pgx.CollectRows(rs, pgx.RowToStructByPos[column])
	if err != nil {
		return "", fmt.Errorf("read the columns of %s: %w", name, err)
	}
	var defs, drops []string
	for i, c := range columns {
		if c.Dropped {
			gone := rows.Quote(fmt.Sprintf("millrace_dropped_%d", i+1))
			defs, drops = append(defs, gone+" int"), append(drops, "DROP COLUMN "+gone)
			continue
		}
		def := rows.Quote(c.Name) + " " + c.Type
		switch {
		case c.Identity == "a":
			def += " GENERATED ALWAYS AS IDENTITY"
		case c.Identity == "d":
			def += " GENERATED BY DEFAULT AS IDENTITY"
		case c.Generated == "s":
			def += " GENERATED ALWAYS AS (" + c.Expr + ") STORED"
		case c.Generated == "v":
			def += " GENERATED ALWAYS AS (" + c.Expr + ") VIRTUAL"
		}
		if c.NotNull {
			def += " NOT NULL"
		}
		defs = append(defs, def)
	}
	sql := "CREATE TABLE " + name + " (" + strings.Join(defs, ", ") + ")"
	if len(drops) > 0 {
		sql += "; ALTER TABLE " + name + " " + strings.Join(drops, ", ")
	}
	return sql, nil
}

// publicationObject is the publication as it lists its tables.
func publicationObject(ctx context.Context, tx pgx.Tx, name string) (object, error) {
	var all, root, insert, update, remove, truncate bool
	var generated string
	err := tx.QueryRow(ctx, `SELECT puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate,
		coalesce(to_jsonb(p) ->> 'pubgencols', 'n') FROM pg_publication p WHERE pubname = $1`, name).Scan(&all, &root, &insert, &update, &remove, &truncate, &generated)
	if err != nil {
		return object{}, fmt.Errorf("read the publication %s of the source: %w", name, err)
	}
	var targets []string
	if all {
		targets = []string{"ALL TABLES"}
	} else if targets, err = publishedTargets(ctx, tx, name); err != nil {
		return object{}, err
	}
	var kinds []string
	for _, k := range []struct {
		on   bool
		name string
	}{{insert, "insert"}, {update, "update"}, {remove, "delete"}, {truncate, "truncate"}} {
		if k.on {
			kinds = append(kinds, k.name)
		}
	}
	sql := "CREATE PUBLICATION " + rows.Quote(name)
	if len(targets) > 0 {
		sql += " FOR " + strings.Join(targets, ", ")
	}
	sql += fmt.Sprintf(" WITH (publish = '%s', publish_via_partition_root = %v", strings.Join(kinds, ", "), root)
	if generated == "s" {
		sql += ", publish_generated_columns = stored"
	}
	return object{what: "publication " + name, sql: sql + ")", required: true}, nil
}

func publishedTargets(ctx context.Context, tx pgx.Tx, name string) ([]string, error) {
	objects, err := collect(ctx, tx, `SELECT '', 'TABLES IN SCHEMA ' || quote_ident(n.nspname) FROM pg_publication p JOIN pg_publication_namespace x ON x.pnpubid = p.oid
		JOIN pg_namespace n ON n.oid = x.pnnspid WHERE p.pubname = `+literal(name)+`
		UNION ALL SELECT '', format('TABLE %I.%I', n.nspname, c.relname)
			|| coalesce((SELECT ' (' || string_agg(quote_ident(a.attname), ', ') || ')' FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs::int2[])), '')
			|| coalesce(' WHERE (' || pg_get_expr(r.prqual, c.oid) || ')', '')
		FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE p.pubname = `+literal(name), true, nil)
	var out []string
	for _, o := range objects {
		out = append(out, o.sql)
	}
	slices.Sort(out)
	return out, err
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
