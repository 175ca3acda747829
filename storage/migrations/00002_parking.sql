-- +goose Up

-- Keys of a destination whose records wait here instead of in memory, because the
-- first of them fails while others succeed, or because there are too many.
CREATE TABLE parked_keys (
    destination_id  uuid        NOT NULL REFERENCES destinations (id) ON DELETE CASCADE,
    replay_id       uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000', -- zero: live
    partition       integer     NOT NULL,
    record_key      text        NOT NULL,
    reason          text        NOT NULL CHECK (reason IN ('failing', 'spilled')),
    attempts        integer     NOT NULL DEFAULT 0, -- of its first record
    failing_ms      bigint      NOT NULL DEFAULT 0, -- for how long, in the destination's open time
    first_failed_at timestamptz,
    next_attempt_at timestamptz NOT NULL,
    skip_before     timestamptz,                    -- what was parked until then is to be given up
    status          integer,                        -- of the last answer
    error           text,
    PRIMARY KEY (destination_id, replay_id, partition, record_key)
);
CREATE INDEX parked_keys_due_idx ON parked_keys (destination_id, replay_id, partition, next_attempt_at);

CREATE TABLE parked_records (
    destination_id uuid        NOT NULL REFERENCES destinations (id) ON DELETE CASCADE,
    replay_id      uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    partition      integer     NOT NULL,
    record_key     text        NOT NULL,
    topic          text        NOT NULL,
    "offset"       bigint      NOT NULL,
    append_time    timestamptz NOT NULL,
    record_id      text        NOT NULL,
    record_type    text        NOT NULL,
    occurred_at    timestamptz,
    trace_parent   text        NOT NULL,
    trace_state    text        NOT NULL,
    value          bytea,
    since_ms       bigint      NOT NULL,               -- how long its key had been failing by then
    parked_at      timestamptz NOT NULL DEFAULT now()
);
-- In the order of delivery: lifecycle before events, each by offset.
CREATE UNIQUE INDEX parked_records_order_idx
    ON parked_records (destination_id, replay_id, partition, record_key, topic DESC, "offset");

-- +goose Down
DROP TABLE parked_records, parked_keys;
