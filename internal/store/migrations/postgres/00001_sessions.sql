-- +goose Up

-- The same tables as in SQLite; ../sqlite has what the columns mean. Ids are
-- compared by their bytes, whatever the locale of the database. Rows of
-- sessions change with each batch of events: the free part of a page lets the
-- new version stand beside the old one, without a new entry in any index.
CREATE TABLE sessions (
  id         TEXT COLLATE "C" PRIMARY KEY,
  client_id  TEXT COLLATE "C" UNIQUE,
  title      TEXT NOT NULL,
  pinned     BOOLEAN NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  deleted_at BIGINT,
  last_seq   BIGINT NOT NULL,
  pruned_seq BIGINT NOT NULL,
  open       BOOLEAN NOT NULL,
  view       BYTEA NOT NULL,
  state      BYTEA NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX sessions_listed ON sessions (pinned DESC, updated_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX sessions_open ON sessions (id) WHERE open;

CREATE TABLE items (
  n          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  id         TEXT COLLATE "C" NOT NULL,
  seq        BIGINT NOT NULL,
  tree       BYTEA NOT NULL,
  body       BYTEA NOT NULL,
  outputs    BYTEA,
  short      BYTEA,
  UNIQUE (session_id, id)
) WITH (fillfactor = 90);

CREATE TABLE events (
  session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  seq        BIGINT NOT NULL,
  type       TEXT COLLATE "C" NOT NULL,
  line       BYTEA NOT NULL,
  PRIMARY KEY (session_id, seq)
);

CREATE TABLE executions (
  id         TEXT COLLATE "C" PRIMARY KEY,
  session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  item_id    TEXT COLLATE "C" NOT NULL,
  sandbox_id TEXT COLLATE "C" NOT NULL,
  seq        BIGINT NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX executions_session ON executions (session_id);

-- Text and code of items. If the server has the extension pg_trgm, an index is
-- made after the migrations; else every row is looked at.
CREATE TABLE search (
  n    BIGINT PRIMARY KEY REFERENCES items (n) ON DELETE CASCADE,
  text TEXT NOT NULL
);

CREATE TABLE files (
  session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  path       BYTEA NOT NULL,
  type       TEXT NOT NULL,
  mode       BIGINT NOT NULL,
  mtime      BIGINT NOT NULL,
  size       BIGINT NOT NULL,
  hash       BYTEA,
  target     BYTEA,
  lost       TEXT NOT NULL
);
-- A path may have 4,096 bytes, and an entry of an index has room for 2,704.
CREATE UNIQUE INDEX files_path ON files (session_id, sha256(path));
CREATE INDEX files_hash ON files (hash) WHERE hash IS NOT NULL;

CREATE TABLE files_bin (
  session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  deleted_at BIGINT NOT NULL,
  path       BYTEA NOT NULL,
  type       TEXT NOT NULL,
  mode       BIGINT NOT NULL,
  mtime      BIGINT NOT NULL,
  size       BIGINT NOT NULL,
  hash       BYTEA,
  target     BYTEA,
  lost       TEXT NOT NULL
);
CREATE UNIQUE INDEX files_bin_path ON files_bin (session_id, deleted_at, sha256(path));
CREATE INDEX files_bin_hash ON files_bin (hash) WHERE hash IS NOT NULL;
CREATE INDEX files_bin_time ON files_bin (deleted_at);

CREATE TABLE files_sandbox (
  session_id TEXT COLLATE "C" PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
  sandbox_id TEXT COLLATE "C" NOT NULL,
  version    BIGINT NOT NULL               -- raised by each change of the session's files
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE files_sandbox;
DROP TABLE files_bin;
DROP TABLE files;
DROP TABLE search;
DROP TABLE executions;
DROP TABLE events;
DROP TABLE items;
DROP TABLE sessions;
