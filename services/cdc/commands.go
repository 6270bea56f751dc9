package cdc

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

// Reset drops the slot, if it is there, and writes an empty position that keeps seq: the next Run takes a new snapshot.
// It fails while a cdc is running.
func (s *Service) Reset(ctx context.Context) error {
	if s.groups != nil {
		return s.eachGroup(func(g *Service) error { return g.Reset(ctx) })
	}
	sql, err := connectSQL(ctx, s.deps.Source, "millrace-cdc-reset")
	if err != nil {
		return err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	slot, err := readSlot(ctx, sql, s.cfg.Slot)
	if err == nil && slot.exists {
		err = slot.foreign(s.cfg.Slot, sql.Config().Database)
	}
	if err == nil {
		err = s.awaitFree(ctx, sql)
	}
	if err != nil {
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
	empty := schemas.Position{Slot: s.cfg.Slot, SystemID: ses.system.ID, Timeline: ses.system.Timeline, Seq: ses.position.Seq,
		Versions: ses.position.Versions, Requests: ses.position.Requests}
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
