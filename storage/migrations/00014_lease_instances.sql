-- +goose Up

-- Which instance a holder is, as its locked data directory proves it; null when
-- nothing does. A restart takes back at once what its former process left.
ALTER TABLE leases ADD COLUMN instance_id text;

-- +goose Down
ALTER TABLE leases DROP COLUMN instance_id;
