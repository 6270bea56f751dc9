package standalone

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// totals is ready once the totals hold everything that the source had when capture began: before that the page would
// show a part of the history as if it were all.
type totals struct {
	dsn      string
	complete atomic.Bool
}

// every 200 ms is often enough for a person who waits, and only until it is there.
const totalsPause = 200 * time.Millisecond

// Run looks until the totals are complete once, then does nothing more.
func (s *totals) Run(ctx context.Context) error {
	for ctx.Err() == nil && !s.look(ctx) {
		select {
		case <-ctx.Done():
		case <-time.After(totalsPause):
		}
	}
	<-ctx.Done()
	return nil
}

func (s *totals) look(ctx context.Context) bool {
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return false
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM millrace.sales_progress)").Scan(&there); err != nil {
		return false // aggregate has not made the tables yet
	}
	s.complete.Store(there)
	return there
}

// Ready is nil once the totals are complete.
func (s *totals) Ready() error {
	if !s.complete.Load() {
		return errors.New("the history is still being read into the totals")
	}
	return nil
}
