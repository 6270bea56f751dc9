package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

const (
	// guardInterval is how often the slot's weight on the source is looked at.
	guardInterval = 5 * time.Second
	// warnShare of a limit is told as a warning.
	warnShare = 0.8
)

// limitError: the slot holds back more on the source than it may.
type limitError struct {
	Key  string // of the limit
	Text string
}

func (e *limitError) Error() string { return e.Text }

// weight is what the slot holds back.
type weight struct {
	bytes   int64
	age     time.Duration // of the oldest change that is not captured
	xminAge int64
}

// heaviest is the limit of which the largest share is used, and that share; "" if there are none.
func (c Config) heaviest(w weight) (key string, share float64, text string) {
	for _, l := range []struct {
		key         string
		used, limit float64
		text        string
	}{
		{"slot_max_bytes", float64(w.bytes), float64(c.SlotMaxBytes), fmt.Sprintf("keeps %d MB of log, of cdc.slot_max_bytes %d MB", w.bytes>>20, c.SlotMaxBytes>>20)},
		{"slot_max_age", w.age.Seconds(), c.SlotMaxAge.Seconds(), fmt.Sprintf("has waited for %v, of cdc.slot_max_age %v", w.age.Round(time.Second), c.SlotMaxAge)},
		{"slot_max_xmin_age", float64(w.xminAge), float64(c.SlotMaxXminAge), fmt.Sprintf("keeps the catalog rows of %d transactions on the primary, of cdc.slot_max_xmin_age %d", w.xminAge, c.SlotMaxXminAge)},
	} {
		if l.limit > 0 && l.used/l.limit >= share {
			key, share, text = l.key, l.used/l.limit, l.text
		}
	}
	return key, share, text
}

// guard watches what the slot holds back on the source, whatever the stream and Kafka are doing. It is for one goroutine.
type guard struct {
	*Service
	sql    *pgx.Conn
	past   logHistory
	idle   map[string]time.Time // foreign slots that nobody reads, since when
	warned string               // the limit that was warned about
	beyond pgoutput.LSN         // replay up to here is on the new timeline; 0 while there is none
}

// guardSlot looks until ctx ends.
func (s *Service) guardSlot(ctx context.Context) {
	g := &guard{Service: s, idle: map[string]time.Time{}}
	defer func() {
		if g.sql != nil {
			_ = g.sql.Close(context.WithoutCancel(ctx)) // it has only read
		}
	}()
	tick := time.NewTicker(s.guardEvery)
	defer tick.Stop()
	told := false
	for {
		err := g.once(ctx)
		if err != nil && ctx.Err() == nil && !told {
			s.deps.Log.Warn("cannot look after the slot, trying again", "error", err)
		}
		told = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (g *guard) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	slot, err := g.look(ctx)
	if err != nil {
		if g.sql != nil {
			_ = g.sql.Close(ctx)
			g.sql = nil
		}
		return err
	}
	if err := g.timeline(ctx); err != nil {
		return err
	}
	if !slot.exists || slot.lost || slot.foreign(g.cfg.Slot, g.sql.Config().Database) != nil {
		return nil
	}
	now := time.Now()
	g.past.saw(now, slot.end)
	w := weight{bytes: slot.retained, age: g.past.age(now, slot.confirmed), xminAge: slot.xminAge}
	g.metrics.slot(slot, w.age, g.past.age(now, slot.restart))
	g.past.forget(slot.restart)
	g.judge(slot, w)
	return nil
}

// timeline ends the session, once, when the source has gone over to another timeline, by a promotion of it or of its
// primary: the next one records it with the position, so that later starts know which history the position lies on.
func (g *guard) timeline(ctx context.Context) error {
	var timeline int32
	var received, replayed int64
	err := g.sql.QueryRow(ctx, `SELECT coalesce(CASE WHEN r THEN (SELECT received_tli FROM pg_stat_wal_receiver)
			ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END, 0),
		coalesce(CASE WHEN r THEN pg_last_wal_receive_lsn() - '0/0' END, 0)::bigint, coalesce(CASE WHEN r THEN pg_last_wal_replay_lsn() - '0/0' END, 0)::bigint
		FROM (SELECT pg_is_in_recovery() AS r) q`).Scan(&timeline, &received, &replayed)
	if err != nil {
		return fmt.Errorf("look at the source's timeline: %w", err)
	}
	streaming, live := g.state.timeline()
	switch {
	case !live || timeline <= streaming:
		g.beyond = 0
	case g.beyond == 0:
		g.beyond = max(1, pgoutput.LSN(received))
	}
	if g.beyond == 0 || received != 0 && pgoutput.LSN(replayed) < g.beyond {
		return nil
	}
	select {
	case g.promoted <- timeline:
	default: // told already
	}
	return nil
}

// judge warns near a limit, and beyond it has the slot given up, unless somebody else reads it.
func (g *guard) judge(slot slotInfo, w weight) {
	key, share, text := g.cfg.heaviest(w)
	switch {
	case share >= 1 && (slot.activePID == 0 || slot.activePID == g.state.reader()):
		select {
		case g.exceeded <- &limitError{Key: key, Text: text}:
		default: // told already
		}
	case share >= warnShare && g.warned != key:
		g.warned = key
		g.deps.Log.Warn("the slot is near a limit beyond which it is given up", "slot", g.cfg.Slot, "used", text)
	case share < warnShare:
		g.warned = ""
	}
}

func (g *guard) look(ctx context.Context) (slotInfo, error) {
	if g.sql == nil {
		conn, err := connectSQL(ctx, g.deps.Source, "millrace-cdc-guard")
		if err != nil {
			return slotInfo{}, err
		}
		g.sql = conn
	}
	if err := g.foreign(ctx); err != nil {
		return slotInfo{}, err
	}
	return readSlot(ctx, g.sql, g.cfg.Slot)
}

// foreign measures for how long slots of others have had no reader. Before PostgreSQL 17 only since we look.
func (g *guard) foreign(ctx context.Context) error {
	rs, err := g.sql.Query(ctx, `SELECT slot_name::text, coalesce((to_jsonb(s)->>'inactive_since')::timestamptz, now()), to_jsonb(s)->>'inactive_since' IS NOT NULL
		FROM pg_replication_slots s WHERE slot_name <> $1 AND NOT active AND NOT temporary`, g.cfg.Slot)
	if err != nil {
		return fmt.Errorf("look at the other slots: %w", err)
	}
	seen := map[string]time.Time{}
	var name string
	var since time.Time
	var told bool // the server knows since when
	_, err = pgx.ForEachRow(rs, []any{&name, &since, &told}, func() error {
		if before, ok := g.idle[name]; ok && before.Before(since) && !told {
			since = before
		}
		seen[name] = since
		return nil
	})
	if err != nil {
		return fmt.Errorf("look at the other slots: %w", err)
	}
	g.idle = seen
	g.metrics.foreignIdle.Reset()
	for name, since := range seen {
		g.metrics.foreignIdle.WithLabelValues(name).Set(max(0, time.Since(since).Seconds()))
	}
	return nil
}

// attempt runs one session, and ends it when the guard says that the slot is too heavy or that the timeline is another.
func (s *Service) attempt(ctx context.Context, lost error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.session(inner, lost) }()
	select {
	case err := <-ended:
		return err
	case timeline := <-s.promoted:
		cancel()
		<-ended
		return fmt.Errorf("the source has gone over to timeline %d: beginning again on it", timeline)
	case limit := <-s.exceeded:
		cancel()
		<-ended
		return s.giveUp(ctx, limit)
	}
}

