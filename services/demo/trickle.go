package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/services/demo/internal/gen"
)

const (
	// tick is how often the trickle looks at what is due.
	tick = 50 * time.Millisecond
	// maxArrears is how much of a stop or a stall is made up for: a store that was
	// closed for a night does not sell the night's orders in the morning.
	maxArrears = time.Second
	// attempt is the longest that one change may take.
	attempt = 10 * time.Second
)

// person is a customer as the trickle needs one.
type person struct {
	number int
	market int // index into markets
}

// trickler makes the live changes. It belongs to one goroutine.
type trickler struct {
	*Service
	db       *pgxpool.Pool
	r        *rand.Rand
	picker   *gen.Picker
	people   []person
	sender   *sender
	sessions sessions
	rush     rush
}

// rush is a product line that sells several times better in a territory for some minutes.
type rush struct {
	line, territory string
	until           time.Time
}

// trickle runs until ctx ends and then returns nil.
func (s *Service) trickle(ctx context.Context, db *pgxpool.Pool) error {
	if s.cfg.Rate == 0 {
		<-ctx.Done()
		return nil
	}
	t := s.newTrickler(db)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { t.sender.run(ctx); return nil })
	group.Go(func() error { t.run(ctx); return nil })
	return group.Wait()
}

func (s *Service) newTrickler(db *pgxpool.Pool) *trickler {
	base := s.cfg.InternalCollectURL
	if base == "" {
		base = s.cfg.CollectURL
	}
	now := uint64(s.deps.Now().UnixNano())
	return &trickler{
		Service: s, db: db, r: rand.New(rand.NewPCG(s.cfg.Seed, now)), // live traffic is not meant to repeat itself
		sender: newSender(base, s.deps.Log, s.metrics),
	}
}

// load reads what the trickle has to know about the store.
func (t *trickler) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	var seed int64
	if err := t.db.QueryRow(ctx, "SELECT seed FROM demo.store").Scan(&seed); err != nil {
		return fmt.Errorf("read the store's seed: %w", err)
	}
	rows, err := t.db.Query(ctx, "SELECT customer_number, country FROM customers WHERE customer_number <> $1 ORDER BY customer_number", gen.GuestNumber)
	if err != nil {
		return fmt.Errorf("read the customers: %w", err)
	}
	index := make(map[string]int, len(t.markets))
	for i, m := range t.markets {
		index[m.Country] = i
	}
	var people []person
	var p person
	var country string
	_, err = pgx.ForEachRow(rows, []any{&p.number, &country}, func() error {
		p.market = index[country]
		people = append(people, p)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the customers: %w", err)
	}
	if len(people) == 0 {
		return errors.New("the store has no customers")
	}
	t.people = people
	t.picker = gen.NewPicker(uint64(seed), gen.Catalogue(uint64(seed)))
	return nil
}

func (t *trickler) run(ctx context.Context) {
	for !t.try(ctx, "start", t.load) {
		if ctx.Err() != nil {
			return
		}
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	start := time.Now()
	for last := start; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now() // the pace is real time, whatever clock stamps the rows
		elapsed := min(now.Sub(last), maxArrears)
		last = now
		t.startRush(now)
		for range gen.Poisson(t.r, t.cfg.Rate*gen.Rhythm(t.markets, t.deps.Now())*swell(now.Sub(start))*elapsed.Seconds()) {
			t.arrive(ctx, now)
		}
		t.browse(ctx, now)
	}
}

// swell is laid over the rhythm of the day, 1 on average: waves that can be seen on
// a chart of minutes.
func swell(t time.Duration) float64 {
	m := t.Minutes()
	return 1 + 0.35*math.Sin(2*math.Pi*m/7) + 0.15*math.Sin(2*math.Pi*m/1.7)
}

// startRush begins a rush now and then, about every ten minutes.
func (t *trickler) startRush(now time.Time) {
	if now.Before(t.rush.until) || t.r.Float64() > tick.Minutes()/10 {
		return
	}
	lines := gen.Lines()
	t.rush = rush{
		line:      lines[t.r.IntN(len(lines))].Name,
		territory: t.markets[t.r.IntN(len(t.markets))].Territory,
		until:     now.Add(time.Duration(2+t.r.IntN(4)) * time.Minute),
	}
}

