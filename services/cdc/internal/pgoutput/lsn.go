package pgoutput

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the source's write-ahead log, in bytes.
type LSN uint64

// String is PostgreSQL's form, such as "0/16B3748".
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads PostgreSQL's form.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return 0, errors.New("not a log position: no slash")
	}
	h, err := strconv.ParseUint(high, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("not a log position: %w", err)
	}
	l, err := strconv.ParseUint(low, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("not a log position: %w", err)
	}
	return LSN(h<<32 | l), nil
}
