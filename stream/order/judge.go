package order

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// Record is what the judgement needs of a record of topic events or lifecycle.
type Record struct {
	Contact string
	// Seq is the number that contacts gave; 0 on what was written before it gave any, on
	// derived facts, and on what is none of ours.
	Seq, Era int64
	// Derived says that another processor than contacts wrote it (bucket.*, journey.*,
	// email.*), whose facts have no place of their own in the order.
	Derived bool
	// AfterCut says that every number after this record's was written after the judged
	// range began, on whichever topic. It matters to a judge of a range that is cut.
	AfterCut bool

	Topic     schemas.Topic
	Partition int32
	Offset    int64
}

// Of takes from a record what the judgement needs.
func Of(r *stream.Record) Record {
	return Record{
		Contact: string(r.Key), Seq: r.Seq, Era: r.Era,
		Derived: r.Topic == schemas.TopicLifecycle && r.Unreadable == nil && !strings.HasPrefix(r.Type, "contact."),
		Topic:   r.Topic, Partition: r.Partition, Offset: r.Offset,
	}
}

// A Judge is given records, those of each topic and partition in the order of their
// offsets and the topics interleaved in any way, and says what is wrong with the numbers of
// each contact and era:
//   - on one topic they rise, and an era is over when the next begins;
//   - over both, each from the first to the highest stands exactly once.
//
// It keeps about 150 bytes a contact. It is a value of its records alone, and not safe for
// concurrent use.
type Judge struct {
	cut      bool
	contacts map[uuid.UUID]*numbers
	gaps     int
	eras     int
	report   Report
}

// NewJudge makes a judge. A range that is not cut has all that was ever written, so the
// numbers of each contact begin at 1. Of one that is cut, the two topics may have been cut
// apart in the middle of a transaction, so a number that is missing is a hole only behind a
// record that is AfterCut.
func NewJudge(cut bool) *Judge {
	return &Judge{cut: cut, contacts: make(map[uuid.UUID]*numbers)}
}

// numbers are those of a contact in an era.
type numbers struct {
	era       int64
	older     *numbers // of the era before; nil without one
	partition int32
	first     int64 // the lowest; 0 before any
	firstAt   place
	highest   int64
	highestAt place
	proven    int64    // what is missing above is a hole
	last      [2]int64 // on each topic
	gaps      []gap    // between first and highest, rising
}

// gap are numbers that have not come, between two records.
type gap struct {
	from, to      int64
	before, after place
}

// place is an offset on one of the two topics; nowhere without a record.
type place int64

const nowhere place = -1

func placeOf(r Record) place { return place(r.Offset<<1 | int64(topicIndex(r.Topic))) }

var topics = [2]schemas.Topic{schemas.TopicEvents, schemas.TopicLifecycle}

func topicIndex(t schemas.Topic) int {
	if t == schemas.TopicLifecycle {
		return 1
	}
	return 0
}

// Add takes the next record in.
func (j *Judge) Add(r Record) {
	j.report.Records++
	id, err := uuid.Parse(r.Contact)
	switch {
	case err != nil:
		j.report.Foreign++
	case r.Seq > 0:
		j.number(id, r)
	case r.Derived:
		j.report.Derived++
	case j.contacts[id].on(topicIndex(r.Topic), 0):
		j.found(KindUnnumbered, r)
	default:
		j.report.Unnumbered++
	}
}

func (j *Judge) number(id uuid.UUID, r Record) {
	if j.contacts[id] == nil {
		j.report.Contacts++
	}
	n := j.of(id, r)
	if j.contacts[id].on(topicIndex(r.Topic), r.Era+1) {
		j.found(KindDisorder, r)
	}
	gaps := len(n.gaps)
	switch kind := n.take(r); kind {
	case KindRepeat:
		j.found(kind, r)
	case KindDisorder:
		j.found(kind, r)
		j.report.Numbers++
	default:
		j.report.Numbers++
	}
	j.gaps += len(n.gaps) - gaps
}

// of finds the numbers of a record's era, or begins them.
func (j *Judge) of(id uuid.UUID, r Record) *numbers {
	n, newer := j.contacts[id], (*numbers)(nil)
	for n != nil && n.era > r.Era {
		n, newer = n.older, n
	}
	if n != nil && n.era == r.Era {
		return n
	}
	n = &numbers{era: r.Era, older: n, partition: r.Partition, proven: math.MaxInt64}
	if newer == nil {
		j.contacts[id] = n
	} else {
		newer.older = n
	}
	j.eras++
	return n
}

