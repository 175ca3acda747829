-- +goose Up

-- What is cleaned by age is found by its age.
CREATE INDEX pending_answers_created_at_idx ON pending_answers (created_at);
CREATE INDEX identities_deleted_at_idx ON identities (deleted_at) WHERE deleted_at IS NOT NULL;

-- +goose Down
DROP INDEX identities_deleted_at_idx;
DROP INDEX pending_answers_created_at_idx;
