package enrich

import (
	"testing"

	"github.com/millrace-io/millrace/schemas"
)

func entry(partition int32, missing string) *schemas.Waiting {
	return &schemas.Waiting{InputTopic: "in", InputPartition: partition, Missing: []string{missing}}
}

var (
	zero = []schemas.Partition{{Topic: "in", Partition: 0}}
	one  = []schemas.Partition{{Topic: "in", Partition: 1}}
)

func TestWhatIsWaitedFor(t *testing.T) {
	there := map[string]bool{"c/early": true}
	w := newWaitingImages(func(m string) bool { return there[m] })
	w.followed("a", entry(0, "c/1"), 0)
	w.followed("b", entry(1, "c/1"), 1)
	w.followed("c", entry(0, "c/early"), 2)
	if !w.pending(zero) || w.pending(one) {
		t.Error("a row that was there before counts, and only in its partition")
	}
	if got := w.take(zero, 10); len(got) != 1 || got["c"] == nil || w.pending(zero) {
		t.Errorf("taken %v", got)
	}
	if !w.arrived("c/1") || w.arrived("c/2") {
		t.Error("arrived")
	}
	got := w.take(zero, 10)
	if len(got) != 1 || got["a"] == nil {
		t.Fatalf("taken %v", got)
	}
	w.again(got)
	if !w.pending(zero) {
		t.Error("what was given back is lost")
	}
	w.followed("a", nil, 3)
	if w.pending(zero) || w.get("a") != nil || w.len() != 2 {
		t.Error("what waits no more is ready")
	}
	w.again(got)
	if w.pending(zero) {
		t.Error("what waits no more was given back")
	}
	w.followed("b", entry(1, "c/2"), 4)
	if want := entrySize("b", entry(1, "c/2")) + entrySize("c", entry(0, "c/early")); w.size() != want {
		t.Errorf("%d bytes, want %d", w.size(), want)
	}
	w.followed("b", nil, 5)
	w.followed("c", nil, 6)
	if w.size() != 0 {
		t.Errorf("%d bytes of nothing", w.size())
	}
}

// What we committed ourselves stands at once, and what the topic's reader tells later, from before it, does not undo it.
func TestOwnChangesAreAhead(t *testing.T) {
	w := newWaitingImages(func(string) bool { return false })
	older, newer, others := entry(0, "c/1"), entry(0, "c/2"), entry(0, "c/3")
	w.committed("a", older, 5)
	w.committed("a", newer, 7)
	w.followed("a", older, 5)
	if w.get("a") != newer {
		t.Error("an older record undid a newer change")
	}
	w.committed("a", nil, 9)
	w.followed("a", newer, 7)
	if w.get("a") != nil {
		t.Error("an older record undid an end")
	}
	w.followed("a", nil, 9)
	w.followed("a", others, 11) // of an instance that had the partition after us
	if w.get("a") != others || len(w.ahead) != 0 {
		t.Errorf("%v, %v", w.get("a"), w.ahead)
	}
	w.committed("a", newer, 10) // told late: the reader is past it
	if w.get("a") != others {
		t.Error("a change of ours undid a newer record")
	}
}
