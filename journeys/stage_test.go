package journeys_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/journeys/journeystest"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
)

const someone = "0192f000-0000-7000-8000-00000000c0de"

// tester is a test, or a check of a property.
type tester interface {
	require.TestingT
	Helper()
}

// facts are those of one contact, as a processor keeps them.
type facts struct {
	set          *predicate.Set
	state        predicate.State
	members      map[string]bool
	unsubscribed bool
}

func (f *facts) Apply(r *predicate.Record) {
	f.set.Apply(&f.state, r, nil)
	var said struct{ BucketID string }
	switch r.Name {
	case schemas.FactBucketEntered, schemas.FactBucketLeft:
		if err := json.Unmarshal([]byte(r.Document()), &said); err != nil {
			panic(err)
		}
		f.members[said.BucketID] = r.Name == schemas.FactBucketEntered
	case schemas.FactContactUnsubscribed:
		f.unsubscribed = true
	}
}

func (f *facts) Has(bucketID string) bool { return f.members[bucketID] }
func (f *facts) Unsubscribed() bool       { return f.unsubscribed }
func (f *facts) Evaluate(condition string, now time.Time) predicate.Verdict {
	return f.set.Evaluate(f.set.Index(condition), &f.state, f, now)
}

func (f *facts) clone(t tester) *facts {
	out := *f
	out.members = maps.Clone(f.members)
	data, err := f.state.MarshalBinary()
	require.NoError(t, err)
	require.NoError(t, out.state.UnmarshalBinary(data))
	return &out
}

// stage is one contact in virtual time.
type stage struct {
	t       tester
	m       *journeys.Machine
	contact string
	s       journeys.State
	facts   *facts
	now     time.Time
	due     time.Time
	n       int

	effects []schemas.Message
	cancels []string
	jobs    []journeys.JobBegun
	over    []journeys.JobRef
	changes []journeys.Change

	asks  bool     // senders wait
	tried []string // what they are told, sorted: journey, key, and whether the event ended the run
}

var monday = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func parse(t tester, text string) journeys.Journey {
	t.Helper()
	j, err := journeys.ParseYAML("test.yaml", []byte(text))
	require.NoError(t, err)
	return j
}

func compile(t tester, text string) *journeys.Program {
	t.Helper()
	p, err := journeys.Compile(parse(t, text), journeys.Options{})
	require.NoError(t, err)
	return p
}

// steps is a journey that begins with start, as often as somebody likes.
func steps(text string) string {
	return "id: j\nname: J\nenabled: true\ntrigger: {event: start}\nentryLimit: unlimited\n" + text
}

func newStage(t tester, texts ...string) *stage {
	t.Helper()
	var in []journeys.InUse
	for _, text := range texts {
		in = append(in, journeys.InUse{Program: compile(t, text)})
	}
	s := &stage{t: t, contact: someone, now: monday}
	s.use(in, nil)
	return s
}

// use puts other journeys in use.
func (s *stage) use(current []journeys.InUse, older []*journeys.Program) {
	s.m = journeys.New(current, older, journeys.Options{})
	set, err := predicate.Compile(s.m.Conditions(), predicate.Options{Limits: predicate.DefaultLimits(), Buckets: []string{"vip", "cart"}})
	require.NoError(s.t, err)
	before := s.facts
	s.facts = &facts{set: set, members: map[string]bool{}}
	if before != nil {
		s.facts.state, s.facts.members, s.facts.unsubscribed = before.state, before.members, before.unsubscribed
	}
}

// step steps, twice, and compares.
func (s *stage) step(in *journeys.Input) {
	s.t.Helper()
	in.ContactID = s.contact
	again := s.facts.clone(s.t)
	before := bytesOf(s.t, &s.s)
	keys := map[string]string{}
	for _, r := range s.s.Runs() {
		keys[r.ID] = r.Key
	}
	first, err := s.m.Step(s.s, in, s.facts, s.now)
	require.NoError(s.t, err)
	for _, c := range first.State.Changes() {
		keys[c.Run] = c.Key // it began with what was due before
	}
	s.hear(first.Tried, keys)
	second, err := s.m.Step(s.s, in, again, s.now)
	require.NoError(s.t, err)
	require.Equal(s.t, before, bytesOf(s.t, &s.s), "a step leaves the state alone that it was given")
	s.same(&first, &second)
	s.take(&first)
}

// same compares what two steps came to, to the byte.
func (s *stage) same(a, b *journeys.Result) {
	s.t.Helper()
	require.Equal(s.t, bytesOf(s.t, &a.State), bytesOf(s.t, &b.State))
	require.Equal(s.t, a.Effects, b.Effects)
	require.Equal(s.t, a.Cancel, b.Cancel)
	require.Equal(s.t, a.Tried, b.Tried)
	require.Equal(s.t, a.Jobs, b.Jobs)
	require.Equal(s.t, a.JobsOver, b.JobsOver)
	require.Equal(s.t, a.Due, b.Due)
	if a.Same {
		require.Empty(s.t, a.Effects)
	}
}

// hear notes what a sender is told.
func (s *stage) hear(tried []journeys.Tried, keys map[string]string) {
	var lines []string
	for _, tr := range tried {
		key, lived := keys[tr.Run]
		require.True(s.t, lived)
		lines = append(lines, journeystest.TriedLine(tr.Journey, strings.Trim(key, `"`), tr.Exited))
	}
	slices.Sort(lines)
	s.tried = append(s.tried, lines...)
}

func (s *stage) take(r *journeys.Result) {
	s.t.Helper()
	s.changes = append(s.changes, r.State.Changes()...)
	s.jobs, s.over = append(s.jobs, r.Jobs...), append(s.over, r.JobsOver...)
	s.effects, s.cancels, s.due = append(s.effects, r.Effects...), append(s.cancels, r.Cancel...), r.Due
	// What is kept is what was encoded.
	s.s = journeys.State{}
	require.NoError(s.t, s.s.UnmarshalBinary(bytesOf(s.t, &r.State)))
}

