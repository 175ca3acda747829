-- +goose Up

-- What happened to a run, a line each, and how much it has done outside since it began, or
-- began anew: mails, calls and the like. It stands and goes with the run.
ALTER TABLE journey_runs
    ADD COLUMN log     text    NOT NULL DEFAULT '', -- [microseconds, kind, step, next, outcome or reason, error]
    ADD COLUMN effects integer NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE journey_runs DROP COLUMN log, DROP COLUMN effects;
