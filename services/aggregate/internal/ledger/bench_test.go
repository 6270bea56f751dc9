package ledger

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/services/aggregate/internal/salestest"
)

// BenchmarkWrite is 100,000 order lines with their headers into the bare ledger, durable, in batches as under load.
func BenchmarkWrite(b *testing.B) {
	const lines = 100_000
	for range b.N {
		b.StopTimer()
		p := pgtest.Primary(b, "fsync", "on", "shared_buffers", "256MB", "max_wal_size", "4GB", "wal_level", "replica")
		p.Exec(b, "CREATE DATABASE sales")
		_, dsn := migrated(b, p.DSN("postgres", "sales"))
		l := open(b, dsn, "a")
		log := logOf(b, salestest.Store(lines, time.Now()))
		claims := map[Partition]*Claim{}
		for part := range log.ends {
			c, err := l.Claim(b.Context(), part, Origin{cluster, "id"})
			must(b, err)
			claims[part] = &c
		}
		batches := log.batchesFrom(claims, func() int { return 20_000 })
		b.StartTimer()
		for _, batch := range batches {
			_, err := l.Write(b.Context(), batch, patient())
			must(b, err)
		}
		b.StopTimer()
	}
	b.ReportMetric(float64(b.N)*lines/b.Elapsed().Seconds(), "lines/s")
}
