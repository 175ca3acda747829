package predicate_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/predicate/predicatetest"
)

// The language and the model are predicatetest's, by the names they have here.
type (
	object   = predicatetest.Object
	language = predicatetest.Language
	world    = predicatetest.World
)

var (
	bases      = predicatetest.Bases
	spans      = predicatetest.Spans
	eventNames = predicatetest.EventNames
)

func draw[T any](t *rapid.T, label string, list []T) T { return predicatetest.Draw(t, label, list) }
func chance(t *rapid.T, label string) bool             { return predicatetest.Chance(t, label) }
func parsed(canonical string) object                   { return predicatetest.Parsed(canonical) }
func lookUp(o object, path any) any                    { return predicatetest.LookUp(o, path) }
func length(canonical any) int64                       { return predicatetest.Length(canonical) }
func recent(list []predicatetest.Happening, since int64) []predicatetest.Happening {
	return predicatetest.Recent(list, since)
}
func duration(span string) time.Duration { return predicatetest.Duration(span) }

// contact is one contact: what the product keeps, and what the model remembers.
type contact struct {
	state predicate.State
	world world
}

// run is a case in hand: two contacts that may be merged, and what was decided of the
// first, kept up to date as a processor does.
type run struct {
	t          *rapid.T
	l          *language
	set        *predicate.Set
	forms      []object // of the conditions, in the order of the set
	conditions []predicate.Condition
	contacts   [2]contact
	known      []predicate.Record // for repeats
	now        time.Time
	verdicts   []predicate.Verdict
}

// Has implements predicate.Members by what was decided.
func (r *run) Has(id string) bool { return r.verdicts[r.set.Index(id)].Holds }

var testLimits = predicate.Limits{Count: 5, Sequence: 100, Total: 100}

func newRun(t *rapid.T) *run {
	base := draw(t, "base", bases)
	r := &run{t: t, l: &language{T: t, Base: base.At}, now: base.At}
	var named []predicate.Named
	buckets := map[string]object{}
	for i := range rapid.IntRange(1, 4).Draw(t, "conditions") {
		id := fmt.Sprintf("c%d", i)
		condition := readForm(t, r.l.Condition(2))
		named = append(named, predicate.Named{ID: id, Bucket: true, Condition: condition})
		buckets[id] = parsed(condition.Canonical())
		r.l.Buckets = append(r.l.Buckets, id)
	}
	named = rapid.Permutation(named).Draw(t, "order")
	zone, err := time.LoadLocation(base.Zone)
	require.NoError(t, err)
	r.set, err = predicate.Compile(named, predicate.Options{Limits: testLimits, Zone: zone})
	require.NoError(t, err)
	for i := range r.set.Len() {
		r.forms = append(r.forms, buckets[r.set.ID(i)])
		at := slices.IndexFunc(named, func(n predicate.Named) bool { return n.ID == r.set.ID(i) })
		r.conditions = append(r.conditions, named[at].Condition)
	}
	for i := range r.contacts {
		w := &r.contacts[i].world
		*w = world{Zone: zone, Sequence: testLimits.Sequence}
		w.Members = func(id string, now int64) bool { return w.Holds(buckets[id], now) }
	}
	r.verdicts = make([]predicate.Verdict, r.set.Len())
	for i := range r.verdicts { // nothing is known: as a new contact is evaluated
		r.verdicts[i] = r.set.Evaluate(i, &r.contacts[0].state, r, r.now)
	}
	return r
}

func readForm(t *rapid.T, form object) predicate.Condition {
	text, err := json.Marshal(form)
	require.NoError(t, err)
	var c predicate.Condition
	require.NoError(t, json.Unmarshal(text, &c), "%s", text)
	return c
}

// record draws what is said next: something new, or a repeat.
func (r *run) record() predicate.Record {
	if len(r.known) > 0 && chance(r.t, "repeat") {
		return draw(r.t, "which", r.known)
	}
	rec := predicate.Record{ID: uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(r.t, "id"))}
	switch draw(r.t, "record", []string{"event", "event", "event", "mail", "contact"}) {
	case "event":
		rec.Name, rec.At = draw(r.t, "event", eventNames), r.l.Instant()
		rec.Properties = marshal(r.l.Properties())
	case "mail":
		rec.Name, rec.At = draw(r.t, "mail", []string{"email.sent", "email.opened", "email.clicked"}), r.l.Instant()
		rec.Properties = marshal(object{"templateKey": draw(r.t, "template", []string{"t1", "t2"})})
	case "contact":
		rec.Contact = marshal(r.l.Properties())
	}
	rec.HasUserID, rec.HasEmail = chance(r.t, "user id"), chance(r.t, "email")
	if chance(r.t, "seen") {
		rec.FirstSeen, rec.LastSeen = r.l.Instant(), r.l.Instant()
	}
	return rec
}

