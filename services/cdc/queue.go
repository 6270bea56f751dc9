package cdc

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

// queue holds messages of the stream between its reader and the encoder, bounded in bytes: a full queue stops the
// reader, and so the source. One message larger than the bound is let in when the queue is empty.
type queue struct {
	mu       sync.Mutex
	notFull  sync.Cond
	notEmpty sync.Cond
	limit    int
	buf      []byte
	err      error // why no more will come
}

func newQueue(limit int) *queue {
	q := &queue{limit: limit}
	q.notFull.L, q.notEmpty.L = &q.mu, &q.mu
	return q
}

const queueHeader = 4 + 1 + 8 + 8

func appendMessage(dst []byte, m replica.Message) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Data)))
	if m.Keepalive {
		dst = append(dst, 1)
	} else {
		dst = append(dst, 0)
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.LSN))
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.SentAt))
	return append(dst, m.Data...)
}

// nextMessage splits the first message off what appendMessage wrote.
func nextMessage(b []byte) (m replica.Message, rest []byte) {
	n := int(binary.BigEndian.Uint32(b))
	m.Keepalive = b[4] == 1
	m.LSN = pgoutput.LSN(binary.BigEndian.Uint64(b[5:]))
	m.SentAt = int64(binary.BigEndian.Uint64(b[13:]))
	m.Data = b[queueHeader : queueHeader+n]
	return m, b[queueHeader+n:]
}

// push adds encoded messages, waiting for room. It is false when the queue was closed.
func (q *queue) push(messages []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.buf) > 0 && len(q.buf)+len(messages) > q.limit && q.err == nil {
		q.notFull.Wait()
	}
	if q.err != nil {
		return false
	}
	q.buf = append(q.buf, messages...)
	q.notEmpty.Signal()
	return true
}

// nap is how long the encoder lets messages gather when it was here a moment ago: handing over every small message by
// itself costs more than all else. A lonely message does not wait.
const nap = time.Millisecond

// gather naps unless much is waiting already.
func (q *queue) gather(since time.Duration) {
	if since < nap && q.waiting() < q.limit/4 {
		time.Sleep(nap - since)
	}
}

// waiting is how many bytes are there to be popped.
func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.buf)
}

// pop waits for messages and takes all; spare becomes the next buffer. After close it gives what is left, then the
// reason.
func (q *queue) pop(spare []byte) ([]byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.buf) == 0 && q.err == nil {
		q.notEmpty.Wait()
	}
	if len(q.buf) == 0 {
		return nil, q.err
	}
	out := q.buf
	if cap(spare) > 2*q.limit { // one huge message must not stay for ever
		spare = nil
	}
	q.buf = spare[:0]
	q.notFull.Signal()
	return out, nil
}

// close ends the queue; the first reason counts.
func (q *queue) close(reason error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = reason
	}
	q.notFull.Broadcast()
	q.notEmpty.Broadcast()
}
