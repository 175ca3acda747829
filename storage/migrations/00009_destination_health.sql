-- +goose Up

-- How deliveries of a destination go in a process: its circuit, the attempts that
-- failed in a row, the last error. Written when it changed, every few seconds at
-- most. Of a process without leases only the last error counts.
CREATE TABLE destination_health (
    destination_id uuid        NOT NULL REFERENCES destinations (id) ON DELETE CASCADE,
    holder         text        NOT NULL, -- as in leases
    circuit_open   boolean     NOT NULL,
    probe_at       timestamptz,          -- of an open circuit: the next attempt
    failures       bigint      NOT NULL, -- attempts in a row
    last_error     text,
    last_error_at  timestamptz,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (destination_id, holder)
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE destination_health;
