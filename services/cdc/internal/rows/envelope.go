package rows

import (
	"maps"
	"slices"
)

// connectNamespace is where Debezium keeps the names of what it sends beside rows.
const connectNamespace = "io.debezium.connector."

// sourceRecord is the envelope's source. Its properties named connect.* give the names by which Kafka Connect's
// converter hands the parts to Debezium's consumers; other readers skip them.
func sourceRecord() record {
	snapshot := map[string]any{"type": "string", "connect.version": 1, "connect.default": "false", "connect.name": "io.debezium.data.Enum",
		"connect.parameters": map[string]string{"allowed": "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"}}
	return record{Type: "record", Name: "Source", Connect: connectNamespace + "postgresql.Source", Fields: []field{
		{Name: "version", Type: "string"}, {Name: "connector", Type: "string"}, {Name: "name", Type: "string"},
		{Name: "ts_ms", Type: "long"}, {Name: "snapshot", Type: []any{snapshot, "null"}, Default: "false"}, {Name: "db", Type: "string"},
		optional("string", "sequence"), optional("long", "ts_us"), optional("long", "ts_ns"),
		{Name: "schema", Type: "string"}, {Name: "table", Type: "string"},
		optional("long", "txId"), optional("long", "lsn"), optional("long", "xmin"), {Name: "seq", Type: "long"},
	}}
}

// blockRecord is the envelope's transaction.
func blockRecord() record {
	return record{Type: "record", Name: "Block", Connect: "event.block", Fields: []field{
		{Name: "id", Type: "string"}, {Name: "total_order", Type: "long"}, {Name: "data_collection_order", Type: "long"},
	}}
}

// MessageKeySchema is the Avro schema of the keys of the topic of logical messages.
func MessageKeySchema() string {
	return marshal(record{Type: "record", Name: "MessageKey", Namespace: connectNamespace + "postgresql", Fields: []field{optional("string", "prefix")}})
}

// MessageSchema is the Avro schema of logical messages: Debezium's, and our seq in the source.
func MessageSchema() string {
	message := record{Type: "record", Name: "Message", Fields: []field{optional("string", "prefix"), optional("bytes", "content")}}
	return marshal(record{Type: "record", Name: "MessageValue", Namespace: connectNamespace + "postgresql", Fields: []field{
		{Name: "source", Type: sourceRecord()}, optional(blockRecord(), "transaction"), {Name: "op", Type: "string"},
		optional("long", "ts_ms"), optional("long", "ts_us"), optional("long", "ts_ns"), {Name: "message", Type: message},
	}})
}

// TransactionKeySchema is the Avro schema of the keys of the transaction topic.
func TransactionKeySchema() string {
	return marshal(record{Type: "record", Name: "TransactionMetadataKey", Namespace: connectNamespace + "common", Fields: []field{{Name: "id", Type: "string"}}})
}

// TransactionSchema is the Avro schema of the transaction topic: Debezium's, and our seq and annotations.
func TransactionSchema() string {
	collection := record{Type: "record", Name: "EventCollection", Connect: "event.collection", Fields: []field{
		{Name: "data_collection", Type: "string"}, {Name: "event_count", Type: "long"},
	}}
	return marshal(record{Type: "record", Name: "TransactionMetadataValue", Namespace: connectNamespace + "common", Fields: []field{
		{Name: "status", Type: "string"}, {Name: "id", Type: "string"}, optional("long", "event_count"),
		optional(map[string]any{"type": "array", "items": collection}, "data_collections"), {Name: "ts_ms", Type: "long"},
		{Name: "seq", Type: "long", Default: 0}, optional(map[string]any{"type": "map", "values": "string"}, "annotations"),
	}})
}

// Messages writes the records of logical messages. It is immutable and safe for concurrent use.
type Messages struct {
	keyID   int
	encoder *Encoder // of what a message has in common with a row's event
}

// NewMessages makes one; keyID and valueID are the registry's ids of MessageKeySchema and MessageSchema.
func NewMessages(origin Origin, keyID, valueID int) *Messages {
	return &Messages{keyID: keyID, encoder: &Encoder{valueID: valueID, origin: origin.head(), database: appendString(nil, origin.Database), names: []byte{0, 0}}}
}

// AppendKey appends the framed key.
func (m *Messages) AppendKey(dst []byte, prefix string) []byte {
	return appendString(append(frame(dst, m.keyID), 2), prefix)
}

// AppendValue appends the framed value. A nil content is null.
func (m *Messages) AppendValue(dst []byte, ev *Event, prefix string, content []byte) []byte {
	dst = m.encoder.appendRest(frame(dst, m.encoder.valueID), ev)
	dst = appendString(append(dst, 2), prefix)
	if content == nil {
		return append(dst, 0)
	}
	return append(appendLong(append(dst, 2), int64(len(content))), content...)
}

// Boundary is the beginning or the end of a transaction.
type Boundary struct {
	ID          string
	End         bool
	Counts      map[string]int64 // events by schema.table; of an end
	CommitTime  int64            // Unix microseconds
	Seq         int64
	Annotations map[string]string
}

// Transactions writes the records of the transaction topic. It is immutable and safe for concurrent use.
type Transactions struct{ keyID, valueID int }

// NewTransactions makes one; keyID and valueID are the registry's ids of TransactionKeySchema and TransactionSchema.
func NewTransactions(keyID, valueID int) Transactions { return Transactions{keyID, valueID} }

// AppendKey appends the framed key.
func (t Transactions) AppendKey(dst []byte, id string) []byte {
	return appendString(frame(dst, t.keyID), id)
}

// AppendValue appends the framed value.
func (t Transactions) AppendValue(dst []byte, b *Boundary) []byte {
	dst = frame(dst, t.valueID)
	if !b.End {
		dst = append(appendString(appendString(dst, "BEGIN"), b.ID), 0, 0)
	} else {
		dst = appendString(appendString(dst, "END"), b.ID)
		total := int64(0)
		for _, n := range b.Counts {
			total += n
		}
		dst = append(appendLong(append(dst, 2), total), 2)
		dst = appendBlock(dst, len(b.Counts))
		for _, name := range slices.Sorted(maps.Keys(b.Counts)) {
			dst = appendLong(appendString(dst, name), b.Counts[name])
		}
		dst = append(dst, 0)
	}
	dst = appendLong(appendLong(dst, b.CommitTime/1000), b.Seq)
	if len(b.Annotations) == 0 {
		return append(dst, 0)
	}
	dst = appendBlock(append(dst, 2), len(b.Annotations))
	for _, name := range slices.Sorted(maps.Keys(b.Annotations)) {
		dst = appendString(appendString(dst, name), b.Annotations[name])
	}
	return append(dst, 0)
}

// appendBlock begins an Avro array or map of n items, if there are any; a zero ends it.
func appendBlock(dst []byte, n int) []byte {
	if n == 0 {
		return dst
	}
	return appendLong(dst, int64(n))
}
