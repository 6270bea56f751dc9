package cdc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/diff"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

var lineTable = rows.Table{Schema: "public", Name: "lines", Columns: []rows.Column{{Name: "id", Field: "id", Kind: rows.Int, Key: true},
	{Name: "n", Field: "n", Kind: rows.Int}, {Name: "note", Field: "note", Kind: rows.String}}}

// course is a walk and its pipeline with neither a source nor Kafka: messages come from the test, and batches go to it.
type course struct {
	*transform
	mu      sync.Mutex
	records []string // topic, key and, but for quarantine, value
	last    schemas.Position
	history []schemas.Position
	moved   func(*batch) // if set, called for each batch
}

// relations of a course; both have the columns of lineTable.
const (
	linesID = 1
	otherID = 2
)

func newPoison(t testing.TB) *poison {
	t.Helper()
	server := httptest.NewServer(registry.NewMemory())
	t.Cleanup(server.Close)
	reg, err := avro.NewRegistry(avro.Config{URL: config.Secret(server.URL)})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := privacy.NewKeys(privacy.Config{Key: config.Secret(strings.Repeat("17", 32))})
	if err != nil {
		t.Fatal(err)
	}
	enc, err := avro.NewEncoder(t.Context(), reg, schemas.Subject(schemas.Quarantine), schemas.Latest(schemas.Quarantine))
	if err != nil {
		t.Fatal(err)
	}
	return &poison{quarantine: quarantine.New(keys, enc, schemas.Quarantine, "cdc"), now: func() time.Time { return time.Unix(1, 0) }}
}

func newCourse(t testing.TB, workers int, p *poison) *course {
	t.Helper()
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &course{}
	log, q := slog.New(slog.DiscardHandler), newQueue(1<<20)
	emit := func(_ context.Context, b *batch) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.moved != nil {
			c.moved(b)
		}
		for _, r := range b.records {
			text := fmt.Sprintf("%s %x", r.Topic, r.Key)
			if r.Topic != schemas.Quarantine { // sealed anew each time
				text += fmt.Sprintf(" %x", r.Value[:min(len(r.Value), 12)]) // the rows: what follows tells seq and time
			}
			c.records = append(c.records, text)
		}
		c.last = b.position
		c.history = append(c.history, b.position)
		if b.barrier != nil {
			close(b.barrier)
		}
		return nil
	}
	cfg := DefaultConfig()
	free := newPool()
	c.transform = &transform{cfg: cfg, metrics: m, log: log, queue: q, watched: map[string]bool{}, relations: map[uint32]*relation{},
		pipeline: newPipeline(workers, func() *coder { return &coder{pool: free, poison: p} }, emit, q.giveBack, m, log),
		live: func(context.Context, string) (*diff.Set, error) {
			return diff.NewSpace(diff.Options{}).NewSet(nil), nil
		}}
	encoder := rows.NewEncoder(lineTable, rows.Origin{Version: "test", Name: "millrace", Database: "shop"}, nil, 1, 2)
	for id, name := range map[uint32]string{linesID: "public.lines", otherID: "public.other"} {
		c.relations[id] = &relation{name: name, topic: "store." + name, metrics: m.table(name), encoder: encoder}
	}
	return c
}

// walk feeds the messages, in pushes of at most so many bytes, and gives the error that ends it; nil if all was taken.
func (c *course) walk(t testing.TB, messages []replica.Message, push int) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { c.queue.close(ctx.Err()) })
	defer stop()
	end := &ending{walk: c.transform}
	c.observers = append(c.observers, end)
	messages = append(slices.Clip(messages), replica.Message{Keepalive: true, LSN: lastLSN})
	group.Go(func() error { return c.run(ctx) })
	c.pipeline.start(ctx, group)
	group.Go(func() error {
		var buf []byte
		for i, m := range messages {
			if buf = appendMessage(buf, m); len(buf) < push && i < len(messages)-1 {
				continue
			}
			if !c.queue.push(buf) {
				return context.Canceled
			}
			buf = buf[:0]
		}
		return nil
	})
	if err := group.Wait(); !errors.Is(err, errEnded) {
		return err
	}
	return nil
}

