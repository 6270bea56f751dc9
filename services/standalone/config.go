// Package standalone is the whole of Millrace in one process on embedded parts: for a laptop. It runs the same
// services over the same Kafka protocol as every other deployment; only what stands around them differs: a PostgreSQL
// primary with a standby and a sales database as child processes, a broker and a schema registry in process.
//
// It is the only program that may import the embedded parts.
package standalone

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
)

// Config is the standalone section.
type Config struct {
	DataDir string `yaml:"data_dir" flag:"data-dir" doc:"directory that keeps everything between runs; empty takes millrace/data in the user's cache directory"`
}

// Dir is the data directory to use. Root's own cache directory is closed to the user that PostgreSQL then runs as.
func (c Config) Dir() (string, error) {
	if c.DataDir != "" {
		return filepath.Abs(c.DataDir)
	}
	if os.Geteuid() == 0 {
		return "/var/lib/millrace", nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for the data: %w; name one with --data-dir", err)
	}
	return filepath.Join(cache, "millrace", "data"), nil
}

// EmbeddedConfig is the embedded section.
type EmbeddedConfig struct {
	KafkaPort          int    `yaml:"kafka_port" doc:"port of the embedded Kafka; 0 takes a free one"`
	RegistryPort       int    `yaml:"registry_port" doc:"port of the embedded schema registry; 0 takes a free one"`
	PrimaryPort        int    `yaml:"primary_port" doc:"port of the demo store's primary; 0 takes a free one"`
	StandbyPort        int    `yaml:"standby_port" doc:"port of the demo store's standby; 0 takes a free one"`
	SalesPort          int    `yaml:"sales_port" doc:"port of the sales database; 0 takes a free one"`
	PostgresVersion    string `yaml:"postgres_version" doc:"version of the PostgreSQL that is fetched"`
	PostgresRepository string `yaml:"postgres_repository" doc:"Maven repository that PostgreSQL's binaries are fetched from, for mirrors and closed networks"`
}

// DefaultEmbeddedConfig has the ports that the documentation tells.
func DefaultEmbeddedConfig() EmbeddedConfig {
	return EmbeddedConfig{KafkaPort: 9092, RegistryPort: 8081, PrimaryPort: 5433, StandbyPort: 5434, SalesPort: 5435, PostgresVersion: pgserver.DefaultVersion}
}

// Validate names the key that is wrong.
func (c EmbeddedConfig) Validate() error {
	seen := map[int]string{}
	for _, p := range []struct {
		key  string
		port int
	}{{"kafka_port", c.KafkaPort}, {"registry_port", c.RegistryPort}, {"primary_port", c.PrimaryPort}, {"standby_port", c.StandbyPort}, {"sales_port", c.SalesPort}} {
		if p.port < 0 || p.port > 65535 {
			return fmt.Errorf("%s: %d is not a port", p.key, p.port)
		}
		if other := seen[p.port]; other != "" && p.port != 0 {
			return fmt.Errorf("%s: %d is already %s", p.key, p.port, other)
		}
		seen[p.port] = p.key
	}
	if c.PostgresVersion == "" {
		return errors.New("postgres_version: name one, for example " + pgserver.DefaultVersion)
	}
	return nil
}
