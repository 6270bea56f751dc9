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

// readPosition is the slot's committed position; false if there is none.
func readPosition(ctx context.Context, cfg kafka.Config, registry *avro.Registry, log *slog.Logger, slot string) (schemas.Position, bool, error) {
	decoder, err := avro.NewDecoder(registry, schemas.Latest(schemas.CDCPosition))
	if err != nil {
		return schemas.Position{}, false, err
	}
	var last []byte
	_, _, err = scan(ctx, cfg, log, 0, func(r *kgo.Record) {
		if !r.Attrs.IsControl() && string(r.Key) == slot {
			last = r.Value
		}
	}, cfg.Name(schemas.CDCPosition))
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
	return p
}

// ownTopics are the declared topics that cdc writes beside store.*.
func ownTopics() []kafka.Topic {
	var out []kafka.Topic
	for _, t := range schemas.Topics() {
		if t.Name == schemas.CDCPosition || t.Name == schemas.Progress {
			out = append(out, t)
		}
	}
	return out
}
