-- +goose Up

-- What sandboxes have sent and got by the network, while they last.
CREATE TABLE egress_used (
  sandbox_id TEXT PRIMARY KEY,
  bytes      INTEGER NOT NULL            -- written ahead: no fewer than were used
) WITHOUT ROWID;

-- +goose Down
DROP TABLE egress_used;
