-- +goose Up

-- The same tables as in SQLite.
-- Whose a session is. Empty: it was made where there was one user only.
ALTER TABLE sessions ADD COLUMN owner_user TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN owner_org TEXT NOT NULL DEFAULT '';
CREATE INDEX sessions_owned ON sessions (owner_org, owner_user, pinned DESC, updated_at DESC, id DESC) WHERE deleted_at IS NULL;

-- Times are microseconds since 1970, UTC; 0: never.
CREATE TABLE organisations (
  id         TEXT COLLATE "C" PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  created_at BIGINT NOT NULL
);

CREATE TABLE users (
  id           TEXT COLLATE "C" PRIMARY KEY,
  email        TEXT NOT NULL UNIQUE,     -- in lower case
  name         TEXT NOT NULL,
  password     TEXT NOT NULL,            -- argon2id in the usual form; empty: can't sign in with one
  operator     BOOLEAN NOT NULL,
  disabled_at  BIGINT NOT NULL,
  created_at   BIGINT NOT NULL,
  signed_in_at BIGINT NOT NULL
);

CREATE TABLE memberships (
  user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  org_id     TEXT COLLATE "C" NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  role       TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (user_id, org_id)
);
CREATE INDEX memberships_org ON memberships (org_id);

-- Who somebody is at a provider of sign-ins.
CREATE TABLE external_users (
  issuer  TEXT NOT NULL,
  subject TEXT NOT NULL,
  user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  PRIMARY KEY (issuer, subject)
);

CREATE TABLE api_keys (
  id           TEXT COLLATE "C" PRIMARY KEY,         -- is shown
  hash         BYTEA NOT NULL,            -- SHA-256 of the secret
  user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  org_id       TEXT COLLATE "C" NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  name         TEXT NOT NULL,
  scopes       TEXT NOT NULL,            -- with spaces between; empty: all
  created_at   BIGINT NOT NULL,
  expires_at   BIGINT NOT NULL,
  revoked_at   BIGINT NOT NULL,
  last_used_at BIGINT NOT NULL
);
CREATE INDEX api_keys_user ON api_keys (user_id);

-- Browsers that are signed in.
CREATE TABLE logins (
  id         TEXT COLLATE "C" PRIMARY KEY,
  hash       BYTEA NOT NULL UNIQUE,       -- SHA-256 of the cookie
  user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  org_id     TEXT COLLATE "C" NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  created_at BIGINT NOT NULL,
  seen_at    BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  address    TEXT NOT NULL,
  agent      TEXT NOT NULL
);
CREATE INDEX logins_user ON logins (user_id);

-- Links that set a password once.
CREATE TABLE login_links (
  hash       BYTEA PRIMARY KEY,           -- SHA-256 of the secret
  user_id    TEXT NOT NULL,              -- empty: whoever has it becomes the first operator
  expires_at BIGINT NOT NULL
);

-- Who did what. No references: it outlives what it tells of.
CREATE TABLE audit (
  n       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at      BIGINT NOT NULL,
  user_id TEXT NOT NULL,
  org_id  TEXT NOT NULL,
  name    TEXT NOT NULL,
  via     TEXT NOT NULL,                 -- the key or the sign-in
  action  TEXT NOT NULL,
  object  TEXT NOT NULL,
  status  BIGINT NOT NULL,
  code    TEXT NOT NULL,                 -- why it was refused
  address TEXT NOT NULL,
  request TEXT NOT NULL
);
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_org ON audit (org_id, n);

-- +goose Down
DROP TABLE audit;
DROP TABLE login_links;
DROP TABLE logins;
DROP TABLE api_keys;
DROP TABLE external_users;
DROP TABLE memberships;
DROP TABLE users;
DROP TABLE organisations;
DROP INDEX sessions_owned;
ALTER TABLE sessions DROP COLUMN owner_org;
ALTER TABLE sessions DROP COLUMN owner_user;
