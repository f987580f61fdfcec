-- +goose Up

-- Sign-ins that failed, and from where accounts were signed in.
CREATE TABLE sign_in_tries (
  key  TEXT COLLATE "C" PRIMARY KEY,     -- a hash: what people type as an address may be a password
  n    BIGINT NOT NULL,                  -- failures
  last BIGINT NOT NULL                   -- of them, or of what succeeded; microseconds since 1970
);
CREATE INDEX sign_in_tries_last ON sign_in_tries (last);

-- +goose Down
DROP TABLE sign_in_tries;
