-- +goose Up

-- Functions of journeys in Go that workers are to do, or whose result was not taken yet.
-- Written and removed by processor journeys in the transactions that say where runs are;
-- workers take them, note what came of them, and leave them alone then.
CREATE TABLE journey_jobs (
    run_id     uuid        NOT NULL,
    epoch      bigint      NOT NULL, -- of the run: how many steps it has come to
    contact_id uuid        NOT NULL,
    journey_id text        NOT NULL COLLATE "C",
    version    text        NOT NULL COLLATE "C",
    step       text        NOT NULL,
    hops       integer     NOT NULL, -- of the chain that led here
    due        timestamptz NOT NULL DEFAULT now(), -- when a worker may take it, or tell its result again
    attempts   integer     NOT NULL DEFAULT 0,     -- that began
    token      uuid,                 -- whose worker has it in hand
    done       boolean     NOT NULL DEFAULT false, -- what came of it is known
    result     text,                 -- JSON, of one that came to a result
    error      text,                 -- why there is none; of one that is not done, of the last attempt
    told       integer     NOT NULL DEFAULT 0,     -- how often the processor was told again
    PRIMARY KEY (run_id, epoch)
) WITH (fillfactor = 80);
CREATE INDEX journey_jobs_due_idx ON journey_jobs (journey_id, version, due);
CREATE INDEX journey_jobs_contact_idx ON journey_jobs (contact_id);

-- +goose Down
DROP TABLE journey_jobs;
