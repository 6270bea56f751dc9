package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

const (
	// heardWithin is how recently the standby must have heard from its primary for silence to mean that nothing happened.
	heardWithin = 10 * time.Second
	// margin is taken off the time up to which silence is believed: a commit's time is taken before its log is written.
	margin = time.Second
)

// claimer writes progress. It has connections of its own, so that it goes on while the stream is under load.
type claimer struct {
	*Service
	sql     *pgx.Conn
	client  *kgo.Client
	encoder *avro.Encoder
	past    logHistory
	through time.Time // of the last claim: claims do not go back
}

// claims writes progress until ctx ends.
func (s *Service) claims(ctx context.Context) {
	c := &claimer{Service: s}
	defer c.close()
	tick := time.NewTicker(s.cfg.ProgressInterval)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := c.once(ctx)
		if err != nil && ctx.Err() == nil && !told {
			s.deps.Log.Warn("cannot write progress, trying again", "error", err)
		}
		told = err != nil
	}
}

func (c *claimer) close() {
	if c.sql != nil {
		_ = c.sql.Close(context.Background()) // it has only read
	}
	if c.client != nil {
		c.client.Close()
	}
}

func (c *claimer) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	h, err := c.look(ctx)
	if err != nil && c.sql != nil { // the claim of what is committed stands without the source
		_ = c.sql.Close(ctx)
		c.sql = nil
	}
	if err == nil {
		c.measure(h)
	}
	claim, committed, live := c.state.claim()
	if !live {
		return err
	}
	if h.fresh && claim.SourceLSN >= h.end {
		claim.ValidThrough, claim.Fresh = h.through, true
	}
	if claim.ValidThrough.Before(committed) {
		claim.ValidThrough = committed
	}
	if claim.ValidThrough.Before(c.through) {
		claim.ValidThrough = c.through
	}
	c.through = claim.ValidThrough
	claim.ReportedAt = time.Now().UTC()
	if sent := c.send(ctx, claim); sent != nil {
		return sent
	}
	return err
}

func (c *claimer) send(ctx context.Context, claim schemas.Claim) error {
	var err error
	cfg := c.deps.Kafka
	if c.client == nil {
		if c.client, err = cfg.Client("cdc-progress", c.deps.Log, nil); err != nil {
			return err
		}
	}
	if c.encoder == nil {
		c.encoder, err = avro.NewEncoder(ctx, c.deps.Registry, cfg.Name(schemas.Subject(schemas.Progress)), schemas.Latest(schemas.Progress))
		if err != nil {
			return err
		}
	}
	value, err := c.encoder.Append(nil, claim)
	if err != nil {
		return fmt.Errorf("write progress: %w", err)
	}
	r := &kgo.Record{Topic: cfg.Name(schemas.Progress), Key: []byte("cdc/" + c.cfg.Slot), Value: value}
	if err := c.client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("write progress: %w", err)
	}
	return nil
}

// horizon is what the source says about itself.
type horizon struct {
	fresh            bool      // silence means that nothing happened
	end              int64     // everything that was committed up to through is before it
	through          time.Time // minus the margin
	now              time.Time
	received, replay int64
}

func (c *claimer) look(ctx context.Context) (h horizon, err error) {
	if c.sql == nil {
		if c.sql, err = connectSQL(ctx, c.deps.Source, "millrace-cdc-progress"); err != nil {
			c.sql = nil
			return h, err
		}
	}
	var standby bool
	var end *int64
	var sent, heard *time.Time
	err = c.sql.QueryRow(ctx, `SELECT r, now, coalesce(CASE WHEN r THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END - '0/0', 0)::bigint,
		coalesce(CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0', 0)::bigint,
		(w.latest_end_lsn - '0/0')::bigint, w.last_msg_send_time, w.last_msg_receipt_time
		FROM (SELECT pg_is_in_recovery() AS r, clock_timestamp() AS now) s LEFT JOIN pg_stat_wal_receiver w ON true`).
		Scan(&standby, &h.now, &h.received, &h.replay, &end, &sent, &heard)
	if err != nil {
		return h, fmt.Errorf("look at the source's progress: %w", err)
	}
	switch {
	case !standby:
		h.fresh, h.end, h.through = true, h.replay, h.now.Add(-margin).UTC()
	case end != nil && sent != nil && heard != nil && h.now.Sub(*heard) < heardWithin:
		h.fresh, h.end, h.through = true, *end, sent.Add(-margin).UTC()
	}
	return h, nil
}

// measure sets the lag of every stage: how much log waits before it, and how much later than the stage before it the log
// has passed it.
func (c *claimer) measure(h horizon) {
	at := func(lsn int64) pgoutput.LSN { return pgoutput.LSN(lsn) }
	end := max(at(h.end), at(h.received), at(h.replay))
	c.past.saw(h.now, end)
	type stage struct {
		name string
		lsn  pgoutput.LSN
	}
	stages := []stage{{"receive", max(at(h.received), at(h.replay))}, {"replay", at(h.replay)}}
	received, encoded, committed, live := c.state.stages()
	if live {
		stages = append(stages, stage{"decode", received}, stage{"encode", encoded}, stage{"kafka", committed})
	}
	before, age := end, time.Duration(0)
	for _, s := range stages {
		lsn := min(s.lsn, before) // what is known of a later stage may be newer than what is known of an earlier one
		c.metrics.lagBytes.WithLabelValues(s.name).Set(float64(before - lsn))
		older := c.past.age(h.now, lsn)
		c.metrics.lagSeconds.WithLabelValues(s.name).Set(max(0, older-age).Seconds())
		before, age = lsn, older
	}
	if live {
		c.past.forget(before)
	}
}
