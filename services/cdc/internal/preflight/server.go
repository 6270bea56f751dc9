package preflight

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

func levelOn(server string) mend {
	return mend{on: server, sql: "ALTER SYSTEM SET wal_level = 'logical'; then restart",
		rds: "set rds.logical_replication = 1 in the parameter group, then reboot"}
}

// smallKeep is a max_slot_wal_keep_size that a busy hour writes.
const smallKeep = 1 << 30

func (c *check) server(ctx context.Context) error {
	if err := c.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_superuser')").Scan(&c.result.RDS); err != nil {
		return fmt.Errorf("who runs the server: %w", err)
	}
	s, err := c.settings(ctx, "wal_level", "idle_replication_slot_timeout")
	if err != nil {
		return err
	}
	if level := s["wal_level"]; level != "logical" {
		c.add(CodeWALLevel, Problem, levelOn(c.source()), "wal_level is %s here; decoding needs logical (the setting is not inherited from the primary)", level)
	}
	if !c.result.Stats {
		c.add(CodeStats, Warning, mend{on: "primary", sql: "GRANT pg_read_all_stats TO " + rows.Quote(c.role)},
			"the role may not read pg_stat_wal_receiver: standby freshness unknown, and so are whether the replica is connected to its primary and over which slot")
	}
	if timeout := s["idle_replication_slot_timeout"]; timeout != "" && timeout != "0" {
		c.add(CodeIdleTimeout, Warning, c.reload("idle_replication_slot_timeout", "0"),
			"idle_replication_slot_timeout is %s: a stop of cdc longer than that loses the slot", timeout)
	}
	var keep int64
	if err := c.conn.QueryRow(ctx, "SELECT CASE setting WHEN '-1' THEN -1 ELSE pg_size_bytes(setting || unit) END FROM pg_settings WHERE name = 'max_slot_wal_keep_size'").Scan(&keep); err != nil {
		return fmt.Errorf("max_slot_wal_keep_size: %w", err)
	}
	if keep >= 0 {
		severity := Note
		if keep < smallKeep {
			severity = Warning
		}
		c.add(CodeKeepSize, severity, c.reload("max_slot_wal_keep_size", "-1"),
			"max_slot_wal_keep_size is %d MB: a stop of cdc during which more is written loses the slot", keep>>20)
	}
	return nil
}

// A delay of replay behind which a snapshot's reading can be cancelled soon.
const shortDelay = 10 * time.Second

func (c *check) standby(ctx context.Context) error {
	if !c.result.Standby {
		c.add(CodeIsPrimary, Note, mend{}, "the source is a primary; capture works, but a read replica would carry the load of reading")
		return nil
	}
	s, err := c.settings(ctx, "hot_standby_feedback", "primary_slot_name", "recovery_min_apply_delay", "max_standby_streaming_delay")
	if err != nil {
		return err
	}
	if s["hot_standby_feedback"] != "on" {
		c.add(CodeFeedback, Problem, c.reload("hot_standby_feedback", "on"),
			"hot_standby_feedback is %s: the primary would vacuum catalog rows that the slot needs, and the slot would be lost", s["hot_standby_feedback"])
	}
	if s["primary_slot_name"] == "" {
		c.add(CodePrimarySlot, Problem, mend{on: "replica", sql: "SELECT pg_create_physical_replication_slot('replica') on the primary, then ALTER SYSTEM SET primary_slot_name = 'replica'; SELECT pg_reload_conf()"},
			"primary_slot_name is not set: feedback is forgotten at every disconnection of the replica, and the slot can be lost")
	}
	if d := s["recovery_min_apply_delay"]; d != "0" {
		c.add(CodeApplyDelay, Note, c.reload("recovery_min_apply_delay", "0"), "recovery_min_apply_delay is %s: every change is captured that much later", d)
	}
	var delay int64 // ms
	var paused bool
	err = c.conn.QueryRow(ctx, "SELECT (SELECT setting::bigint FROM pg_settings WHERE name = 'max_standby_streaming_delay'), pg_is_wal_replay_paused()").Scan(&delay, &paused)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	if paused {
		c.add(CodeReplayPaused, Problem, mend{on: "replica", sql: "SELECT pg_wal_replay_resume()"}, "replay is paused on the replica: nothing arrives")
	}
	switch {
	case delay < 0:
		c.add(CodeStandbyDelay, Warning, c.reload("max_standby_streaming_delay", "'30s'"),
			"max_standby_streaming_delay is -1: DDL on a table that a snapshot is reading stalls the replica, and capture with it, until that table is read")
	case delay < shortDelay.Milliseconds():
		c.add(CodeStandbyDelay, Warning, c.reload("max_standby_streaming_delay", "'30s'"),
			"max_standby_streaming_delay is %s: DDL on a table that a snapshot is reading cancels the snapshot after that time", s["max_standby_streaming_delay"])
	}
	return nil
}

