package journeys_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	machine "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

var start = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// stage is one contact, the journeys in use, and what was told.
type stage struct {
	t       testing.TB
	set     definition.Set
	kept    []storage.JourneyVersion
	logic   *journeys.Logic
	id      string
	stepped journeys.State // as the last step left it, with its changes
	state   journeys.State
	timers  []derive.Timer
	now     time.Time

	hops    int            // that led to each record
	led     int            // that led to what the last step said
	ledTo   map[string]int // inputs
	told    []string
	effects []schemas.Message
	changes []machine.Change
	stored  []storage.StoredEvent
	row     storage.Contact
	beside  *storage.Beside
	n       int
}

// newStage has the journeys in use, and a contact that was just created.
func newStage(t testing.TB, texts ...string) *stage {
	s := newStageOf(t, "ann", texts...)
	s.updated(`{}`)
	return s
}

func newStageOf(t testing.TB, name string, texts ...string) *stage {
	s := &stage{t: t, now: start, ledTo: map[string]int{}, id: uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String()}
	s.row = storage.Contact{ID: s.id, Properties: "{}"}
	s.use(texts...)
	return s
}

// use makes these the definitions, beside the buckets vip and keen.
func (s *stage) use(texts ...string) { s.t.Helper(); s.useWith(nil, texts...) }

// useWith has what is in use of a journey changed, such as paused.
func (s *stage) useWith(change func(*definition.JourneyInUse), texts ...string) {
	s.t.Helper()
	before := s.set
	s.set = definition.Set{Version: before.Version + 1}
	for _, id := range []string{"keen", "vip"} {
		s.set.Buckets = append(s.set.Buckets, definition.BucketInUse{Bucket: definition.Bucket{ID: id, Name: id, Enabled: true}})
	}
	for _, text := range texts {
		def, err := machine.ParseYAML("test.yaml", []byte(text))
		require.NoError(s.t, err)
		in := definition.JourneyInUse{Journey: definition.Journey{Journey: def}, InUse: definition.InUse{Revision: s.set.Version, Declared: true}}
		if change != nil {
			change(&in)
		}
		if old := before.FindJourney(def.ID); old != nil && old.Canonical() == in.Canonical() && (!old.Paused || in.Paused) {
			in.Revision = old.Revision
		}
		s.set.Journeys = append(s.set.Journeys, in)
	}
	for _, v := range journeys.Versions(&s.set) {
		if !slices.ContainsFunc(s.kept, func(k storage.JourneyVersion) bool { return k.JourneyID == v.JourneyID && k.Version == v.Version }) {
			s.kept = append(s.kept, v)
		}
	}
	set := s.set
	s.logic = journeys.Compile(&set, s.kept, journeys.Options{Limits: predicate.DefaultLimits()})
	require.Empty(s.t, s.logic.Failing())
	for _, j := range set.Journeys {
		p, err := machine.Compile(j.Journey.Journey, machine.Options{})
		require.NoError(s.t, err)
		require.Equal(s.t, j.Identity(), p.Version(), "runs belong to the version that is kept")
	}
}

// accept takes over a result, as it is kept: encoded.
func (s *stage) accept(result derive.Result[journeys.State], err error) {
	s.t.Helper()
	require.NoError(s.t, err)
	if result.Same {
		require.Equal(s.t, encoded(s.t, s.state), encoded(s.t, result.State))
		require.Empty(s.t, result.Outputs)
	}
	if len(result.Outputs) > 0 {
		s.led = *result.Hops
	}
	s.changes = append(s.changes, result.State.Changes()...)
	s.stepped = result.State
	s.state, s.timers = decoded(s.t, encoded(s.t, result.State)), result.Timers
	s.tell(result.Outputs)
}

func encoded(t testing.TB, state journeys.State) []byte {
	t.Helper()
	data, err := journeys.EncodeState(state)
	require.NoError(t, err)
	return data
}

func decoded(t testing.TB, data []byte) journeys.State {
	t.Helper()
	state, err := journeys.DecodeState(data)
	require.NoError(t, err)
	require.Equal(t, data, encoded(t, state))
	return state
}

// tell notes facts as lines, such as "step vip email-0 next", and what else was said.
func (s *stage) tell(outputs []schemas.Message) {
	for _, m := range outputs {
		f, ok := m.(*schemas.Fact)
		if !ok {
			s.effects = append(s.effects, m)
			if in, ok := m.(*schemas.Input); ok {
				s.ledTo[in.ID] = s.led
			}
			continue
		}
		words := []string{strings.TrimPrefix(f.Type, "journey."), f.Journey.JourneyID}
		for _, word := range []*string{f.Journey.Step, f.Journey.Outcome, f.Journey.Reason} {
			if word != nil {
				words = append(words, *word)
			}
		}
		s.told = append(s.told, strings.Join(words, " "))
	}
}

