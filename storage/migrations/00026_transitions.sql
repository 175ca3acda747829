-- +goose Up

-- What is kept to explain a join and a leave: the record that caused it, and what the leaves
-- of the criteria saw. Only the newest memberships of a contact in a bucket have it.
ALTER TABLE bucket_members ADD COLUMN entered_why bytea, ADD COLUMN left_why bytea;

-- +goose Down
ALTER TABLE bucket_members DROP COLUMN entered_why, DROP COLUMN left_why;
