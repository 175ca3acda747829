-- +goose Up

-- What a processor keeps of a contact stands beside where it stands with it.
ALTER TABLE derived_contacts ADD COLUMN state bytea;
DROP TABLE derived_documents;
CREATE INDEX derived_contacts_partition_idx ON derived_contacts (processor, partition, contact_id) WHERE ended_at IS NULL;

-- How far a partition has been filled with the definitions of a version.
CREATE TABLE derived_fills (
    processor  text        NOT NULL,
    partition  integer     NOT NULL,
    version    bigint      NOT NULL,
    after      uuid        NOT NULL, -- the last contact that was passed
    passed     bigint      NOT NULL, -- contacts
    total      bigint      NOT NULL, -- when it began
    behind     bigint      NOT NULL, -- passed, and to be filled with a later record
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    done_at    timestamptz,
    PRIMARY KEY (processor, partition)
);

-- One that was sent long ago and is still there is sent again.
ALTER TABLE timers ADD COLUMN sent_at timestamptz;
UPDATE timers SET sent_at = now() WHERE sent;
DROP INDEX timers_due_idx;
ALTER TABLE timers DROP COLUMN sent;
CREATE INDEX timers_due_idx ON timers (due) WHERE sent_at IS NULL;
CREATE INDEX timers_sent_idx ON timers (sent_at) WHERE sent_at IS NOT NULL;

-- +goose Down
DROP INDEX timers_sent_idx;
DROP INDEX timers_due_idx;
ALTER TABLE timers ADD COLUMN sent boolean NOT NULL DEFAULT false;
UPDATE timers SET sent = true WHERE sent_at IS NOT NULL;
ALTER TABLE timers DROP COLUMN sent_at;
CREATE INDEX timers_due_idx ON timers (due) WHERE NOT sent;
DROP TABLE derived_fills;
DROP INDEX derived_contacts_partition_idx;
CREATE TABLE derived_documents (
    processor  text    NOT NULL,
    contact_id uuid    NOT NULL,
    partition  integer NOT NULL,
    state      text    NOT NULL,
    PRIMARY KEY (processor, contact_id)
);
ALTER TABLE derived_contacts DROP COLUMN state;
