-- +goose Up

-- What users and organisations have used, in windows of time.
CREATE TABLE limit_counters (
  subject   TEXT NOT NULL,               -- user/ORGANISATION/USER or org/ORGANISATION
  name      TEXT NOT NULL,               -- of the limit
  starts_at BIGINT NOT NULL,             -- of the window, seconds since 1970
  ends_at   BIGINT NOT NULL,
  used      BIGINT NOT NULL,             -- with what servers have set aside for themselves
  PRIMARY KEY (subject, name, starts_at)
) WITH (fillfactor = 50);
CREATE INDEX limit_counters_ends ON limit_counters (ends_at);

-- +goose Down
DROP TABLE limit_counters;
