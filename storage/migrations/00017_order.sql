-- +goose Up

-- The order of a contact: the number of its latest record on topics events and lifecycle,
-- 0 before the first that is numbered, and the era that numbers count in.
ALTER TABLE contacts ADD COLUMN seq bigint NOT NULL DEFAULT 0, ADD COLUMN era bigint NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN seq bigint NOT NULL DEFAULT 0, ADD COLUMN era bigint NOT NULL DEFAULT 0;

-- Where the records of a contact stand, so that it can be gone through one partition at a
-- time; NULL of rows from before, until they are filled.
ALTER TABLE contacts ADD COLUMN partition integer;
ALTER TABLE contact_marks ADD COLUMN partition integer;
CREATE INDEX contacts_partition_idx ON contacts (partition, id);
CREATE INDEX contact_marks_partition_idx ON contact_marks (partition, contact_id);

-- Eras that a rebuild of the contacts began; without a row it is era 0.
CREATE TABLE contact_eras (
    era      bigint      PRIMARY KEY,
    begun_at timestamptz NOT NULL
);

-- The last records of topic resolved that contacts took, of each partition: only where
-- the broker may repeat a transaction.
CREATE TABLE contact_inputs (
    id        uuid    PRIMARY KEY,
    partition integer NOT NULL,
    "offset"  bigint  NOT NULL
);
CREATE INDEX contact_inputs_offset_idx ON contact_inputs (partition, "offset");

-- +goose Down
DROP TABLE contact_inputs;
DROP TABLE contact_eras;
DROP INDEX contact_marks_partition_idx;
DROP INDEX contacts_partition_idx;
ALTER TABLE contact_marks DROP COLUMN partition;
ALTER TABLE contacts DROP COLUMN partition;
ALTER TABLE events DROP COLUMN seq, DROP COLUMN era;
ALTER TABLE contacts DROP COLUMN seq, DROP COLUMN era;
