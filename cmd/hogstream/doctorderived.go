package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/timers"
)

// derivedFindings are about processors that hold state of contacts: what alerts tell of
// them while they run.
func derivedFindings(ctx context.Context, cfg hogstream.Config, db *storage.DB) []finding {
	const first = "mend kafka and postgres first"
	admin, err := stream.OpenAdmin(cfg.StreamConfig(), zap.NewNop())
	if err != nil {
		return []finding{ill("derived", err, first)}
	}
	defer admin.Close()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	findings := []finding{timersFinding(ctx, admin, db), heldFinding(ctx, admin, db)}
	for _, p := range processors.All() {
		if !p.Derives() {
			continue
		}
		partitions, err := loop.ListProcessor(ctx, admin, db, p.Name)
		if err != nil {
			return append(findings, ill("take-over", err, first))
		}
		set, err := definition.Current(ctx, db)
		if err != nil {
			return append(findings, ill("filling", err, first))
		}
		parts, err := db.FillParts(ctx, p.Name, set.Version)
		if err != nil {
			return append(findings, ill("filling", err, first))
		}
		findings = append(findings, judgeTakeOver(p.Name, partitions), judgeFilling(p.Name, parts, set.Version))
	}
	return findings
}

func timersFinding(ctx context.Context, admin *stream.Admin, db *storage.DB) finding {
	due, now, err := db.NextTimer(ctx)
	if err != nil {
		return ill("timers", err, "mend postgres first")
	}
	behind, err := admin.Behind(ctx, processors.Numbering(), now.Add(-timers.LagAllowed))
	if err != nil {
		return ill("timers", err, "mend kafka first")
	}
	return judgeTimers(timers.Overdue(due, now), behind)
}

// timersLate is for how long timers may be due that nobody sent: as the alert has it.
const timersLate = 30 * time.Second

func judgeTimers(overdue time.Duration, behind string) finding {
	late := overdue.Round(time.Second)
	switch {
	case overdue <= timersLate:
		return finding{What: "timers", OK: true, Note: "none is late"}
	case behind != "":
		return ill("timers", fmt.Errorf("due for %s and waiting for %s, an hour at most", late, behind), "see why it is behind: `hogstream processors ls`, its log")
	}
	return ill("timers", fmt.Errorf("due for %s and not sent", late), "see that a process with role processors runs, and how Postgres and processor buckets do: `hogstream processors ls`")
}

func heldFinding(ctx context.Context, admin *stream.Admin, db *storage.DB) finding {
	held, err := derive.Waiting(ctx, db, admin, time.Now())
	if err != nil {
		return ill("held", err, "mend kafka and postgres first")
	}
	for _, w := range held {
		return ill("held", fmt.Errorf("%s of %s waited more than a minute for those before them, longest of contact %s, since %s", counted(int(w.Records), "record"), w.Processor, w.ContactID, w.Appended.Local().Format(time.DateTime)),
			"`hogstream topics check-order --contact "+w.ContactID+"` says what is missing (docs/order.md)")
	}
	return finding{What: "held", OK: true, Note: "no record waits for those before it"}
}

// judgeTakeOver says what a take-over waits for. One that goes on is no fault.
func judgeTakeOver(processor string, partitions []loop.ProcessorPartition) finding {
	taking := 0
	for _, p := range partitions {
		if p.Waits != "" {
			return ill("take-over", fmt.Errorf("%s waits: %s", processor, p.Waits), "until then nothing is told of it: `hogstream processors ls "+processor+"` shows which partitions wait")
		}
		if p.TakingOver {
			taking++
		}
	}
	if taking > 0 {
		return finding{What: "take-over", OK: true, Note: fmt.Sprintf("%s takes over what is known of contacts on %s", processor, counted(taking, "partition"))}
	}
	return finding{What: "take-over", OK: true, Note: "nothing waits"}
}

// stillFor is for how long a filling may not move: whoever lost its signal is asked again
// sooner.
const stillFor = 2 * time.Minute

// judgeFilling says whether contacts are filled with the definitions in use.
func judgeFilling(processor string, parts []storage.FillPart, version int64) finding {
	var passed, total, behind int64
	open := 0
	for i := range parts {
		p := &parts[i]
		passed, total, behind = passed+p.Passed, total+p.Total, behind+p.Behind
		if p.Through() || version == 0 {
			continue
		}
		open++
		if p.Version == version && !p.TakingOver && p.Still > stillFor {
			return ill("filling", fmt.Errorf("%s has not moved for %s on partition %d, at %d of %d contacts", processor, p.Still.Round(time.Second), p.Partition, p.Passed, p.Total),
				"see that a process with role processors runs, and its log (`derive.…`)")
		}
	}
	switch {
	case open > 0:
		return finding{What: "filling", OK: true, Note: fmt.Sprintf("%s is at %d of %d contacts with version %d, on %s still", processor, passed, total, version, counted(open, "partition"))}
	case behind > 0:
		return ill("filling", errors.New(counted(int(behind), "contact")+" could not be filled by "+processor+" when they were passed"),
			"they are with their next record; why not is in the log (`derive.unfilled`)")
	}
	return finding{What: "filling", OK: true, Note: "as the definitions in use say"}
}
