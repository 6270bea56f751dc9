package cdc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

// StatusReport is what `cdc status --json` writes. The form is stable: fields are added, not changed. Positions are in
// PostgreSQL's form; times are RFC 3339.
type StatusReport struct {
	Slot        string          `json:"slot"`
	Kafka       *RecordedStatus `json:"kafka,omitempty"` // nil when Kafka does not answer
	KafkaError  string          `json:"kafka_error,omitempty"`
	Source      *SourceStatus   `json:"source,omitempty"` // nil when the source does not answer
	SourceError string          `json:"source_error,omitempty"`
	Lag         []LagStatus     `json:"lag"`
	Gap         *GapStatus      `json:"gap,omitempty"`
	// Waiting says why the source cannot be compared with the position yet.
	Waiting string `json:"waiting,omitempty"`
}

// RecordedStatus is what Kafka knows.
type RecordedStatus struct {
	Position   string           `json:"position,omitempty"` // "" if there is none
	CommitTime *time.Time       `json:"commit_time,omitempty"`
	RecordedAt *time.Time       `json:"recorded_at,omitempty"`
	ClaimedAt  *time.Time       `json:"claimed_at,omitempty"` // of the last progress; seconds ago while cdc runs
	Seq        int64            `json:"seq"`
	SystemID   string           `json:"system_id,omitempty"`
	Timeline   int32            `json:"timeline,omitempty"`
	Snapshot   string           `json:"snapshot"` // none, running or done
	Jobs       []JobStatus      `json:"jobs"`
	Stopped    []StoppedStatus  `json:"stopped"`
	Poisoned   map[string]int   `json:"poisoned"` // rows in quarantine that no later event has mended, by table
	Versions   map[string]int32 `json:"versions"` // of topics that are not the first of their table
}

// JobStatus is work on a table beside the stream.
type JobStatus struct {
	ID            string   `json:"id"`
	Kind          string   `json:"kind"`
	Table         string   `json:"table"`
	Rows          int64    `json:"rows"`
	RowsPerSecond float64  `json:"rows_per_second"`
	Done          *float64 `json:"done,omitempty"`         // 0 to 1, if the size is known
	SecondsLeft   *float64 `json:"seconds_left,omitempty"` // if that can be told
}

// StoppedStatus is a table that is not captured.
type StoppedStatus struct {
	Table  string `json:"table"`
	Reason string `json:"reason"`
	Next   string `json:"next"` // the next command
}

// SourceStatus is what the source knows.
type SourceStatus struct {
	Standby     bool        `json:"standby"`
	SystemID    string      `json:"system_id"`
	Timeline    int32       `json:"timeline"`
	PrimaryEnd  string      `json:"primary_end,omitempty"` // "" if the role may not see it, or the replica is not connected
	Received    string      `json:"received"`
	Replayed    string      `json:"replayed"`
	Publication bool        `json:"publication"` // there is one of the configured name
	Slot        *SlotStatus `json:"slot,omitempty"`
	end         int64
	received    int64
	replayed    int64
	info        slotInfo
	state       sourceState
}

// SlotStatus is the slot on the source.
type SlotStatus struct {
	Confirmed     string `json:"confirmed"`
	Restart       string `json:"restart"`
	ReaderPID     int32  `json:"reader_pid"` // 0: nobody reads it
	RetainedBytes int64  `json:"retained_bytes"`
	SafeBytes     *int64 `json:"safe_bytes,omitempty"` // absent: no limit
	XminAge       int64  `json:"catalog_xmin_age"`
	Invalidated   string `json:"invalidated,omitempty"` // the reason
}

// LagStatus is how much log waits at a stage.
type LagStatus struct {
	Stage string `json:"stage"` // receive, replay, capture
	Bytes int64  `json:"bytes"`
}

// GapStatus is why the next start would stop.
type GapStatus struct {
	Cause  GapCause `json:"cause"`
	Reason string   `json:"reason,omitempty"`
	What   string   `json:"what"`
	First  string   `json:"first,omitempty"` // what to mend first
	Next   string   `json:"next"`
}

