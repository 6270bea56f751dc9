package realparts

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// kafkaPython is what a Python program that reads Avro from Kafka installs.
const kafkaPython = "2.16.0"

// PythonKafka returns a directory with the Python packages of Confluent's Kafka client and its Avro deserializer, to be
// named in PYTHONPATH. The first call gets it with pip. The error is a *MissingError where Python or pip is missing or
// the packages cannot be had.
func PythonKafka(ctx context.Context) (string, error) {
	const part = "confluent-kafka " + kafkaPython
	if err := need(part, "Python 3 with pip (Debian: apt-get install python3-pip; macOS: brew install python)", "python3"); err != nil {
		return "", err
	}
	return cached(ctx, "confluent-kafka-"+kafkaPython, func(ctx context.Context, dir string) error {
		args := []string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--target", dir,
			"confluent-kafka[avro,schemaregistry]==" + kafkaPython, "fastavro==1.13.1"}
		if out, err := exec.CommandContext(ctx, "python3", args...).CombinedOutput(); err != nil {
			return &MissingError{Part: part, Install: "install pip (Debian: apt-get install python3-pip), let it reach an index (see its pip.conf), then run again",
				Err: fmt.Errorf("python3 %s: %w\n%s", strings.Join(args, " "), err, out)}
		}
		return nil
	})
}
