-- +goose Up

-- The id of the topic whose log the position is on (KIP-516). NULL: not known, from
-- before this release or of a broker that reports none.
ALTER TABLE cursors ADD COLUMN topic_id uuid;
ALTER TABLE dead_letter_marks ADD COLUMN topic_id uuid;

-- +goose Down
ALTER TABLE dead_letter_marks DROP COLUMN topic_id;
ALTER TABLE cursors DROP COLUMN topic_id;
