package realparts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Plugin is a kind of connector or converter that a Kafka Connect worker loads.
type Plugin struct{ artefact artefact }

// The plugins, each the newest that its repository has whole and that runs on Java 17.
var (
	// DebeziumJDBC has Debezium's JDBC sink (io.debezium.connector.jdbc.JdbcSinkConnector) and its transforms.
	DebeziumJDBC = Plugin{artefact{"io.debezium", "debezium-connector-jdbc", "3.5.0.Final"}}
	// DebeziumPostgres has Debezium's source (io.debezium.connector.postgresql.PostgresConnector) and its transforms.
	DebeziumPostgres = Plugin{artefact{"io.debezium", "debezium-connector-postgres", "3.7.0.Final"}}
	// ConnectFile has Kafka's own sink to a file (FileStreamSink), which writes what a value prints as.
	ConnectFile = Plugin{artefact{"org.apache.kafka", "connect-file", DefaultKafka}}
	// ApicurioConverter has the Avro converter; see AvroConverter.
	ApicurioConverter = Plugin{artefact{"io.apicurio", "apicurio-registry-utils-converter", apicurioVersion}}
)

// Version returns the version of the plugin.
func (p Plugin) Version() string { return p.artefact.Version }

// AvroConverter returns the settings by which a worker or connector reads and writes keys and values as
// Confluent's Avro converter does: a zero byte, four bytes of the schema's id in the Confluent API, Avro.
func (r *Registry) AvroConverter() map[string]string {
	out := map[string]string{}
	for _, which := range []string{"key.converter", "value.converter"} {
		out[which] = "io.apicurio.registry.utils.converter.AvroConverter"
		out[which+".apicurio.registry.url"] = strings.TrimSuffix(r.URL, "/ccompat/v7") + "/registry/v2"
		out[which+".apicurio.registry.id-handler"] = "io.apicurio.registry.serde.Legacy4ByteIdHandler"
		out[which+".apicurio.registry.use-id"] = "contentId"
		out[which+".apicurio.registry.headers.enabled"] = "false"
	}
	return out
}

// ConnectOptions choose what kind of worker runs.
type ConnectOptions struct {
	Brokers []string
	Plugins []Plugin
	// Properties are added to the worker's properties and win over what stands there.
	Properties map[string]string
	// FullSpeed lets the JVM use its optimising compiler: for benchmarks.
	FullSpeed bool
}

// Connect is a Kafka Connect worker in distributed mode, alone in its group, of DefaultKafka's version. Its consumers
// read committed records only. Its methods may be called from several goroutines.
type Connect struct {
	// URL is the address of its REST interface, without a slash at the end.
	URL string

	dir     string
	process *process
}

// connectHeap is the heap of a worker; what one needs for Debezium's source at full speed.
const connectHeap = "-Xmx512m"

// StartConnect starts a worker and returns when it answers, at most two minutes later. The first call for a plugin
// copies its jars into the cache. The error is a *MissingError where Java or Maven is missing or the jars cannot be
// had. ctx bounds the start, not the life of the worker: Close it.
func StartConnect(ctx context.Context, o ConnectOptions) (*Connect, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	runtime, err := jars(ctx, artefact{"org.apache.kafka", "connect-runtime", DefaultKafka}, artefact{"org.slf4j", "slf4j-simple", "1.7.36"})
	if err != nil {
		return nil, err
	}
	c := &Connect{}
	if c.dir, err = os.MkdirTemp("", "millrace-connect-"); err != nil {
		return nil, fmt.Errorf("make the directory of Kafka Connect: %w", err)
	}
	err = c.install(ctx, runtime, o.Plugins)
	// The port was free when it was chosen; if another process was faster, choose again.
	for try := 0; err == nil && try < 3; try++ {
		if err = c.start(ctx, o, runtime); err == nil {
			return c, nil
		}
		if try < 2 && strings.Contains(err.Error(), "in use") {
			err = nil
		}
	}
	return nil, errors.Join(err, c.Close())
}

// install lays the plugins out as a worker looks for them: a directory with jars for each. What the worker itself has is
// left out, as it is of the archives that plugins are published in: two versions of a library would meet.
func (c *Connect) install(ctx context.Context, runtime string, plugins []Plugin) error {
	own, err := libraries(runtime)
	if err != nil {
		return err
	}
	for _, p := range plugins {
		dir, err := jars(ctx, p.artefact)
		if err != nil {
			return err
		}
		target := filepath.Join(c.plugins(), p.artefact.Name)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("make the directory of Kafka Connect's plugin: %w", err)
		}
		files, err := libraries(dir)
		if err != nil {
			return err
		}
		for name, file := range files {
			if _, ok := own[name]; ok {
				continue
			}
			if err := os.Symlink(filepath.Join(dir, file), filepath.Join(target, file)); err != nil {
				return fmt.Errorf("install Kafka Connect's plugin: %w", err)
			}
		}
	}
	return nil
}

// jarVersion is the end of a jar's name.
var jarVersion = regexp.MustCompile(`-\d[^/]*\.jar$`)

// libraries maps the names of the libraries in a directory, without their versions, to their files.
func libraries(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the jars: %w", err)
	}
	out := map[string]string{}
	for _, e := range entries {
		out[jarVersion.ReplaceAllString(e.Name(), "")] = e.Name()
	}
	return out, nil
}