func marshal(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// apply tells a contact and its model, and returns what is to be looked at again.
func (r *run) apply(c *contact, rec predicate.Record) []int {
	if !slices.ContainsFunc(r.known, func(k predicate.Record) bool { return k.ID == rec.ID }) {
		r.known = append(r.known, rec)
	}
	tell(&c.world, rec)
	touched := r.set.Apply(&c.state, &rec, nil)
	if chance(r.t, "stored") {
		c.state = stored(r.t, &c.state)
	}
	return touched
}

func tell(w *world, rec predicate.Record) {
	if rec.Name != "" {
		w.History = append(w.History, predicatetest.Happening{ID: rec.ID.String(), Name: rec.Name, At: rec.At.UnixMicro(), Properties: parsed(rec.Properties)})
	}
	if rec.Contact != "" {
		w.Properties = parsed(rec.Contact)
	}
	w.UserID, w.Email = w.UserID || rec.HasUserID, w.Email || rec.HasEmail
	if !rec.FirstSeen.IsZero() {
		w.SeenBetween(rec.FirstSeen.UnixMicro(), rec.LastSeen.UnixMicro())
	}
}

func stored(t require.TestingT, s *predicate.State) predicate.State {
	data, err := s.MarshalBinary()
	require.NoError(t, err)
	var out predicate.State
	require.NoError(t, out.UnmarshalBinary(data))
	again, err := out.MarshalBinary()
	require.NoError(t, err)
	require.Equal(t, data, again)
	return out
}

// evaluate looks at the conditions that were touched or are due, in the order of the set;
// a membership that changes touches those that ask for it.
func (r *run) evaluate(touched []int) {
	for i := range r.verdicts {
		next := r.verdicts[i].Next
		due := !next.IsZero() && !next.After(r.now)
		if !due && !slices.Contains(touched, i) {
			continue
		}
		before := r.verdicts[i].Holds
		r.verdicts[i] = r.set.Evaluate(i, &r.contacts[0].state, r, r.now)
		if r.verdicts[i].Holds != before {
			touched = r.set.OnBucket(r.set.ID(i), touched)
		}
	}
}

// agree compares with the model.
func (r *run) agree() {
	w := &r.contacts[0].world
	for i, form := range r.forms {
		require.Equal(r.t, w.Holds(form, r.now.UnixMicro()), r.verdicts[i].Holds,
			"%s at %s of %s", marshal(form), r.now.UTC().Format(time.RFC3339Nano), w.Told())
	}
}

// next is when the first of the conditions may turn by time; false for never.
func (r *run) next() (time.Time, bool) {
	next := time.Time{}
	for _, v := range r.verdicts {
		if !v.Next.IsZero() && (next.IsZero() || v.Next.Before(next)) {
			next = v.Next
		}
	}
	return next, !next.IsZero()
}

// nothingTurnsBefore asks the model at instants before the first turn: the last, and those
// at which windows and dates of such cases end.
func (r *run) nothingTurnsBefore() {
	w := &r.contacts[0].world
	next, turns := r.next()
	probe := r.l.Instant().Add(duration(draw(r.t, "probe", spans)) + time.Duration(rapid.IntRange(0, 1).Draw(r.t, "after"))*time.Microsecond)
	for _, at := range []time.Time{probe, next.Add(-time.Microsecond)} {
		if at.Before(r.now) || turns && !at.Before(next) {
			continue
		}
		for i, form := range r.forms {
			require.Equal(r.t, r.verdicts[i].Holds, w.Holds(form, at.UnixMicro()),
				"%s turned at %s already, before %s; of %s", marshal(form), at, next, w.Told())
		}
	}
}

// advance lets time pass: to the next instant at which something may turn, to just before
// it, or anywhere before.
func (r *run) advance() {
	next, turns := r.next()
	if !turns {
		next = r.now.Add(duration(draw(r.t, "span", spans)))
	}
	require.True(r.t, next.After(r.now), "what is due lies in the future")
	switch draw(r.t, "to", []string{"turn", "turn", "before", "between"}) {
	case "turn":
		r.now = next
	case "before":
		r.now = later(r.now, next.Add(-time.Microsecond))
	case "between":
		r.now = r.now.Add(next.Sub(r.now) / 2).Truncate(time.Microsecond)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// merge folds the second contact into the first, or the first into the second, and says
// what the properties are then.
func (r *run) merge() []int {
	a, b := &r.contacts[0], &r.contacts[1]
	if rapid.Bool().Draw(r.t, "other way round") {
		into := stored(r.t, &b.state)
		r.set.Merge(&into, &a.state)
		a.state = into
	} else {
		r.set.Merge(&a.state, &b.state)
	}
	a.world.History = append(a.world.History, b.world.History...)
	a.world.UserID, a.world.Email = a.world.UserID || b.world.UserID, a.world.Email || b.world.Email
	if b.world.FirstSeen != 0 {
		a.world.SeenBetween(b.world.FirstSeen, b.world.LastSeen)
	}
	properties := maps.Clone(a.world.Properties)
	if properties == nil {
		properties = object{}
	}
	r.apply(a, predicate.Record{ID: uuid.New(), Contact: marshal(properties)})
	all := make([]int, r.set.Len())
	for i := range all {
		all[i] = i
	}
	return all
}

// As many cases as there are seeds, times two hundred.
func TestFaultIncrementalEvaluationAgreesWithTheWholeHistory(t *testing.T) {
	seeds, err := strconv.Atoi(cmp.Or(os.Getenv("HOGSTREAM_FAULT_SEEDS"), "3"))
	require.NoError(t, err)
	for range 2 * seeds { // of a hundred each
		incrementalAgreesWithTheWhole(t)
	}
}

func incrementalAgreesWithTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRun(t)
		r.agree()
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			var touched []int
			switch draw(t, "step", []string{"record", "record", "other", "time", "time", "merge"}) {
			case "record":
				touched = r.apply(&r.contacts[0], r.record())
			case "other":
				r.apply(&r.contacts[1], r.record())
			case "time":
				r.advance()
			case "merge":
				touched = r.merge()
			}
			r.evaluate(touched)
			r.agree()
			r.nothingTurnsBefore()
		}
	})
}
