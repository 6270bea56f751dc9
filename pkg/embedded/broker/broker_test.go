package broker

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestCleanStopLosesNothing(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, Options{Dir: dir})
	if b.UncleanStop() {
		t.Error("a new directory reports an unclean stop")
	}
	createTopic(t, b.Addr(), "t", 2, nil)
	send(t, b.Addr(), record("t", 0, "a", "1"), record("t", 1, "b", "2"))
	id := b.ClusterID()
	mustClose(t, b)

	b = openAt(t, Options{Dir: dir})
	if b.UncleanStop() {
		t.Error("a clean stop is reported as unclean")
	}
	if b.ClusterID() != id {
		t.Errorf("cluster id changed from %s to %s", id, b.ClusterID())
	}
	if got, want := fold(readAll(t, b.Addr(), "t")), map[string]string{"a": "1", "b": "2"}; !maps.Equal(got, want) {
		t.Errorf("after a restart: %v, want %v", got, want)
	}
}

func TestSecondOpenerIsToldWhoHasTheDirectory(t *testing.T) {
	dir := t.TempDir()
	openAt(t, Options{Dir: dir})
	_, err := Open(t.Context(), Options{Dir: dir})
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Fatalf("got %v, want a LockedError naming process %d", err, os.Getpid())
	}
	if !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("message %q does not name the process", err)
	}
}

func TestTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	dir := t.TempDir()
	mustClose(t, openAt(t, Options{Dir: dir}))
	_, err = Open(t.Context(), Options{Dir: dir, Port: port})
	var used *PortInUseError
	if !errors.As(err, &used) || used.Port != port || !strings.Contains(err.Error(), fmt.Sprint(port)) {
		t.Fatalf("got %v, want a PortInUseError naming %d", err, port)
	}
	// The directory was let go of, and nothing was written to it.
	if b := openAt(t, Options{Dir: dir}); b.UncleanStop() {
		t.Error("a start that failed counts as an unclean stop")
	}
}

func TestNullKeysOnCompactedTopicsAreRefused(t *testing.T) {
	b := openAt(t, Options{})
	createTopic(t, b.Addr(), "compacted", 2, compacted())
	createTopic(t, b.Addr(), "plain", 1, nil)
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.SnappyCompression(), kgo.ZstdCompression()} {
		cl := client(t, b.Addr(), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(20*time.Millisecond))
		nullKey := &kgo.Record{Topic: "compacted", Partition: 0, Value: []byte(strings.Repeat("v", 500))}
		res := cl.ProduceSync(within(t, 10*time.Second), nullKey, record("compacted", 1, "k", "v"), &kgo.Record{Topic: "plain", Value: []byte("v")})
		for _, r := range res {
			if r.Record == nullKey {
				var ke *kerr.Error
				if !errors.As(r.Err, &ke) || ke.Code != kerr.InvalidRecord.Code {
					t.Errorf("null key: got %v, want INVALID_RECORD", r.Err)
				}
			} else if r.Err != nil {
				t.Errorf("%s %d: %v", r.Record.Topic, r.Record.Partition, r.Err)
			}
		}
		// An empty key is a key, and the refusal does not outlive its request.
		send(t, b.Addr(), record("compacted", 0, "", "v"))
	}
	if n := endOffset(t, b.Addr(), "compacted", 0); n != 3 {
		t.Errorf("compacted topic has %d records, want the 3 with a key", n)
	}
}

func TestManyRequestsAreStillGuarded(t *testing.T) {
	b := openAt(t, Options{})
	createTopic(t, b.Addr(), "c", 1, compacted())
	cl := client(t, b.Addr())
	for i := range renewAfter + 10 { // past the renewal of the guard's functions
		produce(t, cl, record("c", 0, "k", fmt.Sprint(i)))
	}
	if err := cl.ProduceSync(within(t, 10*time.Second), &kgo.Record{Topic: "c"}).FirstErr(); err == nil {
		t.Error("a null key went through")
	}
}

func TestNoTopicsByThemselves(t *testing.T) {
	b := openAt(t, Options{})
	cl := client(t, b.Addr(), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1))
	if err := cl.ProduceSync(within(t, 10*time.Second), record("nobody", 0, "k", "v")).FirstErr(); err == nil {
		t.Error("producing made a topic")
	}
}