// says is what was told since it was asked last.
func (s *stage) says(want ...string) {
	s.t.Helper()
	require.Equal(s.t, strings.Join(want, "\n"), strings.Join(s.told, "\n"))
	s.told = nil
}

func (s *stage) identifier() string {
	s.n++
	return uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, s.id, s.n)).String()
}

// event says that something happened now.
func (s *stage) event(name string, properties ...string) string {
	s.t.Helper()
	e := &schemas.Event{ID: s.identifier(), ContactID: s.id, Name: name, Properties: "{}", OccurredAt: s.now, ReceivedAt: s.now}
	if len(properties) > 0 {
		e.Properties = properties[0]
	}
	s.stored = append(s.stored, storage.StoredEvent{ID: e.ID, Name: e.Name, Properties: e.Properties, OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt})
	s.step(&derive.Record[journeys.State]{ID: e.ID, OccurredAt: e.OccurredAt, Event: e})
	return e.ID
}

func (s *stage) step(r *derive.Record[journeys.State]) {
	s.t.Helper()
	r.ContactID, r.Hops = s.id, s.hops
	s.accept(s.logic.Step(s.state, r, s.now))
}

func (s *stage) fact(f *schemas.Fact) {
	s.t.Helper()
	f.ID, f.OccurredAt = s.identifier(), s.now
	if f.ContactID == "" {
		f.ContactID = s.id
	}
	s.step(&derive.Record[journeys.State]{ID: f.ID, OccurredAt: f.OccurredAt, Fact: f})
}

// updated says what the properties of the contact are now.
func (s *stage) updated(properties string) {
	s.t.Helper()
	s.row.Properties = properties
	s.fact(&schemas.Fact{Type: schemas.FactContactUpdated, Contact: &schemas.ContactFact{Properties: properties, UpdatedAt: s.now, FirstSeenAt: start, LastSeenAt: s.now}})
}

// transition is what processor buckets says of a contact.
func (s *stage) transition(contact, bucket, what string, epoch int64) {
	s.t.Helper()
	s.fact(&schemas.Fact{
		ContactID: contact, Type: "bucket." + what, Bucket: &schemas.BucketTransition{BucketID: bucket, BucketName: bucket, Transition: what, EntryCount: epoch, Source: "event"},
	})
}

func (s *stage) command(what string, c machine.Command) {
	s.t.Helper()
	text, err := json.Marshal(c)
	require.NoError(s.t, err)
	s.step(&derive.Record[journeys.State]{ID: s.identifier(), OccurredAt: s.now, Command: &derive.Command{What: what, JSON: string(text)}})
}

// until lets time pass, and steps every timer at its due.
func (s *stage) until(at time.Time) {
	s.t.Helper()
	for len(s.timers) > 0 && !s.timers[0].Due.After(at) {
		timer := s.timers[0]
		if timer.Due.After(s.now) {
			s.now = timer.Due
		}
		s.timers = nil
		s.step(&derive.Record[journeys.State]{OccurredAt: timer.Due, Timer: &timer})
	}
	s.now = at
}

// after is until, some time later.
func (s *stage) after(d time.Duration) { s.t.Helper(); s.until(s.now.Add(d)) }

// refill brings the state up to date with the definitions.
func (s *stage) refill() {
	s.t.Helper()
	version := s.logic.VersionOf(s.state)
	if version >= s.logic.Version() {
		return
	}
	k := &derive.Known{Contact: &s.row, Beside: s.beside}
	for _, e := range s.stored {
		if slices.Contains(s.logic.Names(version), e.Name) {
			k.Events = append(k.Events, e)
		}
	}
	s.accept(s.logic.Refill(s.state, k, s.now))
	require.Equal(s.t, s.logic.Version(), s.logic.VersionOf(s.state))
}

// merge folds another contact into this one.
func (s *stage) merge(loser *stage) {
	s.t.Helper()
	state, said := s.logic.HandOver(loser.state, loser.id, s.now)
	require.Empty(s.t, said)
	s.stored = append(s.stored, loser.stored...)
	f := &schemas.Fact{
		ID: s.identifier(), Type: schemas.FactContactMerged, ContactID: s.id, OccurredAt: s.now, Merged: &schemas.ContactMerged{LoserID: loser.id, Properties: s.row.Properties},
	}
	s.step(&derive.Record[journeys.State]{
		ID: f.ID, OccurredAt: f.OccurredAt, Fact: f, Loser: &derive.Loser[journeys.State]{ContactID: loser.id, State: decoded(s.t, encoded(s.t, state))},
	})
}

// takeOverAnew is what a rebuild does.
func (s *stage) takeOverAnew() {
	s.t.Helper()
	k := &derive.Known{Contact: &s.row, Events: s.stored, Beside: s.beside}
	state, timers := s.logic.TakeOver(s.state, k, s.now)
	require.Empty(s.t, state.Changes())
	s.state, s.timers = decoded(s.t, encoded(s.t, state)), timers
}
