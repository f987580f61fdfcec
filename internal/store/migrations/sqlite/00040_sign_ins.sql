-- +goose Up

-- Sign-ins that failed, and from where accounts were signed in.
CREATE TABLE sign_in_tries (
  key  TEXT PRIMARY KEY,                 -- a hash: what people type as an address may be a password
  n    INTEGER NOT NULL,                 -- failures
  last INTEGER NOT NULL                  -- of them, or of what succeeded; microseconds since 1970
) WITHOUT ROWID;
CREATE INDEX sign_in_tries_last ON sign_in_tries (last);

-- +goose Down
DROP TABLE sign_in_tries;
