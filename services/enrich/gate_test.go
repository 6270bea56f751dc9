package enrich

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
)

// idle is a session that nobody runs, with followers that have read nothing.
func idle(t *testing.T, w *world) *session {
	t.Helper()
	svc, err := New(DefaultConfig(), Deps{Log: testLog(t), Kafka: w.kafka("a"), Registry: w.avro(t), Keys: testKeys(t)})
	if err != nil {
		t.Fatal(err)
	}
	client, err := svc.deps.Kafka.Client("test", svc.log, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := svc.newSession(client)
	nothing := func(context.Context, []*kgo.Record) error { return nil }
	s.refFollower = kafka.NewFollower(svc.deps.Kafka, "test", svc.log, nothing, "t.store.public.customers")
	s.ownFollower = kafka.NewFollower(svc.deps.Kafka, "test", svc.log, nothing, "t."+schemas.EnrichWaiting)
	return s
}

func TestWhenAClaimIsMet(t *testing.T) {
	s := idle(t, newWorld(t))
	orders := schemas.Partition{Topic: "t.store.public.orders", Partition: 1}
	end := func(topic string, partition int32, offset int64) schemas.PartitionOffset {
		return schemas.PartitionOffset{Topic: topic, Partition: partition, Offset: offset}
	}
	waits := entry(1, "public.customers/1")
	waits.InputTopic = orders.Topic
	for name, c := range map[string]struct {
		ends    []schemas.PartitionOffset
		waiting bool
		want    bool
	}{
		"read and committed":            {[]schemas.PartitionOffset{end(orders.Topic, 1, 5), end("t.store.public.customers", 0, 0)}, false, true},
		"not read so far":               {[]schemas.PartitionOffset{end(orders.Topic, 1, 6)}, false, false},
		"somebody else's partition":     {[]schemas.PartitionOffset{end(orders.Topic, 2, 6)}, false, true},
		"a table that is not mapped":    {[]schemas.PartitionOffset{end("t.store.public.ratings", 0, 6)}, false, true},
		"reference data not here yet":   {[]schemas.PartitionOffset{end(orders.Topic, 1, 5), end("t.store.public.customers", 0, 1)}, false, false},
		"an image still to be mended":   {[]schemas.PartitionOffset{end(orders.Topic, 1, 5)}, true, false},
		"nothing came from the sources": {nil, false, true},
	} {
		s.waiting = newWaitingImages(func(string) bool { return c.waiting })
		s.waiting.followed("sales.orders/1", waits, 0)
		if got := s.met(&schemas.Claim{Ends: c.ends}, map[schemas.Partition]int64{orders: 5}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// While we are far behind, older claims are met first, and the number that is kept is bounded.
func TestOpenClaims(t *testing.T) {
	var o openClaims
	at := time.Unix(0, 0)
	for i := range int64(500) {
		o.add(schemas.Claim{SourceLSN: i, ReportedAt: at.Add(time.Duration(i) * time.Second)})
	}
	if len(o.list) > maxOpenClaims || o.list[len(o.list)-1].SourceLSN != 499 {
		t.Fatalf("%d are kept", len(o.list))
	}
	got, ok := o.newest(func(c *schemas.Claim) bool { return c.SourceLSN <= 300 })
	if !ok || got.SourceLSN > 300 || got.SourceLSN < 200 {
		t.Fatalf("%d %v", got.SourceLSN, ok)
	}
	o.forget(got.ReportedAt)
	if _, ok := o.newest(func(c *schemas.Claim) bool { return c.SourceLSN <= got.SourceLSN }); ok {
		t.Error("a claim that was made is made again")
	}
	if _, ok := o.newest(func(*schemas.Claim) bool { return true }); !ok {
		t.Error("newer claims are forgotten")
	}
}

// No record of a new assignment is touched before we know what waits there.
func TestTheGateWaitsForWhatWaits(t *testing.T) {
	w := newWorld(t)
	s := idle(t, w)
	src := newSource(t, w) // makes the topics
	enc, err := avro.NewEncoder(t.Context(), w.avro(t), schemas.Subject(schemas.EnrichWaiting), schemas.Latest(schemas.EnrichWaiting))
	if err != nil {
		t.Fatal(err)
	}
	value, err := enc.Append(nil, entry(0, "c/1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := src.client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := src.client.ProduceSync(t.Context(), &kgo.Record{Topic: "t." + schemas.EnrichWaiting, Key: []byte("k"), Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := src.client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	if _, err := s.inputs.assigned(t.Context(), map[string]map[int32]kgo.Offset{"t.store.public.orders": {0: kgo.NewOffset().At(3)}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	work, ctx := errgroup.WithContext(ctx)
	passed := make(chan error, 1)
	go func() { passed <- s.gate(ctx, work) }()
	select {
	case err := <-passed:
		t.Fatalf("the gate is open before the topic has been read: %v", err)
	case <-time.After(200 * time.Millisecond): // as long as nothing reads, it must hold
	}
	work.Go(func() error { return s.ownFollower.Run(ctx) })
	select {
	case err := <-passed:
		if err != nil || s.gated != 1 {
			t.Errorf("%v, generation %d", err, s.gated)
		}
	case <-time.After(10 * time.Second):
		t.Error("the gate stays closed")
	}
	cancel()
	if err := work.Wait(); err != nil {
		t.Error(err)
	}
}
