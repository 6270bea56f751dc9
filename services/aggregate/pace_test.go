package aggregate

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	p := newPace(6000)
	for _, step := range []struct {
		n    int
		took time.Duration
		want int
	}{
		{1000, 10 * time.Millisecond, 2000},
		{700, 10 * time.Millisecond, 2000}, // a small one proves nothing
		{2000, 10 * time.Millisecond, 4000},
		{4000, 10 * time.Millisecond, 6000}, // as configured, no more
		{6000, 10 * time.Millisecond, 6000},
		{6000, 500 * time.Millisecond, 6000},
		{6000, 2 * time.Second, 3000},
		{3000, 2 * time.Second, 1500},
		{1500, 2 * time.Second, 1000},
		{1000, 2 * time.Second, 1000}, // no less
		{10, 2 * time.Second, 1000},
	} {
		if p.took(step.n, step.took); p.now != step.want {
			t.Fatalf("after %d records in %v: %d, want %d", step.n, step.took, p.now, step.want)
		}
	}
	if p := newPace(10); p.now != 10 {
		t.Errorf("a most of 10 begins with %d", p.now)
	}
}
