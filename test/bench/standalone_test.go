//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/test/harness"
)

// demoStore is standalone with its demo store, on free ports.
type demoStore struct {
	*harness.Process
	store     *pgxpool.Pool
	customers []int
	products  []string
}

// benchStandalone measures what a person sees: the first number after the start, and the number after a commit.
func benchStandalone(t *testing.T, r *report) {
	missing(t, "standalone")
	r.note("load average at the start: %s", loadAverage())
	pgtest.Installation(t) // the binaries are cached
	begin := time.Now()
	d := startDemo(t)
	harness.Eventually(t, 90*time.Second, func() bool { return d.lines("", begin.Add(-24*time.Hour)) > 0 },
		func() string { return "no number on the dashboard:\n" + d.Tail(30) })
	first := time.Since(begin)
	r.limit(t, "standalone: start to the first number on the dashboard", round(first), "20s", first < 20*time.Second)
	d.Ready(t, time.Minute)
	harness.Eventually(t, 2*time.Minute, func() bool { return d.sales("", begin).age() < 3*time.Second },
		func() string { return "the numbers do not get fresh:\n" + d.Tail(30) })
	r.tell(t, "standalone: start to fresh numbers, the history in", round(time.Since(begin)))
	d.open(t)

	idle := d.Resident()
	cpu, at := d.CPU(), time.Now()
	d.visible(t, r, "at the demo rate", 0)
	r.tell(t, "standalone: processor at the demo rate, without PostgreSQL", fmt.Sprintf("%.0f %% of a core", 100*(d.CPU()-cpu).Seconds()/time.Since(at).Seconds()))
	d.visible(t, r, "at 500 order lines/s", 500)
	r.tell(t, "standalone: memory of the process, after start and at most", fmt.Sprintf("%d and %d MiB", idle, d.Memory()))
}

func startDemo(t *testing.T) *demoStore {
	t.Helper()
	args := []string{"--data-dir", pgtest.Dir(t)}
	d := &demoStore{}
	var primary string
	for _, part := range []string{"kafka", "registry", "primary", "standby", "sales"} {
		_, port, err := net.SplitHostPort(harness.FreeAddress(t))
		if err != nil {
			t.Fatal(err)
		}
		if part == "primary" {
			primary = port
		}
		args = append(args, "--embedded-"+part+"-port", port)
	}
	d.Process = harness.Start(t, "standalone", nil, args...)
	var err error
	if d.store, err = pgxpool.New(t.Context(), "postgres://postgres@127.0.0.1:"+primary+"/store?sslmode=disable"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.store.Close)
	return d
}

// probe is a product that only the measurement sells.
const probe = "BENCH_PROBE"

// open prepares the store for orders.
func (d *demoStore) open(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	rows, err := d.store.Query(ctx, "SELECT customer_number FROM customers")
	if err != nil {
		t.Fatal(err)
	}
	if d.customers, err = pgx.CollectRows(rows, pgx.RowTo[int]); err != nil {
		t.Fatal(err)
	}
	if rows, err = d.store.Query(ctx, "SELECT product_code FROM products"); err != nil {
		t.Fatal(err)
	}
	if d.products, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		t.Fatal(err)
	}
	if _, err := d.store.Exec(ctx, `INSERT INTO products SELECT $1, 'bench probe', product_line, product_scale, product_vendor, '', 1000000, 1, 1, true FROM products LIMIT 1`, probe); err != nil {
		t.Fatal(err)
	}
}

// order commits an order of the products.
func (d *demoStore) order(ctx context.Context, products ...string) error {
	_, err := d.store.Exec(ctx, `WITH o AS (INSERT INTO orders (ordered_at, required_date, status, customer_number, currency)
			VALUES (now(), current_date + 7, 'In Process', $1, 'USD') RETURNING order_number)
		INSERT INTO order_details SELECT order_number, code, 1, 9.95, n FROM o, unnest($2::text[]) WITH ORDINALITY AS p(code, n)`,
		d.customers[rand.IntN(len(d.customers))], products)
	return err
}

// visible commits an order ten times a second and measures until the dashboard counts it; beside it runs a load.
func (d *demoStore) visible(t *testing.T, r *report, what string, linesPerSecond int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	if linesPerSecond > 0 {
		const perOrder = 5
		n := linesPerSecond / perOrder * 60 // more than are taken: the context ends it
		load.Go(func() {
			steady(ctx, n, linesPerSecond/perOrder, 4, func(i int) {
				at := i * perOrder % (len(d.products) - perOrder)
				if err := d.order(ctx, d.products[at:at+perOrder]...); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			})
		})
	}
	duration := span(15*time.Second, 6*time.Second)
	var mu sync.Mutex
	var commits, seen []time.Time
	from := time.Now().Add(-2 * time.Hour)
	before := d.lines(probe, from)
	n := int(duration.Seconds() * 10)
	var watch sync.WaitGroup
	watch.Go(func() {
		for deadline := time.Now().Add(duration + 30*time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { // the resolution
			now := int(d.lines(probe, from) - before)
			mu.Lock()
			for len(seen) < now {
				seen = append(seen, time.Now())
			}
			mu.Unlock()
			if now >= n {
				return
			}
		}
	})
	steady(ctx, n, 10, 1, func(int) {
		if err := d.order(ctx, probe); err != nil {
			t.Error(err)
		}
		mu.Lock()
		commits = append(commits, time.Now())
		mu.Unlock()
	})
	watch.Wait()
	cancel()
	load.Wait()
	if len(seen) < n {
		t.Fatalf("%d of %d orders came to the dashboard\n%s", len(seen), n, d.Tail(30))
	}
	var took []time.Duration
	for i := range n {
		took = append(took, max(0, seen[i].Sub(commits[i])))
	}
	worst := slices.Index(took, slices.Max(took))
	t.Logf("%s: the slowest, %s, was number %d of %d", what, round(took[worst]), worst+1, n)
	p99 := quantile(took, 0.99)
	r.limit(t, "commit → number on the dashboard, "+what, fmt.Sprintf("p50 %s, p99 %s", round(quantile(took, 0.5)), round(p99)), "2s p99", p99 < 2*time.Second)
	if p99 >= 2*time.Second {
		t.Errorf("commit → number on the dashboard, %s: p99 %v", what, p99)
	}
}

// salesAnswer is what the dashboard says.
type salesAnswer struct {
	Rows []struct {
		Lines int64 `json:"lines"`
	} `json:"rows"`
	ValidThrough time.Time `json:"valid_through"`
}

// age is how far the numbers are behind; very far when there are none.
func (a salesAnswer) age() time.Duration { return time.Since(a.ValidThrough) }

// lines is what the dashboard counts, of one product or of all.
func (d *demoStore) lines(product string, from time.Time) (sum int64) {
	for _, row := range d.sales(product, from).Rows {
		sum += row.Lines
	}
	return sum
}

// sales asks the dashboard; the answer is empty when there is none.
func (d *demoStore) sales(product string, from time.Time) salesAnswer {
	query := url.Values{"from": {from.UTC().Format(time.RFC3339)}}
	if product != "" {
		query.Set("product", product)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.Addr+"/v1/sales?"+query.Encode(), nil)
	if err != nil {
		return salesAnswer{}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return salesAnswer{}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	var answer salesAnswer
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(body, &answer) != nil {
		return salesAnswer{}
	}
	return answer
}
