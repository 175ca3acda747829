-- +goose Up

-- A state is written anew with each record of its contact. Room on its page lets the new
-- version stay there, so that no index has to be written and the page is found in memory.
ALTER TABLE derived_contacts SET (fillfactor = 80);

-- +goose Down

ALTER TABLE derived_contacts RESET (fillfactor);
