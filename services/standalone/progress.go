package standalone

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells a person how far the start is: a line when a step begins to take time, and again while it lasts.
type progress struct {
	out  io.Writer
	mu   sync.Mutex
	last map[string]time.Time
	open map[string]bool
}

func newProgress(out io.Writer) *progress {
	return &progress{out: out, last: map[string]time.Time{}, open: map[string]bool{}}
}

// every is how often a lasting step is told again.
const every = time.Second

// report is called often; it prints seldom. done and total have the step's own unit (bytes or rows); total 0 is unknown.
func (p *progress) report(step string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	finished := total > 0 && done >= total
	if !finished && time.Since(p.last[step]) < every {
		return
	}
	if finished && !p.open[step] && !p.last[step].IsZero() {
		return
	}
	p.last[step] = time.Now()
	p.open[step] = !finished
	switch {
	case finished:
		fmt.Fprintf(p.out, "  %s: done\n", step)
	case total > 0:
		fmt.Fprintf(p.out, "  %s: %d %%\n", step, done*100/total)
	default:
		fmt.Fprintf(p.out, "  %s …\n", step)
	}
}
