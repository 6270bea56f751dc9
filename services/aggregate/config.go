package aggregate

import (
	"fmt"
	"time"
)

// Config is the aggregate section.
type Config struct {
	BatchRecords   int           `yaml:"batch_records" doc:"most records in one transaction; fewer are written when nothing more is at hand, and when the database is slow"`
	SessionTimeout time.Duration `yaml:"session_timeout" doc:"after which another instance takes over the partitions of one that is gone; the broker sets a least (6s by default)"`
	ClaimWait      time.Duration `yaml:"claim_wait" doc:"after which a claim ends the database session of an instance that has lost the partition and still holds it"`
}

// DefaultConfig suits Kafka's own defaults.
func DefaultConfig() Config {
	return Config{BatchRecords: 20_000, SessionTimeout: 6 * time.Second, ClaimWait: 2 * time.Second}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case c.BatchRecords < 1 || c.BatchRecords > 200_000:
		return fmt.Errorf("batch_records: must be between 1 and 200000")
	case c.SessionTimeout < 100*time.Millisecond || c.SessionTimeout > 10*time.Minute:
		return fmt.Errorf("session_timeout: must be between 100ms and 10m")
	case c.ClaimWait < 50*time.Millisecond || c.ClaimWait > 15*time.Second:
		return fmt.Errorf("claim_wait: must be between 50ms and 15s")
	}
	return nil
}
