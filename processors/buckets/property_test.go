package buckets_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/predicate/predicatetest"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// The model: a naive evaluator looks at the whole history of each contact, and whatever
// the logic did on the way must have come to the same.

// sim is a case in hand: contacts, definitions that change, and a clock.
type sim struct {
	t    *rapid.T
	l    *predicatetest.Language
	zone *time.Location
	now  time.Time

	set      definition.Set
	forms    map[string]predicatetest.Object // criteria, by bucket
	logic    *buckets.Logic
	contacts []*simContact
	sent     []*schemas.Event // for repeats
	ids      map[string]bool  // of all facts
	n        int

	recording string // id of the record that is stepped
}

// simContact is a contact, as Postgres, the log and the processor know it.
type simContact struct {
	id     string
	world  predicatetest.World
	stored []storage.StoredEvent

	saved  []byte // the state as it is stored
	state  buckets.State
	timers []derive.Timer
	seen   int // transitions of state that were looked at

	totals map[string]int64 // joins by bucket, with those of contacts that were merged in
	gained map[string]int64 // of the contact that is being merged in
	inside map[string]int64 // the epoch of the active membership
	last   map[string]buckets.Transition
	member int64 // until when it is a member of the manual bucket, in microseconds
}

// manualID is a bucket into which contacts are put by command.
const manualID = "a"

var bucketIDs = []string{"b0", "b1", "b2", "b3"}

var simLimits = predicate.Limits{Count: 5, Sequence: 100, Total: 100}

func newSim(t *rapid.T) *sim {
	base := predicatetest.Draw(t, "base", predicatetest.Bases)
	zone, err := time.LoadLocation(base.Zone)
	require.NoError(t, err)
	s := &sim{
		t: t, l: &predicatetest.Language{T: t, Base: base.At}, zone: zone, now: base.At,
		forms: map[string]predicatetest.Object{}, ids: map[string]bool{},
	}
	// What facts said before a bucket was there is stored nowhere.
	s.l.NoMail = rapid.Bool().Draw(t, "definitions change")
	s.define(func() {
		s.set.Buckets = []definition.BucketInUse{{Bucket: definition.Bucket{ID: manualID, Name: "Manual", Enabled: true, Kind: definition.KindManual}, InUse: definition.InUse{Revision: 1}}}
		for _, id := range bucketIDs[:rapid.IntRange(1, len(bucketIDs)).Draw(t, "buckets")] {
			s.add(id)
		}
	})
	return s
}

// define makes the next version of the set.
func (s *sim) define(change func()) {
	s.set.Version++
	s.set.Buckets = slices.Clone(s.set.Buckets)
	change()
	slices.SortFunc(s.set.Buckets, func(a, b definition.BucketInUse) int { return cmp.Compare(a.ID, b.ID) })
	for i := range s.set.Buckets { // each comes after those that it asks for
		b := &s.set.Buckets[i]
		for _, id := range asked(s.forms[b.ID]) {
			b.Revision = max(b.Revision, s.set.Find(id).Revision)
		}
	}
	set := s.set
	s.logic = buckets.Compile(&set, buckets.Options{Limits: simLimits, Zone: s.zone})
	require.Empty(s.t, s.logic.Failing())
}

// asked are the buckets whose membership a condition asks for.
func asked(form predicatetest.Object) (ids []string) {
	if form["type"] == "bucket" {
		return []string{form["bucketId"].(string)}
	}
	if inner, ok := form["condition"].(predicatetest.Object); ok {
		ids = asked(inner)
	}
	list, _ := form["conditions"].([]any)
	for _, inner := range list {
		ids = append(ids, asked(inner.(predicatetest.Object))...)
	}
	return ids
}

func (s *sim) add(id string) {
	s.set.Buckets = append(s.set.Buckets, definition.BucketInUse{})
	b := &s.set.Buckets[len(s.set.Buckets)-1]
	b.ID, b.Name, b.Enabled = id, "Bucket "+id, true
	s.change(b)
}

