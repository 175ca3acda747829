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
}

// drawHistory draws what comes at seconds of its own, which no wait for another ends at: of what
// comes and what is due at one instant the order is open.
func drawHistory(t *rapid.T, contact string) (out []happening) {
	minute, entries := start, int64(0)
	for n := range rapid.IntRange(3, 25).Draw(t, "happenings") {
		minute = minute.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "minutes")) * time.Minute)
		at := minute.Add(time.Duration(n+1) * time.Second)
		id := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, "late", n)).String()
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
	return &derive.Record[journeys.State]{ID: id, ContactID: contact, OccurredAt: h.at, Event: h.event, Fact: h.fact}
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

// step steps, now and then after a crash before the commit.
func (l *late) step(r *derive.Record[journeys.State]) {
	call := func() derive.Result[journeys.State] {
		result, err := l.logic.Step(l.read(), r, l.now)
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
		timer := l.timers[0]
		l.timers = nil
		l.step(&derive.Record[journeys.State]{ContactID: l.contact, OccurredAt: timer.Due, Timer: &timer})
	}
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

// Records that are handled late, clocks that jump, timers that are told late or once more,
// crashes before a commit and take-overs anew: what is said is the same as in time, to the
// microsecond and the id.
func TestWhateverIsLateTheStoryIsTheSame(t *testing.T) {
	contact := uuid.NewSHA1(uuid.NameSpaceOID, []byte("late")).String()
	rapid.Check(t, func(t *rapid.T) {
		logic := lateLogic(t)
		history := drawHistory(t, contact)
		end := history[len(history)-1].at.Add(3 * day)

		var inTime []string
		r := derive.NewRehearsal(logic, func(m schemas.Message, _ time.Time) { inTime = append(inTime, saying(m)) })
		for i := range history {
			require.NoError(t, r.Step(history[i].record(contact), history[i].at))
		}
		require.NoError(t, r.Until(end))

		l := &late{t: t, logic: logic, contact: contact, now: start, row: storage.Contact{ID: contact, Properties: "{}"}}
		for i := 0; i < len(history); i++ {
			l.wait(history[i].at)
			if rapid.IntRange(0, 2).Draw(t, "outage") == 0 { // some records wait, and no timer is told meanwhile
				behind := i
				for i+1 < len(history) && rapid.Bool().Draw(t, "waits too") {
					i++
				}
				l.now = history[i].at.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "late")) * time.Second)
				if i+1 < len(history) && l.now.After(history[i+1].at) {
					l.now = history[i+1].at
				}
				for ; behind < i; behind++ {
					l.take(&history[behind])
				}
			}
			l.take(&history[i])
		}
		for l.now.Before(end) { // of times that come again only the last counts that was missed
			l.wait(l.now.Add(min(12*time.Hour, end.Sub(l.now))))
			l.tick()
		}
		require.Equal(t, strings.Join(inTime, "\n"), strings.Join(l.said, "\n"))
		requireOnce(t, l.said)
		requireSameAsTold(t, l)
	})
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
