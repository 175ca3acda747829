package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// JourneyVersion is a version of a journey that is in use, or that runs still belong to.
type JourneyVersion struct {
	JourneyID  string
	Version    string
	Definition string // in its canonical form; "" of one that is written in Go
	Since      time.Time
	Superseded time.Time // zero of one that is in use
	Live       int64     // how many runs that live belong to it
}

// journeyVersionsLock has one transaction at a time say which versions are in use.
const journeyVersionsLock = `SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.journey_versions', 0))`

// KeepJourneyVersions notes which versions are in use, as they are defined now, and returns all
// that are kept: those, and others that runs may belong to; and whether that was another list
// before. Of what it returns Live is not set.
func (tx *Tx) KeepJourneyVersions(ctx context.Context, inUse []JourneyVersion) (kept []JourneyVersion, changed bool, err error) {
	journeys, versions, definitions := make([]string, len(inUse)), make([]string, len(inUse)), make([]string, len(inUse))
	for i, v := range inUse {
		journeys[i], versions[i], definitions[i] = v.JourneyID, v.Version, v.Definition
	}
	const keep = `
INSERT INTO journey_versions (journey_id, version, definition)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
ON CONFLICT (journey_id, version) DO UPDATE SET superseded_at = NULL, definition = excluded.definition
WHERE journey_versions.superseded_at IS NOT NULL OR journey_versions.definition <> excluded.definition`
	const supersede = `
UPDATE journey_versions SET superseded_at = clock_timestamp()
WHERE superseded_at IS NULL AND NOT EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS u (j, v) WHERE u.j = journey_id AND u.v = version)`
	const all = `SELECT journey_id, version, definition, since, superseded_at, 0::bigint FROM journey_versions ORDER BY journey_id, version`
	var batch pgx.Batch
	batch.Queue(journeyVersionsLock)
	counts := func(tag pgconn.CommandTag) error {
		changed = changed || tag.RowsAffected() > 0
		return nil
	}
	batch.Queue(keep, journeys, versions, definitions).Exec(counts)
	batch.Queue(supersede, journeys, versions).Exec(counts)
	batch.Queue(all).Query(func(rows pgx.Rows) (err error) {
		kept, err = pgx.CollectRows(rows, scanJourneyVersion)
		return err
	})
	if err := tx.sql.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, false, fmt.Errorf("keep versions of journeys: %w", err)
	}
	return kept, changed, nil
}

func scanJourneyVersion(row pgx.CollectableRow) (v JourneyVersion, err error) {
	var superseded *time.Time
	err = row.Scan(&v.JourneyID, &v.Version, &v.Definition, &v.Since, &superseded, &v.Live)
	v.Since, v.Superseded = v.Since.UTC(), timeOrZero(superseded)
	return v, err
}

// liveRuns is how many runs of a version live, as the counters say.
const liveRuns = `
(SELECT coalesce(sum(CASE WHEN c.what IN ('started', 'retried') THEN c.n WHEN c.what IN ('completed', 'exited', 'failed') THEN -c.n ELSE 0 END), 0)::bigint
 FROM journey_counters AS c WHERE c.journey_id = v.journey_id AND c.version = v.version AND c.node = '')`

// JourneyVersions returns the versions that are kept, by journey: those in use first.
func (db *DB) JourneyVersions(ctx context.Context) ([]JourneyVersion, error) {
	rows, err := db.sql.Query(ctx, `
SELECT v.journey_id, v.version, v.definition, v.since, v.superseded_at, `+liveRuns+`
FROM journey_versions AS v ORDER BY v.journey_id, v.superseded_at DESC NULLS FIRST, v.version`)
	var all []JourneyVersion
	if err == nil {
		all, err = pgx.CollectRows(rows, scanJourneyVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("list versions of journeys: %w", err)
	}
	return all, nil
}

// DropJourneyVersions drops the versions that were superseded before a time and that no run
// needs any more: none that lives, and none that failed and could be tried again. It says
// how many.
func (db *DB) DropJourneyVersions(ctx context.Context, before time.Time) (int64, error) {
	tag, err := db.sql.Exec(ctx, `
DELETE FROM journey_versions AS v WHERE v.superseded_at < $1 AND `+liveRuns+` <= 0
AND NOT EXISTS (SELECT FROM journey_runs AS r WHERE r.journey_id = v.journey_id AND r.status = '`+RunFailed+`' AND r.version = v.version)`, before)
	if err != nil {
		return 0, fmt.Errorf("drop versions of journeys: %w", err)
	}
	return tag.RowsAffected(), nil
}
