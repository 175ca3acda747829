package storage

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Kinds of a JourneyChange.
const (
	RunStarted   = "started"
	RunStepped   = "step"
	RunExited    = "exited"
	RunCompleted = "completed"
	RunFailed    = "failed"
	RunRetried   = "retried"   // one that had failed goes on
	RunSkipped   = "skipped"   // there is no run: somebody was not enrolled
	RunConverted = "converted" // the goal was reached, of whoever was held out, too
)

// RunMailed is What of a JourneyCount: runs asked for a mail.
const RunMailed = "mailed"

// emails is what a step does that asks for a mail.
const emails = "email"

// Statuses of a JourneyRun: RunExited, RunCompleted and RunFailed of one that ended, and this
// of one that lives.
const RunWaiting = "waiting"

// JourneyChange is what happened to a run of a journey.
type JourneyChange struct {
	Kind      string
	At        time.Time
	ContactID string
	Partition int32
	JourneyID string
	Version   string
	Key       string // JSON; "" for none
	RunID     string // "" of RunSkipped, and of RunConverted when there is no run
	Arm       string
	Entry     int64
	EnteredAt time.Time
	// Step is the step that is over, or at which the run ended; Outcome what came of it; Since
	// when the run came to it. Next is the step that it came to, "" for none.
	Step, Outcome string
	Since         time.Time
	Next          string
	Reason        string // of an end, and of RunSkipped
	Error         string
	TriggerID     string
	// Does is the kind of the step that is over, or failed, when it has done something
	// outside; Anew, of RunRetried, that what the run did before does not count any more.
	Does string
	Anew bool
}

// ForgottenRuns is a contact of whose runs nothing may be left.
type ForgottenRuns struct {
	ContactID string
	Partition int32
}

const (
	// erased is the reason that runs of the erased are counted under.
	erased = "erased"

	countedRuns = `
INSERT INTO journey_counters AS c (journey_id, version, node, what, detail, arm, partition, n, secs)
SELECT journey_id, version, node, what, detail, arm, partition, sum(n), sum(secs) FROM counted
GROUP BY journey_id, version, node, what, detail, arm, partition ORDER BY journey_id, version, node, what, detail, arm, partition
ON CONFLICT (journey_id, version, node, what, detail, arm, partition) DO UPDATE SET n = c.n + excluded.n, secs = c.secs + excluded.secs`

	countRuns = `
WITH counted AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::integer[], $8::bigint[], $9::double precision[])
        AS v (journey_id, version, node, what, detail, arm, partition, n, secs)
)` + countedRuns

	startRuns = `
INSERT INTO journey_runs (run_id, contact_id, journey_id, version, key, arm, entry, status, node, node_since, entered_at, ended_at, converted_at, reason, error, trigger_id, log, effects)
SELECT v.* FROM unnest($1::text[]::uuid[], $2::text[]::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[],
    $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::text[], $15::text[], $16::text[], $17::text[], $18::integer[]) AS v
ON CONFLICT (run_id) DO NOTHING`

	moveRuns = `
UPDATE journey_runs AS r
SET status = coalesce(v.status, r.status), node = coalesce(v.node, r.node), node_since = coalesce(v.since, r.node_since),
    ended_at = CASE WHEN v.status IS NULL THEN r.ended_at ELSE v.ended_at END, converted_at = coalesce(v.converted_at, r.converted_at),
    reason = CASE WHEN v.status IS NULL THEN r.reason ELSE v.reason END, error = CASE WHEN v.status IS NULL THEN r.error ELSE v.error END,
    log = CASE WHEN length(r.log) < 16384 THEN r.log || v.log ELSE r.log END, effects = CASE WHEN v.anew THEN 0 ELSE r.effects END + v.effects
FROM unnest($1::text[]::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::text[], $9::text[], $10::integer[], $11::boolean[])
    AS v (run_id, status, node, since, ended_at, converted_at, reason, error, log, effects, anew)
WHERE r.run_id = v.run_id`

	takeInRuns = `
UPDATE journey_runs AS r SET contact_id = v.survivor
FROM unnest($1::text[]::uuid[], $2::text[]::uuid[]) AS v (loser, survivor)
WHERE r.contact_id = v.loser`

	forgetRuns = `
WITH forgotten AS (SELECT * FROM unnest($1::text[]::uuid[], $2::integer[]) AS v (contact_id, partition)),
removed AS (
    DELETE FROM journey_runs AS r USING forgotten AS f WHERE r.contact_id = f.contact_id RETURNING r.*, f.partition
), counted AS (
    SELECT journey_id, version, at.node, 'exited' AS what, '` + erased + `' AS detail, coalesce(arm, '') AS arm, partition, 1 AS n, 0::double precision AS secs
    FROM removed, LATERAL (VALUES (''), (node)) AS at (node)
    WHERE ended_at IS NULL
)` + countedRuns
)

