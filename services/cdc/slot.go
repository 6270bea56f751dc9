package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/pkg/app"
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
	end       pgoutput.LSN // of the log that the source has replayed or written
	retained  int64        // bytes of log that it keeps
	safe      *int64       // bytes until max_slot_wal_keep_size invalidates it; nil: no limit
	xminAge   int64        // transactions since its catalog_xmin, whose rows the primary may not vacuum
	decoded   int64        // transactions decoded since it was made or the statistics were reset
}

const slotSQL = `SELECT coalesce(j->>'plugin', ''), coalesce(j->>'database', ''), coalesce((j->>'active_pid')::int, 0),
	coalesce(j->>'wal_status' = 'lost', false) OR coalesce((j->>'conflicting')::bool, false) OR j->>'invalidation_reason' IS NOT NULL,
	coalesce(j->>'invalidation_reason', CASE WHEN (j->>'conflicting')::bool THEN 'lost' END, j->>'wal_status', ''),
	coalesce((j->>'restart_lsn')::pg_lsn - '0/0', 0)::bigint, coalesce((j->>'confirmed_flush_lsn')::pg_lsn - '0/0', 0)::bigint,
	coalesce(at - '0/0', 0)::bigint, coalesce(at - (j->>'restart_lsn')::pg_lsn, 0)::bigint, (j->>'safe_wal_size')::bigint,
	coalesce(age((j->>'catalog_xmin')::xid), 0)::bigint, coalesce((SELECT total_txns FROM pg_stat_replication_slots WHERE slot_name = $1), 0)
	FROM (SELECT to_jsonb(s) AS j, CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS at
		FROM pg_replication_slots s WHERE slot_name = $1) q`

// readSlot asks the source. Which columns there are depends on its version: as JSON the missing ones are null.
func readSlot(ctx context.Context, conn *pgx.Conn, slot string) (slotInfo, error) {
	var i slotInfo
	var restart, confirmed, end int64
	err := conn.QueryRow(ctx, slotSQL, slot).Scan(&i.plugin, &i.database, &i.activePID, &i.lost, &i.cause, &restart, &confirmed, &end,
		&i.retained, &i.safe, &i.xminAge, &i.decoded)
	if errors.Is(err, pgx.ErrNoRows) {
		return slotInfo{}, nil
	}
	if err != nil {
		return slotInfo{}, fmt.Errorf("look at the slot %s: %w", slot, err)
	}
	i.exists, i.restart, i.confirmed, i.end = true, pgoutput.LSN(restart), pgoutput.LSN(confirmed), pgoutput.LSN(end)
	return i, nil
}

// busy is an error while somebody reads the slot.
func (i slotInfo) busy(slot string) error {
	if i.activePID == 0 {
		return nil
	}
	return fmt.Errorf("the slot %s is read by process %d of the source: another cdc is running, or the source has not noticed yet that it is gone", slot, i.activePID)
}

// foreign is an error if the slot cannot be ours: it is not for us to drop.
func (i slotInfo) foreign(slot, database string) error {
	if i.plugin == "pgoutput" && i.database == database {
		return nil
	}
	return &app.UsageError{Err: fmt.Errorf("the slot %s is one of plugin %q and database %q, not ours: correct cdc.slot or source.url", slot, i.plugin, i.database)}
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
