-- +goose Up

-- One row for what a person comes back to. Columns are what lists and searches
-- need; body is the rest as JSON.
CREATE TABLE sessions (
  id         TEXT PRIMARY KEY,
  client_id  TEXT UNIQUE,                -- name its client gave it; NULL: none
  title      TEXT NOT NULL,
  pinned     INTEGER NOT NULL,
  created_at INTEGER NOT NULL,           -- these are microseconds since 1970, UTC
  updated_at INTEGER NOT NULL,
  deleted_at INTEGER,
  last_seq   INTEGER NOT NULL,           -- number of its last event
  pruned_seq INTEGER NOT NULL,           -- events up to this number are gone
  open       INTEGER NOT NULL,           -- 1: something runs, so a restart must look at it
  view       BLOB NOT NULL,              -- v1.Session
  state      BLOB NOT NULL               -- what only the session package reads
) WITHOUT ROWID;
CREATE INDEX sessions_listed ON sessions (pinned DESC, updated_at DESC, id) WHERE deleted_at IS NULL;
CREATE INDEX sessions_open ON sessions (open) WHERE open = 1;

-- The tree of items. n is also the row of the item in search.
CREATE TABLE items (
  n          INTEGER PRIMARY KEY,
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  id         TEXT NOT NULL,
  seq        INTEGER NOT NULL,           -- events up to this number are in body and outputs
  tree       BLOB NOT NULL,              -- place in the tree, as the session package keeps it
  body       BLOB NOT NULL,              -- v1.Item without outputs
  outputs    BLOB,                       -- all of them; NULL: none
  short      BLOB,                       -- with long values cut; NULL: outputs has no long value
  UNIQUE (session_id, id)
);

CREATE TABLE events (
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  seq        INTEGER NOT NULL,
  type       TEXT NOT NULL,
  line       BLOB NOT NULL,              -- the event as readers get it
  PRIMARY KEY (session_id, seq)
) WITHOUT ROWID;

-- Runs that have not ended, and how far the session's log has them.
CREATE TABLE executions (
  id         TEXT PRIMARY KEY,
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  item_id    TEXT NOT NULL,
  sandbox_id TEXT NOT NULL,
  seq        INTEGER NOT NULL            -- the execution's own number
) WITHOUT ROWID;
CREATE INDEX executions_session ON executions (session_id);

-- Text and code of items, by parts of words of three letters and more.
CREATE VIRTUAL TABLE search USING fts5 (text, tokenize = 'trigram', content = '', contentless_delete = 1);

-- +goose Down
DROP TABLE search;
DROP TABLE executions;
DROP TABLE events;
DROP TABLE items;
DROP TABLE sessions;
