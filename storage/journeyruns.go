package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// JourneyRun is a run of a journey, as it is now.
type JourneyRun struct {
	ID        string
	ContactID string
	// UserID is the contact's external id, else its anonymous id, else the contact's own id,
	// as they are now; Email is empty when it has none.
	UserID, Email string
	JourneyID     string
	Version       string
	Key           string // JSON; "" for none
	Arm           string
	Entry         int64  // which of contact, journey and key it is, from 1
	Status        string // RunWaiting, RunCompleted, RunExited or RunFailed
	Step          string // on which it stands, or at which it ended
	StepSince     time.Time
	EnteredAt     time.Time
	EndedAt       time.Time // zero of one that lives
	ConvertedAt   time.Time // zero when its goal was not reached
	Reason        string    // of its end
	Error         string
	TriggerID     string // the record that began it
}

// JourneyRunFilter says which runs a list has. Empty fields take any.
type JourneyRunFilter struct {
	JourneyID string
	Status    string
	Version   string
	Step      string
	Reason    string
	ContactID string
	// Began and Ended narrow when a run began, and when it ended.
	Began, Ended Span
}

// Span is a part of time: from From on, and before Until. Zero is no bound.
type Span struct{ From, Until time.Time }

const journeyRunColumns = `
SELECT r.run_id::text, r.contact_id::text, coalesce(c.external_id, c.anonymous_id, r.contact_id::text), coalesce(c.email, ''),
       r.journey_id, r.version, coalesce(r.key, ''), coalesce(r.arm, ''), r.entry, r.status, r.node, r.node_since, r.entered_at, r.ended_at,
       r.converted_at, coalesce(r.reason, ''), coalesce(r.error, ''), r.trigger_id`

const joinContacts = ` LEFT JOIN contacts AS c ON c.id = r.contact_id`

const selectJourneyRuns = journeyRunColumns + `
FROM journey_runs AS r` + joinContacts

func scanJourneyRun(row pgx.CollectableRow) (r JourneyRun, err error) {
	var ended, converted *time.Time
	err = row.Scan(&r.ID, &r.ContactID, &r.UserID, &r.Email, &r.JourneyID, &r.Version, &r.Key, &r.Arm, &r.Entry, &r.Status, &r.Step, &r.StepSince,
		&r.EnteredAt, &ended, &converted, &r.Reason, &r.Error, &r.TriggerID)
	r.StepSince, r.EnteredAt = r.StepSince.UTC(), r.EnteredAt.UTC()
	r.EndedAt, r.ConvertedAt = timeOrZero(ended), timeOrZero(converted)
	return r, err
}

// runPlace is where a page of runs ends.
type runPlace struct {
	At  time.Time
	Run string
}

const newestRunsFirst = ` ORDER BY r.entered_at DESC, r.run_id DESC`

// runStatuses are those a row may have. A list of any status asks for each: so the index has
// every list in its order.
var runStatuses = []string{RunWaiting, RunCompleted, RunExited, RunFailed}

// where is the condition of the runs that a filter takes, with its arguments.
func (f JourneyRunFilter) where() (string, []any) {
	args := []any{f.JourneyID, f.Version, f.Step, f.Reason}
	condition := ` WHERE ($1 = '' OR r.journey_id = $1) AND ($2 = '' OR r.version = $2) AND ($3 = '' OR r.node = $3) AND ($4 = '' OR r.reason = $4)`
	if f.ContactID != "" {
		args = append(args, f.ContactID)
		condition += fmt.Sprintf(` AND r.contact_id = $%d::text::uuid`, len(args))
	}
	if f.Status != "" {
		args = append(args, f.Status)
		condition += fmt.Sprintf(` AND r.status = $%d`, len(args))
	}
	for _, bound := range []struct {
		compare string
		at      time.Time
	}{{`r.entered_at >=`, f.Began.From}, {`r.entered_at <`, f.Began.Until}, {`r.ended_at >=`, f.Ended.From}, {`r.ended_at <`, f.Ended.Until}} {
		if !bound.at.IsZero() {
			args = append(args, bound.at)
			condition += fmt.Sprintf(` AND %s $%d::timestamptz`, bound.compare, len(args))
		}
	}
	return condition, args
}

