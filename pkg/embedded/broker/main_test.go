package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// helperEnv turns the test binary into a broker on the named directory that
// runs until it is killed, see startChild.
const helperEnv = "MILLRACE_TEST_BROKER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		b, err := Open(context.Background(), Options{Dir: dir, CompactAfterBytes: -1})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(b.Addr(), b.UncleanStop())
		select {}
	}
	os.Exit(m.Run())
}

// child is a broker in another process, which can be killed.
type child struct {
	cmd     *exec.Cmd
	addr    string
	unclean bool
}

func startChild(t *testing.T, dir string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd}
	t.Cleanup(c.kill)
	line := make([]byte, 256)
	n, err := out.Read(line)
	if err != nil {
		t.Fatalf("read the child's address: %v", err)
	}
	fields := strings.Fields(string(line[:n]))
	if len(fields) != 2 {
		t.Fatalf("child said %q", line[:n])
	}
	c.addr = fields[0]
	c.unclean, _ = strconv.ParseBool(fields[1])
	return c
}

// kill is kill -9; it may be called twice.
func (c *child) kill() {
	if c.cmd.ProcessState != nil {
		return
	}
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func openAt(t *testing.T, o Options) *Broker {
	t.Helper()
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func mustClose(t *testing.T, b *Broker) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// send produces with a client of its own and closes it: closing a client after
// its broker takes a second.
func send(t *testing.T, addr string, rs ...*kgo.Record) {
	t.Helper()
	cl := client(t, addr)
	defer cl.Close()
	produce(t, cl, rs...)
}

func createTopic(t *testing.T, addr, name string, partitions int32, configs map[string]string) {
	t.Helper()
	c := make(map[string]*string)
	for k, v := range configs {
		c[k] = &v
	}
	cl := kadm.NewClient(client(t, addr))
	defer cl.Close()
	if r, err := cl.CreateTopic(within(t, 10*time.Second), partitions, 1, c, name); err != nil || r.Err != nil {
		t.Fatalf("create %s: %v %v", name, err, r.Err)
	}
}

func compacted() map[string]string { return map[string]string{"cleanup.policy": "compact"} }

func produce(t *testing.T, cl *kgo.Client, rs ...*kgo.Record) {
	t.Helper()
	if err := cl.ProduceSync(within(t, 30*time.Second), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func record(topic string, p int32, key, value string) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: p, Key: []byte(key), Value: []byte(value)}
}

// readAll reads every committed record of a topic up to the end it had when
// called, which read_committed consumers must be able to reach.
func readAll(t *testing.T, addr, topic string) []*kgo.Record {
	t.Helper()
	ctx := within(t, 30*time.Second)
	adm := kadm.NewClient(client(t, addr))
	defer adm.Close()
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		t.Fatal(err)
	}
	stable, err := adm.ListCommittedOffsets(ctx, topic)
	if err = errors.Join(err, stable.Error()); err != nil {
		t.Fatal(err)
	}
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err = errors.Join(err, starts.Error()); err != nil {
		t.Fatal(err)
	}
	at := make(map[int32]kgo.Offset)
	left := make(map[int32]int64)
	ends.Each(func(o kadm.ListedOffset) {
		if s, _ := stable.Lookup(topic, o.Partition); s.Offset != o.Offset {
			t.Errorf("%s %d: last stable offset %d, end %d: an open transaction blocks readers", topic, o.Partition, s.Offset, o.Offset)
		}
		if s, _ := starts.Lookup(topic, o.Partition); s.Offset < o.Offset {
			at[o.Partition], left[o.Partition] = kgo.NewOffset().At(s.Offset), o.Offset
		}
	})
	cl := client(t, addr, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}), kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer cl.Close()
	var out []*kgo.Record
	for len(left) > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("%v; partitions not read to the end: %v", err, left)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return out
}

// fold is the newest value of every key; a tombstone removes it.
func fold(rs []*kgo.Record) map[string]string {
	out := make(map[string]string)
	for _, r := range rs {
		if r.Value == nil {
			delete(out, string(r.Key))
		} else {
			out[string(r.Key)] = string(r.Value)
		}
	}
	return out
}

func endOffset(t *testing.T, addr, topic string, p int32) int64 {
	t.Helper()
	adm := kadm.NewClient(client(t, addr))
	defer adm.Close()
	ends, err := adm.ListEndOffsets(within(t, 10*time.Second), topic)
	if err != nil {
		t.Fatal(err)
	}
	o, _ := ends.Lookup(topic, p)
	return o.Offset
}

// resend sends a stored batch as a produce request.
func resend(t *testing.T, addr, topic string, raw []byte) {
	t.Helper()
	cl := client(t, addr)
	defer cl.Close()
	b := append([]byte(nil), raw...)
	clear(b[:8]) // a producer numbers from 0
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 1000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	meta, err := kadm.NewClient(cl).ListTopics(within(t, 5*time.Second), topic)
	if err != nil {
		t.Fatal(err)
	}
	rt.TopicID = meta[topic].ID
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = b
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(within(t, 5*time.Second), cl)
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatalf("answer %d to a batch sent again", code)
	}
}
