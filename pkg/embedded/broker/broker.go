package broker

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
)

// Options says what to open. The zero value is an in-memory broker on a free
// port that logs nothing.
type Options struct {
	// Dir is the data directory; it is created if absent. Empty keeps
	// everything in memory: nothing survives Close.
	Dir string
	// Port is the TCP port on 127.0.0.1; 0 takes a free one.
	Port int
	// Log receives the broker's own messages; nil discards them.
	Log *slog.Logger
	// Registerer receives the broker's metrics; nil registers none.
	Registerer prometheus.Registerer
	// SyncWrites fsyncs every batch. Without it an acknowledged record is in
	// the kernel's page cache: it survives the death of the process but not of
	// the machine, which the next Open reports through UncleanStop.
	SyncWrites bool
	// CompactAfterBytes is how much compacted topics must have grown since the
	// last compaction for Open to compact them again; 0 means 4 MiB, negative
	// means never.
	CompactAfterBytes int64
}

// PortInUseError says that the port asked for is taken by somebody else.
type PortInUseError struct {
	// Port is the TCP port on 127.0.0.1 that was asked for.
	Port int
	err  error
}

// Error names the port and what to do about it.
func (e *PortInUseError) Error() string {
	return fmt.Sprintf("listen for Kafka clients on 127.0.0.1:%d: the port is taken; stop the process that holds it, or choose another port (0 takes a free one)", e.Port)
}

// Unwrap returns the operating system's error.
func (e *PortInUseError) Unwrap() error { return e.err }

// Broker is a running embedded broker. Its methods are safe for concurrent use.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	id      string
	log     *logAdapter
	guard   *guard
	store   *store // nil in memory
	metrics *metrics
	unclean bool
	size    *sizeWatch

	closeOnce sync.Once
	closeErr  error
}

// Open starts a broker. With a directory it first takes the directory's lock
// (*LockedError if somebody else holds it), repairs what an unclean stop left
// behind, compacts if it is worth it, and only then listens. ctx bounds the
// preparation; it does not stop the broker, Close does. A taken port is a
// *PortInUseError.
func Open(ctx context.Context, o Options) (*Broker, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{log: &logAdapter{log: o.Log}, metrics: newMetrics()}
	if o.Dir != "" {
		st, err := openStore(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("open broker directory %s: %w", o.Dir, err)
		}
		b.store, b.unclean = st, st.unclean
		b.metrics.prepared(st)
	}
	if err := b.start(o); err != nil {
		if b.store != nil {
			err = errors.Join(err, b.store.abandon())
		}
		return nil, err
	}
	return b, nil
}

func (b *Broker) start(o Options) error {
	b.id = newClusterID()
	if b.store != nil && b.store.clusterID != "" {
		b.id = b.store.clusterID
	}
	opts := append(sharedOptions(), kfake.ClusterID(b.id), kfake.Ports(o.Port), kfake.WithLogger(b.log), kfake.ListenFn(listen))
	if o.SyncWrites {
		opts = append(opts, kfake.SyncWrites())
	}
	if b.store != nil {
		if err := b.store.begin(); err != nil {
			return fmt.Errorf("open broker directory %s: %w", o.Dir, err)
		}
		opts = append(opts, kfake.DataDir(b.store.dataDir()))
	}
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		err = fmt.Errorf("start embedded broker: %w", err)
		if b.store != nil {
			err = errors.Join(err, b.store.notBegun())
		}
		return err
	}
	b.cluster = c
	b.addr = c.ListenAddrs()[0]
	b.guard = newGuard(c, b.store)
	b.guard.install()
	if o.Registerer != nil {
		if err := b.metrics.register(o.Registerer); err != nil {
			return errors.Join(fmt.Errorf("register broker metrics: %w", err), b.Close())
		}
	}
	if b.store != nil {
		b.size = watchSize(b.store.root, b.metrics, b.log.log)
	}
	return nil
}

// sharedOptions is what every embedded broker has in common, in memory or on
// disk, so that tests meet the broker that people run.
func sharedOptions() []kfake.Opt {
	return []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.DefaultNumPartitions(6),
		kfake.GroupMinSessionTimeout(100 * time.Millisecond),
		kfake.GroupMaxSessionTimeout(30 * time.Minute),
		kfake.BrokerConfigs(map[string]string{
			// The cleaner never fires while the broker runs: it knows no last
			// stable offset and applies retention to compacted topics.
			"log.cleaner.backoff.ms": strconv.FormatInt(cleanerNever.Milliseconds(), 10),
			// Small segments bound what a start has to hold in memory at once.
			"log.segment.bytes": strconv.Itoa(rewrittenSegmentSize),
			// A laptop may sleep for weeks: positions and transactional ids
			// must still be there when it wakes.
			"offsets.retention.minutes":      "5256000",
			"transactional.id.expiration.ms": "2147483647",
			// The classic protocol's floor is set above; these are for KIP-848
			// groups, whose timeouts the broker dictates.
			"group.consumer.session.timeout.ms":    "6000",
			"group.consumer.heartbeat.interval.ms": "1000",
		}),
	}
}

// cleanerNever is beyond any process's life and still fits a time.Duration.
const cleanerNever = 100 * 365 * 24 * time.Hour

// listen is kfake's hook, which has no context; nothing here can take long, for the address needs no look-up.
func listen(network, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), network, address)
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(address)
		n, _ := strconv.Atoi(port)
		return nil, &PortInUseError{Port: n, err: err}
	}
	return l, err
}

func newClusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails: it ends the process instead
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// Addr is the broker's host:port, on 127.0.0.1.
func (b *Broker) Addr() string { return b.addr }

// ClusterID identifies the contents: it is made with the directory and stays
// with it, so whoever keeps a position elsewhere notices that the topics are
// others. In memory every broker has its own.
func (b *Broker) ClusterID() string { return b.id }

// UncleanStop reports whether the previous run on this directory did not end by
// a Close that saved everything. The broker is consistent all the same, but a
// machine that lost power may have lost acknowledged records: compare topics
// and sinks with their source. It is false for a new directory and in memory.
func (b *Broker) UncleanStop() bool { return b.unclean }

// Close stops the broker, saves its state and marks the directory clean. It is
// idempotent; clients get connection errors from then on. An error means that
// something could not be saved: the next Open repairs it and reports
// UncleanStop.
func (b *Broker) Close() error {
	b.closeOnce.Do(func() { b.closeErr = b.close() })
	return b.closeErr
}

func (b *Broker) close() error {
	if b.size != nil {
		b.size.stop()
	}
	b.guard.close()
	b.cluster.Close()
	b.metrics.unregister()
	if b.store == nil {
		return nil
	}
	if err := b.log.damage(); err != nil {
		return errors.Join(fmt.Errorf("close broker directory %s: %w; the next start repairs it and reports an unclean stop", b.store.root, err), b.store.abandon())
	}
	return b.store.end()
}
