package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Treat tells how a column is handled.
type Treat func(schema, table, column string) rows.Treatment

// truncatable tells whether the start of a value of the type is a value too.
func (ts *Types) truncatable(oid uint32, modifier int32) bool {
	switch known := ts.Resolve(oid, modifier, 0); known.Name {
	case "text", "varchar", "bpchar", "name":
		return known.Elem == nil
	case "citext":
		return known.Extension != ""
	}
	return false
}

// Numbers are the numbers of a table's columns in pg_attribute, as they are now. They are none if the table is gone.
func Numbers(ctx context.Context, conn *pgx.Conn, table uint32) (map[string]int16, error) {
	rs, err := conn.Query(ctx, "SELECT attname::text, attnum FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped", table)
	if err != nil {
		return nil, fmt.Errorf("read the columns of a table: %w", err)
	}
	out := map[string]int16{}
	var name string
	var number int16
	_, err = pgx.ForEachRow(rs, []any{&name, &number}, func() error {
		out[name] = number
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the columns of a table: %w", err)
	}
	return out, nil
}
