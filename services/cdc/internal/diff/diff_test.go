package diff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fill puts random rows, some more than once and some deleted again, into a set and into a map.
func fill(t testing.TB, r *rand.Rand, s *Set, keys, operations int) map[string]Entry {
	t.Helper()
	want := map[string]Entry{}
	for range operations {
		key := []byte(strings.Repeat("k", r.IntN(3)) + fmt.Sprint(r.IntN(keys)))
		if r.IntN(4) == 0 {
			delete(want, string(key))
			if err := s.Delete(key); err != nil {
				t.Fatal(err)
			}
			continue
		}
		e := Entry{Key: key, Sum: SumOf([]byte{byte(r.IntN(3))}), Extra: bytes.Repeat([]byte{1}, r.IntN(40))}
		want[string(key)] = e
		if err := s.Put(e); err != nil {
			t.Fatal(err)
		}
		clear(key) // it was copied
	}
	return want
}

func TestDifferenceIsThatOfMaps(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		space := NewSpace(Options{Dir: dir, Partitions: 2 + r.IntN(4), Memory: 500 + r.IntN(20_000)})
		source, target := space.NewSet(nil), space.NewSet(nil)
		keys := 1 + r.IntN(600)
		want, have := fill(t, r, source, keys, r.IntN(3000)), fill(t, r, target, keys, r.IntN(3000))
		found := map[string]Kind{}
		counts, err := Compare(t.Context(), source, target, SameSum, func(d Difference) error {
			if found[string(d.Key())] != 0 {
				t.Fatalf("seed %d: a key comes twice", seed)
			}
			found[string(d.Key())] = d.Kind
			w, h := want[string(d.Source.Key)], have[string(d.Target.Key)]
			if d.Kind != Extra && (w.Sum != d.Source.Sum || !bytes.Equal(w.Extra, d.Source.Extra)) ||
				d.Kind != Missing && (h.Sum != d.Target.Sum || !bytes.Equal(h.Extra, d.Target.Extra)) {
				t.Fatalf("seed %d: the entries are not those that were put", seed)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		checkCounts(t, want, have, found, counts)
		if names, _ := os.ReadDir(dir); len(names) > 0 {
			t.Errorf("%d files are in the directory", len(names))
		}
		visited := 0
		if err := source.Each(t.Context(), func(e Entry) error {
			if visited++; want[string(e.Key)].Sum != e.Sum {
				t.Fatal("a visited entry is not the one that was put")
			}
			return nil
		}); err != nil || visited != len(want) {
			t.Fatalf("visited %d of %d: %v", visited, len(want), err)
		}
		if err := errors.Join(source.Close(), target.Close(), source.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func checkCounts(t *testing.T, want, have map[string]Entry, found map[string]Kind, got Counts) {
	t.Helper()
	sum := Counts{Source: int64(len(want)), Target: int64(len(have))}
	for k, w := range want {
		h, ok := have[k]
		switch {
		case !ok:
			sum.Missing++
		case h.Sum != w.Sum:
			sum.Different++
		default:
			sum.Equal++
			continue
		}
		if found[k] == 0 || found[k] == Extra {
			t.Fatalf("a key is not told, or as %v", found[k])
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			if sum.Extra++; found[k] != Extra {
				t.Fatalf("an extra key is told as %v", found[k])
			}
		}
	}
	if got != sum || int64(len(found)) != sum.Differences() {
		t.Fatalf("counted %+v, want %+v", got, sum)
	}
}

func TestLaterEntriesAreMerged(t *testing.T) {
	join := func(former, later Entry) Entry {
		return Entry{Key: later.Key, Sum: later.Sum, Extra: append(bytes.Clone(former.Extra), later.Extra...)}
	}
	space := NewSpace(Options{Dir: t.TempDir(), Memory: 1000, Partitions: 3})
	set, other := space.NewSet(join), space.NewSet(nil)
	for round := range 3 {
		for i := range 200 {
			if err := set.Put(Entry{Key: fmt.Append(nil, i), Extra: []byte{byte('a' + round)}}); err != nil {
				t.Fatal(err)
			}
		}
		if round == 0 {
			if err := set.Delete([]byte("7")); err != nil {
				t.Fatal(err)
			}
		}
	}
	counts, err := Compare(t.Context(), other, set, SameAll, func(d Difference) error {
		want := "abc"
		if string(d.Key()) == "7" { // what was before a deletion does not count
			want = "bc"
		}
		if string(d.Target.Extra) != want {
			t.Fatalf("merged to %q, want %q", d.Target.Extra, want)
		}
		return nil
	})
	if err != nil || counts.Extra != 200 {
		t.Fatalf("%+v, %v", counts, err)
	}
}

func TestOneHotKeyNeedsNoMemory(t *testing.T) {
	set := NewSpace(Options{Dir: t.TempDir(), Memory: 2000, Partitions: 2}).NewSet(nil)
	for i := range 50_000 {
		if err := set.Put(Entry{Key: []byte("hot"), Sum: SumOf(fmt.Append(nil, i))}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	if err := set.Each(t.Context(), func(e Entry) error { n++; return nil }); err != nil || n != 1 {
		t.Fatalf("%d keys, %v", n, err)
	}
}

func TestWhatCannotBeDividedIsAnError(t *testing.T) {
	set := NewSpace(Options{Dir: t.TempDir(), Memory: 100, Partitions: 2}).NewSet(nil)
	if err := set.Put(Entry{Key: make([]byte, 1000)}); err != nil {
		t.Fatal(err)
	}
	if err := set.Each(t.Context(), func(Entry) error { return nil }); err == nil || !strings.Contains(err.Error(), "cannot be divided") {
		t.Fatal(err)
	}
}

func TestSpilledFilesThatAreSpoiltAreErrors(t *testing.T) {
	for name, spoil := range map[string]func(*spill) error{
		"cut":      func(s *spill) error { return s.file.Truncate(s.size / 2) },
		"length":   func(s *spill) error { _, err := s.file.WriteAt(bytes.Repeat([]byte{0xff}, 40), 0); return err },
		"appended": func(s *spill) error { s.size -= 3; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			set := NewSpace(Options{Dir: t.TempDir(), Partitions: 2}).NewSet(nil)
			for i := range 5000 {
				if err := set.Put(Entry{Key: fmt.Append(nil, "key", i), Extra: []byte("abc")}); err != nil {
					t.Fatal(err)
				}
			}
			set.parts[0].buf = nil
			if err := spoil(&set.parts[0]); err != nil {
				t.Fatal(err)
			}
			if err := set.Each(t.Context(), func(Entry) error { return nil }); !errors.Is(err, errSpoilt) {
				t.Errorf("it is read as: %v", err)
			}
		})
	}
}

func TestEndsWithItsContextAndItsVisitor(t *testing.T) {
	space := NewSpace(Options{Dir: t.TempDir(), Partitions: 2})
	a, b := space.NewSet(nil), space.NewSet(nil)
	for i := range 10_000 {
		if err := a.Put(Entry{Key: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Compare(ctx, a, b, SameSum, func(Difference) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	stop := errors.New("enough")
	if _, err := Compare(t.Context(), a, b, SameSum, func(Difference) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	if _, err := Compare(t.Context(), a, NewSpace(Options{}).NewSet(nil), SameSum, nil); err == nil {
		t.Error("sets of two spaces are compared")
	}
}

func TestDisksThatDoNotTakeItAreNamed(t *testing.T) {
	full := diskError("/some/dir", &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})
	if !strings.Contains(full.Error(), "/some/dir is full") || !strings.Contains(full.Error(), "cdc.spill_dir") {
		t.Error(full)
	}
	set := NewSpace(Options{Dir: filepath.Join(t.TempDir(), "none"), Partitions: 2}).NewSet(nil)
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		err = set.Put(Entry{Key: fmt.Append(nil, i)})
	}
	if err == nil || !strings.Contains(err.Error(), "cdc.spill_dir") {
		t.Error(err)
	}
}

func BenchmarkPutAndCompare(b *testing.B) {
	space := NewSpace(Options{Dir: b.TempDir()})
	for b.Loop() {
		x, y := space.NewSet(nil), space.NewSet(nil)
		key := make([]byte, 0, 20)
		for i := range 100_000 {
			key = fmt.Append(key[:0], "key", i)
			e := Entry{Key: key, Sum: SumOf(key)}
			if err := errors.Join(x.Put(e), y.Put(e)); err != nil {
				b.Fatal(err)
			}
		}
		if c, err := Compare(b.Context(), x, y, SameSum, nil); err != nil || c.Equal != 100_000 {
			b.Fatal(c, err)
		}
		_ = x.Close()
		_ = y.Close()
	}
	b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "rows/s")
}