// change makes another definition of a bucket, which may ask for those before it.
func (s *sim) change(b *definition.BucketInUse) {
	t := s.t
	s.l.Buckets = nil
	for i := range s.set.Buckets {
		if s.set.Buckets[i].ID < b.ID {
			s.l.Buckets = append(s.l.Buckets, s.set.Buckets[i].ID)
		}
	}
	form := s.l.Condition(2)
	if !s.l.NoMail && predicatetest.Chance(t, "looks at facts on buckets") {
		form = s.onFacts()
	}
	text, err := json.Marshal(form)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &b.Criteria), "%s", text)
	s.forms[b.ID] = predicatetest.Parsed(b.Criteria.Canonical())
	b.Revision = s.set.Version
	b.MinDwell, b.MaxDwell, b.Dwell, b.ReconcileJoins = 0, 0, nil, nil
	b.EntryLimit = predicatetest.Draw(t, "entry limit", []string{"", definition.EntryOnce, definition.EntryOncePerPeriod})
	b.EntryPeriod = predicatetest.Duration(predicatetest.Draw(t, "period", predicatetest.Spans))
	b.Joins = predicatetest.Draw(t, "joins", []string{"", definition.JoinsTold})
	if rapid.IntRange(0, 4).Draw(t, "min dwell") == 0 {
		b.MinDwell = 2 * time.Hour
	}
	if rapid.IntRange(0, 4).Draw(t, "max dwell") == 0 {
		b.MaxDwell = 30 * time.Hour
	}
	if rapid.IntRange(0, 4).Draw(t, "reconcile joins") == 0 {
		b.ReconcileJoins = new(bool)
	}
	if predicatetest.Chance(t, "dwell") {
		b.Dwell = []definition.Dwell{{After: 3 * time.Hour}, {Every: 5 * time.Hour}}
	}
}

// onFacts draws a condition on what is told of buckets.
func (s *sim) onFacts() predicatetest.Object {
	form := predicatetest.Object{
		"type": "event", "eventName": predicatetest.Draw(s.t, "fact", []string{"bucket.entered", "bucket.left", "bucket.dwell"}),
		"check": "count", "operator": predicatetest.Draw(s.t, "operator", []string{"gte", "lt"}), "value": rapid.IntRange(1, 2).Draw(s.t, "times"),
		"where": predicatetest.Object{"type": "property", "property": "bucketId", "operator": "eq", "value": predicatetest.Draw(s.t, "of", s.l.Buckets)},
	}
	if predicatetest.Chance(s.t, "windowed") {
		form["within"] = predicatetest.Draw(s.t, "span", predicatetest.Spans)
	}
	return form
}

// redefine changes one thing of the definitions.
func (s *sim) redefine() {
	if !s.l.NoMail {
		return
	}
	s.define(func() {
		id := predicatetest.Draw(s.t, "bucket", bucketIDs)
		i := slices.IndexFunc(s.set.Buckets, func(b definition.BucketInUse) bool { return b.ID == id })
		if i < 0 {
			s.add(id)
			return
		}
		b := &s.set.Buckets[i]
		switch predicatetest.Draw(s.t, "definition", []string{"change", "switch", "remove"}) {
		case "change":
			s.change(b)
		case "switch":
			b.Enabled = !b.Enabled
			if b.Enabled {
				b.Revision = s.set.Version
			}
		case "remove":
			for other := range maps.Values(s.forms) {
				if slices.Contains(asked(other), id) {
					return
				}
			}
			delete(s.forms, id)
			s.set.Buckets = slices.Delete(s.set.Buckets, i, i+1)
		}
	})
}

// contact draws one; there are at most five.
func (s *sim) contact() *simContact {
	n := rapid.IntRange(0, 4).Draw(s.t, "contact")
	if n < len(s.contacts) {
		return s.contacts[n]
	}
	return s.newContact()
}

