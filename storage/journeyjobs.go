package storage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// ChannelJourneyJobs tells workers that there are jobs to do, with the payload JobsBegun, or
// that jobs are over which one may have in hand, with JobsOver.
const (
	ChannelJourneyJobs = "journey_jobs"
	JobsBegun          = "begun"
	JobsOver           = "over"
)

// JourneyJobRef names a job: the step of a run.
type JourneyJobRef struct {
	RunID string
	Epoch int64
}

// NewJourneyJob is a job that workers are to do.
type NewJourneyJob struct {
	JourneyJobRef
	ContactID string
	JourneyID string
	Version   string
	Step      string
	Hops      int // of the chain that led to it
}

// JourneyJobChanges are what a batch of processor journeys does to jobs.
type JourneyJobChanges struct {
	Begun []NewJourneyJob
	Over  []JourneyJobRef // that nobody waits for any more
	// Took says into whom contacts were merged, whose jobs are the survivor's from then on.
	Took   map[string]string
	Forget []string // contacts of which nothing may be left
}

// SaveJourneyJobs writes jobs with the state of the runs that they belong to, in one round
// trip of at most six statements, and tells workers when the transaction commits. It does
// nothing when nothing has changed.
func (tx *Tx) SaveJourneyJobs(ctx context.Context, ch *JourneyJobChanges) error {
	var batch pgx.Batch
	if len(ch.Took) > 0 {
		losers := slices.Sorted(maps.Keys(ch.Took))
		survivors := make([]string, len(losers))
		for i, loser := range losers {
			survivors[i] = ch.Took[loser]
		}
		batch.Queue(`
UPDATE journey_jobs AS j SET contact_id = v.survivor FROM unnest($1::text[]::uuid[], $2::text[]::uuid[]) AS v (loser, survivor)
WHERE j.contact_id = v.loser`, losers, survivors)
	}
	if len(ch.Begun) > 0 {
		queueBegunJobs(&batch, ch.Begun)
	}
	if len(ch.Over) > 0 {
		runs, epochs := jobRefs(ch.Over)
		batch.Queue(`
DELETE FROM journey_jobs AS j USING unnest($1::text[]::uuid[], $2::bigint[]) AS v (run_id, epoch)
WHERE j.run_id = v.run_id AND j.epoch = v.epoch`, runs, epochs)
	}
	if len(ch.Forget) > 0 {
		batch.Queue(`DELETE FROM journey_jobs AS j USING unnest($1::text[]::uuid[]) AS v (contact_id) WHERE j.contact_id = v.contact_id`, ch.Forget)
	}
	if len(ch.Begun) > 0 {
		batch.Queue(notifySQL, ChannelJourneyJobs, JobsBegun)
	}
	if len(ch.Over)+len(ch.Forget) > 0 {
		batch.Queue(notifySQL, ChannelJourneyJobs, JobsOver)
	}
	if batch.Len() == 0 {
		return nil
	}
	if err := tx.sql.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("save jobs of journeys, %d begun, %d over: %w", len(ch.Begun), len(ch.Over), err)
	}
	return nil
}

func queueBegunJobs(batch *pgx.Batch, begun []NewJourneyJob) {
	n := len(begun)
	runs, epochs, contacts, journeys := make([]string, n), make([]int64, n), make([]string, n), make([]string, n)
	versions, steps, hops := make([]string, n), make([]string, n), make([]int32, n)
	for i, j := range begun {
		runs[i], epochs[i], contacts[i], journeys[i], versions[i], steps[i], hops[i] = j.RunID, j.Epoch, j.ContactID, j.JourneyID, j.Version, j.Step, int32(j.Hops)
	}
	batch.Queue(`
INSERT INTO journey_jobs (run_id, epoch, contact_id, journey_id, version, step, hops)
SELECT v.* FROM unnest($1::text[]::uuid[], $2::bigint[], $3::text[]::uuid[], $4::text[], $5::text[], $6::text[], $7::integer[]) AS v
ON CONFLICT (run_id, epoch) DO NOTHING`, runs, epochs, contacts, journeys, versions, steps, hops)
}

func jobRefs(refs []JourneyJobRef) (runs []string, epochs []int64) {
	for _, ref := range refs {
		runs, epochs = append(runs, ref.RunID), append(epochs, ref.Epoch)
	}
	return runs, epochs
}

// JourneyCode names the code of a journey.
type JourneyCode struct{ JourneyID, Version string }

func splitCodes(codes []JourneyCode) (journeys, versions []string) {
	for _, c := range codes {
		journeys, versions = append(journeys, c.JourneyID), append(versions, c.Version)
	}
	return journeys, versions
}

