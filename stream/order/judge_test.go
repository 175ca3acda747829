package order_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream/order"
)

var both = []schemas.Topic{schemas.TopicEvents, schemas.TopicLifecycle}

func contactID(i int) string { return uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, i)).String() }

// history writes what contacts would, each record on the topic that is drawn.
type history struct {
	records []order.Record
	seqs    map[string]int64
	eras    map[string]int64
}

func (h *history) write(contact string, topic schemas.Topic) {
	if h.seqs == nil {
		h.seqs, h.eras = map[string]int64{}, map[string]int64{}
	}
	h.seqs[contact]++
	h.append(order.Record{Contact: contact, Seq: h.seqs[contact], Era: h.eras[contact], Topic: topic})
}

func (h *history) append(r order.Record) { h.records = append(h.records, r) }

// placed gives offsets by the order on each topic.
func placed(records []order.Record) []order.Record {
	next := map[schemas.Topic]int64{}
	for i := range records {
		records[i].Offset = next[records[i].Topic]
		next[records[i].Topic]++
	}
	return records
}

func judged(cut bool, records ...order.Record) order.Report {
	j := order.NewJudge(cut)
	for _, r := range placed(records) {
		j.Add(r)
	}
	return j.Report()
}

func on(topic schemas.Topic, contact int, seqs ...int64) []order.Record {
	var records []order.Record
	for _, seq := range seqs {
		records = append(records, order.Record{Contact: contactID(contact), Seq: seq, Topic: topic})
	}
	return records
}

func events(seqs ...int64) []order.Record    { return on(schemas.TopicEvents, 1, seqs...) }
func lifecycle(seqs ...int64) []order.Record { return on(schemas.TopicLifecycle, 1, seqs...) }

func TestNumbersThatStandOnceOverBothTopicsAreRightHoweverTheTopicsAreInterleaved(t *testing.T) {
	for _, records := range [][]order.Record{
		slices.Concat(lifecycle(1, 3), events(2, 4)),
		slices.Concat(events(2, 4), lifecycle(1, 3)),
		slices.Concat(events(2), lifecycle(1, 3), events(4)),
	} {
		report := judged(false, records...)
		require.NoError(t, report.Err())
		require.Equal(t, []int64{4, 4, 1}, []int64{report.Records, report.Numbers, report.Contacts})
	}
}

func TestAHoleIsToldWithTheRecordsAroundIt(t *testing.T) {
	report := judged(false, slices.Concat(lifecycle(1), events(2, 5))...)
	require.EqualValues(t, 2, report.Missing)
	require.Zero(t, report.Repeated+report.Disorder+report.Lost)
	require.Equal(t, fmt.Sprintf("contact %s: 3 to 4 are missing, after events/0@0 and before events/0@1", contactID(1)), report.Findings[0].String())
	require.ErrorContains(t, report.Err(), "3 to 4 are missing")

	report = judged(false, events(2)...)
	require.Equal(t, fmt.Sprintf("contact %s: 1 is missing, before events/0@0", contactID(1)), report.Findings[0].String())
}

func TestAHoleOverTwoTopicsIsFoundWhichNeitherTopicShowsAlone(t *testing.T) {
	report := judged(false, slices.Concat(lifecycle(1, 4), events(2, 5))...)
	require.EqualValues(t, 1, report.Missing, "3")
}

func TestARepeatedNumberIsNoDisorder(t *testing.T) {
	report := judged(false, events(1, 2, 3, 1, 2, 3, 4)...)
	require.Equal(t, []int64{3, 0, 0}, []int64{report.Repeated, report.Disorder, report.Missing})
	report = judged(false, slices.Concat(events(1, 2), lifecycle(2, 3))...)
	require.EqualValues(t, 1, report.Repeated, "the same number on the other topic")
}

