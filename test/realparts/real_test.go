//go:build real

package realparts_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/millrace-io/millrace/test/realparts"
)

func TestKafkaKeepsCommittedRecordsOverKill(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	b := realparts.Kafka(t, realparts.Options{})
	t.Logf("Kafka %s at %v after %v", b.Version(), b.Seeds(), time.Since(start).Round(time.Millisecond))
	createTopic(ctx, t, b, "orders")

	const records = 1000
	produce(ctx, t, b, "orders", "committed", records, kgo.TryCommit)
	produce(ctx, t, b, "orders", "aborted", 10, kgo.TryAbort)
	b.Kill()
	b.Kill() // of a dead broker: nothing
	start = time.Now()
	if err := b.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("answers %v after the restart", time.Since(start).Round(time.Millisecond))
	produce(ctx, t, b, "orders", "after", 1, kgo.TryCommit)

	got := consume(ctx, t, b, "orders", records+1)
	for i, value := range got[:records] {
		if want := fmt.Sprintf("committed %d", i); value != want {
			t.Fatalf("record %d is %q, want %q", i, value, want)
		}
	}
	if got[records] != "after 0" {
		t.Errorf("the last record is %q, want the one from after the crash", got[records])
	}
	rss, err := b.RSS()
	if err != nil {
		t.Fatal(err)
	}
	if mib := rss >> 20; mib < 50 || mib > 600 {
		t.Errorf("%d MiB resident, want something that a small JVM takes", mib)
	} else {
		t.Logf("%d MiB resident", mib)
	}
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
}

func TestKafkaSaysWhyItDoesNotStart(t *testing.T) {
	_, err := realparts.StartKafka(t.Context(), realparts.Options{Properties: map[string]string{"num.io.threads": "none"}})
	var missing *realparts.MissingError
	if errors.As(err, &missing) {
		t.Skip(err)
	}
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("num.io.threads")) {
		t.Errorf("got %v, want an error that names the setting", err)
	}
}

func TestKafkaLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	b, err := realparts.StartKafka(t.Context(), realparts.Options{Dir: dir})
	var missing *realparts.MissingError
	if errors.As(err, &missing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.RSS(); err == nil {
		t.Error("the process is there after Close")
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Seeds()...), kgo.RequestRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Ping(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want a refused connection", err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the named data directory is gone: %v", err)
	}
}

func TestApicurioRegistersUnderFullTransitive(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cl, err := sr.NewClient(sr.URLs(realparts.Apicurio(t)))
	if err != nil {
		t.Fatal(err)
	}
	schema := func(fields string) sr.Schema {
		return sr.Schema{Schema: `{"type":"record","name":"Order","fields":[{"name":"id","type":"long"}` + fields + `]}`}
	}
	const subject = "orders-value"
	first, err := cl.CreateSchema(ctx, subject, schema(""))
	if err != nil {
		t.Fatal(err)
	}
	for _, res := range cl.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatFullTransitive}, subject) {
		if res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	second, err := cl.CreateSchema(ctx, subject, schema(`,{"name":"note","type":"string","default":""}`))
	if err != nil {
		t.Fatal(err)
	}
	if second.ID == first.ID || second.Version != 2 {
		t.Errorf("the second schema has id %d, version %d; the first had id %d", second.ID, second.Version, first.ID)
	}
	_, err = cl.CreateSchema(ctx, subject, schema(`,{"name":"country","type":"string"}`))
	var refused *sr.ResponseError
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusConflict {
		t.Errorf("a field without a default: got %v, want 409", err)
	}
}

func TestAxeAndChromium(t *testing.T) {
	script, err := os.ReadFile(realparts.Axe(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(script, []byte("axe.run")) {
		t.Error("axe.min.js does not hold axe")
	}
	if info, err := os.Stat(realparts.Chromium(t)); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("the browser cannot be executed: %v", err)
	}
}

func createTopic(ctx context.Context, t *testing.T, b *realparts.Broker, topic string) {
	t.Helper()
	cl, err := kadm.NewOptClient(kgo.SeedBrokers(b.Seeds()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := cl.CreateTopic(ctx, 1, -1, nil, topic); err != nil {
		t.Fatal(err)
	}
}

// produce writes n records "<prefix> <i>" in one transaction and ends it as told.
func produce(ctx context.Context, t *testing.T, b *realparts.Broker, topic, prefix string, n int, end kgo.TransactionEndTry) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Seeds()...), kgo.TransactionalID("realparts"), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = kgo.StringRecord(fmt.Sprintf("%s %d", prefix, i))
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(ctx, end); err != nil {
		t.Fatal(err)
	}
}

// consume reads n committed records from the beginning.
func consume(ctx context.Context, t *testing.T, b *realparts.Broker, topic string, n int) []string {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Seeds()...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var values []string
	for len(values) < n {
		f := cl.PollFetches(ctx)
		if err := f.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(values), n, err)
		}
		f.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}
