package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Types is what is known of the source's types. It is read when asked for: a database has a type for each table, and
// columns use few. The zero value knows none. It is for one goroutine.
type Types struct {
	known      map[uint32]typeRow
	dimensions map[attribute]int // as declared, of tables with arrays
}

type attribute struct {
	table uint32
	name  string
}

// typeRow is a row of pg_type with what belongs to it.
type typeRow struct {
	name, extension string
	class           string // typtype: b, c, d, e, p, r or m
	base, elem      uint32 // of a domain, of an array
	modifier        int32  // of a domain
	dimensions      int    // of a domain
	delimiter       string // between the elements of an array of it
	labels          []string
}

// typesSQL reads types with all that they are made of. An array type is one that its element names: a type may have
// elements and print as no array, such as point.
const typesSQL = `
WITH RECURSIVE wanted(oid) AS (
	SELECT unnest($1::oid[])
	UNION
	SELECT u.oid FROM wanted w JOIN pg_type t ON t.oid = w.oid CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) u(oid) WHERE u.oid <> 0
)
SELECT t.oid, CASE WHEN t.oid < 16384 OR x.extname IS NOT NULL THEN t.typname::text ELSE '' END, coalesce(x.extname::text, ''), t.typtype::text,
       t.typbasetype, CASE WHEN e.typarray = t.oid THEN e.oid ELSE 0 END, t.typtypmod, t.typndims, t.typdelim::text,
       ARRAY(SELECT l.enumlabel::text FROM pg_enum l WHERE l.enumtypid = t.oid ORDER BY l.enumsortorder)
FROM wanted w JOIN pg_type t ON t.oid = w.oid
LEFT JOIN pg_type e ON e.oid = t.typelem
LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
LEFT JOIN pg_extension x ON x.oid = d.refobjid`

// Learn reads those of the types that are not known. One that the catalog has no more, for its column was dropped since,
// stays unknown.
func (ts *Types) Learn(ctx context.Context, conn *pgx.Conn, oids ...uint32) error {
	var unknown []uint32
	for _, oid := range oids {
		if _, ok := ts.known[oid]; !ok {
			unknown = append(unknown, oid)
		}
	}
	return ts.read(ctx, conn, unknown)
}

func (ts *Types) read(ctx context.Context, conn *pgx.Conn, oids []uint32) error {
	if len(oids) == 0 {
		return nil
	}
	if ts.known == nil {
		ts.known = map[uint32]typeRow{}
	}
	rs, err := conn.Query(ctx, typesSQL, oids)
	if err != nil {
		return fmt.Errorf("read the source's types: %w", err)
	}
	var oid uint32
	var t typeRow
	_, err = pgx.ForEachRow(rs, []any{&oid, &t.name, &t.extension, &t.class, &t.base, &t.elem, &t.modifier, &t.dimensions, &t.delimiter, &t.labels}, func() error {
		added := t
		added.labels = slices.Clone(t.labels)
		ts.known[oid] = added
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the source's types: %w", err)
	}
	return nil
}

// LearnRelation reads what is to be known of a table that the stream describes. again tells that it did so before: its
// types are then read again, for an enum may have new labels. What the catalog has no more stays as it was known: the
// stream may be behind.
func (ts *Types) LearnRelation(ctx context.Context, conn *pgx.Conn, r pgoutput.Relation, again bool) error {
	oids := make([]uint32, len(r.Columns))
	for i, c := range r.Columns {
		oids[i] = c.Type
	}
	var err error
	if again {
		err = ts.read(ctx, conn, oids)
	} else {
		err = ts.Learn(ctx, conn, oids...)
	}
	if err != nil {
		return err
	}
	for _, oid := range oids {
		if ts.known[oid].elem != 0 { // the stream does not tell how many dimensions are declared
			return ts.learnDimensions(ctx, conn, r.ID)
		}
	}
	return nil
}

func (ts *Types) learnDimensions(ctx context.Context, conn *pgx.Conn, table uint32) error {
	rs, err := conn.Query(ctx, "SELECT attname::text, attndims FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped", table)
	if err != nil {
		return fmt.Errorf("read the dimensions of arrays: %w", err)
	}
	if ts.dimensions == nil {
		ts.dimensions = map[attribute]int{}
	}
	var name string
	var n int
	_, err = pgx.ForEachRow(rs, []any{&name, &n}, func() error {
		ts.dimensions[attribute{table, name}] = n
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the dimensions of arrays: %w", err)
	}
	return nil
}

// Resolve is the type under all domains, with what an array is of. modifier and dimensions are those of the column.
func (ts *Types) Resolve(oid uint32, modifier int32, dimensions int) rows.Type {
	t := ts.known[oid]
	for range len(ts.known) { // domains over domains end
		if t.class != "d" {
			break
		}
		oid, modifier, dimensions = t.base, t.modifier, t.dimensions
		t = ts.known[oid]
	}
	out := rows.Type{Name: t.name, Extension: t.extension, Modifier: modifier, Enum: t.class == "e", Labels: t.labels, Dimensions: dimensions}
	if t.elem != 0 {
		elem := ts.Resolve(t.elem, modifier, 0)
		out.Elem, out.Modifier = &elem, -1
		out.Delimiter = ','
		if d := ts.known[t.elem].delimiter; d != "" {
			out.Delimiter = d[0]
		}
	}
	return out
}
