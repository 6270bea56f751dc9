package mapping

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed shipped/*.yaml
var shipped embed.FS

// Names are the mappings that come with the program.
func Names() []string {
	entries, err := shipped.ReadDir("shipped")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return out
}

// Named is a mapping that comes with the program.
func Named(name string) (*Mapping, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("%q is none of the shipped mappings: %s; write your own into a file and set mapping_file", name, strings.Join(Names(), ", "))
	}
	data, err := shipped.ReadFile("shipped/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", name, err)
	}
	return Parse(data)
}

// File reads a mapping from a YAML file.
func File(path string) (*Mapping, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the mapping: %w", err)
	}
	m, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// Parse reads a mapping from YAML and validates it. Unknown keys are errors.
func Parse(data []byte) (*Mapping, error) {
	var m Mapping
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&m); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("not a mapping: %w", err)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return &m, nil
}
