package pgoutput

import (
	"encoding/binary"
	"errors"
	"testing"
)

func TestParseLSN(t *testing.T) {
	for text, want := range map[string]LSN{"0/0": 0, "0/16B3748": 0x16B3748, "1A/FFFFFFFF": 0x1AFFFFFFFF} {
		got, err := ParseLSN(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("ParseLSN(%q) = %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "0", "0/", "/1", "0/1G", "100000000/0"} {
		if _, err := ParseLSN(bad); err == nil {
			t.Errorf("ParseLSN(%q) is accepted", bad)
		}
	}
}

// tuple builds the wire form of a row; nil is null, "\x00" an unchanged value.
func tuple(values ...any) []byte {
	out := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			out = append(out, Null)
		case byte:
			out = append(out, v)
		case string:
			out = append(binary.BigEndian.AppendUint32(append(out, Text), uint32(len(v))), v...)
		}
	}
	return out
}

func update(rel uint32, oldKind byte, before, after []byte) []byte {
	out := binary.BigEndian.AppendUint32([]byte{KindUpdate}, rel)
	if oldKind != OldNone {
		out = append(append(out, oldKind), before...)
	}
	return append(append(out, 'N'), after...)
}

func TestParseUpdate(t *testing.T) {
	var c Change
	if err := c.Parse(update(7, OldKey, tuple("1", nil), tuple("2", byte(Unchanged)))); err != nil {
		t.Fatal(err)
	}
	if c.Relation != 7 || c.OldKind != OldKey || string(c.Old[0].Data) != "1" || c.Old[1].Kind != Null ||
		string(c.New[0].Data) != "2" || c.New[1].Kind != Unchanged {
		t.Errorf("parsed %+v", c)
	}
}

func TestTruncatedMessagesAreRefused(t *testing.T) {
	whole := update(7, OldFull, tuple("1", "x"), tuple("2", nil))
	for n := range len(whole) {
		var c Change
		if err := c.Parse(whole[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d of %d bytes: %v, want ErrMalformed", n, len(whole), err)
		}
	}
}

var (
	logical = append([]byte{KindMessage, 1, 0, 0, 0, 0, 0, 0, 1, 2}, "app\x00\x00\x00\x00\x02hi"...)
	origin  = append([]byte{KindOrigin, 0, 0, 0, 0, 0, 0, 1, 2}, "other\x00"...)
	enum    = append([]byte{KindType, 0, 0, 0x40, 0}, "\x00mood\x00"...)
)

func TestParseMessageOriginAndType(t *testing.T) {
	m, err := ParseMessage(logical)
	if err != nil || !m.Transactional || m.LSN != 0x102 || m.Prefix != "app" || string(m.Content) != "hi" {
		t.Errorf("message %+v, %v", m, err)
	}
	o, err := ParseOrigin(origin)
	if err != nil || o.LSN != 0x102 || o.Name != "other" {
		t.Errorf("origin %+v, %v", o, err)
	}
	y, err := ParseType(enum)
	if err != nil || y.OID != 0x4000 || y.Schema != "pg_catalog" || y.Name != "mood" {
		t.Errorf("type %+v, %v", y, err)
	}
	for n := range len(logical) {
		if _, err := ParseMessage(logical[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes of a message: %v", n, err)
		}
	}
	for n := range len(origin) {
		if _, err := ParseOrigin(origin[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes of an origin: %v", n, err)
		}
	}
	for n := range len(enum) {
		if _, err := ParseType(enum[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes of a type: %v", n, err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(update(1, OldNone, nil, tuple("a", nil)))
	f.Add(update(1, OldFull, tuple("a"), tuple(byte(Unchanged))))
	f.Add([]byte{KindRelation, 0, 0, 0, 1, 'p', 0, 't', 0, 'd', 0, 1, 1, 'i', 'd', 0, 0, 0, 0, 23, 255, 255, 255, 255})
	f.Add([]byte{KindBegin, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7})
	f.Add([]byte{KindCommit, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add(update(1, OldKey, tuple("1"), tuple("2", "3"))[:20])
	f.Add(logical)
	f.Add(origin)
	f.Add(enum)
	f.Add([]byte{KindMessage, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'p', 0, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{KindTruncate, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1})
	f.Add([]byte{KindInsert, 0, 0, 0, 1, 'N', 0xff, 0xff, 't', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, msg []byte) {
		var c Change
		if err := c.Parse(msg); err == nil { // nothing may panic
			size := 0
			for _, d := range append(c.Old, c.New...) {
				size += 1 + len(d.Data)
			}
			if id, err := RelationOf(msg); err != nil || id != c.Relation || size > len(msg) {
				t.Fatalf("relation %d of %d, %v; %d bytes of %d", id, c.Relation, err, size, len(msg))
			}
		}
		_, _ = ParseBegin(msg)
		_, _ = ParseCommit(msg)
		_, _ = ParseRelation(msg)
		_, _ = ParseTruncate(msg)
		_, _ = ParseMessage(msg)
		_, _ = ParseOrigin(msg)
		_, _ = ParseType(msg)
	})
}
