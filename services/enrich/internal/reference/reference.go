// Package reference holds reference tables whole in memory: of each row its version and the few texts that are joined.
package reference

import (
	"encoding/binary"
	"strings"
	"sync"
)

// Row is one row. Its texts are packed into one string: a table of a million rows must stay small.
type Row struct {
	Seq    int64
	packed string
}

// Text is one of the row's texts; false if it is null.
func (r Row) Text(i int) (string, bool) {
	rest := r.packed
	for {
		n, size := uvarint(rest)
		if size == 0 {
			return "", false
		}
		rest = rest[size:]
		if n == 0 {
			if i == 0 {
				return "", false
			}
			i--
			continue
		}
		if i == 0 {
			return rest[:n-1], true
		}
		rest = rest[n-1:]
		i--
	}
}

func uvarint(s string) (int, int) {
	var v, shift uint
	for i := 0; i < len(s) && i < binary.MaxVarintLen32; i++ {
		v |= uint(s[i]&0x7f) << shift
		if s[i] < 0x80 {
			return int(v), i + 1
		}
		shift += 7
	}
	return 0, 0
}

// Text is a text that may be null.
type Text struct {
	Value string
	Valid bool
}

// Pack makes a row.
func Pack(seq int64, texts []Text) Row {
	var b strings.Builder
	var buf [binary.MaxVarintLen64]byte
	for _, t := range texts {
		if !t.Valid {
			b.WriteByte(0)
			continue
		}
		b.Write(buf[:binary.PutUvarint(buf[:], uint64(len(t.Value))+1)])
		b.WriteString(t.Value)
	}
	return Row{Seq: seq, packed: b.String()}
}

// Store is a number of tables. It is safe for concurrent use.
type Store struct {
	mu     sync.RWMutex
	tables []map[string]Row
}

// New makes a store of n empty tables.
func New(n int) *Store {
	s := &Store{tables: make([]map[string]Row, n)}
	for i := range s.tables {
		s.tables[i] = map[string]Row{}
	}
	return s
}

// Change is a new version of a row, or its end.
type Change struct {
	Table int
	Key   string
	Row   Row
	Gone  bool // only Row.Seq counts
}

// Apply takes changes over, in order; one that is older than the row it meets is left out.
func (s *Store) Apply(changes []Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		if old, ok := s.tables[c.Table][c.Key]; ok && old.Seq > c.Row.Seq {
			continue
		}
		if c.Gone {
			delete(s.tables[c.Table], c.Key)
			continue
		}
		s.tables[c.Table][c.Key] = c.Row
	}
}

// View calls f with a view of one moment, which must not be kept. Changes wait until f returns.
func (s *Store) View(f func(View)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f(View{s.tables})
}

// Len is the number of rows of a table.
func (s *Store) Len(table int) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.tables[table])
}

// View is the tables at one moment.
type View struct{ tables []map[string]Row }

// Row is a row by its key.
func (v View) Row(table int, key string) (Row, bool) {
	r, ok := v.tables[table][key]
	return r, ok
}
