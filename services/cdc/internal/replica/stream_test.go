package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// FuzzDecode feeds what a hostile or broken server could send: nothing panics, what is too short is refused, and a
// change's message is what came behind its header.
func FuzzDecode(f *testing.F) {
	header := binary.BigEndian.AppendUint64([]byte{'w'}, 100)
	header = binary.BigEndian.AppendUint64(header, 200)
	header = binary.BigEndian.AppendUint64(header, 300)
	f.Add(append(header, 'B', 1, 2, 3))
	f.Add(append(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte{'k'}, 7), 8), 1))
	f.Add([]byte{'w', 1})
	f.Add([]byte{'k'})
	f.Add([]byte{'z', 1, 2})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Stream
		m, ok, err := s.decode(b)
		switch {
		case err != nil:
			if ok || !errors.Is(err, pgoutput.ErrMalformed) {
				t.Fatalf("%v, %v", ok, err)
			}
		case ok && !m.Keepalive && !bytes.Equal(m.Data, b[25:]):
			t.Fatal("another message")
		case ok && s.received.Load() != uint64(m.LSN):
			t.Fatalf("received %d, the message is at %d", s.received.Load(), m.LSN)
		}
	})
}
