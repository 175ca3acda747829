package journeys

import (
	"slices"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/packed"
)

// maxKeyText is how long a key may be.
const maxKeyText = 200

// enrol looks at whether a record begins a journey. The guards stand in their order.
func (w *work) enrol(u *InUse, r *record) {
	p := u.Program
	named := false
	for i := range p.triggers {
		m := &p.triggers[i]
		if !m.names(r) {
			continue
		}
		named = true
		if m.takes(r, w.lookUp(&run{}, p)) {
			w.begins(u, r)
			return
		}
	}
	if !named {
		return
	}
	reason := SkipWhere
	if off := u.off(); off != "" {
		reason = off
	}
	w.skip(p, &trigger{id: r.id, at: packed.Micros(r.At), hops: r.hops}, reason)
}

// off is why a journey enrols nobody, "" when it does.
func (u *InUse) off() string {
	switch {
	case !u.Program.journey.Enabled:
		return SkipDisabled
	case u.ByAdmin:
		return SkipByAdmin
	case u.Paused:
		return SkipPaused
	case u.Program.Lacks():
		return SkipNoCode
	}
	return ""
}

// begins is what comes of a record that is meant.
func (w *work) begins(u *InUse, r *record) {
	p := u.Program
	t := trigger{id: r.id, at: packed.Micros(r.At), doc: p.ofTrigger.cut(r.Document()), hops: r.hops}
	if off := u.off(); off != "" {
		w.skip(p, &t, off)
		return
	}
	if path := p.journey.Key; len(path) > 0 {
		t.key = scalar(find(r.Document(), path))
		if t.key == "" || t.key == `""` || len(t.key) > maxKeyText {
			t.key = ""
			w.skip(p, &t, SkipNoKey)
			return
		}
	}
	w.admit(u, &t)
}

// admit begins a run, or says why not.
func (w *work) admit(u *InUse, t *trigger) {
	p := u.Program
	if off := u.off(); off != "" {
		w.skip(p, t, off)
		return
	}
	e := w.s.peek(p.ID(), t.key)
	if t.id == e.skipped || runOf(p, t).String() == e.run {
		return // a command that is told again
	}
	v := admit(e, w.policy(&p.journey), w.at)
	switch {
	case v.queue:
		queued := *t
		w.s.entry(p.ID(), t.key).queued = &queued
		w.touch()
	case v.restart:
		if i := w.s.live(p.ID(), t.key); i >= 0 {
			w.end(w.s.runs[i].id, Exited, ReasonRestarted, "")
		}
		w.enter(p, t)
	case v.enrol:
		w.enter(p, t)
	default:
		w.skip(p, t, v.reason)
	}
}

func (w *work) policy(j *Journey) policy {
	return policy{
		limit: j.EntryLimit, period: j.EntryPeriod.Microseconds(), live: j.Live,
		unsubscribed: !j.Everybody && w.facts.Unsubscribed(), full: len(w.ids()) >= maxRuns,
	}
}

// enter counts an entry, and begins a run unless the contact is held out.
func (w *work) enter(p *Program, t *trigger) {
	j := &p.journey
	e := w.s.entry(j.ID, t.key)
	e.count, e.last, e.version, e.skip, e.skipAt, e.skipped, e.goalUntil = e.count+1, w.at, p.version, "", 0, "", 0
	e.holdout = j.Holdout > 0 && percent(w.contact, j.ID, "holdout") < j.Holdout
	if p.goal != nil {
		e.goalUntil = w.at + j.Goal.Within.Microseconds()
	}
	w.touch()
	if e.holdout {
		e.run = ""
		w.skip(p, t, SkipHoldout)
		return
	}
	id := runOf(p, t)
	e.live, e.run = true, id.String()
	r := run{
		id: id, journey: j.ID, version: p.version, key: t.key, zone: w.zone(j).String(), entered: w.at, since: w.at, entry: e.count, trigger: *t, epoch: 1,
	}
	if p.journey.Coded {
		r.open = w.place(&r, p)
	}
	w.s.runs = append(w.s.runs, r)
	w.sortRuns()
	c := w.change(Started, &r, p)
	c.Next = w.place(&r, p)
	w.tell(c, t.hops)
	w.trimEntries(j.ID)
	w.advance(id)
}

// runOf is the id of the run that a trigger begins.
func runOf(p *Program, t *trigger) uuid.UUID {
	return uuid.MustParse(schemas.Derive(t.id, "journey:"+p.ID()+":"+t.key, 0))
}

func (w *work) sortRuns() {
	slices.SortFunc(w.s.runs, func(a, b run) int {
		if a.entered != b.entered {
			return int(max(min(a.entered-b.entered, 1), -1))
		}
		return slices.Compare(a.id[:], b.id[:])
	})
}

// trimEntries forgets the keys that a contact began a journey with longest ago, beyond what
// is remembered.
func (w *work) trimEntries(journey string) {
	var of []int
	for i := range w.s.entries {
		if e := &w.s.entries[i]; e.journey == journey && !e.live && e.queued == nil {
			of = append(of, i)
		}
	}
	if len(of) <= maxKeys {
		return
	}
	oldest := slices.MinFunc(of, func(a, b int) int {
		return int(max(min(w.s.entries[a].last-w.s.entries[b].last, 1), -1))
	})
	w.s.entries = slices.Delete(w.s.entries, oldest, oldest+1)
}

// skip says why a trigger did not enrol.
func (w *work) skip(p *Program, t *trigger, reason string) {
	e := w.s.entry(p.ID(), t.key)
	e.skip, e.skipAt, e.skipped = reason, w.at, t.id
	w.trimEntries(p.ID())
	w.touch()
	c := Change{
		Kind: Skipped, At: packed.Instant(w.at), Journey: p.ID(), Version: p.version, Key: t.key, Reason: reason, Trigger: t.id,
	}
	if p.journey.Holdout > 0 && reason == SkipHoldout {
		c.Arm = ArmHoldout
	}
	w.tell(c, t.hops)
}

// converted says that a goal is reached.
func (w *work) converted(p *Program, e *entry, r *record) {
	c := Change{
		Kind: Converted, At: packed.Instant(w.at), Journey: e.journey, Version: e.version, Key: e.key, Run: e.run, Entry: e.count,
		Entered: packed.Instant(e.last), Step: goalStep, Outcome: OutcomeReached, Trigger: r.id, Since: packed.Instant(e.last), Arm: p.arm(e.holdout),
	}
	w.tell(c, r.hops)
}

// arm is that of a run, "" of a journey without a holdout.
func (p *Program) arm(holdout bool) string {
	switch {
	case p.journey.Holdout == 0:
		return ""
	case holdout:
		return ArmHoldout
	}
	return ArmTreatment
}

// lookUp finds what values of a run look up.
func (w *work) lookUp(r *run, p *Program) func(v *Value) string {
	return func(v *Value) string {
		switch v.source {
		case sourceTrigger:
			return find(r.trigger.doc, v.path)
		case sourceLast:
			return find(r.last.doc, v.path)
		case sourceContact:
			return find(w.s.contact, v.path)
		case sourceStep:
			at, known := p.byID[v.step]
			for i := range r.answers {
				if known && r.answers[i].node == at {
					return find(r.answers[i].doc, v.path)
				}
			}
			return ""
		}
		return r.field(v.path)
	}
}

// field is what a value says of the run itself.
func (r *run) field(path predicate.Path) string {
	switch path[0] {
	case "id":
		return canonicalText(r.id.String())
	case "key":
		return r.key
	case "journey":
		return canonicalText(r.journey)
	}
	return canonicalText(r.entry)
}
