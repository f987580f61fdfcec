-- +goose Up

-- Servers that work on this database, and what each of them owns.
CREATE TABLE replicas (
  id      TEXT COLLATE "C" PRIMARY KEY,
  address TEXT NOT NULL,
  seen_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE owners (
  key     TEXT COLLATE "C" PRIMARY KEY,    -- a session, or a sandbox without one
  replica TEXT COLLATE "C" NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX owners_replica ON owners (replica);

-- One row for each process that writes batches, so that it learns after a lost
-- connection whether its last transaction was committed.
CREATE TABLE writers (
  id      TEXT COLLATE "C" PRIMARY KEY,
  last    BIGINT NOT NULL,                 -- attempts up to this number can't be committed any more
  kept    BIGINT NOT NULL,                 -- the last attempt that was
  seen_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);

-- caesarion_begin is the first thing in each transaction of a writer. It fails
-- if the attempt was given up meanwhile (CS002), or if one of the sessions is
-- not the replica's (CS001, with their ids as JSON in the detail). Nobody can
-- take them over until the transaction has ended.
-- +goose StatementBegin
CREATE FUNCTION caesarion_begin(writer TEXT, attempt BIGINT, owner TEXT, sessions TEXT[]) RETURNS VOID
LANGUAGE plpgsql AS $$
DECLARE
  moved JSON;
BEGIN
  UPDATE writers w SET last = attempt, kept = attempt, seen_at = now() WHERE w.id = writer AND w.last < attempt;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'attempt % of writer % was given up', attempt, writer USING ERRCODE = 'CS002';
  END IF;
  IF owner <> '' THEN
    WITH mine AS MATERIALIZED (
      SELECT o.key FROM owners o WHERE o.key = ANY (sessions) AND o.replica = owner FOR SHARE
    )
    SELECT json_agg(s.id) INTO moved FROM unnest(sessions) AS s (id) WHERE s.id NOT IN (SELECT mine.key FROM mine);
    IF moved IS NOT NULL THEN
      RAISE EXCEPTION 'sessions are not owned by %', owner USING ERRCODE = 'CS001', DETAIL = moved::TEXT;
    END IF;
  END IF;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION caesarion_begin(TEXT, BIGINT, TEXT, TEXT[]);
DROP TABLE writers;
DROP TABLE owners;
DROP TABLE replicas;
