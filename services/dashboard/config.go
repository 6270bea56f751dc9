package dashboard

import (
	"fmt"
	"time"
)

// Config is the dashboard section.
type Config struct {
	QueryTimeout   time.Duration `yaml:"query_timeout" doc:"how long one question may take, waiting for a connection included"`
	Connections    int           `yaml:"connections" doc:"questions to the sales database at the same time; one connection more watches for changes"`
	LiveInterval   time.Duration `yaml:"live_interval" doc:"how often the database is asked for changes, for all viewers together, when aggregate announces none"`
	KeepAlive      time.Duration `yaml:"keep_alive" doc:"how often a quiet live stream carries a comment, so that nobody between takes it for dead"`
	MaxLiveClients int           `yaml:"max_live_clients" doc:"live streams at the same time"`
	MaxRows        int           `yaml:"max_rows" doc:"rows of one answer"`
	MaxHourlyDays  int           `yaml:"max_hourly_days" doc:"longest time range by hour, in days; ten times as long by day"`
	LateAfter      time.Duration `yaml:"late_after" doc:"age of the totals from which they are called late"`
}

// DefaultConfig answers within seconds and notices changes twice a second.
func DefaultConfig() Config {
	return Config{
		QueryTimeout: 5 * time.Second, Connections: 4, LiveInterval: 500 * time.Millisecond, KeepAlive: 15 * time.Second,
		MaxLiveClients: 500, MaxRows: 50_000, MaxHourlyDays: 400, LateAfter: time.Minute,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	for _, d := range []struct {
		key      string
		value    time.Duration
		min, max time.Duration
	}{
		{"query_timeout", c.QueryTimeout, 100 * time.Millisecond, 5 * time.Minute},
		{"live_interval", c.LiveInterval, 250 * time.Millisecond, time.Minute},
		{"keep_alive", c.KeepAlive, time.Second, 5 * time.Minute},
		{"late_after", c.LateAfter, time.Second, 24 * time.Hour},
	} {
		if d.value < d.min || d.value > d.max {
			return fmt.Errorf("%s: must be between %v and %v", d.key, d.min, d.max)
		}
	}
	for _, n := range []struct {
		key      string
		value    int
		min, max int
	}{
		{"connections", c.Connections, 1, 100},
		{"max_live_clients", c.MaxLiveClients, 1, 100_000},
		{"max_rows", c.MaxRows, 100, 1_000_000},
		{"max_hourly_days", c.MaxHourlyDays, 1, 3660},
	} {
		if n.value < n.min || n.value > n.max {
			return fmt.Errorf("%s: must be between %d and %d", n.key, n.min, n.max)
		}
	}
	return nil
}
