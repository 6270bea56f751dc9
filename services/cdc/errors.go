package cdc

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// ErrGap: the position in Kafka and the source do not fit together, so going on would lose changes. Every such error is
// a [GapError].
var ErrGap = errors.New("capture would have a gap")

// GapCause is why capture cannot go on where it was. The values are stable: they are labels, and parts of `cdc status --json`.
type GapCause string

// Causes of a gap.
const (
	GapSlotDropped          GapCause = "slot_dropped"          // the slot is not on the source
	GapSlotRecreated        GapCause = "slot_recreated"        // the slot begins after the position and has decoded nothing
	GapSlotAdvanced         GapCause = "slot_advanced"         // the slot begins after the position
	GapSlotInvalidated      GapCause = "slot_invalidated"      // the source has given the slot up; Reason says why
	GapSlotGivenUp          GapCause = "slot_given_up"         // cdc itself dropped the slot at a limit
	GapSlotPlugin           GapCause = "slot_plugin"           // the slot is one of another output plugin
	GapSlotDatabase         GapCause = "slot_database"         // the slot is one of another database
	GapOtherSystem          GapCause = "other_system"          // the source is another cluster
	GapRestored             GapCause = "restored"              // the source is older than the position
	GapHistory              GapCause = "history"               // the source's history left the position's timeline before it
	GapPublicationDropped   GapCause = "publication_dropped"   // changes were made while there was no publication
	GapPublicationRecreated GapCause = "publication_recreated" // the publication is not the one of the position
	GapPositionMissing      GapCause = "position_missing"      // the slot is there and Kafka knows nothing of it
	GapTopicLost            GapCause = "topic_lost"            // a topic has less than what was claimed of it
	GapTransaction          GapCause = "transaction"           // a transaction that is in Kafka in part is not what the source sends
)

// GapError says why capture cannot go on, and what to do. It wraps [ErrGap].
type GapError struct {
	Cause    GapCause
	Reason   string       // of an invalidation, the source's own word: rows_removed, wal_removed, …; else ""
	What     string       // what was found
	Mend     string       // what to do first, with the SQL and the server to run it on; "" if nothing
	Position pgoutput.LSN // up to which everything is in Kafka; 0 if that is not known
}

// Error names the cause, what to mend, and the next command.
func (e *GapError) Error() string {
	text := fmt.Sprintf("%v: %s; nothing was written", ErrGap, e.What)
	if e.Mend != "" {
		text += ". First, " + e.Mend
	}
	return text + ". To go on, " + afterGap
}

// Unwrap is ErrGap.
func (e *GapError) Unwrap() error { return ErrGap }

// afterGap is the way out of every gap.
const afterGap = "run `cdc reconcile` and start cdc again: it streams from a new slot and writes what differs, deletes included"

// newGap is a gap without anything to mend first.
func newGap(cause GapCause, format string, args ...any) *GapError {
	return &GapError{Cause: cause, What: fmt.Sprintf(format, args...)}
}

// gap is a gap within the stream: the source does not send what the position says that it had begun to send.
func gap(format string, args ...any) error { return newGap(GapTransaction, format, args...) }

// first adds what has to be done before the next command.
func (e *GapError) first(mend string) *GapError {
	e.Mend = mend
	return e
}

// behindError: the source has less than the position, which may be because it has just been started.
type behindError struct{ at, position pgoutput.LSN }

func (e *behindError) Error() string {
	return fmt.Sprintf("the source is at %s and the position is %s: waiting for the replica to catch up. If it stays there, the source was restored "+
		"from a backup older than the position; then %s", e.at, e.position, afterGap)
}
