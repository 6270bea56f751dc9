package cdc

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

// chunkBytes is about how many bytes of messages are handed on at once under load.
const chunkBytes = 64 << 10

// queue holds messages of the stream, in chunks, between its reader and those who encode them. What is popped counts
// until it is given back, so that the bound in bytes holds for all that is not encoded: a full queue stops the reader,
// and so the source. One message larger than the bound is let in when nothing else is there. It is safe for concurrent
// use.
type queue struct {
	mu       sync.Mutex
	notFull  sync.Cond
	notEmpty sync.Cond
	limit    int
	held     int // bytes that wait, or are popped and not given back
	waits    int // bytes that wait
	chunks   [][]byte
	free     [][]byte
	calls    []call
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
	for q.held > 0 && q.held+len(messages) > q.limit && q.err == nil {
		q.notFull.Wait()
	}
	if q.err != nil {
		return false
	}
	q.held += len(messages)
	q.waits += len(messages)
	if n := len(q.chunks); n > 0 && len(q.chunks[n-1])+len(messages) <= chunkBytes {
		q.chunks[n-1] = append(q.chunks[n-1], messages...)
	} else {
		q.chunks = append(q.chunks, append(q.spare(), messages...))
	}
	q.notEmpty.Signal()
	return true
}

func (q *queue) spare() []byte {
	n := len(q.free)
	if n == 0 {
		return nil
	}
	out := q.free[n-1]
	q.free[n-1] = nil
	q.free = q.free[:n-1]
	return out
}

// nap is how long messages are let gather when some were here a moment ago: handing over every small message by itself
// costs more than all else. A lonely message does not wait.
const nap = time.Millisecond

// gather naps unless a whole chunk is waiting already.
func (q *queue) gather(since time.Duration) {
	if since < nap && q.waiting() < chunkBytes {
		time.Sleep(nap - since)
	}
}

// waiting is how many bytes are there to be popped.
func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waits
}

// pop waits for messages or calls. The chunk, which may be empty, is to be given back. After close it gives what is
// left, then the reason.
func (q *queue) pop() (chunk []byte, calls []call, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.chunks) == 0 && len(q.calls) == 0 && q.err == nil {
		q.notEmpty.Wait()
	}
	calls, q.calls = q.calls, nil
	if len(q.chunks) == 0 {
		if len(calls) == 0 {
			err = q.err
		}
		return nil, calls, err
	}
	chunk = q.chunks[0]
	q.waits -= len(chunk)
	n := copy(q.chunks, q.chunks[1:])
	q.chunks[n] = nil
	q.chunks = q.chunks[:n]
	return chunk, calls, nil
}

// giveBack makes room: nothing refers to the popped chunk any more.
func (q *queue) giveBack(chunk []byte) {
	if len(chunk) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held -= len(chunk)
	// One huge message must not stay for ever, nor more than can be in use.
	if cap(chunk) <= 2*chunkBytes && len(q.free) <= q.limit/chunkBytes {
		q.free = append(q.free, chunk[:0])
	}
	q.notFull.Signal()
}

// call asks whoever pops to run something.
func (q *queue) call(c call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, c)
	q.notEmpty.Signal()
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
