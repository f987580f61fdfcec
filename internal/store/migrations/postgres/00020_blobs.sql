-- +goose Up

-- The bytes of sessions' files, by their SHA-256, in parts of 1 MiB.
CREATE TABLE blobs (
  hash     BYTEA PRIMARY KEY,
  size     BIGINT NOT NULL,
  kept_at  TIMESTAMPTZ NOT NULL            -- somebody came with these bytes, and is about to name them in files
);

CREATE TABLE blob_chunks (
  hash BYTEA NOT NULL REFERENCES blobs (hash) ON DELETE CASCADE,
  n    BIGINT NOT NULL,
  data BYTEA NOT NULL,
  PRIMARY KEY (hash, n)
);
-- Files are compressed already or are not worth the time.
ALTER TABLE blob_chunks ALTER data SET STORAGE EXTERNAL;

-- +goose Down
DROP TABLE blob_chunks;
DROP TABLE blobs;
