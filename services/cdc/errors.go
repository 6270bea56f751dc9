package cdc

import (
	"errors"
	"fmt"
)

// ErrGap: the position in Kafka and the source do not fit together, so going on would lose changes.
var ErrGap = errors.New("capture would have a gap")

// gap says why, and what to do next.
func gap(format string, args ...any) error {
	return fmt.Errorf("%w: %s; nothing was written. To go on, run `cdc reset --yes` and start cdc again: it takes a new snapshot and "+
		"writes the differences, deletes included", ErrGap, fmt.Sprintf(format, args...))
}