func (c *Connect) plugins() string { return filepath.Join(c.dir, "plugins") }

// PID returns the worker's process id.
func (c *Connect) PID() int { return c.process.cmd.Process.Pid }

// LogTail returns the end of what the worker logged: warnings and errors.
func (c *Connect) LogTail() string { return c.process.tail() }

// Stop ends the worker in order: its connectors record how far they have come. After 30 seconds it is killed, which is
// an error.
func (c *Connect) Stop() error {
	if !c.process.terminate(30 * time.Second) {
		return fmt.Errorf("%s did not stop within 30 seconds and was killed; end of its log:\n%s", c.process.name, c.process.tail())
	}
	return nil
}

// Close kills the worker.
func (c *Connect) Close() error {
	if c.process != nil {
		c.process.kill()
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove the directory of Kafka Connect: %w", err)
	}
	return nil
}

func (c *Connect) start(ctx context.Context, o ConnectOptions, runtime string) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	c.URL = "http://127.0.0.1:" + strconv.Itoa(ports[0])
	p := map[string]string{
		"bootstrap.servers":                 strings.Join(o.Brokers, ","),
		"group.id":                          "connect",
		"config.storage.topic":              "connect-configs",
		"offset.storage.topic":              "connect-offsets",
		"status.storage.topic":              "connect-status",
		"config.storage.replication.factor": "1",
		"offset.storage.replication.factor": "1",
		"status.storage.replication.factor": "1",
		"offset.storage.partitions":         "1",
		"status.storage.partitions":         "1",
		"scheduled.rebalance.max.delay.ms":  "0",
		"listeners":                         c.URL,
		"plugin.path":                       c.plugins(),
		"consumer.isolation.level":          "read_committed",
		// Without a converter of their own, connectors fail rather than guess.
		"key.converter":   "org.apache.kafka.connect.converters.ByteArrayConverter",
		"value.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
	}
	maps.Copy(p, o.Properties)
	var text strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&text, "%s=%s\n", k, p[k])
	}
	file := filepath.Join(c.dir, "worker.properties")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("write the configuration of Kafka Connect: %w", err)
	}
	flags := []string{"-Xms64m", connectHeap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}
	if o.FullSpeed {
		flags = []string{"-Xms256m", connectHeap}
	}
	cmd := exec.Command("java", append(flags, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-cp", filepath.Join(runtime, "*"), "org.apache.kafka.connect.cli.ConnectDistributed", file)...)
	cmd.Dir = c.dir
	if c.process, err = startProcess("Kafka Connect "+DefaultKafka, filepath.Join(c.dir, "log"), cmd); err != nil {
		return err
	}
	// The list of connectors is answered only by a worker that has joined its group.
	if err := c.process.ready(ctx, func(ctx context.Context) error { return getOK(ctx, c.URL+"/connectors") }); err != nil {
		c.process.kill()
		return err
	}
	return nil
}

// Create makes a connector, or changes its configuration, and returns when it and its tasks run.
func (c *Connect) Create(ctx context.Context, name string, config map[string]string) error {
	body, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("write the configuration of connector %s: %w", name, err)
	}
	for { // 409: the worker's group is being balanced
		code, err := c.call(ctx, http.MethodPut, name+"/config", body, nil)
		if err == nil {
			break
		}
		if code != http.StatusConflict {
			return fmt.Errorf("make connector %s: %w", name, err)
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("make connector %s: %w", name, err)
		}
	}
	for {
		running, err := c.Running(ctx, name)
		if err != nil || running {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("wait for connector %s: %w", name, err)
		}
	}
}

// Delete ends a connector. Its offsets are kept.
func (c *Connect) Delete(ctx context.Context, name string) error {
	if _, err := c.call(ctx, http.MethodDelete, name, nil, nil); err != nil {
		return fmt.Errorf("remove connector %s: %w", name, err)
	}
	return nil
}

// Running tells whether the connector and a task of it run. The error says why one has failed.
func (c *Connect) Running(ctx context.Context, name string) (bool, error) {
	type state struct{ State, Trace string }
	var status struct {
		Connector state
		Tasks     []state
	}
	code, err := c.call(ctx, http.MethodGet, name+"/status", nil, &status)
	if code == http.StatusNotFound { // not yet
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask for connector %s: %w", name, err)
	}
	running := len(status.Tasks) > 0
	for _, s := range append(status.Tasks, status.Connector) {
		if s.State == "FAILED" {
			return false, fmt.Errorf("connector %s has failed: %s", name, causes(s.Trace))
		}
		running = running && s.State == "RUNNING"
	}
	return running, nil
}

// causes leaves out of a stack trace where it came by.
func causes(trace string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(trace, "\n"), func(line string) bool { return strings.HasPrefix(line, "\t") }), "\n")
}

// call asks the worker about a connector. An answer other than 2xx is an error.
func (c *Connect) call(ctx context.Context, method, path string, body []byte, out any) (code int, err error) {
	target, err := url.JoinPath(c.URL, "connectors", path)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err
	}
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode, fmt.Errorf("%s: %s", resp.Status, data)
	}
	if out == nil {
		return resp.StatusCode, nil
	}
	return resp.StatusCode, json.Unmarshal(data, out)
}

// pause is the pace of asking.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}
