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
}

// Column is a published column; its type is the base type of a domain.
type Column struct {
	Name     string
	Type     uint32
	Modifier int32
	Large    bool // values may be stored apart from the row
}

// Domains maps the domains of a database to what they are over.
type Domains map[uint32]struct {
	Base     uint32
	Modifier int32
}

// Resolve is the type under all domains.
func (d Domains) Resolve(oid uint32, modifier int32) (uint32, int32) {
	for range len(d) + 1 {
		under, ok := d[oid]
		if !ok {
			break
		}
		oid, modifier = under.Base, under.Modifier
	}
	return oid, modifier
}

// ReadDomains reads all domains.
func ReadDomains(ctx context.Context, conn *pgx.Conn) (Domains, error) {
	rs, err := conn.Query(ctx, "SELECT oid, typbasetype, typtypmod FROM pg_type WHERE typtype = 'd'")
	if err != nil {
		return nil, fmt.Errorf("read the source's domains: %w", err)
	}
	out := Domains{}
	var oid, base uint32
	var modifier int32
	_, err = pgx.ForEachRow(rs, []any{&oid, &base, &modifier}, func() error {
		e := out[oid]
		e.Base, e.Modifier = base, modifier
		out[oid] = e
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the source's domains: %w", err)
	}
	return out, nil
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
	domains, err := ReadDomains(ctx, conn)
	if err != nil {
		return nil, err
	}
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
	for i := range out {
		if out[i].Columns, err = columns(ctx, conn, out[i].OID, published[out[i].OID], domains); err != nil {
			return nil, fmt.Errorf("read the columns of %s.%s: %w", out[i].Schema, out[i].Name, err)
		}
	}
	return out, nil
}

func columns(ctx context.Context, conn *pgx.Conn, table uint32, published map[string]bool, domains Domains) ([]Column, error) {
	rs, err := conn.Query(ctx, `SELECT attname::text, atttypid, atttypmod, attstorage <> 'p' FROM pg_attribute
		WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, table)
	if err != nil {
		return nil, err
	}
	var out []Column
	var c Column
	_, err = pgx.ForEachRow(rs, []any{&c.Name, &c.Type, &c.Modifier, &c.Large}, func() error {
		if published[c.Name] {
			resolved := c
			resolved.Type, resolved.Modifier = domains.Resolve(c.Type, c.Modifier)
			out = append(out, resolved)
		}
		return nil
	})
	return out, err
}

// Personal tells whether a column holds personal data.
type Personal func(table, column string) bool

// Rows is the table in the form that encoders are made of.
func (t Table) Rows(personal Personal) rows.Table {
	key := map[string]bool{}
	for _, k := range t.Key {
		key[k] = true
	}
	out := rows.Table{Schema: t.Schema, Name: t.Name}
	for _, c := range t.Columns {
		out.Columns = append(out.Columns, column(t.Name, c, key[c.Name], personal))
	}
	return out
}

func column(table string, c Column, key bool, personal Personal) rows.Column {
	out := rows.Column{Name: c.Name, Field: rows.FieldName(c.Name), Key: key}
	if personal(table, c.Name) {
		out.Kind = rows.Token
		return out
	}
	out.Kind, out.Precision, out.Scale = rows.KindOf(c.Type, c.Modifier)
	return out
}

// FromRelation is the table as the stream describes it, which may be older than the catalog. key is the key's columns
// as the catalog has them, for a replica identity that does not tell.
func FromRelation(r pgoutput.Relation, key []string, domains Domains, personal Personal) rows.Table {
	inKey := map[string]bool{}
	for _, k := range key {
		inKey[k] = true
	}
	out := rows.Table{Schema: r.Schema, Name: r.Name}
	for _, c := range r.Columns {
		oid, modifier := domains.Resolve(c.Type, c.Modifier)
		isKey := c.Key
		if r.Identity != 'd' && r.Identity != 'i' {
			isKey = inKey[c.Name]
		}
		out.Columns = append(out.Columns, column(r.Name, Column{Name: c.Name, Type: oid, Modifier: modifier}, isKey, personal))
	}
	return out
}
