-- +goose Up

-- What a session's files were when they were last looked at. The names come
-- from sandboxes and may be any bytes; the bytes of files are elsewhere, by
-- their hash.
CREATE TABLE files (
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  path       BLOB NOT NULL,              -- absolute
  type       TEXT NOT NULL,              -- file, directory, symlink
  mode       INTEGER NOT NULL,           -- permission bits
  mtime      INTEGER NOT NULL,           -- nanoseconds since 1970
  size       INTEGER NOT NULL,
  hash       BLOB,                       -- SHA-256; NULL: not a file, or not kept
  target     BLOB,                       -- of symlinks
  lost       TEXT NOT NULL,              -- why it is not kept; empty: it is
  PRIMARY KEY (session_id, path)
) WITHOUT ROWID;
CREATE INDEX files_hash ON files (hash) WHERE hash IS NOT NULL;

-- Deleted by a person, who may want it back.
CREATE TABLE files_bin (
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  deleted_at INTEGER NOT NULL,           -- microseconds since 1970, UTC; what was deleted together has the same
  path       BLOB NOT NULL,
  type       TEXT NOT NULL,
  mode       INTEGER NOT NULL,
  mtime      INTEGER NOT NULL,
  size       INTEGER NOT NULL,
  hash       BLOB,
  target     BLOB,
  lost       TEXT NOT NULL,
  PRIMARY KEY (session_id, deleted_at, path)
) WITHOUT ROWID;
CREATE INDEX files_bin_hash ON files_bin (hash) WHERE hash IS NOT NULL;
CREATE INDEX files_bin_time ON files_bin (deleted_at);

-- The sandbox that has a session's files. In any other they are missing, and
-- not deleted.
CREATE TABLE files_sandbox (
  session_id TEXT PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
  sandbox_id TEXT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE files_sandbox;
DROP TABLE files_bin;
DROP TABLE files;