// lastLSN is that of a course's last keepalive.
const lastLSN = 1 << 40

var errEnded = errors.New("the course ends")

// ending ends a course when all before is passed on.
type ending struct {
	unmoved
	walk *transform
}

func (e *ending) reached(ctx context.Context, lsn pgoutput.LSN) error {
	if lsn < lastLSN {
		return nil
	}
	if err := e.walk.barrier(ctx); err != nil {
		return err
	}
	return errEnded
}

// script makes messages as the plugin does.
type script struct {
	messages []replica.Message
	lsn      uint64
}

func (s *script) add(data []byte) {
	s.lsn += 10
	s.messages = append(s.messages, replica.Message{LSN: pgoutput.LSN(s.lsn), Data: data})
}

// begin opens a transaction whose commit record is far off enough for so many changes.
func (s *script) begin(changes int) {
	b := binary.BigEndian.AppendUint64([]byte{pgoutput.KindBegin}, s.lsn+uint64(changes+2)*10)
	b = binary.BigEndian.AppendUint64(b, 1000)
	s.add(binary.BigEndian.AppendUint32(b, uint32(s.lsn)))
}

func (s *script) commit() {
	b := binary.BigEndian.AppendUint64([]byte{pgoutput.KindCommit, 0}, s.lsn+10)
	b = binary.BigEndian.AppendUint64(b, s.lsn+15)
	s.add(binary.BigEndian.AppendUint64(b, 1000))
}

func wireRow(values ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		b = append(binary.BigEndian.AppendUint32(append(b, pgoutput.Text), uint32(len(v))), v...)
	}
	return b
}

func (s *script) change(kind byte, rel uint32, old, row []byte) {
	b := binary.BigEndian.AppendUint32([]byte{kind}, rel)
	if old != nil {
		b = append(append(b, pgoutput.OldFull), old...)
	}
	if row != nil {
		b = append(append(b, 'N'), row...)
	}
	s.add(b)
}

// unfitting makes a history of two tables, in which some rows do not fit; the first table has too many of them.
func unfitting(seed uint64, changes int) *script {
	r := rand.New(rand.NewPCG(seed, 7))
	s := &script{}
	for left := changes; left > 0; {
		n := min(left, 1+r.IntN(40))
		left -= n
		s.begin(n)
		for range n {
			id, value := fmt.Sprint(r.IntN(10_000)), fmt.Sprint(r.IntN(1000))
			rel := uint32(linesID + r.IntN(2))
			if r.IntN(3) == 0 && (rel == linesID || r.IntN(50) == 0) {
				value = "a text"
			}
			switch r.IntN(6) {
			case 0:
				s.change(pgoutput.KindDelete, rel, wireRow(id, value, "x"), nil)
			case 1:
				s.change(pgoutput.KindUpdate, rel, wireRow(fmt.Sprint(r.IntN(10_000)), "another text", "x"), wireRow(id, value, "y"))
			default:
				s.change(pgoutput.KindInsert, rel, nil, wireRow(id, value, "z"))
			}
		}
		s.commit()
	}
	return s
}

