package avro

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/avro"
)

// ErrCorrupt: the body does not fit the schema that its id names. The record is bad.
var ErrCorrupt = errors.New("record does not fit its schema")

// An Encoder writes values of one schema. It is safe for concurrent use.
type Encoder struct {
	schema *avro.Schema
	id     int
}

// NewEncoder registers the schema under subject and returns its encoder.
func NewEncoder(ctx context.Context, r *Registry, subject, schema string) (*Encoder, error) {
	s, err := avro.Parse(schema)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", subject, err)
	}
	id, err := r.Register(ctx, subject, schema)
	if err != nil {
		return nil, err
	}
	return &Encoder{schema: s, id: id}, nil
}

// Append appends the framed record of v, a struct with avro tags.
func (e *Encoder) Append(dst []byte, v any) ([]byte, error) {
	out, err := e.schema.AppendEncode(AppendFrame(dst, e.id), v)
	if err != nil {
		return dst, errors.New("a value does not fit its schema") // the library's text could repeat the value
	}
	return out, nil
}

// A Decoder reads records of any writer's schema into the reader's. It is safe for concurrent use.
type Decoder struct {
	registry *Registry
	reader   *avro.Schema
	resolved sync.Map // writer's id → *avro.Schema
}

// NewDecoder makes a decoder for the reader's schema.
func NewDecoder(r *Registry, schema string) (*Decoder, error) {
	s, err := avro.Parse(schema)
	if err != nil {
		return nil, fmt.Errorf("reader schema: %w", err)
	}
	return &Decoder{registry: r, reader: s}, nil
}

// Decode reads a framed record into v, a pointer to a struct with avro tags. Errors wrap ErrFraming,
// ErrUnknownSchema, ErrIncompatible or ErrCorrupt, for which the record is bad, or ErrUnavailable, for which it may
// be good. They never repeat the record's content.
func (d *Decoder) Decode(ctx context.Context, data []byte, v any) error {
	id, body, err := Unframe(data)
	if err != nil {
		return err
	}
	s, err := d.forWriter(ctx, id)
	if err != nil {
		return err
	}
	rest, err := s.Decode(body, v)
	if err != nil {
		return fmt.Errorf("schema %d: %w", id, ErrCorrupt)
	}
	if len(rest) > 0 {
		return fmt.Errorf("schema %d: %d bytes too many: %w", id, len(rest), ErrCorrupt)
	}
	return nil
}

func (d *Decoder) forWriter(ctx context.Context, id int) (*avro.Schema, error) {
	if s, ok := d.resolved.Load(id); ok {
		return s.(*avro.Schema), nil
	}
	w, err := d.registry.Schema(ctx, id)
	if err != nil {
		return nil, err
	}
	s, err := avro.Resolve(w, d.reader)
	if err != nil {
		return nil, fmt.Errorf("schema %d cannot be read as ours: %w", id, ErrIncompatible)
	}
	d.resolved.Store(id, s)
	return s, nil
}

// Bad tells whether a decoding error is the record's fault: quarantine it. Else wait and try again.
func Bad(err error) bool {
	return errors.Is(err, ErrFraming) || errors.Is(err, ErrUnknownSchema) || errors.Is(err, ErrIncompatible) || errors.Is(err, ErrCorrupt)
}