func TestNumbersThatChangedPlacesAreDisorderAndNoHole(t *testing.T) {
	report := judged(false, events(1, 3, 2, 4)...)
	require.Equal(t, []int64{0, 1, 0}, []int64{report.Repeated, report.Disorder, report.Missing})
	require.Equal(t, fmt.Sprintf("contact %s: 2 stands behind a higher number or era at events/0@2", contactID(1)), report.Findings[0].String())
}

func TestAnEraBeginsAtOneAndEndsTheOneBefore(t *testing.T) {
	era := func(era int64, records []order.Record) []order.Record {
		for i := range records {
			records[i].Era = era
		}
		return records
	}
	report := judged(false, slices.Concat(events(1, 2), era(7, events(1)), lifecycle(3), era(7, lifecycle(2)))...)
	require.NoError(t, report.Err(), "the topics are read at any speed")
	report = judged(false, slices.Concat(events(1, 2), era(7, events(1)), events(3))...)
	require.EqualValues(t, 1, report.Disorder)
	report = judged(false, slices.Concat(events(1, 2), era(7, events(2)))...)
	require.EqualValues(t, 1, report.Missing)
	report = judged(false, slices.Concat(era(7, events(1)), lifecycle(1, 2), era(3, lifecycle(1)))...)
	require.EqualValues(t, 0, report.Disorder, "eras that grow on each topic: %v", report.Findings)
}

func TestRecordsFromBeforeNumberingStandBeforeNumberedOnesOnly(t *testing.T) {
	report := judged(false, slices.Concat(lifecycle(0), events(0, 0, 1), lifecycle(2))...)
	require.NoError(t, report.Err())
	require.EqualValues(t, 3, report.Unnumbered)
	report = judged(false, events(0, 1, 0)...)
	require.EqualValues(t, 1, report.Lost)
	require.ErrorContains(t, report.Err(), "no number at events/0@2, behind one that has one")
}

func TestDerivedFactsHaveNoPlaceInTheOrder(t *testing.T) {
	derived := lifecycle(0)[0]
	derived.Derived = true
	report := judged(false, lifecycle(1)[0], derived, events(2)[0], derived, order.Record{Topic: schemas.TopicEvents, Contact: "nobody"})
	require.NoError(t, report.Err())
	require.Equal(t, []int64{2, 1, 2}, []int64{report.Derived, report.Foreign, report.Numbers})
}

func TestOfARangeThatIsCutOnlyWhatIsProvenIsAHole(t *testing.T) {
	afterCut := func(records []order.Record) []order.Record {
		for i := range records {
			records[i].AfterCut = true
		}
		return records
	}
	report := judged(true, slices.Concat(events(17, 19), afterCut(lifecycle(20)), afterCut(events(22)))...)
	require.EqualValues(t, 1, report.Unproven, "18 may stand before the range")
	require.EqualValues(t, 1, report.Missing, "21 does not")
	require.EqualValues(t, 21, report.Findings[0].Seq)

	report = judged(true, slices.Concat(events(19), lifecycle(17))...)
	require.NoError(t, report.Err(), "one topic may begin later")
	require.EqualValues(t, 1, report.Unproven)

	next := events(2)
	next[0].Era = 1
	report = judged(true, slices.Concat(afterCut(events(19)), next)...)
	require.EqualValues(t, 1, report.Missing, "an era that begins within the range begins at 1")
}

func TestWhatStandsBeyondTheEndFillsHolesAndIsNotJudged(t *testing.T) {
	j := order.NewJudge(false)
	for _, r := range lifecycle(1, 4) {
		j.Add(r)
	}
	require.True(t, j.Open())
	for _, r := range events(3, 2, 7) {
		j.Fill(r)
	}
	require.False(t, j.Open())
	report := j.Report()
	require.NoError(t, report.Err())
	require.EqualValues(t, 4, report.Numbers)
}

