// Package session keeps what shoppers do right now: for each session the last interactions and the cart. It is bounded
// in bytes; the sessions that were quiet the longest are forgotten first.
package session

import (
	"container/list"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

const (
	shards = 64
	// keep is how many interactions of a session are kept.
	keep = 50
	// maxCart is how many products of a cart are kept.
	maxCart = 100
	// seen is how many ids of events are kept to notice repetitions.
	seen = 64
)

// What a session takes, about: itself with its places in the map and the list, and an interaction or a product of the
// cart beside its code.
const (
	sessionBytes = 600 + 8*seen
	entryBytes   = 48
)

// Store is the state of all sessions. It is safe for concurrent use.
type Store struct {
	seed   maphash.Seed
	shards [shards]shard
	ttl    time.Duration
	size   atomic.Int64
	count  atomic.Int64
}

type shard struct {
	mu       sync.Mutex
	max      int64
	bytes    int64
	sessions map[string]*list.Element // of *session
	recent   list.List                // the latest in front
}

type session struct {
	id       string
	at       time.Time
	customer string
	country  string
	viewed   []string // the latest last, each product once
	cart     []cartItem
	seen     [seen]uint64
	next     int
	bytes    int64
}

type cartItem struct {
	code     string
	quantity int64
}

// New makes a store of at most maxBytes, for sessions that were active within ttl.
func New(maxBytes int64, ttl time.Duration) *Store {
	s := &Store{seed: maphash.MakeSeed(), ttl: ttl}
	for i := range s.shards {
		s.shards[i].max = max(maxBytes/shards, 1)
		s.shards[i].sessions = map[string]*list.Element{}
	}
	return s
}

// Len is the number of sessions, Bytes about what they take.
func (s *Store) Len() int64 { return s.count.Load() }

// Bytes is about what the sessions take.
func (s *Store) Bytes() int64 { return s.size.Load() }

func (s *Store) shard(id string) *shard { return &s.shards[maphash.String(s.seed, id)%shards] }

// Apply takes in what a shopper did and tells whether it was new. The same event again, as after a restart or when
// enrich mends it, changes nothing.
func (s *Store) Apply(e *schemas.EnrichedActivity) bool {
	if e.SessionID == "" {
		return false
	}
	id := maphash.String(s.seed, e.EventID) | 1
	sh := s.shard(e.SessionID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	before, count := sh.bytes, len(sh.sessions)
	defer func() {
		s.size.Add(sh.bytes - before)
		s.count.Add(int64(len(sh.sessions) - count))
	}()
	ss := sh.open(e.SessionID)
	for _, known := range ss.seen {
		if known == id {
			ss.describe(e)
			return false
		}
	}
	ss.seen[ss.next] = id
	ss.next = (ss.next + 1) % seen
	if e.EventTime.After(ss.at) {
		ss.at = e.EventTime
	}
	ss.describe(e)
	ss.apply(e)
	now := ss.weigh()
	sh.bytes += now - ss.bytes
	ss.bytes = now
	sh.evict()
	return true
}

func (sh *shard) open(id string) *session {
	if el, ok := sh.sessions[id]; ok {
		sh.recent.MoveToFront(el)
		return el.Value.(*session)
	}
	ss := &session{id: id}
	sh.sessions[id] = sh.recent.PushFront(ss)
	return ss
}

func (sh *shard) evict() {
	for sh.bytes > sh.max && sh.recent.Len() > 0 {
		el := sh.recent.Back()
		ss := el.Value.(*session)
		sh.recent.Remove(el)
		delete(sh.sessions, ss.id)
		sh.bytes -= ss.bytes
	}
}

func (ss *session) describe(e *schemas.EnrichedActivity) {
	if e.CustomerNumber != nil {
		ss.customer = *e.CustomerNumber
	}
	if e.Country != "" && e.Country != schemas.Unknown {
		ss.country = e.Country
	}
}

func (ss *session) apply(e *schemas.EnrichedActivity) {
	code := ""
	if e.ProductCode != nil {
		code = *e.ProductCode
	}
	quantity := int64(0)
	if e.Quantity != nil {
		quantity = *e.Quantity
	}
	switch e.Action {
	case "view", "rate":
		ss.view(code)
	case "add_to_cart":
		ss.view(code)
		ss.add(code, max(quantity, 1))
	case "remove_from_cart":
		ss.remove(code, quantity)
	case "purchase":
		if code == "" {
			ss.cart = nil
		} else {
			ss.remove(code, 0)
		}
	}
}

func (ss *session) view(code string) {
	if code == "" {
		return
	}
	for i, c := range ss.viewed {
		if c == code {
			copy(ss.viewed[i:], ss.viewed[i+1:])
			ss.viewed[len(ss.viewed)-1] = code
			return
		}
	}
	if len(ss.viewed) == keep {
		copy(ss.viewed, ss.viewed[1:])
		ss.viewed = ss.viewed[:keep-1]
	}
	ss.viewed = append(ss.viewed, code)
}

func (ss *session) add(code string, quantity int64) {
	for i := range ss.cart {
		if ss.cart[i].code == code {
			ss.cart[i].quantity += quantity
			return
		}
	}
	if code != "" && len(ss.cart) < maxCart {
		ss.cart = append(ss.cart, cartItem{code, quantity})
	}
}

// remove takes some of a product out of the cart; a quantity of 0 means all.
func (ss *session) remove(code string, quantity int64) {
	for i := range ss.cart {
		if ss.cart[i].code != code {
			continue
		}
		if ss.cart[i].quantity -= quantity; quantity == 0 || ss.cart[i].quantity <= 0 {
			ss.cart = append(ss.cart[:i], ss.cart[i+1:]...)
		}
		return
	}
}

func (ss *session) weigh() int64 {
	n := int64(sessionBytes + 2*len(ss.id) + len(ss.customer) + len(ss.country) + entryBytes*(cap(ss.viewed)+cap(ss.cart)))
	for _, c := range ss.viewed {
		n += int64(len(c))
	}
	for i := range ss.cart {
		n += int64(len(ss.cart[i].code))
	}
	return n
}

// View is what is known of a session.
type View struct {
	Customer string
	Country  string
}

// Read appends the products that a session looked at and those in its cart, the latest first. A session that was quiet
// for longer than the store's ttl is as good as unknown.
func (s *Store) Read(id string, now time.Time, viewed, cart []string) (View, []string, []string) {
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	el, ok := sh.sessions[id]
	if !ok {
		return View{}, viewed, cart
	}
	ss := el.Value.(*session)
	if now.Sub(ss.at) > s.ttl {
		return View{}, viewed, cart
	}
	for i := len(ss.viewed) - 1; i >= 0; i-- {
		viewed = append(viewed, ss.viewed[i])
	}
	for i := len(ss.cart) - 1; i >= 0; i-- {
		cart = append(cart, ss.cart[i].code)
	}
	return View{ss.customer, ss.country}, viewed, cart
}