// One order: whatever the number of workers and however the messages are cut, the same records come in the same order,
// what does not fit is left out at the same place, and the table that has too much of it stops at the same row.
func TestWorkersKeepTheOrder(t *testing.T) {
	p := newPoison(t)
	for seed := range uint64(2) {
		s := unfitting(seed, 2000)
		var want *course
		for _, shape := range []struct{ workers, push int }{{1, 1 << 20}, {1, 1}, {2, 5000}, {7, 700}, {3, 100_000}} {
			c := newCourse(t, shape.workers, p)
			c.cfg.TransactionBytes = 4096
			c.pipeline.seq.limit = 100
			if err := c.walk(t, s.messages, shape.push); err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = c
				continue
			}
			if len(c.records) != len(want.records) {
				t.Fatalf("%+v: %d records, want %d", shape, len(c.records), len(want.records))
			}
			for i := range want.records {
				if c.records[i] != want.records[i] {
					t.Fatalf("%+v: record %d of %d differs", shape, i, len(want.records))
				}
			}
			if !reflect.DeepEqual(c.last.Poisoned, want.last.Poisoned) || !reflect.DeepEqual(c.last.Stopped, want.last.Stopped) ||
				c.last.LSN != want.last.LSN {
				t.Fatalf("%+v: another position", shape)
			}
		}
		if n := len(want.last.Poisoned["public.other"]); n == 0 || n > 100 {
			t.Fatalf("%d keys of the other table are poisoned", n)
		}
		if want.last.Stopped["public.lines"] == "" || want.last.Poisoned["public.lines"] != nil {
			t.Fatalf("the table with too much that does not fit is not stopped: %v", want.last.Stopped)
		}
	}
}

// A position never runs ahead of what it says: the first position in which a key is poisoned is that of the batch that has
// its quarantine entry, and it is cleared with the batch of the row that fits.
func TestPositionHasWhatItsBatchHas(t *testing.T) {
	s := unfitting(5, 2000)
	c := newCourse(t, 4, newPoison(t))
	c.cfg.TransactionBytes = 2048
	known := map[string]bool{} // "table key", as the records tell
	c.moved = func(b *batch) {
		for i, r := range b.records {
			table := strings.TrimPrefix(r.Topic, "store.")
			switch op := b.refs[i].op; {
			case op == opQuarantined:
				return // its key is sealed: the next batch without one is looked at
			case op != 0:
				delete(known, table+string(r.Key))
			}
			for _, k := range b.position.Poisoned[table] {
				if bytes.Equal(k, r.Key) && i == len(b.records)-1 {
					t.Errorf("a key is poisoned after its last record, which fits")
				}
			}
		}
	}
	if err := c.walk(t, s.messages, 900); err != nil {
		t.Fatal(err)
	}
	total := 0
	for i := 1; i < len(c.history); i++ {
		if c.history[i].LSN < c.history[i-1].LSN || c.history[i].Seq < c.history[i-1].Seq {
			t.Fatalf("position %d goes back", i)
		}
		total += len(c.history[i].Poisoned)
	}
	if total == 0 {
		t.Fatal("nothing was poisoned")
	}
}

// A key that cannot be written stops its table, for nobody could tell which row is missing.
func TestUnfitKeyStopsItsTable(t *testing.T) {
	s := &script{}
	s.begin(3)
	s.change(pgoutput.KindInsert, linesID, nil, wireRow("no number", "1", ""))
	s.change(pgoutput.KindInsert, linesID, nil, wireRow("2", "1", ""))
	s.change(pgoutput.KindInsert, otherID, nil, wireRow("3", "1", ""))
	s.commit()
	for _, workers := range []int{1, 3} {
		c := newCourse(t, workers, newPoison(t))
		if err := c.walk(t, s.messages, 1<<20); err != nil {
			t.Fatal(err)
		}
		if reason := c.last.Stopped["public.lines"]; !strings.Contains(reason, "key") || strings.Contains(reason, "no number") || len(c.records) != 1 {
			t.Errorf("stopped %v, %d records", c.last.Stopped, len(c.records))
		}
	}
}

