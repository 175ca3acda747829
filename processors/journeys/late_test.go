package journeys_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/definition"
	machine "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// lateJourneys have waits of each kind, keys, exits, goals, and begin one another.
var lateJourneys = []string{
	written("a", `
trigger: {event: a}
key: k
live: restart
exitOn: [{event: c, where: {k: {run: key}}}, {leftBucket: keen, settle: 40m}]
goal: {event: b, within: 3h}
steps:
  - wait: 1h
  - id: paid
    waitFor: {any: [{event: b, where: {k: {run: key}}}, {condition: {type: property, property: plan, operator: eq, value: pro}}], timeout: 90m, lookback: 30m}
    then: {timeout: [{email: {template: late, props: {n: {trigger: n}}}}]}
  - call: {destination: crm, timeout: 20m, failed: continue}
`),
	written("b", `
trigger: {event: "journey.completed:a"}
steps:
  - branch: [{when: {type: event, eventName: a, check: count, operator: gte, value: 2, within: 3h}, do: [{wait: {at: "15:30"}}]}, {else: [{wait: 7m}]}]
  - trigger: {event: again}
`),
	written("c", `
trigger: [{event: a, where: {k: x}}, {event: "bucket.entered:keen"}]
live: queue
steps:
  - waitUntil: {property: date, shift: -10m, missing: continue}
  - waitFor: {any: [{condition: {type: event, eventName: b, check: not_exists, within: 1h}}], timeout: 4h}
  - set: {seen: {run: entry}}
`),
	written("d", "trigger: {repeat: {at: \"14:00\"}, bucket: keen, notAfter: 13h}\nsteps: [{wait: 50m}]\n"),
}

// happening is something that comes to the contact.
type happening struct {
	at    time.Time
	event *schemas.Event
	fact  *schemas.Fact
	loser *derive.Loser[journeys.State] // of contact.merged
	from  *late                         // the loser
}

// drawHistory draws what comes at seconds of its own, the first of which is given: no wait for
// another ends at them, for of what comes and what is due at one instant the order is open.
func drawHistory(t *rapid.T, contact string, second time.Duration) (out []happening) {
	minute, entries := start, int64(0)
	for n := range rapid.IntRange(3, 25).Draw(t, "happenings") {
		minute = minute.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "minutes")) * time.Minute)
		at := minute.Add(time.Duration(n)*time.Second + second)
		id := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, contact, n)).String()
		h := happening{at: at}
		switch what := rapid.IntRange(0, 8).Draw(t, "what"); what {
		case 0:
			entries++
			h.fact = &schemas.Fact{Type: schemas.FactBucketEntered, Bucket: &schemas.BucketTransition{BucketID: "keen", BucketName: "keen", Transition: "entered", EntryCount: entries}}
		case 1:
			h.fact = &schemas.Fact{Type: schemas.FactBucketLeft, Bucket: &schemas.BucketTransition{BucketID: "keen", BucketName: "keen", Transition: "left", EntryCount: entries}}
		case 2:
			properties := rapid.SampledFrom([]string{`{}`, `{"plan":"pro"}`, `{"date":"2026-03-02T16:00:00Z"}`, `{"plan":"pro","date":"2026-03-03"}`}).Draw(t, "properties")
			h.fact = &schemas.Fact{Type: schemas.FactContactUpdated, Contact: &schemas.ContactFact{Properties: properties, UpdatedAt: at, FirstSeenAt: start, LastSeenAt: at}}
		default:
			h.event = &schemas.Event{
				ID: id, ContactID: contact, Name: rapid.SampledFrom([]string{"a", "a", "b", "c"}).Draw(t, "event"), OccurredAt: at, ReceivedAt: at,
				Properties: fmt.Sprintf(`{"k":%q,"n":%d}`, rapid.SampledFrom([]string{"x", "y"}).Draw(t, "k"), n),
			}
		}
		if h.fact != nil {
			h.fact.ID, h.fact.ContactID, h.fact.OccurredAt = id, contact, at
		}
		out = append(out, h)
	}
	return out
}

