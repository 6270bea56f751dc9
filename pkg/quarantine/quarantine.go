// Package quarantine makes the records of the quarantine topic: inputs that a stage could not take, with the reasons
// in clear and what they were sealed, and opens them again for those who hold the key.
package quarantine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/pkg/telemetry"
	"github.com/millrace-io/millrace/schemas"
)

// HTTP is the Source.Topic of inputs that came as HTTP requests.
const HTTP = "http"

// CodeTooLarge is the code of the fault that is added when an input is too large for a record of the quarantine
// topic: the entry then holds no payload, only where the input came from.
const CodeTooLarge = "too_large_to_keep"

// maxSealed keeps a record below the brokers' default limit of one megabyte. Sealed bytes do not compress.
const maxSealed = 900_000

// Source is the refused input.
type Source struct {
	Topic     string // full name, or HTTP
	Partition int32
	Offset    int64  // -1 for an input that has none: its id is then made from EventID and the bytes
	Key       []byte // may be nil
	Value     []byte // may be nil
	Headers   []kgo.RecordHeader
	EventID   string // empty where it could not be read
	Trace     string // W3C trace context, empty if the input had none
}

// FromRecord is the source of a consumed record.
func FromRecord(r *kgo.Record) Source {
	s := Source{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Headers: r.Headers}
	for _, h := range r.Headers {
		if h.Key == telemetry.TraceParent {
			s.Trace = string(h.Value)
			break
		}
	}
	return s
}

// Quarantine makes the records of one stage. It is safe for concurrent use.
type Quarantine struct {
	keys  *privacy.Keys
	enc   *avro.Encoder
	topic string
	stage string
}

// New makes the quarantine of a stage ("enrich"). enc writes schemas.Quarantined; topic is the full name.
func New(keys *privacy.Keys, enc *avro.Encoder, topic, stage string) *Quarantine {
	return &Quarantine{keys: keys, enc: enc, topic: topic, stage: stage}
}

// Record makes the entry of an input, for the caller to produce. class is one of the schemas.Class constants. Faults
// must not repeat values of the input. The same input gives an entry with the same id.
func (q *Quarantine) Record(src Source, class string, faults []schemas.Fault, at time.Time) (*kgo.Record, error) {
	id := ID(src, q.stage)
	entry := schemas.Quarantined{QuarantineID: id, Stage: q.stage, Class: class, Errors: faults,
		SourceTopic: src.Topic, SourcePartition: src.Partition, SourceOffset: src.Offset, EventID: src.EventID,
		FirstFailedAt: at.UTC().Truncate(time.Microsecond), Trace: src.Trace}
	plain, err := pack(src)
	if err != nil {
		return nil, err
	}
	if len(plain) > maxSealed {
		entry.Errors = append(append([]schemas.Fault(nil), faults...), schemas.Fault{Code: CodeTooLarge,
			Expected: fmt.Sprintf("at most %d bytes; read the input at its source position while the topic keeps it", maxSealed)})
	} else {
		sealed, err := q.keys.Seal(plain, id)
		if err != nil {
			return nil, fmt.Errorf("seal a quarantine entry: %w", err)
		}
		entry.KeyID, entry.WrappedKey, entry.Sealed = sealed.KeyID, sealed.WrappedKey, sealed.Body
	}
	value, err := q.enc.Append(nil, &entry)
	if err != nil {
		return nil, fmt.Errorf("encode a quarantine entry: %w", err)
	}
	r := &kgo.Record{Topic: q.topic, Key: []byte(id), Value: value}
	if src.Trace != "" {
		r.Headers = []kgo.RecordHeader{{Key: telemetry.TraceParent, Value: []byte(src.Trace)}}
	}
	return r, nil
}

// ErrNoPayload: the entry's input was too large to be kept.
var ErrNoPayload = errors.New("the entry holds no payload: the input was too large; read it at its source position")

// Open gives back the key, value and headers of an entry's input, with where it came from.
func Open(keys *privacy.Keys, entry *schemas.Quarantined) (Source, error) {
	if len(entry.Sealed) == 0 {
		return Source{}, ErrNoPayload
	}
	plain, err := keys.Open(privacy.Sealed{KeyID: entry.KeyID, WrappedKey: entry.WrappedKey, Body: entry.Sealed}, entry.QuarantineID)
	if err != nil {
		return Source{}, fmt.Errorf("open quarantine entry %s: %w", entry.QuarantineID, err)
	}
	src, err := unpack(plain)
	if err != nil {
		return Source{}, fmt.Errorf("open quarantine entry %s: %w", entry.QuarantineID, err)
	}
	src.Topic, src.Partition, src.Offset = entry.SourceTopic, entry.SourcePartition, entry.SourceOffset
	src.EventID, src.Trace = entry.EventID, entry.Trace
	return src, nil
}

// ID is the id of a source's entry at a stage: a hash of its position, or, where it has none, of what it was.
func ID(src Source, stage string) string {
	h := sha256.New()
	text := src.Topic + "|" + strconv.Itoa(int(src.Partition)) + "|" + strconv.FormatInt(src.Offset, 10) + "|" + stage
	h.Write([]byte(text))
	if src.Offset < 0 {
		fmt.Fprintf(h, "|%d|%s|%d|", len(src.EventID), src.EventID, len(src.Key))
		h.Write(src.Key)
		h.Write(src.Value)
	}
	return hex.EncodeToString(h.Sum(nil))
}
