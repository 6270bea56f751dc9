package enrich

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/enrich/internal/envelope"
	"github.com/millrace-io/millrace/services/enrich/internal/images"
)

// rows decodes the rows of the mapped tables. It is for one goroutine.
type rows struct {
	registry *avro.Registry
	status   *status
	part     string
	log      *slog.Logger
	plans    map[*images.Table]map[int]*envelope.Plan
	row      envelope.Row
}

func newRows(registry *avro.Registry, st *status, part string, log *slog.Logger) *rows {
	return &rows{registry: registry, status: st, part: part, log: log, plans: map[*images.Table]map[int]*envelope.Plan{}}
}

// decode reads a record's value. The row is valid until the next call. Its error is the record's fault, or ctx's; as
// long as the registry is away, or the mapping asks for what the table has not, it waits.
func (d *rows) decode(ctx context.Context, t *images.Table, value []byte) (*envelope.Row, error) {
	id, body, err := avro.Unframe(value)
	if err != nil {
		return nil, err
	}
	plan := d.plans[t][id]
	if plan == nil {
		err := d.status.retry(ctx, d.part, func() (bool, error) {
			var err error
			plan, err = d.compile(ctx, t, id)
			return avro.Bad(err) || errors.Is(err, envelope.ErrNotEnvelope), err
		})
		if err != nil {
			return nil, err
		}
	}
	if err := plan.Decode(body, &d.row); err != nil {
		return nil, err
	}
	return &d.row, nil
}

func (d *rows) compile(ctx context.Context, t *images.Table, id int) (*envelope.Plan, error) {
	schema, err := d.registry.Schema(ctx, id)
	if err != nil {
		return nil, err
	}
	plan, err := envelope.Compile(schema, t.Columns)
	if errors.Is(err, envelope.ErrNoColumn) {
		return nil, fmt.Errorf("the mapping reads from table %s what it does not have (%w): correct enrich.mapping or enrich.mapping_file and start again", t.Name, err)
	}
	if err != nil {
		return nil, err
	}
	if l := plan.Lacking(); len(l) > 0 {
		d.log.Warn("the mapping names columns that the table does not have; they are read as null", "table", t.Name, "columns", l)
	}
	if d.plans[t] == nil {
		d.plans[t] = map[int]*envelope.Plan{}
	}
	d.plans[t][id] = plan
	return plan, nil
}

// verdict is the quarantine's class and reason of a decoding error; ok is false for an error that is not the record's.
func verdict(err error) (class string, faults []schemas.Fault, ok bool) {
	one := func(code, expected string) []schemas.Fault { return []schemas.Fault{{Code: code, Expected: expected}} }
	switch {
	case errors.Is(err, avro.ErrFraming):
		return schemas.ClassDecodePoison, one("not_framed", "a zero byte and the id of a schema"), true
	case errors.Is(err, avro.ErrUnknownSchema):
		return schemas.ClassSchemaUnknown, one("unknown_schema", "the id of a schema that the registry has"), true
	case errors.Is(err, avro.ErrIncompatible):
		return schemas.ClassSchemaViolation, one("incompatible_schema", "a schema that ours can read"), true
	case errors.Is(err, envelope.ErrNotEnvelope):
		return schemas.ClassSchemaViolation, one("not_an_envelope", "the envelope of a row, with op, after and source.seq"), true
	case errors.Is(err, envelope.ErrCorrupt), errors.Is(err, avro.ErrCorrupt):
		return schemas.ClassDecodePoison, one("corrupt", "bytes that fit their schema"), true
	default:
		return "", nil, false
	}
}
