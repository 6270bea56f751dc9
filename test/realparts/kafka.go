package realparts

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DefaultKafka is the version of Apache Kafka that runs unless Options say otherwise.
const DefaultKafka = "4.3.1"

// kafkaInstall tells a person how to get what Kafka needs.
const kafkaInstall = "Java 17 or newer and Maven (Debian: apt-get install openjdk-17-jre-headless maven; macOS: brew install openjdk maven)"

// kafkaPOM lists the artefacts of a broker.
//
//go:embed pom.xml
var kafkaPOM []byte

// Options choose what kind of broker runs. The zero value is a small DefaultKafka.
type Options struct {
	// Version of Apache Kafka, 3.9 or newer; empty means DefaultKafka.
	Version string
	// Properties are added to the broker's server.properties and win over what stands there.
	Properties map[string]string
	// FullSpeed lets the JVM use its optimising compiler and 1 GiB of heap instead of 256 MiB: for benchmarks. It
	// costs start time and memory.
	FullSpeed bool
	// Dir holds the broker's data; empty means a temporary directory that Close removes. A directory that a broker
	// has used before keeps its records and its cluster id; one that is absent is made.
	Dir string
}

// Broker is one Apache Kafka process, broker and KRaft controller in one, that answers without encryption or
// authentication on 127.0.0.1. Topics are not created automatically. Its methods may be called from several goroutines.
type Broker struct {
	options    Options
	jars, dir  string
	temporary  bool
	client, qr int // ports of clients and of the controller quorum

	mu      sync.Mutex
	process *process
}

// StartKafka starts a broker and returns when it answers, at most two minutes later. The first call for a version
// copies its jars into the cache. The error is a *MissingError where Java or Maven is missing or the jars cannot be
// had. ctx bounds the start, not the life of the broker: Close it.
func StartKafka(ctx context.Context, o Options) (*Broker, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if o.Version == "" {
		o.Version = DefaultKafka
	}
	jars, err := kafkaJars(ctx, o.Version)
	if err != nil {
		return nil, err
	}
	b := &Broker{options: o, jars: jars, dir: o.Dir, temporary: o.Dir == ""}
	if b.temporary {
		if b.dir, err = os.MkdirTemp("", "millrace-kafka-"); err != nil {
			return nil, fmt.Errorf("make the data directory of Kafka: %w", err)
		}
	} else if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the data directory of Kafka: %w", err)
	}
	// The ports were free when they were chosen; if another process was faster, choose again.
	for range 3 {
		if err = b.startAnew(ctx); err == nil || !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Seeds returns the address of the broker for clients. It stays the same over Restart.
func (b *Broker) Seeds() []string { return []string{b.address(b.client)} }

// Version returns the version of Apache Kafka that runs.
func (b *Broker) Version() string { return b.options.Version }

// Kill ends the broker as kill -9 or a power cut of the process does: nothing is flushed. It waits until the process
// is gone. Killing a broker that is not running does nothing.
func (b *Broker) Kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process != nil {
		b.process.kill()
	}
}

// Stop ends the broker by a controlled shutdown, and by kill -9 if that takes more than 30 seconds, which is an error.
func (b *Broker) Stop() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process != nil && !b.process.terminate(30*time.Second) {
		return fmt.Errorf("%s did not stop within 30 seconds and was killed; end of its log:\n%s", b.process.name, b.process.tail())
	}
	return nil
}

// Restart starts the broker again, on its data and at its old address, and returns when it answers, at most two
// minutes later. A broker that runs is stopped first.
func (b *Broker) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := b.Stop(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.start(ctx)
}

// RSS returns the resident memory of the broker in bytes.
func (b *Broker) RSS() (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return residentBytes(b.process.cmd.Process.Pid)
}

// LogTail returns the end of what the broker logged: warnings and errors.
func (b *Broker) LogTail() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.process.tail()
}

// Close kills the broker and removes its data, unless Options.Dir named the place. The broker is of no use afterwards.
func (b *Broker) Close() error {
	b.Kill()
	if !b.temporary {
		return nil
	}
	if err := os.RemoveAll(b.dir); err != nil {
		return fmt.Errorf("remove the data of Kafka: %w", err)
	}
	return nil
}

