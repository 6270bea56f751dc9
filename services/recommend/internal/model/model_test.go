package model

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func config() Config { return Config{HalfLife: 14 * 24 * time.Hour, Neighbours: 5, MaxLines: 1 << 20} }

// world is the truth: the latest image of everything, as a compacted topic would hold it.
type world struct {
	products map[string]schemas.Product
	orders   map[string]schemas.Order
	lines    map[string]schemas.Line
	seq      int64
}

func newWorld() *world {
	return &world{products: map[string]schemas.Product{}, orders: map[string]schemas.Order{}, lines: map[string]schemas.Line{}}
}

// step makes a random change and tells it to the builder.
func (w *world) step(r *rand.Rand, b *Builder) {
	w.seq++
	pick := func(n int) string { return fmt.Sprintf("%02d", r.IntN(n)) }
	switch r.IntN(12) {
	case 0, 1:
		stock := int64(r.IntN(4)) - 1
		p := schemas.Product{ProductCode: "p" + pick(25), Seq: w.seq, Category: "c" + pick(4), Hidden: r.IntN(8) == 0, Stock: &stock, Gone: r.IntN(12) == 0}
		w.products[p.ProductCode] = p
		b.Product(&p)
	case 2, 3, 4:
		customer := "k" + pick(6)
		o := schemas.Order{OrderID: "o" + pick(40), Seq: w.seq, PlacedAt: now.Add(-time.Duration(r.IntN(60*24)) * time.Hour), Cancelled: r.IntN(6) == 0,
			Gone: r.IntN(12) == 0, Country: []string{"France", "Japan", "unknown"}[r.IntN(3)], CustomerKey: &customer}
		w.orders[o.OrderID] = o
		b.Order(&o)
	case 5:
		for id := range w.orders {
			delete(w.orders, id)
			b.OrderGone(id)
			break
		}
	case 6:
		for id := range w.lines {
			delete(w.lines, id)
			b.LineGone(id)
			break
		}
	default: // often an existing line, moved to another order or product
		l := schemas.Line{LineID: "l" + pick(150), Seq: w.seq, OrderID: "o" + pick(40), ProductCode: "p" + pick(25), Units: int64(r.IntN(9)) - 2, Gone: r.IntN(10) == 0}
		if l.Gone {
			l.OrderID, l.ProductCode = "", ""
		}
		w.lines[l.LineID] = l
		b.Line(&l)
		old := l
		old.Seq, old.Units = l.Seq-1, 99
		b.Line(&old) // an older image never wins
	}
}

func (w *world) fromScratch(r *rand.Rand) *Builder {
	b := NewBuilder(config())
	var all []func()
	for _, p := range w.products {
		all = append(all, func() { b.Product(&p) })
	}
	for _, o := range w.orders {
		all = append(all, func() { b.Order(&o) })
	}
	for _, l := range w.lines {
		all = append(all, func() { b.Line(&l) })
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, f := range all {
		f()
	}
	return b
}

// describe writes a snapshot with codes for numbers, so that two can be compared.
func describe(s *Snapshot) map[string]string {
	d := map[string]string{}
	for i, c := range s.codes {
		if len(s.rows[i]) > 0 {
			var row string
			for _, n := range s.rows[i] {
				row += fmt.Sprintf("%s=%.6f ", s.codes[n.Item], n.Score)
			}
			d["row "+c] = row
		}
		if math.Abs(s.pop[i]) > 1e-12 {
			d["pop "+c] = fmt.Sprintf("%.9f", s.pop[i])
		}
	}
	for _, i := range s.popular {
		d["popular"] += s.codes[i] + " "
	}
	for c, list := range s.byCountry {
		for _, p := range list {
			d["country "+c] += fmt.Sprintf("%s=%.5f ", s.codes[p.Item], p.Score)
		}
	}
	for c, list := range s.byCategory {
		for _, i := range list {
			d["category "+c] += s.codes[i] + " "
		}
	}
	for _, m := range s.customers {
		for k, h := range m {
			d["customer "+k] = h.Country
			for _, x := range h.Items {
				d["customer "+k] += fmt.Sprintf(" %s:%d:%d", s.codes[x.Item], x.Orders, x.Day)
			}
		}
	}
	return d
}

// TestIncrementalEqualsFromScratch: after any history of edits, cancellations, moved lines and deletions the model is
// that of the final state read at once, in any order.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		w, b := newWorld(), NewBuilder(config())
		for range 600 {
			w.step(r, b)
			if r.IntN(10) == 0 {
				b.Publish(now.Add(-time.Duration(r.IntN(100))*time.Hour), r.IntN(60))
			}
		}
		got := describe(b.Publish(now, -1))
		if b.Changed() {
			t.Fatal("something is left to do after a publication without bound")
		}
		want := describe(w.fromScratch(r).Publish(now, -1))
		if !maps.Equal(got, want) {
			for k := range want {
				if got[k] != want[k] {
					t.Errorf("seed %d: %s: got %s, want %s", seed, k, got[k], want[k])
				}
			}
			for k := range got {
				if want[k] == "" {
					t.Errorf("seed %d: %s: got %s, want nothing", seed, k, got[k])
				}
			}
			t.FailNow()
		}
	}
}

