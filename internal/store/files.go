package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// File is one file, folder or link of a session.
type File struct {
	Path   string // absolute; any bytes
	Type   string // file, directory, symlink
	Mode   uint32 // permission bits
	Mtime  int64  // nanoseconds since 1970
	Size   int64
	Hash   string // the 32 bytes of SHA-256; empty: not a file, or not kept
	Target string // of a symlink
	Lost   string // why it is not kept; empty: it is
}

// FileChanges is a change of a session's files that happens whole or not at all.
type FileChanges struct {
	Put     []File
	Delete  []string // paths
	Bin     []File   // goes to the bin, besides what Delete does
	BinTime time.Time
	Unbin   []string // paths that come out of the bin of UnbinAt
	UnbinAt time.Time
	Sandbox string // has the files from now on; empty: as before
}

const fileColumns = `path, type, mode, mtime, size, hash, target, lost`

func scanFile(scan func(...any) error) (File, error) {
	var f File
	var path, hash, target []byte
	err := scan(&path, &f.Type, &f.Mode, &f.Mtime, &f.Size, &hash, &target, &f.Lost)
	f.Path, f.Hash, f.Target = string(path), string(hash), string(target)
	return f, err
}

func (f *File) values() []any {
	bytesOrNull := func(s string) any {
		if s == "" {
			return nil
		}
		return []byte(s)
	}
	return []any{[]byte(f.Path), f.Type, f.Mode, f.Mtime, f.Size, bytesOrNull(f.Hash), bytesOrNull(f.Target), f.Lost}
}

// Files reads all files of a session, and the sandbox that has them; "" if
// none ever had.
func (s *Store) Files(ctx context.Context, session string) (files []File, sandbox string, err error) {
	files, err = collect(ctx, s, scanFile, `SELECT `+fileColumns+` FROM files WHERE session_id=?`, session)
	if err != nil {
		return nil, "", err
	}
	err = s.one(ctx, `SELECT sandbox_id FROM files_sandbox WHERE session_id=?`, []any{session}, &sandbox)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return files, sandbox, err
}

// FilesVersion gives a number that each change of a session's files raises by
// one, so that a process knows whether another has changed them. With SQLite
// there is no other, and it is always 0.
func (s *Store) FilesVersion(ctx context.Context, session string) (version int64, err error) {
	if !s.d.postgres {
		return 0, nil
	}
	err = s.one(ctx, `SELECT version FROM files_sandbox WHERE session_id=?`, []any{session}, &version)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return version, err
}

// ChangeFiles writes a change of a session's files.
func (s *Store) ChangeFiles(ctx context.Context, session string, c FileChanges) error {
	// Not given up with the context: the caller must know what became of it.
	return s.change(context.WithoutCancel(ctx), session, func(t *tx) { c.write(t, session) })
}

// fileUpdate is what an upsert changes of a file.
const fileUpdate = `DO UPDATE SET type=excluded.type, mode=excluded.mode, mtime=excluded.mtime, size=excluded.size, hash=excluded.hash, target=excluded.target, lost=excluded.lost`

func (c *FileChanges) write(t *tx, session string) {
	for _, path := range c.Delete {
		t.exec(`DELETE FROM files WHERE session_id=? AND `+t.d.pathIs, session, []byte(path))
	}
	for i := range c.Put {
		t.exec(`INSERT INTO files (session_id, `+fileColumns+`) VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (session_id, `+t.d.pathKey+`) `+fileUpdate,
			append([]any{session}, c.Put[i].values()...)...)
	}
	for i := range c.Bin {
		t.exec(`INSERT INTO files_bin (session_id, deleted_at, `+fileColumns+`) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (session_id, deleted_at, `+t.d.pathKey+`) `+fileUpdate,
			append([]any{session, micros(c.BinTime)}, c.Bin[i].values()...)...)
	}
	for _, path := range c.Unbin {
		t.exec(`DELETE FROM files_bin WHERE session_id=? AND deleted_at=? AND `+t.d.pathIs, session, micros(c.UnbinAt), []byte(path))
	}
	switch {
	case c.Sandbox != "":
		t.exec(t.d.setSandbox, session, c.Sandbox)
	case t.d.raiseFiles != "":
		t.exec(t.d.raiseFiles, session)
	}
}

// BinnedFiles reads what was deleted last of a path and what is below it; the
// time is zero if there is nothing.
func (s *Store) BinnedFiles(ctx context.Context, session, path string) ([]File, time.Time, error) {
	// 0 is the character behind "/": all that begins with path and a slash lies between.
	const within = `session_id=? AND (path=? OR (path > ? AND path < ?))`
	args := []any{session, []byte(path), []byte(path + "/"), []byte(path + "0")}
	var at sql.NullInt64
	err := s.one(ctx, `SELECT max(deleted_at) FROM files_bin WHERE `+within, args, &at)
	if err != nil || !at.Valid {
		return nil, time.Time{}, err
	}
	files, err := collect(ctx, s, scanFile, `SELECT `+fileColumns+` FROM files_bin WHERE `+within+` AND deleted_at=?`, append(args, at.Int64)...)
	return files, time.UnixMicro(at.Int64).UTC(), err
}

// BinnedBytes counts the bytes of a session's bin.
func (s *Store) BinnedBytes(ctx context.Context, session string) (int64, error) {
	var n int64
	err := s.one(ctx, `SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM files_bin WHERE session_id=? AND hash IS NOT NULL`, []any{session}, &n)
	return n, err
}

// EmptyFileBin forgets what was deleted before t, of all sessions.
func (s *Store) EmptyFileBin(ctx context.Context, t time.Time) error {
	return s.change(ctx, "", func(tx *tx) { tx.exec(`DELETE FROM files_bin WHERE deleted_at < ?`, micros(t)) })
}

// CopyFiles gives a session the files of another, in no sandbox.
func (s *Store) CopyFiles(ctx context.Context, from, to string) error {
	return s.change(ctx, to, func(t *tx) {
		t.exec(`INSERT INTO files (session_id, `+fileColumns+`) SELECT CAST(? AS TEXT), `+fileColumns+` FROM files WHERE session_id=? ON CONFLICT (session_id, `+t.d.pathKey+`) `+fileUpdate, to, from)
		if t.d.raiseFiles != "" {
			t.exec(t.d.raiseFiles, to)
		}
	})
}

// ForgetFiles removes the files of a session, and its bin.
func (s *Store) ForgetFiles(ctx context.Context, session string) error {
	return s.change(ctx, "", func(t *tx) {
		for _, q := range []string{`DELETE FROM files WHERE session_id=?`, `DELETE FROM files_bin WHERE session_id=?`, `DELETE FROM files_sandbox WHERE session_id=?`} {
			t.exec(q, session)
		}
	})
}

// FileHashUsed reports whether any session still has the bytes with this hash,
// in its files or in its bin.
func (s *Store) FileHashUsed(ctx context.Context, hash string) (bool, error) {
	var used bool
	err := s.one(ctx, `SELECT EXISTS (SELECT 1 FROM files WHERE hash=?) OR EXISTS (SELECT 1 FROM files_bin WHERE hash=?)`, []any{[]byte(hash), []byte(hash)}, &used)
	return used, err
}
