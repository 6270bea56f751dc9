package demo

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/services/demo/internal/gen"
)

// event is one activity event as collect takes it.
type event struct {
	ID        string `json:"event_id"`
	Time      string `json:"event_time"` // RFC 3339, UTC, microseconds
	Customer  int    `json:"customer_number,omitempty"`
	Anonymous string `json:"anonymous_id,omitempty"`
	Session   string `json:"session_id"`
	Action    string `json:"action"`
	Product   string `json:"product_code,omitempty"`
	Quantity  int    `json:"quantity,omitempty"`
	Page      string `json:"page_url"`
	Agent     string `json:"user_agent"`
	IP        string `json:"ip"`
}

// session is one simulated shopper's visit.
type session struct {
	id, agent, ip string
	who           person
	anonymous     string // "" once signed in
	taste         []int
	line          string // what the rush draws them to, "" otherwise
	buys          bool
	current       int // product looked at, -1 before the first
	cart          []item
	left          int // products still to look at
	due           time.Time
}

// maxSessions bounds the memory that shoppers take.
const maxSessions = 20_000

// sessions is a queue of visits by when their next step is due.
type sessions []*session

func (q sessions) Len() int           { return len(q) }
func (q sessions) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q sessions) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push and Pop are for container/heap.
func (q *sessions) Push(x any) { *q = append(*q, x.(*session)) }

func (q *sessions) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return last
}

// start queues a visit; when there are too many the shopper goes elsewhere.
func (q *sessions) start(s *session) {
	if q.Len() < maxSessions {
		heap.Push(q, s)
	}
}

func (t *trickler) newSession(who person, line string, now time.Time) *session {
	agents := []string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
	}
	s := &session{
		id: uuid.NewString(), who: who, taste: gen.Taste(who.number), line: line, current: -1, due: now,
		agent: agents[t.r.IntN(len(agents))], buys: t.r.Float64() < 0.5, left: 1 + min(int(t.r.ExpFloat64()*4), 20),
		ip: fmt.Sprintf("%s.%d", []string{"192.0.2", "198.51.100", "203.0.113"}[t.r.IntN(3)], 1+t.r.IntN(254)), // documentation networks
	}
	if t.r.Float64() < 0.4 {
		s.anonymous = uuid.NewString()
	}
	return s
}

// browse takes the steps that are due.
func (t *trickler) browse(ctx context.Context, now time.Time) {
	for t.sessions.Len() > 0 && !t.sessions[0].due.After(now) && ctx.Err() == nil {
		s := t.sessions[0]
		if t.step(ctx, s) {
			s.due = now.Add(500*time.Millisecond + time.Duration(t.r.ExpFloat64()*float64(4*time.Second)))
			heap.Fix(&t.sessions, 0)
		} else {
			heap.Pop(&t.sessions)
		}
	}
	t.metrics.sessions.Set(float64(t.sessions.Len()))
}

// step lets the shopper look at one more product, or end the visit; it tells
// whether the visit goes on.
func (t *trickler) step(ctx context.Context, s *session) bool {
	if s.left == 0 {
		t.leave(ctx, s)
		return false
	}
	s.left--
	if s.current < 0 && (s.line != "" || t.r.Float64() < 0.25) {
		t.emit(s, "search", "", 0, "/shop#/search")
	}
	switch {
	case s.current < 0 && s.line != "":
		s.current = t.picker.InLine(t.r, s.line)
	case s.current < 0:
		s.current = t.picker.Product(t.r, s.taste)
	default:
		s.current = t.picker.Related(t.r, s.current, s.taste)
	}
	code := t.picker.Products()[s.current].Code
	t.emit(s, "view", code, 0, "/shop#/product/"+code)
	wants := 0.12
	if s.buys {
		wants = 0.4
	}
	if t.r.Float64() < wants || (s.buys && s.left == 0 && len(s.cart) == 0) {
		t.addToCart(s, code)
	} else if len(s.cart) > 1 && t.r.Float64() < 0.15 {
		last := s.cart[len(s.cart)-1]
		s.cart = s.cart[:len(s.cart)-1]
		t.emit(s, "remove_from_cart", last.code, last.quantity, "/shop#/cart")
	}
	return true
}

func (t *trickler) addToCart(s *session, code string) {
	if slices.ContainsFunc(s.cart, func(it item) bool { return it.code == code }) {
		return
	}
	it := item{code, gen.Quantity(t.r)}
	s.cart = append(s.cart, it)
	t.emit(s, "add_to_cart", it.code, it.quantity, "/shop#/product/"+code)
}

// leave ends the visit; a buyer signs in and checks out first.
func (t *trickler) leave(ctx context.Context, s *session) {
	if !s.buys || len(s.cart) == 0 {
		return
	}
	s.anonymous = ""
	t.emit(s, "checkout", "", 0, "/shop#/cart")
	out, ok := t.order(ctx, s.who.number, s.cart)
	if !ok {
		return
	}
	for _, it := range s.cart {
		if !out.left(it.code) {
			t.emit(s, "purchase", it.code, it.quantity, "/shop#/cart")
		}
	}
}

// left tells whether a product was left out of the order.
func (p placed) left(code string) bool { return slices.Contains(p.short, code) }

func (t *trickler) emit(s *session, action, product string, quantity int, page string) {
	e := event{
		ID: uuid.NewString(), Time: t.now().Format("2006-01-02T15:04:05.000000Z07:00"), Session: s.id, Anonymous: s.anonymous,
		Action: action, Product: product, Quantity: quantity, Page: "https://shop.example" + page, Agent: s.agent, IP: s.ip,
	}
	if s.anonymous == "" {
		e.Customer = s.who.number
	}
	t.sender.send(e)
}