// giveUp drops our slot so that the source does not suffer. What was not captured is a gap from then on, and is told.
func (s *Service) giveUp(ctx context.Context, limit *limitError) error {
	sql, err := connectSQL(ctx, s.deps.Source, "millrace-cdc-guard")
	if err != nil {
		return fmt.Errorf("give up the slot %s, which %w: %w", s.cfg.Slot, limit, err)
	}
	defer sql.Close(context.WithoutCancel(ctx))
	if err := s.awaitFree(ctx, sql); err != nil {
		return fmt.Errorf("give up the slot %s, which %w: %w", s.cfg.Slot, limit, err)
	}
	slot, err := readSlot(ctx, sql, s.cfg.Slot)
	if err == nil && slot.exists {
		err = s.dropSlot(ctx)
	}
	if err != nil {
		return fmt.Errorf("give up the slot %s, which %w: %w", s.cfg.Slot, limit, err)
	}
	s.metrics.givenUp.Inc()
	position := s.state.recorded()
	message := fmt.Sprintf("the slot %s was dropped by cdc itself, for the source's sake: it %s", s.cfg.Slot, limit.Text)
	s.deps.Log.Error("the slot is given up", "slot", s.cfg.Slot, "limit", "cdc."+limit.Key, "reason", limit.Text, "position", position, "restart_lsn", slot.restart)
	s.announce(schemas.CaptureNotification{Slot: s.cfg.Slot, At: time.Now().UTC(), Kind: schemas.NoteSlotDropped, Message: message,
		Details: map[string]string{"limit": "cdc." + limit.Key, "position": position.String(), "confirmed": slot.confirmed.String()}})
	g := newGap(GapSlotGivenUp, "%s", message).first("mend what kept cdc from going on (`cdc status`), or raise cdc." + limit.Key)
	g.Position = position
	return g
}

// dropSlot drops our slot on the source; one that is not there is no error.
func (s *Service) dropSlot(ctx context.Context) error {
	conn, err := replica.Connect(ctx, s.deps.Source.URL.Reveal(), "millrace-cdc-drop")
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.DropSlot(ctx, s.cfg.Slot)
}

// announceGap tells of a gap, once for each time that capture meets it.
func (s *Service) announceGap(g *GapError) {
	s.announce(schemas.CaptureNotification{Slot: s.cfg.Slot, At: time.Now().UTC(), Kind: schemas.NoteGap, Message: g.Error(),
		Details: map[string]string{"cause": string(g.Cause), "reason": g.Reason, "position": g.Position.String()}})
}
