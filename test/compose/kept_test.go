//go:build compose

package compose

import (
	"strings"
	"testing"
	"time"
)

// TestKept looks through a stack that was taken down with its volumes kept, and brought up again: what was sold in its
// first life is still there, under the same key, and capture goes on where it was.
func TestKept(t *testing.T) {
	ctx := t.Context()
	var product string
	var units int
	var first, up time.Time
	source := connect(ctx, t, primaryURL)
	err := source.QueryRow(ctx, `SELECT product_code, sum(quantity_ordered), min(ordered_at), pg_postmaster_start_time()
		FROM order_details JOIN orders USING (order_number) WHERE product_code LIKE 'E2E!_%' ESCAPE '!' GROUP BY product_code ORDER BY 3 LIMIT 1`).
		Scan(&product, &units, &first, &up)
	if err != nil {
		t.Fatalf("what the tests sold before is not in the store: %v", err)
	}
	if !first.Before(up) {
		t.Fatalf("sold at %v, and the primary is up since %v: there was no first life", first, up)
	}
	got, err := unitsSold(ctx, product)
	if err != nil {
		t.Fatal(err)
	}
	if got != units {
		t.Errorf("%d units of %s are sold, want %d", got, product, units)
	}
	if log := docker(t, "logs", container("setup-keys")); !strings.Contains(log, "left as it is") {
		t.Errorf("the key was made anew: %s", log)
	}
	if log := docker(t, "compose", "logs", "--no-color", "cdc"); strings.Contains(log, "table read") || !strings.Contains(log, "streaming") {
		t.Errorf("cdc took another snapshot:\n%s", log)
	}
	totalsEqual(t)
}
