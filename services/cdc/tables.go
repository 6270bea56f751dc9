package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/policy"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Levels of compatibility. The key's bytes decide a row's partition and identity, so between two snapshots the schema
// of keys does not change at all.
const (
	valueLevel       = "BACKWARD_TRANSITIVE"
	keyLevelSnapshot = "BACKWARD_TRANSITIVE"
	keyLevelStream   = "FULL_TRANSITIVE"
)

// factory makes encoders and registers what they write.
type factory struct {
	registry *avro.Registry
	keys     *privacy.Keys
	origin   rows.Origin
	log      *slog.Logger
	name     func(string) string // with the topics' prefix
	policy   *policy.Policy
	options  catalog.Options
	notify   func(schemas.CaptureNotification)
}

// topicOf is the topic of a table, with prefix. version is the position's for the table: 0 and 1 are the first one.
func (f *factory) topicOf(schema, table string, version int32) string {
	return f.name(storeTopic(schema, table, version).Name)
}

// storeTopic is the declaration of a table's topic: store.<schema>.<table>, then .v2 and so on for the topics that follow
// one whose readers could not go on.
func storeTopic(schema, table string, version int32) kafka.Topic {
	t := schemas.StoreTopic(rows.TopicPart(schema), rows.TopicPart(table))
	if version > 1 {
		t.Name += ".v" + strconv.Itoa(int(version))
	}
	return t
}

// encoder registers the schemas of a table and compiles its encoder. It waits as long as the registry is away. An error
// that wraps avro.ErrIncompatible is the table's.
func (f *factory) encoder(ctx context.Context, t rows.Table, version int32, keyLevel string) (*rows.Encoder, error) {
	topic := f.topicOf(t.Schema, t.Name, version)
	changes, err := f.follow(ctx, topic, t)
	if err != nil {
		return nil, err
	}
	var keyID, valueID int
	err = f.patiently(ctx, func() (err error) {
		if keyID, err = f.register(ctx, topic+"-key", t.KeySchema(), keyLevel); err == nil {
			valueID, err = f.register(ctx, topic+"-value", t.SchemaIn(f.origin.Form), valueLevel)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	f.tell(topic, t, changes)
	return rows.NewEncoder(t, f.origin, f.keys, keyID, valueID), nil
}

// patiently asks the registry, again and again as long as it is away.
func (f *factory) patiently(ctx context.Context, ask func() error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := ask()
		if !errors.Is(err, avro.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		f.log.Warn("waiting for the schema registry", "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the schema registry: %w", ctx.Err())
		case <-time.After(wait):
		}
	}
}

func (f *factory) register(ctx context.Context, subject, schema, level string) (int, error) {
	if err := f.registry.SetCompatibility(ctx, subject, level); err != nil {
		return 0, err
	}
	return f.registry.Register(ctx, subject, schema)
}

// incompatible says what to do about a table whose columns changed in a way that readers of its topic cannot follow.
func incompatible(table string, version int32, err error) string {
	next := max(version, 1) + 1
	return fmt.Sprintf("its columns changed in a way that readers of its topic cannot follow (%v); go on in a new topic, filled anew, with `cdc resume %s --as v%d`, or undo the change",
		err, table, next)
}