func (s *sim) newContact() *simContact {
	s.n++
	c := &simContact{
		id:    uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, "contact ", s.n)).String(),
		world: predicatetest.World{Zone: s.zone, Sequence: simLimits.Sequence}, totals: map[string]int64{}, inside: map[string]int64{}, last: map[string]buckets.Transition{},
	}
	c.world.Members = func(id string, _ int64) bool { return c.state.Has(id) }
	s.contacts = append(s.contacts, c)
	if rapid.Bool().Draw(s.t, "is taken over") {
		for range rapid.IntRange(0, 3).Draw(s.t, "events") {
			c.tell(s.event(c))
		}
		c.world.Properties = s.l.Properties()
		c.world.SeenBetween(s.now.UnixMicro(), s.now.UnixMicro())
		state, timers := s.logic.TakeOver(buckets.State{}, &derive.Known{Contact: c.row(), Events: c.stored}, s.now)
		s.accept(c, derive.Result[buckets.State]{State: state, Timers: timers})
	}
	return c
}

// event draws a product event: also late, dated back, in the future, or one that was there.
func (s *sim) event(c *simContact) *schemas.Event {
	t := s.t
	if len(s.sent) > 0 && predicatetest.Chance(t, "repeat") {
		e := *predicatetest.Draw(t, "which", s.sent)
		e.ContactID = c.id
		return &e
	}
	e := &schemas.Event{
		ID: uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")).String(), ContactID: c.id,
		Name: predicatetest.Draw(t, "event", predicatetest.EventNames), Properties: marshal(s.l.Properties()),
		OccurredAt: s.l.Instant(), ReceivedAt: s.now,
	}
	if predicatetest.Chance(t, "waited") {
		e.ReceivedAt = s.now.Add(-predicatetest.Duration(predicatetest.Draw(t, "lag", predicatetest.Spans)))
	}
	if predicatetest.Chance(t, "user id") || c.world.UserID {
		e.UserID = new("user of " + c.id)
	}
	if predicatetest.Chance(t, "email") || c.world.Email {
		e.Email = new("ann@example.com")
	}
	s.sent = append(s.sent, e)
	return e
}

func marshal(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// tell says an event to the model and to Postgres.
func (c *simContact) tell(e *schemas.Event) {
	w := &c.world
	w.History = append(w.History, predicatetest.Happening{ID: e.ID, Name: e.Name, At: e.OccurredAt.UnixMicro(), Properties: predicatetest.Parsed(e.Properties)})
	w.UserID, w.Email = w.UserID || e.UserID != nil, w.Email || e.Email != nil
	w.SeenBetween(e.ReceivedAt.UnixMicro(), e.ReceivedAt.UnixMicro())
	c.stored = append(c.stored, storage.StoredEvent{ID: e.ID, Name: e.Name, Properties: e.Properties, OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt})
}

// row is the contact in Postgres.
func (c *simContact) row() *storage.Contact {
	w := &c.world
	row := &storage.Contact{ID: c.id, Properties: "{}"}
	if w.Properties != nil {
		row.Properties = marshal(w.Properties)
	}
	if w.UserID {
		row.ExternalID = "user of " + c.id
	}
	if w.Email {
		row.Email = "ann@example.com"
	}
	if w.FirstSeen != 0 {
		row.FirstSeenAt, row.LastSeenAt = time.UnixMicro(w.FirstSeen), time.UnixMicro(w.LastSeen)
	}
	return row
}

// record steps something that is said of a contact.
func (s *sim) record(c *simContact) {
	t := s.t
	r := &derive.Record[buckets.State]{ContactID: c.id}
	what := []string{"event", "event", "event", "contact"}
	if !s.l.NoMail {
		what = append(what, "mail")
	}
	switch predicatetest.Draw(t, "record", what) {
	case "event":
		r.Event = s.event(c)
		c.tell(r.Event)
		r.ID, r.OccurredAt = r.Event.ID, r.Event.OccurredAt
	case "contact":
		c.world.Properties = s.l.Properties()
		c.world.UserID = c.world.UserID || predicatetest.Chance(t, "user id")
		c.world.SeenBetween(s.now.UnixMicro(), s.now.UnixMicro())
		row := c.row()
		r.Fact = s.fact(schemas.FactContactUpdated, row)
		r.Fact.Contact = &schemas.ContactFact{Properties: row.Properties, FirstSeenAt: row.FirstSeenAt, LastSeenAt: row.LastSeenAt, UpdatedAt: s.now}
	case "mail":
		r.Fact = s.fact(predicatetest.Draw(t, "mail", []string{"email.sent", "email.opened", "email.clicked"}), c.row())
		r.Fact.OccurredAt = s.l.Instant()
		template := predicatetest.Draw(t, "template", []string{"t1", "t2"})
		r.Fact.EmailFact = &schemas.EmailFact{TemplateKey: &template}
		c.world.History = append(c.world.History, predicatetest.Happening{
			ID: r.Fact.ID, Name: r.Fact.Type, At: r.Fact.OccurredAt.UnixMicro(), Properties: predicatetest.Object{"templateKey": template},
		})
	}
	if r.Fact != nil {
		r.ID, r.OccurredAt = r.Fact.ID, r.Fact.OccurredAt
	}
	s.recording = r.ID
	s.step(c, r, s.now)
	s.recording = ""
}

func (s *sim) fact(typ string, row *storage.Contact) *schemas.Fact {
	f := &schemas.Fact{
		ID:   uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(s.t, "id")).String(),
		Type: typ, ContactID: row.ID, OccurredAt: s.now,
	}
	if row.ExternalID != "" {
		f.UserID = &row.ExternalID
	}
	if row.Email != "" {
		f.Email = &row.Email
	}
	return f
}

