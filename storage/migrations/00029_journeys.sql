-- +goose Up

-- Runs of journeys: those that live, and for a while those that ended. Written by processor
-- journeys alone, but that finished ones are removed when they are old. A step changes no
-- column that is indexed, and finds room on its page.
CREATE TABLE journey_runs (
    run_id       uuid        PRIMARY KEY,
    contact_id   uuid        NOT NULL,
    journey_id   text        NOT NULL COLLATE "C",
    version      text        NOT NULL COLLATE "C",
    key          text,                 -- JSON, of a journey that has one
    arm          text,
    entry        bigint      NOT NULL, -- which run of contact, journey and key it is, from 1
    status       text        NOT NULL, -- waiting, completed, exited, failed
    node         text        NOT NULL, -- the step that it stands on, or ended at
    node_since   timestamptz NOT NULL,
    entered_at   timestamptz NOT NULL,
    ended_at     timestamptz,          -- NULL of one that lives
    converted_at timestamptz,          -- when its goal was reached
    reason       text,                 -- of its end
    error        text,
    trigger_id   text        NOT NULL  -- the record that began it
) WITH (fillfactor = 80);
CREATE INDEX journey_runs_journey_idx ON journey_runs (journey_id, status, entered_at DESC, run_id DESC);
CREATE INDEX journey_runs_contact_idx ON journey_runs (contact_id);
CREATE INDEX journey_runs_ended_idx ON journey_runs (ended_at) WHERE ended_at IS NOT NULL;

-- How often what happened to runs. Written in the transactions that write those, a row for
-- each partition, for each has one writer. They stay when runs are removed.
CREATE TABLE journey_counters (
    journey_id text             NOT NULL COLLATE "C",
    version    text             NOT NULL COLLATE "C",
    node       text             NOT NULL COLLATE "C", -- the step; empty: of the run as a whole
    what       text             NOT NULL COLLATE "C", -- came, step; started, completed, exited, failed, retried, skipped, converted
    detail     text             NOT NULL COLLATE "C", -- what came of a step; the reason of an end and of a skip
    arm        text             NOT NULL COLLATE "C",
    partition  integer          NOT NULL,
    n          bigint           NOT NULL,
    secs       double precision NOT NULL, -- how long it took: the sum
    PRIMARY KEY (journey_id, version, node, what, detail, arm, partition)
);

-- The versions of journeys that are in use, or that runs still belong to.
CREATE TABLE journey_versions (
    journey_id    text        NOT NULL COLLATE "C",
    version       text        NOT NULL COLLATE "C",
    definition    text        NOT NULL, -- in its canonical form; empty of one that is written in Go
    since         timestamptz NOT NULL DEFAULT now(),
    superseded_at timestamptz,          -- NULL of one in use
    PRIMARY KEY (journey_id, version)
);

-- +goose Down
DROP TABLE journey_versions;
DROP TABLE journey_counters;
DROP TABLE journey_runs;
