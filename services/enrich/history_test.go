package enrich

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

// instanceEnv makes a process of this test binary an instance of the service: broker, registry, instance, session timeout.
const instanceEnv = "ENRICH_TEST_INSTANCE"

// TestInstance is not a test: it is the process that the test of histories kills.
func TestInstance(t *testing.T) {
	spec := strings.Split(os.Getenv(instanceEnv), " ")
	if len(spec) != 4 {
		t.Skip("runs only as a process of other tests")
	}
	w := &world{brokers: []string{spec[0]}, registry: spec[1]}
	cfg := DefaultConfig()
	var err error
	if cfg.SessionTimeout, err = time.ParseDuration(spec[3]); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, Deps{Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Kafka: w.kafka(spec[2]), Registry: w.avro(t), Keys: testKeys(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// process is an instance in a process of its own.
type process struct {
	cmd      *exec.Cmd
	expelled atomic.Int64 // how often the group gave it up while it lived
}

// historySession is the session timeout of those that come and go: an answer may take a second where a broker, two
// instances and a race detector share a busy processor.
const historySession = 3 * time.Second

func (w *world) spawn(t *testing.T, instance string) *process {
	t.Helper()
	return w.spawnWith(t, instance, historySession)
}

func (w *world) spawnWith(t *testing.T, instance string, session time.Duration) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestInstance$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %s", instanceEnv, w.brokers[0], w.registry, instance, session))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd}
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if strings.Contains(lines.Text(), "UNKNOWN_MEMBER_ID") {
				p.expelled.Add(1)
			}
			if testing.Verbose() {
				fmt.Fprintln(os.Stderr, instance, lines.Text())
			}
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// kill is kill -9; the process is gone when it returns.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone already
	_ = p.cmd.Wait()         // "killed" is what we want
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// store is a small demo store with a random life.
type store struct {
	rng  *rand.Rand
	src  *source
	rows map[string]map[string]bool // table → key → there
}

func pick[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

// step makes one change. Keys are few, so that they meet again and again.
func (s *store) step() {
	rng := s.rng
	table := pick(rng, "orders", "orders", "order_details", "order_details", "customers", "products", "employees", "offices", "ratings")
	var key string
	var row map[string]any
	n := 1 + rng.IntN(40)
	code := fmt.Sprint("P", 1+rng.IntN(12))
	word := func(of string) string { return fmt.Sprint(of, rng.IntN(5)) }
	switch table {
	case "orders":
		key = fmt.Sprint(n)
		row = orderRow(n, noon.Add(time.Duration(rng.IntN(1e6))*time.Second), pick(rng, "Shipped", "Cancelled"), pick[any](rng, nil, 1+rng.IntN(10), 1+rng.IntN(10)))
	case "order_details":
		key, row = fmt.Sprint(n, "|", code), lineRow(n, code, rng.IntN(20)-5, rng.Int64N(10000))
	case "customers":
		n = 1 + rng.IntN(10)
		key, row = fmt.Sprint(n), customerRow(n, word("Land"), pick[any](rng, nil, 1+rng.IntN(4)))
	case "products":
		key, row = code, productRow(code, word("Name"), word("Line"))
	case "employees":
		n = 1 + rng.IntN(4)
		key, row = fmt.Sprint(n), employeeRow(n, fmt.Sprint(1+rng.IntN(2)))
	case "offices":
		key = fmt.Sprint(1 + rng.IntN(2))
		row = officeRow(key, word("Region"))
	case "ratings":
		key, row = fmt.Sprint(n), map[string]any{"id": n}
	}
	op := "c"
	if s.rows[table] == nil {
		s.rows[table] = map[string]bool{}
	}
	if s.rows[table][key] {
		op = "u"
		if rng.IntN(5) == 0 {
			op = "d"
		}
	}
	s.rows[table][key] = op != "d"
	s.src.put(table, key, op, row)
}

// Whatever happens to two instances, the images are those of the source, in an order that compaction may fold, and no
// claim came too early.
func TestRandomHistories(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("ENRICH_TEST_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("ENRICH_TEST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t)
	src := newSource(t, w)
	st := &store{rng: rng, src: src, rows: map[string]map[string]bool{}}
	life, end := context.WithCancel(t.Context())
	defer end()
	fates := make(chan struct{})
	killer := rand.New(rand.NewPCG(seed, 2))
	instances := []*process{w.spawn(t, "a"), w.spawn(t, "b")}
	go func() { // instances come and go while the source goes on
		defer close(fates)
		for life.Err() == nil {
			select {
			case <-life.Done():
			case <-time.After(time.Duration(200+killer.IntN(1200)) * time.Millisecond):
				i := killer.IntN(2)
				if killer.IntN(3) == 0 {
					instances[i].stop()
				} else {
					instances[i].kill()
				}
				if killer.IntN(4) == 0 { // so long that the other takes over
					time.Sleep(historySession + time.Second/2)
				}
				instances[i] = w.spawn(t, []string{"a", "b"}[i])
			}
		}
	}()
	for begun := time.Now(); time.Since(begun) < 12*time.Second; {
		for range 1 + rng.IntN(30) {
			st.step()
		}
		if rng.IntN(8) == 0 { // given up by the source: nobody may see it, and it happens again
			again := append([]change(nil), src.open...)
			src.commit(false)
			src.open = again
		}
		src.commit(true)
		if rng.IntN(3) == 0 {
			src.claim()
		}
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond) // pace, not a wait
	}
	end()
	<-fates
	w.quietAmong(t, src, instances)
	t.Logf("%d records of the source", len(src.sent))
	checkImages(t, w, src)
	checkClaims(t, w, src)
}

// quietAmong is quiet on a machine that may be busy: one that lives and is expelled from the group did not get a
// processor for a whole session timeout; all begins again then, and so does the wait. There is an end to that.
func (w *world) quietAmong(t *testing.T, src *source, instances []*process) {
	t.Helper()
	src.claim()
	const limit, last = 30 * time.Second, 3 * time.Minute
	begun := time.Now()
	expelled, since := int64(0), begun
	for ; !w.reached(t, src, src.lsn); time.Sleep(10 * time.Millisecond) {
		now := int64(0)
		for _, p := range instances {
			now += p.expelled.Load()
		}
		if now > expelled {
			expelled, since = now, time.Now()
		}
		if time.Since(since) > limit || time.Since(begun) > last {
			t.Fatalf("waited %s in vain, %s of it in peace, for enrich to claim everything; the group expelled live instances %d times", time.Since(begun), time.Since(since), expelled)
		}
	}
	t.Logf("all is claimed after %s; the group expelled live instances %d times", time.Since(begun), expelled)
}

// last is the newest change of every row.
func last(all []sent, lsn int64) map[string]map[string]change {
	out := map[string]map[string]change{}
	for _, s := range all {
		if s.lsn > lsn {
			continue
		}
		if out[s.table] == nil {
			out[s.table] = map[string]change{}
		}
		out[s.table][s.key] = s.change
	}
	return out
}

const always = int64(1) << 62

func there(rows map[string]map[string]change, table, key string) (change, bool) {
	c, ok := rows[table][key]
	return c, ok && c.op != "d"
}

func unwrap(v any) any {
	if m, ok := v.(map[string]any); ok {
		for _, x := range m {
			return x
		}
	}
	return v
}

// complete tells whether every row that a customer's region is found by is there.
func complete(rows map[string]map[string]change, customer string) bool {
	c, ok := there(rows, "customers", customer)
	if !ok {
		return false
	}
	rep := unwrap(c.row["sales_rep_employee_number"])
	if rep == nil {
		return true
	}
	e, ok := there(rows, "employees", fmt.Sprint(rep))
	if ok {
		_, ok = there(rows, "offices", fmt.Sprint(unwrap(e.row["office_code"])))
	}
	return ok
}

func checkImages(t *testing.T, w *world, src *source) {
	t.Helper()
	rows := last(src.sent, always)
	had := map[string]map[string]bool{} // every value that a dimension ever had
	note := func(what, key string, v any) {
		if had[what+key] == nil {
			had[what+key] = map[string]bool{}
		}
		had[what+key][fmt.Sprint(unwrap(v))] = true
	}
	for _, s := range src.sent {
		note("country", s.key, s.row["country"])
		note("name", s.key, s.row["product_name"])
	}
	orders, lines := foldOrders(t, w), foldLines(t, w)
	if len(orders) != len(rows["orders"]) || len(lines) != len(rows["order_details"]) {
		t.Errorf("%d orders and %d lines, want %d and %d", len(orders), len(lines), len(rows["orders"]), len(rows["order_details"]))
	}
	for key, c := range rows["orders"] {
		o := orders[key]
		if o == nil || o.Seq != c.seq || o.Gone != (c.op == "d") {
			t.Errorf("order %s: %+v, want seq %d, op %s", key, o, c.seq, c.op)
			continue
		}
		if o.Gone {
			continue
		}
		customer := unwrap(c.row["customer_number"])
		if (customer == nil) != (o.CustomerKey == nil) || o.Status != unwrap(c.row["status"]) || !o.PlacedAt.Equal(unwrap(c.row["ordered_at"]).(time.Time)) {
			t.Errorf("order %s: %+v", key, o)
		}
		if customer == nil {
			continue
		}
		complete := complete(rows, fmt.Sprint(customer))
		if complete && (o.Country == schemas.Unknown || !had["country"+fmt.Sprint(customer)][o.Country]) {
			t.Errorf("order %s of customer %v: country %s", key, customer, o.Country)
		}
	}
	for key, c := range rows["order_details"] {
		l := lines[key]
		if l == nil || l.Seq != c.seq || l.Gone != (c.op == "d") {
			t.Errorf("line %s: %+v, want seq %d, op %s", key, l, c.seq, c.op)
			continue
		}
		if _, ok := there(rows, "products", c.row["product_code"].(string)); !l.Gone && ok && !had["name"+c.row["product_code"].(string)][l.ProductName] {
			t.Errorf("line %s: product %s", key, l.ProductName)
		}
	}
	for key, end := range waitingLeft(t, w) {
		for _, m := range end.Missing {
			table, k, _ := strings.Cut(strings.TrimPrefix(m, "public."), "/")
			if _, ok := there(rows, table, k); ok {
				t.Errorf("%s still waits for %s, which is there", key, m)
			}
		}
	}
	products := map[string]*schemas.Product{}
	for _, o := range readOf[schemas.Product](t, w, schemas.SalesProducts) {
		if p, ok := o.value.(*schemas.Product); ok {
			products[o.key] = p
		}
	}
	for key, c := range rows["products"] {
		if p := products[key]; p == nil || p.Seq != c.seq || p.Gone != (c.op == "d") || !p.Gone && (p.Name != unwrap(c.row["product_name"]) || *p.ListPrice != "9.95" || *p.Stock != 7) {
			t.Errorf("product %s: %+v", key, p)
		}
	}
}

func waitingLeft(t *testing.T, w *world) map[string]*schemas.Waiting {
	out := map[string]*schemas.Waiting{}
	for _, o := range readOf[schemas.Waiting](t, w, schemas.EnrichWaiting) {
		delete(out, o.key)
		if o.value != nil {
			out[o.key] = o.value.(*schemas.Waiting)
		}
	}
	return out
}

// checkClaims looks at every claim: what the source committed up to its position, by way of the partitions it covers,
// must stand before its ends, and what waited for a row that had come must be mended there.
func checkClaims(t *testing.T, w *world, src *source) {
	t.Helper()
	outputs := map[string][]output{schemas.SalesOrders: readOf[schemas.Order](t, w, schemas.SalesOrders), schemas.SalesLines: readOf[schemas.Line](t, w, schemas.SalesLines),
		schemas.SalesProducts: readOf[schemas.Product](t, w, schemas.SalesProducts)}
	claims := 0
	for _, o := range readOf[schemas.Claim](t, w, schemas.Progress) {
		c := o.value.(*schemas.Claim)
		if c.Stage != "enrich" {
			continue
		}
		claims++
		checkClaim(t, c, src, outputs)
	}
	t.Logf("%d claims", claims)
	if claims == 0 {
		t.Error("no claims")
	}
}

func checkClaim(t *testing.T, c *schemas.Claim, src *source, outputs map[string][]output) {
	t.Helper()
	covers, ends := map[schemas.Partition]bool{}, map[schemas.Partition]int64{}
	for _, p := range c.Covers {
		covers[p] = true
	}
	for _, e := range c.Ends {
		ends[schemas.Partition{Topic: e.Topic, Partition: e.Partition}] = e.Offset
	}
	newest := map[string]any{} // topic/key → newest image before the ends
	reach := map[schemas.Partition]int64{}
	for topic, all := range outputs {
		for _, o := range all {
			reach[o.partition] = o.offset + 1
			if o.offset < ends[o.partition] && o.value != nil {
				newest[topic+"/"+o.key] = o.value
			}
		}
	}
	for p, end := range ends {
		if end > reach[p] {
			t.Errorf("a claim of %s at %d: end %d of %v/%d is behind the last record's %d: no reader would ever be there", c.Instance, c.SourceLSN, end, p.Topic, p.Partition, reach[p])
		}
	}
	rows := last(src.sent, c.SourceLSN)
	deleted := map[string]bool{}
	for _, s := range src.sent {
		deleted[s.table+"/"+s.key] = deleted[s.table+"/"+s.key] || s.op == "d"
	}
	for _, s := range src.sent {
		topic := map[string]string{"orders": schemas.SalesOrders, "order_details": schemas.SalesLines, "products": schemas.SalesProducts}[s.table]
		if topic == "" || s.lsn > c.SourceLSN || !covers[s.partition] || rows[s.table][s.key].seq != s.seq {
			continue
		}
		var seq int64
		switch img := newest[topic+"/"+s.key].(type) {
		case *schemas.Order:
			seq = img.Seq
			customer := unwrap(s.row["customer_number"])
			if seq == s.seq && !img.Gone && customer != nil && !deleted["customers/"+fmt.Sprint(customer)] {
				if _, ok := there(rows, "customers", fmt.Sprint(customer)); ok && img.Country == schemas.Unknown {
					t.Errorf("a claim of %s at %d: order %s is not mended", c.Instance, c.SourceLSN, s.key)
				}
			}
		case *schemas.Line:
			seq = img.Seq
			code := s.row["product_code"].(string)
			if _, ok := there(rows, "products", code); ok && seq == s.seq && !img.Gone && !deleted["products/"+code] && img.ProductName == schemas.Unknown {
				t.Errorf("a claim of %s at %d: line %s is not mended", c.Instance, c.SourceLSN, s.key)
			}
		case *schemas.Product:
			seq = img.Seq
		}
		if seq < s.seq {
			t.Errorf("a claim of %s at %d: %s %s is at %d, not at %d", c.Instance, c.SourceLSN, s.table, s.key, seq, s.seq)
		}
	}
}

// One that was killed is back at work in less than five seconds, with the session timeout as it comes, because it has
// its partitions at once; and an image is on its way in milliseconds.
func TestBackAtWork(t *testing.T) {
	w := newWorld(t)
	src := newSource(t, w)
	appears := func(n int) time.Duration {
		begun := time.Now()
		src.put("orders", fmt.Sprint(n), "c", orderRow(n, noon, "Shipped", nil))
		src.commit(true)
		until(t, 30*time.Second, "the order appears", func() bool { return foldOrders(t, w)[fmt.Sprint(n)] != nil })
		return time.Since(begun)
	}
	p := w.spawnWith(t, "a", DefaultConfig().SessionTimeout)
	appears(1)
	t.Logf("an order appears after %s", appears(2))
	p.kill()
	w.spawnWith(t, "a", DefaultConfig().SessionTimeout)
	if took := appears(3); took > 5*time.Second {
		t.Errorf("back at work after %s", took)
	} else {
		t.Logf("back at work after %s", took)
	}
}
