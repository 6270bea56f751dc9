package cdc

import (
	"context"
	"fmt"
	"log/slog"
	"maps"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
)

// States of the snapshot in a position.
const (
	snapshotNone    = ""
	snapshotRunning = "running"
	snapshotDone    = "done"
)

// readPosition is the slot's committed position; false if there is none. Up to settled it may be an older one, for the
// topic is shared: another slot's open transaction hides what was committed behind it.
func readPosition(ctx context.Context, cfg kafka.Config, registry *avro.Registry, log *slog.Logger, upTo extent, slot string) (schemas.Position, bool, error) {
	decoder, err := avro.NewDecoder(registry, schemas.Latest(schemas.CDCPosition))
	if err != nil {
		return schemas.Position{}, false, err
	}
	var last []byte
	topic := cfg.Name(schemas.CDCPosition)
	// Compaction comes late: a busy slot leaves millions of positions before its last one, which is near the end.
	for tail, more := int64(firstTail), true; last == nil && more && err == nil; tail *= nextTail {
		var start, end map[partition]int64
		start, end, err = scanTo(ctx, cfg, log, upTo, tail, func(r *kgo.Record) error {
			if !r.Attrs.IsControl() && string(r.Key) == slot {
				last = r.Value
			}
			return nil
		}, topic)
		more = end[partition{topic, 0}]-start[partition{topic, 0}] >= tail
	}
	if err != nil || last == nil {
		return schemas.Position{}, false, err
	}
	var p schemas.Position
	if err := decoder.Decode(ctx, last, &p); err != nil {
		return schemas.Position{}, false, fmt.Errorf("read the position of slot %s: %w", slot, err)
	}
	return p, true, nil
}

// withStopped is the position with one more stopped table; the map is not shared.
func withStopped(p schemas.Position, table, reason string) schemas.Position {
	p.Stopped = maps.Clone(p.Stopped)
	if p.Stopped == nil {
		p.Stopped = map[string]string{}
	}
	p.Stopped[table] = reason
	if p.Poisoned[table] != nil { // all of it is to be read again
		p.Poisoned = maps.Clone(p.Poisoned)
		delete(p.Poisoned, table)
	}
	return p
}

// ownTopics are the declared topics that cdc writes beside store.*.
func ownTopics() []kafka.Topic {
	var out []kafka.Topic
	for _, t := range schemas.Topics() {
		switch t.Name {
		case schemas.CDCPosition, schemas.Progress, schemas.CDCRequests, schemas.CDCNotifications, schemas.Quarantine:
			out = append(out, t)
		}
	}
	return out
}
