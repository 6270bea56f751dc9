package reference

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestTextsComeBack(t *testing.T) {
	long := strings.Repeat("x", 300)
	row := Pack(7, []Text{{"a", true}, {}, {"", true}, {long, true}, {"z", true}})
	for i, want := range []Text{{"a", true}, {}, {"", true}, {long, true}, {"z", true}, {}, {}} {
		if got, ok := row.Text(i); got != want.Value || ok != want.Valid {
			t.Errorf("%d: %q %v", i, got, ok)
		}
	}
	if _, ok := (Row{}).Text(0); ok {
		t.Error("an empty row has a text")
	}
}

func TestChanges(t *testing.T) {
	s := New(2)
	row := func(seq int64, text string) Row { return Pack(seq, []Text{{text, true}}) }
	s.Apply([]Change{{Table: 0, Key: "a", Row: row(1, "one")}, {Table: 1, Key: "a", Row: row(1, "other table")}, {Table: 0, Key: "a", Row: row(3, "three")},
		{Table: 0, Key: "a", Row: row(2, "late")}, {Table: 0, Key: "a", Row: Row{Seq: 1}, Gone: true}})
	s.View(func(v View) {
		r, ok := v.Row(0, "a")
		if text, _ := r.Text(0); !ok || text != "three" || r.Seq != 3 {
			t.Errorf("%+v %v", r, ok)
		}
	})
	s.Apply([]Change{{Table: 0, Key: "a", Row: Row{Seq: 4}, Gone: true}})
	if s.Len(0) != 0 || s.Len(1) != 1 {
		t.Errorf("%d and %d rows", s.Len(0), s.Len(1))
	}
}

func TestAMillionCustomersFit(t *testing.T) {
	const rows = 200_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := New(1)
	for i := range rows {
		s.Apply([]Change{{Key: fmt.Sprint(100_000_000 + i), Row: Pack(int64(i), []Text{{"Germany", true}, {}, {fmt.Sprint("Some city ", i), true}, {"1370", true}})}})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / rows; each > 300 {
		t.Errorf("%d bytes a row", each)
	} else {
		t.Logf("%d bytes a row", each)
	}
	runtime.KeepAlive(s)
}