// statusPatience bounds what status waits for each side.
const statusPatience = 10 * time.Second

// Report asks Kafka and the source. It is never nil; the error says which of the two did not answer.
func (s *Service) Report(ctx context.Context) (*StatusReport, error) {
	r := &StatusReport{Slot: s.cfg.Slot, Lag: []LagStatus{}}
	var position schemas.Position
	var have bool
	var errSource, errKafka error
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	source := make(chan struct{}) // the slot is read before the position: one that is running only goes on
	var both sync.WaitGroup
	both.Go(func() {
		defer close(source)
		r.Source, errSource = s.sourceStatus(ctx)
	})
	both.Go(func() {
		select {
		case <-source:
		case <-time.After(statusPatience / 3): // the source keeps us waiting; Kafka is asked all the same
		}
		r.Kafka, position, have, errKafka = s.recordedStatus(ctx, settled)
	})
	both.Wait()
	if errSource != nil {
		r.SourceError = errSource.Error()
		errSource = fmt.Errorf("the source: %w", errSource)
	}
	if errKafka != nil {
		r.KafkaError = errKafka.Error()
		errKafka = fmt.Errorf("kafka: %w", errKafka)
	}
	if errSource == nil {
		r.lag(position, have)
	}
	if errSource == nil && errKafka == nil {
		if err := s.compare(ctx, r, position, have); err != nil {
			return r, err
		}
	}
	return r, errors.Join(errSource, errKafka)
}

// compare adds the gap that the next start would meet. While somebody reads the slot there is none.
func (s *Service) compare(ctx context.Context, r *StatusReport, p schemas.Position, have bool) error {
	if r.Source.info.activePID != 0 {
		return nil
	}
	look := func() error {
		switch {
		case have && p.Snapshot == snapshotDone:
			return classify(r.Source.state, p)
		case r.Source.info.exists && p.Snapshot == snapshotNone:
			return missingPosition(s.cfg.Slot)
		}
		return nil
	}
	err := look()
	if err != nil { // the position may be newer than what is readable before the end of another slot's transaction
		var failed error
		if r.Kafka, p, have, failed = s.recordedStatus(ctx, everything); failed != nil {
			return fmt.Errorf("kafka: %w", failed)
		}
		err = look()
	}
	var g *GapError
	var behind *behindError
	switch {
	case errors.As(err, &g):
		r.Gap = &GapStatus{Cause: g.Cause, Reason: g.Reason, What: g.What, First: g.Mend, Next: afterGap}
	case errors.As(err, &behind):
		r.Waiting = behind.Error()
	}
	return nil
}

func (s *Service) recordedStatus(ctx context.Context, upTo extent) (*RecordedStatus, schemas.Position, bool, error) {
	p, have, err := readPosition(ctx, s.deps.Kafka, s.deps.Registry, s.deps.Log, upTo, s.cfg.Slot)
	if err != nil {
		return nil, p, false, err
	}
	r := &RecordedStatus{Seq: p.Seq, SystemID: p.SystemID, Timeline: p.Timeline, Snapshot: orNone(p.Snapshot), Jobs: []JobStatus{},
		Stopped: []StoppedStatus{}, Poisoned: map[string]int{}, Versions: map[string]int32{}}
	if !have {
		return r, p, false, nil
	}
	r.Position, r.CommitTime, r.RecordedAt = pgoutput.LSN(p.LSN).String(), &p.CommitTime, &p.UpdatedAt
	now := time.Now()
	for _, j := range p.Jobs {
		r.Jobs = append(r.Jobs, jobStatus(j, now))
	}
	for _, t := range sortedKeys(p.Stopped) {
		r.Stopped = append(r.Stopped, StoppedStatus{Table: t, Reason: p.Stopped[t], Next: "cdc resume " + t})
	}
	for t, keys := range p.Poisoned {
		r.Poisoned[t] = len(keys)
	}
	for t, v := range p.Versions {
		r.Versions[t] = v
	}
	if claim, ok, err := s.lastClaim(ctx); err == nil && ok {
		r.ClaimedAt = &claim.ReportedAt
	}
	return r, p, true, nil
}

