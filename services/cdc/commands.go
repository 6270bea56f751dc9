package cdc

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/preflight"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

// Check writes what it finds about the source to out. The error wraps app.ErrDifferences when capture cannot work.
func Check(ctx context.Context, out io.Writer, cfg Config, source SourceConfig) error {
	conn, err := connectSQL(ctx, source, "millrace-cdc-check")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	result, err := preflight.Run(ctx, conn, preflight.Request{URL: source.URL.Reveal(), Slot: cfg.Slot, Publication: cfg.Publication,
		Tables: cfg.Tables, Personal: cfg.personal, Options: cfg.options()})
	if err != nil {
		return err
	}
	for _, f := range result.Findings {
		if _, err := fmt.Fprintln(out, f); err != nil {
			return err
		}
	}
	if n := len(result.Problems(true)); n > 0 {
		return fmt.Errorf("%w: capture cannot work yet, problems: %d", app.ErrDifferences, n)
	}
	_, err = fmt.Fprintf(out, "ready for capture: PostgreSQL %d, %d tables\n", result.Version/10000, len(result.Tables))
	return err
}

// Status writes the recorded position and what the source says about the slot to out.
func (s *Service) Status(ctx context.Context, out io.Writer) error {
	p, have, err := readPosition(ctx, s.deps.Kafka, s.deps.Registry, s.deps.Log, settled, s.cfg.Slot)
	if err != nil {
		return err
	}
	if !have {
		fmt.Fprintf(out, "position   none\n")
	} else {
		fmt.Fprintf(out, "position   %s, recorded %s ago\ncommitted  %s\nsnapshot   %s\nsystem     %s, timeline %d\nseq        %d\n", pgoutput.LSN(p.LSN),
			time.Since(p.UpdatedAt).Round(time.Second), p.CommitTime.Format(time.RFC3339Nano), orNone(p.Snapshot), p.SystemID, p.Timeline, p.Seq)
	}
	for _, t := range slices.Sorted(maps.Keys(p.Stopped)) {
		fmt.Fprintf(out, "stopped    %s: %s\n", t, p.Stopped[t])
	}
	conn, err := connectSQL(ctx, s.deps.Source, "millrace-cdc-status")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	slot, err := readSlot(ctx, conn, s.cfg.Slot)
	if err != nil {
		return err
	}
	switch {
	case !slot.exists:
		fmt.Fprintf(out, "slot       %s does not exist\n", s.cfg.Slot)
	case slot.lost:
		fmt.Fprintf(out, "slot       %s is lost (%s)\n", s.cfg.Slot, causeText(slot.cause))
	default:
		fmt.Fprintf(out, "slot       %s, confirmed %s, read by process %d, keeps %d bytes of log\n", s.cfg.Slot, slot.confirmed, slot.activePID, slot.retained)
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// Reset drops the slot, if it is there, and writes an empty position that keeps seq: the next Run takes a new snapshot.
// It fails while a cdc is running.
func (s *Service) Reset(ctx context.Context) error {
	sql, err := connectSQL(ctx, s.deps.Source, "millrace-cdc-reset")
	if err != nil {
		return err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	if err := s.awaitFree(ctx, sql); err != nil {
		return err
	}
	conn, err := replica.Connect(ctx, s.deps.Source.URL.Reveal(), "millrace-cdc-reset")
	if err != nil {
		return err
	}
	defer conn.Close()
	ses := &session{Service: s, sql: sql, pool: newPool()}
	if ses.system, err = conn.Identify(ctx); err != nil {
		return err
	}
	if err := ses.openKafka(ctx); err != nil {
		return err
	}
	defer ses.closeKafka()
	if err := conn.DropSlot(ctx, s.cfg.Slot); err != nil {
		return err
	}
	empty := schemas.Position{Slot: s.cfg.Slot, SystemID: ses.system.ID, Timeline: ses.system.Timeline, Seq: ses.position.Seq}
	if err := ses.commits.record(ctx, empty); err != nil {
		return err
	}
	s.deps.Log.Info("reset: the next run takes a new snapshot", "slot", s.cfg.Slot)
	return nil
}

// leaving is how long the source may take to notice that a cdc is gone.
const leaving = 3 * time.Second

// awaitFree waits a moment for a cdc that has just been stopped to be gone from the source.
func (s *Service) awaitFree(ctx context.Context, sql *pgx.Conn) error {
	for deadline := time.Now().Add(leaving); ; {
		slot, err := readSlot(ctx, sql, s.cfg.Slot)
		if err != nil {
			return err
		}
		if err = slot.busy(s.cfg.Slot); err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
