-- +goose Up

-- Every set of definitions that was ever in use; the one with the highest version is.
CREATE TABLE definition_sets (
    version    bigint      PRIMARY KEY,
    hash       text        NOT NULL, -- of the canonical form
    body       text        NOT NULL, -- canonical JSON, and what is known beside it
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text        NOT NULL
);

-- What was wrong with definitions when files were applied last. What is in use of them is
-- their last good form.
CREATE TABLE definition_faults (
    file   text        PRIMARY KEY, -- below the directory of definitions
    ids    text[]      NOT NULL,    -- of the definitions in it, as far as they are known
    faults text        NOT NULL,    -- a line each
    since  timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE definition_faults;
DROP TABLE definition_sets;
