package journeys

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/packed"
)

// InUse is a program that enrols.
type InUse struct {
	Program *Program
	// ByAdmin says that somebody switched the journey off: it enrols nobody, its runs go on.
	ByAdmin bool
	// Paused: it enrols nobody, and its runs stay where they are.
	Paused bool
	// Filling: what its conditions ask of the contact is not all known yet. It enrols, and its
	// runs wait at their first step until [Machine.Refill].
	Filling bool
}

// Machine runs the journeys in use, and the runs of versions before them. It is immutable
// and safe for concurrent use.
type Machine struct {
	current   []InUse // by id
	byID      map[string]*InUse
	programs  map[version]*Program
	byTrigger map[string][]*InUse // by the name of the record
	repeats   []*InUse
	lacking   []*InUse // whose code is not here
	memos     map[string][]*memo
	lookbacks map[uint64]int64
	contact   paths
	names     map[string]bool
	coded     bool // a program is code, which may wait for anything
	zone      *time.Location
}

// version names a program.
type version struct{ journey, version string }

// New makes a machine. Older are the programs of other versions, of which runs may live. Of
// two programs of one journey and version, which the same steps make, one counts.
func New(current []InUse, older []*Program, opts Options) *Machine {
	m := &Machine{
		current: slices.Clone(current), byID: map[string]*InUse{}, programs: map[version]*Program{}, byTrigger: map[string][]*InUse{},
		memos: map[string][]*memo{}, lookbacks: map[uint64]int64{}, names: map[string]bool{}, zone: cmp.Or(opts.Zone, time.UTC),
	}
	slices.SortFunc(m.current, func(a, b InUse) int { return strings.Compare(a.Program.ID(), b.Program.ID()) })
	for _, p := range older {
		m.add(p)
	}
	for i := range m.current {
		u := &m.current[i]
		m.byID[u.Program.ID()] = u
		m.add(u.Program)
		m.index(u)
	}
	for _, v := range slices.SortedFunc(maps.Keys(m.programs), compareVersions) {
		m.reads(m.programs[v])
	}
	for _, property := range predicate.ZoneProperties() {
		m.contact.add(predicate.Path{property})
	}
	return m
}

// add has runs of a program go on, if its code is here.
func (m *Machine) add(p *Program) {
	if !p.Lacks() {
		m.programs[version{p.ID(), p.Version()}] = p
	}
}

// index notes what enrols.
func (m *Machine) index(u *InUse) {
	for i := range u.Program.triggers {
		name := u.Program.triggers[i].name
		if !slices.Contains(m.byTrigger[name], u) {
			m.byTrigger[name] = append(m.byTrigger[name], u)
		}
		m.names[name] = true
		for j := range u.Program.triggers[i].same {
			u.Program.triggers[i].same[j].Value.walk(func(v *Value) { m.contact.add(v.path) })
		}
	}
	if u.off() == SkipNoCode {
		m.lacking = append(m.lacking, u)
	}
	if u.Program.journey.Trigger.Repeat != nil {
		m.repeats = append(m.repeats, u)
		m.names[factEntered], m.names[factLeft] = true, true
	}
}

// reads notes what runs of a program look at.
func (m *Machine) reads(p *Program) {
	m.contact.addAll(p.ofContact.all())
	m.coded = m.coded || p.journey.Coded
	for i := range p.exits {
		m.names[p.exits[i].name] = true
		if p.exits[i].settle > 0 {
			m.names[factEntered] = true
		}
	}
	if p.goal != nil {
		m.names[p.goal.name] = true
	}
	for i := range p.nodes {
		for j := range p.nodes[i].any {
			if match := p.nodes[i].any[j].match; match != nil {
				m.names[match.name] = true
			}
		}
	}
	for _, memo := range p.memos {
		if _, known := m.lookbacks[memo.id]; !known {
			m.memos[memo.match.name] = append(m.memos[memo.match.name], memo)
			m.lookbacks[memo.id] = memo.lookback
		}
	}
}

// LooksAt says whether a record of this name may begin, wake or end a run. What conditions
// look at is not among it.
func (m *Machine) LooksAt(name string) bool { return m.names[name] || m.coded }

// Names are all those that LooksAt is true of, but for what code waits for.
func (m *Machine) Names() []string { return sortedNames(m.names) }

// LooksBack are the names of the events that a wait may look back at.
func (m *Machine) LooksBack() []string { return sortedNames(m.memos) }

// Program is the one of a journey and version, or nil.
func (m *Machine) Program(journey, v string) *Program { return m.programs[version{journey, v}] }

// Conditions are what the runs of all programs ask of the contact, by program.
func (m *Machine) Conditions() []predicate.Named {
	var out []predicate.Named
	for _, v := range slices.SortedFunc(maps.Keys(m.programs), compareVersions) {
		out = append(out, m.programs[v].conditions...)
	}
	return out
}

// Lacks says that a step needs a version that this machine does not have: that of a live run
// of the contact, or of one that the step may begin.
func (m *Machine) Lacks(s *State, in *Input) bool {
	for i := range s.runs {
		r := &s.runs[i]
		meant := in.Command != nil && in.Command.Run == r.id.String()
		if m.Program(r.journey, r.version) == nil && (!r.failed || meant) {
			return true
		}
	}
	return slices.ContainsFunc(m.lacking, func(u *InUse) bool { return u.mayBegin(s, in) })
}