// SaveJourneyChanges writes what happened to runs of journeys, with the counters, in one
// round trip of at most five statements, however many there are. The changes of a run are in
// the order in which they happened. took says into whom contacts were merged, whose runs are
// the survivor's from then on. Of the contacts in forget nothing is left but counters, in
// which a run that lived has ended as erased.
//
// What it is told twice counts twice: it is told in the transaction that what happened is
// committed with.
func (tx *Tx) SaveJourneyChanges(ctx context.Context, changes []JourneyChange, took map[string]string, forget []ForgottenRuns) error {
	var batch pgx.Batch
	if len(took) > 0 {
		losers := slices.Sorted(maps.Keys(took))
		survivors := make([]string, len(losers))
		for i, loser := range losers {
			survivors[i] = took[loser]
		}
		batch.Queue(takeInRuns, losers, survivors)
	}
	started, moved := foldRuns(changes)
	if len(started) > 0 {
		queueStarted(&batch, started)
	}
	if len(moved) > 0 {
		queueMoved(&batch, moved)
	}
	if counts := countChanges(changes); len(counts) > 0 {
		queueCounts(&batch, counts)
	}
	if len(forget) > 0 {
		contacts, partitions := make([]string, len(forget)), make([]int32, len(forget))
		for i, f := range forget {
			contacts[i], partitions[i] = f.ContactID, f.Partition
		}
		batch.Queue(forgetRuns, contacts, partitions)
	}
	if batch.Len() == 0 {
		return nil
	}
	if err := tx.sql.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("save %d changes of runs, take in %d contacts, forget %d: %w", len(changes), len(took), len(forget), err)
	}
	return nil
}

// runRow is what changes make of a row; nil and zero leave it as it is.
type runRow struct {
	begin     *JourneyChange // that started it, of a new row
	id        string
	status    *string
	node      *string
	since     time.Time
	ended     time.Time
	converted time.Time
	reason    *string
	error     *string
	log       []byte
	effects   int32
	anew      bool
}

// foldRuns is the last of each run, in the order in which they came first: one statement
// must not touch a row twice.
func foldRuns(changes []JourneyChange) (started, moved []*runRow) {
	rows := make(map[string]*runRow, len(changes))
	for i := range changes {
		c := &changes[i]
		if c.RunID == "" {
			continue
		}
		row := rows[c.RunID]
		switch {
		case row == nil && c.Kind == RunStarted:
			row = &runRow{begin: c, id: c.RunID}
			started = append(started, row)
		case row == nil:
			row = &runRow{id: c.RunID}
			moved = append(moved, row)
		}
		rows[c.RunID] = row
		row.take(c)
	}
	return started, moved
}

func (r *runRow) take(c *JourneyChange) {
	r.log = c.appendLine(r.log)
	if c.Anew {
		r.anew, r.effects = true, 0
	}
	if c.Does != "" {
		r.effects++
	}
	switch c.Kind {
	case RunStarted, RunRetried:
		waiting := RunWaiting
		r.status, r.ended, r.reason, r.error = &waiting, time.Time{}, nil, nil
		r.stand(cmp.Or(c.Next, c.Step), c.At)
	case RunStepped:
		r.stand(c.Next, c.At)
	case RunConverted:
		r.converted = c.At
	case RunExited, RunCompleted, RunFailed:
		r.status, r.ended = &c.Kind, c.At
		r.reason, r.error = optionalText(c.Reason), optionalText(c.Error)
		r.stand(c.Step, c.Since)
	}
}

func (r *runRow) stand(node string, since time.Time) {
	if r.since = since; node != "" {
		r.node = &node
	}
}

// optionalText is NULL for an empty text.
func optionalText(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func queueStarted(batch *pgx.Batch, started []*runRow) {
	n := len(started)
	ids, contacts, journeys, versions, keys, arms := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]*string, n), make([]*string, n)
	entries, statuses, nodes, since, entered := make([]int64, n), make([]*string, n), make([]string, n), make([]time.Time, n), make([]time.Time, n)
	ended, converted := make([]*time.Time, n), make([]*time.Time, n)
	reasons, failures, triggers, logs, effects := make([]*string, n), make([]*string, n), make([]string, n), make([]string, n), make([]int32, n)
	for i, r := range started {
		b := r.begin
		ids[i], contacts[i], journeys[i], versions[i] = b.RunID, b.ContactID, b.JourneyID, b.Version
		keys[i], arms[i], entries[i], statuses[i] = optionalText(b.Key), optionalText(b.Arm), b.Entry, r.status
		since[i], entered[i] = cmp.Or(r.since, b.At), cmp.Or(b.EnteredAt, b.At)
		if r.node != nil {
			nodes[i] = *r.node
		}
		ended[i], converted[i] = optionalTime(r.ended), optionalTime(r.converted)
		reasons[i], failures[i], triggers[i], logs[i], effects[i] = r.reason, r.error, b.TriggerID, string(r.log), r.effects
	}
	batch.Queue(startRuns, ids, contacts, journeys, versions, keys, arms, entries, statuses, nodes, since, entered, ended, converted, reasons, failures, triggers, logs, effects)
}

