package kafka_test

import (
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pkg/kafka"
)

// A cluster makes a new topic known broker by broker: until then its leader says that it does not know it.
func TestEnsuredTopicsAreKnownToTheirLeaders(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	var unknown atomic.Int64
	unknown.Store(3)
	cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if unknown.Add(-1) < 0 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, rt := range req.(*kmsg.ListOffsetsRequest).Topics {
			topic := kmsg.NewListOffsetsResponseTopic()
			topic.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				p := kmsg.NewListOffsetsResponseTopicPartition()
				p.Partition, p.ErrorCode = rp.Partition, kerr.UnknownTopicOrPartition.Code
				topic.Partitions = append(topic.Partitions, p)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, true
	})
	cfg := kafka.DefaultConfig()
	cfg.Brokers = cluster.ListenAddrs()
	cl, err := cfg.Client("test", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := cfg.EnsureTopics(t.Context(), cl, kafka.Topic{Name: "late", Partitions: 2, Compact: true}); err != nil {
		t.Fatal(err)
	}
	offsets, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), "late")
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		t.Fatalf("after EnsureTopics: %v", err)
	}
}
