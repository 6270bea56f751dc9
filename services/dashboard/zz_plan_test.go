//go:build e2e

package dashboard

import (
	"fmt"
	"testing"
	"time"
)

func TestZZPlan(t *testing.T) {
	now := time.Now()
	s := open(t, now)
	s.history(t, now)
	s.exec(t, "set jit=off")
	run := func(name, sql string, args ...any) {
		rows, err := s.conn.Query(t.Context(), "EXPLAIN (ANALYZE, BUFFERS) "+sql, args...)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("=====", name)
		for rows.Next() {
			var l string
			rows.Scan(&l)
			fmt.Println(l)
		}
	}
	from := now.AddDate(0, 0, -60)
	run("default", statement(query{}), now.Add(-24*time.Hour), now, []time.Time{now.Add(-24 * time.Hour)}, 1000)
	q := query{by: []dimension{product}, top: 10}
	run("view 4MB", statement(q), from, now, []time.Time{from}, 10)
	s.exec(t, "set work_mem='64MB'")
	run("view 64MB", statement(q), from, now, []time.Time{from}, 10)
	s.exec(t, "set work_mem='4MB'")
	run("direct", `WITH s AS (SELECT width_bucket(cell, $3::timestamptz[]) - 1 AS period, product_code, currency, sum(lines)::bigint AS lines, sum(units)::bigint AS units, sum(gross_minor) AS gross, sum(cancelled_minor) AS cancelled
	 FROM millrace.cells WHERE cell >= $1 AND cell < $2 GROUP BY 1,2,3 HAVING sum(lines) <> 0) SELECT * from s LEFT JOIN millrace.products USING (product_code)`, from, now, []time.Time{from})
}
