-- +goose Up

-- People who were deleted, and those merged into them: nothing of them is sent any
-- more. Outlives the retention of every topic that can carry their ids.
CREATE TABLE erased_contacts (
    contact_id uuid        PRIMARY KEY,
    erased_at  timestamptz NOT NULL DEFAULT now(),
    cleared_at timestamptz -- when nothing of theirs was left that is cleared by and by
);
CREATE INDEX erased_contacts_erased_at_idx ON erased_contacts (erased_at);
CREATE INDEX erased_contacts_uncleared_idx ON erased_contacts (erased_at) WHERE cleared_at IS NULL;

INSERT INTO erased_contacts (contact_id)
SELECT contact_id FROM identities WHERE deleted_at IS NOT NULL
UNION
SELECT contact_id FROM contact_marks WHERE survivor IS NULL;

-- A sender's own keys may name a person, so they are kept as hashes.
UPDATE idempotency_keys SET key = encode(sha256(convert_to(key, 'UTF8')), 'hex');

-- +goose Down
DROP TABLE erased_contacts;
