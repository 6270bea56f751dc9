package quarantine

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The packed form, before sealing: one byte for how the rest is written (plain or deflated), then key, value, the
// number of headers, and each header's name and value. A byte string is its length plus one as a varint, 0 for null,
// then the bytes.
const (
	formPlain    = 1
	formDeflated = 2
)

// deflateFrom is the size from which packing compresses: small inputs would gain nothing.
const deflateFrom = 16 << 10

// maxUnpacked bounds what a deflated entry may unpack to.
const maxUnpacked = 256 << 20

var errPacked = errors.New("not in the packed form of an input")

func pack(src Source) ([]byte, error) {
	out := appendBytes([]byte{formPlain}, src.Key)
	out = appendBytes(out, src.Value)
	out = binary.AppendUvarint(out, uint64(len(src.Headers)))
	for _, h := range src.Headers {
		out = appendBytes(out, []byte(h.Key))
		out = appendBytes(out, h.Value)
	}
	if len(out) < deflateFrom {
		return out, nil
	}
	var small bytes.Buffer
	small.WriteByte(formDeflated)
	w, err := flate.NewWriter(&small, flate.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("deflate a quarantine entry: %w", err)
	}
	_, err = w.Write(out[1:])
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("deflate a quarantine entry: %w", err)
	}
	if small.Len() >= len(out) {
		return out, nil
	}
	return small.Bytes(), nil
}

func unpack(data []byte) (Source, error) {
	if len(data) == 0 {
		return Source{}, errPacked
	}
	form, data := data[0], data[1:]
	switch form {
	case formPlain:
	case formDeflated:
		var err error
		if data, err = io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(data)), maxUnpacked)); err != nil {
			return Source{}, errPacked
		}
	default:
		return Source{}, errPacked
	}
	p := unpacker{rest: data}
	src := Source{Key: p.bytes(), Value: p.bytes()}
	n := p.uvarint()
	if n > uint64(len(data)) {
		return Source{}, errPacked
	}
	for range n {
		src.Headers = append(src.Headers, kgo.RecordHeader{Key: string(p.bytes()), Value: p.bytes()})
	}
	if p.bad || len(p.rest) > 0 {
		return Source{}, errPacked
	}
	return src, nil
}

func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	return append(binary.AppendUvarint(dst, uint64(len(b))+1), b...)
}

// unpacker reads the packed form; after a mistake it is bad and gives zero values.
type unpacker struct {
	rest []byte
	bad  bool
}

func (u *unpacker) uvarint() uint64 {
	v, n := binary.Uvarint(u.rest)
	if n <= 0 {
		u.bad, u.rest = true, nil
		return 0
	}
	u.rest = u.rest[n:]
	return v
}

func (u *unpacker) bytes() []byte {
	n := u.uvarint()
	if n == 0 || u.bad {
		return nil
	}
	if n-1 > uint64(len(u.rest)) {
		u.bad, u.rest = true, nil
		return nil
	}
	out := u.rest[:n-1]
	u.rest = u.rest[n-1:]
	return out
}