// receiver looks at the replica's connection with its primary.
func (c *check) receiver(ctx context.Context) error {
	if !c.result.Standby || !c.result.Stats {
		return nil
	}
	var status, slot string
	var configured bool // else the missing setting is told already
	err := c.conn.QueryRow(ctx, "SELECT status, coalesce(slot_name, ''), current_setting('primary_slot_name') <> '' FROM pg_stat_wal_receiver").Scan(&status, &slot, &configured)
	switch {
	case errors.Is(err, pgx.ErrNoRows) || err == nil && status != "streaming":
		c.add(CodeReceiver, Warning, mend{on: "replica", sql: "look into its log, and at primary_conninfo"},
			"the replica is not connected to its primary (it may restore from an archive): nothing new arrives, or late")
	case err != nil:
		return fmt.Errorf("receiver: %w", err)
	case slot == "" && configured:
		c.add(CodePrimarySlot, Problem, mend{on: "replica", sql: "SELECT pg_create_physical_replication_slot('replica') on the primary, then ALTER SYSTEM SET primary_slot_name = 'replica'; SELECT pg_reload_conf()"},
			"the replica streams without a slot on its primary: feedback is forgotten at every disconnection, and the slot can be lost")
	}
	return nil
}

func (c *check) limits(ctx context.Context) error {
	var slots, maxSlots, senders, maxSenders int
	var ours bool
	err := c.conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots')::int,
		(SELECT count(*) FROM pg_stat_replication), current_setting('max_wal_senders')::int,
		EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, c.req.Slot).Scan(&slots, &maxSlots, &senders, &maxSenders, &ours)
	if err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	restart := func(name string) mend {
		return mend{on: c.source(), sql: "ALTER SYSTEM SET " + name + " = …; then restart, or end what nobody uses",
			rds: "raise " + name + " in the parameter group, then reboot, or end what nobody uses"}
	}
	if !ours && slots >= maxSlots {
		c.add(CodeSlots, Problem, restart("max_replication_slots"), "all %d replication slots are taken", maxSlots)
	}
	if !ours && senders >= maxSenders {
		c.add(CodeSenders, Problem, restart("max_wal_senders"), "all %d replication connections are taken", maxSenders)
	}
	if !ours && c.result.Standby {
		c.add(CodeStandbySnapshot, Note, mend{on: "primary", sql: "SELECT pg_log_standby_snapshot() (as superuser, while cdc creates its slot)"},
			"creating the slot waits for the primary to log its running transactions; an idle primary does not")
	}
	return nil
}

// slots looks at our slot, if it is there, and at those that nobody reads.
func (c *check) slots(ctx context.Context) error {
	rs, err := c.conn.Query(ctx, `SELECT slot_name::text, coalesce(plugin::text, ''), coalesce(database::text, ''), current_database()::text,
		coalesce(j->>'invalidation_reason', CASE WHEN wal_status = 'lost' OR (j->>'conflicting')::bool THEN 'lost' END, ''), active OR temporary,
		coalesce(age(catalog_xmin), 0)::bigint, coalesce(j->>'inactive_since', '')
		FROM pg_replication_slots s, to_jsonb(s) j ORDER BY slot_name`)
	if err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	var name, plugin, database, current, lost, since string
	var used bool
	var age int64
	_, err = pgx.ForEachRow(rs, []any{&name, &plugin, &database, &current, &lost, &used, &age, &since}, func() error {
		drop := mend{on: c.source(), sql: "SELECT pg_drop_replication_slot(" + literal(name) + ")"}
		switch {
		case name == c.req.Slot && (plugin != "pgoutput" || database != current):
			c.add(CodeSlotUnusable, Problem, mend{on: c.source(), sql: "choose another name with cdc.slot, or " + drop.sql},
				"the slot %s is one of plugin %q and database %q, not of pgoutput and %s", name, plugin, database, current)
		case name == c.req.Slot && lost != "":
			c.add(CodeSlotUnusable, Warning, mend{on: c.source(), sql: "nothing: `cdc status` shows the next command"}, "the slot %s was invalidated: %s", name, lost)
		case name != c.req.Slot && !used && lost == "" && plugin != "":
			text := ""
			if since != "" {
				text = " since " + since
			}
			c.add(CodeForeignSlot, Warning, mend{on: c.source(), sql: drop.sql + ", if nobody needs it any more"},
				"nobody reads the slot %s%s: it keeps log, and through feedback %d transactions' dead catalog rows on the primary", name, text, age)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	return nil
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// replication tries a replication connection, and a start of a slot that does not exist: the server checks what
// decoding needs, the primary's wal_level among it, before it looks for the slot.
func (c *check) replication(ctx context.Context) error {
	conn, err := replica.Connect(ctx, c.req.URL, "millrace-cdc-check")
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		c.add(CodeReplication, Problem, mend{on: "primary", sql: "ALTER ROLE " + rows.Quote(c.role) + " REPLICATION, and allow it in pg_hba.conf of the " + c.source(),
			rds: "GRANT rds_replication TO " + rows.Quote(c.role)}, "a replication connection is refused: %s", pg.Message)
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := conn.Start(ctx, "millrace_no_such_slot", c.req.Publication, pgoutput.LSN(0))
	if err == nil {
		stream.Close()
		return nil
	}
	if errors.As(err, &pg) && pg.Code == "55000" {
		c.add(CodePrimaryWALLevel, Problem, levelOn("primary"), "decoding is not possible: %s", pg.Message)
		return nil
	}
	if errors.As(err, &pg) {
		return nil // "does not exist": all is well
	}
	return err
}