func (h *happening) record(contact string) *derive.Record[journeys.State] {
	var id string
	if h.event != nil {
		id = h.event.ID
	} else {
		id = h.fact.ID
	}
	return &derive.Record[journeys.State]{
		ID: id, ContactID: contact, OccurredAt: h.at, Event: h.event, Fact: h.fact, Loser: h.loser, Place: derive.Place{AppendedAt: h.at},
	}
}

// late is a contact whose records, timers and take-overs come when they will.
type late struct {
	t       *rapid.T
	logic   *journeys.Logic
	contact string
	now     time.Time
	state   []byte
	timers  []derive.Timer
	stale   []derive.Timer
	row     storage.Contact
	beside  storage.Beside
	stored  []storage.StoredEvent
	said    []string
	changes []machine.Change
}

// saying is what was said in a line; ids are part of it, so that nothing is said twice.
func saying(m schemas.Message) string {
	meta := m.Meta()
	line := fmt.Sprintf("%s %s %s", meta.OccurredAt.Format("02 15:04:05.000000"), meta.Type, meta.ID)
	if f, is := m.(*schemas.Fact); is {
		for _, word := range []*string{&f.Journey.JourneyID, f.Journey.Key, f.Journey.Step, f.Journey.Outcome, f.Journey.Reason} {
			if word != nil {
				line += " " + *word
			}
		}
	}
	return line
}

func (l *late) read() journeys.State {
	s, err := journeys.DecodeState(l.state)
	require.NoError(l.t, err)
	return s
}

// step steps, now and then after a crash before the commit, and by a clock that was set back:
// not before what it is about.
func (l *late) step(r *derive.Record[journeys.State]) {
	now := l.now
	if back := now.Sub(r.OccurredAt); back > 0 && rapid.IntRange(0, 3).Draw(l.t, "clock") == 0 {
		now = now.Add(-time.Duration(rapid.Int64Range(0, int64(back/time.Second)).Draw(l.t, "set back")) * time.Second)
	}
	call := func() derive.Result[journeys.State] {
		result, err := l.logic.Step(l.read(), r, now)
		require.NoError(l.t, err)
		return result
	}
	first := call()
	if again := call(); rapid.Bool().Draw(l.t, "crash") {
		require.Equal(l.t, first.Outputs, again.Outputs, "a step that is made again says the same")
		first = again
	}
	l.accept(&first)
}

func (l *late) accept(r *derive.Result[journeys.State]) {
	data, err := journeys.EncodeState(r.State)
	require.NoError(l.t, err)
	for _, m := range r.Outputs {
		l.said = append(l.said, saying(m))
	}
	l.changes = append(l.changes, r.State.Changes()...)
	l.stale = append(l.stale, l.timers...)
	l.state, l.timers = data, r.Timers
}

// tick tells what is due by now, and now and then what was due once, which does nothing.
func (l *late) tick() {
	if len(l.stale) > 0 && rapid.IntRange(0, 4).Draw(l.t, "stale") == 0 {
		said := len(l.said)
		held := l.timers
		if len(held) == 0 || held[0].Due.After(l.now) {
			l.step(&derive.Record[journeys.State]{ContactID: l.contact, OccurredAt: l.stale[0].Due, Timer: &l.stale[0]})
			require.Len(l.t, l.said, said, "nothing is due")
		}
	}
	for len(l.timers) > 0 && l.timers[0].Due.Before(l.now) {
		l.tell()
	}
}

// tell tells the timer that is armed.
func (l *late) tell() {
	timer := l.timers[0]
	l.timers = nil
	l.step(&derive.Record[journeys.State]{ContactID: l.contact, OccurredAt: timer.Due, Timer: &timer})
}

// wait lets time pass until an instant, in jumps.
func (l *late) wait(until time.Time) {
	for l.now.Before(until) {
		if rapid.Bool().Draw(l.t, "jump") {
			l.now = until
		} else {
			l.now = l.now.Add(until.Sub(l.now)/2 + time.Microsecond)
		}
		if rapid.Bool().Draw(l.t, "tick") {
			l.tick()
			l.takeOverAnew()
		}
	}
	if l.now.After(until) {
		l.now = until
	}
}

