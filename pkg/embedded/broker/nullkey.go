package broker

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// hasNullKey reports whether any record of an encoded batch has no key. A
// batch that cannot be parsed is an error: the broker itself refuses those.
func hasNullKey(raw []byte) (bool, error) {
	var b kmsg.RecordBatch
	if err := b.ReadFrom(raw); err != nil {
		return false, fmt.Errorf("parse record batch: %w", err)
	}
	records, err := plainRecords(&b)
	if err != nil {
		return false, err
	}
	for i := int32(0); i < b.NumRecords; i++ {
		length, n := binary.Varint(records)
		if n <= 0 || length < 0 || length > int64(len(records)-n) {
			return false, fmt.Errorf("record %d of %d: bad length", i, b.NumRecords)
		}
		null, ok := nullKeyRecord(records[n : n+int(length)])
		if !ok {
			return false, fmt.Errorf("record %d of %d: truncated", i, b.NumRecords)
		}
		if null {
			return true, nil
		}
		records = records[n+int(length):]
	}
	return false, nil
}

// nullKeyRecord looks at one record's body: attributes, timestamp delta, offset
// delta, key length. Nothing after the key's length needs decoding.
func nullKeyRecord(body []byte) (null, ok bool) {
	if len(body) < 1 {
		return false, false
	}
	body = body[1:]
	var v int64
	for range 3 {
		var n int
		if v, n = binary.Varint(body); n <= 0 {
			return false, false
		}
		body = body[n:]
	}
	return v < 0, true
}

// plainRecords returns a batch's records uncompressed.
func plainRecords(b *kmsg.RecordBatch) ([]byte, error) {
	codec := kgo.CompressionCodecType(b.Attributes & 0x0007)
	if codec == kgo.CodecNone {
		return b.Records, nil
	}
	out, err := kgo.DefaultDecompressor().Decompress(b.Records, codec)
	if err != nil {
		return nil, fmt.Errorf("decompress records: %w", err)
	}
	return out, nil
}
