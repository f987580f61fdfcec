-- +goose Up

-- What sandboxes have sent and got by the network, while they last.
CREATE TABLE egress_used (
  sandbox_id TEXT COLLATE "C" PRIMARY KEY,
  bytes      BIGINT NOT NULL             -- written ahead: no fewer than were used
);

-- +goose Down
DROP TABLE egress_used;