func (s *sim) step(c *simContact, r *derive.Record[buckets.State], now time.Time) {
	result, err := s.logic.Step(c.state, r, now)
	require.NoError(s.t, err)
	s.accept(c, result)
}

// accept does what the frame does: a state that is the same is not stored.
func (s *sim) accept(c *simContact, result derive.Result[buckets.State]) {
	c.state, c.timers = result.State, result.Timers
	if !result.Same {
		var err error
		c.saved, err = buckets.EncodeState(c.state)
		require.NoError(s.t, err)
	}
	told := s.transitions(c)
	s.facts(c, result.Outputs, told)
	if predicatetest.Chance(s.t, "the batch ends") {
		var err error
		c.state, err = buckets.DecodeState(c.saved)
		require.NoError(s.t, err)
		c.seen = 0
	}
}

// transitions looks at what is new: entering and leaving alternate, and epochs grow by one.
func (s *sim) transitions(c *simContact) (told []buckets.Transition) {
	all := c.state.Transitions()
	for _, tr := range all[c.seen:] {
		require.Equal(s.t, c.id, tr.ContactID)
		epoch, inside := c.inside[tr.BucketID]
		switch {
		case tr.Kept:
			require.True(s.t, inside)
			continue
		case tr.Entered:
			require.False(s.t, inside, "%+v", tr)
			if c.totals[tr.BucketID]++; c.totals[tr.BucketID] != tr.Epoch { // some were before the merge
				c.totals[tr.BucketID] += c.gained[tr.BucketID]
				delete(c.gained, tr.BucketID)
			}
			require.Equal(s.t, c.totals[tr.BucketID], tr.Epoch)
			c.inside[tr.BucketID] = tr.Epoch
		default:
			require.True(s.t, inside, "%+v", tr)
			require.Equal(s.t, epoch, tr.Epoch)
			delete(c.inside, tr.BucketID)
		}
		require.False(s.t, tr.At.Before(c.last[tr.BucketID].At), "time does not go back")
		c.last[tr.BucketID] = tr
		s.keptWhy(c, &tr)
		if tr.Told {
			told = append(told, tr)
		}
	}
	c.seen = len(all)
	return told
}

