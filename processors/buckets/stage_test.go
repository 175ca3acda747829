package buckets_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

var start = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// stage is one contact, the buckets in use, and what was told.
type stage struct {
	t      testing.TB
	set    definition.Set
	logic  *buckets.Logic
	id     string
	email  string
	state  buckets.State
	timers []derive.Timer
	now    time.Time

	told   []string // such as "entered b 1 event", "left b 1 event criteria", "dwell b 1 reconcile after-3600000 1"
	facts  []*schemas.Fact
	stored []storage.StoredEvent
	row    storage.Contact
	n      int
}

// newStage has the buckets in use, and a contact that was just created.
func newStage(t testing.TB, list ...definition.Bucket) *stage {
	s := newStageOf(t, "ann", list...)
	s.updated(`{}`)
	return s
}

func newStageOf(t testing.TB, name string, list ...definition.Bucket) *stage {
	s := &stage{t: t, now: start, id: uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String()}
	s.row = storage.Contact{ID: s.id, Properties: "{}"}
	s.use(list...)
	return s
}

// bucket is one in use.
func bucket(id string, c predicate.Condition, more ...func(*definition.Bucket)) definition.Bucket {
	b := definition.Bucket{ID: id, Name: "Bucket " + id, Enabled: true, Criteria: c}
	for _, change := range more {
		change(&b)
	}
	return b
}

// use makes these the definitions. A bucket is revised when it was not there, was not in
// use, or is another.
func (s *stage) use(list ...definition.Bucket) {
	before := s.set
	s.set = definition.Set{Version: before.Version + 1}
	for _, b := range list {
		in := definition.BucketInUse{Bucket: b, InUse: definition.InUse{Revision: s.set.Version}}
		if old := before.Find(b.ID); old != nil && old.Enabled && fmt.Sprintf("%+v", old.Bucket) == fmt.Sprintf("%+v", b) {
			in.Revision = old.Revision
		}
		s.set.Buckets = append(s.set.Buckets, in)
	}
	set := s.set
	s.logic = buckets.Compile(&set, buckets.Options{Limits: predicate.DefaultLimits()})
}

func (s *stage) accept(result derive.Result[buckets.State], err error) {
	s.t.Helper()
	require.NoError(s.t, err)
	s.state, s.timers = result.State, result.Timers
	s.tell(result.Outputs)
}

func (s *stage) tell(outputs []schemas.Message) {
	for _, m := range outputs {
		f := m.(*schemas.Fact)
		text := fmt.Sprintf("%s %s %d %s", f.Type[len("bucket."):], f.Bucket.BucketID, f.Bucket.EntryCount, f.Bucket.Source)
		if f.Bucket.Reason != nil {
			text += " " + *f.Bucket.Reason
		}
		if f.Bucket.Label != nil {
			text += fmt.Sprintf(" %s %d", *f.Bucket.Label, *f.Bucket.DwellCount)
		}
		s.told, s.facts = append(s.told, text), append(s.facts, f)
	}
}

// says is what was told since it was asked last.
func (s *stage) says(want ...string) {
	s.t.Helper()
	require.Equal(s.t, want, s.told)
	s.told = nil
}

func (s *stage) identifier() string {
	s.n++
	return uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, s.id, s.n)).String()
}

// event says that something happened now.
func (s *stage) event(name string) { s.happened(name, s.now, s.now) }

// happened says that something happened at one time, and was received at another.
func (s *stage) happened(name string, at, received time.Time) {
	s.t.Helper()
	s.send(&schemas.Event{ID: s.identifier(), Name: name, Properties: "{}", OccurredAt: at, ReceivedAt: received})
}

func (s *stage) send(e *schemas.Event) {
	s.t.Helper()
	e.ContactID = s.id
	s.stored = append(s.stored, storage.StoredEvent{ID: e.ID, Name: e.Name, Properties: e.Properties, OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt})
	s.accept(s.logic.Step(s.state, &derive.Record[buckets.State]{ID: e.ID, ContactID: s.id, OccurredAt: e.OccurredAt, Event: e}, s.now))
}

