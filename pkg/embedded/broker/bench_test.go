package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkCommit compares transactions of 100 records over three partitions
// with and without an fsync of every batch.
func BenchmarkCommit(b *testing.B) {
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("sync=%v", sync), func(b *testing.B) {
			br, err := Open(b.Context(), Options{Dir: b.TempDir(), SyncWrites: sync})
			if err != nil {
				b.Fatal(err)
			}
			defer br.Close()
			if err := br.cluster.CreateTopic("t", 3, nil); err != nil {
				b.Fatal(err)
			}
			cl, err := kgo.NewClient(kgo.SeedBrokers(br.Addr()), kgo.TransactionalID("t"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Millisecond))
			if err != nil {
				b.Fatal(err)
			}
			defer cl.Close()
			value := strings.Repeat("v", 200)
			for b.Loop() {
				if err := cl.BeginTransaction(); err != nil {
					b.Fatal(err)
				}
				var rs []*kgo.Record
				for i := range 100 {
					rs = append(rs, record("t", int32(i%3), fmt.Sprint(i), value))
				}
				if err := cl.ProduceSync(b.Context(), rs...).FirstErr(); err != nil {
					b.Fatal(err)
				}
				if err := cl.EndTransaction(b.Context(), kgo.TryCommit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