// What the server must not send ends the session with an error that says where, and nothing of that transaction is
// passed on as if it were whole.
func TestMalformedMessages(t *testing.T) {
	insert := func(values ...string) []byte {
		return append([]byte{pgoutput.KindInsert, 0, 0, 0, linesID, 'N'}, wireRow(values...)...)
	}
	for name, bad := range map[string][]byte{
		"empty":                {},
		"unknown kind":         {'?'},
		"cut off":              insert("7", "8", "9")[:12],
		"too few columns":      insert("7"),
		"unknown table":        append([]byte{pgoutput.KindInsert, 0, 0, 0, 99, 'N'}, wireRow("1", "2", "3")...),
		"begin within":         append([]byte{pgoutput.KindBegin}, make([]byte, 20)...),
		"truncate cut off":     {pgoutput.KindTruncate, 0, 0, 0, 9, 0},
		"truncate of unknown":  {pgoutput.KindTruncate, 0, 0, 0, 1, 0, 0, 0, 0, 99},
		"commit cut off":       {pgoutput.KindCommit, 0, 1},
		"delete without a row": {pgoutput.KindDelete, 0, 0, 0, linesID, 'N', 0, 0},
	} {
		for _, workers := range []int{1, 3} {
			s := &script{}
			s.begin(1)
			s.change(pgoutput.KindInsert, linesID, nil, wireRow("1", "1", ""))
			s.commit()
			whole := s.lsn + 5
			s.begin(2)
			s.change(pgoutput.KindInsert, linesID, nil, wireRow("2", "1", ""))
			s.add(bad)
			at := pgoutput.LSN(s.lsn)
			s.commit()
			c := newCourse(t, workers, newPoison(t))
			err := c.walk(t, s.messages, 1)
			if !errors.Is(err, pgoutput.ErrMalformed) || !strings.Contains(err.Error(), at.String()) {
				t.Errorf("%s: %v, want malformed at %s", name, err, at)
			}
			if c.last.LSN > int64(whole) {
				t.Errorf("%s: the position went on to %d", name, c.last.LSN)
			}
		}
	}
}

// Observers are told in order, and what they write takes its place.
type witness struct {
	unmoved
	walk  *transform
	heard []string
}

func (w *witness) begun(_ context.Context, _ pgoutput.Begin, resumed bool) error {
	w.heard = append(w.heard, fmt.Sprint("begun ", resumed))
	return nil
}

func (w *witness) changed(_ context.Context, rel *relation, c *pgoutput.Change, isNew bool) error {
	key := "-"
	if c != nil {
		key = string(c.New[0].Data)
	}
	w.heard = append(w.heard, fmt.Sprint(rel.name, " ", key, " ", isNew))
	return nil
}

func (w *witness) committing(ctx context.Context, _ pgoutput.Commit) error {
	w.heard = append(w.heard, "committing")
	return w.walk.record(ctx, &kgo.Record{Topic: "ends", Key: []byte("k"), Value: []byte("v")})
}

func (w *witness) reached(ctx context.Context, lsn pgoutput.LSN) error {
	if lsn == lastLSN {
		return nil
	}
	w.heard = append(w.heard, "reached "+lsn.String())
	rel := w.walk.relations[otherID]
	w.walk.keep()
	w.walk.position.Jobs = []schemas.Job{{Table: rel.name, Next: int64(lsn)}}
	row := []pgoutput.Datum{{Kind: pgoutput.Text, Data: []byte("9")}, {Kind: pgoutput.Null}, {Kind: pgoutput.Null}}
	if err := w.walk.readRow(ctx, rel, rel.encoder, row, lsn, 77); err != nil {
		return err
	}
	return w.walk.gone(ctx, rel, rel.encoder, []byte{0, 0, 0, 0, 1, 20}, lsn, 77)
}

func TestObservers(t *testing.T) {
	s := &script{}
	s.begin(3)
	s.change(pgoutput.KindInsert, linesID, nil, wireRow("1", "1", ""))
	s.change(pgoutput.KindInsert, otherID, nil, wireRow("2", "1", ""))
	s.change(pgoutput.KindInsert, otherID, nil, wireRow("3", "1", ""))
	s.commit()
	for _, workers := range []int{1, 3} {
		c := newCourse(t, workers, newPoison(t))
		w := &witness{walk: c.transform}
		c.observers, c.watched["public.other"] = []observer{w}, true
		c.position.TxLSN, c.position.TxOrdinal = 50, 2 // resumed within the transaction
		if err := c.walk(t, s.messages, 1<<20); err != nil {
			t.Fatal(err)
		}
		want := "begun true|public.lines - false|public.other 2 false|public.other 3 true|committing|reached 0/37"
		if got := strings.Join(w.heard, "|"); got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
		var topics []string
		for _, r := range c.records {
			topics = append(topics, strings.Fields(r)[0])
		}
		if got := strings.Join(topics, " "); got != "store.public.other ends store.public.other store.public.other store.public.other" {
			t.Errorf("records of %s", got)
		}
		if len(c.last.Jobs) != 1 || c.last.Jobs[0].Next != 0x37 {
			t.Errorf("the position has %v", c.last.Jobs)
		}
	}
}