// TestBoundedWorkConverges: small publications reach the state of a large one.
func TestBoundedWorkConverges(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	w, b := newWorld(), NewBuilder(config())
	for range 800 {
		w.step(r, b)
	}
	var s *Snapshot
	for n := 0; b.Changed(); n++ {
		if n > 1000 {
			t.Fatal("never done")
		}
		s = b.Publish(now, 50)
	}
	if !maps.Equal(describe(s), describe(w.fromScratch(r).Publish(now, -1))) {
		t.Error("not the state of a publication without bound")
	}
}

// TestNeverRecommended: whatever the catalogue and the question, no pick is out of stock, hidden, gone, in the cart,
// excluded, of another category, or there twice; and there is an answer if there is anything to recommend.
func TestNeverRecommended(t *testing.T) {
	var sc Scratch
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		w, b := newWorld(), NewBuilder(config())
		for range 50 + r.IntN(600) {
			w.step(r, b)
		}
		s := b.Publish(now, -1)
		for range 60 {
			codes := func(n int) (out []string) {
				for range r.IntN(n) {
					out = append(out, fmt.Sprintf("p%02d", r.IntN(28)))
				}
				return out
			}
			q := Query{Cart: codes(6), Viewed: codes(8), Exclude: codes(3), Limit: 1 + r.IntN(30), Customer: fmt.Sprintf("k%02d", r.IntN(8)),
				Country: []string{"", "France", "Mars"}[r.IntN(3)], Category: []string{"", "", "c01"}[r.IntN(3)]}
			picks, level := s.Rank(&q, &sc, nil)
			may := func(p schemas.Product) bool {
				return !p.Gone && !p.Hidden && *p.Stock > 0 && !slices.Contains(q.Cart, p.ProductCode) && !slices.Contains(q.Exclude, p.ProductCode) &&
					(q.Category == "" || p.Category == q.Category)
			}
			seen := map[string]bool{}
			for _, p := range picks {
				if !may(w.products[p.Code]) || seen[p.Code] || p.Reason == "" || math.IsNaN(p.Score) {
					t.Fatalf("seed %d: %+v was recommended for %+v", seed, p, q)
				}
				seen[p.Code] = true
			}
			possible := 0
			for _, p := range w.products {
				if may(p) {
					possible++
				}
			}
			// The product on the screen is the only other one that may be left out.
			if len(picks) > q.Limit || len(picks) < min(q.Limit, possible-1) || level == "" {
				t.Fatalf("seed %d: %d picks of %d possible for %+v", seed, len(picks), possible, q)
			}
			similar, _ := s.Similar("p01", q.Cart, q.Limit, &sc, nil)
			for i, p := range similar {
				if x := w.products[p.Code]; p.Code == "p01" || x.Gone || x.Hidden || *x.Stock <= 0 || slices.Contains(q.Cart, p.Code) || i > 0 && p.Score > similar[i-1].Score {
					t.Fatalf("seed %d: %+v was named similar", seed, p)
				}
			}
		}
		for i, m := range sc.state {
			if m != 0 || sc.terms[i] != [nTerms]float32{} {
				t.Fatal("the scratch was not cleaned")
			}
		}
	}
}

