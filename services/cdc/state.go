package cdc

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

// state is what the service knows about itself, for readiness, progress and status. It is safe for concurrent use.
type state struct {
	mu       sync.Mutex
	position schemas.Position   // everything up to it is committed
	ends     map[string][]int64 // offsets after the last data, by topic
	reason   error              // why it does not stream
	live     bool               // position and ends are those of a running stream
	carried  int                // commits of streams, over all sessions
	stream   *replica.Stream    // of the running session
	encoded  int64              // everything up to it is handed to Kafka's client
	pid      int32              // of our replication connection on the source
}

func newState() *state { return &state{reason: errors.New("not started")} }

// blocked sets the reason of not being ready.
func (s *state) blocked(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason, s.live = reason, false
}

func (s *state) streaming(p schemas.Position, ends map[string][]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason, s.live, s.position = nil, true, p
	s.setEnds(ends)
}

func (s *state) reached(p schemas.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = p
}

func (s *state) committed(p schemas.Position, ends map[string][]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = p
	if s.live {
		s.carried++
	}
	s.setEnds(ends)
}

// commits counts what streams have committed: a session that adds to it is no failed one.
func (s *state) commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.carried
}

func (s *state) setEnds(ends map[string][]int64) {
	if s.ends == nil {
		s.ends = map[string][]int64{}
	}
	for topic, e := range ends {
		s.ends[topic] = append(s.ends[topic][:0], e...)
	}
}

func (s *state) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// incomplete are the tables whose topic is not, or not yet, what the table is.
func incomplete(p schemas.Position) []string {
	tables := map[string]bool{}
	for t := range p.Stopped {
		tables[t] = true
	}
	for t := range p.Poisoned {
		tables[t] = true
	}
	for _, j := range p.Jobs {
		tables[j.Table] = true
	}
	if len(tables) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(tables))
}

// claim is a claim of what is committed, without its time; false while there is no stream.
func (s *state) claim() (schemas.Claim, time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.live {
		return schemas.Claim{}, time.Time{}, false
	}
	c := schemas.Claim{Stage: "cdc", Instance: s.position.Slot, SourceLSN: s.position.LSN}
	for topic, ends := range s.ends {
		for p, e := range ends {
			c.Ends = append(c.Ends, schemas.PartitionOffset{Topic: topic, Partition: int32(p), Offset: e})
		}
	}
	c.Incomplete = incomplete(s.position)
	return c, s.position.CommitTime, true
}

// connected says which process of the source serves our replication connection.
func (s *state) connected(pid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pid = int32(pid)
}

// reader is the process of the source that serves our replication connection; 0 if there was none yet.
func (s *state) reader() int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// recorded is the last position that is known to be in Kafka; 0 if none is.
func (s *state) recorded() pgoutput.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return pgoutput.LSN(s.position.LSN)
}

// reads says which stream is running.
func (s *state) reads(stream *replica.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream, s.encoded = stream, s.position.LSN
}

// handed says up to where everything is handed to Kafka's client.
func (s *state) handed(lsn int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.encoded = lsn
}

// stages are the positions up to which the stream is received, encoded and committed; false while there is no stream.
func (s *state) stages() (received, encoded, committed pgoutput.LSN, live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.live || s.stream == nil {
		return 0, 0, 0, false
	}
	return s.stream.Received(), pgoutput.LSN(s.encoded), pgoutput.LSN(s.position.LSN), true
}

// timeline is the one under which the running stream records its positions; false while there is no stream.
func (s *state) timeline() (int32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position.Timeline, s.live
}
