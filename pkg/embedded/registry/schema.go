package registry

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/twmb/avro"
)

// schema is one registered schema; it is immutable.
type schema struct {
	id     int
	text   string       // as registered, without insignificant white space
	key    string       // identity, see the package comment
	parsed *avro.Schema // without logical types
}

// parseSchema checks a text and computes its identity. The id is left 0.
func parseSchema(text string) (*schema, error) {
	if _, err := avro.Parse(text); err != nil {
		return nil, err
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("parse JSON: %w", err)
	}
	key, err := encode(plain(v))
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(text)); err != nil {
		return nil, fmt.Errorf("compact JSON: %w", err)
	}
	bare, err := encode(physical(v))
	if err != nil {
		return nil, err
	}
	parsed, err := avro.Parse(bare)
	if err != nil {
		return nil, err
	}
	return &schema{text: compact.String(), key: key, parsed: parsed}, nil
}

// physical takes the logical types away: Confluent's check of compatibility does not look at them, so that a decimal of
// more digits can follow.
func physical(v any) any {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "logicalType")
		for k, e := range v {
			if k != "default" {
				v[k] = physical(e)
			}
		}
	case []any:
		for i := range v {
			v[i] = physical(v[i])
		}
	}
	return v
}

// plain writes {"type":"string"} as "string", everywhere a schema can stand.
// Elsewhere, in a default for instance, both sides of a comparison are rewritten
// alike and a field's default of that very shape is no valid record but a map.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if k != "default" {
				v[k] = plain(e)
			}
		}
		if s, ok := v["type"].(string); ok && len(v) == 1 {
			return s
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	}
	return v
}

// encode writes JSON with sorted keys.
func encode(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}