func TestAReportHasTheFirstFewOfEachKind(t *testing.T) {
	var records []order.Record
	for i := range 20 {
		records = append(records, on(schemas.TopicEvents, i, 1, 1, 5)...)
	}
	report := judged(false, records...)
	require.EqualValues(t, 20, report.Repeated)
	require.EqualValues(t, 60, report.Missing)
	require.Len(t, report.Findings, 10)
	for _, f := range report.Findings {
		at := f.At
		if f.Kind == order.KindHole {
			at = f.Before
		}
		require.Less(t, at.Offset, int64(15), "the first five contacts")
	}
}

// The judge agrees with one that looks at the whole history, whatever is left out, repeated,
// swapped or cut off, and however the two topics are interleaved.
func TestTheJudgeAgreesWithOneThatLooksAtTheWholeHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		records := spoil(rt, drawHistory(rt))
		cut := rapid.Bool().Draw(rt, "cut")
		if cut {
			records = cutOff(rt, records)
		}
		records = interleave(rt, records)
		j := order.NewJudge(cut)
		for _, r := range records {
			j.Add(r)
		}
		report := j.Report()
		naive := judgeNaively(cut, records)
		got := verdict{report.Numbers, report.Missing, report.Unproven, report.Repeated, report.Disorder, report.Lost, report.Unnumbered}
		require.Equal(rt, naive, got)
		require.Equal(rt, report.Wrong(), report.Err() != nil)
		require.Equal(rt, report.Wrong(), len(report.Findings) > 0)
		require.Equal(rt, report.Missing+report.Unproven > 0, j.Open())
	})
}

// A history that contacts could have written has nothing wrong, also when its beginning is
// cut off and when records of its end are missing on one topic and come later.
func TestWhatContactsWritesIsRightWhereverItIsCut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		whole := drawHistory(rt)
		cut := rapid.Bool().Draw(rt, "cut")
		records := whole
		if cut {
			records = cutOff(rt, records)
		}
		j := order.NewJudge(cut)
		ends := map[schemas.Topic]int64{}
		for _, topic := range both { // noted at different moments
			ends[topic] = int64(rapid.IntRange(0, len(whole)).Draw(rt, "end of "+string(topic)))
		}
		records = interleave(rt, records)
		for _, r := range records {
			if r.Offset < ends[r.Topic] {
				j.Add(r)
			}
		}
		for _, r := range records {
			if r.Offset >= ends[r.Topic] {
				j.Fill(r)
			}
		}
		report := j.Report()
		require.NoError(rt, report.Err())
	})
}

func drawHistory(rt *rapid.T) []order.Record {
	var h history
	for range rapid.IntRange(0, 40).Draw(rt, "records") {
		contact := contactID(rapid.IntRange(0, 2).Draw(rt, "contact"))
		topic := rapid.SampledFrom(both).Draw(rt, "topic")
		switch rapid.IntRange(0, 9).Draw(rt, "what") {
		case 0:
			h.append(order.Record{Contact: contact, Topic: schemas.TopicLifecycle, Derived: true})
		case 1:
			if h.seqs[contact] == 0 && h.eras[contact] == 0 {
				h.append(order.Record{Contact: contact, Topic: topic}) // from before numbering
			}
		case 2:
			if h.eras != nil {
				h.eras[contact]++
				h.seqs[contact] = 0
			}
		default:
			h.write(contact, topic)
		}
	}
	return placed(h.records)
}

// spoil leaves out, repeats and swaps.
func spoil(rt *rapid.T, records []order.Record) []order.Record {
	records = slices.Clone(records)
	for range rapid.IntRange(0, 5).Draw(rt, "faults") {
		if len(records) < 2 {
			break
		}
		a, b := rapid.IntRange(0, len(records)-1).Draw(rt, "a"), rapid.IntRange(0, len(records)-1).Draw(rt, "b")
		switch rapid.IntRange(0, 3).Draw(rt, "fault") {
		case 0:
			records = slices.Delete(records, a, a+1)
		case 1:
			records = slices.Insert(records, a, records[b])
		case 2:
			records[a], records[b] = records[b], records[a]
		case 3:
			records[a].Seq = 0
		}
	}
	return placed(records)
}

