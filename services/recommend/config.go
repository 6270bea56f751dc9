package recommend

import (
	"fmt"
	"time"
)

// Config is the recommend section.
type Config struct {
	HalfLife        time.Duration `yaml:"half_life" doc:"age at which an order counts half in popularity"`
	Neighbours      int           `yaml:"neighbours" doc:"products kept for each product that are bought together with it"`
	MaxOrderLines   int           `yaml:"max_order_lines" doc:"order lines kept in memory, about 350 bytes each with all that follows; the oldest orders are forgotten first"`
	SessionHistory  time.Duration `yaml:"session_history" doc:"how far back shoppers' activity is read at start, and how long a quiet session is remembered"`
	MaxSessionBytes int64         `yaml:"max_session_bytes" doc:"bytes of sessions kept in memory; the quietest are forgotten first"`
	MaxServedBytes  int64         `yaml:"max_served_bytes" doc:"bytes of answers that wait for Kafka to be recorded; above it answering goes on and the loss is counted"`
	PublishEvery    time.Duration `yaml:"publish_every" doc:"how often changes of catalogue and orders reach the answers"`
}

// DefaultConfig fits a store of some ten thousand products.
func DefaultConfig() Config {
	return Config{HalfLife: 14 * 24 * time.Hour, Neighbours: 50, MaxOrderLines: 1_000_000, SessionHistory: 6 * time.Hour,
		MaxSessionBytes: 64 << 20, MaxServedBytes: 16 << 20, PublishEvery: time.Second}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case c.HalfLife < time.Hour || c.HalfLife > 10*365*24*time.Hour:
		return fmt.Errorf("half_life: %v is not between 1h and 87600h", c.HalfLife)
	case c.Neighbours < 1 || c.Neighbours > 500:
		return fmt.Errorf("neighbours: %d is not between 1 and 500", c.Neighbours)
	case c.MaxOrderLines < 1000:
		return fmt.Errorf("max_order_lines: %d is too small; 1000 is the least", c.MaxOrderLines)
	case c.SessionHistory < time.Minute || c.SessionHistory > 7*24*time.Hour:
		return fmt.Errorf("session_history: %v is not between 1m and 168h", c.SessionHistory)
	case c.MaxSessionBytes < 1<<20:
		return fmt.Errorf("max_session_bytes: %d is too small; 1048576 is the least", c.MaxSessionBytes)
	case c.MaxServedBytes < 1<<16:
		return fmt.Errorf("max_served_bytes: %d is too small; 65536 is the least", c.MaxServedBytes)
	case c.PublishEvery < 10*time.Millisecond || c.PublishEvery > time.Minute:
		return fmt.Errorf("publish_every: %v is not between 10ms and 1m", c.PublishEvery)
	}
	return nil
}
