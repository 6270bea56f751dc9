package cdc

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

// TestEveryGapHasACause compares a position with sources that it does not fit, and with some that it does.
func TestEveryGapHasACause(t *testing.T) {
	const stored = pgoutput.LSN(1000)
	for _, c := range []struct {
		name   string
		change func(*sourceState, *schemas.Position)
		want   GapCause // "": it goes on
		reason string
		says   string
	}{
		{"all is well", func(*sourceState, *schemas.Position) {}, "", "", ""},
		{"a position of before publications were recorded", func(_ *sourceState, p *schemas.Position) { p.PublicationID = 0 }, "", "", ""},
		{"promoted", func(s *sourceState, _ *schemas.Position) {
			s.standby, s.system.Timeline, s.timelines = false, 2, replica.Timelines{1: 1500}
		}, "", "", ""},
		{"promoted while streaming, the timeline not recorded yet", func(s *sourceState, _ *schemas.Position) {
			s.standby, s.system.Timeline, s.timelines = false, 2, replica.Timelines{1: 900}
		}, "", "", ""},
		{"the primary failed over", func(s *sourceState, _ *schemas.Position) {
			s.system.Timeline, s.timelines = 3, replica.Timelines{1: stored, 2: 1800}
		}, "", "", ""},
		{"another system", func(s *sourceState, _ *schemas.Position) { s.system.ID = "8" }, GapOtherSystem, "", "source.url"},
		{"no slot", func(s *sourceState, _ *schemas.Position) { s.slot = slotInfo{} }, GapSlotDropped, "", "is not on the source any more"},
		{"rows removed", lostFor("rows_removed", 5), GapSlotInvalidated, "rows_removed", "hot_standby_feedback"},
		{"wal_level lowered", lostFor("wal_level_insufficient", 5), GapSlotInvalidated, "wal_level_insufficient", "ALTER SYSTEM SET wal_level"},
		{"log removed", lostFor("wal_removed", 0), GapSlotInvalidated, "wal_removed", "max_slot_wal_keep_size"},
		{"idle", lostFor("idle_timeout", 5), GapSlotInvalidated, "idle_timeout", "idle_replication_slot_timeout = 0"},
		{"log removed, on 16", lostFor("lost", 0), GapSlotInvalidated, "wal_removed", "max_slot_wal_keep_size"},
		{"a conflict, on 16", lostFor("lost", 5), GapSlotInvalidated, "conflict", "hot_standby_feedback"},
		{"a reason of a later version", lostFor("moon_phase", 5), GapSlotInvalidated, "moon_phase", "moon_phase"},
		{"another plugin", func(s *sourceState, _ *schemas.Position) { s.slot.plugin = "wal2json" }, GapSlotPlugin, "", "cdc.slot"},
		{"another database", func(s *sourceState, _ *schemas.Position) { s.slot.database = "hr" }, GapSlotDatabase, "", "hr"},
		{"moved on", func(s *sourceState, _ *schemas.Position) { s.slot.confirmed = 1001 }, GapSlotAdvanced, "", "somebody moved the slot"},
		{"made anew", func(s *sourceState, _ *schemas.Position) { s.slot.confirmed, s.slot.decoded = 1001, 0 }, GapSlotRecreated, "", "made anew"},
		{"an older timeline", func(s *sourceState, p *schemas.Position) { p.Timeline = 2 }, GapRestored, "", "older"},
		{"history left before", func(s *sourceState, _ *schemas.Position) {
			s.system.Timeline, s.timelines, s.slot.decoded = 2, replica.Timelines{1: 999}, 0
		}, GapHistory, "", "left timeline 1"},
		{"another history", func(s *sourceState, p *schemas.Position) {
			s.system.Timeline, p.Timeline, s.timelines, s.slot.decoded = 5, 3, replica.Timelines{1: 10, 2: 2000}, 0
		}, GapHistory, "", "left timeline 3"},
		{"a primary that ends before", func(s *sourceState, _ *schemas.Position) { s.standby, s.system.LSN = false, 999 }, GapRestored, "", "older backup"},
		{"a replica whose primary ends before", func(s *sourceState, _ *schemas.Position) { s.system.LSN, s.primaryEnd = 900, 950 }, GapRestored, "", "older backup"},
		{"no publication", func(s *sourceState, _ *schemas.Position) { s.pubOID = 0 }, GapPublicationDropped, "", "CREATE PUBLICATION"},
		{"another publication", func(s *sourceState, _ *schemas.Position) { s.pubOID = 78 }, GapPublicationRecreated, "", "made anew"},
	} {
		s := sourceState{system: replica.System{ID: "7", Timeline: 1, LSN: 2000, Database: "shop"}, standby: true, publication: "millrace", pubOID: 77, primaryEnd: 2000,
			slot: slotInfo{exists: true, plugin: "pgoutput", database: "shop", confirmed: stored, restart: 5, decoded: 3}}
		p := schemas.Position{Slot: "millrace", SystemID: "7", Timeline: 1, LSN: int64(stored), PublicationID: 77}
		c.change(&s, &p)
		err := classify(s, p)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		var g *GapError
		if !errors.As(err, &g) || g.Cause != c.want || g.Reason != c.reason || !errors.Is(err, ErrGap) || g.Position != stored {
			t.Errorf("%s: %#v, want the cause %s", c.name, err, c.want)
			continue
		}
		if text := err.Error(); !strings.Contains(text, c.says) || !strings.Contains(text, "cdc reconcile") || !strings.Contains(text, "nothing was written") {
			t.Errorf("%s: does not say %q and what to do: %s", c.name, c.says, text)
		}
	}
}

