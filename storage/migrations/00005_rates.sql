-- +goose Up

-- Up to when the requests of a destination with a rate limit are leased.
CREATE TABLE rate_leases (
    destination_id uuid             PRIMARY KEY REFERENCES destinations (id) ON DELETE CASCADE,
    rate           double precision NOT NULL,
    free_at        timestamptz      NOT NULL
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE rate_leases;
