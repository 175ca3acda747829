-- +goose Up

-- What settings had made at a start. A row stays when its destination is deleted,
-- so that it is not made again.
CREATE TABLE seeds (
    name           text        PRIMARY KEY,
    destination_id uuid,                    -- NULL: there was one of its kind already
    settings       jsonb       NOT NULL,    -- name of a setting → hash of the value that was given to it
    seeded_at      timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE seeds;
