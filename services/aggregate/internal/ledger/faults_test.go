package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/aggregate/internal/salestest"
)

// cutter breaks connections at random moments: before a message is sent, or after, so that what became of it is
// unknown.
type cutter struct {
	mu   sync.Mutex
	rng  *rand.Rand
	cuts int
	off  bool
}

func (c *cutter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, cutter: c}, nil
}

func (c *cutter) cut() (before, after bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return false, false
	}
	n := c.rng.IntN(60)
	if n < 2 {
		c.cuts++
	}
	return n == 0, n == 1
}

type cutConn struct {
	net.Conn
	cutter *cutter
}

func (c *cutConn) Write(b []byte) (int, error) {
	before, after := c.cutter.cut()
	if before {
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Write(b)
	if after {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			_ = tcp.CloseRead() // the answer is lost, the message is not
		}
	}
	return n, err
}

func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	pool, dsn := emptySales(t)
	c := &cutter{rng: rand.New(rand.NewPCG(4, 4))}
	var failures int
	for seed := range uint64(6) {
		truncate(t, pool)
		c.off = true
		l := open(t, dsn, "a", func(cfg *pgxpool.Config) { cfg.ConnConfig.DialFunc = c.dial })
		history := salestest.History(100+seed, 150)
		log := logOf(t, history)
		claims := claimAll(t, l, log.ends)
		c.off = false
		g := Guard{Reject: noReject, Waiting: func(error) error { failures++; return nil }}
		for _, b := range log.batchesFrom(claims, func() int { return 12 }) {
			if _, err := l.Write(t.Context(), b, g); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		c.off = true
		m := salestest.NewModel()
		m.See(history...)
		check(t, l, m)
		if in, _ := counted(t, l); in != int64(len(history)) {
			t.Fatalf("seed %d: %d records are counted, %d came in", seed, in, len(history))
		}
		l.Close()
	}
	if failures == 0 {
		t.Fatal("no connection broke at a moment that mattered: the test tests nothing")
	}
	t.Logf("%d connections were cut, %d tries failed", c.cuts, failures)
}