func jobStatus(j schemas.Job, now time.Time) JobStatus {
	out := JobStatus{ID: j.ID, Kind: j.Kind, Table: j.Table, Rows: j.Rows}
	took := now.Sub(j.StartedAt).Seconds()
	if took > 0 {
		out.RowsPerSecond = float64(j.Rows) / took
	}
	if j.Blocks > 0 {
		done := min(1, float64(j.Next)/float64(j.Blocks))
		out.Done = &done
		if done > 0 && took > 0 {
			left := took * (1 - done) / done
			out.SecondsLeft = &left
		}
	}
	return out
}

func (s *Service) sourceStatus(ctx context.Context) (*SourceStatus, error) {
	sql, err := connectSQL(ctx, s.deps.Source, "millrace-cdc-status")
	if err != nil {
		return nil, err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	conn, err := replica.Connect(ctx, s.deps.Source.URL.Reveal(), "millrace-cdc-status")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r := &SourceStatus{}
	if r.state.system, err = conn.Identify(ctx); err != nil {
		return nil, err
	}
	err = sql.QueryRow(ctx, `SELECT r, coalesce(CASE WHEN r THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END - '0/0', 0)::bigint,
		coalesce(CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0', 0)::bigint,
		coalesce((SELECT oid FROM pg_publication WHERE pubname = $1), 0) FROM (SELECT pg_is_in_recovery() AS r) q`, s.cfg.Publication).
		Scan(&r.Standby, &r.received, &r.replayed, &r.state.pubOID)
	if err != nil {
		return nil, fmt.Errorf("look at the source's progress: %w", err)
	}
	if err := r.fill(ctx, s, sql, conn); err != nil {
		return nil, err
	}
	return r, nil
}

// fill adds the slot, and what a position is compared with.
func (r *SourceStatus) fill(ctx context.Context, s *Service, sql *pgx.Conn, conn *replica.Conn) error {
	var err error
	r.received = max(r.received, r.replayed)
	r.state.standby, r.state.publication = r.Standby, s.cfg.Publication
	if r.Standby {
		if r.state.primaryEnd, err = primaryEnd(ctx, sql); err != nil {
			return err
		}
	}
	if r.info, err = readSlot(ctx, sql, s.cfg.Slot); err != nil {
		return err
	}
	r.state.slot, r.end = r.info, max(int64(r.state.primaryEnd), r.received)
	r.SystemID, r.Timeline, r.Publication = r.state.system.ID, r.state.system.Timeline, r.state.pubOID != 0
	r.Received, r.Replayed = pgoutput.LSN(r.received).String(), pgoutput.LSN(r.replayed).String()
	if r.state.primaryEnd != 0 {
		r.PrimaryEnd = r.state.primaryEnd.String()
	}
	if r.info.exists {
		r.Slot = &SlotStatus{Confirmed: r.info.confirmed.String(), Restart: r.info.restart.String(), ReaderPID: r.info.activePID,
			RetainedBytes: r.info.retained, SafeBytes: r.info.safe, XminAge: r.info.xminAge}
		if r.info.lost {
			r.Slot.Invalidated = r.info.reason()
		}
	}
	r.state.timelines, err = conn.Timelines(ctx, r.Timeline)
	return err
}

// lag splits what is not captured yet.
func (r *StatusReport) lag(p schemas.Position, have bool) {
	s := r.Source
	add := func(stage string, bytes int64) { r.Lag = append(r.Lag, LagStatus{Stage: stage, Bytes: max(0, bytes)}) }
	if s.Standby && s.state.primaryEnd != 0 {
		add("receive", s.end-s.received)
	}
	if s.Standby {
		add("replay", s.received-s.replayed)
	}
	if have && p.Snapshot == snapshotDone {
		add("capture", s.replayed-p.LSN)
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