// JourneyJob is a job that a worker has taken: to do it or, when it is Done, to tell what came
// of it once more.
type JourneyJob struct {
	NewJourneyJob
	Attempts int    // that began, with the one that it was taken for
	Token    string // proves that it is in the hand of who took it
	State    []byte // of the contact, as the processor keeps it; nil when there is none
	Done     bool
	Result   string // JSON
	Error    string // why there is no result
}

// TakeJourneyJobs takes at most limit jobs of these codes that are due, and keeps others from
// them for as long as lease. State is that of the processor. What another worker has in hand
// is left out, and nothing is waited for.
func (db *DB) TakeJourneyJobs(ctx context.Context, processor string, codes []JourneyCode, token string, limit int, lease time.Duration) ([]JourneyJob, error) {
	const take = `
WITH due AS (
    SELECT l.run_id, l.epoch FROM unnest($1::text[], $2::text[]) AS v (journey_id, version), LATERAL (
        SELECT j.run_id, j.epoch, j.due FROM journey_jobs AS j
        WHERE j.journey_id = v.journey_id AND j.version = v.version AND j.due <= now() ORDER BY j.due LIMIT $3 FOR UPDATE SKIP LOCKED) AS l
    ORDER BY l.due LIMIT $3
), taken AS (
    UPDATE journey_jobs AS j SET
        token = CASE WHEN j.done THEN NULL ELSE $4::text::uuid END,
        attempts = j.attempts + CASE WHEN j.done THEN 0 ELSE 1 END,
        told = j.told + CASE WHEN j.done THEN 1 ELSE 0 END,
        due = now() + CASE WHEN j.done THEN interval '1 minute' * least(60, power(2, j.told)) ELSE $5::bigint * interval '1 microsecond' END
    FROM due WHERE j.run_id = due.run_id AND j.epoch = due.epoch
    RETURNING j.*
)
SELECT t.run_id::text, t.epoch, t.contact_id::text, t.journey_id, t.version, t.step, t.hops, t.attempts, coalesce(t.token::text, ''), t.done, coalesce(t.result, ''), coalesce(t.error, ''), d.state
FROM taken AS t LEFT JOIN LATERAL (SELECT state FROM derived_contacts WHERE processor = $6 AND contact_id = t.contact_id OFFSET 0) AS d ON NOT t.done`
	journeys, versions := splitCodes(codes)
	rows, err := db.sql.Query(ctx, take, journeys, versions, limit, token, lease.Microseconds(), processor)
	var taken []JourneyJob
	if err == nil {
		taken, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (j JourneyJob, err error) {
			err = row.Scan(&j.RunID, &j.Epoch, &j.ContactID, &j.JourneyID, &j.Version, &j.Step, &j.Hops, &j.Attempts, &j.Token, &j.Done, &j.Result, &j.Error, &j.State)
			return j, err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("take jobs of journeys: %w", err)
	}
	return taken, nil
}

// NextJourneyJob is when the next job of these codes is due; zero for none. now is the
// server's clock.
func (db *DB) NextJourneyJob(ctx context.Context, codes []JourneyCode) (due, now time.Time, err error) {
	const next = `
SELECT (SELECT min(l.due) FROM unnest($1::text[], $2::text[]) AS v (journey_id, version), LATERAL (
    SELECT j.due FROM journey_jobs AS j WHERE j.journey_id = v.journey_id AND j.version = v.version ORDER BY j.due LIMIT 1) AS l), clock_timestamp()`
	var at *time.Time
	journeys, versions := splitCodes(codes)
	if err := db.sql.QueryRow(ctx, next, journeys, versions).Scan(&at, &now); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return due, now, fmt.Errorf("look for the next job of journeys: %w", err)
	}
	return timeOrZero(at), now.UTC(), nil
}

// JourneyJobInHand is a job that somebody has taken.
type JourneyJobInHand struct {
	JourneyJobRef
	Token string
}