// The queue counts what is popped until it is given back.
func TestQueueBoundsWhatIsNotEncoded(t *testing.T) {
	q := newQueue(chunkBytes)
	if !q.push(make([]byte, chunkBytes)) {
		t.Fatal("closed")
	}
	chunk, _, err := q.pop()
	if err != nil || len(chunk) != chunkBytes {
		t.Fatal(len(chunk), err)
	}
	pushed := make(chan bool)
	go func() { pushed <- q.push(make([]byte, 1)) }()
	select {
	case <-pushed:
		t.Fatal("there is room though nothing was given back")
	case <-time.After(20 * time.Millisecond):
	}
	q.giveBack(chunk)
	if !<-pushed {
		t.Fatal("closed")
	}
	q.close(errors.New("end"))
	if c, _, err := q.pop(); err != nil || len(c) != 1 {
		t.Fatal("what is left is not given:", len(c), err)
	}
	if _, _, err := q.pop(); err == nil {
		t.Fatal("no reason after the end")
	}
}

// Whatever a server sends, the walk neither panics nor takes it for something else than malformed or a gap.
func FuzzWalk(f *testing.F) {
	s := unfitting(1, 30)
	f.Add(pack(s.messages), uint8(1))
	f.Add(pack(s.messages[:5]), uint8(3))
	p := newPoison(f)
	f.Fuzz(func(t *testing.T, data []byte, workers uint8) {
		var messages []replica.Message
		for len(data) >= 2 {
			n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
			messages = append(messages, replica.Message{LSN: pgoutput.LSN(len(messages)), Data: data[2 : 2+n]})
			data = data[2+n:]
		}
		messages = append(messages, replica.Message{Data: []byte{'?'}}) // it may end within a transaction
		for _, m := range messages {                                    // descriptions need a registry
			if len(m.Data) > 0 && m.Data[0] == pgoutput.KindRelation {
				return
			}
		}
		c := newCourse(t, 1+int(workers%4), p)
		if err := c.walk(t, messages, 64); err != nil && !errors.Is(err, pgoutput.ErrMalformed) && !errors.Is(err, ErrGap) {
			t.Fatal(err)
		}
	})
}

func pack(messages []replica.Message) []byte {
	var out []byte
	for _, m := range messages {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(m.Data))), m.Data...)
	}
	return out
}

// A call is run though the source is silent, and only between transactions.
func TestCallsWaitForTheEndOfATransaction(t *testing.T) {
	s := &script{}
	s.begin(1)
	s.change(pgoutput.KindInsert, linesID, nil, wireRow("1", "1", ""))
	c := newCourse(t, 2, newPoison(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { c.queue.close(ctx.Err()) })
	defer stop()
	group.Go(func() error { return c.run(ctx) })
	c.pipeline.start(ctx, group)
	ran := make(chan pgoutput.LSN, 1)
	note := func(context.Context) error { ran <- pgoutput.LSN(c.position.LSN); return nil }
	c.call(note)
	if at := <-ran; at != 0 {
		t.Errorf("the first call ran at %s", at)
	}
	feed := func() {
		for _, m := range s.messages {
			c.queue.push(appendMessage(nil, m))
		}
		s.messages = nil
	}
	feed()
	waitFor(t, "the transaction to be under way", 10*time.Second, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.last.TxOrdinal == 1
	})
	c.call(note)
	s.commit()
	feed()
	if at := <-ran; at != pgoutput.LSN(s.lsn+5) {
		t.Errorf("the second call ran at %s", at)
	}
	cancel()
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
