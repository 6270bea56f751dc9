package cdc

import (
	"time"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// mostMarks bounds a history; beyond it every second mark is dropped.
const mostMarks = 1024

// logHistory remembers when the source's log was seen to have reached which position, so that a position can be told as an
// age. Ages are never too high: what happened before the first mark counts from it. It is for one goroutine.
type logHistory struct{ marks []mark }

type mark struct {
	at  time.Time
	end pgoutput.LSN
}

// saw adds that the log ended at end.
func (h *logHistory) saw(at time.Time, end pgoutput.LSN) {
	if n := len(h.marks); n > 0 {
		switch last := h.marks[n-1]; {
		case end == last.end:
			return
		case end < last.end: // another server
			h.marks = h.marks[:0]
		}
	}
	if len(h.marks) == mostMarks {
		for i := range mostMarks / 2 {
			h.marks[i] = h.marks[2*i+1]
		}
		h.marks = h.marks[:mostMarks/2]
	}
	h.marks = append(h.marks, mark{at, end})
}

// age is for how long the log has been beyond lsn, at least; 0 if it is not.
func (h *logHistory) age(now time.Time, lsn pgoutput.LSN) time.Duration {
	for _, m := range h.marks {
		if m.end > lsn {
			return max(0, now.Sub(m.at))
		}
	}
	return 0
}

// forget drops the marks that no age is asked of any more: those up to lsn.
func (h *logHistory) forget(lsn pgoutput.LSN) {
	n := 0
	for n+1 < len(h.marks) && h.marks[n].end <= lsn {
		n++
	}
	h.marks = append(h.marks[:0], h.marks[n:]...)
}