// takeOverAnew does so now and then, when all that is due is done.
func (l *late) takeOverAnew() {
	if rapid.IntRange(0, 5).Draw(l.t, "take over anew") > 0 {
		return
	}
	k := &derive.Known{Contact: &l.row, Events: l.stored, Beside: &l.beside}
	state, timers := l.logic.TakeOver(l.read(), k, l.now)
	l.accept(&derive.Result[journeys.State]{State: state, Timers: timers})
	if l.logic.VersionOf(l.read()) >= l.logic.Version() {
		return
	}
	filled, err := l.logic.Refill(l.read(), k, l.now)
	require.NoError(l.t, err)
	l.accept(&filled)
}

// take is a record that is handled some time after it came.
func (l *late) take(h *happening) {
	switch {
	case h.event != nil:
		e := h.event
		l.stored = append(l.stored, storage.StoredEvent{ID: e.ID, ContactID: l.contact, Name: e.Name, Properties: e.Properties, OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt})
	case h.fact.Merged != nil:
		l.row.Properties = h.fact.Merged.Properties
		l.stored = append(l.stored, h.from.stored...)
		slices.SortStableFunc(l.stored, func(a, b storage.StoredEvent) int { return a.OccurredAt.Compare(b.OccurredAt) })
	case h.fact.Contact != nil:
		l.row.Properties = h.fact.Contact.Properties
	case h.fact.Type == schemas.FactBucketEntered:
		l.beside.Buckets = map[string]int64{"keen": h.fact.Bucket.EntryCount}
	case h.fact.Type == schemas.FactBucketLeft:
		l.beside.Buckets = nil
	}
	l.step(h.record(l.contact))
}

func lateLogic(t require.TestingT) *journeys.Logic {
	set := definition.Set{Version: 1, Buckets: []definition.BucketInUse{{Bucket: definition.Bucket{ID: "keen", Name: "keen", Enabled: true}}}}
	for _, text := range lateJourneys {
		def, err := machine.ParseYAML("late.yaml", []byte(text))
		require.NoError(t, err)
		set.Journeys = append(set.Journeys, definition.JourneyInUse{Journey: definition.Journey{Journey: def}, InUse: definition.InUse{Revision: 1, Declared: true}})
	}
	logic := journeys.Compile(&set, nil, journeys.Options{Limits: predicate.DefaultLimits()})
	require.Empty(t, logic.Failing())
	return logic
}

// live has a contact go through a history, in which some records wait for an outage to end, and
// then until an instant.
func (l *late) live(history []happening, end time.Time) {
	for i := 0; i < len(history); i++ {
		l.wait(history[i].at)
		if rapid.IntRange(0, 2).Draw(l.t, "outage") == 0 { // no timer is told meanwhile that was not under way before
			first := i
			for i+1 < len(history) && rapid.Bool().Draw(l.t, "waits too") {
				i++
			}
			l.now = history[i].at.Add(time.Duration(rapid.IntRange(0, 600).Draw(l.t, "late")) * time.Second)
			if next := append(history, happening{at: end})[i+1].at; l.now.After(next) {
				l.now = next
			}
			if len(l.timers) > 0 && l.timers[0].Due.Before(history[first].at) && rapid.Bool().Draw(l.t, "under way") {
				l.tell()
			}
			for ; first < i; first++ {
				l.take(&history[first])
			}
		}
		l.take(&history[i])
	}
	for l.now.Before(end) { // of times that come again only the last counts that was missed
		l.wait(l.now.Add(min(12*time.Hour, end.Sub(l.now))))
		l.tick()
	}
}

// handOver ends the contact at an instant, whatever of it is due.
func (l *late) handOver(at time.Time) *derive.Loser[journeys.State] {
	state, said := l.logic.HandOver(l.read(), l.contact, at)
	l.accept(&derive.Result[journeys.State]{State: state, Outputs: said})
	return &derive.Loser[journeys.State]{ContactID: l.contact, State: l.read()}
}