// keptWhy looks at what is kept of a transition: what the criteria said then.
func (s *sim) keptWhy(c *simContact, tr *buckets.Transition) {
	k, err := buckets.DecodeKept(tr.Why)
	require.NoError(s.t, err)
	require.Equal(s.t, tr.Told, k.Told)
	require.Equal(s.t, s.recording, k.Cause)
	require.Equal(s.t, s.set.Version, k.Version)
	b := s.set.Find(tr.BucketID)
	e, err := k.Explain(b, tr.At)
	require.NoError(s.t, err)
	if e == nil { // a manual one, one that is not in use, or that the contact is not filled with
		filled := s.recording != "" && s.logic.VersionOf(c.state) == s.logic.Version()
		require.False(s.t, filled && b != nil && b.Enabled && tr.BucketID != manualID)
		return
	}
	if tr.Entered || tr.Reason == "criteria" {
		require.Equal(s.t, tr.Entered, e.Holds)
	}
	if s.recording != "" && tr.Source == "event" {
		s.leavesAgree(c, s.forms[tr.BucketID], e, tr.At)
	}
}

// leavesAgree compares leaves with the model, but for those on what followed from the record.
func (s *sim) leavesAgree(c *simContact, form predicatetest.Object, e *predicate.Explanation, at time.Time) {
	switch form["type"] {
	case "composite":
		for i, inner := range form["conditions"].([]any) {
			s.leavesAgree(c, inner.(predicatetest.Object), &e.Conditions[i], at)
		}
	case "not":
		s.leavesAgree(c, form["condition"].(predicatetest.Object), &e.Conditions[0], at)
	case "bucket":
	default:
		if name, _ := form["eventName"].(string); !strings.HasPrefix(name, "bucket.") {
			require.Equal(s.t, c.world.Holds(form, at.UnixMicro()), e.Holds, "%s at %s", marshal(form), at)
		}
	}
}

// facts looks at what is told: each transition that is, once.
func (s *sim) facts(c *simContact, outputs []schemas.Message, told []buckets.Transition) {
	for _, m := range outputs {
		f := m.(*schemas.Fact)
		require.Equal(s.t, c.id, f.ContactID)
		require.False(s.t, s.ids[f.ID], "told twice: %+v", f.Bucket)
		s.ids[f.ID] = true
		c.world.History = append(c.world.History, predicatetest.Happening{
			ID: f.ID, Name: f.Type, At: f.OccurredAt.UnixMicro(), Properties: predicatetest.Object{"bucketId": f.Bucket.BucketID},
		})
		if f.Type == schemas.FactBucketDwell {
			continue
		}
		require.NotEmpty(s.t, told, "%+v", f.Bucket)
		require.Equal(s.t, told[0].BucketID, f.Bucket.BucketID)
		require.Equal(s.t, told[0].Epoch, f.Bucket.EntryCount)
		require.Equal(s.t, told[0].Entered, f.Type == schemas.FactBucketEntered)
		require.Equal(s.t, told[0].At, f.OccurredAt)
		told = told[1:]
	}
	require.Empty(s.t, told)
}

// command puts a contact into the manual bucket, or takes it out.
func (s *sim) command(c *simContact) {
	if len(c.saved) == 0 {
		return // the frame drops it
	}
	m := buckets.Member{Bucket: manualID, Member: !predicatetest.Chance(s.t, "out")}
	c.member = 0
	if m.Member {
		c.member = math.MaxInt64
	}
	if m.Member && rapid.Bool().Draw(s.t, "expires") {
		m.Until = new(s.now.Add(predicatetest.Duration(predicatetest.Draw(s.t, "until", predicatetest.Spans))))
		c.member = m.Until.UnixMicro()
	}
	s.step(c, &derive.Record[buckets.State]{ContactID: c.id, OccurredAt: s.now, Command: &derive.Command{What: buckets.CommandMember, JSON: marshal(m)}}, s.now)
}

