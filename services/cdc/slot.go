package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

// slotInfo is what the source says about our slot.
type slotInfo struct {
	exists    bool
	plugin    string
	database  string
	activePID int32 // 0: nobody reads it
	lost      bool
	cause     string // why it is lost, as the source says
	restart   pgoutput.LSN
	confirmed pgoutput.LSN
	retained  int64 // bytes of log that it keeps
}

func readSlot(ctx context.Context, conn *pgx.Conn, slot string) (slotInfo, error) {
	var i slotInfo
	var restart, confirmed int64
	// Which columns there are depends on the version: as JSON the missing ones are null.
	err := conn.QueryRow(ctx, `SELECT coalesce(j->>'plugin', ''), coalesce(j->>'database', ''), coalesce((j->>'active_pid')::int, 0),
		coalesce(j->>'wal_status' = 'lost', false) OR coalesce((j->>'conflicting')::bool, false) OR j->>'invalidation_reason' IS NOT NULL,
		coalesce(j->>'invalidation_reason', j->>'wal_status', ''),
		coalesce((j->>'restart_lsn')::pg_lsn - '0/0', 0)::bigint, coalesce((j->>'confirmed_flush_lsn')::pg_lsn - '0/0', 0)::bigint,
		coalesce(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - (j->>'restart_lsn')::pg_lsn, 0)::bigint
		FROM (SELECT to_jsonb(s) AS j FROM pg_replication_slots s WHERE slot_name = $1) q`, slot).
		Scan(&i.plugin, &i.database, &i.activePID, &i.lost, &i.cause, &restart, &confirmed, &i.retained)
	if errors.Is(err, pgx.ErrNoRows) {
		return slotInfo{}, nil
	}
	if err != nil {
		return slotInfo{}, fmt.Errorf("look at the slot %s: %w", slot, err)
	}
	i.exists, i.restart, i.confirmed = true, pgoutput.LSN(restart), pgoutput.LSN(confirmed)
	return i, nil
}

// busy is an error while somebody reads the slot.
func (i slotInfo) busy(slot string) error {
	if i.activePID == 0 {
		return nil
	}
	return fmt.Errorf("the slot %s is read by process %d of the source: another cdc is running, or the source has not noticed yet that it is gone", slot, i.activePID)
}

// verify compares the position with the source before anything is read: the server itself goes on silently over a gap.
func verify(ctx context.Context, conn *replica.Conn, system replica.System, slot slotInfo, p schemas.Position) error {
	stored := pgoutput.LSN(p.LSN)
	switch {
	case p.SystemID != system.ID:
		return gap("the position is one of system %s, and the source is system %s", p.SystemID, system.ID)
	case !slot.exists:
		return gap("the slot %s is not on the source any more, and the position %s is", p.Slot, stored)
	case slot.lost:
		return gap("the source has invalidated the slot %s (%s)", p.Slot, causeText(slot.cause))
	case slot.plugin != "pgoutput":
		return gap("the slot %s was made for %s, not for pgoutput", p.Slot, slot.plugin)
	case slot.database != system.Database:
		return gap("the slot %s belongs to the database %s, and source.url names %s", p.Slot, slot.database, system.Database)
	case slot.confirmed > stored:
		return gap("somebody moved the slot %s to %s, beyond the position %s", p.Slot, slot.confirmed, stored)
	case system.Timeline < p.Timeline:
		return gap("the source is on timeline %d, older than that of the position, %d: it was restored, or is another copy", system.Timeline, p.Timeline)
	case system.Timeline > p.Timeline && p.Timeline > 0:
		left, ok, err := conn.SwitchPoint(ctx, system.Timeline, p.Timeline)
		if err != nil {
			return err
		}
		if !ok || stored > left {
			return gap("the source's history left timeline %d at %s, before the position %s", p.Timeline, left, stored)
		}
	}
	return nil
}

func causeText(cause string) string {
	switch cause {
	case "rows_removed":
		return "rows_removed: the primary vacuumed catalog rows that it needed; check hot_standby_feedback and primary_slot_name on the replica"
	case "wal_level_insufficient":
		return "wal_level_insufficient: wal_level was lowered on the primary"
	case "wal_removed", "lost":
		return cause + ": it kept more log than max_slot_wal_keep_size allows on the replica, or met a conflict with recovery"
	case "idle_timeout":
		return "idle_timeout: idle_replication_slot_timeout on the replica"
	}
	return cause
}

// slotMaker creates the slot, which on a standby waits for the primary to log its running transactions.
type slotMaker struct {
	cfg    Config
	log    *slog.Logger
	sql    *pgx.Conn
	onWait func(context.Context)
	say    func(string) // what it is waiting for
}

func (m slotMaker) create(ctx context.Context, conn *replica.Conn, standby bool) (at pgoutput.LSN, snapshot string, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.SlotTimeout)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		at, snapshot, err = conn.CreateSlot(ctx, m.cfg.Slot)
	}()
	ask, tell := time.NewTicker(100*time.Millisecond), time.NewTicker(5*time.Second)
	defer ask.Stop()
	defer tell.Stop()
	begin := time.Now()
	waiting := "waiting for the source to create the slot"
	for {
		select {
		case <-done:
			var pg *pgconn.PgError
			if errors.As(err, &pg) && pg.Code == "55000" {
				return 0, "", fmt.Errorf("%w; wal_level must be logical on the primary as well", err)
			}
			if err != nil && ctx.Err() != nil {
				return 0, "", fmt.Errorf("the slot was not ready after %v: %s", time.Since(begin).Round(time.Second), waiting)
			}
			return at, snapshot, err
		case <-ask.C:
			if standby && m.onWait != nil {
				m.onWait(ctx)
			}
		case <-tell.C:
			waiting = m.diagnose(ctx, conn.PID())
			m.say(waiting)
			m.log.Info("creating the slot", "since", time.Since(begin).Round(time.Second), "waiting", waiting)
		}
	}
}

// diagnose says which wait it is. It uses a connection of its own, for the slot's is waiting.
func (m slotMaker) diagnose(ctx context.Context, pid uint32) string {
	var event, kind string
	var lag float64
	err := m.sql.QueryRow(ctx, `SELECT coalesce(wait_event, ''), coalesce(wait_event_type, ''),
		coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)::float8
		FROM pg_stat_activity WHERE pid = $1`, int32(pid)).Scan(&event, &kind, &lag)
	switch {
	case err != nil:
		return "the source does not say what it waits for"
	case kind == "Lock":
		return "a transaction that was open on the primary when the slot was begun must end first; on the primary: " +
			"SELECT pid, now() - xact_start AS age, state FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY age DESC"
	default:
		return fmt.Sprintf("the primary has to log its running transactions, and an idle one does not (last commit seen %.0f s ago, wait event %s); "+
			"on the primary, as superuser: SELECT pg_log_standby_snapshot()", lag, event)
	}
}
