-- +goose Up

-- A backfill: a second set of cursors of a destination, each with an end.
CREATE TABLE replays (
    id             uuid        PRIMARY KEY,
    destination_id uuid        NOT NULL REFERENCES destinations (id) ON DELETE CASCADE,
    status         text        NOT NULL CHECK (status IN ('running', 'paused', 'finished', 'cancelled')),
    from_place     text        NOT NULL, -- as it was asked for
    to_place       text        NOT NULL,
    types          text[]      NOT NULL DEFAULT '{}', -- empty: all that the destination subscribes to
    keys           text[]      NOT NULL DEFAULT '{}', -- empty: all
    rate           double precision NOT NULL DEFAULT 0, -- records a second, 0: no limit of its own
    records        bigint      NOT NULL DEFAULT 0, -- by the preview
    offsets_total  bigint      NOT NULL,
    offsets_done   bigint      NOT NULL DEFAULT 0, -- when it ended; before that the cursors say
    active_seconds double precision NOT NULL DEFAULT 0, -- up to active_since
    active_since   timestamptz, -- NULL while it does not run
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    ended_at       timestamptz
);
CREATE INDEX replays_destination_idx ON replays (destination_id, created_at);
CREATE INDEX replays_running_idx ON replays (id) WHERE status = 'running';

ALTER TABLE cursors ADD COLUMN start_offset bigint; -- where a backfill began
CREATE INDEX cursors_replay_idx ON cursors (replay_id) WHERE end_offset IS NOT NULL;

-- +goose Down
DROP INDEX cursors_replay_idx;
ALTER TABLE cursors DROP COLUMN start_offset;
DROP TABLE replays;