// refill does what the frame does for a contact that is behind.
func (s *sim) refill(c *simContact) {
	version := s.logic.VersionOf(c.state)
	if version >= s.logic.Version() {
		return
	}
	k := &derive.Known{Contact: c.row()}
	names := s.logic.Names(version)
	for _, e := range c.stored {
		if slices.Contains(names, e.Name) {
			k.Events = append(k.Events, e)
		}
	}
	result, err := s.logic.Refill(c.state, k, s.now)
	require.NoError(s.t, err)
	s.accept(c, result)
}

// takeOverAnew is what a rebuild does: nothing is told, and memberships go on.
func (s *sim) takeOverAnew(c *simContact) {
	if !s.l.NoMail { // what facts said is stored nowhere
		return
	}
	before, err := buckets.DecodeState(c.saved)
	require.NoError(s.t, err)
	state, timers := s.logic.TakeOver(before, &derive.Known{Contact: c.row(), Events: c.stored}, s.now)
	c.seen = 0
	s.accept(c, derive.Result[buckets.State]{State: state, Timers: timers})
}

// fire steps the timer of a contact if it is due.
func (s *sim) fire(c *simContact) bool {
	if len(c.timers) == 0 || c.timers[0].Due.After(s.now) {
		return false
	}
	require.Len(s.t, c.timers, 1)
	timer := c.timers[0]
	c.timers = nil
	s.step(c, &derive.Record[buckets.State]{ContactID: c.id, OccurredAt: timer.Due, Timer: &timer}, s.now)
	return true
}

// advance lets time pass: to the next timer, to just before it, or anywhere before.
func (s *sim) advance() {
	next := s.now.Add(predicatetest.Duration(predicatetest.Draw(s.t, "span", predicatetest.Spans)))
	for _, c := range s.contacts {
		if len(c.timers) > 0 && c.timers[0].Due.Before(next) && c.timers[0].Due.After(s.now) {
			next = c.timers[0].Due
		}
	}
	switch predicatetest.Draw(s.t, "to", []string{"due", "before", "between"}) {
	case "due":
		s.now = next
	case "before":
		if before := next.Add(-time.Microsecond); before.After(s.now) {
			s.now = before
		}
	case "between":
		s.now = s.now.Add(next.Sub(s.now) / 2).Truncate(time.Microsecond)
	}
}

// merge makes one contact of two.
func (s *sim) merge() {
	if len(s.contacts) < 2 {
		return
	}
	order := rapid.Permutation(s.contacts).Draw(s.t, "merged")
	loser, survivor := order[0], order[1]
	state, said := s.logic.HandOver(loser.state, loser.id, s.now)
	loser.state = state
	s.facts(loser, said, s.transitions(loser))
	require.Empty(s.t, loser.inside, "who is merged away leaves every bucket")
	data, err := buckets.EncodeState(state)
	require.NoError(s.t, err)
	if state, err = buckets.DecodeState(data); err != nil {
		s.t.Fatal(err)
	}
	w, o := &survivor.world, &loser.world
	w.History = append(w.History, o.History...)
	survivor.stored = append(survivor.stored, loser.stored...)
	w.UserID, w.Email = w.UserID || o.UserID, w.Email || o.Email
	if o.FirstSeen != 0 {
		w.SeenBetween(o.FirstSeen, o.LastSeen)
	}
	w.Properties = s.l.Properties()
	survivor.gained = loser.totals
	survivor.member = max(survivor.member, loser.member)
	row := survivor.row()
	f := s.fact(schemas.FactContactMerged, row)
	f.Merged = &schemas.ContactMerged{LoserID: loser.id, Properties: row.Properties}
	s.remove(loser)
	s.step(survivor, &derive.Record[buckets.State]{
		ContactID: survivor.id, OccurredAt: f.OccurredAt, Fact: f, Loser: &derive.Loser[buckets.State]{ContactID: loser.id, State: state},
	}, s.now)
	for bucket, n := range survivor.gained {
		survivor.totals[bucket] += n
	}
	survivor.gained = nil
}

func (s *sim) remove(c *simContact) {
	s.contacts = slices.DeleteFunc(s.contacts, func(other *simContact) bool { return other == c })
}

