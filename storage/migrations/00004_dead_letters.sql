-- +goose Up

-- What operators did with dead letters; one without a row is pending. The letters
-- themselves are on topic dead-letters.
CREATE TABLE dead_letter_marks (
    partition   integer     NOT NULL,
    "offset"    bigint      NOT NULL,
    status      text        NOT NULL CHECK (status IN ('pending', 'retrying', 'retried', 'discarded')),
    retry_count integer     NOT NULL DEFAULT 0,
    retried_at  timestamptz,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, "offset")
);
CREATE INDEX dead_letter_marks_updated_at_idx ON dead_letter_marks (updated_at);

-- +goose Down
DROP TABLE dead_letter_marks;
