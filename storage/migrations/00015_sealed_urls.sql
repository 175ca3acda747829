-- +goose Up

-- The address of a receiver may be a credential (a Slack webhook is nothing else), so it
-- is sealed like every other secret. url stays empty; what older processes wrote there is
-- moved when secrets are sealed anew at the next start.
ALTER TABLE destinations ADD COLUMN sealed_url bytea;

-- +goose Down

ALTER TABLE destinations DROP COLUMN sealed_url;
