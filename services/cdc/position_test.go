package cdc

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
)

// positions is the topic of positions, with nobody but the test writing to it.
type positions struct {
	cfg      kafka.Config
	registry *avro.Registry
	encoder  *avro.Encoder
}

func newPositions(t *testing.T) *positions {
	t.Helper()
	p := &positions{cfg: kafka.DefaultConfig()}
	p.cfg.Brokers = brokertest.New(t)
	server := httptest.NewServer(registry.NewMemory())
	t.Cleanup(server.Close)
	var err error
	if p.registry, err = avro.NewRegistry(avro.Config{URL: config.Secret(server.URL)}); err != nil {
		t.Fatal(err)
	}
	if p.encoder, err = avro.NewEncoder(t.Context(), p.registry, schemas.Subject(schemas.CDCPosition), schemas.Latest(schemas.CDCPosition)); err != nil {
		t.Fatal(err)
	}
	cl := p.slot(t, "topics")
	if _, err := p.cfg.EnsureTopics(t.Context(), cl, ownTopics()...); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *positions) slot(t *testing.T, name string) *kgo.Client {
	t.Helper()
	cl, err := p.cfg.Client("test", slog.New(slog.DiscardHandler), nil, kgo.TransactionalID(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// write begins a transaction and writes a position in it.
func (p *positions) write(t *testing.T, cl *kgo.Client, slot string, lsn int64) {
	t.Helper()
	value, err := p.encoder.Append(nil, schemas.Position{Slot: slot, LSN: lsn, UpdatedAt: time.Now().UTC()})
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: schemas.CDCPosition, Key: []byte(slot), Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func (p *positions) end(t *testing.T, cl *kgo.Client, how kgo.TransactionEndTry) {
	t.Helper()
	if err := cl.EndTransaction(t.Context(), how); err != nil {
		t.Fatal(err)
	}
}

func (p *positions) read(ctx context.Context, upTo extent, slot string) (int64, error) {
	got, _, err := readPosition(ctx, p.cfg, p.registry, slog.New(slog.DiscardHandler), upTo, slot)
	return got.LSN, err
}

// Slots share the topic. What one of them leaves open, as when it is killed, hides what the others committed behind it:
// whoever goes on from a hidden position repeats changes.
func TestPositionBehindAnotherSlotsOpenTransaction(t *testing.T) {
	p := newPositions(t)
	ours, other := p.slot(t, "ours"), p.slot(t, "other")
	p.write(t, ours, "ours", 1)
	p.end(t, ours, kgo.TryCommit)
	p.write(t, other, "other", 7)
	p.write(t, ours, "ours", 2)
	p.end(t, ours, kgo.TryCommit)
	if lsn, err := p.read(t.Context(), settled, "ours"); err != nil || lsn != 1 {
		t.Fatal("up to the open transaction:", lsn, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if lsn, err := p.read(ctx, everything, "ours"); err == nil {
		t.Fatal("it did not wait for the open transaction, and read", lsn)
	}
	read := make(chan int64, 1)
	go func() {
		lsn, err := p.read(t.Context(), everything, "ours")
		if err != nil {
			lsn = -1
		}
		read <- lsn
	}()
	p.end(t, other, kgo.TryAbort)
	if lsn := <-read; lsn != 2 {
		t.Fatal("after the open transaction:", lsn)
	}
}

// A position is found however many others were written since.
func TestPositionIsFoundFarBeforeTheEnd(t *testing.T) {
	p := newPositions(t)
	ours, other := p.slot(t, "ours"), p.slot(t, "other")
	p.write(t, ours, "ours", 5)
	p.end(t, ours, kgo.TryCommit)
	for i := range int64(2 * firstTail) {
		p.write(t, other, "other", i)
		p.end(t, other, kgo.TryCommit)
	}
	for slot, want := range map[string]int64{"ours": 5, "other": 2*firstTail - 1, "none": 0} {
		if lsn, err := p.read(t.Context(), everything, slot); err != nil || lsn != want {
			t.Errorf("slot %s: %d, %v; want %d", slot, lsn, err, want)
		}
	}
}
