-- +goose Up

-- In which format a partition's state and outputs are written. It only rises. A
-- release that knows nothing of formats writes format 1.
ALTER TABLE processor_progress
    ADD COLUMN format   integer NOT NULL DEFAULT 1,
    -- what the one who updates the row can write, as it says in that statement; the
    -- guard takes it out again, so that who says nothing counts as 1
    ADD COLUMN declared integer;

-- +goose StatementBegin
CREATE FUNCTION processor_progress_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF COALESCE(NEW.declared, 1) < OLD.format THEN
        -- 55000 is waited out and shown as it is by every release, and never the fault of a record.
        RAISE EXCEPTION 'processor %, partition %: its state is in format %, which this release does not write; run a newer one (docs/upgrade.md)',
            OLD.processor, OLD.partition, OLD.format USING ERRCODE = '55000';
    END IF;
    NEW.declared := NULL;
    RETURN NEW;
END $$;
-- +goose StatementEnd

CREATE TRIGGER guard BEFORE UPDATE ON processor_progress FOR EACH ROW EXECUTE FUNCTION processor_progress_guard();

-- +goose Down
DROP TRIGGER guard ON processor_progress;
DROP FUNCTION processor_progress_guard();
ALTER TABLE processor_progress DROP COLUMN format, DROP COLUMN declared;
