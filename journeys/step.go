package journeys

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schedule"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/packed"
)

// maxDue is how many instants are handled in one step. What is due beyond is told again at
// once.
const maxDue = 1000

// longWait is the time after which what follows is no consequence of what came before: a
// chain of causes begins.
const longWait = int64(time.Hour / time.Microsecond)

// maxFacts is how many facts of one step may follow from one another.
const maxFacts = 16

// work is a step in hand.
type work struct {
	m       *Machine
	s       State
	contact string
	facts   Facts
	changed bool
	at      int64 // as of when

	out    []schemas.Message
	cancel []string

	tried    []Tried
	jobs     []JobBegun
	jobsOver []JobRef

	told  []record // facts that others may follow from
	depth int      // how many facts led here
	hops  int      // how many causes led to the record in hand; byTime of time alone
	led   int      // how many led to what was said
	code  map[uuid.UUID]*coroutine
}

// byTime stands for the hops of no record.
const byTime = math.MaxInt

// hopsOf is how many causes led to what a run does now.
func (w *work) hopsOf(r *run) int { return min(r.trigger.hops, w.hops) }

// say publishes something, to which as many causes led.
func (w *work) say(m schemas.Message, hops int) {
	w.out, w.led = append(w.out, m), max(w.led, hops)
}

func (m *Machine) work(s State, contact string, facts Facts) *work {
	w := &work{m: m, s: s, contact: contact, facts: facts, hops: byTime}
	w.s.changes = nil
	return w
}

// own has the step work on a copy of the state, which is the caller's.
func (w *work) own() { w.s = w.s.clone() }

// begin goes on as of an instant, which is never before the last.
func (w *work) begin(at int64) { w.at = max(at, w.s.clock) }

// touch says that the state is another now.
func (w *work) touch() { w.changed, w.s.clock = true, w.at }

// take handles a record: what was due before it, then what follows from it.
func (w *work) take(in *Input, now time.Time) error {
	r, err := read(in)
	if err != nil {
		return err
	}
	at := asOf(in, now)
	if w.idle(&r, in, at) {
		w.begin(at)
		w.identify(in)
		w.learn(&r)
		w.tryExits(&r)
		return nil
	}
	w.own()
	if err := w.catchUp(at-1, at-1); err != nil {
		return err
	}
	w.begin(at)
	r.hops = in.Hops
	if in.Loser != nil {
		w.takeIn(in.Loser)
	}
	w.identify(in)
	w.learn(&r)
	w.happen(&r)
	return w.drain()
}

// idle says that a record does nothing but be known: nothing is due before it, no run and no
// journey looks at it, and nobody waits for a condition or a property, which it may change.
// More than half of the records are such, and a copy of the state would be most of their cost.
func (w *work) idle(r *record, in *Input, at int64) bool {
	if in.Loser != nil || w.m.LooksAt(r.Name) || w.m.memos[r.Name] != nil || len(w.s.seen) > 0 || w.needed() < at {
		return false
	}
	return !slices.ContainsFunc(w.s.runs, func(run run) bool {
		p := w.m.Program(run.journey, run.version)
		return p != nil && run.node < len(p.nodes) && p.nodes[run.node].asks()
	})
}

// asks says that a wait may end because of what is known of the contact.
func (n *Node) asks() bool {
	return n.Kind == kindWaitUntil || slices.ContainsFunc(n.any, func(a alternative) bool { return a.match == nil })
}

func read(in *Input) (record, error) {
	if in.Event != nil {
		return eventRecord(in.Event)
	}
	return factRecord(in.Fact)
}

// AsOf is the instant for which a record is judged that is handled now: when it was received
// or became true, where it says so, else when it was put on the log, and not later than now.
// So records that waited to be handled come to the same as they would have in time, and one
// that a sender dated back ends no wait that was over when it came.
func (in *Input) AsOf(now time.Time) time.Time { return packed.Instant(asOf(in, now)) }

