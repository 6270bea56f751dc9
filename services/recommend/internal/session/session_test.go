package session

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func event(id, session, action, code string, quantity int64) *schemas.EnrichedActivity {
	e := &schemas.EnrichedActivity{Activity: schemas.Activity{EventID: id, SessionID: session, Action: action, EventTime: now}, Country: "France"}
	if code != "" {
		e.ProductCode = &code
	}
	if quantity > 0 {
		e.Quantity = &quantity
	}
	return e
}

func TestCartAndViews(t *testing.T) {
	s := New(1<<20, time.Hour)
	steps := []struct {
		action, code string
		quantity     int64
		cart, viewed string
	}{
		{"view", "a", 0, "", "a"},
		{"view", "b", 0, "", "b a"},
		{"view", "a", 0, "", "a b"},
		{"search", "", 0, "", "a b"},
		{"add_to_cart", "c", 2, "c", "c a b"},
		{"add_to_cart", "a", 0, "a c", "a c b"},
		{"remove_from_cart", "c", 1, "a c", "a c b"},
		{"remove_from_cart", "c", 1, "a", "a c b"},
		{"remove_from_cart", "x", 1, "a", "a c b"},
		{"add_to_cart", "b", 1, "b a", "b a c"},
		{"checkout", "", 0, "b a", "b a c"},
		{"purchase", "a", 0, "b", "b a c"},
		{"purchase", "", 0, "", "b a c"},
	}
	for i, st := range steps {
		e := event(fmt.Sprint(i), "s", st.action, st.code, st.quantity)
		if !s.Apply(e) || s.Apply(e) {
			t.Fatalf("step %d: the event must count once", i)
		}
		v, viewed, cart := s.Read("s", now, nil, nil)
		if strings.Join(cart, " ") != st.cart || strings.Join(viewed, " ") != st.viewed || v.Country != "France" {
			t.Fatalf("step %d: cart %v, viewed %v, want %q, %q", i, cart, viewed, st.cart, st.viewed)
		}
	}
	if _, viewed, _ := s.Read("s", now.Add(2*time.Hour), nil, nil); len(viewed) > 0 {
		t.Error("a quiet session is still known")
	}
}

func TestLastInteractionsAreKept(t *testing.T) {
	s := New(1<<20, time.Hour)
	for i := range 200 {
		s.Apply(event(fmt.Sprint(i), "s", "view", fmt.Sprintf("p%d", i), 0))
	}
	if _, viewed, _ := s.Read("s", now, nil, nil); len(viewed) != keep || viewed[0] != "p199" || viewed[keep-1] != "p150" {
		t.Errorf("viewed %v", viewed)
	}
}

func TestBytesAreBounded(t *testing.T) {
	const most = 1 << 20
	s := New(most, time.Hour)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 5000 {
				s.Apply(event(fmt.Sprint(w, i), fmt.Sprintf("s-%d-%d", w, i), "add_to_cart", fmt.Sprintf("product-%d", i%7), 1))
				s.Read(fmt.Sprintf("s-%d-%d", w, i), now, nil, nil)
			}
		})
	}
	wg.Wait()
	if s.Bytes() > most || s.Len() == 0 || s.Len() == 20000 {
		t.Errorf("%d sessions in %d bytes", s.Len(), s.Bytes())
	}
	var sum int64
	for i := range s.shards {
		for el := s.shards[i].recent.Front(); el != nil; el = el.Next() {
			sum += el.Value.(*session).weigh()
		}
	}
	if sum != s.Bytes() {
		t.Errorf("counted %d bytes, there are %d", s.Bytes(), sum)
	}
	s.Apply(event("last", "latest", "view", "p", 0))
	if _, viewed, _ := s.Read("latest", now, nil, nil); !slices.Equal(viewed, []string{"p"}) {
		t.Errorf("the latest session was forgotten: %v", viewed)
	}
}