// cutOff takes the beginning away, of one topic a little more than of the other; what stands
// far enough behind the cut says so.
func cutOff(rt *rapid.T, records []order.Record) []order.Record {
	at := rapid.IntRange(0, len(records)).Draw(rt, "cut at")
	more := rapid.IntRange(0, 5).Draw(rt, "more")
	topic := rapid.SampledFrom(both).Draw(rt, "of")
	var left []order.Record
	for i, r := range records {
		if i < at || i < at+more && r.Topic == topic {
			continue
		}
		r.AfterCut = i >= at+more
		left = append(left, r)
	}
	return left
}

// interleave keeps the order of each topic, and no other.
func interleave(rt *rapid.T, records []order.Record) []order.Record {
	var queues [2][]order.Record
	for _, r := range records {
		i := slices.Index(both, r.Topic)
		queues[i] = append(queues[i], r)
	}
	var mixed []order.Record
	for len(queues[0])+len(queues[1]) > 0 {
		i := rapid.IntRange(0, 1).Draw(rt, "next")
		if len(queues[i]) == 0 {
			i = 1 - i
		}
		mixed = append(mixed, queues[i][0])
		queues[i] = queues[i][1:]
	}
	return mixed
}

type verdict struct{ numbers, missing, unproven, repeated, disorder, lost, unnumbered int64 }

// judgeNaively looks at all records again for each.
func judgeNaively(cut bool, records []order.Record) (v verdict) {
	before := func(i int, is func(o order.Record) bool) bool {
		return slices.ContainsFunc(records[:i], func(o order.Record) bool { return o.Contact == records[i].Contact && is(o) })
	}
	for i, r := range records {
		sameTopic := func(o order.Record) bool { return o.Topic == r.Topic && o.Seq > 0 }
		switch {
		case r.Seq == 0 && r.Derived:
		case r.Seq == 0 && before(i, sameTopic):
			v.lost++
		case r.Seq == 0:
			v.unnumbered++
		default:
			repeated := before(i, func(o order.Record) bool { return o.Era == r.Era && o.Seq == r.Seq })
			if repeated {
				v.repeated++
			} else {
				v.numbers++
			}
			if before(i, func(o order.Record) bool { return sameTopic(o) && o.Era > r.Era }) {
				v.disorder++
			}
			if !repeated && before(i, func(o order.Record) bool { return sameTopic(o) && o.Era == r.Era && o.Seq > r.Seq }) {
				v.disorder++
			}
		}
	}
	missing, unproven := missingNaively(cut, records)
	v.missing, v.unproven = missing, unproven
	return v
}

func missingNaively(cut bool, records []order.Record) (missing, unproven int64) {
	type era struct {
		contact string
		era     int64
	}
	seen := map[era]map[int64]bool{}
	var first []order.Record // what is repeated says nothing of when its number was written
	for _, r := range records {
		e := era{r.Contact, r.Era}
		if r.Seq == 0 || seen[e][r.Seq] {
			continue
		}
		if seen[e] == nil {
			seen[e] = map[int64]bool{}
		}
		seen[e][r.Seq] = true
		first = append(first, r)
	}
	for e, numbers := range seen {
		low, high := int64(1<<62), int64(0)
		for n := range numbers {
			low, high = min(low, n), max(high, n)
		}
		// Whatever comes after one of these was written within the range.
		proof := func(missing int64) bool {
			return !cut || slices.ContainsFunc(first, func(o order.Record) bool {
				return o.Contact == e.contact && o.AfterCut && (o.Era == e.era && o.Seq < missing || o.Era < e.era)
			})
		}
		if proof(1) {
			low = 1
		}
		for n := low; n < high; n++ {
			switch {
			case numbers[n]:
			case proof(n):
				missing++
			default:
				unproven++
			}
		}
	}
	return missing, unproven
}
