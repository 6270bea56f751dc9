package enrich

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// endOpenTransaction ends what an earlier life left open, in the transaction and in the group. While the group holds
// offsets of a transaction that has not ended, it keeps the partitions' offsets from everybody, and without offsets we
// would never begin a transaction of our own.
//
// Asking for a producer id ends a transaction that the transaction's coordinator knows to be open. A restart of Kafka
// can leave offsets in the group whose transaction the coordinator knows nothing of any more; what ends those is the end
// of any transaction of the same producer that the group takes part in. So there is one, with nothing in it, given up.
func (s *session) endOpenTransaction(ctx context.Context) error {
	client, err := s.deps.Kafka.Client("enrich-end", s.log, nil, kgo.TransactionalID(s.transactionalID()), kgo.TransactionTimeout(txnTimeout))
	if err != nil {
		return err
	}
	defer client.Close()
	id, epoch, err := client.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("ask for the producer id: %w", err)
	}
	return s.status.retry(ctx, partStart, func() (bool, error) {
		add := kmsg.NewPtrAddOffsetsToTxnRequest()
		add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = s.transactionalID(), id, epoch, s.groupName()
		added, err := add.RequestWith(ctx, client)
		if err == nil {
			err = kerr.ErrorForCode(added.ErrorCode)
		}
		if err != nil {
			return !errors.Is(err, kerr.ConcurrentTransactions) && !kerr.IsRetriable(err), fmt.Errorf("take the group into a transaction: %w", err)
		}
		end := kmsg.NewPtrEndTxnRequest()
		end.TransactionalID, end.ProducerID, end.ProducerEpoch = s.transactionalID(), id, epoch
		ended, err := end.RequestWith(ctx, client)
		if err == nil {
			err = kerr.ErrorForCode(ended.ErrorCode)
		}
		if err != nil {
			return true, fmt.Errorf("give it up: %w", err)
		}
		return false, nil
	})
}
