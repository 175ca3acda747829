-- +goose Up

-- Processes that take requests, each start under an id of its own: while there is
-- more than one, they share the limits of the API.
CREATE TABLE ingest_instances (
    id      uuid        PRIMARY KEY,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- What is left of a limit of the API for all processes together: the bucket is
-- full again at full_at.
CREATE TABLE request_rates (
    bucket  text        PRIMARY KEY COLLATE "C",
    full_at timestamptz NOT NULL,
    granted integer     NOT NULL -- by the last lease
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE request_rates, ingest_instances;
