package standalone

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// scarce is how little free space explains a failure: PostgreSQL asks for its log in pieces of 16 MiB.
const scarce = 48 << 20

// fullDisk adds what to do to an error whose cause is that the disk of the data directory is full. A server that cannot
// write its log ends, and then its clients see no more than a broken connection; so the disk itself is asked.
func fullDisk(err error, dir string) error {
	const sqlstate = "53100"
	var pg *pgconn.PgError
	if errors.Is(err, syscall.ENOSPC) || errors.As(err, &pg) && pg.Code == sqlstate || hasLittleSpace(dir) {
		return fmt.Errorf("%w: the disk that holds %s is full; free some space, or choose a directory on another disk with --data-dir", err, dir)
	}
	return err
}

func hasLittleSpace(dir string) bool {
	var disk syscall.Statfs_t
	if syscall.Statfs(dir, &disk) != nil {
		return false
	}
	return uint64(disk.Bavail)*uint64(disk.Bsize) < scarce //nolint:unconvert // the types differ between systems
}