// updated says what the properties of the contact are now.
func (s *stage) updated(properties string) {
	s.t.Helper()
	s.row.Properties = properties
	f := &schemas.Fact{
		ID: s.identifier(), Type: schemas.FactContactUpdated, ContactID: s.id, OccurredAt: s.now,
		Contact: &schemas.ContactFact{Properties: properties, UpdatedAt: s.now, FirstSeenAt: start, LastSeenAt: s.now},
	}
	if s.email != "" {
		f.Email = &s.email
	}
	s.accept(s.logic.Step(s.state, &derive.Record[buckets.State]{ID: f.ID, ContactID: s.id, OccurredAt: f.OccurredAt, Fact: f}, s.now))
}

func (s *stage) member(bucketID string, member bool, until *time.Time) {
	s.t.Helper()
	c := &derive.Command{What: buckets.CommandMember, JSON: marshal(buckets.Member{Bucket: bucketID, Member: member, Until: until})}
	s.accept(s.logic.Step(s.state, &derive.Record[buckets.State]{ID: s.identifier(), ContactID: s.id, OccurredAt: s.now, Command: c}, s.now))
}

// until lets time pass, and steps every timer at its due.
func (s *stage) until(at time.Time) {
	s.t.Helper()
	for len(s.timers) > 0 && !s.timers[0].Due.After(at) {
		s.fire(s.timers[0].Due)
	}
	s.now = at
}

// after is until, some time later.
func (s *stage) after(d time.Duration) { s.t.Helper(); s.until(s.now.Add(d)) }

// fire steps the timer, which was due, at an instant.
func (s *stage) fire(at time.Time) {
	s.t.Helper()
	timer := s.timers[0]
	s.timers, s.now = nil, at
	s.accept(s.logic.Step(s.state, &derive.Record[buckets.State]{ContactID: s.id, OccurredAt: timer.Due, Timer: &timer}, s.now))
}

// refill brings the state up to date with the definitions.
func (s *stage) refill() {
	s.t.Helper()
	version := s.logic.VersionOf(s.state)
	if version >= s.logic.Version() {
		return
	}
	k := &derive.Known{Contact: &s.row}
	for _, e := range s.stored {
		if slices.Contains(s.logic.Names(version), e.Name) {
			k.Events = append(k.Events, e)
		}
	}
	s.accept(s.logic.Refill(s.state, k, s.now))
}

// merge folds another contact into this one, whose properties are these then.
func (s *stage) merge(loser *stage, properties string) {
	s.t.Helper()
	state, said := s.logic.HandOver(loser.state, loser.id, s.now)
	loser.state = state
	loser.tell(said)
	data, err := buckets.EncodeState(state)
	require.NoError(s.t, err)
	state, err = buckets.DecodeState(data)
	require.NoError(s.t, err)
	s.row.Properties = properties
	s.stored = append(s.stored, loser.stored...)
	f := &schemas.Fact{
		ID: s.identifier(), Type: schemas.FactContactMerged, ContactID: s.id, OccurredAt: s.now,
		Merged: &schemas.ContactMerged{LoserID: loser.id, Properties: properties},
	}
	s.accept(s.logic.Step(s.state, &derive.Record[buckets.State]{
		ID: f.ID, ContactID: s.id, OccurredAt: f.OccurredAt, Fact: f, Loser: &derive.Loser[buckets.State]{ContactID: loser.id, State: state},
	}, s.now))
}

// epochs are the joins of a bucket that are written, told or not.
func (s *stage) epochs(bucketID string) (joins []int64) {
	for _, tr := range s.state.Transitions() {
		if tr.BucketID == bucketID && tr.Entered {
			joins = append(joins, tr.Epoch)
		}
	}
	return joins
}
