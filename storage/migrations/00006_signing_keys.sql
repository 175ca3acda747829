-- +goose Up

-- Sealed ed25519 keys of destinations that sign with one beside the secret.
ALTER TABLE destinations ADD COLUMN signing_key bytea, ADD COLUMN previous_signing_key bytea;

-- +goose Down
ALTER TABLE destinations DROP COLUMN signing_key, DROP COLUMN previous_signing_key;