func asOf(in *Input, now time.Time) int64 {
	came := packed.Micros(in.AppendedAt)
	switch {
	case in.Event != nil:
		came = packed.Micros(in.Event.ReceivedAt)
	case in.Fact != nil && in.Fact.Contact != nil:
		came = packed.Micros(in.Fact.Contact.UpdatedAt)
	case in.Receipt != nil, in.Fact != nil && (in.Fact.Bucket != nil || in.Fact.Journey != nil):
		came = packed.Micros(in.OccurredAt)
	}
	return min(packed.OrNever(came), packed.Micros(now))
}

// until is up to when what is due is done by a step of time alone.
func (in *Input) until(now time.Time) int64 {
	return min(packed.OrNever(packed.Micros(in.OccurredAt)), packed.Micros(now))
}

func (w *work) identify(in *Input) {
	if in.Fact != nil && in.Fact.ContactID != in.ContactID {
		return // it is of one that was merged into this contact, as it was then
	}
	var p person
	if e := in.Event; e != nil {
		p = person{deref(e.UserID), deref(e.Email), deref(e.AnonymousID)}
	} else {
		p = person{deref(in.Fact.UserID), deref(in.Fact.Email), deref(in.Fact.AnonymousID)}
	}
	before := w.s.person
	w.s.person = p
	// Devices of one user come and go: that alone is not worth a write.
	if len(w.s.runs) > 0 && (p.userID != before.userID || p.email != before.email) {
		w.changed = true
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// learn keeps what may be looked at later.
func (w *work) learn(r *record) {
	w.facts.Apply(&r.Record)
	if r.Contact != "" {
		if doc := w.m.contact.cut(r.Contact); doc != w.s.contact {
			w.s.contact, w.changed = doc, true
		}
	}
	w.remember(r)
}

// remember keeps an event that a wait may look back at.
func (w *work) remember(r *record) {
	for _, memo := range w.m.memos[r.Name] {
		if !memo.match.names(r) || !memo.match.takes(r, nil) {
			continue
		}
		w.keepSeen(seen{memo: memo.id, at: packed.Micros(r.At), id: r.id, doc: memo.keep.cut(r.Document())})
	}
	w.forget()
}

// recall keeps what came before a wait that looks back was defined.
func (w *work) recall(events []*schemas.Event) error {
	for _, e := range events {
		r, err := eventRecord(e)
		if err != nil {
			return err
		}
		w.remember(&r)
	}
	return nil
}

// keepSeen keeps an event once.
func (w *work) keepSeen(e seen) {
	if at, repeat := slices.BinarySearchFunc(w.s.seen, e, byMemo); !repeat {
		w.s.seen, w.changed = slices.Insert(w.s.seen, at, e), true
	}
}

// byMemo puts the newest of each memo first.
func byMemo(a, b seen) int {
	return cmp.Or(cmp.Compare(a.memo, b.memo), cmp.Compare(b.at, a.at), cmp.Compare(a.id, b.id))
}

// forget drops events that no wait looks back at any more.
func (w *work) forget() {
	kept, memo := 0, uint64(0)
	before := len(w.s.seen)
	w.s.seen = slices.DeleteFunc(w.s.seen, func(e seen) bool {
		if e.memo != memo {
			kept, memo = 0, e.memo
		}
		kept++
		lookback, known := w.m.lookbacks[e.memo]
		return !known || kept > maxSeen || e.at < w.at-lookback
	})
	w.changed = w.changed || len(w.s.seen) != before
}

// happen is what follows from a record, in this order: exits, goals, waits, entries.
func (w *work) happen(r *record) {
	w.depth, w.hops = r.depth, r.hops
	w.tryExits(r)
	w.goals(r)
	w.look(r)
	if r.Name == factEntered || r.Name == factLeft {
		w.repeats()
	}
	for _, u := range w.m.byTrigger[r.Name] {
		w.enrol(u, r)
	}
}

// drain handles the facts that were told, as if they were records that came next.
func (w *work) drain() error {
	for len(w.told) > 0 {
		r := w.told[0]
		w.told = w.told[1:]
		if r.depth > maxFacts {
			return fmt.Errorf("journeys follow from one another in a circle: the last is %q", r.about)
		}
		w.learn(&r)
		w.happen(&r)
	}
	return nil
}

// ids are the runs that live now.
func (w *work) ids() []uuid.UUID {
	var out []uuid.UUID
	for i := range w.s.runs {
		if !w.s.runs[i].failed {
			out = append(out, w.s.runs[i].id)
		}
	}
	return out
}

// run is a run that lives, with its program; nil when one of the two is not there.
func (w *work) run(id uuid.UUID) (*run, *Program) {
	i := w.s.find(id)
	if i < 0 || w.s.runs[i].failed {
		return nil, nil
	}
	r := &w.s.runs[i]
	p := w.m.Program(r.journey, r.version)
	if p == nil || !p.journey.Coded && r.node >= len(p.nodes) || r.settle != 0 && r.rule >= len(p.exits) {
		return nil, nil // what such bytes say, no step ever made
	}
	return r, p
}

// node is the one where a run is. Of code it is nil when that is over, or not as it was.
func (w *work) node(r *run, p *Program) *Node {
	if !p.journey.Coded {
		return &p.nodes[r.node]
	}
	if co := w.coroutine(r, p); !co.over {
		return &co.node
	}
	return nil
}

// tryExits holds a record against what ends the runs that live, and notes which those were
// for a sender who asks.
func (w *work) tryExits(r *record) {
	for _, id := range w.ids() {
		run, p := w.run(id)
		if run == nil {
			continue
		}
		exited := w.exits(id, run, p, r)
		if r.asks && len(p.exits) > 0 {
			w.tried = append(w.tried, Tried{Journey: p.ID(), Run: id.String(), Exited: exited})
		}
	}
}

// exits ends a run, which it says, or has it settle first.
func (w *work) exits(id uuid.UUID, run *run, p *Program, r *record) bool {
	if run.settle != 0 && r.Name == factEntered && p.exits[run.rule].about == r.about {
		run.settle = 0
		w.touch()
	}
	for i := range p.exits {
		e := &p.exits[i]
		if !e.names(r) || !e.takes(r, w.lookUp(run, p)) {
			continue
		}
		if e.settle == 0 {
			w.end(id, Exited, e.reason, "")
			return true
		}
		if run.settle == 0 {
			run.settle, run.rule = w.at+e.settle, i
			w.touch()
		}
	}
	return false
}

// goals notes that goals are reached, also of runs that have ended and of those held out.
func (w *work) goals(r *record) {
	for i := range w.s.entries {
		e := &w.s.entries[i]
		p := w.m.Program(e.journey, e.version)
		if u := w.m.byID[e.journey]; p == nil && u != nil {
			p = u.Program // the goal is no part of the version
		}
		if e.goalUntil == 0 || e.goalUntil < w.at || p == nil || p.goal == nil {
			continue
		}
		if !p.goal.names(r) || !p.goal.takes(r, w.lookUp(&run{journey: e.journey, key: e.key, entry: e.count}, p)) {
			continue
		}
		e.goalUntil = 0
		w.touch()
		w.converted(p, e, r)
	}
}

// look has each run look at a record that may end its wait, or at conditions alone.
func (w *work) look(r *record) {
	for _, id := range w.ids() {
		run, p := w.run(id)
		if run == nil || !run.waits || !run.mayWake(p, r) {
			continue
		}
		n := w.node(run, p)
		if n == nil {
			w.misfits(id, run)
			continue
		}
		switch n.Kind {
		case kindWaitFor:
			if outcome := w.awaited(run, p, n, r); outcome != "" {
				w.stepped(id, outcome)
				w.advance(id)
			}
		case kindWaitUntil:
			if w.untilDate(id, run, n) {
				w.advance(id)
			}
		}
	}
}

// awaited is the first alternative that a record, or a condition, brings about; "" is none.
func (w *work) awaited(run *run, p *Program, n *Node, r *record) string {
	next := int64(0)
	for i := range n.any {
		a := &n.any[i]
		if a.match == nil {
			holds, turns := w.holds(a.condition)
			if holds {
				return a.name
			}
			next = earlier(next, turns)
			continue
		}
		if r != nil && a.match.names(r) && a.match.takes(r, w.lookUp(run, p)) {
			run.last = trigger{id: r.id, at: packed.Micros(r.At), doc: p.ofLast.cut(r.Document())}
			return a.name
		}
	}
	if next != run.next {
		run.next, w.changed = next, true
	}
	return ""
}

// holds says whether a condition does, and when time may turn it; 0 is never.
func (w *work) holds(condition string) (holds bool, turns int64) {
	v := w.facts.Evaluate(condition, packed.Instant(w.at))
	if turns = packed.Micros(v.Next); turns != 0 {
		turns = max(turns, w.at+1)
	}
	return v.Holds, turns
}

// earlier is the earlier of two instants, of which each may be none.
func earlier(a, b int64) int64 {
	if first := min(packed.OrNever(a), packed.OrNever(b)); first != packed.Never {
		return first
	}
	return 0
}

// catchUp handles what is due until an instant, that one included, oldest first and each as
// of when it is due. Of times that come again those have passed that have by now.
func (w *work) catchUp(until, now int64) error {
	defer func(hops int) { w.hops = hops }(w.hops)
	for range maxDue {
		due := w.needed()
		if due > until {
			return nil
		}
		w.begin(due)
		w.touch()
		w.depth, w.hops = 0, byTime
		w.due(now)
		if err := w.drain(); err != nil {
			return err
		}
	}
	return nil
}

// due does what is due at one instant: runs that have settled exit before waits end.
func (w *work) due(now int64) {
	ids := w.ids()
	for _, id := range ids {
		if run, p := w.run(id); run != nil && w.awake(run) && packed.OrNever(run.settle) <= w.at {
			run.waited(p.exits[run.rule].settle)
			w.end(id, Exited, p.exits[run.rule].reason, "")
		}
	}
	for _, id := range ids {
		if run, p := w.run(id); run != nil && w.awake(run) && run.isDue(w.at) {
			run.waited(w.at - run.since)
			if n := w.node(run, p); n != nil && run.waits {
				w.elapse(id, run, n, p)
			} else {
				run.waits = false
				w.advance(id)
			}
		}
	}
	w.ticks(now)
}

// waited begins a chain of causes when a run has waited for long.
func (r *run) waited(time int64) {
	if time >= longWait {
		r.trigger.hops = 0
	}
}

// isDue says whether time does something with a run at an instant.
func (r *run) isDue(at int64) bool {
	return !r.waits || min(packed.OrNever(r.due), packed.OrNever(r.next)) <= at
}

// elapse ends a wait that time ends, or looks at its conditions again.
func (w *work) elapse(id uuid.UUID, run *run, n *Node, p *Program) {
	switch {
	case packed.OrNever(run.due) <= w.at:
		w.timedOut(id, run, n)
		w.advance(id)
	case packed.OrNever(run.next) <= w.at:
		if outcome := w.awaited(run, p, n, nil); outcome != "" {
			w.stepped(id, outcome)
			w.advance(id)
		}
	}
}

// timedOut is what comes of a wait when its time has come.
func (w *work) timedOut(id uuid.UUID, run *run, n *Node) {
	switch n.Kind {
	case kindWaitFor:
		w.stepped(id, OutcomeTimeout)
	case kindWaitUntil:
		w.stepped(id, OutcomeReached)
	case kindCall:
		w.cancel = append(w.cancel, w.effect(run, n))
		w.callFailed(id, run, n, "no answer came in time")
	default:
		w.stepped(id, OutcomeNext)
	}
}

// awake says that a run is not held, by a pause or because the contact is to be filled.
func (w *work) awake(r *run) bool {
	u := w.m.byID[r.journey]
	return u == nil || !u.Paused && (!u.Filling || u.Program.version != r.version)
}

// needed is the earliest instant at which something is due; never for none.
func (w *work) needed() int64 {
	earliest := int64(packed.Never)
	for i := range w.s.runs {
		r := &w.s.runs[i]
		if r.failed || !w.awake(r) || w.m.Program(r.journey, r.version) == nil {
			continue
		}
		if !r.waits { // it was held
			earliest = min(earliest, w.s.clock)
		}
		earliest = min(earliest, packed.OrNever(r.due), packed.OrNever(r.next), packed.OrNever(r.settle))
	}
	for i := range w.s.ticks {
		if u := w.m.byID[w.s.ticks[i].journey]; u != nil && u.Program.journey.Trigger.Repeat != nil {
			earliest = min(earliest, w.s.ticks[i].next)
		}
	}
	return earliest
}

// rearm moves times that come again to those of their journeys as these are now. One that is
// a time of its journey still stays, also when it is overdue.
func (w *work) rearm() {
	for i := range w.s.ticks {
		t := &w.s.ticks[i]
		u := w.m.byID[t.journey]
		if u == nil || u.Program.journey.Trigger.Repeat == nil || w.nextTick(u, t.next-1) == t.next {
			continue
		}
		t.next = w.nextTick(u, w.at)
		w.touch()
	}
}

// repeats arms the times that come again for the members of buckets, and disarms those of
// others.
func (w *work) repeats() {
	for _, u := range w.m.repeats {
		id := u.Program.ID()
		i := slices.IndexFunc(w.s.ticks, func(t tick) bool { return t.journey == id })
		member := w.facts.Has(u.Program.journey.Trigger.Bucket)
		switch {
		case member && i < 0:
			w.s.ticks = append(w.s.ticks, tick{id, w.nextTick(u, w.at)})
			slices.SortFunc(w.s.ticks, func(a, b tick) int { return cmp.Compare(a.journey, b.journey) })
			w.touch()
		case !member && i >= 0:
			w.s.ticks = slices.Delete(w.s.ticks, i, i+1)
			w.touch()
		}
	}
}

func (w *work) nextTick(u *InUse, after int64) int64 {
	return packed.Micros(u.Program.journey.Trigger.Repeat.Next(packed.Instant(after), w.zone(&u.Program.journey)))
}

// zone is whose clock a run begins with.
func (w *work) zone(j *Journey) *time.Location {
	if j.Zone != nil {
		return j.Zone
	}
	return schedule.ZoneOf(func(property string) string {
		return text(find(w.s.contact, predicate.Path{property}))
	}, w.m.zone).Zone
}

// ticks begins what comes again. Of several times that have passed only the last counts,
// and not when that is too late.
func (w *work) ticks(until int64) {
	for i := range w.s.ticks {
		t := &w.s.ticks[i]
		u := w.m.byID[t.journey]
		if u == nil || u.Program.journey.Trigger.Repeat == nil || t.next > w.at {
			continue
		}
		now := t.next
		t.next = w.nextTick(u, now)
		if t.next <= until {
			continue
		}
		j := &u.Program.journey
		tr := trigger{id: schemas.Derive(w.contact, "journey.repeat:"+t.journey, int(now/1e6)), at: now}
		if until-now > j.Trigger.NotAfter.Microseconds() {
			w.skip(u.Program, &tr, SkipLate)
			continue
		}
		w.admit(u, &tr)
	}
}

// result is what the step comes to.
func (w *work) result() Result {
	out := Result{State: w.s, Same: !w.changed, Effects: w.out, Cancel: w.cancel, Tried: w.tried, Jobs: w.jobs, JobsOver: w.jobsOver, Hops: w.led}
	due := w.needed()
	for i := range w.s.runs {
		if r := &w.s.runs[i]; !r.failed && w.awake(r) && w.m.Program(r.journey, r.version) == nil {
			due = min(due, w.lookedFor(r))
		}
	}
	if due != packed.Never {
		out.Due = packed.Instant(due)
	}
	return out
}

// Bounds of how soon a run is looked for again whose version is not known here.
const (
	soonest = int64(time.Minute / time.Microsecond)
	latest  = int64(time.Hour / time.Microsecond)
)

// lookedFor is when a run whose version is not known here is to be stepped again, in the hope
// that it is by who knows it: when it is due and, from then on, ever more seldom.
func (w *work) lookedFor(r *run) int64 {
	due := min(packed.OrNever(r.due), packed.OrNever(r.next))
	if !r.waits {
		due = r.since
	}
	if due > w.at {
		return due
	}
	return w.at + min(max((w.at-due)/2, soonest), latest)
}
