-- +goose Up

-- Where a processor that derives state of contacts stands with each.
CREATE TABLE derived_contacts (
    processor  text        NOT NULL,
    contact_id uuid        NOT NULL,
    partition  integer     NOT NULL,
    seq        bigint      NOT NULL, -- the last number applied
    era        bigint      NOT NULL,
    written    bigint      NOT NULL, -- the number of its own last fact
    epoch      bigint      NOT NULL, -- of the timer armed last
    took       uuid[]      NOT NULL, -- contacts whose state is in this one's
    heard      jsonb       NOT NULL, -- {writer: the number of its last fact}
    survivor   uuid,
    last_seq   bigint      NOT NULL, -- of one that was merged away
    last_era   bigint      NOT NULL,
    ended_at   timestamptz,          -- a mark: it was erased, or handed over to the survivor
    PRIMARY KEY (processor, contact_id)
);
CREATE INDEX derived_contacts_ended_idx ON derived_contacts (ended_at) WHERE ended_at IS NOT NULL;

-- Records that wait for those before them.
CREATE TABLE derived_held (
    processor  text        NOT NULL,
    topic      text        NOT NULL,
    partition  integer     NOT NULL,
    "offset"   bigint      NOT NULL,
    contact_id uuid        NOT NULL,
    seq        bigint      NOT NULL,
    era        bigint      NOT NULL,
    headers    jsonb       NOT NULL,
    value      bytea,                -- NULL of one that was given up: it only has its number
    held_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (processor, topic, partition, "offset")
);
CREATE INDEX derived_held_contact_idx ON derived_held (processor, contact_id);

-- States of processors that need no tables of their own.
CREATE TABLE derived_documents (
    processor  text    NOT NULL,
    contact_id uuid    NOT NULL,
    partition  integer NOT NULL,
    state      text    NOT NULL,
    PRIMARY KEY (processor, contact_id)
);

-- A timer that was sent stays until its processor takes it.
ALTER TABLE timers
    ADD COLUMN hops     integer     NOT NULL DEFAULT 0,
    ADD COLUMN armed_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN sent     boolean     NOT NULL DEFAULT false;
DROP INDEX timers_due_idx;
CREATE INDEX timers_due_idx ON timers (due) WHERE NOT sent;

-- Up to which contact a partition is taken over; NULL when it is through.
ALTER TABLE processor_progress ADD COLUMN taking_over uuid;

-- +goose Down
ALTER TABLE processor_progress DROP COLUMN taking_over;
DROP INDEX timers_due_idx;
CREATE INDEX timers_due_idx ON timers (due);
ALTER TABLE timers DROP COLUMN hops, DROP COLUMN armed_at, DROP COLUMN sent;
DROP TABLE derived_documents;
DROP TABLE derived_held;
DROP TABLE derived_contacts;
