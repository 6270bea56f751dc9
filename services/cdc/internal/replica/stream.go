package replica

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

const (
	// tick is how soon a silent socket gets a status update. The server's sender can miss its wake-up since PostgreSQL
	// 16; any message of ours wakes it.
	tick = 25 * time.Millisecond
	// pulse is how often status is sent under load, and how often a silent server is asked to answer.
	pulse = time.Second
	// silence is after how long without an answer the server counts as gone.
	silence = 30 * time.Second
	// writeLimit bounds one status update: the server reads them even while it cannot send.
	writeLimit = 10 * time.Second
)

// ErrPublicationSkipped: the server decodes without the publication, so changes are passing unseen.
var ErrPublicationSkipped = errors.New("the server skips the publication, which is gone")

// Message is a message of the stream. Data points into a buffer that the next Receive overwrites.
type Message struct {
	Keepalive bool
	LSN       pgoutput.LSN // of the change; of a keepalive, up to where everything has been sent
	SentAt    int64        // Unix microseconds, the server's clock
	Data      []byte       // of a change: the plugin's message
}

// Stream is a running stream of changes. Receive is for one goroutine; the other methods are safe for concurrent use.
type Stream struct {
	conn   *pgconn.HijackedConn
	buffer *bufio.Reader // what the frontend reads from

	acked    atomic.Uint64
	received atomic.Uint64
	heard    atomic.Int64  // Unix nanoseconds of when the present or last Receive began
	reading  atomic.Bool   // a Receive waits
	asked    atomic.Bool   // the server wants a status update
	ask      chan struct{} // the server is to be asked at once
	stop     chan struct{}
	done     chan struct{}
	once     sync.Once
}

func newStream(conn *pgconn.HijackedConn, buffer *bufio.Reader, at pgoutput.LSN) *Stream {
	s := &Stream{conn: conn, buffer: buffer, ask: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	s.acked.Store(uint64(at))
	s.received.Store(uint64(at))
	s.heard.Store(time.Now().UnixNano())
	go s.report()
	return s
}

// Close ends the stream; a waiting Receive returns an error.
func (s *Stream) Close() {
	s.once.Do(func() {
		close(s.stop)
		_ = s.conn.Conn.Close() // ends the reader and the writer
	})
	<-s.done
}

// Ack lets the server forget everything up to lsn. It never goes back.
func (s *Stream) Ack(lsn pgoutput.LSN) {
	for {
		old := s.acked.Load()
		if uint64(lsn) <= old || s.acked.CompareAndSwap(old, uint64(lsn)) {
			return
		}
	}
}

// Received is how far the server has sent, keepalives included.
func (s *Stream) Received() pgoutput.LSN { return pgoutput.LSN(s.received.Load()) }

// Ask has the server tell at once how far it is, with a keepalive that Receive returns.
func (s *Stream) Ask() {
	select {
	case s.ask <- struct{}{}:
	default: // it is being asked
	}
}

// Pending tells whether a part of the next message is here already.
func (s *Stream) Pending() bool {
	return s.conn.Frontend.ReadBufferLen() > 0 || s.buffer.Buffered() > 0
}

// Receive waits for the next message.
func (s *Stream) Receive() (Message, error) {
	s.heard.Store(time.Now().UnixNano()) // while nobody read, nothing could be heard
	s.reading.Store(true)
	defer s.reading.Store(false)
	for {
		msg, err := s.conn.Frontend.Receive()
		if err != nil {
			return Message{}, fmt.Errorf("the source's connection ended: %w", err)
		}
		switch m := msg.(type) {
		case *pgproto3.CopyData:
			out, ok, err := s.decode(m.Data)
			if ok || err != nil {
				return out, err
			}
		case *pgproto3.ErrorResponse:
			return Message{}, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.NoticeResponse:
			if strings.Contains(m.Message, "skipped loading publication") {
				return Message{}, ErrPublicationSkipped
			}
		case *pgproto3.CopyDone, *pgproto3.CommandComplete:
			return Message{}, fmt.Errorf("the source ended the stream: %w", io.EOF)
		}
	}
}

func (s *Stream) decode(b []byte) (Message, bool, error) {
	switch {
	case len(b) >= 25 && b[0] == 'w':
		s.advance(binary.BigEndian.Uint64(b[1:]))
		return Message{LSN: pgoutput.LSN(binary.BigEndian.Uint64(b[1:])), SentAt: pgoutput.Micros(int64(binary.BigEndian.Uint64(b[17:]))),
			Data: b[25:]}, true, nil
	case len(b) >= 18 && b[0] == 'k':
		lsn := binary.BigEndian.Uint64(b[1:])
		s.advance(lsn)
		if b[17] == 1 {
			s.asked.Store(true)
		}
		return Message{Keepalive: true, LSN: pgoutput.LSN(lsn), SentAt: pgoutput.Micros(int64(binary.BigEndian.Uint64(b[9:])))}, true, nil
	case len(b) > 0 && b[0] != 'w' && b[0] != 'k':
		return Message{}, false, nil // a message of a later protocol
	}
	return Message{}, false, pgoutput.ErrMalformed
}

func (s *Stream) advance(lsn uint64) {
	if lsn > s.received.Load() {
		s.received.Store(lsn)
	}
}

// report writes status updates, apart from the reading so that back-pressure never looks like death to the server.
func (s *Stream) report() {
	defer close(s.done)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var sent, questioned time.Time
	for {
		asking := false
		select {
		case <-s.stop:
			return
		case <-s.ask:
			asking = true
		case <-ticker.C:
		}
		now := time.Now()
		quiet := now.Sub(time.Unix(0, s.heard.Load()))
		if s.reading.Load() && quiet > silence {
			_ = s.conn.Conn.Close() // Receive tells
			return
		}
		question := asking || s.reading.Load() && quiet >= pulse && now.Sub(questioned) >= pulse
		if !asking && quiet < tick && now.Sub(sent) < pulse && !s.asked.Swap(false) {
			continue
		}
		if err := s.write(question, now); err != nil {
			_ = s.conn.Conn.Close()
			return
		}
		sent = now
		if question {
			questioned = now
		}
	}
}

func (s *Stream) write(question bool, now time.Time) error {
	acked := s.acked.Load()
	b := make([]byte, 0, 39)
	b = append(b, 'd', 0, 0, 0, 38, 'r')
	b = binary.BigEndian.AppendUint64(b, max(s.received.Load(), acked))
	b = binary.BigEndian.AppendUint64(b, acked)
	b = binary.BigEndian.AppendUint64(b, acked)
	b = binary.BigEndian.AppendUint64(b, uint64(pgoutput.FromMicros(now.UnixMicro())))
	if question {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	if err := s.conn.Conn.SetWriteDeadline(now.Add(writeLimit)); err != nil {
		return err
	}
	_, err := s.conn.Conn.Write(b)
	return err
}
