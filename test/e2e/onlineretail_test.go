//go:build e2e

package e2e

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/xi2/xz"

	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/test/harness"
)

const retailTables = `
CREATE TABLE items (stock_code text PRIMARY KEY, description text NOT NULL);
CREATE TABLE invoices (invoice_no text PRIMARY KEY, invoice_date timestamp NOT NULL, customer_id text, country text NOT NULL);
CREATE TABLE invoice_lines (id bigint PRIMARY KEY, invoice_no text NOT NULL, stock_code text NOT NULL, quantity int NOT NULL, unit_price numeric NOT NULL);
CREATE PUBLICATION millrace FOR TABLE items, invoices, invoice_lines;
`

// retailCells rounds each line once, half away from zero, as PostgreSQL's round does for numeric.
const retailCells = `
SELECT to_char(date_trunc('hour', i.invoice_date), 'YYYY-MM-DD HH24'), 'unknown', i.country, 'unknown', l.stock_code, p.description, 'GBP',
       count(*), sum(l.quantity), round(sum(round(l.quantity * l.unit_price, 2)), 4), round(sum(round(l.quantity * l.unit_price, 2)), 4), round(0, 4)
  FROM invoice_lines l JOIN invoices i USING (invoice_no) JOIN items p USING (stock_code)
 GROUP BY 1, i.country, l.stock_code, p.description`

const retailOrders = `
SELECT to_char(date_trunc('hour', invoice_date), 'YYYY-MM-DD HH24'), 'unknown', country, 'GBP', count(*), 0 FROM invoices GROUP BY 1, country`

type invoice struct {
	header []any // of table invoices
	lines  [][]any
}

// retail reads the data set: 541,909 lines as 25,900 invoices, in the order of the file.
func retail(t *testing.T) (items [][]any, invoices []*invoice) {
	t.Helper()
	f, err := os.Open(data(t, "online_retail/online_retail.csv.xz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	x, err := xz.NewReader(f, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(x)
	if _, err := r.Read(); err != nil {
		t.Fatal(err)
	}
	seen, names := map[string]*invoice{}, map[string]string{}
	lines := int64(0)
	for {
		row, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		no, code := row[0], row[1]
		if names[code] == "" {
			names[code] = row[2]
		}
		inv := seen[no]
		if inv == nil {
			var customer any
			if row[6] != "" {
				customer = strings.TrimSuffix(row[6], ".0")
			}
			at, err := time.Parse("2006-01-02 15:04:05", row[4])
			if err != nil {
				t.Fatal(err)
			}
			inv = &invoice{header: []any{no, at, customer, row[7]}}
			seen[no] = inv
			invoices = append(invoices, inv)
		}
		lines++
		inv.lines = append(inv.lines, []any{lines, no, code, row[3], row[5]})
	}
	for code, name := range names {
		if name == "" {
			name = code
		}
		items = append(items, []any{code, name})
	}
	if lines != 541_909 {
		t.Fatalf("the file has %d lines, not 541,909", lines)
	}
	return items, invoices
}

// write puts invoices into the primary at full speed, twenty to a transaction, and returns how many lines they had.
func (p *platform) write(t *testing.T, invoices []*invoice) int {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, p.primary.DSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	total := 0
	for part := range slices.Chunk(invoices, 20) {
		var heads, lines [][]any
		for _, inv := range part {
			heads = append(heads, inv.header)
			lines = append(lines, inv.lines...)
		}
		tx, err := conn.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"invoices"}, []string{"invoice_no", "invoice_date", "customer_id", "country"}, pgx.CopyFromRows(heads)); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"invoice_lines"}, []string{"id", "invoice_no", "stock_code", "quantity", "unit_price"}, pgx.CopyFromRows(lines)); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		total += len(lines)
	}
	return total
}

// Real input 2, by separate processes. The first half is measured undisturbed; during the second every program is
// killed twice.
func TestOnlineRetail(t *testing.T) {
	items, invoices := retail(t)
	p := newSource(t, retailTables)
	p.insertItems(t, items)
	all := []string{"cdc", "collect", "enrich", "aggregate", "recommend", "dashboard"}
	p.runProcesses(t, "online-retail", all...)
	p.measured(t, invoices[:len(invoices)/2])
	p.killed(t, invoices[len(invoices)/2:], all)
	p.retailEqual(t)
	for _, s := range p.programs {
		t.Logf("%-10s held at most %d MiB", s.Name, s.Memory())
	}
}

// The same in one process, killed as a whole twice.
func TestOnlineRetailStandalone(t *testing.T) {
	items, invoices := retail(t)
	p := newSource(t, retailTables)
	p.insertItems(t, items)
	p.runStandalone(t, "online-retail")
	p.measured(t, invoices[:len(invoices)/2])
	p.killed(t, invoices[len(invoices)/2:], []string{"standalone"})
	p.retailEqual(t)
	t.Logf("standalone held at most %d MiB", p.programs["standalone"].Memory())
}

func (p *platform) insertItems(t *testing.T, items [][]any) {
	t.Helper()
	if _, err := p.source.CopyFrom(t.Context(), pgx.Identifier{"items"}, []string{"stock_code", "description"}, pgx.CopyFromRows(items)); err != nil {
		t.Fatal(err)
	}
}

func (p *platform) retailEqual(t *testing.T) {
	t.Helper()
	p.quiet(t, 5*time.Minute)
	p.equal(t, "online retail", retailCells, salesCells)
	p.equal(t, "online retail, orders", retailOrders, salesOrders)
}

