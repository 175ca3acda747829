package enrich

import (
	"encoding/json"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// stage plays contacts, the deliveries and the receiver for the logic, in virtual time.
type stage struct {
	t     *testing.T
	set   *definition.Set
	l     *Logic
	r     *derive.Rehearsal[State]
	now   time.Time
	props map[string]map[string]any // by contact
	asked []*schemas.Outbox         // of which no receipt has come
	all   []*schemas.Outbox
	sent  []*schemas.Input
	gone  []string // destinations that are not there
}

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const target = "11111111-1111-4111-8111-111111111111"

func id(name string) string { return uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String() }

// mapFields is the mapping of tests: what is an object with a member "set" is its patch.
func mapFields(_, _, answer string) (string, error) {
	var a struct {
		Set json.RawMessage `json:"set"`
	}
	if err := json.Unmarshal([]byte(answer), &a); err != nil {
		return "", errors.New("the answer is no JSON")
	}
	return string(a.Set), nil
}

func newStage(t *testing.T, list ...definition.Enrichment) *stage {
	s := &stage{t: t, set: &definition.Set{Version: 1}, now: t0, props: map[string]map[string]any{}}
	for _, e := range list {
		s.set.Enrichments = append(s.set.Enrichments, inUse(e, 1))
	}
	s.compile()
	s.r = derive.NewRehearsal[State](logicOf{s}, s.told)
	return s
}

func inUse(e definition.Enrichment, revision int64) definition.EnrichmentInUse {
	e.Enabled = true
	files, err := definition.Built([]definition.Enrichment{e}, definition.Options{Limits: predicate.DefaultLimits()})
	if err != nil { // what asks for a bucket stands alone here
		e.Within, e.Retry, e.Attempts = definition.DefaultWithin, definition.DefaultRetry, definition.DefaultAttempts
	} else {
		e = files.Enrichments[0]
	}
	return definition.EnrichmentInUse{Enrichment: e, InUse: definition.InUse{Revision: revision, Declared: true}}
}

func (s *stage) compile() {
	s.l = Compile(s.set, Options{Limits: predicate.DefaultLimits(), Map: mapFields}).asking(nil)
	s.targets()
}

func (s *stage) targets() {
	var there []storage.CallTarget
	for _, e := range s.set.Enrichments {
		there = append(there, storage.CallTarget{ID: target, Name: e.Destination, EventTypes: []string{"outbox"}})
	}
	s.l = s.l.asking(there)
	for _, name := range s.gone {
		delete(s.l.targets, name)
	}
}

// logicOf steps with the logic in use, on states that were written and read in between, and
// twice: the same goes in and comes out.
type logicOf struct{ s *stage }

func (l logicOf) Wants(fact string) bool { return l.s.l.Wants(fact) }
func (l logicOf) TakeOver(before State, k *derive.Known, now time.Time) (State, []derive.Timer) {
	return l.s.l.TakeOver(before, k, now)
}
func (l logicOf) HandOver(s State, c string, now time.Time) (State, []schemas.Message) {
	return l.s.l.HandOver(s, c, now)
}

func (l logicOf) Step(s State, r *derive.Record[State], now time.Time) (derive.Result[State], error) {
	t := l.s.t
	text, err := codec{}.Encode(s)
	require.NoError(t, err)
	first, err := codec{}.Decode(text)
	require.NoError(t, err)
	again, err := codec{}.Decode(text)
	require.NoError(t, err)
	one, err := l.s.l.Step(first, r, now)
	require.NoError(t, err)
	two, err := l.s.l.Step(again, r, now)
	require.NoError(t, err)
	a, err := codec{}.Encode(one.State)
	require.NoError(t, err)
	b, err := codec{}.Encode(two.State)
	require.NoError(t, err)
	require.Equal(t, a, b)
	require.Equal(t, one.Outputs, two.Outputs)
	require.LessOrEqual(t, len(one.Timers), 1)
	require.LessOrEqual(t, len(one.State.asks), len(one.State.entries), "one call of an enrichment is under way at most")
	for _, cancelled := range one.Cancel {
		l.s.receive(cancelled)
	}
	return one, nil
}

// receive takes back what was not sent yet: here, that its receipt will say so.
func (s *stage) receive(cancelled string) {
	for _, o := range s.asked {
		if o.ID == cancelled {
			o.Kind = "cancelled"
		}
	}
}

func (s *stage) told(m schemas.Message, _ time.Time) {
	switch m := m.(type) {
	case *schemas.Outbox:
		s.asked, s.all = append(s.asked, m), append(s.all, m)
	case *schemas.Input:
		require.NoError(s.t, m.Validate())
		s.sent = append(s.sent, m)
	}
}

func (s *stage) step(r *derive.Record[State]) {
	s.t.Helper()
	if r.ID == "" {
		r.ID = uuid.NewString()
	}
	r.OccurredAt = s.now
	require.NoError(s.t, s.r.Step(r, s.now))
}

// is has contacts say how somebody is now: these properties change, nil is taken away.
func (s *stage) is(name string, changes map[string]any) {
	s.t.Helper()
	typ := schemas.FactContactUpdated
	if s.props[name] == nil {
		typ, s.props[name] = schemas.FactContactCreated, map[string]any{}
	}
	for key, v := range changes {
		if s.props[name][key] = v; v == nil {
			delete(s.props[name], key)
		}
	}
	userID := name
	s.step(&derive.Record[State]{ContactID: id(name), Fact: &schemas.Fact{
		ID: uuid.NewString(), Type: typ, ContactID: id(name), OccurredAt: s.now, UserID: &userID, Contact: s.contact(name),
	}})
}

func (s *stage) contact(name string) *schemas.ContactFact {
	text, err := json.Marshal(s.props[name])
	require.NoError(s.t, err)
	return &schemas.ContactFact{Properties: string(text), UpdatedAt: s.now, FirstSeenAt: t0, LastSeenAt: s.now, CreatedAt: t0}
}

// after has time pass, and timers be told.
func (s *stage) after(d time.Duration) {
	s.t.Helper()
	s.now = s.now.Add(d)
	require.NoError(s.t, s.r.Until(s.now))
}

// answers has the receipt of the oldest call that has none come.
func (s *stage) answers(name, result, body string) {
	s.t.Helper()
	require.NotEmpty(s.t, s.asked, "nothing was asked")
	o := s.asked[0]
	s.asked = s.asked[1:]
	s.tell(name, o, schemas.Receipt{Result: result, Body: &body, Reason: "why"})
}

func (s *stage) tell(name string, o *schemas.Outbox, r schemas.Receipt) {
	s.t.Helper()
	r.OutboxID, r.Kind, r.Destination = o.ID, schemas.OutboxCall, o.Destination
	s.step(&derive.Record[State]{ContactID: id(name), Receipt: &r, ReceiptEpoch: o.Epoch})
}

// patched has the last patch reach the contact.
func (s *stage) patched(name string) {
	s.t.Helper()
	require.NotEmpty(s.t, s.sent)
	var patch map[string]any
	require.NoError(s.t, json.Unmarshal([]byte(*s.sent[len(s.sent)-1].ContactProperties), &patch))
	s.is(name, maps.Clone(patch))
}

func (s *stage) entry(name, enrichment string) *entry {
	state := s.r.State(id(name))
	return state.find(enrichment)
}

// apply puts other definitions in use.
func (s *stage) apply(list ...definition.EnrichmentInUse) {
	s.set = &definition.Set{Version: s.set.Version + 1, Enrichments: list}
	s.compile()
}

var company = definition.Enrichment{
	ID: "company", Name: "Company", When: predicate.Prop("domain").Exists(), Destination: "crm", Send: []string{"domain"}, Map: ".set",
}
