package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/services/aggregate/internal/sales"
)

// Record is one input record.
type Record struct {
	Partition
	Offset int64
	Image  sales.Image
	// Quarantined tells that the record lies in quarantine already: only its position and its counter are left to write.
	Quarantined bool
}

// Span is what a batch covers of a claimed partition: the offsets from, inclusive, to, exclusive.
type Span struct {
	Claim    Claim
	From, To int64
}

// Batch is records of any of the spans' partitions, in order within each, and the spans that they are all of.
type Batch struct {
	Records []Record
	Spans   []Span
}

// Tally counts outcomes by partition.
type Tally map[Partition]*[sales.Outcomes]int64

func (t Tally) add(p Partition, o sales.Outcome) {
	if t[p] == nil {
		t[p] = new([sales.Outcomes]int64)
	}
	t[p][o]++
}

// Done is what a batch has done.
type Done struct {
	Tally Tally
	Hours []time.Time // whose totals may have changed, UTC
}

func (d *Done) merge(e Done) {
	for p, counts := range e.Tally {
		if d.Tally[p] == nil {
			d.Tally[p] = new([sales.Outcomes]int64)
		}
		for i, n := range counts {
			d.Tally[p][i] += n
		}
	}
	d.Hours = append(d.Hours, e.Hours...)
}

// Guard is how the caller takes part in a batch.
type Guard struct {
	// Reject puts a record that the database refuses into quarantine; nil once it is safe there.
	Reject func(ctx context.Context, r Record, reason error) error
	// Waiting is told each failure that the batch is tried again after; an error ends the tries.
	Waiting func(err error) error
}

// Write writes the batch, once, whatever happens on the way: retries what may succeed later, for ever, finds the
// records that the database refuses and hands them to Reject. It ends with [ErrFenced], with the guard's error or with
// the context's; then part of the batch may be written, which the positions tell.
func (l *Ledger) Write(ctx context.Context, b Batch, g Guard) (Done, error) {
	done, err := l.persist(ctx, b, g)
	if err == nil || !dataError(err) {
		return done, err
	}
	if len(b.Records) == 1 {
		r := b.Records[0]
		if r.Quarantined {
			return Done{}, fmt.Errorf("write the position of a record in quarantine: %w", safe(err))
		}
		if err := g.Reject(ctx, r, safe(err)); err != nil {
			return Done{}, err
		}
		r.Quarantined = true
		b.Records = []Record{r}
		return l.persist(ctx, b, g)
	}
	first, second := b.Split(len(b.Records) / 2)
	done, err = l.Write(ctx, first, g)
	if err != nil {
		return Done{}, err
	}
	rest, err := l.Write(ctx, second, g)
	if err != nil {
		return Done{}, err
	}
	done.merge(rest)
	return done, nil
}

// Split cuts the batch after n records; second is empty if it has no more. A span that ends in the first part is not in
// the second.
func (b Batch) Split(n int) (first, second Batch) {
	if n >= len(b.Records) {
		return b, Batch{}
	}
	first.Records, second.Records = b.Records[:n], b.Records[n:]
	reached := map[Partition]int64{}
	for _, r := range first.Records {
		reached[r.Partition] = r.Offset + 1
	}
	last := map[Partition]bool{}
	for _, r := range second.Records {
		last[r.Partition] = true
	}
	for _, s := range b.Spans {
		middle, begun := reached[s.Claim.Partition]
		switch {
		case !begun:
			second.Spans = append(second.Spans, s)
		case !last[s.Claim.Partition]:
			first.Spans = append(first.Spans, s)
		default:
			first.Spans = append(first.Spans, Span{s.Claim, s.From, middle})
			second.Spans = append(second.Spans, Span{s.Claim, middle, s.To})
		}
	}
	return first, second
}

// persist is Write for a batch without records that the database refuses; a data error is returned.
func (l *Ledger) persist(ctx context.Context, b Batch, g Guard) (Done, error) {
	var committing *Done // what a transaction whose end is unknown would have done
	for try := 0; ; try++ {
		done, commit, err := l.attempt(ctx, b)
		switch {
		case err == nil:
			return done, nil
		case ctx.Err() != nil:
			return Done{}, ctx.Err()
		case errors.Is(err, ErrFenced) && committing != nil:
			if landed, lerr := l.landed(ctx, b.Spans); lerr == nil && landed {
				return *committing, nil
			} else if lerr == nil {
				return Done{}, ErrFenced
			}
		case errors.Is(err, ErrFenced), dataError(err):
			return Done{}, err
		}
		if commit {
			committing = &done
		}
		if err := g.Waiting(safe(err)); err != nil {
			return Done{}, err
		}
		if !pause(ctx, try) {
			return Done{}, ctx.Err()
		}
	}
}

// pause waits a random while that grows with the tries, a second at most; false if ctx ended.
func pause(ctx context.Context, try int) bool {
	d := min(10*time.Millisecond<<min(try, 8), time.Second)
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// landed tells whether a transaction whose commit gave no answer was committed: all positions are where it put them.
func (l *Ledger) landed(ctx context.Context, spans []Span) (bool, error) {
	positions, err := l.Positions(ctx)
	if err != nil {
		return false, err
	}
	for _, s := range spans {
		if !slices.ContainsFunc(positions, func(p Position) bool {
			return p.Partition == s.Claim.Partition && p.Epoch == s.Claim.Epoch && p.Next == s.To
		}) {
			return false, nil
		}
	}
	return true, nil
}

// attempt is one transaction. commit tells that it failed at its commit, so that it may have been committed.
func (l *Ledger) attempt(ctx context.Context, b Batch) (done Done, commit bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	tx, err := l.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return Done{}, false, fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback(context.WithoutCancel(ctx)) // the error to tell is the first one
		}
	}()
	t := transaction{Tx: tx, ledger: l}
	if done, err = t.write(ctx, b); err != nil {
		return Done{}, false, err
	}
	if err = tx.Commit(ctx); err != nil {
		var pg *pgconn.PgError
		refused := errors.As(err, &pg) || errors.Is(err, pgx.ErrTxCommitRollback)
		return done, !refused, fmt.Errorf("commit: %w", err)
	}
	return done, false, nil
}
