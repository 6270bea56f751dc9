package enrich

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/schemas"
)

// fenced makes the transaction that is ended with the context commit the offsets of partitions too, just as they are.
// With that the group vouches that we are still its member: one that slept through a rebalance is refused, and whoever
// is given the partitions next is given their offsets only when the transaction is over.
//
// What is written for records that were read has that from the offsets they are committed with. What is written for
// partitions without having read from them needs it. A claim does not: what was true of the partitions while they were
// ours stays true.
func (s *session) fenced(ctx context.Context, partitions map[schemas.Partition]struct{}) context.Context {
	return kgo.PreTxnCommitFnContext(ctx, func(req *kmsg.TxnOffsetCommitRequest) error {
		committed, _ := s.inputs.snapshot()
		for p := range partitions {
			at, ok := committed[p]
			if !ok {
				return fmt.Errorf("topic %s, partition %d is not ours any more: %w", p.Topic, p.Partition, kerr.RebalanceInProgress)
			}
			fence(req, p, at)
		}
		return nil
	})
}

// fence adds a partition's offset to the request, unless it has one.
func fence(req *kmsg.TxnOffsetCommitRequest, p schemas.Partition, at int64) {
	one := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	one.Partition, one.Offset = p.Partition, at
	for i := range req.Topics {
		t := &req.Topics[i]
		if t.Topic != p.Topic {
			continue
		}
		for _, has := range t.Partitions {
			if has.Partition == p.Partition {
				return
			}
		}
		t.Partitions = append(t.Partitions, one)
		return
	}
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic, topic.Partitions = p.Topic, []kmsg.TxnOffsetCommitRequestTopicPartition{one}
	req.Topics = append(req.Topics, topic)
}