func lostFor(cause string, restart pgoutput.LSN) func(*sourceState, *schemas.Position) {
	return func(s *sourceState, _ *schemas.Position) {
		s.slot.lost, s.slot.cause, s.slot.restart = true, cause, restart
	}
}

// TestAReplicaThatCatchesUpIsNoGap: just after its start a standby may be behind what it had replayed before.
func TestAReplicaThatCatchesUpIsNoGap(t *testing.T) {
	for _, end := range []pgoutput.LSN{0, 1000} { // not known, and far enough
		s := sourceState{system: replica.System{ID: "7", Timeline: 1, LSN: 900, Database: "shop"}, standby: true, primaryEnd: end,
			slot: slotInfo{exists: true, plugin: "pgoutput", database: "shop", confirmed: 800, decoded: 3}}
		err := classify(s, schemas.Position{SystemID: "7", Timeline: 2, LSN: 1000})
		var behind *behindError
		if !errors.As(err, &behind) || errors.Is(err, ErrGap) {
			t.Errorf("with the primary at %v: %v", end, err)
		}
	}
}

func TestUndecodable(t *testing.T) {
	other := errors.New("connection reset")
	if err := undecodable(other, "millrace"); !errors.Is(err, other) || errors.Is(err, ErrGap) {
		t.Error(err)
	}
	for _, err := range []error{replica.ErrPublicationSkipped, fmt.Errorf("stream: %w", &pgconn.PgError{Code: "42704", Message: "no such publication"})} {
		var g *GapError
		if !errors.As(undecodable(err, "millrace"), &g) || g.Cause != GapPublicationDropped || !strings.Contains(g.Error(), `CREATE PUBLICATION "millrace"`) {
			t.Errorf("%v becomes %v", err, g)
		}
	}
}

func TestTopicsThatAreShorterThanClaimed(t *testing.T) {
	ends := kadm.ListedOffsets{"a": {0: {Offset: 10}, 1: {Offset: 4}}, "b": {0: {Offset: 7}}}
	claimed := []schemas.PartitionOffset{{Topic: "a", Partition: 0, Offset: 10}, {Topic: "a", Partition: 1, Offset: 3}, {Topic: "b", Partition: 0, Offset: 7},
		{Topic: "gone", Partition: 0, Offset: 0}}
	if lost := shorter(claimed, ends); len(lost) > 0 {
		t.Errorf("%v", lost)
	}
	claimed[1].Offset, claimed[3].Offset = 5, 1
	if lost := shorter(claimed, ends); strings.Join(lost, " ") != "a gone" {
		t.Errorf("%v", lost)
	}
}

func TestLogHistoryTellsPositionsAsAges(t *testing.T) {
	var h logHistory
	at := func(second int) time.Time { return time.Unix(int64(second), 0) }
	if h.age(at(5), 0) != 0 {
		t.Error("an empty history has an age")
	}
	h.saw(at(0), 100)
	h.saw(at(10), 100)
	h.saw(at(20), 200)
	h.saw(at(30), 300)
	for lsn, want := range map[pgoutput.LSN]time.Duration{50: 40 * time.Second, 99: 40 * time.Second, 100: 20 * time.Second, 250: 10 * time.Second, 300: 0} {
		if got := h.age(at(40), lsn); got != want {
			t.Errorf("the age of %d is %v, want %v", lsn, got, want)
		}
	}
	h.forget(200)
	if got := h.age(at(40), 200); got != 10*time.Second {
		t.Errorf("after forgetting the age is %v", got)
	}
	h.saw(at(50), 10) // another server
	if got := h.age(at(60), 200); got != 0 {
		t.Errorf("of another server's log the age is %v", got)
	}
	for i := range 100 * mostMarks {
		h.saw(at(100+i), pgoutput.LSN(1000+i))
	}
	if len(h.marks) > mostMarks {
		t.Errorf("%d marks", len(h.marks))
	}
	now := at(100 + 100*mostMarks)
	for i := range 100 {
		lsn := pgoutput.LSN(1000 + i*mostMarks)
		if got, most := h.age(now, lsn), now.Sub(at(101+i*mostMarks)); got > most {
			t.Fatalf("the age of %d is %v, which is more than %v", lsn, got, most)
		}
	}
}

func TestLimitsOfTheSlot(t *testing.T) {
	c := Config{SlotMaxBytes: 100 << 20, SlotMaxAge: time.Hour, SlotMaxXminAge: 1000}
	for _, x := range []struct {
		w     weight
		key   string
		share float64
	}{
		{weight{}, "slot_max_xmin_age", 0},
		{weight{bytes: 80 << 20, age: time.Minute}, "slot_max_bytes", 0.8},
		{weight{bytes: 80 << 20, age: 2 * time.Hour, xminAge: 10}, "slot_max_age", 2},
		{weight{xminAge: 1500}, "slot_max_xmin_age", 1.5},
	} {
		if key, share, text := c.heaviest(x.w); key != x.key || share != x.share || !strings.Contains(text, "cdc."+key) {
			t.Errorf("%+v: %s %v %q", x.w, key, share, text)
		}
	}
	if key, share, _ := (Config{}).heaviest(weight{bytes: 1 << 60, age: 1e6 * time.Hour, xminAge: 1 << 40}); key != "" || share != 0 {
		t.Errorf("without limits: %s %v", key, share)
	}
}