// RenewJourneyJobs keeps others from jobs for as long as lease from now on, and returns those
// that are still in the hand of who took them: the others are over, or another has them.
func (db *DB) RenewJourneyJobs(ctx context.Context, held []JourneyJobInHand, lease time.Duration) ([]JourneyJobInHand, error) {
	const renew = `
WITH held AS (
    SELECT j.run_id, j.epoch, j.token FROM unnest($1::text[]::uuid[], $2::bigint[], $3::text[]::uuid[]) AS v (run_id, epoch, token), LATERAL (
        SELECT * FROM journey_jobs AS j WHERE j.run_id = v.run_id AND j.epoch = v.epoch AND j.token = v.token OFFSET 0) AS j
), locked AS (
    SELECT l.* FROM held AS h, LATERAL (
        SELECT j.run_id, j.epoch FROM journey_jobs AS j WHERE j.run_id = h.run_id AND j.epoch = h.epoch AND j.token = h.token OFFSET 0 FOR UPDATE SKIP LOCKED) AS l
), renewed AS (
    UPDATE journey_jobs AS j SET due = now() + $4::bigint * interval '1 microsecond' FROM locked AS l WHERE j.run_id = l.run_id AND j.epoch = l.epoch
)
SELECT run_id::text, epoch, token::text FROM held`
	runs, epochs, tokens := jobsInHand(held)
	rows, err := db.sql.Query(ctx, renew, runs, epochs, tokens, lease.Microseconds())
	var still []JourneyJobInHand
	if err == nil {
		still, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (j JourneyJobInHand, err error) {
			err = row.Scan(&j.RunID, &j.Epoch, &j.Token)
			return j, err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("renew %d jobs of journeys: %w", len(held), err)
	}
	return still, nil
}

func jobsInHand(held []JourneyJobInHand) (runs []string, epochs []int64, tokens []string) {
	for _, j := range held {
		runs, epochs, tokens = append(runs, j.RunID), append(epochs, j.Epoch), append(tokens, j.Token)
	}
	return runs, epochs, tokens
}

// JourneyJobNote is what came of an attempt at a job.
type JourneyJobNote struct {
	JourneyJobInHand
	Done   bool   // it came to Result or, for good, to Error
	Result string // JSON
	Error  string // why there is no result
	// After is when it may be taken next: for another attempt or, of one that is done, to tell
	// the processor again.
	After time.Duration
	// Uncounted says that it was no attempt.
	Uncounted bool
}

// NoteJourneyJobs notes what came of jobs, and gives them out of the hand. It returns those
// that it has noted; the others are over, another has them, or their run is being changed
// right now: those are for another call.
func (db *DB) NoteJourneyJobs(ctx context.Context, notes []JourneyJobNote) (noted []JourneyJobInHand, err error) {
	const note = `
WITH v AS (
    SELECT * FROM unnest($1::text[]::uuid[], $2::bigint[], $3::text[]::uuid[], $4::boolean[], $5::text[], $6::text[], $7::bigint[], $8::integer[])
        AS v (run_id, epoch, token, done, result, error, after, uncounted)
), locked AS (
    SELECT l.* FROM v, LATERAL (
        SELECT j.run_id, j.epoch FROM journey_jobs AS j WHERE j.run_id = v.run_id AND j.epoch = v.epoch AND j.token = v.token OFFSET 0 FOR UPDATE SKIP LOCKED) AS l
), noted AS (
    UPDATE journey_jobs AS j SET token = NULL, done = v.done, result = v.result, error = v.error, attempts = j.attempts - v.uncounted, due = now() + v.after * interval '1 microsecond'
    FROM locked AS l, v WHERE j.run_id = l.run_id AND j.epoch = l.epoch AND v.run_id = l.run_id AND v.epoch = l.epoch
    RETURNING j.run_id, j.epoch, v.token
)
SELECT run_id::text, epoch, token::text FROM noted`
	n := len(notes)
	runs, epochs, tokens, done := make([]string, n), make([]int64, n), make([]string, n), make([]bool, n)
	results, failures, after, uncounted := make([]*string, n), make([]*string, n), make([]int64, n), make([]int32, n)
	for i := range notes {
		v := &notes[i]
		runs[i], epochs[i], tokens[i], done[i] = v.RunID, v.Epoch, v.Token, v.Done
		results[i], failures[i], after[i] = optionalText(v.Result), optionalText(v.Error), v.After.Microseconds()
		if v.Uncounted {
			uncounted[i] = 1
		}
	}
	rows, err := db.sql.Query(ctx, note, runs, epochs, tokens, done, results, failures, after, uncounted)
	if err == nil {
		noted, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (j JourneyJobInHand, err error) {
			err = row.Scan(&j.RunID, &j.Epoch, &j.Token)
			return j, err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("note what came of %d jobs of journeys: %w", n, err)
	}
	return noted, nil
}

// OpenJourneyJob is how it stands with the job that a run waits for.
type OpenJourneyJob struct {
	Step     string
	Attempts int       // that began
	Running  bool      // a worker has it in hand
	Done     bool      // what came of it is known, and the processor is told
	Error    string    // of the last attempt that has ended, "" for none
	Due      time.Time // when a worker may take it, or take it over from the one that has it
}

// OpenJourneyJob is the job that a run waits for; nil when it waits for none.
func (db *DB) OpenJourneyJob(ctx context.Context, run string) (*OpenJourneyJob, error) {
	var j OpenJourneyJob
	err := db.sql.QueryRow(ctx, `
SELECT step, attempts, token IS NOT NULL, done, coalesce(error, ''), due FROM journey_jobs
WHERE run_id = $1::text::uuid ORDER BY epoch DESC LIMIT 1`, run).Scan(&j.Step, &j.Attempts, &j.Running, &j.Done, &j.Error, &j.Due)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for the job of run %s: %w", run, err)
	}
	j.Due = j.Due.UTC()
	return &j, nil
}