func ptr[T any](v T) *T { return &v }

// store is a small catalogue in which a, b and c are bought together, and d sells best.
func store() *Builder {
	b := NewBuilder(config())
	for _, c := range []string{"a", "b", "c", "d", "e"} {
		b.Product(&schemas.Product{ProductCode: c, Seq: 1, Category: "all"})
	}
	order := func(id, customer, country string, items ...string) {
		b.Order(&schemas.Order{OrderID: id, Seq: 1, PlacedAt: now.Add(-time.Hour), CustomerKey: &customer, Country: country})
		for _, c := range items {
			b.Line(&schemas.Line{LineID: id + c, Seq: 1, OrderID: id, ProductCode: c, Units: 1})
		}
	}
	for i := range 5 {
		order(fmt.Sprint("x", i), fmt.Sprint("k", i), "France", "a", "b", "c")
		order(fmt.Sprint("y", i), fmt.Sprint("m", i), "Japan", "d")
		order(fmt.Sprint("z", i), fmt.Sprint("n", i), "Japan", "d")
	}
	return b
}

func TestAnswersFollowTheShopper(t *testing.T) {
	s := store().Publish(now, -1)
	var sc Scratch
	cases := []struct {
		name          string
		q             Query
		first, reason string
		level         string
	}{
		{"nobody", Query{}, "d", ReasonPopular, LevelPopular},
		{"unknown", Query{Customer: "?", Country: "?", Viewed: []string{"?"}, Cart: []string{"?"}}, "d", ReasonPopular, LevelPopular},
		{"cart", Query{Cart: []string{"a", "b"}}, "c", ReasonCart, LevelSimilarity},
		{"session", Query{Viewed: []string{"b", "c"}}, "a", ReasonSession, LevelSimilarity},
		{"bought before", Query{Customer: "k1", Exclude: []string{"d"}}, "c", ReasonHistory, LevelSimilarity},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.q.Limit = 3
			picks, level := s.Rank(&c.q, &sc, nil)
			if len(picks) == 0 || picks[0].Code != c.first || picks[0].Reason != c.reason || level != c.level {
				t.Errorf("%+v at level %s, want %s for %s at %s", picks, level, c.first, c.reason, c.level)
			}
		})
	}
	picks, level := NewBuilder(config()).Publish(now, -1).Rank(&Query{Limit: 5}, &sc, nil)
	if len(picks) != 0 || level != LevelPopular {
		t.Errorf("an empty catalogue answered %v at %s", picks, level)
	}
}

func TestReturnsSubtract(t *testing.T) {
	b := store()
	b.Order(&schemas.Order{OrderID: "return", Seq: 1, PlacedAt: now})
	b.Line(&schemas.Line{LineID: "return", Seq: 1, OrderID: "return", ProductCode: "d", Units: -9})
	picks, _ := b.Publish(now, -1).Rank(&Query{Limit: 1}, new(Scratch), nil)
	if picks[0].Code == "d" {
		t.Error("what was sent back still sells best")
	}
}

func TestTrimForgetsTheOldest(t *testing.T) {
	cfg := config()
	cfg.MaxLines = 100
	b := NewBuilder(cfg)
	for i := range 200 {
		id := fmt.Sprint(i)
		b.Order(&schemas.Order{OrderID: id, Seq: 1, PlacedAt: now.Add(time.Duration(i) * time.Hour), CustomerKey: ptr("k" + id), Country: "France"})
		b.Line(&schemas.Line{LineID: id, Seq: 1, OrderID: id, ProductCode: "p" + id, Units: 1})
		b.Trim()
	}
	s := b.Publish(now, -1)
	if n := b.Size(); n.Lines > 100 || n.Lines < 90 || n.Orders != n.Lines || n.Customers != n.Lines {
		t.Errorf("kept %+v", n)
	}
	if i := s.byCode["p0"]; s.pop[i] != 0 {
		t.Error("the oldest order still counts")
	}
	b.Order(&schemas.Order{OrderID: "0", Seq: 2, PlacedAt: now})
	if _, ok := b.orders["0"]; ok {
		t.Error("a forgotten order came back")
	}
}