// mayBegin says that a step may come to an entry of a journey.
func (u *InUse) mayBegin(s *State, in *Input) bool {
	name, repeat := "", u.Program.journey.Trigger.Repeat != nil
	switch {
	case in.Command != nil:
		return in.Command.What == CommandEnroll && in.Command.Journey == u.Program.ID()
	case in.Event != nil:
		name = in.Event.Name
	case in.Fact != nil:
		name = in.Fact.Type
	case repeat && slices.ContainsFunc(s.ticks, func(t tick) bool { return t.journey == u.Program.ID() }):
		return true
	}
	for i := range u.Program.triggers {
		// What other runs tell comes within any step.
		if t := &u.Program.triggers[i]; t.name == name || strings.HasPrefix(t.name, "journey.") {
			return true
		}
	}
	return repeat && (name == factEntered || name == factLeft)
}

func compareVersions(a, b version) int {
	return cmp.Or(cmp.Compare(a.journey, b.journey), cmp.Compare(a.version, b.version))
}

// Current are the programs that enrol, by id.
func (m *Machine) Current() []InUse { return slices.Clone(m.current) }

// Facts are what is known of the contact. Whoever calls the machine keeps them.
type Facts interface {
	// Apply brings them up to date with a record. The machine calls it once for the record in
	// hand, when what was due before it is done, and for each fact that it tells.
	Apply(r *predicate.Record)
	// Evaluate answers for a condition of a program, by its id.
	Evaluate(condition string, now time.Time) predicate.Verdict
	// Has says whether the contact is a member of a bucket.
	Has(bucketID string) bool
	// Unsubscribed says whether it is, from everything.
	Unsubscribed() bool
}

// Input is what a step is about: one of Event, Fact, Receipt and Command is set; without, it
// is time alone: until OccurredAt, for what came since may not have been told yet, or until
// now when that is zero.
type Input struct {
	ID         string // of the record
	ContactID  string
	OccurredAt time.Time
	AppendedAt time.Time // when it was put on the log; zero where that is not known

	Event        *schemas.Event
	Fact         *schemas.Fact
	Receipt      *schemas.Receipt
	ReceiptEpoch int64
	Command      *Command
	// Hops is how many causes led to the record.
	Hops int
	// Loser is beside contact.merged the state of the contact that was merged into this one.
	Loser *State
}

// Result is what follows from a step.
type Result struct {
	State State
	// Same says that the state has not changed.
	Same bool
	// Effects are to be published in this order: *schemas.Fact, *schemas.Input,
	// *schemas.EmailRequest, *schemas.Outbox, and *schemas.Signal to processor buckets. Their
	// ids follow from run and step.
	Effects []schemas.Message
	// Cancel are outbox records that nobody waits for any more.
	Cancel []string
	// Tried are, when the sender of an event waits, the runs that lived when it came and whose
	// journey declares exitOn, the oldest first.
	Tried []Tried
	// Jobs are what workers are to do, and JobsOver those that nobody waits for any more, of
	// this step or of one before.
	Jobs     []JobBegun
	JobsOver []JobRef
	// Hops is how many causes led to the effects: of several chains, the longest. What a run does
	// has those that led to its beginning, or to what it goes on with where those are fewer, so
	// the steps of a run are no chain, however many they are. After an hour or more of waiting it
	// has none.
	Hops int
	// Due is when time alone goes on: the machine is then to be called again, without a
	// record. Zero is never.
	Due time.Time
}

// Tried is a run that an event was held against.
type Tried struct {
	Journey, Run string // their ids
	Exited       bool   // by an exitOn that the event is meant by
}

// Step says what follows from a record. now is the time at which it is handled, which never
// goes back for a contact. An error is the record's fault, and then the state is as it was.
func (m *Machine) Step(s State, in *Input, facts Facts, now time.Time) (Result, error) {
	w := m.work(s, in.ContactID, facts)
	defer w.leave()
	w.hops = in.Hops
	var err error
	switch {
	case in.Event != nil || in.Fact != nil:
		err = w.take(in, now)
	case in.Receipt != nil:
		w.own()
		err = w.answered(in, now)
	case in.Command != nil:
		w.own()
		err = w.obey(in, now)
	default:
		w.own()
		err = w.catchUp(in.until(now), packed.Micros(now))
		w.begin(packed.Micros(now))
	}
	if err != nil {
		return Result{}, err
	}
	return w.result(), nil
}

// Known is what is known of a contact when the journeys in use have changed.
type Known struct {
	ContactID   string
	Properties  string // of the contact, a JSON object
	UserID      string
	Email       string
	AnonymousID string
	// Events are those that are stored of it, of the names that [Machine.LooksBack] says.
	Events []*schemas.Event
}

// Recall has a state know events from before, of the names that [Machine.LooksBack] says, for
// waits that look back at them.
func (m *Machine) Recall(s State, events []*schemas.Event, now time.Time) (State, error) {
	w := m.work(s, "", nil)
	w.own()
	w.begin(packed.Micros(now))
	err := w.recall(events)
	return w.s, err
}

// Refill brings a state up to date with the journeys in use: it reads what they look at of
// the contact, arms times that come again, and ends the runs of versions before as their
// journey says. What is overdue, as of a journey that was paused, goes on as of now.
func (m *Machine) Refill(s State, k *Known, facts Facts, now time.Time) (Result, error) {
	w := m.work(s, k.ContactID, facts)
	defer w.leave()
	w.own()
	w.begin(packed.Micros(now))
	w.changed = true
	w.s.person = person{k.UserID, k.Email, k.AnonymousID}
	w.s.contact = m.contact.cut(k.Properties)
	if err := w.recall(k.Events); err != nil {
		return Result{}, err
	}
	for _, id := range w.ids() {
		w.redefine(id)
	}
	w.rearm()
	w.repeats()
	w.due(w.at)
	w.look(nil)
	if err := w.drain(); err != nil {
		return Result{}, err
	}
	return w.result(), nil
}