// arrive lets one unit of business happen: for every order of the configured rate
// half a direct order and one browsing session, of which every second one buys.
func (t *trickler) arrive(ctx context.Context, now time.Time) {
	who, line := t.somebody(now)
	if t.r.Float64() < 0.5 {
		t.directOrder(ctx, who, line)
	}
	t.sessions.start(t.newSession(who, line, now))
	t.metrics.sessions.Set(float64(t.sessions.Len()))
	for _, c := range t.changes() {
		if t.r.Float64() < c.chance {
			t.change(ctx, c)
		}
	}
}

// somebody draws a customer, and the product line of the rush if it caught them.
func (t *trickler) somebody(now time.Time) (person, string) {
	who := t.awake()
	if now.After(t.rush.until) || t.r.Float64() > 0.5 {
		return who, ""
	}
	for range 20 {
		if t.markets[who.market].Territory == t.rush.territory {
			return who, t.rush.line
		}
		who = t.awake()
	}
	return who, ""
}

// awake draws a customer; some buy far more often than others, and few at night.
func (t *trickler) awake() person {
	var who person
	at := t.deps.Now()
	for range 20 {
		who = t.people[int(float64(len(t.people))*math.Pow(t.r.Float64(), 1.4))]
		if t.r.Float64()*gen.MostBusy < gen.Busy(t.markets[who.market], at) {
			break
		}
	}
	return who
}

func (t *trickler) directOrder(ctx context.Context, who person, line string) {
	var items []item
	for _, i := range t.picker.Basket(t.r, gen.Taste(who.number), line) {
		items = append(items, item{t.picker.Products()[i].Code, gen.Quantity(t.r)})
	}
	t.order(ctx, who.number, items)
}

// order places an order; what is out of stock is left out, and restocked.
func (t *trickler) order(ctx context.Context, customer int, items []item) (placed, bool) {
	var out placed
	ok := t.try(ctx, "order", func(ctx context.Context) error {
		var err error
		out, err = t.place(ctx, t.db, placement{customer: customer, items: items, partial: true})
		if errors.Is(err, errNoItems) {
			return nil
		}
		return err
	})
	if ok && out.lines > 0 {
		t.metrics.orders.WithLabelValues("trickle").Inc()
		t.metrics.lines.WithLabelValues("trickle").Add(float64(out.lines))
	}
	return out, ok && out.lines > 0
}

// try runs f under the time limit. A database that is away is waited for, so that
// the caller goes on when it is back; the one thing that was tried is then lost,
// like a customer who found the shop closed.
func (t *trickler) try(ctx context.Context, kind string, f func(context.Context) error) bool {
	limited, cancel := context.WithTimeout(ctx, attempt)
	err := f(limited)
	cancel()
	if err == nil {
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	t.metrics.failures.WithLabelValues(kind).Inc()
	if !postgres.Retryable(err) {
		t.deps.Log.Warn("the demo store refused a change", "kind", kind, "sqlstate", sqlState(err))
		var wait pause
		wait.sleep(ctx)
		return false
	}
	t.waitForDatabase(ctx, kind)
	return false
}

// waitForDatabase returns when the database answers or ctx ends. Often it answers
// at once: the failure was a deadlock, or one connection that was cut.
func (t *trickler) waitForDatabase(ctx context.Context, kind string) {
	for wait := (pause{}); ; {
		limited, cancel := context.WithTimeout(ctx, time.Second)
		err := t.db.Ping(limited)
		cancel()
		if err == nil {
			if !wait.first() {
				t.deps.Log.Info("the demo store's database answers again")
			}
			return
		}
		if wait.first() && ctx.Err() == nil {
			t.deps.Log.Warn("the demo store's database does not answer; waiting for it", "kind", kind, "sqlstate", sqlState(err))
		}
		if !wait.sleep(ctx) {
			return
		}
	}
}

// sqlState is the class of a database error; messages may quote rows.
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return "none"
}
