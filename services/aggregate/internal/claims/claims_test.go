package claims

import (
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func in(n int32) schemas.Partition { return schemas.Partition{Topic: "store.t", Partition: n} }

func out(n int32) schemas.Partition { return schemas.Partition{Topic: "sales.lines", Partition: n} }

func captured(incomplete []string, parts ...int32) schemas.Claim {
	c := schemas.Claim{Stage: "cdc", Instance: "slot", Incomplete: incomplete}
	for _, p := range parts {
		c.Ends = append(c.Ends, schemas.PartitionOffset{Topic: "store.t", Partition: p, Offset: 7})
	}
	return c
}

// enriched claims the second s and the LSN s for the inputs, with everything before end in the partition.
func enriched(instance string, s int64, end int64, part int32, inputs ...int32) schemas.Claim {
	c := schemas.Claim{Stage: "enrich", Instance: instance, ValidThrough: start.Add(time.Duration(s) * time.Second), SourceLSN: s,
		Ends: []schemas.PartitionOffset{{Topic: "sales.lines", Partition: part, Offset: end}}}
	for _, p := range inputs {
		c.Covers = append(c.Covers, in(p))
	}
	return c
}

func TestState(t *testing.T) {
	at := func(offsets ...int64) map[schemas.Partition]int64 {
		m := map[schemas.Partition]int64{}
		for i, o := range offsets {
			m[out(int32(i))] = o
		}
		return m
	}
	for name, c := range map[string]struct {
		claims    []schemas.Claim
		positions map[schemas.Partition]int64
		want      int64 // seconds; -1 for none
		missing   int
	}{
		"nothing":                        {nil, at(), -1, 0},
		"cdc only":                       {[]schemas.Claim{captured(nil, 0, 1)}, at(), -1, 2},
		"enrich only":                    {[]schemas.Claim{enriched("a", 1, 0, 0, 0)}, at(), -1, 0},
		"nothing to read":                {[]schemas.Claim{captured(nil, 0), enriched("a", 1, 0, 0, 0)}, at(), 1, 0},
		"not reached":                    {[]schemas.Claim{captured(nil, 0), enriched("a", 1, 5, 0, 0)}, at(4), -1, 1},
		"reached":                        {[]schemas.Claim{captured(nil, 0), enriched("a", 1, 5, 0, 0)}, at(5), 1, 0},
		"the newest that is reached":     {[]schemas.Claim{captured(nil, 0), enriched("a", 1, 5, 0, 0), enriched("a", 2, 6, 0, 0), enriched("a", 3, 9, 0, 0)}, at(8), 2, 0},
		"the least of the inputs":        {[]schemas.Claim{captured(nil, 0, 1), enriched("a", 3, 5, 0, 0), enriched("b", 2, 5, 1, 1)}, at(9, 9), 2, 0},
		"an input without a claim":       {[]schemas.Claim{captured(nil, 0, 1), enriched("a", 3, 5, 0, 0)}, at(9), -1, 1},
		"an input that moved":            {[]schemas.Claim{captured(nil, 0), enriched("a", 3, 5, 0, 0), enriched("b", 4, 5, 0, 0)}, at(9), 4, 0},
		"an old claim of another":        {[]schemas.Claim{captured(nil, 0), enriched("a", 3, 5, 0, 0), enriched("b", 1, 5, 0, 0)}, at(9), 3, 0},
		"cdc no longer has a partition":  {[]schemas.Claim{captured(nil, 0, 1), captured(nil, 0), enriched("a", 3, 5, 0, 0)}, at(9), 3, 0},
		"the other partition is too far": {[]schemas.Claim{captured(nil, 0), enriched("a", 3, 5, 1, 0)}, at(9, 4), -1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBook()
			for _, claim := range c.claims {
				b.Take(claim)
			}
			s, missing, ok := b.At(c.positions)
			if ok != (c.want >= 0) || len(missing) != c.missing {
				t.Fatalf("got %v %v %v, want %d with %d missing", s, missing, ok, c.want, c.missing)
			}
			if ok && (s.SourceLSN != c.want || !s.ValidThrough.Equal(start.Add(time.Duration(c.want)*time.Second))) {
				t.Errorf("got %v, want %d", s, c.want)
			}
		})
	}
}

func TestReachedClaimsStayTrue(t *testing.T) {
	b := NewBook()
	b.Take(captured([]string{"store.x"}, 0))
	b.Take(enriched("a", 1, 5, 0, 0))
	if _, _, ok := b.At(map[schemas.Partition]int64{out(0): 5}); !ok {
		t.Fatal("not reached")
	}
	b.Take(enriched("a", 2, 9, 0, 0))
	s, _, ok := b.At(map[schemas.Partition]int64{out(0): 6})
	if !ok || s.SourceLSN != 1 || !slices.Equal(s.Incomplete, []string{"store.x"}) {
		t.Errorf("got %v %v", s, ok)
	}
}

func TestFarBehind(t *testing.T) {
	b := NewBook()
	b.Take(captured(nil, 0))
	for i := range int64(100_000) {
		b.Take(enriched("a", i, i, 0, 0))
	}
	if n := len(b.pending["a"]); n > maxPending {
		t.Errorf("%d claims are kept", n)
	}
	s, _, ok := b.At(map[schemas.Partition]int64{out(0): 60_000})
	if !ok || s.SourceLSN > 60_000 {
		t.Errorf("half way: got %v %v", s, ok)
	}
	if s, _, _ = b.At(map[schemas.Partition]int64{out(0): 100_000}); s.SourceLSN != 99_999 {
		t.Errorf("caught up: got %v", s)
	}
}

// Two captures through a slot each are claimed by enrich apart: a sink is complete through what the one behind says.
func TestTwoCaptures(t *testing.T) {
	b := NewBook()
	for slot, part := range map[string]int32{"sales": 0, "rest": 1} {
		c := captured(nil, part)
		c.Instance = slot
		b.Take(c)
	}
	for s := range int64(2 * maxPending) { // they take turns
		b.Take(enriched("e/sales", s+100, s, 0, 0))
		b.Take(enriched("e/rest", s, s, 0, 1))
	}
	got, missing, ok := b.At(map[schemas.Partition]int64{out(0): 5 * maxPending})
	if want := start.Add((2*maxPending - 1) * time.Second); !ok || !got.ValidThrough.Equal(want) {
		t.Errorf("complete through %v, missing %v, want %v", got.ValidThrough, missing, want)
	}
}
