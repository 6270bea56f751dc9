package model

import (
	"math"
	"slices"
	"time"
)

// Snapshot is an immutable state of the model. It is safe for concurrent use.
type Snapshot struct {
	Version string
	Built   time.Time

	day        int32
	codes      []string
	byCode     map[string]int32
	category   []string
	eligible   []bool
	rows       [][]Neighbour
	pop        []float64
	popular    []int32 // eligible products, the most popular first
	byCategory map[string][]int32
	byCountry  map[string][]Popular
	customers  [shards]map[string]*History
}

// Items is how many products may be recommended.
func (s *Snapshot) Items() int { return len(s.popular) }

// Levels of an answer.
const (
	LevelSimilarity = "similarity"
	LevelPopular    = "popular"
)

// Reasons of a pick.
const (
	ReasonCart     = "cart"                // bought together with what is in the cart
	ReasonSession  = "session"             // bought together with what was looked at
	ReasonHistory  = "history"             // bought together with what the customer bought
	ReasonAgain    = "again"               // the customer bought it
	ReasonPopular  = "popular"             // sells best
	ReasonCountry  = "popular_in_country"  // sells best in the country
	ReasonCategory = "popular_in_category" // sells best in the category looked at
	ReasonViewed   = "viewed"              // looked at before
)

// Weights of the terms of a score. Similarities and popularities lie between 0 and 1.
const (
	weightCart     = 1.0
	weightSession  = 0.7
	weightHistory  = 0.15
	weightAgain    = 0.1
	weightPopular  = 0.1
	weightCountry  = 0.05
	weightCategory = 0.05
)

// againHalfLife is the age in days at which a purchase counts half.
const againHalfLife = 180

// terms are the parts of a score, by reason.
const (
	termCart = iota
	termSession
	termHistory
	termAgain
	termPopular
	termCountry
	termCategory
	nTerms
)

// Query is a question. Lists have the newest first.
type Query struct {
	Cart     []string
	Viewed   []string
	Exclude  []string
	Customer string
	Country  string
	Category string // only products of it; empty for all
	Limit    int
}

// Pick is a recommended product.
type Pick struct {
	Code   string
	Score  float64
	Reason string
}

// Scratch is memory that is used again from question to question, by one goroutine at a time.
type Scratch struct {
	terms   [][nTerms]float32
	state   []uint8
	touched []int32
	best    []scoredItem
}

const (
	isTouched = 1 << iota
	isViewed
	isBarred
)

type scoredItem struct {
	item  int32
	score float32
}

// Rank answers a question: at most Limit products, the best first, appended to out, and the level. Products that are
// out of stock, hidden, gone, in the cart or excluded are never among them.
func (s *Snapshot) Rank(q *Query, sc *Scratch, out []Pick) ([]Pick, string) {
	sc.fit(len(s.codes))
	defer sc.reset()
	s.bar(q.Cart, sc)
	s.bar(q.Exclude, sc)
	last := s.markViewed(q.Viewed, sc)
	s.fromList(q.Cart, termCart, weightCart, sc)
	s.fromList(q.Viewed, termSession, weightSession, sc)
	country := s.fromHistory(q, sc)
	s.fromPopularity(q, country, last, sc)
	level := LevelPopular
	start := len(out)
	for _, b := range s.best(q, sc) {
		t := &sc.terms[b.item]
		out = append(out, Pick{Code: s.codes[b.item], Score: float64(b.score), Reason: reasonOf(t)})
		if t[termCart]+t[termSession]+t[termHistory]+t[termAgain] > 0 {
			level = LevelSimilarity
		}
	}
	return s.fill(q, last, sc, out, q.Limit-(len(out)-start)), level
}

func (sc *Scratch) fit(n int) {
	if len(sc.terms) < n {
		sc.terms = make([][nTerms]float32, n+n/8)
		sc.state = make([]uint8, n+n/8)
	}
}

func (sc *Scratch) touch(i int32) *[nTerms]float32 {
	sc.mark(i, isTouched)
	return &sc.terms[i]
}

func (sc *Scratch) mark(i int32, bit uint8) {
	if sc.state[i] == 0 {
		sc.touched = append(sc.touched, i)
	}
	sc.state[i] |= bit
}

func (sc *Scratch) reset() {
	for _, i := range sc.touched {
		sc.state[i] = 0
		sc.terms[i] = [nTerms]float32{}
	}
	sc.touched = sc.touched[:0]
}

func (s *Snapshot) bar(codes []string, sc *Scratch) {
	for _, c := range codes {
		if i, ok := s.byCode[c]; ok {
			sc.mark(i, isBarred)
		}
	}
}

// markViewed marks what was looked at, which is recommended only when nothing else is left, and returns the last one,
// or -1.
func (s *Snapshot) markViewed(codes []string, sc *Scratch) int32 {
	last := int32(-1)
	for _, c := range codes {
		if i, ok := s.byCode[c]; ok {
			if last < 0 {
				last = i
			}
			sc.mark(i, isViewed)
		}
	}
	return last
}

// fromList adds what is bought together with the products of a list; later ones count less.
func (s *Snapshot) fromList(codes []string, term int, weight float32, sc *Scratch) {
	for at, c := range codes {
		i, ok := s.byCode[c]
		if !ok {
			continue
		}
		w := weight / (1 + 0.3*float32(at))
		for _, n := range s.rows[i] {
			sc.touch(n.Item)[term] += w * n.Score
		}
	}
}

