package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// JourneyLogLine is something that happened to a run.
type JourneyLogLine struct {
	At   time.Time
	Kind string // of a JourneyChange
	// Step is the step that is over, or at which the run ended, Next the one that it came to.
	Step, Next string
	Detail     string // what came of the step, or the reason of the end
	Error      string
}

// maxLogError is how much of an error a line keeps, in bytes; the run has all of the last.
const maxLogError = 200

// appendLine adds what the log of a run says of a change.
func (c *JourneyChange) appendLine(log []byte) []byte {
	failure := c.Error
	if len(failure) > maxLogError {
		failure = strings.ToValidUTF8(failure[:maxLogError], "") + "…"
	}
	detail := c.Outcome
	if detail == "" {
		detail = c.Reason
	}
	line, err := json.Marshal([]any{c.At.UnixMicro(), c.Kind, c.Step, c.Next, detail, failure})
	if err != nil {
		panic(fmt.Sprintf("storage: a number and texts: %v", err))
	}
	return append(append(log, line...), '\n')
}

// readLine is the inverse of appendLine.
func readLine(text []byte) (l JourneyLogLine, err error) {
	var at int64
	if err := json.Unmarshal(text, &[]any{&at, &l.Kind, &l.Step, &l.Next, &l.Detail, &l.Error}); err != nil {
		return l, fmt.Errorf("a line of a log: %w", err)
	}
	l.At = time.UnixMicro(at).UTC()
	return l, nil
}

// JourneyLog is what happened to a run, in its order; of a run that goes on and on the first
// 16 KiB. A run that is not there has none.
func (db *DB) JourneyLog(ctx context.Context, run string) ([]JourneyLogLine, error) {
	var text []byte
	err := db.sql.QueryRow(ctx, `SELECT coalesce((SELECT log FROM journey_runs WHERE run_id = $1::text::uuid), '')`, run).Scan(&text)
	if err != nil {
		return nil, fmt.Errorf("read the log of run %s: %w", run, err)
	}
	var lines []JourneyLogLine
	for line := range bytes.Lines(text) {
		l, err := readLine(line)
		if err != nil {
			return nil, fmt.Errorf("run %s: %w", run, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// CountJourneyEffects is how much the runs that a filter takes have done outside (mails,
// calls and the like) since they began, or began anew, all together.
func (db *DB) CountJourneyEffects(ctx context.Context, f JourneyRunFilter) (n int64, err error) {
	condition, args := f.where()
	if err := db.sql.QueryRow(ctx, `SELECT coalesce(sum(effects), 0)::bigint FROM journey_runs AS r`+condition, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count what runs of journey %q have done: %w", f.JourneyID, err)
	}
	return n, nil
}