// ListJourneyRuns returns a page of runs, the newest first. To read all of them there is
// WalkJourneyRuns.
func (db *DB) ListJourneyRuns(ctx context.Context, f JourneyRunFilter, limit, offset int) ([]JourneyRun, error) {
	return db.journeyRuns(ctx, f, limit, offset, nil)
}

// WalkJourneyRuns returns the next runs, the newest first, and the cursor of those after
// them, empty at the end; it begins with an empty cursor. What a call costs does not depend
// on how far it is. ErrListCursor for a cursor that is none.
func (db *DB) WalkJourneyRuns(ctx context.Context, f JourneyRunFilter, limit int, cursor string) (runs []JourneyRun, next string, err error) {
	var after *runPlace
	if cursor != "" {
		after = &runPlace{}
		if err := readCursor(cursor, after); err != nil || uuid.Validate(after.Run) != nil {
			return nil, "", ErrListCursor
		}
	}
	runs, err = db.journeyRuns(ctx, f, limit+1, 0, after)
	if err == nil && len(runs) > limit {
		runs = runs[:limit]
		next, err = writeCursor(runPlace{runs[limit-1].EnteredAt, runs[limit-1].ID})
	}
	return runs, next, err
}

func (db *DB) journeyRuns(ctx context.Context, f JourneyRunFilter, limit, offset int, after *runPlace) ([]JourneyRun, error) {
	sql, args := f.page(limit, offset, after)
	rows, err := db.sql.Query(ctx, sql, args...)
	var runs []JourneyRun
	if err == nil {
		runs, err = pgx.CollectRows(rows, scanJourneyRun)
	}
	if err != nil {
		return nil, fmt.Errorf("list runs of journey %q: %w", f.JourneyID, err)
	}
	return runs, nil
}

// page is the statement of a page. Runs of a contact are few; those of a journey are read
// from the index of each status.
func (f JourneyRunFilter) page(limit, offset int, after *runPlace) (string, []any) {
	statuses := runStatuses
	if f.Status != "" || f.ContactID != "" {
		statuses = []string{f.Status}
	}
	f.Status = ""
	condition, args := f.where()
	if after != nil {
		args = append(args, after.At, after.Run)
		condition += fmt.Sprintf(` AND (r.entered_at, r.run_id) < ($%d::timestamptz, $%d::text::uuid)`, len(args)-1, len(args))
	}
	args = append(args, limit+offset)
	limited := fmt.Sprintf(` LIMIT $%d`, len(args))
	union := ""
	for i, status := range statuses {
		if i > 0 {
			union += ` UNION ALL `
		}
		only := ""
		if status != "" {
			args = append(args, status)
			only = fmt.Sprintf(` AND r.status = $%d`, len(args))
		}
		union += `(SELECT r.* FROM journey_runs AS r` + condition + only + newestRunsFirst + limited + `)`
	}
	args = append(args, limit, offset)
	return journeyRunColumns + ` FROM (` + union + `) AS r` + joinContacts + newestRunsFirst + fmt.Sprintf(` LIMIT $%d OFFSET $%d`, len(args)-1, len(args)), args
}

// CountJourneyRuns counts the runs that a filter takes.
func (db *DB) CountJourneyRuns(ctx context.Context, f JourneyRunFilter) (n int, err error) {
	condition, args := f.where()
	if err := db.sql.QueryRow(ctx, `SELECT count(*) FROM journey_runs AS r`+condition, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count runs of journey %q: %w", f.JourneyID, err)
	}
	return n, nil
}

// JourneyRun returns a run. IsNotFound says of the error that there is none.
func (db *DB) JourneyRun(ctx context.Context, id string) (*JourneyRun, error) {
	rows, err := db.sql.Query(ctx, selectJourneyRuns+` WHERE r.run_id = $1::text::uuid`, id)
	var run JourneyRun
	if err == nil {
		run, err = pgx.CollectExactlyOneRow(rows, scanJourneyRun)
	}
	if err != nil {
		return nil, fmt.Errorf("read run %s: %w", id, err)
	}
	return &run, nil
}

