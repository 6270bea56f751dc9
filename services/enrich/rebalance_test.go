package enrich

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/schemas"
)

// members waits until the group is at rest with n members that have all the partitions among them.
func (w *world) members(t *testing.T, n int) {
	t.Helper()
	client, err := w.kafka("members").Client("members", testLog(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for name, topic := range topics {
		if name == "t.activity.raw" || strings.HasPrefix(name, "t.store.") && name != "t.store.public.ratings" {
			want += len(topic.Partitions)
		}
	}
	until(t, 30*time.Second, fmt.Sprintf("the group has %d members with all partitions", n), func() bool {
		groups, err := admin.DescribeGroups(t.Context(), "t.enrich")
		if err != nil {
			return false
		}
		g, have := groups["t.enrich"], 0
		for _, m := range g.Members {
			mine := 0
			if c, ok := m.Assigned.AsConsumer(); ok {
				for _, topic := range c.Topics {
					mine += len(topic.Partitions)
				}
			}
			if mine == 0 {
				return false
			}
			have += mine
		}
		return g.State == "Stable" && len(g.Members) == n && have == want
	})
}

// One that loses partitions twice without a transaction in between knows that they are gone: it would wait for ever
// for what others read by now.
func TestPartitionsThatWentAwayUnnoticed(t *testing.T) {
	w := newWorld(t)
	src := newSource(t, w)
	w.start(t, "a")
	w.members(t, 1)
	w.start(t, "b")
	w.members(t, 2)
	w.start(t, "c")
	w.members(t, 3)
	for i := range 50 {
		src.put("orders", fmt.Sprint(i), "c", orderRow(i, noon, "Shipped", nil))
	}
	src.commit(true)
	w.quiet(t, src)
}

// One that was killed in the middle of a transaction is back at work at once, not when the transaction's time is up.
func TestATransactionLeftOpenDoesNotDelay(t *testing.T) {
	w := newWorld(t)
	src := newSource(t, w)
	src.put("orders", "1", "c", orderRow(1, noon, "Shipped", nil))
	src.commit(true)
	dead, err := w.kafka("a").Client("dead", testLog(t), nil, kgo.TransactionalID("t.enrich-a"), kgo.TransactionTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	if err := dead.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := dead.ProduceSync(t.Context(), &kgo.Record{Topic: "t.sales.orders", Key: []byte("never"), Value: []byte("seen")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.Group = "t.enrich-a", "t.enrich"
	if add.ProducerID, add.ProducerEpoch, err = dead.ProducerID(t.Context()); err != nil {
		t.Fatal(err)
	}
	if resp, err := add.RequestWith(t.Context(), dead); err != nil || resp.ErrorCode != 0 {
		t.Fatal(err, resp)
	}
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.Group, commit.ProducerID, commit.ProducerEpoch, commit.Generation = add.TransactionalID, add.Group, add.ProducerID, add.ProducerEpoch, -1
	for p := range schemas.StoreTopic("public", "orders").Partitions {
		fence(commit, schemas.Partition{Topic: "t.store.public.orders", Partition: p}, 1<<20)
	}
	topics, err := kadm.NewClient(dead).ListTopics(t.Context(), "t.store.public.orders")
	if err != nil {
		t.Fatal(err)
	}
	commit.Topics[0].TopicID = topics["t.store.public.orders"].ID
	resp, err := commit.RequestWith(t.Context(), dead)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range resp.Topics[0].Partitions {
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
			t.Fatal(err)
		}
	}
	w.start(t, "a")
	w.quiet(t, src)
	if o := foldOrders(t, w); len(o) != 1 || o["1"] == nil {
		t.Errorf("orders: %v", o)
	}
}

// A transaction that mends images and reads nothing is refused when the partitions went to another while we slept.
func TestMendingNeedsTheGroup(t *testing.T) {
	w := newWorld(t)
	newSource(t, w) // makes the topics
	s := idle(t, w)
	s.cfg.SessionTimeout = time.Minute // so that it hears nothing of the group for ten seconds
	if err := s.join(); err != nil {
		t.Fatal(err)
	}
	defer s.group.Close()
	orders := schemas.Partition{Topic: "t.store.public.orders", Partition: 1}
	until(t, 20*time.Second, "joined", func() bool {
		s.poll(t.Context())
		committed, _ := s.inputs.snapshot()
		_, ok := committed[orders]
		return ok
	})
	mend := func() error {
		b := newBatch()
		b.owners[orders] = struct{}{}
		b.out = append(b.out, &kgo.Record{Topic: "t." + schemas.SalesOrders, Key: []byte("k")})
		return s.commit(t.Context(), b)
	}
	if err := mend(); err != nil {
		t.Fatal(err)
	}
	leave := kadm.LeaveGroup("t.enrich").InstanceIDs(s.deps.Kafka.Instance())
	left, err := s.admin.LeaveGroup(t.Context(), leave)
	if err == nil {
		err = left.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.start(t, "b")
	w.members(t, 1)
	if err := mend(); err == nil || !errors.Is(err, errAborted) && !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.FencedInstanceID) {
		t.Errorf("an image was mended for a partition of another: %v", err)
	}
	if n := len(w.read(t, schemas.SalesOrders, func() any { return new(schemas.Order) })); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}