func bytesOf(t tester, s *journeys.State) []byte {
	t.Helper()
	data, err := s.MarshalBinary()
	require.NoError(t, err)
	return data
}

func (s *stage) id() string {
	s.n++
	return uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, s.contact, s.n)).String()
}

// event is a product event now.
func (s *stage) event(name, properties string) string {
	s.t.Helper()
	return s.eventAt(name, properties, s.now)
}

func (s *stage) eventAt(name, properties string, occurred time.Time) string {
	s.t.Helper()
	e := &schemas.Event{ID: s.id(), ContactID: s.contact, Name: name, Properties: properties, OccurredAt: occurred, ReceivedAt: s.now, Wait: s.asks}
	s.step(&journeys.Input{ID: e.ID, OccurredAt: occurred, Event: e})
	return e.ID
}

// properties are the contact's from now on.
func (s *stage) properties(text string) {
	s.t.Helper()
	s.fact(&schemas.Fact{Type: schemas.FactContactUpdated, Contact: &schemas.ContactFact{Properties: text, UpdatedAt: s.now, FirstSeenAt: monday, LastSeenAt: s.now}})
}

func (s *stage) fact(f *schemas.Fact) string {
	s.t.Helper()
	f.ID, f.ContactID, f.OccurredAt = s.id(), s.contact, s.now
	s.step(&journeys.Input{ID: f.ID, OccurredAt: s.now, Fact: f})
	return f.ID
}

// enters and leaves are what processor buckets says.
func (s *stage) enters(bucket string, count int64) {
	s.t.Helper()
	s.fact(&schemas.Fact{Type: schemas.FactBucketEntered, Bucket: &schemas.BucketTransition{BucketID: bucket, BucketName: bucket, Transition: "entered", EntryCount: count, Source: "event"}})
}

func (s *stage) leaves(bucket, reason string) {
	s.t.Helper()
	s.fact(&schemas.Fact{Type: schemas.FactBucketLeft, Bucket: &schemas.BucketTransition{BucketID: bucket, BucketName: bucket, Transition: "left", EntryCount: 1, Source: "event", Reason: &reason}})
}

// receipt is what came of a call.
func (s *stage) receipt(outboxID, result, body string) {
	s.t.Helper()
	status := 200
	s.step(&journeys.Input{ID: s.id(), OccurredAt: s.now, Receipt: &schemas.Receipt{OutboxID: outboxID, Result: result, Status: &status, Body: &body, Reason: "because"}})
}

func (s *stage) command(c journeys.Command) {
	s.t.Helper()
	s.step(&journeys.Input{ID: s.id(), OccurredAt: s.now, Command: &c})
}

// pass lets time pass. What is due is told when it is.
func (s *stage) pass(d time.Duration) {
	s.t.Helper()
	until := s.now.Add(d)
	for !s.due.IsZero() && !s.due.After(until) {
		if s.due.After(s.now) {
			s.now = s.due
		}
		s.step(&journeys.Input{})
	}
	s.now = until
}

// sleep lets time pass, and nobody tells what is due until its end.
func (s *stage) sleep(d time.Duration) { s.now = s.now.Add(d) }

// story is what happened, a line each, from the facts.
func (s *stage) story() string {
	var lines []string
	for _, e := range s.effects {
		f, is := e.(*schemas.Fact)
		if !is {
			continue
		}
		j := f.Journey
		words := []string{strings.TrimPrefix(f.Type, "journey.")}
		for _, word := range []*string{j.Key, j.Step, j.Outcome, j.Reason, j.Error} {
			if word != nil {
				words = append(words, *word)
			}
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return strings.Join(lines, "\n")
}

// tells compares the story with lines.
func (s *stage) tells(lines ...string) {
	s.t.Helper()
	require.Equal(s.t, strings.Join(lines, "\n"), s.story())
}

// when is at which instants steps ended, of the first run of each.
func (s *stage) when(step string) time.Time {
	for _, c := range s.changes {
		if c.Step == step && c.Kind == journeys.Stepped {
			return c.At
		}
	}
	return time.Time{}
}

// sent are the effects of a kind.
func sent[T any](s *stage) []T {
	var out []T
	for _, e := range s.effects {
		if v, is := any(e).(T); is {
			out = append(out, v)
		}
	}
	return out
}

// merge has another contact be merged into this one.
func (s *stage) merge(loser *stage) {
	s.t.Helper()
	f := &schemas.Fact{ID: s.id(), Type: schemas.FactContactMerged, ContactID: s.contact, OccurredAt: s.now, Merged: &schemas.ContactMerged{LoserID: loser.contact, Properties: `{}`}}
	s.facts.set.Merge(&s.facts.state, &loser.facts.state)
	s.facts.unsubscribed = s.facts.unsubscribed || loser.facts.unsubscribed
	s.step(&journeys.Input{ID: f.ID, OccurredAt: s.now, Fact: f, Loser: &loser.s})
}

// another is a second contact with the same journeys.
func (s *stage) another() *stage {
	return &stage{t: s.t, contact: "0192f000-0000-7000-8000-0000000000ff", m: s.m, facts: &facts{set: s.facts.set, members: map[string]bool{}}, now: s.now, asks: s.asks}
}

// refill brings the state up to date with the journeys in use.
func (s *stage) refill(properties string) {
	s.t.Helper()
	r, err := s.m.Refill(s.s, &journeys.Known{ContactID: s.contact, Properties: properties}, s.facts, s.now)
	require.NoError(s.t, err)
	s.take(&r)
}
