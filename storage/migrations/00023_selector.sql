-- +goose Up

-- The condition on records that a destination has instead of a filter in jq, as JSON.
ALTER TABLE destinations ADD COLUMN selector text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE destinations DROP COLUMN selector;
