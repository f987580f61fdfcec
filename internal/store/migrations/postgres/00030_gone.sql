-- +goose Up

-- Why a sandbox is gone, for servers that did not have it. Servers drop what is
-- older than a day.
CREATE TABLE gone (
  sandbox TEXT COLLATE "C" PRIMARY KEY,
  key     TEXT COLLATE "C" NOT NULL,       -- as in owners: its session, or itself
  reason  TEXT NOT NULL,
  at      TIMESTAMPTZ NOT NULL
);
CREATE INDEX gone_at ON gone (at);

-- +goose Down
DROP TABLE gone;