// fromHistory adds what the customer bought and what goes with it. It returns the country to be assumed.
func (s *Snapshot) fromHistory(q *Query, sc *Scratch) string {
	if q.Customer == "" {
		return q.Country
	}
	h := s.customers[shard(q.Customer)][q.Customer]
	if h == nil {
		return q.Country
	}
	for at, bought := range h.Items {
		age := max(0, float64(s.day)-float64(bought.Day))
		fresh := float32(math.Exp2(-age / againHalfLife))
		sc.touch(bought.Item)[termAgain] += weightAgain * fresh * min(1, float32(bought.Orders)/3)
		if at < 30 {
			w := weightHistory * fresh / (1 + 0.1*float32(at))
			for _, n := range s.rows[bought.Item] {
				sc.touch(n.Item)[termHistory] += w * n.Score
			}
		}
	}
	if q.Country != "" {
		return q.Country
	}
	return h.Country
}

// fromPopularity adds enough popular products to fill the answer, and the popularity of all that are in question.
func (s *Snapshot) fromPopularity(q *Query, country string, last int32, sc *Scratch) {
	for _, p := range s.byCountry[country] {
		sc.touch(p.Item)[termCountry] += weightCountry * p.Score
	}
	list := s.popular
	if q.Category != "" {
		list = s.byCategory[q.Category]
	}
	s.enough(list, q.Limit, sc)
	top := s.top()
	if last >= 0 && top > 0 {
		alike := s.byCategory[s.category[last]]
		for _, i := range alike[:min(len(alike), 2*q.Limit)] {
			sc.touch(i)[termCategory] += weightCategory * float32(max(0, s.pop[i])/top)
		}
	}
	if top > 0 {
		for _, i := range sc.touched {
			sc.terms[i][termPopular] = weightPopular * float32(max(0, s.pop[i])/top)
		}
	}
}

// top is the highest popularity.
func (s *Snapshot) top() float64 {
	if len(s.popular) == 0 {
		return 0
	}
	return s.pop[s.popular[0]]
}

// enough touches the first products of a list that may be picked.
func (s *Snapshot) enough(list []int32, limit int, sc *Scratch) {
	for _, i := range list {
		if limit == 0 {
			return
		}
		if sc.state[i]&(isBarred|isViewed) == 0 {
			sc.touch(i)
			limit--
		}
	}
}

func (s *Snapshot) best(q *Query, sc *Scratch) []scoredItem {
	worse := func(x, y scoredItem) bool {
		return x.score < y.score || x.score == y.score && s.codes[x.item] > s.codes[y.item]
	}
	best := sc.best[:0]
	for _, i := range sc.touched {
		if sc.state[i] != isTouched || !s.eligible[i] || q.Category != "" && s.category[i] != q.Category {
			continue
		}
		var sum float32
		for _, t := range &sc.terms[i] {
			sum += t
		}
		best = keep(best, q.Limit, scoredItem{i, sum}, worse)
	}
	slices.SortFunc(best, func(x, y scoredItem) int {
		if worse(y, x) {
			return -1
		}
		return 1
	})
	sc.best = best
	return best
}

// fill completes an answer with products that were looked at, but for the last one: it is on the shopper's screen.
func (s *Snapshot) fill(q *Query, last int32, sc *Scratch, out []Pick, missing int) []Pick {
	for _, c := range q.Viewed {
		i, ok := s.byCode[c]
		if missing <= 0 || !ok || i == last || sc.state[i]&isBarred != 0 || !s.eligible[i] || q.Category != "" && s.category[i] != q.Category {
			continue
		}
		sc.state[i] |= isBarred // once
		missing--
		out = append(out, Pick{Code: c, Reason: ReasonViewed})
	}
	return out
}

func reasonOf(t *[nTerms]float32) string {
	most := 0
	for i := range t {
		if t[i] > t[most] {
			most = i
		}
	}
	if t[most] == 0 {
		return ReasonPopular
	}
	return [nTerms]string{ReasonCart, ReasonSession, ReasonHistory, ReasonAgain, ReasonPopular, ReasonCountry, ReasonCategory}[most]
}

// Similar are at most limit products that are bought together with one, then popular ones of its category, then
// popular ones, appended to out, and the level. Products in exclude are not among them.
func (s *Snapshot) Similar(code string, exclude []string, limit int, sc *Scratch, out []Pick) ([]Pick, string) {
	sc.fit(len(s.codes))
	defer sc.reset()
	s.bar(exclude, sc)
	level, start := LevelPopular, len(out)
	add := func(i int32, score float64, reason string) {
		if len(out)-start < limit && s.eligible[i] && sc.state[i] == 0 {
			sc.mark(i, isTouched)
			if len(out) > start {
				score = min(score, out[len(out)-1].Score) // what fills up never outranks what is alike
			}
			out = append(out, Pick{Code: s.codes[i], Score: score, Reason: reason})
		}
	}
	top := s.top()
	popularity := func(i int32) float64 {
		if top <= 0 {
			return 0
		}
		return max(0, s.pop[i]) / top
	}
	if i, ok := s.byCode[code]; ok {
		sc.mark(i, isBarred)
		for _, n := range s.rows[i] {
			add(n.Item, float64(n.Score), "bought_together")
		}
		if len(out) > start {
			level = LevelSimilarity
		}
		for _, j := range s.byCategory[s.category[i]] {
			if len(out)-start == limit {
				break
			}
			add(j, weightCategory*popularity(j), ReasonCategory)
		}
	}
	for _, j := range s.popular {
		if len(out)-start >= limit {
			break
		}
		add(j, weightCategory*weightPopular*popularity(j), ReasonPopular)
	}
	return out, level
}
