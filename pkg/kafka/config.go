// Package kafka sets up franz-go once for every service: addresses, client ids, stable instance ids, byte bounds,
// transactions, topics as declared, and tables followed from compacted topics.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"

	"github.com/millrace-io/millrace/pkg/telemetry"
)

// Config is the kafka section.
type Config struct {
	Brokers          []string `yaml:"brokers" doc:"addresses to start from, host:port"`
	TopicPrefix      string   `yaml:"topic_prefix" doc:"put before the name of every topic, group and transactional id"`
	InstanceID       string   `yaml:"instance_id" doc:"stable name of this process within its service; the host's name if empty"`
	MaxBufferedBytes int      `yaml:"max_buffered_bytes" doc:"bytes that a client may hold, of records to produce and of records fetched each"`
	Replication      int      `yaml:"replication" doc:"replication factor of topics that are created; 0 takes the cluster's default"`
}

// DefaultConfig is the embedded broker's address.
func DefaultConfig() Config {
	return Config{Brokers: []string{"127.0.0.1:9092"}, MaxBufferedBytes: 32 << 20}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	if len(c.Brokers) == 0 {
		return errors.New("brokers: name at least one, host:port")
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			return fmt.Errorf("brokers: %q is not host:port", b)
		}
	}
	if c.MaxBufferedBytes < 1<<20 {
		return fmt.Errorf("max_buffered_bytes: %d is too small; 1048576 is the least", c.MaxBufferedBytes)
	}
	return nil
}

// Name is a topic, group or transactional id with the prefix.
func (c Config) Name(name string) string { return c.TopicPrefix + name }

// Instance is the stable name of this process within its service.
func (c Config) Instance() string {
	if c.InstanceID != "" {
		return c.InstanceID
	}
	host, err := os.Hostname()
	if err != nil {
		return "0"
	}
	return host
}

// Client makes a client for a role such as "enrich" or "cdc-position"; it does no I/O. metrics may be nil. Errors of a
// broker that is away are retried by the client; see [CheckReachable] for saying so at start.
func (c Config) Client(role string, log *slog.Logger, metrics prometheus.Registerer, options ...kgo.Opt) (*kgo.Client, error) {
	cl, err := kgo.NewClient(append(c.Options(role, log, metrics), options...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client %s: %w", role, err)
	}
	return cl, nil
}

// Options are what every client has in common, for the constructors that take options (sessions, groups).
func (c Config) Options(role string, log *slog.Logger, metrics prometheus.Registerer) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("millrace-" + role + "-" + c.Instance()),
		kgo.WithLogger(logger{log.With("kafka", role)}),
		kgo.MaxBufferedBytes(c.MaxBufferedBytes),
		kgo.MaxBufferedRecords(1 << 18), // the bytes are the bound
		kgo.FetchMaxBytes(int32(min(c.MaxBufferedBytes/2, 8<<20))),
		kgo.FetchMaxPartitionBytes(int32(min(c.MaxBufferedBytes/4, 2<<20))),
		kgo.MaxConcurrentFetches(1),
		// After a partition is taken over, its records wait for the fetch that is under way: not for long.
		kgo.FetchMaxWait(250 * time.Millisecond),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// Snappy packs our records as tightly as LZ4 at a third of the time and without its 4 MiB writers.
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		kgo.ProducerLinger(0),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(25*time.Millisecond<<min(tries, 6), time.Second)
		}),
	}
	if metrics != nil {
		wrapped := prometheus.WrapRegistererWith(prometheus.Labels{"role": role}, metrics)
		opts = append(opts, kgo.WithHooks(kprom.NewMetrics("millrace_kafka", kprom.Registerer(wrapped))))
	}
	return opts
}

// CheckReachable asks the brokers for metadata once, so that a wrong address is told at start and not guessed from
// silence.
func (c Config) CheckReachable(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		return fmt.Errorf("kafka at %v does not answer (kafka.brokers): %w", c.Brokers, err)
	}
	return nil
}

// SetTrace puts the context's trace into the record's headers.
func SetTrace(ctx context.Context, r *kgo.Record) {
	if t := telemetry.Trace(ctx); t != "" {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: telemetry.TraceParent, Value: []byte(t)})
	}
}

// Header is the value of the record's first header of that name, or nil.
func Header(r *kgo.Record, name string) []byte {
	for i := range r.Headers {
		if r.Headers[i].Key == name {
			return r.Headers[i].Value
		}
	}
	return nil
}

// logger adapts slog: franz-go's info is our debug, for it tells of every reconnect.
type logger struct{ log *slog.Logger }

func (l logger) Level() kgo.LogLevel {
	switch {
	case l.log.Enabled(context.Background(), slog.LevelDebug):
		return kgo.LogLevelInfo
	case l.log.Enabled(context.Background(), slog.LevelWarn):
		return kgo.LogLevelWarn
	default:
		return kgo.LogLevelError
	}
}

func (l logger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelDebug
	switch level {
	case kgo.LogLevelError:
		to = slog.LevelError
	case kgo.LogLevelWarn:
		to = slog.LevelWarn
	}
	l.log.Log(context.Background(), to, msg, keyvals...) //nolint:sloglint // the message is franz-go's
}
