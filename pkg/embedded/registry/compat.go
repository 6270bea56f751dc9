package registry

import (
	"fmt"
	"strings"

	"github.com/twmb/avro"
)

// level is a compatibility level by Confluent's name.
type level string

const (
	levelNone     level = "NONE"
	levelBackward level = "BACKWARD"
	levelForward  level = "FORWARD"
	levelFull     level = "FULL"

	transitive = "_TRANSITIVE"
)

func parseLevel(s string) (level, bool) {
	l := level(strings.ToUpper(s))
	switch l.base() {
	case levelBackward, levelForward, levelFull:
		return l, true
	case levelNone:
		return l, l == levelNone
	}
	return "", false
}

// base is the level without _TRANSITIVE.
func (l level) base() level { return level(strings.TrimSuffix(string(l), transitive)) }

func (l level) isTransitive() bool { return strings.HasSuffix(string(l), transitive) }

// check compares a candidate with earlier versions, oldest first, and returns
// what stands against it; nothing means compatible.
func (l level) check(candidate *schema, earlier []numbered) []string {
	if l == levelNone || len(earlier) == 0 {
		return nil
	}
	if !l.isTransitive() {
		earlier = earlier[len(earlier)-1:]
	}
	var messages []string
	for _, e := range earlier {
		if l.base() != levelForward {
			if err := avro.CheckCompatibility(e.schema.parsed, candidate.parsed); err != nil {
				messages = append(messages, fmt.Sprintf("the new schema cannot read data written with version %d: %v", e.version, err))
			}
		}
		if l.base() != levelBackward {
			if err := avro.CheckCompatibility(candidate.parsed, e.schema.parsed); err != nil {
				messages = append(messages, fmt.Sprintf("version %d cannot read data written with the new schema: %v", e.version, err))
			}
		}
	}
	return messages
}

// numbered is a schema as a version of some subject.
type numbered struct {
	version int
	schema  *schema
}