func queueMoved(batch *pgx.Batch, moved []*runRow) {
	n := len(moved)
	ids, statuses, nodes, since := make([]string, n), make([]*string, n), make([]*string, n), make([]*time.Time, n)
	ended, converted, reasons, failures := make([]*time.Time, n), make([]*time.Time, n), make([]*string, n), make([]*string, n)
	logs, effects, anew := make([]string, n), make([]int32, n), make([]bool, n)
	for i, r := range moved {
		ids[i], statuses[i], nodes[i], since[i] = r.id, r.status, r.node, optionalTime(r.since)
		ended[i], converted[i], reasons[i], failures[i] = optionalTime(r.ended), optionalTime(r.converted), r.reason, r.error
		logs[i], effects[i], anew[i] = string(r.log), r.effects, r.anew
	}
	batch.Queue(moveRuns, ids, statuses, nodes, since, ended, converted, reasons, failures, logs, effects, anew)
}

// counter is a row of journey_counters.
type counter struct {
	journey, version, node, what, detail, arm string
	partition                                 int32
}

type counted struct {
	n    int64
	secs float64
}

// countChanges is what changes add to the counters: of each run as a whole, and of the steps
// that it comes to and leaves.
func countChanges(changes []JourneyChange) map[counter]counted {
	counts := make(map[counter]counted)
	for i := range changes {
		c := &changes[i]
		add := func(node, what, detail string, took time.Duration) {
			k := counter{c.JourneyID, c.Version, node, what, detail, c.Arm, c.Partition}
			counts[k] = counted{counts[k].n + 1, counts[k].secs + took.Seconds()}
		}
		switch c.Kind {
		case RunStarted, RunRetried, RunSkipped, RunConverted:
			add("", c.Kind, c.Reason, 0)
		case RunExited, RunCompleted, RunFailed:
			add("", c.Kind, c.Reason, c.At.Sub(c.EnteredAt))
			if c.Step != "" {
				add(c.Step, c.Kind, c.Reason, c.At.Sub(c.Since))
			}
		case RunStepped:
			add(c.Step, c.Kind, c.Outcome, c.At.Sub(c.Since))
		}
		if c.Next != "" {
			add(c.Next, "came", "", 0)
		}
		if c.Does == emails {
			add("", RunMailed, "", 0)
		}
	}
	return counts
}

// CountJourneyChanges are the counters that changes come to, as SaveJourneyChanges writes
// them, in the order of [DB.JourneyCounts].
func CountJourneyChanges(changes []JourneyChange) []JourneyCount {
	sums := map[JourneyCount]counted{}
	for k, v := range countChanges(changes) {
		c := JourneyCount{JourneyID: k.journey, Version: k.version, Step: k.node, What: k.what, Detail: k.detail, Arm: k.arm}
		sums[c] = counted{sums[c].n + v.n, sums[c].secs + v.secs}
	}
	out := make([]JourneyCount, 0, len(sums))
	for c, sum := range sums {
		c.N, c.Took = sum.n, time.Duration(sum.secs*float64(time.Second))
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b JourneyCount) int {
		return cmp.Or(cmp.Compare(a.JourneyID, b.JourneyID), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Step, b.Step),
			cmp.Compare(a.What, b.What), cmp.Compare(a.Detail, b.Detail), cmp.Compare(a.Arm, b.Arm))
	})
	return out
}

func queueCounts(batch *pgx.Batch, counts map[counter]counted) {
	n := 0
	journeys, versions, nodes, whats := make([]string, len(counts)), make([]string, len(counts)), make([]string, len(counts)), make([]string, len(counts))
	details, arms, partitions := make([]string, len(counts)), make([]string, len(counts)), make([]int32, len(counts))
	ns, secs := make([]int64, len(counts)), make([]float64, len(counts))
	for k, v := range counts {
		journeys[n], versions[n], nodes[n], whats[n], details[n], arms[n], partitions[n] = k.journey, k.version, k.node, k.what, k.detail, k.arm, k.partition
		ns[n], secs[n] = v.n, v.secs
		n++
	}
	batch.Queue(countRuns, journeys, versions, nodes, whats, details, arms, partitions, ns, secs)
}

// CleanJourneyRuns removes at most limit runs that ended before a time, and says how many.
// The counters stay.
func (db *DB) CleanJourneyRuns(ctx context.Context, before time.Time, limit int) (int64, error) {
	return db.clean(ctx, "finished runs of journeys", `
DELETE FROM journey_runs WHERE run_id IN
    (SELECT run_id FROM journey_runs WHERE ended_at < $1 ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED)`, before, limit)
}
