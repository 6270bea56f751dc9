package ledger

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/services/aggregate/internal/sales"
)

// products folds and writes the batch's products. Only the owner of a product's partition writes it, so that reading
// it needs no lock.
func (t transaction) products(ctx context.Context, b *sales.Batch) error {
	codes := b.Products()
	if len(codes) == 0 {
		return nil
	}
	stored, err := t.loadProducts(ctx, codes)
	if err != nil {
		return fmt.Errorf("read the products: %w", err)
	}
	changed := b.FoldProducts(stored)
	n := len(changed)
	code, name, category := make([]string, n), make([]string, n), make([]string, n)
	seq, ref, gone := make([]int64, n), make([]int64, n), make([]bool, n)
	for i, p := range changed {
		code[i], name[i], category[i], seq[i], ref[i], gone[i] = p.Code, p.Name, p.Category, p.Version.Seq, p.Version.RefSeq, p.Gone
	}
	if _, err := t.Exec(ctx, `INSERT INTO millrace.products (product_code, seq, ref_seq, gone, name, category)
		SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[], $5::text[], $6::text[])
		ON CONFLICT (product_code) DO UPDATE SET seq = excluded.seq, ref_seq = excluded.ref_seq, gone = excluded.gone,
		    name = excluded.name, category = excluded.category`, code, seq, ref, gone, name, category); err != nil {
		return fmt.Errorf("write the products: %w", err)
	}
	return nil
}

func (t transaction) loadProducts(ctx context.Context, codes []string) (map[string]sales.Product, error) {
	rows, err := t.Query(ctx, `SELECT product_code, seq, ref_seq, gone, name, category FROM millrace.products WHERE product_code = ANY($1)`, codes)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]sales.Product{}
	for rows.Next() {
		p := sales.Product{Known: true}
		if err := rows.Scan(&p.Code, &p.Version.Seq, &p.Version.RefSeq, &p.Gone, &p.Name, &p.Category); err != nil {
			return nil, err
		}
		out[p.Code] = p
	}
	return out, rows.Err()
}