// measured writes at full speed and prints the rate through the whole pipeline and how long commits took to show.
func (p *platform) measured(t *testing.T, invoices []*invoice) {
	t.Helper()
	stop, seen := p.probe(t)
	begin := time.Now()
	lines := p.write(t, invoices)
	written := time.Since(begin)
	p.quiet(t, 5*time.Minute)
	through := time.Since(begin)
	stop()
	ms := <-seen
	slices.Sort(ms)
	if len(ms) == 0 {
		t.Fatal("no probe came through: nothing was measured")
	}
	t.Logf("%d lines written in %v (%.0f lines/s), in sales_hourly after %v (%.0f lines/s); commit→sales_hourly at full speed: p50 %v, p99 %v (%d probes)",
		lines, written.Round(time.Millisecond), float64(lines)/written.Seconds(), through.Round(time.Millisecond), float64(lines)/through.Seconds(),
		ms[len(ms)/2].Round(time.Millisecond), ms[len(ms)*99/100].Round(time.Millisecond), len(ms))
}

// probe commits an invoice of its own every 200 ms and notes when sales_hourly shows it. One question asks for all that
// are out, so that late ones do not make it later still.
func (p *platform) probe(t *testing.T) (stop func(), seen <-chan []time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan []time.Duration, 1)
	go func() {
		var took []time.Duration
		waiting := map[string]time.Time{}
		last := time.Time{}
		for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline) && (ctx.Err() == nil || len(waiting) > 0); {
			if ctx.Err() == nil && time.Since(last) >= 200*time.Millisecond {
				last = time.Now()
				id := fmt.Sprintf("probe-%d", last.UnixNano())
				sql := fmt.Sprintf(`INSERT INTO items VALUES ('%[1]s', 'probe'); INSERT INTO invoices VALUES ('%[1]s', '2012-01-01 10:00', NULL, 'Nowhere');
				INSERT INTO invoice_lines VALUES (%[2]d, '%[1]s', '%[1]s', 1, 1)`, id, -last.UnixNano())
				if _, err := p.source.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
					break
				}
				waiting[id] = time.Now()
			}
			time.Sleep(25 * time.Millisecond) // the resolution of the measurement
			rows, err := p.sales.Query(context.Background(), "SELECT product_code FROM millrace.sales_hourly WHERE hour = '2012-01-01 10:00Z' AND product_code = ANY ($1)",
				slices.Collect(maps.Keys(waiting)))
			if err != nil {
				continue
			}
			there, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				continue
			}
			for _, id := range there {
				took = append(took, time.Since(waiting[id]))
				delete(waiting, id)
			}
		}
		out <- took
	}()
	return cancel, out
}

// killed writes at full speed while each program is killed twice at random moments, and prints how long it took until
// the program committed something again.
func (p *platform) killed(t *testing.T, invoices []*invoice, victims []string) {
	t.Helper()
	done := make(chan int, 1)
	go func() { done <- p.write(t, invoices) }()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	list := append(slices.Clone(victims), victims...)
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for _, name := range list {
		wait := time.Duration(300+r.IntN(1700)) * time.Millisecond
		time.Sleep(wait) // a random moment
		before := p.committed(name)
		at := time.Now()
		p.programs[name].Kill(t)
		harness.Eventually(t, time.Minute, func() bool {
			now := p.committed(name)
			return now > 0 && now > before
		}, func() string { return name + " does not commit after kill -9:\n" + p.programs[name].Tail(30) })
		took := time.Since(at)
		t.Logf("%s killed: first commit %v after the kill", name, took.Round(10*time.Millisecond))
		if took > 10*time.Second {
			t.Errorf("%s took %v to commit after kill -9: more than 10 s", name, took)
		}
	}
	<-done
}

// committed is a number that grows when a program commits something; 0 when it cannot be read.
func (p *platform) committed(name string) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	switch name {
	case "cdc":
		return p.ends(ctx, schemas.CDCPosition)
	case "enrich":
		return p.ends(ctx, schemas.SalesOrders, schemas.SalesLines, schemas.Progress)
	case "collect":
		event := map[string]string{"session_id": "s", "action": "view", "product_code": "85123A"}
		return nowIf(postJSON("http://"+p.programs[name].Addr+"/v1/activity", event, nil) == http.StatusAccepted)
	case "recommend":
		return nowIf(getJSON("http://"+p.programs[name].Addr+"/v1/recommendations", nil) == http.StatusOK)
	case "dashboard":
		return nowIf(getJSON("http://"+p.programs[name].Addr+"/v1/sales", nil) == http.StatusOK)
	default:
		var n int64
		if err := p.sales.QueryRow(ctx, "SELECT coalesce(sum(next_offset), 0)::bigint FROM millrace.sink_partition").Scan(&n); err != nil {
			return 0
		}
		return n
	}
}

// nowIf is for programs that answer: answering again is what counts.
func nowIf(answered bool) int64 {
	if !answered {
		return 0
	}
	return time.Now().UnixNano()
}

func (p *platform) ends(ctx context.Context, topics ...string) int64 {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = p.brokers
	cl, err := cfg.Client("test", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return 0
	}
	defer cl.Close()
	var sum int64
	listed, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return 0
	}
	listed.Each(func(o kadm.ListedOffset) { sum += max(o.Offset, 0) })
	return sum
}