// quiesce handles all that is left to handle.
func (s *sim) quiesce() {
	for _, c := range s.contacts {
		s.refill(c)
	}
	for range 10_000 {
		if !slices.ContainsFunc(s.contacts, s.fire) {
			return
		}
	}
	s.t.Fatal("it never comes to rest")
}

// agree compares members with the model.
func (s *sim) agree() {
	for _, c := range s.contacts {
		if len(c.saved) == 0 {
			continue // nobody has heard of it
		}
		for i := range s.set.Buckets {
			if b := &s.set.Buckets[i]; b.ID == manualID {
				require.Equal(s.t, c.member > s.now.UnixMicro(), c.state.Has(manualID))
			} else if b.Enabled {
				s.agreeOn(c, b)
			}
		}
		for _, m := range c.state.Memberships() {
			require.Equal(s.t, m.Active, c.inside[m.BucketID] == m.Epoch && m.Epoch > 0)
		}
	}
}

func (s *sim) agreeOn(c *simContact, b *definition.BucketInUse) {
	holds := c.world.Holds(s.forms[b.ID], s.now.UnixMicro())
	member := c.state.Has(b.ID)
	last := c.last[b.ID]
	e := s.logic.Explain(c.state, b.ID, s.now)
	require.Equal(s.t, member, e.Member)
	require.Equal(s.t, holds, e.Criteria.Holds)
	why := e.Reasons[0].Code
	switch {
	case member && !holds && s.now.Before(last.At.Add(b.MinDwell)):
		require.Equal(s.t, buckets.BecauseMinDwell, why)
	case !member && holds && last.Reason == "maxDwell":
		require.Contains(s.t, []string{buckets.BecauseMaxDwell, buckets.BecauseReconcileJoins}, why)
	case !member && holds && b.ReconcileJoins != nil:
		require.Equal(s.t, buckets.BecauseReconcileJoins, why)
	default:
		require.Equal(s.t, buckets.BecauseCriteria, why)
		require.Equal(s.t, holds, member, "%s %s at %s of %s, %+v", b.ID, marshal(s.forms[b.ID]), s.now.UTC().Format(time.RFC3339Nano), c.world.Told(), last)
	}
}

// As many cases as there are seeds, times two hundred.
func TestFaultMembersAreThoseWhoSatisfyTheCriteriaOverTheirWholeHistory(t *testing.T) {
	seeds, err := strconv.Atoi(cmp.Or(os.Getenv("HOGSTREAM_FAULT_SEEDS"), "3"))
	require.NoError(t, err)
	for range 2 * seeds { // of a hundred each
		rapid.Check(t, membersAgree)
	}
}

func membersAgree(t *rapid.T) {
	s := newSim(t)
	for range rapid.IntRange(1, 40).Draw(t, "steps") {
		switch predicatetest.Draw(t, "step", []string{"record", "record", "record", "time", "time", "fire", "merge", "erase", "command", "define", "define", "refill", "anew", "rest"}) {
		case "record":
			s.record(s.contact())
		case "time":
			s.advance()
		case "fire":
			if len(s.contacts) > 0 {
				s.fire(predicatetest.Draw(t, "whom", s.contacts))
			}
		case "merge":
			s.merge()
		case "erase":
			if len(s.contacts) > 0 && predicatetest.Chance(t, "really") {
				s.remove(predicatetest.Draw(t, "whom", s.contacts))
			}
		case "command":
			if len(s.contacts) > 0 {
				s.command(predicatetest.Draw(t, "whom", s.contacts))
			}
		case "define":
			s.redefine()
		case "refill":
			if len(s.contacts) > 0 {
				s.refill(predicatetest.Draw(t, "whom", s.contacts))
			}
		case "anew":
			if len(s.contacts) > 0 {
				s.takeOverAnew(predicatetest.Draw(t, "whom", s.contacts))
			}
		case "rest":
			s.quiesce()
			s.agree()
		}
	}
	s.quiesce()
	s.agree()
}
