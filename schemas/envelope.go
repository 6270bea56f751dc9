package schemas

// The envelope of the topics store.<schema>.<table> is Debezium's, so that its consumers work unchanged. The value is a
// record with these fields; "before" and "after" are nullable records of the table's columns, named as in the source.
// Every column that is not part of the key is nullable with default null. The key is a record of the key's columns.
// A delete is an event with op "d", whose "before" has at least the key's columns, followed by a tombstone (null value).
//
// Columns in Avro: smallint, integer → int; bigint → long; boolean → boolean; real → float; double precision → double;
// numeric(p,s) → bytes with logicalType decimal (p, s); numeric without scale → string, as PostgreSQL prints it;
// date → int date; timestamp and timestamptz → long timestamp-micros (a timestamp without zone read as UTC, with
// logicalType local-timestamp-micros); bytea → bytes; everything else → string in PostgreSQL's text form. Columns of
// personal data are strings: keyed tokens.
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
