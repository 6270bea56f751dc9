package collect

import (
	"fmt"
	"time"
)

// maxBody bounds a request's body in bytes.
const maxBody = 1 << 20

// Config is the collect section.
type Config struct {
	MaxEventBytes    int           `yaml:"max_event_bytes" doc:"bytes of one event as JSON; a larger one is refused"`
	MaxBatchEvents   int           `yaml:"max_batch_events" doc:"events in one request; a request with more is refused"`
	MaxInFlightBytes int64         `yaml:"max_in_flight_bytes" doc:"bytes of requests in hand at once; above it requests are answered 503 with Retry-After"`
	ProduceTimeout   time.Duration `yaml:"produce_timeout" doc:"how long a request waits for Kafka before it is answered 503; at least 1s"`
}

// DefaultConfig has the bounds that the API promises.
func DefaultConfig() Config {
	return Config{MaxEventBytes: 32 << 10, MaxBatchEvents: 500, MaxInFlightBytes: 32 << 20, ProduceTimeout: 2 * time.Second}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case c.MaxEventBytes < 256 || c.MaxEventBytes > maxBody:
		return fmt.Errorf("max_event_bytes: %d is not between 256 and %d", c.MaxEventBytes, maxBody)
	case c.MaxBatchEvents < 1 || c.MaxBatchEvents > 10_000:
		return fmt.Errorf("max_batch_events: %d is not between 1 and 10000", c.MaxBatchEvents)
	case c.MaxInFlightBytes < leastInFlight:
		return fmt.Errorf("max_in_flight_bytes: %d is too small; %d is what the largest request needs", c.MaxInFlightBytes, leastInFlight)
	case c.ProduceTimeout < time.Second || c.ProduceTimeout > time.Minute:
		return fmt.Errorf("produce_timeout: %v is not between 1s and 1m", c.ProduceTimeout)
	}
	return nil
}
