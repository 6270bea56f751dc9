// Package diff finds the difference of two sets of rows that are too large for memory. Each side is written, as key and hash,
// into files by the key's hash; then the files are compared one by one, and one that is still too large is divided
// again. It knows nothing of where the rows come from.
package diff

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
)

// Sum stands for the content of a row: the first 128 bits of a SHA-256. A checksum without cryptographic strength would be a
// little faster, but the content is written by strangers, and two rows made to collide would hide a difference for ever.
type Sum [16]byte

// SumOf is the sum of bytes.
func SumOf(b []byte) Sum {
	full := sha256.Sum256(b)
	return Sum(full[:len(Sum{})])
}

// Entry is one row of a side: its key, the sum of its content, and a few bytes that the caller wants back.
type Entry struct {
	Key   []byte
	Sum   Sum
	Extra []byte
}

// Options bound what a Space uses. The zero value of a field takes its default.
type Options struct {
	Dir        string // for the files; default the system's temporary directory
	Partitions int    // files a set is divided into at a time, 32
	Memory     int    // bytes of entries that are held at a time, about, 32 MB
}

const (
	defaultPartitions = 32
	defaultMemory     = 32 << 20
	// deepest bounds how often a file is divided; keys that share so many bits of their hash are not met.
	deepest = 12
	// overhead is about what an entry of a map takes beside its bytes.
	overhead = 112
)

// Space is where sets are kept that are to be compared. It is immutable and safe for concurrent use; it holds nothing by
// itself.
type Space struct {
	Options
	seed maphash.Seed
}

// NewSpace makes a space; it does no I/O.
func NewSpace(o Options) *Space {
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	if o.Partitions <= 0 {
		o.Partitions = defaultPartitions
	}
	if o.Memory <= 0 {
		o.Memory = defaultMemory
	}
	return &Space{Options: o, seed: maphash.MakeSeed()}
}

// Merge makes the entry of a key of its former one and a later one; the result may alias either. It must not keep them.
type Merge func(former, later Entry) Entry

// Set is one side: what was put last for a key counts. It is for one goroutine. Close it: its space on the disk is free from
// then on, or when the process ends.
type Set struct {
	space *Space
	merge Merge
	parts []spill
}

// NewSet makes an empty set. merge may be nil: the later entry of a key replaces the former.
func (s *Space) NewSet(merge Merge) *Set {
	set := &Set{space: s, merge: merge, parts: make([]spill, s.Partitions)}
	for i := range set.parts {
		set.parts[i].dir = s.Dir
	}
	return set
}

// partition of a key when files are divided for the depth-th time.
func (s *Space) partition(key []byte, depth int) int {
	h := maphash.Bytes(s.seed, key)
	for range depth { // another digit of the hash, so that what was together is parted
		h /= uint64(s.Partitions)
	}
	if h == 0 && depth > 0 { // used up: begin again with another hash
		h = maphash.Bytes(s.seed, append([]byte{byte(depth)}, key...))
	}
	return int(h % uint64(s.Partitions))
}

// Put says that the side has the row; the entry is copied.
func (s *Set) Put(e Entry) error { return s.parts[s.space.partition(e.Key, 0)].append(e, false) }

// Delete says that the side does not have the key any more.
func (s *Set) Delete(key []byte) error {
	return s.parts[s.space.partition(key, 0)].append(Entry{Key: key}, true)
}

// Bytes is how much the set takes, of disk and memory together.
func (s *Set) Bytes() (n int64) {
	for i := range s.parts {
		n += s.parts[i].bytes()
	}
	return n
}

// Close gives up the set's files. It may be called more than once.
func (s *Set) Close() error { return closeAll(s.parts) }

func closeAll(parts []spill) error {
	var errs []error
	for i := range parts {
		errs = append(errs, parts[i].close())
	}
	return errors.Join(errs...)
}

// Each visits the entries of the keys that the set has, each once, in no order. The entry is overwritten by the next. The
// set can be put to and visited again afterwards.
func (s *Set) Each(ctx context.Context, visit func(Entry) error) error {
	empty := s.space.NewSet(nil)
	for i := range s.parts {
		err := s.space.walk(ctx, side{&s.parts[i], s.merge}, side{&empty.parts[i], nil}, 0, func(all, _ held) error {
			for k, v := range all {
				if err := visit(v.entry(k)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

type side struct {
	*spill
	merge Merge
}

// value is an entry without its key.
type value struct {
	sum   Sum
	extra string
}

func (v value) entry(key string) Entry {
	return Entry{Key: []byte(key), Sum: v.sum, Extra: []byte(v.extra)}
}

type held map[string]value

var errTooMuch = errors.New("more than fits in memory")

// load folds a file in memory. It gives up when budget is used up, and returns what is left of it.
func (s side) load(ctx context.Context, budget int) (held, int, error) {
	out := held{}
	n := 0
	err := s.each(func(e Entry, gone bool) error {
		if n++; n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		former, there := out[string(e.Key)]
		if there {
			budget += len(e.Key) + len(former.extra) + overhead
		}
		if gone {
			delete(out, string(e.Key))
			return nil
		}
		if there && s.merge != nil {
			e = s.merge(former.entry(string(e.Key)), e)
		}
		out[string(e.Key)] = value{e.Sum, string(e.Extra)}
		if budget -= len(e.Key) + len(e.Extra) + overhead; budget < 0 {
			return errTooMuch
		}
		return nil
	})
	return out, budget, err
}

// walk hands over the folded entries of two files that belong together, in as many pieces as memory asks for.
func (s *Space) walk(ctx context.Context, a, b side, depth int, visit func(a, b held) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if a.bytes() == 0 && b.bytes() == 0 {
		return nil
	}
	left, budget, err := a.load(ctx, s.Memory)
	var right held
	if err == nil {
		right, _, err = b.load(ctx, budget)
	}
	switch {
	case err == nil:
		return visit(left, right)
	case !errors.Is(err, errTooMuch):
		return err
	case depth >= deepest:
		return fmt.Errorf("compare rows: keys cannot be divided into pieces of %d bytes; this is the key's size or a fault", s.Memory)
	}
	return s.divide(ctx, a, b, depth, visit)
}

// divide walks two files in pieces by another part of the hash.
func (s *Space) divide(ctx context.Context, a, b side, depth int, visit func(a, b held) error) (err error) {
	var pieces [2][]spill
	defer func() { err = errors.Join(err, closeAll(pieces[0]), closeAll(pieces[1])) }()
	for i, whole := range []side{a, b} {
		pieces[i] = s.NewSet(nil).parts
		err := whole.each(func(e Entry, gone bool) error { return pieces[i][s.partition(e.Key, depth+1)].append(e, gone) })
		if err != nil {
			return err
		}
	}
	for i := range s.Partitions {
		if err := s.walk(ctx, side{&pieces[0][i], a.merge}, side{&pieces[1][i], b.merge}, depth+1, visit); err != nil {
			return err
		}
		if err := errors.Join(pieces[0][i].close(), pieces[1][i].close()); err != nil { // gives the space back at once
			return err
		}
	}
	return nil
}