func TestTrimForgetsOrphansFirst(t *testing.T) {
	cfg := config()
	cfg.MaxLines = 100
	b := NewBuilder(cfg)
	for i := range 50 {
		id := fmt.Sprint("orphan", i)
		b.Line(&schemas.Line{LineID: id, Seq: 1, OrderID: id, ProductCode: "p", Units: 1})
	}
	for range orphaned + 1 {
		b.Publish(now, -1)
	}
	for i := range 60 {
		id := fmt.Sprint(i)
		b.Order(&schemas.Order{OrderID: id, Seq: 1, PlacedAt: now})
		b.Line(&schemas.Line{LineID: id, Seq: 1, OrderID: id, ProductCode: "p", Units: 1})
	}
	b.Trim()
	b.Publish(now, -1)
	known := 0
	for _, o := range b.orders {
		if o.known {
			known++
		}
	}
	if known != 60 || len(b.lines) > 100 || len(b.orders) != len(b.lines) {
		t.Errorf("%d orders with a header, %d orders, %d lines", known, len(b.orders), len(b.lines))
	}
}

// big is a store of n products and orders of five, bought in clusters.
func big(n, orders int) *Snapshot { return build(n, orders).Publish(now, -1) }

func build(n, orders int) *Builder {
	r := rand.New(rand.NewPCG(1, 1))
	b := NewBuilder(Config{HalfLife: 14 * 24 * time.Hour, Neighbours: 50, MaxLines: 1 << 24})
	for i := range n {
		b.Product(&schemas.Product{ProductCode: fmt.Sprintf("S%05d", i), Seq: 1, Category: fmt.Sprint("c", i%20)})
	}
	for i := range orders {
		id := fmt.Sprint(i)
		b.Order(&schemas.Order{OrderID: id, Seq: 1, PlacedAt: now.Add(-time.Duration(r.IntN(90*24)) * time.Hour), CustomerKey: ptr(fmt.Sprint(r.IntN(1 + orders/5))), Country: fmt.Sprint("land", i%20)})
		base := r.IntN(n)
		for j := range 5 {
			b.Line(&schemas.Line{LineID: id + "|" + fmt.Sprint(j), Seq: 1, OrderID: id, ProductCode: fmt.Sprintf("S%05d", (base+r.IntN(40))%n), Units: 1})
		}
	}
	return b
}

// BenchmarkPublish measures a state of the model after one more order, all similar products included.
func BenchmarkPublish(b *testing.B) {
	m := build(10_000, 100_000)
	m.Publish(now, -1)
	n := 0
	for b.Loop() {
		n++
		id := fmt.Sprint("new", n)
		m.Order(&schemas.Order{OrderID: id, Seq: 1, PlacedAt: now, CustomerKey: ptr("1"), Country: "land1"})
		for j := range 5 {
			m.Line(&schemas.Line{LineID: id + "|" + fmt.Sprint(j), Seq: 1, OrderID: id, ProductCode: fmt.Sprintf("S%05d", (n+j)%10_000), Units: 1})
		}
		m.Publish(now, -1)
	}
}

// BenchmarkMemory measures what a line takes with all that follows from it.
func BenchmarkMemory(b *testing.B) {
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		m := build(10_000, 100_000)
		s := m.Publish(now, -1)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(m.Size().Lines), "B/line")
		b.ReportMetric(float64(m.Size().Bytes())/float64(m.Size().Lines), "estimated-B/line")
		runtime.KeepAlive(s)
	}
}

func BenchmarkRank(b *testing.B) {
	for _, n := range []int{110, 10_000} {
		s := big(n, 50_000)
		code := func(i int) string { return fmt.Sprintf("S%05d", i%n) }
		for _, c := range []struct {
			name string
			q    Query
		}{
			{"nobody", Query{Limit: 10}},
			{"session", Query{Limit: 10, Viewed: []string{code(7), code(900), code(44)}, Cart: []string{code(11), code(12)}, Customer: "17", Country: "land3"}},
		} {
			b.Run(fmt.Sprintf("items=%d/%s", n, c.name), func(b *testing.B) {
				var sc Scratch
				var out []Pick
				b.ReportAllocs()
				for b.Loop() {
					out, _ = s.Rank(&c.q, &sc, out[:0])
				}
			})
		}
	}
}