// on says whether there are numbers on a topic, of an era or a later one.
func (n *numbers) on(topic int, since int64) bool {
	for ; n != nil && n.era >= since; n = n.older {
		if n.last[topic] > 0 {
			return true
		}
	}
	return false
}

// take takes a number in, and says what is wrong with it.
func (n *numbers) take(r Record) (wrong Kind) {
	seq, at, topic := r.Seq, placeOf(r), topicIndex(r.Topic)
	switch {
	case n.first == 0:
		n.first, n.firstAt, n.highest, n.highestAt = seq, at, seq, at
	case seq > n.highest:
		if seq > n.highest+1 {
			n.gaps = append(n.gaps, gap{n.highest + 1, seq - 1, n.highestAt, at})
		}
		n.highest, n.highestAt = seq, at
	case !n.complete(seq, at):
		return KindRepeat
	}
	if r.AfterCut {
		n.proven = min(n.proven, seq)
	}
	if seq < n.last[topic] {
		return KindDisorder
	}
	n.last[topic] = seq
	return ""
}

// complete takes a number in that is below the highest; false when it was there before.
func (n *numbers) complete(seq int64, at place) bool {
	if seq >= n.first {
		return n.fill(seq)
	}
	if seq+1 < n.first {
		n.gaps = slices.Insert(n.gaps, 0, gap{seq + 1, n.first - 1, at, n.firstAt})
	}
	n.first, n.firstAt = seq, at
	return true
}

// fill takes a number out of the gaps; false when it is in none.
func (n *numbers) fill(seq int64) bool {
	i, _ := slices.BinarySearchFunc(n.gaps, seq, func(g gap, seq int64) int { return cmp.Compare(g.to, seq) })
	if i == len(n.gaps) || n.gaps[i].from > seq {
		return false
	}
	g := n.gaps[i]
	var left []gap
	if g.from < seq {
		left = append(left, gap{g.from, seq - 1, g.before, g.after})
	}
	if seq < g.to {
		left = append(left, gap{seq + 1, g.to, g.before, g.after})
	}
	n.gaps = slices.Replace(n.gaps, i, i+1, left...)
	return true
}

// Open says whether a number is missing below one that was seen.
func (j *Judge) Open() bool {
	for _, n := range j.contacts {
		for ; n != nil; n = n.older {
			if len(n.gaps) > 0 || n.first > 1 && j.wholly(n) {
				return true
			}
		}
	}
	return false
}

// wholly says whether all of an era is in the range.
func (j *Judge) wholly(n *numbers) bool {
	for o := n.older; o != nil; o = o.older {
		if o.proven < math.MaxInt64 {
			return true
		}
	}
	return !j.cut
}

// Fill takes a record from beyond the end of the judged range: its number is not missing
// below the highest one in it. Nothing else of it is judged.
func (j *Judge) Fill(r Record) {
	id, err := uuid.Parse(r.Contact)
	if err != nil || r.Seq <= 0 {
		return
	}
	for n := j.contacts[id]; n != nil; n = n.older {
		if n.era == r.Era && r.Seq < n.highest && n.complete(r.Seq, placeOf(r)) {
			j.report.Numbers++
		}
	}
}

// size is what the judge keeps, in entries of about 150 bytes at most.
func (j *Judge) size() int { return j.eras + j.gaps }

func (j *Judge) found(kind Kind, r Record) {
	j.report.add(Finding{Kind: kind, Contact: r.Contact, Era: r.Era, Seq: r.Seq, At: &Place{r.Topic, r.Partition, r.Offset}}, 1)
}

// Report says what was seen. More records may be added after it.
func (j *Judge) Report() Report {
	report := j.report
	report.Findings = slices.Clone(report.Findings)
	for id, n := range j.contacts {
		for ; n != nil; n = n.older {
			proven := n.proven
			gaps := n.gaps
			if j.wholly(n) {
				proven = 0
				if n.first > 1 {
					gaps = append([]gap{{1, n.first - 1, nowhere, n.firstAt}}, gaps...)
				}
			}
			for _, g := range gaps {
				if g.from < proven {
					report.Unproven += g.to - g.from + 1
					continue
				}
				report.add(Finding{
					Kind: KindHole, Contact: id.String(), Era: n.era, Seq: g.from, To: g.to,
					After: n.place(g.before), Before: n.place(g.after),
				}, g.to-g.from+1)
			}
		}
	}
	return report
}

func (n *numbers) place(p place) *Place {
	if p == nowhere {
		return nil
	}
	return &Place{topics[p&1], n.partition, int64(p >> 1)}
}
