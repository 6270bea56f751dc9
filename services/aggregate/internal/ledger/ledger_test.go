package ledger

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/aggregate/internal/sales"
	"github.com/millrace-io/millrace/services/aggregate/internal/salestest"
)

var exponents = map[string]int{"JPY": 0, "KWD": 3}

const cluster = "cluster"

func open(t testing.TB, dsn, owner string, options ...func(*pgxpool.Config)) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), Options{URL: config.Secret(dsn), Owner: owner, Log: slog.New(slog.DiscardHandler), ZombieAfter: 200 * time.Millisecond}, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func image(t testing.TB, r salestest.Record) sales.Image {
	t.Helper()
	switch {
	case r.Order != nil:
		o, err := sales.OrderImage(*r.Order)
		must(t, err)
		return sales.Image{Order: &o}
	case r.Line != nil:
		l, err := sales.LineImage(*r.Line)
		must(t, err)
		return sales.Image{Line: &l}
	case r.Product != nil:
		p, err := sales.ProductImage(*r.Product)
		must(t, err)
		return sales.Image{Product: &p}
	default:
		return sales.Image{}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// topicLog is what Kafka would hold: records by partition, each with the next offset.
type topicLog struct {
	records []Record
	ends    map[Partition]int64
}

func logOf(t testing.TB, history []salestest.Record) *topicLog {
	t.Helper()
	l := &topicLog{ends: map[Partition]int64{}}
	for _, r := range history {
		topic := schemas.SalesLines
		switch {
		case r.Order != nil:
			topic = schemas.SalesOrders
		case r.Product != nil:
			topic = schemas.SalesProducts
		}
		h := fnv.New32()
		_, _ = h.Write([]byte(r.Key()))
		p := Partition{topic, int32(h.Sum32() % 2)}
		l.records = append(l.records, Record{Partition: p, Offset: l.ends[p], Image: image(t, r)})
		l.ends[p]++
	}
	return l
}

// batchesFrom cuts what lies at or after the claims' positions into batches, as a consumer with those partitions
// would get them.
func (l *topicLog) batchesFrom(claims map[Partition]*Claim, size func() int) []Batch {
	var mine []Record
	for _, r := range l.records {
		if c := claims[r.Partition]; c != nil && r.Offset >= c.Next {
			mine = append(mine, r)
		}
	}
	next := map[Partition]int64{}
	for p, c := range claims {
		next[p] = c.Next
	}
	var out []Batch
	for len(mine) > 0 {
		b := Batch{Records: mine[:min(len(mine), size())]}
		mine = mine[len(b.Records):]
		to := map[Partition]int64{}
		for _, r := range b.Records {
			to[r.Partition] = r.Offset + 1
		}
		for p, end := range to {
			b.Spans = append(b.Spans, Span{*claims[p], next[p], end})
			next[p] = end
		}
		out = append(out, b)
	}
	return out
}

func claimAll(t testing.TB, l *Ledger, parts map[Partition]int64) map[Partition]*Claim {
	t.Helper()
	out := map[Partition]*Claim{}
	for p := range parts {
		c, err := l.Claim(t.Context(), p, Origin{cluster, "id-" + p.Topic})
		must(t, err)
		out[p] = &c
	}
	return out
}

func noReject(context.Context, Record, error) error { return errors.New("a record was refused") }

func patient() Guard { return Guard{Reject: noReject, Waiting: func(error) error { return nil }} }

// totals reads the cells as the model shows them.
func totals(t testing.TB, pool *pgxpool.Pool) map[salestest.Key]salestest.Totals {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		SELECT cell, region, country, product_code, currency, 0, 0, sum(lines)::bigint, sum(cancelled_lines)::bigint, sum(units)::bigint,
		       sum(cancelled_units)::bigint, sum(gross_minor)::bigint, sum(cancelled_minor)::bigint
		FROM millrace.cells GROUP BY 1, 2, 3, 4, 5
		UNION ALL
		SELECT cell, region, country, $1, currency, sum(orders)::bigint, sum(cancelled_orders)::bigint, 0, 0, 0, 0, 0, 0
		FROM millrace.order_cells GROUP BY 1, 2, 3, 4, 5`, salestest.OrdersRow)
	must(t, err)
	defer rows.Close()
	out := map[salestest.Key]salestest.Totals{}
	for rows.Next() {
		var k salestest.Key
		var v salestest.Totals
		var cell time.Time
		must(t, rows.Scan(&cell, &k.Region, &k.Country, &k.Product, &k.Currency, &v.Orders, &v.CancelledOrders, &v.Lines, &v.CancelledLines,
			&v.Units, &v.CancelledUnits, &v.Gross, &v.Cancelled))
		k.Quarter = cell.Unix()
		if v != (salestest.Totals{}) {
			out[k] = v
		}
	}
	must(t, rows.Err())
	return out
}

// check compares the totals with the model's and runs verify.
func check(t testing.TB, l *Ledger, m *salestest.Model) {
	t.Helper()
	got, want := totals(t, l.pool), m.Totals(exponents)
	for k, v := range want {
		if got[k] != v {
			t.Fatalf("%v: got %+v, want %+v", k, got[k], v)
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok {
			t.Fatalf("%v: got %+v, want nothing", k, v)
		}
	}
	waiting, err := l.Waiting(t.Context())
	must(t, err)
	if waiting != m.Waiting() {
		t.Fatalf("%d lines wait, want %d", waiting, m.Waiting())
	}
	v, err := l.Verify(t.Context(), 3)
	must(t, err)
	if v.Found != 0 {
		t.Fatalf("verify finds %d differences, such as %v", v.Found, v.Differences)
	}
}

func counted(t testing.TB, l *Ledger) (in, applied int64) {
	t.Helper()
	must(t, l.pool.QueryRow(t.Context(), `SELECT coalesce(sum(applied + unchanged + superseded + duplicate + quarantined), 0)::bigint,
		coalesce(sum(applied), 0)::bigint FROM millrace.sink_counters`).Scan(&in, &applied))
	return in, applied
}

func truncate(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `TRUNCATE millrace.cells, millrace.order_cells, millrace.ledger_lines, millrace.ledger_orders,
		millrace.products, millrace.sink_partition, millrace.sink_counters, millrace.sink_progress`)
	must(t, err)
}

func TestTotalsEqualTheModel(t *testing.T) {
	t.Parallel()
	pool, dsn := emptySales(t)
	for seed := range uint64(25) {
		truncate(t, pool)
		l := open(t, dsn, "a")
		history := salestest.History(seed, 160)
		log := logOf(t, history)
		rng := rand.New(rand.NewPCG(seed, 3))
		for _, b := range log.batchesFrom(claimAll(t, l, log.ends), func() int { return 1 + rng.IntN(50) }) {
			_, err := l.Write(t.Context(), b, patient())
			must(t, err)
		}
		m := salestest.NewModel()
		m.See(history...)
		check(t, l, m)
		in, _ := counted(t, l)
		if in != int64(len(history)) {
			t.Fatalf("seed %d: %d records are counted, %d came in", seed, in, len(history))
		}
		// The whole again: nothing moves.
		_, err := l.Reset(t.Context(), false)
		must(t, err)
		_, before := counted(t, l)
		for _, b := range log.batchesFrom(claimAll(t, l, log.ends), func() int { return 60 }) {
			_, err := l.Write(t.Context(), b, patient())
			must(t, err)
		}
		check(t, l, m)
		if _, after := counted(t, l); after != before {
			t.Fatalf("seed %d: a replay applied %d records", seed, after-before)
		}
		l.Close()
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	_, dsn := emptySales(t)
	l := open(t, dsn, "a")
	p := Partition{schemas.SalesOrders, 1}
	c, err := l.Claim(t.Context(), p, Origin{cluster, "one"})
	must(t, err)
	if c.Epoch != 1 || c.Next != 0 || c.Moved || c.TopicID != "one" {
		t.Fatalf("first claim: %+v", c)
	}
	log := logOf(t, []salestest.Record{{Order: &schemas.Order{OrderID: "1", Seq: 1, PlacedAt: time.Now()}}})
	log.records[0].Partition = p
	_, err = l.Write(t.Context(), Batch{log.records, []Span{{c, 0, 1}}}, patient())
	must(t, err)
	if c, err = l.Claim(t.Context(), p, Origin{cluster, "two"}); err != nil || c.Next != 1 || c.TopicID != "one" {
		t.Fatalf("the stored topic id and position should come back, got %+v, %v", c, err)
	}
	must(t, l.Stop(t.Context(), c, "because"))
	if _, err := l.Write(t.Context(), Batch{log.records, []Span{{c, 1, 2}}}, patient()); !errors.Is(err, ErrFenced) {
		t.Errorf("a stopped partition was written: %v", err)
	}
	if c, err = l.Claim(t.Context(), p, Origin{cluster, "two"}); err != nil || c.Stopped != "because" {
		t.Fatalf("a stopped partition stays stopped, got %+v, %v", c, err)
	}
	parts, err := l.Reset(t.Context(), true)
	if err != nil || len(parts) != 1 || parts[0] != p {
		t.Fatalf("reset: %v, %v", parts, err)
	}
	if c, err = l.Claim(t.Context(), p, Origin{cluster, "two"}); err != nil || c.Stopped != "" || c.Next != 0 || c.TopicID != "two" {
		t.Fatalf("after a reset: %+v, %v", c, err)
	}
	if c, err = l.Claim(t.Context(), p, Origin{"another", "three"}); err != nil || !c.Moved || c.Next != 0 || c.TopicID != "three" {
		t.Fatalf("another cluster: %+v, %v", c, err)
	}
}

func TestRefusedRecordsAreFound(t *testing.T) {
	t.Parallel()
	_, dsn := emptySales(t)
	l := open(t, dsn, "a")
	var history []salestest.Record
	for i := range 40 {
		history = append(history, salestest.Record{Line: &schemas.Line{LineID: fmt.Sprint("line ", i), Seq: int64(i + 1), OrderID: "1", Units: 1, UnitPrice: "1"}})
	}
	good := append([]salestest.Record{{Order: &schemas.Order{OrderID: "1", Seq: 1, PlacedAt: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), Country: "FR", Region: "EMEA", Currency: "EUR"}}}, history...)
	history[3].Line.ProductCode = "\x00"
	history[30].Line.ProductCode = "\xff"
	history = append(history, good[0])
	log := logOf(t, history)
	var refused []int64
	g := Guard{Waiting: func(err error) error { return err }, Reject: func(_ context.Context, r Record, reason error) error {
		refused = append(refused, r.Image.Line.Version.Seq)
		return nil
	}}
	for _, b := range log.batchesFrom(claimAll(t, l, log.ends), func() int { return 100 }) {
		done, err := l.Write(t.Context(), b, g)
		must(t, err)
		var sum int64
		for _, counts := range done.Tally {
			for _, n := range counts {
				sum += n
			}
		}
		if sum != int64(len(history)) {
			t.Errorf("%d outcomes for %d records", sum, len(history))
		}
	}
	if fmt.Sprint(refused) != "[4 31]" && fmt.Sprint(refused) != "[31 4]" {
		t.Errorf("refused were %v, want 4 and 31", refused)
	}
	m := salestest.NewModel()
	m.See(append(good[1:4:4], append(append(good[5:31:31], good[32:]...), good[0])...)...)
	check(t, l, m)
}

func TestVerifyFindsDifferences(t *testing.T) {
	t.Parallel()
	pool, dsn := emptySales(t)
	l := open(t, dsn, "a")
	history := salestest.History(3, 200)
	log := logOf(t, history)
	for _, b := range log.batchesFrom(claimAll(t, l, log.ends), func() int { return 200 }) {
		_, err := l.Write(t.Context(), b, patient())
		must(t, err)
	}
	for where, damage := range map[string]string{
		"line":       `UPDATE millrace.ledger_lines SET unit_price = unit_price + 1 WHERE line_id = (SELECT line_id FROM millrace.ledger_lines WHERE c_cell IS NOT NULL AND units <> 0 LIMIT 1)`,
		"order":      `UPDATE millrace.ledger_orders SET c_cancelled = NOT c_cancelled WHERE order_id = (SELECT order_id FROM millrace.ledger_orders WHERE c_cell IS NOT NULL LIMIT 1)`,
		"cell":       `UPDATE millrace.cells SET gross_minor = gross_minor + 1 WHERE ctid = (SELECT ctid FROM millrace.cells LIMIT 1)`,
		"order cell": `DELETE FROM millrace.order_cells WHERE ctid = (SELECT ctid FROM millrace.order_cells WHERE orders > 0 LIMIT 1)`,
	} {
		_, err := pool.Exec(t.Context(), damage)
		must(t, err)
		v, err := l.Verify(t.Context(), 5)
		must(t, err)
		found := false
		for _, d := range v.Differences {
			found = found || d.Where == where
		}
		if !found {
			t.Errorf("a damaged %s was not found: %v", where, v.Differences)
		}
	}
}

func TestViews(t *testing.T) {
	t.Parallel()
	pool, dsn := emptySales(t)
	l := open(t, dsn, "a")
	at := time.Date(2026, 3, 1, 10, 40, 0, 0, time.UTC)
	order := func(id, currency string, cancelled bool) salestest.Record {
		return salestest.Record{Order: &schemas.Order{OrderID: id, Seq: 1, PlacedAt: at, Cancelled: cancelled, Country: "FR", Region: "EMEA", Currency: currency}}
	}
	line := func(id, order, product, price string, units int64) salestest.Record {
		return salestest.Record{Line: &schemas.Line{LineID: id, Seq: 1, OrderID: order, ProductCode: product, Units: units, UnitPrice: price}}
	}
	history := []salestest.Record{
		order("1", "EUR", false), order("2", "EUR", true), order("3", "JPY", false), order("4", "KWD", false),
		line("1", "1", "S1", "10.50", 2), line("2", "2", "S1", "3", 3), line("3", "1", "S1", "1.25", -1), line("4", "3", "S2", "150", 1), line("5", "4", "S9", "1.2345", 1),
		{Product: &schemas.Product{ProductCode: "S1", Seq: 1, Name: "Ford", Category: "Cars"}},
		{Product: &schemas.Product{ProductCode: "S2", Seq: 1, Name: "Titanic", Category: "Ships"}},
		line("6", "1", "S3", "7", 1), {Line: &schemas.Line{LineID: "6", Seq: 2, Gone: true}},
	}
	log := logOf(t, history)
	for _, b := range log.batchesFrom(claimAll(t, l, log.ends), func() int { return 100 }) {
		_, err := l.Write(t.Context(), b, patient())
		must(t, err)
	}
	for sql, want := range map[string]string{
		`SELECT string_agg(concat_ws(' ', to_char(hour, 'HH24:MI'), region, country, category, product_code, product_name, currency, lines, units, gross, net, cancelled, cancelled_lines, cancelled_units), '; ' ORDER BY product_code) FROM millrace.sales_hourly`: "10:00 EMEA FR Cars S1 Ford EUR 3 4 28.75 19.75 9.00 1 3; 10:00 EMEA FR Ships S2 Titanic JPY 1 1 150 150 0 0 0; 10:00 EMEA FR unknown S9 unknown KWD 1 1 1.235 1.235 0.000 0 0",
		`SELECT string_agg(concat_ws(' ', to_char(hour, 'HH24:MI'), region, country, currency, orders, cancelled_orders), '; ' ORDER BY currency) FROM millrace.sales_orders_hourly`:                                                                                 "10:00 EMEA FR EUR 2 1; 10:00 EMEA FR JPY 1 0; 10:00 EMEA FR KWD 1 0",
		`SELECT string_agg(DISTINCT to_char(quarter, 'HH24:MI'), ' ') FROM millrace.sales_quarter_hourly`:                                                                                                                                                            "10:30",
		`SELECT string_agg(DISTINCT to_char(quarter, 'HH24:MI'), ' ') FROM millrace.sales_orders_quarter_hourly`:                                                                                                                                                     "10:30",
	} {
		var got string
		conn, err := pool.Acquire(t.Context())
		must(t, err)
		_, err = conn.Exec(t.Context(), `SET timezone = 'UTC'`)
		must(t, err)
		err = conn.QueryRow(t.Context(), sql).Scan(&got)
		conn.Release()
		must(t, err)
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", sql, got, want)
		}
	}
}

func TestProgressNeverGoesBack(t *testing.T) {
	t.Parallel()
	pool, dsn := emptySales(t)
	l := open(t, dsn, "a")
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	must(t, l.SetProgress(t.Context(), Progress{at, 0x1_0000_0000, []string{"store.t"}}))
	must(t, l.SetProgress(t.Context(), Progress{at.Add(-time.Second), 1, nil}))
	var got string
	read := func() {
		must(t, pool.QueryRow(t.Context(), `SELECT concat_ws(' ', sink, to_char(valid_through AT TIME ZONE 'UTC', 'HH24:MI:SS'), source_lsn, incomplete) FROM millrace.sales_progress`).Scan(&got))
	}
	if read(); got != "postgres 10:00:00 1/0 {store.t}" {
		t.Errorf("got %q", got)
	}
	must(t, l.SetProgress(t.Context(), Progress{at.Add(time.Second), 0x1_0000_0001, nil}))
	if read(); got != "postgres 10:00:01 1/1 {}" {
		t.Errorf("got %q", got)
	}
}