// RunsOf returns at most limit runs of a contact: those that live before those that ended,
// the newest first.
func (db *DB) RunsOf(ctx context.Context, contact string, limit int) ([]JourneyRun, error) {
	rows, err := db.sql.Query(ctx, selectJourneyRuns+` WHERE r.contact_id = $1::text::uuid ORDER BY r.ended_at IS NOT NULL, r.entered_at DESC, r.run_id LIMIT $2`, contact, limit)
	var runs []JourneyRun
	if err == nil {
		runs, err = pgx.CollectRows(rows, scanJourneyRun)
	}
	if err != nil {
		return nil, fmt.Errorf("list runs of contact %s: %w", contact, err)
	}
	return runs, nil
}

// JourneyTriggers are those of some triggers, each of the contact at its place, that began a
// run which is kept.
func (db *DB) JourneyTriggers(ctx context.Context, contacts, triggers []string) (map[string]bool, error) {
	rows, err := db.sql.Query(ctx, `
SELECT n.trigger FROM unnest($1::text[]::uuid[], $2::text[]) AS n (contact, trigger), LATERAL (
    SELECT FROM journey_runs WHERE contact_id = n.contact AND trigger_id = n.trigger LIMIT 1) AS r`, contacts, triggers)
	var found []string
	if err == nil {
		found, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, fmt.Errorf("look for what began runs of %d contacts: %w", len(contacts), err)
	}
	began := make(map[string]bool, len(found))
	for _, trigger := range found {
		began[trigger] = true
	}
	return began, nil
}

// JourneyCount is how often something happened to runs of a journey.
type JourneyCount struct {
	JourneyID string
	Version   string
	Step      string // "" of runs as a whole
	// What is a kind of JourneyChange, or of a step that runs came to it ("came"). Detail is
	// what came of a step, or the reason of an end or of a skip.
	What, Detail string
	Arm          string
	N            int64
	Took         time.Duration // together: of an end since the run began, of a step since the run came to it
}

// RunCame is What of a JourneyCount: runs came to the step.
const RunCame = "came"

const selectJourneyCounts = `
SELECT journey_id, version, node, what, detail, arm, sum(n)::bigint, sum(secs) FROM journey_counters`

const groupJourneyCounts = `
GROUP BY journey_id, version, node, what, detail, arm ORDER BY journey_id, version, node, what, detail, arm`

func scanJourneyCount(row pgx.CollectableRow) (c JourneyCount, err error) {
	var secs float64
	err = row.Scan(&c.JourneyID, &c.Version, &c.Step, &c.What, &c.Detail, &c.Arm, &c.N, &secs)
	c.Took = time.Duration(secs * float64(time.Second))
	return c, err
}

// JourneyCounts returns the counters of a journey, of all its versions; of every journey as
// a whole, without steps, when id is empty.
func (db *DB) JourneyCounts(ctx context.Context, id string) ([]JourneyCount, error) {
	condition := ` WHERE journey_id = $1`
	if id == "" {
		condition = ` WHERE node = $1`
	}
	rows, err := db.sql.Query(ctx, selectJourneyCounts+condition+groupJourneyCounts, id)
	var counts []JourneyCount
	if err == nil {
		counts, err = pgx.CollectRows(rows, scanJourneyCount)
	}
	if err != nil {
		return nil, fmt.Errorf("count runs of journey %q: %w", id, err)
	}
	return counts, nil
}

// StandingRuns are live runs of a journey that stand at one step.
type StandingRuns struct {
	Version, Step string
	Runs          int64
}

// JourneyRunsByStep returns where the live runs of a journey stand, by version and step. It
// counts them one by one: for what a person asks now and then.
func (db *DB) JourneyRunsByStep(ctx context.Context, journey string) ([]StandingRuns, error) {
	rows, err := db.sql.Query(ctx, `
SELECT version, node, count(*) FROM journey_runs
WHERE journey_id = $1 AND status = $2 GROUP BY version, node ORDER BY version, node`, journey, RunWaiting)
	var runs []StandingRuns
	if err == nil {
		runs, err = pgx.CollectRows(rows, pgx.RowToStructByPos[StandingRuns])
	}
	if err != nil {
		return nil, fmt.Errorf("count where runs of journey %q stand: %w", journey, err)
	}
	return runs, nil
}
