package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/schemas"
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
}

// topicOf is the topic of a table, with prefix.
func (f *factory) topicOf(schema, table string) string {
	return f.name(schemas.StoreTopic(rows.TopicPart(schema), rows.TopicPart(table)).Name)
}

// encoder registers the schemas of a table and compiles its encoder. It waits as long as the registry is away. An error
// that wraps avro.ErrIncompatible is the table's.
func (f *factory) encoder(ctx context.Context, t rows.Table, keyLevel string) (*rows.Encoder, error) {
	topic := f.topicOf(t.Schema, t.Name)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		keyID, err := f.register(ctx, topic+"-key", t.KeySchema(), keyLevel)
		var valueID int
		if err == nil {
			valueID, err = f.register(ctx, topic+"-value", t.SchemaIn(f.origin.Form), valueLevel)
		}
		if err == nil {
			return rows.NewEncoder(t, f.origin, f.keys, keyID, valueID), nil
		}
		if !errors.Is(err, avro.ErrUnavailable) || ctx.Err() != nil {
			return nil, err
		}
		f.log.Warn("waiting for the schema registry", "error", err)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the schema registry: %w", ctx.Err())
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

// incompatible says what to do about a table whose columns changed in a way that the registry does not allow.
func incompatible(topic string, err error) string {
	return fmt.Sprintf("its columns changed in a way that readers of its topic cannot follow (%v); once they can, delete the subjects %s-key and %s-value in the registry", err, topic, topic)
}
