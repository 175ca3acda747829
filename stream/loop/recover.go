package loop

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// none stands for an offset that the group does not have.
const none int64 = -1

// act is what an assignment finds to do on a partition.
type act int

const (
	actBegin    act = iota // applied and published: go on from next
	actSeed                // insert the row, or the topics it lacks, at the log's start
	actNote                // insert the rows of all partitions at the ends of the logs, to be taken over
	actTakeOver            // go on taking over what Postgres knows
	actCommit              // commit next to the group, then look again
	actPublish             // applied, not published: publish pending, do not run the records again
	actStop                // a mismatch, for an operator
	actLeave               // written by a newer release, which goes on with it
	actAnew                // the state is of an era that is over; an operator has it taken over anew
)

// found is what is known of a partition right after an assignment, by topic
// without prefix. The offsets are read before the row, the bounds after it.
type found struct {
	partition int32
	knows     int32            // the highest format of this binary
	takesOver bool             // the processor begins with what Postgres knows
	era       int64            // of contacts, if it does
	committed map[string]int64 // none when the group has no offset
	row       *storage.Progress
	left      storage.Ranges // of topics that are no longer consumed
	starts    map[string]int64
	ends      map[string]int64
	ids       map[string]uuid.UUID // of the topics as they are now
}

// decision is what follows from found.
type decision struct {
	act    act
	starts storage.Ranges // for actSeed
	why    string         // for actStop: both offsets, and what disagrees; for actLeave: what it would take
}

// decide is the table of recovery in ARCHITECTURE.md. Every row of it is a
// case of TestRecoveryTable.
func decide(topics []string, f found, off rule) decision {
	if f.row == nil {
		return firstStart(topics, f, off)
	}
	if why := f.newerFormat(); why != "" {
		return decision{act: actLeave, why: why}
	}
	if why := f.formerEra(); why != "" {
		return decision{act: actAnew, why: why}
	}
	if why := f.otherLog(); why != "" {
		return decision{act: actStop, why: why}
	}
	if d, lacking := addedTopics(topics, f); lacking {
		return d
	}
	var unmoved, absent int // topics at from with from < next; topics without an offset
	settled := true         // all others stand at next
	for t, r := range f.row.Ranges {
		switch c := f.committed[t]; {
		case c == r.Next:
		case c == none && (f.row.Published || r.From == r.Next):
			absent++
		case c == r.From && !f.row.Published:
			unmoved++
		default:
			settled = false
		}
	}
	switch {
	case f.row.Accepted && !(settled && unmoved == 0 && absent == 0):
		return withinLog(actCommit, f)
	case !settled, unmoved > 0 && !allUnmoved(f):
		return decision{act: actStop, why: f.String() + ": neither where the row begins nor where it ends"}
	case unmoved > 0:
		return decision{act: actPublish}
	case absent > 0 && !(off.has(ruleResume) && f.beyondStart()):
		return withinLog(actCommit, f)
	}
	if f.row.TakingOver != nil {
		return withinLog(actTakeOver, f)
	}
	return withinLog(actBegin, f)
}

// otherLog says which topic was made anew since the row was written, "" for none.
// The offsets of such a row mean nothing: the group's may have gone with the topic, and
// the table would commit them again.
func (f found) otherLog() string {
	for _, t := range slices.Sorted(maps.Keys(f.row.Ranges)) {
		if was, is := f.row.Ranges[t].TopicID, f.ids[t]; storage.OtherLog(was, is) {
			return fmt.Sprintf("%s: %s", f, stream.MadeAnew(schemas.Topic(t), was, is))
		}
	}
	return ""
}

// formerEra says that contacts were rebuilt since the processor took over, without it; ""
// when they were not. The numbers that it goes by count in an era that is over.
func (f found) formerEra() string {
	if !f.takesOver || f.row.Era == nil || *f.row.Era >= f.era {
		return ""
	}
	return fmt.Sprintf("its state is of era %d, and contacts were rebuilt in era %d, by a command that did not know this processor", *f.row.Era, f.era)
}

