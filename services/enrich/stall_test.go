package enrich

import (
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pkg/embedded/registry"
)

// A transaction of ours that a restart of Kafka left open keeps our offsets from us, and without them there is no next
// transaction that would end it: only one who begins again ends it.
func TestOffsetsThatAreWithheldEndTheSession(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(6),
		kfake.BrokerConfigs(map[string]string{"group.min.session.timeout.ms": "100"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	var producers, refused atomic.Int64
	cluster.ControlKey(int16(kmsg.InitProducerID), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if id := req.(*kmsg.InitProducerIDRequest).TransactionalID; id != nil && *id == "t.enrich-a" {
			producers.Add(1)
		}
		return nil, nil, false
	})
	cluster.ControlKey(int16(kmsg.OffsetFetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if producers.Load() > 1 {
			return nil, nil, false
		}
		refused.Add(1)
		return unstable(req.(*kmsg.OffsetFetchRequest)), nil, true
	})
	server := httptest.NewServer(registry.NewMemory())
	t.Cleanup(server.Close)
	w := &world{brokers: cluster.ListenAddrs(), registry: server.URL, server: server}
	src := newSource(t, w)
	src.put("orders", "1", "c", orderRow(1, noon, "Shipped", 7))
	src.commit(true)
	w.startWith(t, "a", func(s *Service) { s.offsetsPatience = 300 * time.Millisecond })
	w.quiet(t, src)
	if refused.Load() == 0 {
		t.Error("no offsets were kept back")
	}
	if foldOrders(t, w)["1"] == nil {
		t.Error("the order is missing")
	}
}

// unstable answers that a transaction with offsets of every partition is open.
func unstable(req *kmsg.OffsetFetchRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	for _, g := range req.Groups {
		group := kmsg.NewOffsetFetchResponseGroup()
		group.Group = g.Group
		for _, requested := range g.Topics {
			topic := kmsg.NewOffsetFetchResponseGroupTopic()
			topic.Topic, topic.TopicID = requested.Topic, requested.TopicID
			for _, p := range requested.Partitions {
				part := kmsg.NewOffsetFetchResponseGroupTopicPartition()
				part.Partition, part.ErrorCode = p, kerr.UnstableOffsetCommit.Code
				topic.Partitions = append(topic.Partitions, part)
			}
			group.Topics = append(group.Topics, topic)
		}
		resp.Groups = append(resp.Groups, group)
	}
	return resp
}
