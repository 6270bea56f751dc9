package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// baseBackup copies a running cluster into dir over the replication protocol. Since PostgreSQL 15 the server sends one
// CopyOut whose messages begin with n (new archive), d (data), m (manifest) or p (progress); WAL true puts the
// needed WAL inside.
func baseBackup(ctx context.Context, conninfo, dir string) error {
	conn, err := pgconn.Connect(ctx, conninfo+" replication=true")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	conn.Frontend().SendQuery(&pgproto3.Query{String: "BASE_BACKUP (LABEL 'standby', CHECKPOINT 'fast', WAL true, MANIFEST 'no')"})
	if err := conn.Frontend().Flush(); err != nil {
		return err
	}
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := untar(r, dir)
		r.CloseWithError(err)
		unpacked <- err
	}()
	err = receive(ctx, conn, w)
	w.CloseWithError(err) // nil is the end of the archive
	return errors.Join(err, <-unpacked)
}

// receive writes the one archive of a cluster without tablespaces to w.
func receive(ctx context.Context, conn *pgconn.PgConn, w io.Writer) error {
	archives := 0
	for {
		msg, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch m := msg.(type) {
		case *pgproto3.CopyData:
			switch m.Data[0] {
			case 'n':
				if archives++; archives > 1 {
					name, _, _ := bytes.Cut(m.Data[1:], []byte{0})
					return fmt.Errorf("tablespace archive %s: not supported", name)
				}
			case 'd':
				if _, err := w.Write(m.Data[1:]); err != nil {
					return err
				}
			}
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			return nil
		}
	}
}

// untar unpacks an archive below dir and reads it to its end, padding included.
func untar(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if err := untarEntry(root, h, t); err != nil {
			return err
		}
	}
}

func untarEntry(root *os.Root, h *tar.Header, content io.Reader) error {
	name, mode := filepath.Clean(h.Name), h.FileInfo().Mode().Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, mode|0o700)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	default:
		return fmt.Errorf("%s: unexpected kind of file in a backup", name)
	}
}
