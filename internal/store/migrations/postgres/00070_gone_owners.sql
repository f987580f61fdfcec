-- +goose Up

-- Whose a sandbox was that is gone: nobody else learns of it. What servers of
-- before write has no owner, and is an operator's.
ALTER TABLE gone ADD COLUMN owner_user TEXT NOT NULL DEFAULT '';
ALTER TABLE gone ADD COLUMN owner_org TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE gone DROP COLUMN owner_org;
ALTER TABLE gone DROP COLUMN owner_user;
