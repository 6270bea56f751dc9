package schemas

// The envelope of the topics store.<schema>.<table> is Debezium's, so that its consumers work unchanged. The value is a
// record with these fields; "before" and "after" are nullable records of the table's columns, named as in the source.
// Every column that is not part of the key is nullable with default null. The key is a record of the key's columns.
// A delete is an event with op "d", whose "before" has at least the key's columns, followed by a tombstone (null value).
//
// How each type of the source is written, and the modes that change it, is in docs/cdc-types.md, which a test holds true.
// What our own services rely on: integers are int and long, numeric(p,s) is bytes with logicalType decimal, numeric without
// scale is a string, date is int date, timestamps are long microseconds (one without zone read as UTC), and everything
// without an Avro type of its own is a string in PostgreSQL's text form. Columns of personal data are strings: keyed tokens.
const (
	EnvelopeBefore = "before"
	EnvelopeAfter  = "after"
	EnvelopeSource = "source"
	EnvelopeOp     = "op"    // c create, u update, d delete, r read by a snapshot, t truncate
	EnvelopeTsMs   = "ts_ms" // when cdc processed it, milliseconds
	EnvelopeTsUs   = "ts_us" // the same, microseconds
	EnvelopeTx     = "transaction"
	SourceSeq      = "seq"   // our own: strictly increasing over the installation; the version that consumers compare
	SourceTsUs     = "ts_us" // commit time at the source, microseconds
	SourceLSN      = "lsn"
	SourceTxID     = "txId"
	SourceSnapshot = "snapshot" // "true", "last" or "false"
)
