// Package catalog reads what is to be captured from the source's catalog: the publication's tables, their columns and
// keys. It only reads.
package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Table is a published table as it is now.
type Table struct {
	OID           uint32
	Schema, Name  string
	Filter        string // the publication's row filter, SQL; "" if none
	Partitioned   bool
	Identity      byte // replica identity: d, n, f or i
	Columns       []Column
	Key           []string // columns of the primary key, or of the index that is the replica identity; nil if none
	Generated     bool     // has stored generated columns
	EstimatedRows int64

	types *Types
}

// Column is a published column.
type Column struct {
	Name       string
	Type       uint32
	Modifier   int32
	Dimensions int  // of an array, as declared
	Large      bool // values may be stored apart from the row
	Number     int16
}

const tablesSQL = `
SELECT c.oid, p.schemaname::text, p.tablename::text, coalesce(p.rowfilter, ''), c.relkind = 'p', c.relreplident::text,
       p.attnames::text[], greatest(c.reltuples, 0)::bigint,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 's' AND NOT a.attisdropped),
       coalesce((SELECT array_agg(a.attname::text) FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[])
                 WHERE i.indrelid = c.oid AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END), '{}')
FROM pg_publication_tables p
JOIN pg_publication pub ON pub.pubname = p.pubname
JOIN pg_namespace n ON n.nspname = p.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
LEFT JOIN pg_publication_rel r ON r.prpubid = pub.oid AND r.prrelid = c.oid
WHERE p.pubname = $1
ORDER BY r.oid NULLS LAST, p.schemaname, p.tablename`

// Tables are the publication's tables, in its order.
func Tables(ctx context.Context, conn *pgx.Conn, publication string) ([]Table, error) {
	rs, err := conn.Query(ctx, tablesSQL, publication)
	if err != nil {
		return nil, fmt.Errorf("read the tables of publication %s: %w", publication, err)
	}
	var out []Table
	published := map[uint32]map[string]bool{}
	var t Table
	var identity string
	var names []string
	_, err = pgx.ForEachRow(rs, []any{&t.OID, &t.Schema, &t.Name, &t.Filter, &t.Partitioned, &identity, &names, &t.EstimatedRows, &t.Generated, &t.Key}, func() error {
		t.Identity = identity[0]
		published[t.OID] = map[string]bool{}
		for _, n := range names {
			published[t.OID][n] = true
		}
		added := t
		added.Key = append([]string(nil), t.Key...)
		out = append(out, added)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the tables of publication %s: %w", publication, err)
	}
	types := &Types{}
	var oids []uint32
	for i := range out {
		if out[i].Columns, err = columns(ctx, conn, out[i].OID, published[out[i].OID]); err != nil {
			return nil, fmt.Errorf("read the columns of %s.%s: %w", out[i].Schema, out[i].Name, err)
		}
		out[i].types = types
		for _, c := range out[i].Columns {
			oids = append(oids, c.Type)
		}
	}
	return out, types.Learn(ctx, conn, oids...)
}

func columns(ctx context.Context, conn *pgx.Conn, table uint32, published map[string]bool) ([]Column, error) {
	rs, err := conn.Query(ctx, `SELECT attname::text, atttypid, atttypmod, attndims, attstorage <> 'p', attnum FROM pg_attribute
		WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, table)
	if err != nil {
		return nil, err
	}
	var out []Column
	var c Column
	_, err = pgx.ForEachRow(rs, []any{&c.Name, &c.Type, &c.Modifier, &c.Dimensions, &c.Large, &c.Number}, func() error {
		if published[c.Name] {
			out = append(out, c)
		}
		return nil
	})
	return out, err
}

// Options are the choices in how tables are written.
type Options struct {
	rows.Modes
	WholeRow bool                                    // a table without a key has all its columns as key, if its old rows are published whole
	Text     func(schema, table, column string) bool // columns to write as PostgreSQL prints them; nil for none
}

// Rows is the table in the form that encoders are made of.
func (t Table) Rows(treat Treat, options Options) rows.Table {
	b := builder{schema: t.Schema, table: t.Name, types: t.types, treat: treat, options: options,
		key: set(t.Key), whole: options.WholeRow && len(t.Key) == 0 && t.Identity == identityFull}
	out := rows.Table{Schema: t.Schema, Name: t.Name}
	for _, c := range t.Columns {
		out.Columns = append(out.Columns, b.column(c, b.key[c.Name]))
	}
	return out
}

// identityFull is the replica identity of tables whose old rows are published whole.
const identityFull = 'f'

func set(names []string) map[string]bool {
	out := map[string]bool{}
	for _, n := range names {
		out[n] = true
	}
	return out
}

// builder makes the columns of one table.
type builder struct {
	schema, table string
	types         *Types
	treat         Treat
	options       Options
	key           map[string]bool
	whole         bool // the key is the whole row
}

func (b *builder) column(c Column, key bool) rows.Column {
	var out rows.Column
	key = key || b.whole
	modes := b.options.Modes
	if key {
		modes = modes.Exact()
	}
	switch {
	case b.options.Text != nil && b.options.Text(b.schema, b.table, c.Name):
	default:
		out = b.types.Resolve(c.Type, c.Modifier, c.Dimensions).Column(modes)
	}
	out.Name, out.Field, out.Key, out.Nullable = c.Name, rows.FieldName(c.Name), key, b.whole
	return out.Treated(b.treat(b.schema, b.table, c.Name), b.types.truncatable(c.Type, c.Modifier))
}

// FromRelation is the table as the stream describes it, which may be older than the catalog. key is the key's columns
// as the catalog has them, for a replica identity that does not tell. types must have learnt the relation.
func FromRelation(r pgoutput.Relation, key []string, types *Types, treat Treat, options Options) rows.Table {
	b := builder{schema: r.Schema, table: r.Name, types: types, treat: treat, options: options,
		key: set(key), whole: options.WholeRow && len(key) == 0 && r.Identity == identityFull}
	out := rows.Table{Schema: r.Schema, Name: r.Name}
	for _, c := range r.Columns {
		isKey := c.Key
		if r.Identity != 'd' && r.Identity != 'i' {
			isKey = b.key[c.Name]
		}
		dimensions := types.dimensions[attribute{r.ID, c.Name}]
		out.Columns = append(out.Columns, b.column(Column{Name: c.Name, Type: c.Type, Modifier: c.Modifier, Dimensions: dimensions}, isKey))
	}
	return out
}
