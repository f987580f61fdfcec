package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// blobChunk is how many bytes of a file stand in one row. Few enough to be
// held in memory for each reader, and enough that a round trip for each does
// not count. It never changes: what is kept has it.
const blobChunk = 1 << 20

// PutBlob keeps bytes under their SHA-256 and returns once they are kept,
// without reading them if they already are. The caller has to name them in a
// session's files within Options.BlobsFor. Postgres only.
func (s *Store) PutBlob(ctx context.Context, hash string, size int64, from io.ReadSeeker) error {
	err := s.retry(ctx, s.opts.RetryFor, func() {}, func(ctx context.Context) error {
		there, err := s.renewBlob(ctx, hash, size)
		if err != nil || there {
			return err
		}
		if _, err := from.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return s.putBlob(ctx, hash, size, from)
	})
	return explainWrite(err)
}

// renewBlob reports whether the bytes are there, and lets nobody sweep them
// for a while.
func (s *Store) renewBlob(ctx context.Context, hash string, size int64) (bool, error) {
	res, err := execIn(ctx, s.bytes, `UPDATE blobs SET kept_at=now() WHERE hash=$1 AND size=$2`, []byte(hash), size)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

func (s *Store) putBlob(ctx context.Context, hash string, size int64, from io.Reader) error {
	btx, err := s.bytes.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = btx.Rollback() }() // after Commit it does nothing
	// Who comes with the same bytes at the same time waits here for the other.
	res, err := btx.ExecContext(ctx, `INSERT INTO blobs (hash, size, kept_at) VALUES ($1, $2, now()) ON CONFLICT (hash) DO NOTHING`, []byte(hash), size)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		return errBlobThere
	}
	sum := sha256.New()
	buf := make([]byte, min(blobChunk, size))
	for n, at := int64(0), int64(0); at < size; n++ {
		part := buf[:min(int64(len(buf)), size-at)]
		if _, err := io.ReadFull(from, part); err != nil {
			return errdefs.New(errdefs.ErrUnavailable, "file-damaged", "The bytes of a file can't be read.").WithHint("Try again.").WithCause(err)
		}
		sum.Write(part)
		if _, err := execIn(ctx, btx, `INSERT INTO blob_chunks (hash, n, data) VALUES ($1, $2, $3)`, []byte(hash), n, part); err != nil {
			return err
		}
		at += int64(len(part))
	}
	if string(sum.Sum(nil)) != hash {
		return errdefs.New(errdefs.ErrUnavailable, "file-damaged", "The bytes of a file changed while they were kept.").WithHint("Try again.")
	}
	return btx.Commit()
}

// execIn bounds the time of one statement: a file may take as long as it is
// large, but each part of it arrives or does not.
func execIn(ctx context.Context, db interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}, query string, args ...any,
) (sql.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return db.ExecContext(ctx, query, args...)
}

// errBlobThere says that somebody else has just kept the same bytes. It passes:
// the next try finds them.
var errBlobThere = fmt.Errorf("store: the bytes are there already: %w", driver.ErrBadConn)

// OpenBlob opens bytes by their SHA-256. The context is the reader's.
func (s *Store) OpenBlob(ctx context.Context, hash string) (*Blob, error) {
	b := &Blob{s: s, ctx: ctx, hash: hash, n: -1}
	err := s.one(ctx, `SELECT size FROM blobs WHERE hash=?`, []any{[]byte(hash)}, &b.size)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errBlobLost()
	}
	return b, err
}

func errBlobLost() error {
	return errdefs.New(errdefs.ErrUnavailable, "file-damaged", "the server has lost the bytes of this file").WithHint("the server's log has the reason")
}

// HasBlob reports whether bytes are kept.
func (s *Store) HasBlob(ctx context.Context, hash string) (bool, error) {
	var there bool
	err := s.one(ctx, `SELECT EXISTS (SELECT 1 FROM blobs WHERE hash=?)`, []any{[]byte(hash)}, &there)
	return there, err
}

// unused are the bytes that nobody has named although there was time to.
const unused = `kept_at < now() - CAST(? AS FLOAT8) * interval '1 microsecond'
	AND NOT EXISTS (SELECT 1 FROM files f WHERE f.hash=blobs.hash) AND NOT EXISTS (SELECT 1 FROM files_bin f WHERE f.hash=blobs.hash)`

// UnusedBlobs gives the hashes of bytes that nobody names.
func (s *Store) UnusedBlobs(ctx context.Context) ([]string, error) {
	return collect(ctx, s, func(scan func(...any) error) (string, error) {
		var hash []byte
		err := scan(&hash)
		return string(hash), err
	}, `SELECT hash FROM blobs WHERE `+unused, float64(s.opts.BlobsFor.Microseconds()))
}

// DeleteBlobs removes bytes, except those that somebody names or has just come
// with: one of another process, perhaps.
func (s *Store) DeleteBlobs(ctx context.Context, hashes []string) error {
	list := make([][]byte, len(hashes))
	for i, hash := range hashes {
		list[i] = []byte(hash)
	}
	query, args := s.d.bind(`DELETE FROM blobs WHERE hash = ANY (CAST(? AS BYTEA[])) AND `+unused, []any{list, float64(s.opts.BlobsFor.Microseconds())})
	return explainWrite(s.retry(ctx, readRetryFor, func() {}, func(ctx context.Context) error {
		_, err := execIn(ctx, s.bytes, query, args...)
		return err
	}))
}

// Blob reads bytes that are kept. It is used by one goroutine at a time.
type Blob struct {
	s    *Store
	ctx  context.Context //nolint:containedctx // readers have no place for one
	hash string
	size int64
	at   int64

	n    int64 // of data; -1: none
	data []byte
}

// Size gives the number of bytes.
func (b *Blob) Size() int64 { return b.size }

// Close ends the use of b.
func (b *Blob) Close() error {
	b.n, b.data = -1, nil
	return nil
}

func (b *Blob) Read(p []byte) (int, error) {
	n, err := b.read(p, b.at)
	b.at += int64(n)
	return n, err
}

// ReadAt reads from a place on.
func (b *Blob) ReadAt(p []byte, at int64) (n int, err error) {
	for n < len(p) {
		m, err := b.read(p[n:], at+int64(n))
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Seek sets the place of the next Read.
func (b *Blob) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.size
	}
	if offset < 0 {
		return 0, errors.New("store: a place before the beginning")
	}
	b.at = offset
	return offset, nil
}

func (b *Blob) read(p []byte, at int64) (int, error) {
	if at >= b.size {
		return 0, io.EOF
	}
	if n := at / blobChunk; n != b.n {
		var data []byte
		err := b.s.one(b.ctx, `SELECT data FROM blob_chunks WHERE hash=? AND n=?`, []any{[]byte(b.hash), n}, &data)
		if errors.Is(err, sql.ErrNoRows) || err == nil && int64(len(data)) != min(blobChunk, b.size-n*blobChunk) {
			return 0, errBlobLost()
		}
		if err != nil {
			return 0, err
		}
		b.n, b.data = n, data
	}
	return copy(p, b.data[at-b.n*blobChunk:]), nil
}
