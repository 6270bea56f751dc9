package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// sourceState is what a position is compared with before anything is read: the server itself goes on silently over a gap.
type sourceState struct {
	system      replica.System
	slot        slotInfo
	standby     bool
	publication string // its name
	pubOID      uint32 // 0: there is none of that name
	primaryEnd  pgoutput.LSN
	timelines   replica.Timelines // the source's history
}

// classify compares a position with the source. The order matters: what says more comes first.
func classify(s sourceState, p schemas.Position) error {
	stored := pgoutput.LSN(p.LSN)
	for _, look := range []func(sourceState, schemas.Position) error{ofSystem, ofSlot, ofHistory, ofSlotsPlace, ofPublication} {
		err := look(s, p)
		var g *GapError
		if errors.As(err, &g) {
			g.Position = stored
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func ofSystem(s sourceState, p schemas.Position) error {
	if p.SystemID != s.system.ID {
		return newGap(GapOtherSystem, "the position is one of system %s, and the source is system %s: source.url names another server, "+
			"or the server was set up anew", p.SystemID, s.system.ID).first("make sure that source.url is right")
	}
	return nil
}

func ofSlot(s sourceState, p schemas.Position) error {
	slot := s.slot
	switch {
	case !slot.exists:
		return newGap(GapSlotDropped, "the slot %s is not on the source any more, and the position %s is: somebody dropped it, or the replica was "+
			"made anew or restored, which loses slots", p.Slot, pgoutput.LSN(p.LSN))
	case slot.lost:
		reason := slot.reason()
		meaning, mend := invalidation(reason)
		g := newGap(GapSlotInvalidated, "the source has invalidated the slot %s (%s: %s)", p.Slot, reason, meaning).first(mend)
		g.Reason = reason
		return g
	case slot.plugin != "pgoutput":
		return newGap(GapSlotPlugin, "the slot %s was made for %s, not for pgoutput", p.Slot, slot.plugin).
			first("choose another name with cdc.slot, if that slot is somebody else's: reset drops it")
	case slot.database != s.system.Database:
		return newGap(GapSlotDatabase, "the slot %s belongs to the database %s, and source.url names %s", p.Slot, slot.database, s.system.Database).
			first("correct source.url, or choose another name with cdc.slot")
	}
	return nil
}

// ofSlotsPlace tells a slot that begins after the position.
func ofSlotsPlace(s sourceState, p schemas.Position) error {
	stored, slot := pgoutput.LSN(p.LSN), s.slot
	switch {
	case slot.confirmed > stored && slot.decoded == 0:
		return newGap(GapSlotRecreated, "the slot %s begins at %s, beyond the position %s: it was dropped and made anew, or somebody moved the slot %s "+
			"(it has decoded nothing since)", p.Slot, slot.confirmed, stored, p.Slot)
	case slot.confirmed > stored:
		return newGap(GapSlotAdvanced, "somebody moved the slot %s to %s, beyond the position %s, or Kafka was set back to an earlier state",
			p.Slot, slot.confirmed, stored)
	}
	return nil
}

// ofHistory tells a source that is older than the position from one that only has to catch up.
func ofHistory(s sourceState, p schemas.Position) error {
	stored := pgoutput.LSN(p.LSN)
	behind := s.system.LSN < stored
	// A standby that was just started may be behind what it had replayed before, and on the timeline of then.
	if behind && s.standby && (s.primaryEnd == 0 || s.primaryEnd >= stored) {
		return &behindError{at: s.system.LSN, position: stored}
	}
	switch {
	case s.system.Timeline < p.Timeline:
		return newGap(GapRestored, "the source is on timeline %d, older than that of the position, %d: it was restored, or is another copy",
			s.system.Timeline, p.Timeline)
	// A stream goes on through a promotion, and its positions then lie on a timeline that is not theirs. A server that kept
	// the slot cannot have left a history that it has sent: only one whose slot is new can. 0: not in the history.
	case s.slot.decoded == 0 && s.system.Timeline > p.Timeline && p.Timeline > 0 && stored > s.timelines[p.Timeline]:
		return newGap(GapHistory, "the source's history left timeline %d at %s, before the position %s: a primary was replaced by one that had not "+
			"received everything, or the source was restored to an earlier point", p.Timeline, s.timelines[p.Timeline], stored)
	case behind:
		return newGap(GapRestored, "the source ends at %s, before the position %s: it was restored from an older backup", max(s.system.LSN, s.primaryEnd), stored)
	}
	return nil
}

func ofPublication(s sourceState, p schemas.Position) error {
	switch {
	case p.PublicationID == 0 || s.pubOID != 0 && p.PublicationID == int64(s.pubOID):
		return nil
	case s.pubOID == 0:
		return newGap(GapPublicationDropped, "the publication %s is not on the source any more: what is changed without it cannot be decoded", s.publication).
			first(createPublication(s.publication))
	}
	return newGap(GapPublicationRecreated, "the publication %s was dropped and made anew: what was changed in between cannot be decoded", s.publication).
		first("make sure that it has all tables: `cdc check`")
}

func createPublication(name string) string {
	return "on the primary: CREATE PUBLICATION " + rows.Quote(name) + " FOR TABLE … WITH (publish_via_partition_root = true)"
}

// undecodable is err, or the gap that it means: the publication was not there when the changes were made. PostgreSQL 18
// says so by a notice and goes on, older ones by an error at every start.
func undecodable(err error, publication string) error {
	var pg *pgconn.PgError
	if !errors.Is(err, replica.ErrPublicationSkipped) && (!errors.As(err, &pg) || pg.Code != "42704") {
		return err
	}
	return newGap(GapPublicationDropped, "the publication %s was not there when these changes were made, so they cannot be decoded: %v", publication, err).
		first("if it is still missing, " + createPublication(publication))
}

// reason is the source's word for why the slot is lost. PostgreSQL 16 does not tell conflicts apart.
func (i slotInfo) reason() string {
	switch {
	case i.cause == "lost" && i.restart == 0:
		return "wal_removed"
	case i.cause == "lost":
		return "conflict"
	}
	return i.cause
}

// invalidation is what a reason means, and what to mend before a new slot is made.
func invalidation(reason string) (meaning, mend string) {
	const feedback = "check on the replica: SHOW hot_standby_feedback (on), SHOW primary_slot_name (set), and that an intermediate standby passes feedback on"
	const level = "on the primary: ALTER SYSTEM SET wal_level = 'logical'; then restart"
	switch reason {
	case "rows_removed":
		return "the primary vacuumed catalog rows that the slot needed", feedback
	case "wal_level_insufficient":
		return "wal_level was lowered on the primary; raising it again does not bring the slot back", level
	case "wal_removed":
		return "it kept more log than max_slot_wal_keep_size allows on the replica", "on the replica: ALTER SYSTEM SET max_slot_wal_keep_size = -1, " +
			"or more than the longest outage writes; SELECT pg_reload_conf()"
	case "idle_timeout":
		return "nobody read it for longer than idle_replication_slot_timeout on the replica", "on the replica: ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()"
	case "conflict":
		return "recovery removed what it needed: catalog rows were vacuumed, or wal_level was lowered on the primary", feedback + "; " + level
	}
	return "it can no longer be read", ""
}

// missingPosition: the slot is there, and nothing says up to where it was captured.
func missingPosition(slot string) error {
	return newGap(GapPositionMissing, "the slot %s exists on the source, and Kafka has no position of it: Kafka was emptied or set up anew, "+
		"kafka.brokers names another one, or the slot is somebody else's", slot).
		first("make sure that kafka.brokers and cdc.slot are right: reset drops the slot")
}

// primaryEnd is how far the primary has written, as the standby last heard; 0 if that is not known.
func primaryEnd(ctx context.Context, conn *pgx.Conn) (pgoutput.LSN, error) {
	var end *int64
	err := conn.QueryRow(ctx, `SELECT (latest_end_lsn - '0/0')::bigint FROM pg_stat_wal_receiver WHERE status = 'streaming'`).Scan(&end)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && end == nil {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at the replica's receiver: %w", err)
	}
	return pgoutput.LSN(*end), nil
}

// fits compares the recorded position with the source and with the topics. nil: going on from it loses nothing.
func (s *session) fits(ctx context.Context, conn *replica.Conn, slot slotInfo) error {
	state := sourceState{system: s.system, slot: slot, standby: s.found.Standby, publication: s.cfg.Publication, pubOID: s.found.PublicationID}
	var err error
	if state.standby {
		if state.primaryEnd, err = primaryEnd(ctx, s.sql); err != nil {
			return err
		}
	}
	if state.timelines, err = conn.Timelines(ctx, s.system.Timeline); err != nil {
		return err
	}
	if err := classify(state, s.position); err != nil {
		return err
	}
	return s.topicsHold(ctx)
}

// topicsHold compares the ends of the topics with what was last claimed of them: Kafka may have been emptied or restored.
func (s *session) topicsHold(ctx context.Context) error {
	claim, have, err := s.lastClaim(ctx)
	if err != nil || !have || claim.SourceLSN < s.position.SnapshotLSN { // a claim of before the snapshot says nothing about it
		return err
	}
	captured, _ := s.topics(s.found.Tables)
	var names []string
	claim.Ends = slices.DeleteFunc(claim.Ends, func(e schemas.PartitionOffset) bool {
		if slices.Contains(captured, e.Topic) && !slices.Contains(names, e.Topic) {
			names = append(names, e.Topic)
		}
		return !slices.Contains(captured, e.Topic)
	})
	if len(names) == 0 {
		return nil
	}
	ends, err := kadm.NewClient(s.client).ListEndOffsets(ctx, names...)
	if err != nil {
		return fmt.Errorf("find the ends of the topics: %w", err)
	}
	if lost := shorter(claim.Ends, ends); len(lost) > 0 {
		g := newGap(GapTopicLost, "Kafka has less than what was written: %s", strings.Join(lost, ", "))
		g.Position = pgoutput.LSN(s.position.LSN)
		return g
	}
	return nil
}

// shorter names the topics that end before what was claimed, or are not there.
func shorter(claimed []schemas.PartitionOffset, ends kadm.ListedOffsets) []string {
	var lost []string
	for _, e := range claimed {
		end, ok := ends.Lookup(e.Topic, e.Partition)
		if e.Offset > 0 && (!ok || end.Err != nil || end.Offset < e.Offset) && !slices.Contains(lost, e.Topic) {
			lost = append(lost, e.Topic)
		}
	}
	slices.Sort(lost)
	return lost
}

// lastClaim is the slot's last claim in progress; false if there is none.
func (s *Service) lastClaim(ctx context.Context) (schemas.Claim, bool, error) {
	decoder, err := avro.NewDecoder(s.deps.Registry, schemas.Latest(schemas.Progress))
	if err != nil {
		return schemas.Claim{}, false, err
	}
	var last []byte
	topic, key := s.deps.Kafka.Name(schemas.Progress), "cdc/"+s.cfg.Slot
	for tail, more := int64(firstTail), true; last == nil && more; tail *= nextTail {
		start, end, err := scan(ctx, s.deps.Kafka, s.deps.Log, tail, func(r *kgo.Record) {
			if !r.Attrs.IsControl() && string(r.Key) == key {
				last = r.Value
			}
		}, topic)
		if err != nil {
			return schemas.Claim{}, false, fmt.Errorf("read the last claim: %w", err)
		}
		more = end[partition{topic, 0}]-start[partition{topic, 0}] >= tail
	}
	if last == nil {
		return schemas.Claim{}, false, nil
	}
	var c schemas.Claim
	if err := decoder.Decode(ctx, last, &c); err != nil {
		return schemas.Claim{}, false, fmt.Errorf("read the last claim: %w", err)
	}
	return c, true, nil
}
