// Package pgoutput reads the messages of PostgreSQL's pgoutput plugin, protocol version 1. It does no I/O, never panics
// on bad bytes, and what it returns points into the message: copy what must outlive it.
package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Kinds of message, the first byte.
const (
	KindBegin    = 'B'
	KindCommit   = 'C'
	KindRelation = 'R'
	KindInsert   = 'I'
	KindUpdate   = 'U'
	KindDelete   = 'D'
	KindTruncate = 'T'
	KindType     = 'Y'
	KindOrigin   = 'O'
	KindMessage  = 'M'
)

// Kinds of a column's value in a row.
const (
	Null      = 'n'
	Unchanged = 'u' // a large value that the update did not touch, and that the log does not repeat
	Text      = 't'
)

// Kinds of old row in an update or delete.
const (
	OldNone = 0
	OldKey  = 'K' // only the columns of the replica identity are set
	OldFull = 'O'
)

// ErrMalformed: the bytes are not a message of the protocol.
var ErrMalformed = errors.New("malformed replication message")

// epochMicros is 2000-01-01 UTC, PostgreSQL's epoch, in Unix microseconds.
const epochMicros = 946_684_800_000_000

// Micros turns PostgreSQL's time on the wire into Unix microseconds.
func Micros(pg int64) int64 { return pg + epochMicros }

// FromMicros is the inverse of Micros.
func FromMicros(unix int64) int64 { return unix - epochMicros }

// Begin opens a transaction.
type Begin struct {
	FinalLSN   LSN   // of the commit record
	CommitTime int64 // Unix microseconds
	XID        uint32
}

// Commit closes it.
type Commit struct {
	CommitLSN  LSN
	EndLSN     LSN // where the next transaction may begin: the position to resume from
	CommitTime int64
}

// Relation describes a table as it was when the following changes were made.
type Relation struct {
	ID       uint32
	Schema   string
	Name     string
	Identity byte // replica identity: d, n, f or i
	Columns  []Column
}

// Column is a column of a Relation.
type Column struct {
	Key      bool // part of the replica identity
	Name     string
	Type     uint32
	Modifier int32
}

// Datum is one column's value.
type Datum struct {
	Kind byte
	Data []byte // PostgreSQL's text, when Kind is Text
}

// Change is an insert, update or delete. Its slices are reused by Parse.
type Change struct {
	Relation uint32
	Op       byte
	OldKind  byte
	Old, New []Datum
}

// Truncate empties tables.
type Truncate struct{ Relations []uint32 }

// Message is what pg_logical_emit_message sends.
type Message struct {
	Transactional bool // it comes within its transaction, if that commits; otherwise at once
	LSN           LSN  // its end in the log
	Prefix        string
	Content       []byte
}

// Origin names the server from which a transaction was replicated.
type Origin struct {
	LSN  LSN // of the commit there
	Name string
}

// Type describes a type that is not built in.
type Type struct {
	OID          uint32
	Schema, Name string
}

type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || len(c.b) < n {
		c.bad, c.b = true, nil
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) u8() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() int {
	if b := c.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) text() string {
	i := bytes.IndexByte(c.b, 0)
	if i < 0 {
		c.bad, c.b = true, nil
		return ""
	}
	s := string(c.b[:i])
	c.b = c.b[i+1:]
	return s
}

func (c *cursor) err() error {
	if c.bad {
		return ErrMalformed
	}
	return nil
}

// ParseBegin reads a message of KindBegin.
func ParseBegin(msg []byte) (Begin, error) {
	c := cursor{b: msg}
	c.u8()
	b := Begin{FinalLSN: LSN(c.u64()), CommitTime: Micros(int64(c.u64())), XID: c.u32()}
	return b, c.err()
}

// ParseCommit reads a message of KindCommit.
func ParseCommit(msg []byte) (Commit, error) {
	c := cursor{b: msg}
	c.take(2) // kind and flags
	m := Commit{CommitLSN: LSN(c.u64()), EndLSN: LSN(c.u64()), CommitTime: Micros(int64(c.u64()))}
	return m, c.err()
}

// ParseRelation reads a message of KindRelation.
func ParseRelation(msg []byte) (Relation, error) {
	c := cursor{b: msg}
	c.u8()
	r := Relation{ID: c.u32(), Schema: c.text(), Name: c.text(), Identity: c.u8()}
	if r.Schema == "" {
		r.Schema = "pg_catalog" // the protocol's abbreviation
	}
	n := c.u16()
	for range n {
		if c.bad {
			break
		}
		r.Columns = append(r.Columns, Column{Key: c.u8()&1 != 0, Name: c.text(), Type: c.u32(), Modifier: int32(c.u32())})
	}
	return r, c.err()
}

// ParseTruncate reads a message of KindTruncate.
func ParseTruncate(msg []byte) (Truncate, error) {
	c := cursor{b: msg}
	c.u8()
	n := c.u32()
	c.u8() // CASCADE and RESTART IDENTITY: the tables are all listed, and sequences are not captured
	var t Truncate
	for range n {
		if c.bad {
			break
		}
		t.Relations = append(t.Relations, c.u32())
	}
	return t, c.err()
}

// RelationOf is the relation of an insert, update or delete, without reading the rest.
func RelationOf(msg []byte) (uint32, error) {
	c := cursor{b: msg}
	c.u8()
	id := c.u32()
	return id, c.err()
}

// ParseMessage reads a message of KindMessage. Content points into msg.
func ParseMessage(msg []byte) (Message, error) {
	c := cursor{b: msg}
	c.u8()
	m := Message{Transactional: c.u8()&1 != 0, LSN: LSN(c.u64()), Prefix: c.text()}
	m.Content = c.take(int(c.u32()))
	return m, c.err()
}

// ParseOrigin reads a message of KindOrigin.
func ParseOrigin(msg []byte) (Origin, error) {
	c := cursor{b: msg}
	c.u8()
	o := Origin{LSN: LSN(c.u64()), Name: c.text()}
	return o, c.err()
}

// ParseType reads a message of KindType.
func ParseType(msg []byte) (Type, error) {
	c := cursor{b: msg}
	c.u8()
	t := Type{OID: c.u32(), Schema: c.text(), Name: c.text()}
	if t.Schema == "" {
		t.Schema = "pg_catalog" // the protocol's abbreviation
	}
	return t, c.err()
}

// Parse reads an insert, update or delete.
func (ch *Change) Parse(msg []byte) error {
	c := cursor{b: msg}
	ch.Op, ch.Relation, ch.OldKind = c.u8(), c.u32(), OldNone
	ch.Old, ch.New = ch.Old[:0], ch.New[:0]
	kind := c.u8()
	if kind == OldKey || kind == OldFull {
		if ch.Op == KindInsert {
			return ErrMalformed
		}
		ch.OldKind = kind
		ch.Old = c.tuple(ch.Old)
		if ch.Op == KindDelete {
			return c.err()
		}
		kind = c.u8()
	}
	if kind != 'N' || ch.Op == KindDelete {
		return ErrMalformed
	}
	ch.New = c.tuple(ch.New)
	return c.err()
}

func (c *cursor) tuple(dst []Datum) []Datum {
	n := c.u16()
	for range n {
		d := Datum{Kind: c.u8()}
		switch d.Kind {
		case Null, Unchanged:
		case Text:
			d.Data = c.take(int(c.u32()))
		default:
			c.bad = true
		}
		if c.bad {
			return dst
		}
		dst = append(dst, d)
	}
	return dst
}