// Two instances claim the same partitions again and again and write as long as they may.
func TestInstancesFightForPartitions(t *testing.T) {
	t.Parallel()
	pool, dsn := emptySales(t)
	truncate(t, pool)
	history := salestest.History(77, 600)
	log := logOf(t, history)
	var wg sync.WaitGroup
	fenced := make([]int, 2)
	for i := range fenced {
		l := open(t, dsn, fmt.Sprint("instance ", i))
		rng := rand.New(rand.NewPCG(uint64(i), 9))
		wg.Go(func() {
			for {
				claims := map[Partition]*Claim{}
				rest := false
				for p, end := range log.ends {
					c, err := l.Claim(t.Context(), p, Origin{cluster, "id"})
					if err != nil {
						t.Error(err)
						return
					}
					claims[p] = &c
					rest = rest || c.Next < end
				}
				if !rest {
					return
				}
				for _, b := range log.batchesFrom(claims, func() int { return 1 + rng.IntN(20) }) {
					_, err := l.Write(t.Context(), b, patient())
					if errors.Is(err, ErrFenced) {
						fenced[i]++
						break
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if fenced[0]+fenced[1] == 0 {
		t.Error("nobody was ever fenced: the test tests nothing")
	}
	l := open(t, dsn, "check")
	v, err := l.Verify(t.Context(), 3)
	must(t, err)
	if v.Found != 0 {
		t.Errorf("verify finds %d differences, such as %v", v.Found, v.Differences)
	}
	if in, _ := counted(t, l); in != int64(len(history)) {
		t.Errorf("%d records are counted, %d came in", in, len(history))
	}
}

// Instances with partitions of their own share orders and cells.
func TestInstancesShareOrders(t *testing.T) {
	t.Parallel()
	pool, dsn := emptySales(t)
	for seed := range uint64(5) {
		truncate(t, pool)
		history := salestest.History(500+seed, 500)
		for _, r := range history { // the dimensions depend on who comes first only if they change
			if r.Order != nil && !r.Order.Gone {
				r.Order.Country, r.Order.Region = "FR", "EMEA"
			}
		}
		log := logOf(t, history)
		var wg sync.WaitGroup
		for i := range int32(2) {
			l := open(t, dsn, fmt.Sprint("instance ", i))
			mine := map[Partition]int64{}
			for p, end := range log.ends {
				if (p.Part+int32(len(p.Topic)))%2 == i {
					mine[p] = end
				}
			}
			batches := log.batchesFrom(claimAll(t, l, mine), func() int { return 10 })
			wg.Go(func() {
				for _, b := range batches {
					if _, err := l.Write(t.Context(), b, patient()); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		m := salestest.NewModel()
		m.See(history...)
		check(t, open(t, dsn, "check"), m)
	}
}

// hang leaves a transaction of l open that holds the partition.
func hang(t *testing.T, l *Ledger, c Claim) pgx.Tx {
	t.Helper()
	tx, err := l.pool.Begin(t.Context())
	must(t, err)
	must(t, transaction{tx, l}.fence(t.Context(), []Span{{c, 0, 1}}))
	return tx
}

// A process of our name that holds a partition is the one before us, and is not waited for.
func TestPredecessorIsEndedAtOnce(t *testing.T) {
	t.Parallel()
	_, dsn := emptySales(t)
	p := Partition{schemas.SalesLines, 0}
	patience := 30 * time.Second
	named := func(owner string) *Ledger {
		l, err := Open(t.Context(), Options{URL: config.Secret(dsn), Owner: owner, Log: slog.New(slog.DiscardHandler), ZombieAfter: patience})
		must(t, err)
		t.Cleanup(l.Close)
		return l
	}
	before, after, other := named("a"), named("a"), named("b")
	claim, err := before.Claim(t.Context(), p, Origin{cluster, "id"})
	must(t, err)
	tx := hang(t, before, claim)

	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := other.Claim(ctx, p, Origin{cluster, "id"}); err == nil {
		t.Error("a process of another name did not wait")
	}
	start := time.Now()
	second, err := after.Claim(t.Context(), p, Origin{cluster, "id"})
	must(t, err)
	if took := time.Since(start); took > patience/2 {
		t.Errorf("the claim took %v", took)
	}
	if second.Epoch != claim.Epoch+1 || second.Next != 0 {
		t.Errorf("got epoch %d at offset %d, want %d at 0", second.Epoch, second.Next, claim.Epoch+1)
	}
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("the predecessor's transaction was committed")
	}
}

func TestZombieIsFencedAndEnded(t *testing.T) {
	t.Parallel()
	_, dsn := emptySales(t)
	p := Partition{schemas.SalesLines, 0}
	zombie, heir := open(t, dsn, "zombie"), open(t, dsn, "heir")
	claim, err := zombie.Claim(t.Context(), p, Origin{cluster, "id"})
	must(t, err)
	log := logOf(t, []salestest.Record{{Line: &schemas.Line{LineID: "1", Seq: 1, OrderID: "1", Units: 1, UnitPrice: "1"}}})
	b := Batch{Records: log.records, Spans: []Span{{claim, 0, 1}}}
	b.Records[0].Partition = p

	tx, err := zombie.pool.Begin(t.Context()) // and there it hangs
	must(t, err)
	_, err = transaction{tx, zombie}.write(t.Context(), b)
	must(t, err)

	start := time.Now()
	second, err := heir.Claim(t.Context(), p, Origin{cluster, "id"})
	must(t, err)
	if took := time.Since(start); took < 150*time.Millisecond || took > 5*time.Second {
		t.Errorf("the claim took %v, it should wait a little and then end the zombie", took)
	}
	if second.Epoch != claim.Epoch+1 || second.Next != 0 {
		t.Errorf("the heir got epoch %d at offset %d, want %d at 0", second.Epoch, second.Next, claim.Epoch+1)
	}
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("the zombie's transaction was committed")
	}
	if _, err := zombie.Write(t.Context(), b, patient()); !errors.Is(err, ErrFenced) {
		t.Errorf("the zombie wrote again: %v", err)
	}
	b.Spans[0].Claim = second
	_, err = heir.Write(t.Context(), b, patient())
	must(t, err)
	if _, err := heir.Write(t.Context(), b, patient()); !errors.Is(err, ErrFenced) {
		t.Errorf("the same offsets went in twice: %v", err)
	}
}
