// Package realparts gives tests and benchmarks the real parts that Millrace runs on and works with: Apache Kafka, the
// Apicurio schema registry and Kafka Connect as child processes, Confluent's Kafka client for Python, the axe
// accessibility checker and a Chromium browser.
//
// Every part has two entries. The functions that take a context (StartKafka, StartApicurio, StartConnect, PythonKafka,
// AxeFile, ChromiumFile) return errors and leave the closing to the caller. The functions that take a testing.TB (Kafka,
// Apicurio, ConnectWorker, Python, Axe, Chromium) are thin on top: they close the part with the test, and where a part is missing they
// skip the test saying how to install it, or fail it when the environment variable CI is set, so that a missing part
// cannot go unnoticed there.
//
// Nothing is built in: jars come by the Maven client, axe by the npm client, Python's packages by pip, each through its
// own configuration (mirrors, proxies), once, into a cache (see CacheDir). Every child has its own process group and ends with the
// process that started it; it listens on loopback only, on ports that were free.
//
// The package is for Unix; on Linux a child ends even when its parent is killed.
package realparts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// MissingError says that a real part cannot be had on this machine, and what a person can do about it.
type MissingError struct {
	Part    string // what is missing, for example "Apache Kafka 4.3.1"
	Install string // how to install it on a laptop
	Err     error  // why; never nil
}

// Error names the part, the cause and the remedy.
func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is missing: %v; to install: %s", e.Part, e.Err, e.Install)
}

// Unwrap returns the cause.
func (e *MissingError) Unwrap() error { return e.Err }

// Kafka starts a single-broker Apache Kafka for the test and kills it when the test ends; see StartKafka. If the test
// failed, the end of the broker's log is printed.
func Kafka(t testing.TB, o Options) *Broker {
	t.Helper()
	b, err := StartKafka(t.Context(), o)
	require(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the log of Kafka:\n%s", b.LogTail())
		}
		if err := b.Close(); err != nil {
			t.Errorf("close Kafka: %v", err)
		}
	})
	return b
}

// Apicurio starts a schema registry for the test, kills it when the test ends, and returns the address of its
// Confluent API; see StartApicurio.
func Apicurio(t testing.TB) (url string) {
	t.Helper()
	return ApicurioRegistry(t).URL
}

// ApicurioRegistry is Apicurio for tests that need more than its address.
func ApicurioRegistry(t testing.TB) *Registry {
	t.Helper()
	r, err := StartApicurio(t.Context())
	require(t, err)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close Apicurio: %v", err)
		}
	})
	return r
}

// ConnectWorker starts a Kafka Connect worker for the test and kills it when the test ends; see StartConnect. If the
// test failed, the end of the worker's log is printed.
func ConnectWorker(t testing.TB, o ConnectOptions) *Connect {
	t.Helper()
	c, err := StartConnect(t.Context(), o)
	require(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the log of Kafka Connect:\n%s", c.LogTail())
		}
		if err := c.Close(); err != nil {
			t.Errorf("close Kafka Connect: %v", err)
		}
	})
	return c
}

// Python returns the directory of Confluent's Kafka client for Python; see PythonKafka.
func Python(t testing.TB) (pythonPath string) {
	t.Helper()
	dir, err := PythonKafka(t.Context())
	require(t, err)
	return dir
}

// Axe returns the path of axe.min.js for the test; see AxeFile.
func Axe(t testing.TB) string {
	t.Helper()
	file, err := AxeFile(t.Context())
	require(t, err)
	return file
}

// Chromium returns the path of a Chromium or Chrome for the test; see ChromiumFile.
func Chromium(t testing.TB) string {
	t.Helper()
	file, err := ChromiumFile()
	require(t, err)
	return file
}

// require ends the test unless err is nil: a missing part skips it, except in CI, where it fails as any other error.
func require(t testing.TB, err error) {
	t.Helper()
	var missing *MissingError
	switch {
	case err == nil:
	case errors.As(err, &missing) && os.Getenv("CI") == "":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// need looks for the programs that a part cannot do without.
func need(part, install string, programs ...string) error {
	var absent []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			absent = append(absent, p)
		}
	}
	if absent == nil {
		return nil
	}
	return &MissingError{Part: part, Install: install, Err: fmt.Errorf("not found in PATH: %s", strings.Join(absent, ", "))}
}
