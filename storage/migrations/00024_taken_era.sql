-- +goose Up

-- The era of contacts as of which the processor took over; NULL of one that takes nothing over.
ALTER TABLE processor_progress ADD COLUMN era bigint;

-- +goose Down
ALTER TABLE processor_progress DROP COLUMN era;