// lag is how much of the logs is not applied: all of one that the row does not stand on.
func (f found) lag() (records int64) {
	for t, end := range f.ends {
		from := f.starts[t]
		if r, known := f.rangeOf(t); known && !storage.OtherLog(r.TopicID, f.ids[t]) {
			from = max(from, r.Next)
		}
		records += max(end-from, 0)
	}
	return records
}

func firstStart(topics []string, f found, off rule) decision {
	for _, t := range topics {
		if f.committed[t] != none {
			return decision{act: actStop, why: f.String() + ": the group has an offset and Postgres has no row (a lost database?)"}
		}
	}
	if f.takesOver {
		return decision{act: actNote}
	}
	if off.has(ruleSeed) {
		return decision{act: actBegin, starts: startOf(topics, f)}
	}
	return decision{act: actSeed, starts: startOf(topics, f)}
}

// beyondStart says that something was processed.
func (f found) beyondStart() bool {
	for t, r := range f.row.Ranges {
		if r.Next != f.starts[t] {
			return true
		}
	}
	return false
}

func startOf(topics []string, f found) storage.Ranges {
	r := make(storage.Ranges, len(topics))
	for _, t := range topics {
		r[t] = storage.Range{From: f.starts[t], Next: f.starts[t], TopicID: f.ids[t]}
	}
	return r
}

// addedTopics is the first start of topics that the row does not know yet.
func addedTopics(topics []string, f found) (decision, bool) {
	var added []string
	for _, t := range topics {
		if _, known := f.row.Ranges[t]; known {
			continue
		}
		if f.committed[t] != none {
			return decision{act: actStop, why: f.String() + ": the group has an offset for " + t + " and the row does not know the topic"}, true
		}
		added = append(added, t)
	}
	return decision{act: actSeed, starts: startOf(added, f)}, len(added) > 0
}

// allUnmoved says that every topic the last apply read stands at from: nothing
// of it was published.
func allUnmoved(f found) bool {
	for t, r := range f.row.Ranges {
		if r.From < r.Next && f.committed[t] != r.From {
			return false
		}
	}
	return true
}

// withinLog refuses to go on from a place the log does not have.
func withinLog(a act, f found) decision {
	for t, r := range f.row.Ranges {
		start, ok := f.starts[t]
		if !ok {
			continue // a topic that is no longer consumed
		}
		if r.Next < start {
			return decision{act: actStop, why: fmt.Sprintf("%s: the log of %s now starts at %d; records from %d on were removed before they were processed", f, t, start, r.Next)}
		}
		if r.Next > f.ends[t] {
			return decision{act: actStop, why: fmt.Sprintf("%s: the log of %s ends at %d (was the topic made anew?)", f, t, f.ends[t])}
		}
	}
	return decision{act: a}
}

// String names both offsets of every topic.
func (f found) String() string {
	s := ""
	for i, t := range slices.Sorted(maps.Keys(f.committed)) {
		if i > 0 {
			s += ", "
		}
		s += t + ": the group stands at "
		if c := f.committed[t]; c == none {
			s += "no offset"
		} else {
			s += fmt.Sprint(c)
		}
		switch r, known := f.rangeOf(t); {
		case f.row == nil:
			s += ", no row"
		case !known:
			s += ", the row has no entry"
		default:
			s += fmt.Sprintf(", the row at [%d,%d)", r.From, r.Next)
		}
	}
	return s
}

func (f found) rangeOf(topic string) (storage.Range, bool) {
	if f.row == nil {
		return storage.Range{}, false
	}
	r, ok := f.row.Ranges[topic]
	return r, ok
}

// anew is what an operator can do about a partition whose state is of a former era.
func anew(processor string) string {
	return fmt.Sprintf("stop all processors and take it over anew with `hogstream processors rebuild %s`", processor)
}

// advice is what an operator can do about a stopped partition.
func advice(processor string, partition int32) string {
	return fmt.Sprintf("take a named offset with `hogstream processors accept %s --partition %d --offset TOPIC=N`, or restore state from the log with `hogstream processors rebuild %s`", processor, partition, processor)
}
