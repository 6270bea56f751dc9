package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

// Progress is what the totals are complete through.
type Progress struct {
	ValidThrough time.Time
	SourceLSN    int64
	Incomplete   []string
}

// SetProgress writes the progress unless a later one is there: several processes may write it.
func (l *Ledger) SetProgress(ctx context.Context, p Progress) error {
	incomplete := p.Incomplete
	if incomplete == nil {
		incomplete = []string{}
	}
	if _, err := l.pool.Exec(ctx, `INSERT INTO millrace.sink_progress AS p (sink, valid_through, source_lsn, incomplete)
		VALUES ($1, $2, ('0/0'::pg_lsn + $3::bigint::numeric), $4)
		ON CONFLICT (sink) DO UPDATE SET valid_through = excluded.valid_through, source_lsn = excluded.source_lsn,
		    incomplete = excluded.incomplete, updated_at = now()
		WHERE excluded.valid_through >= p.valid_through
		  AND (excluded.valid_through, excluded.source_lsn, excluded.incomplete) IS DISTINCT FROM (p.valid_through, p.source_lsn, p.incomplete)`,
		Sink, p.ValidThrough, p.SourceLSN, incomplete); err != nil {
		return fmt.Errorf("write the progress: %w", safe(err))
	}
	return nil
}

// Waiting counts the lines whose header has not been seen.
func (l *Ledger) Waiting(ctx context.Context) (int64, error) {
	var n int64
	if err := l.pool.QueryRow(ctx, `SELECT count(*) FROM millrace.ledger_lines WHERE waiting`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the waiting lines: %w", safe(err))
	}
	return n, nil
}

// maxHours keeps an announcement below the 8000 bytes that a notification may have.
const maxHours = 200

// Announce tells listeners on [schemas.SalesChanged] which hours have changed: {"hours":["2026-03-01T10:00:00Z"]}, or {"all":true}
// if they are many. It is a hint: a lost one is not sent again.
func (l *Ledger) Announce(ctx context.Context, hours []time.Time) error {
	message := struct {
		Hours []string `json:"hours,omitempty"`
		All   bool     `json:"all,omitempty"`
	}{All: len(hours) > maxHours}
	if !message.All {
		for _, h := range hours {
			message.Hours = append(message.Hours, h.UTC().Format(time.RFC3339))
		}
	}
	payload, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("announce the changed hours: %w", err)
	}
	if _, err := l.pool.Exec(ctx, `SELECT pg_notify($1, $2)`, schemas.SalesChanged, string(payload)); err != nil {
		return fmt.Errorf("announce the changed hours: %w", safe(err))
	}
	return nil
}
