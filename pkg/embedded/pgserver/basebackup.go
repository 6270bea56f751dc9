package pgserver

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const backupStep = "copy the primary"

// baseBackup copies a running cluster into dir over the replication protocol: what pg_basebackup does, which the
// binaries lack. Since PostgreSQL 15 it is one CopyOut, whose messages begin with n (new archive), d (data), m (manifest)
// or p (progress). WAL true puts the needed WAL inside, so that no second connection is needed.
func baseBackup(ctx context.Context, primary, dir string, progress Progress) (err error) {
	conn, err := pgconn.Connect(ctx, primary+"&replication=true")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	conn.Frontend().SendQuery(&pgproto3.Query{
		String: "BASE_BACKUP (LABEL 'millrace', CHECKPOINT 'fast', WAL true, MANIFEST 'no', PROGRESS true)",
	})
	if err := conn.Frontend().Flush(); err != nil {
		return err
	}
	b := &backup{dir: dir, progress: progress}
	defer func() { err = errors.Join(err, b.finish(err)) }()
	for {
		msg, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch m := msg.(type) {
		case *pgproto3.DataRow:
			b.sizes(m)
		case *pgproto3.CopyData:
			if err := b.copyData(m.Data); err != nil {
				return err
			}
		case *pgproto3.CopyDone:
			if err := b.finish(nil); err != nil {
				return err
			}
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			progress.report(backupStep, b.done, b.done)
			return nil
		}
	}
}

// backup is the receiving end of one BASE_BACKUP.
type backup struct {
	dir         string
	progress    Progress
	done, total int64
	told        int64

	pipe     *io.PipeWriter // nil outside an archive
	unpacked chan error
}

// sizes takes the row of the cluster itself from the list of tablespaces, whose third column is a size in KiB.
func (b *backup) sizes(m *pgproto3.DataRow) {
	if len(m.Values) == 3 {
		if kib, err := strconv.ParseInt(string(m.Values[2]), 10, 64); err == nil {
			b.total += kib << 10
		}
	}
}

func (b *backup) copyData(data []byte) error {
	if len(data) == 0 {
		return errors.New("base backup: empty message")
	}
	switch data[0] {
	case 'n':
		return b.begin(data[1:])
	case 'd':
		if b.pipe == nil {
			return errors.New("base backup: data outside an archive")
		}
		n, err := b.pipe.Write(data[1:])
		b.done += int64(n)
		if b.done-b.told > max(1<<20, b.total/100) {
			b.told = b.done
			b.progress.report(backupStep, b.done, max(b.total, b.done)) // the estimate leaves out the WAL
		}
		return err
	}
	return nil // the server's own progress, which we count ourselves
}

// begin starts to unpack an archive, named by a zero-terminated string. The goroutine ends with the pipe.
func (b *backup) begin(header []byte) error {
	if err := b.finish(nil); err != nil {
		return err
	}
	name, _, _ := bytes.Cut(header, []byte{0})
	if string(name) != "base.tar" {
		return fmt.Errorf("base backup: the primary has a tablespace of its own (%s), which cannot be copied", name)
	}
	r, w := io.Pipe()
	b.pipe, b.unpacked = w, make(chan error, 1)
	go func() {
		err := untar(tar.NewReader(r), b.dir)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // the padding behind the archive's end
		}
		r.CloseWithError(err)
		b.unpacked <- err
	}()
	return nil
}

// finish ends the archive, if one is open, and says whether all of it was unpacked. With a cause it is cut off.
func (b *backup) finish(cause error) error {
	if b.pipe == nil {
		return nil
	}
	_ = b.pipe.CloseWithError(cause) // never fails; nil is the end of the file
	b.pipe = nil
	err := <-b.unpacked
	if cause != nil {
		return nil
	}
	return err
}