// Records that are handled late, clocks that jump and are set back, timers that are told late,
// once more, or were under way before an outage, crashes before a commit, take-overs anew, and
// another contact that is merged into this one, as late: what is said is the same as in time,
// to the microsecond and the id.
func TestWhateverIsLateTheStoryIsTheSame(t *testing.T) {
	ids := []string{uuid.NewSHA1(uuid.NameSpaceOID, []byte("late")).String(), uuid.NewSHA1(uuid.NameSpaceOID, []byte("loser")).String()}
	rapid.Check(t, func(t *rapid.T) {
		logic := lateLogic(t)
		var people []*late
		for _, id := range ids {
			people = append(people, &late{t: t, logic: logic, contact: id, now: start, row: storage.Contact{ID: id, Properties: "{}"}})
		}
		own, theirs := drawHistory(t, ids[0], time.Second), []happening(nil)
		merge := -1
		if rapid.Bool().Draw(t, "merges") {
			merge = rapid.IntRange(0, len(own)-1).Draw(t, "with")
			theirs = drawLoser(t, ids, &own[merge])
		}
		end := own[len(own)-1].at.Add(3 * day)

		inTime := map[string][]string{}
		r := derive.NewRehearsal(logic, func(m schemas.Message, _ time.Time) { inTime[about(m)] = append(inTime[about(m)], saying(m)) })
		for histories := [][]happening{own, theirs}; len(histories[0])+len(histories[1]) > 0; {
			whose := 0
			if len(histories[0]) == 0 || len(histories[1]) > 0 && histories[1][0].at.Before(histories[0][0].at) {
				whose = 1
			}
			next := &histories[whose][0]
			require.NoError(t, r.Step(next.record(ids[whose]), next.at))
			histories[whose] = histories[whose][1:]
		}
		require.NoError(t, r.Until(end))

		if merge >= 0 {
			last := start
			if n := len(theirs); n > 0 {
				last = theirs[n-1].at
			}
			at := own[merge].at
			quiet := at.Sub(last) / 4 * time.Duration(rapid.IntRange(0, 4).Draw(t, "nobody tells what is due"))
			people[1].live(theirs, at.Add(-quiet))
			own[merge].loser, own[merge].from = people[1].handOver(at), people[1]
		}
		people[0].live(own, end)
		for _, l := range people {
			require.Equal(t, strings.Join(inTime[l.contact], "\n"), strings.Join(l.said, "\n"))
			requireOnce(t, l.said)
			requireSameAsTold(t, l)
		}
	})
}

// drawLoser makes a happening the merge of another contact, and is that one's history before it.
func drawLoser(t *rapid.T, ids []string, merge *happening) []happening {
	merge.event = nil
	merge.fact = &schemas.Fact{
		ID: uuid.NewSHA1(uuid.NameSpaceOID, []byte("merge")).String(), Type: schemas.FactContactMerged, ContactID: ids[0], OccurredAt: merge.at,
		Merged: &schemas.ContactMerged{LoserID: ids[1], Properties: `{"plan":"free"}`},
	}
	history := drawHistory(t, ids[1], 1500*time.Millisecond)
	return slices.DeleteFunc(history, func(h happening) bool { return !h.at.Before(merge.at) })
}

// about is the contact of what is said.
func about(m schemas.Message) string {
	switch m := m.(type) {
	case *schemas.Fact:
		return m.ContactID
	case *schemas.EmailRequest:
		return m.ContactID
	case *schemas.Outbox:
		return m.ContactID
	case *schemas.Input:
		return *m.ContactID
	}
	return m.Key()
}

// requireOnce looks for what is said twice.
func requireOnce(t require.TestingT, said []string) {
	sorted := slices.Sorted(slices.Values(said))
	require.Equal(t, sorted, slices.Compact(slices.Clone(sorted)))
}

// requireSameAsTold compares what is written down of runs with what was told: one change for
// each fact.
func requireSameAsTold(t require.TestingT, l *late) {
	facts := 0
	for _, line := range l.said {
		if strings.Contains(line, " journey.") {
			facts++
		}
	}
	require.Len(t, l.changes, facts)
}