// startAnew chooses ports, writes the configuration, formats the storage where that was not done before, and starts.
func (b *Broker) startAnew(ctx context.Context) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	b.client, b.qr = ports[0], ports[1]
	if err := os.WriteFile(b.file("server.properties"), b.properties(), 0o600); err != nil {
		return fmt.Errorf("write the configuration of Kafka: %w", err)
	}
	cmd := b.java(ctx, "kafka.tools.StorageTool", "format", "--ignore-formatted", "--cluster-id", clusterID(), "--config", b.file("server.properties"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format the storage of Kafka %s: %w\n%s", b.options.Version, err, out)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.start(ctx)
}

// start runs the broker and waits until it answers. The caller holds mu.
func (b *Broker) start(ctx context.Context) error {
	// Not CommandContext: the broker outlives ctx.
	p, err := startProcess("Kafka "+b.options.Version, b.file("log"), b.java(context.WithoutCancel(ctx), "kafka.Kafka", b.file("server.properties")))
	if err != nil {
		return err
	}
	b.process = p
	if err := p.ready(ctx, b.answers); err != nil {
		p.kill()
		return err
	}
	return nil
}

// answers asks for the list of brokers. Kafka opens its listener long before it serves, so a connection says nothing.
func (b *Broker) answers(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Seeds()...), kgo.RequestRetries(0))
	if err != nil {
		return err
	}
	defer cl.Close()
	resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	if len(resp.Brokers) != 1 {
		return fmt.Errorf("%d of 1 brokers are registered", len(resp.Brokers))
	}
	return nil
}

// properties renders server.properties: a small broker, and internal topics that need no second one.
func (b *Broker) properties() []byte {
	p := map[string]string{
		"process.roles":                                    "broker,controller",
		"node.id":                                          "1",
		"controller.quorum.voters":                         "1@" + b.address(b.qr),
		"controller.listener.names":                        "CONTROLLER",
		"listeners":                                        "PLAINTEXT://" + b.address(b.client) + ",CONTROLLER://" + b.address(b.qr),
		"inter.broker.listener.name":                       "PLAINTEXT",
		"log.dirs":                                         b.file("data"),
		"auto.create.topics.enable":                        "false",
		"group.initial.rebalance.delay.ms":                 "0",
		"default.replication.factor":                       "1",
		"min.insync.replicas":                              "1",
		"offsets.topic.replication.factor":                 "1",
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "4",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"share.coordinator.state.topic.num.partitions":     "4",
		"log.cleaner.dedupe.buffer.size":                   "16777216", // the default takes 128 MiB of heap
		// A killed broker is let in again only when its old session has ended: 3 seconds instead of 9.
		"broker.session.timeout.ms":    "3000",
		"broker.heartbeat.interval.ms": "500",
	}
	maps.Copy(p, b.options.Properties)
	var text strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&text, "%s=%s\n", k, p[k])
	}
	return []byte(text.String())
}

func (b *Broker) java(ctx context.Context, args ...string) *exec.Cmd {
	flags := []string{"-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:MaxDirectMemorySize=64m"}
	if b.options.FullSpeed {
		flags = []string{"-Xms256m", "-Xmx1g"}
	}
	flags = append(flags, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-cp", filepath.Join(b.jars, "*"))
	cmd := exec.CommandContext(ctx, "java", append(flags, args...)...)
	cmd.Dir = b.dir
	return cmd
}

func (b *Broker) file(name string) string { return filepath.Join(b.dir, name) }

func (b *Broker) address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// kafkaJars returns the directory of a version's jars.
func kafkaJars(ctx context.Context, version string) (string, error) {
	part := "Apache Kafka " + version
	if err := need(part, kafkaInstall, "java"); err != nil {
		return "", err
	}
	return cached(ctx, "kafka-"+version, func(ctx context.Context, dir string) error {
		tmp, err := os.MkdirTemp("", "kafka-jars-")
		if err != nil {
			return fmt.Errorf("make a directory for the list of Kafka's jars: %w", err)
		}
		defer os.RemoveAll(tmp)
		if err := os.WriteFile(filepath.Join(tmp, "pom.xml"), kafkaPOM, 0o600); err != nil {
			return fmt.Errorf("write the list of Kafka's jars: %w", err)
		}
		return maven(ctx, part, tmp, "-Dkafka.version="+version,
			"dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+dir)
	})
}

// maven runs the Maven client in dir, whose pom.xml it reads if there is one. That it fails means that an artefact cannot
// be had here, or not now.
func maven(ctx context.Context, part, dir string, args ...string) error {
	if err := need(part, kafkaInstall, "mvn"); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "mvn", append([]string{"--quiet", "--batch-mode"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return &MissingError{Part: part, Install: "let Maven reach a repository (see its settings.xml), then run again",
			Err: fmt.Errorf("mvn %s: %w\n%s", strings.Join(args, " "), err, out)}
	}
	return nil
}

// clusterID makes a Kafka UUID: 16 bytes in URL-safe base64. The first bit is cleared because Kafka's tools take an
// id that begins with '-' for an option.
func clusterID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	id[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(id)
}