func TestCompactedTopicsHaveNoRetention(t *testing.T) {
	b := openAt(t, Options{})
	createTopic(t, b.Addr(), "c", 1, map[string]string{"cleanup.policy": "compact", "retention.ms": "1000"})
	createTopic(t, b.Addr(), "both", 1, map[string]string{"cleanup.policy": "compact,delete", "retention.ms": "1000"})
	createTopic(t, b.Addr(), "later", 1, nil)
	adm := kadm.NewClient(client(t, b.Addr()))
	policy := "compact"
	if _, err := adm.AlterTopicConfigs(within(t, 5*time.Second), []kadm.AlterConfig{{Name: "cleanup.policy", Value: &policy}}, "later"); err != nil {
		t.Fatal(err)
	}
	old := record("c", 0, "k", "v")
	old.Timestamp = time.Now().Add(-30 * 24 * time.Hour)
	send(t, b.Addr(), old, record("c", 0, "k2", "v"))
	b.cluster.ApplyRetention() // what kfake's cleaner would do
	if got := len(readAll(t, b.Addr(), "c")); got != 2 {
		t.Errorf("%d records left of 2", got)
	}
	for topic, want := range map[string]string{"c": "-1", "later": "-1", "both": "1000"} {
		if got := b.cluster.TopicInfo(topic).Configs["retention.ms"]; got == nil || *got != want {
			t.Errorf("%s: retention.ms %v, want %s", topic, got, want)
		}
	}
}

func TestGroupSessionAndTransactions(t *testing.T) {
	b := openAt(t, Options{Dir: t.TempDir()})
	createTopic(t, b.Addr(), "in", 1, nil)
	createTopic(t, b.Addr(), "out", 2, nil)
	for i := range 10 {
		send(t, b.Addr(), record("in", 0, fmt.Sprint(i), "v"))
	}
	ctx := within(t, 30*time.Second)
	sess, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(b.Addr()), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("in"),
		kgo.TransactionalID("tx"), kgo.SessionTimeout(time.Second), kgo.HeartbeatInterval(200*time.Millisecond),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer sess.Close()
	for seen := 0; seen < 10; {
		fs := sess.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		if err := sess.Begin(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			sess.Produce(ctx, record("out", int32(seen%2), string(r.Key), "x"), nil)
			seen++
		})
		if ok, err := sess.End(ctx, kgo.TryCommit); err != nil || !ok {
			t.Fatalf("end: %v %v", ok, err)
		}
	}
	if got := len(readAll(t, b.Addr(), "out")); got != 10 {
		t.Errorf("%d records out of 10", got)
	}
	adm := kadm.NewClient(client(t, b.Addr()))
	offs, err := adm.FetchOffsets(ctx, "g")
	if o, _ := offs.Lookup("in", 0); err != nil || o.At != 10 {
		t.Errorf("group position %d, %v; want 10", o.At, err)
	}

	// A successor fences its predecessor, whose open transaction is aborted.
	first := client(t, b.Addr(), kgo.TransactionalID("fenced"))
	if err := first.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	produce(t, first, record("out", 0, "lost", "x"))
	desc, err := adm.DescribeProducers(ctx, kadm.TopicsSet{"out": {0: {}}})
	if err != nil || len(desc["out"].Partitions[0].ActiveProducers) != 1 {
		t.Errorf("describe producers: %+v, %v", desc, err)
	}
	second := client(t, b.Addr(), kgo.TransactionalID("fenced"))
	if _, _, err := second.ProducerID(ctx); err != nil {
		t.Fatal(err)
	}
	if err := first.EndTransaction(ctx, kgo.TryCommit); err == nil {
		t.Error("a fenced producer could commit")
	}
	if got := len(readAll(t, b.Addr(), "out")); got != 10 {
		t.Errorf("%d records, want 10 without the fenced one", got)
	}
}

func TestMetricsAndReopenOnTheSameRegisterer(t *testing.T) {
	reg := prometheus.NewRegistry()
	dir := t.TempDir()
	for range 2 {
		b := openAt(t, Options{Dir: dir, Registerer: reg})
		mfs, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var bytes float64
		for _, mf := range mfs {
			if mf.GetName() == "millrace_broker_directory_bytes" {
				bytes = mf.GetMetric()[0].GetGauge().GetValue()
			}
		}
		if bytes == 0 {
			t.Error("no directory size")
		}
		mustClose(t, b)
	}
}

func TestRawNullKeyBatches(t *testing.T) {
	if _, err := hasNullKey([]byte("nonsense")); err == nil {
		t.Error("nonsense was parsed")
	}
	var rec []byte
	rec = appendRecord(rec, &kmsg.Record{Key: []byte("k")})
	rec = appendRecord(rec, &kmsg.Record{Value: []byte("v"), OffsetDelta: 1})
	b := batch{records: 2, lastDelta: 1, pid: -1, epoch: -1, firstSeq: -1}
	raw := encodeBatch(&b, rec)
	if null, err := hasNullKey(raw); err != nil || !null {
		t.Errorf("got %v, %v; want a null key", null, err)
	}
	if _, err := hasNullKey(encodeBatch(&b, rec[:len(rec)-3])); err == nil {
		t.Error("a truncated batch was accepted")
	}
}
