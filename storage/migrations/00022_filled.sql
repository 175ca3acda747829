-- +goose Up

-- The definitions of which version the contacts of the partition have been passed with, all
-- of them: what has not changed since is complete while a newer version is filled.
ALTER TABLE derived_fills ADD COLUMN filled bigint NOT NULL DEFAULT 0;
UPDATE derived_fills SET filled = version WHERE done_at IS NOT NULL;

-- +goose Down
ALTER TABLE derived_fills DROP COLUMN filled;
