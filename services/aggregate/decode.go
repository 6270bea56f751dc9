package aggregate

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/aggregate/internal/sales"
)

// decoder turns records into images.
type decoder struct {
	orders, lines, products    *avro.Decoder
	ordersTopic, linesTopic    string
	productsTopic, refuseTopic string
}

func newDecoder(k kafka.Config, r *avro.Registry) (*decoder, error) {
	orders, err1 := avro.NewDecoder(r, schemas.Latest(schemas.SalesOrders))
	lines, err2 := avro.NewDecoder(r, schemas.Latest(schemas.SalesLines))
	products, err3 := avro.NewDecoder(r, schemas.Latest(schemas.SalesProducts))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	return &decoder{orders: orders, lines: lines, products: products, ordersTopic: k.Name(schemas.SalesOrders),
		linesTopic: k.Name(schemas.SalesLines), productsTopic: k.Name(schemas.SalesProducts), refuseTopic: k.Name(schemas.Quarantine)}, nil
}

func (d *decoder) topics() []string { return []string{d.ordersTopic, d.linesTopic, d.productsTopic} }

// refusal says why a record cannot be taken.
type refusal struct {
	class string
	code  string
}

func (r *refusal) Error() string { return r.class + ": " + r.code }

// image decodes a record. A *refusal is the record's fault; any other error may pass.
func (d *decoder) image(ctx context.Context, r *kgo.Record) (sales.Image, error) {
	if r.Value == nil {
		return sales.Image{}, nil // the tombstone after "gone"
	}
	switch r.Topic {
	case d.ordersTopic:
		return decode(ctx, d.orders, r, sales.OrderImage, func(o *sales.Order) sales.Image { return sales.Image{Order: o} })
	case d.linesTopic:
		return decode(ctx, d.lines, r, sales.LineImage, func(l *sales.Line) sales.Image { return sales.Image{Line: l} })
	default:
		return decode(ctx, d.products, r, sales.ProductImage, func(p *sales.Product) sales.Image { return sales.Image{Product: p} })
	}
}

func decode[V, I any](ctx context.Context, d *avro.Decoder, r *kgo.Record, check func(V) (I, error), wrap func(*I) sales.Image) (sales.Image, error) {
	var v V
	if err := d.Decode(ctx, r.Value, &v); err != nil {
		if !avro.Bad(err) {
			return sales.Image{}, err
		}
		return sales.Image{}, undecodable(err)
	}
	img, err := check(v)
	if err != nil {
		return sales.Image{}, &refusal{schemas.ClassSinkReject, err.Error()}
	}
	return wrap(&img), nil
}

func undecodable(err error) *refusal {
	switch {
	case errors.Is(err, avro.ErrUnknownSchema):
		return &refusal{schemas.ClassSchemaUnknown, "schema_unknown"}
	case errors.Is(err, avro.ErrIncompatible):
		return &refusal{schemas.ClassSchemaViolation, "schema_incompatible"}
	default:
		return &refusal{schemas.ClassDecodePoison, "not_decodable"}
	}
}

// refuse puts a record into quarantine; nil once it is safe there.
func (x *session) refuse(ctx context.Context, r *kgo.Record, why *refusal) error {
	entry, err := x.quarantine.Record(quarantine.FromRecord(r), why.class, []schemas.Fault{{Code: why.code}}, x.s.deps.Now())
	if err != nil {
		return err
	}
	if err := x.client.ProduceSync(ctx, entry).FirstErr(); err != nil {
		return fmt.Errorf("write to %s: %w", entry.Topic, err)
	}
	x.s.log.Warn("record put into quarantine", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "class", why.class, "code", why.code)
	return nil
}
