-- +goose Up

-- What a rewind forward left out of a live cursor: everything below end_offset that
-- was open then. The owner of the partition makes dead letters of it, and of the
-- parked records that bear its id as their replay_id.
CREATE TABLE skips (
    id             uuid        PRIMARY KEY,
    destination_id uuid        NOT NULL REFERENCES destinations (id) ON DELETE CASCADE,
    topic          text        NOT NULL,
    partition      integer     NOT NULL,
    epoch          bigint      NOT NULL, -- of the cursor before the rewind
    position       bigint      NOT NULL, -- everything below is finished
    finished       bytea       NOT NULL, -- finished ranges beyond position, as in cursors
    end_offset     bigint      NOT NULL, -- where the rewind went, exclusive
    topic_id       uuid,                 -- as in cursors
    event_types    text[]      NOT NULL, -- what the destination subscribed to
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (destination_id, topic, partition, epoch)
);
CREATE INDEX skips_partition_idx ON skips (partition);

-- +goose Down
DROP TABLE skips;
