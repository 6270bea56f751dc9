package enrich

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/services/enrich/internal/mapping"
)

// Config is the enrich section.
type Config struct {
	Mapping        string        `yaml:"mapping" doc:"how the store's tables become orders, lines, customers and products: demo, classicmodels or online-retail"`
	MappingFile    string        `yaml:"mapping_file" doc:"file with a mapping of your own, in place of a shipped one"`
	SessionTimeout time.Duration `yaml:"session_timeout" doc:"how long an instance that vanished keeps its partitions; one that comes back under the same kafka.instance_id has them at once"`
}

// DefaultConfig is the demo store, with the least session timeout that brokers accept as they come.
func DefaultConfig() Config {
	return Config{Mapping: "demo", SessionTimeout: 6 * time.Second}
}

// Validate names the key that is wrong. A mapping file is read by New.
func (c Config) Validate() error {
	if c.SessionTimeout < time.Second || c.SessionTimeout > 5*time.Minute {
		return errors.New("session_timeout: must be between 1s and 5m")
	}
	if c.MappingFile != "" {
		return nil
	}
	if _, err := mapping.Named(c.Mapping); err != nil {
		return fmt.Errorf("mapping: %w", err)
	}
	return nil
}

func (c Config) load() (*mapping.Mapping, error) {
	if c.MappingFile == "" {
		m, err := mapping.Named(c.Mapping)
		if err != nil {
			return nil, fmt.Errorf("enrich.mapping: %w", err)
		}
		return m, nil
	}
	m, err := mapping.File(c.MappingFile)
	if err != nil {
		return nil, fmt.Errorf("enrich.mapping_file: %w", err)
	}
	return m, nil
}
