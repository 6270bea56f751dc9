package aggregate

import "time"

// pace sizes transactions so that each takes well under a second. What a larger one saves is little, and it is lost
// when the process is killed, held up when the group rebalances, and late for those who look at the totals.
type pace struct{ most, now int }

const (
	// firstRecords is the size of the first transaction: a process that starts is soon at work, however slow the
	// database is. From a thousand on, the cost of a record hardly depends on the size.
	firstRecords = 1000
	quick        = 300 * time.Millisecond // a transaction below may be followed by a larger one
	slow         = 900 * time.Millisecond // one above, by a smaller one
)

func newPace(most int) *pace { return &pace{most: most, now: min(firstRecords, most)} }

// took notes what a transaction of n records cost.
func (p *pace) took(n int, d time.Duration) {
	switch {
	case d > slow:
		p.now = max(min(n, p.now)/2, min(firstRecords, p.most))
	case d < quick && n >= p.now:
		p.now = min(2*p.now, p.most)
	}
}
