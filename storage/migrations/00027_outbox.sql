-- +goose Up

-- How far records of topic outbox were looked at that no destination takes: each of a
-- destination that is not there, or that does not read the topic, is refused. A cursor on
-- the topic begins where this stands, so every record is either refused or some
-- destination's.
CREATE TABLE outbox_places (
    partition  integer     PRIMARY KEY,
    position   bigint      NOT NULL, -- everything below is some destination's, or was refused
    topic_id   uuid,                 -- as in cursors
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Records of topic outbox that their asker took back and that have not ended yet.
CREATE TABLE outbox_cancels (
    record_id    uuid        PRIMARY KEY,
    cancelled_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_cancels_cancelled_at_idx ON outbox_cancels (cancelled_at);

-- Of a record of topic outbox: when it is too late to send it, and who is told what came
-- of it, which outlives its value.
ALTER TABLE parked_records ADD COLUMN not_after timestamptz, ADD COLUMN ask bytea;
CREATE INDEX parked_records_not_after_idx ON parked_records (partition, not_after) WHERE not_after IS NOT NULL;
CREATE INDEX parked_records_asked_idx ON parked_records (record_id) WHERE not_after IS NOT NULL;
CREATE INDEX parked_records_asked_of_idx ON parked_records (record_key) WHERE not_after IS NOT NULL;

-- What a destination leaves open on topic outbox when it is deleted, or ceases to read it:
-- of that there are receipts with this reason instead of dead letters. It outlives the
-- destination, with what was parked of it.
ALTER TABLE skips ADD COLUMN refused text, ADD COLUMN destination text; -- its name
ALTER TABLE skips DROP CONSTRAINT skips_destination_id_fkey;
ALTER TABLE parked_records DROP CONSTRAINT parked_records_destination_id_fkey;

-- +goose Down
DELETE FROM skips k WHERE NOT EXISTS (SELECT FROM destinations d WHERE d.id = k.destination_id);
DELETE FROM parked_records r WHERE NOT EXISTS (SELECT FROM destinations d WHERE d.id = r.destination_id);
ALTER TABLE skips ADD FOREIGN KEY (destination_id) REFERENCES destinations (id) ON DELETE CASCADE, DROP COLUMN refused, DROP COLUMN destination;
ALTER TABLE parked_records ADD FOREIGN KEY (destination_id) REFERENCES destinations (id) ON DELETE CASCADE, DROP COLUMN not_after, DROP COLUMN ask;
DROP TABLE outbox_cancels, outbox_places;
