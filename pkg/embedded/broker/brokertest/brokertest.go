// Package brokertest gives tests an in-memory Kafka broker configured exactly
// like the embedded one that people run: one node on a free loopback port, no
// automatic topics, no null keys on compacted topics, short session timeouts
// allowed.
package brokertest

import (
	"testing"

	"github.com/millrace-io/millrace/pkg/embedded/broker"
)

// New starts a broker that lives until the test ends and returns its seed
// addresses. Every call has its own, empty, cluster.
func New(t testing.TB) []string {
	t.Helper()
	return []string{Open(t).Addr()}
}

// Open is New for tests that need the broker itself. It is closed when the test
// ends, and may be closed before.
func Open(t testing.TB) *broker.Broker {
	t.Helper()
	b, err := broker.Open(t.Context(), broker.Options{})
	if err != nil {
		t.Fatalf("start an in-memory broker: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close the in-memory broker: %v", err)
		}
	})
	return b
}
