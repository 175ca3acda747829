package journeys

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schedule"
)

// maxJournal is how many bytes the journal of a run may have.
const maxJournal = 64 << 10

// Define is a journey whose steps are Go code. It begins and ends as any other; trigger, key
// and the rest are set on what is returned. The version is that of the code: live runs
// belong to the one that they began with, so it is to change when the code asks for other
// steps.
//
// The code runs from its beginning each time when a run goes on, and what its steps came to
// before is answered from the run's journal. So it has to ask for the same steps each time:
// it depends on nothing but what the [Run] says, and what it does beside asking for steps is
// done again. A run of which the code asks for another step than before fails, and says
// both; no other run is touched. The code must not recover from panics of the methods of
// Run: that is how it is left when a run waits.
func Define(id, version string, code func(*Run) error) Journey {
	return Journey{ID: id, Name: id, Enabled: true, Version: version, Coded: true, Code: code}
}

// Run is a run of a journey whose steps are code. Its methods are steps, and return when the
// step is over, which may be weeks later in another process. name is the step's, as in
// facts; no two of a run are the same. A Run is not safe for concurrent use, and of no use
// when the code has returned.
type Run struct {
	// ID is the run's, Journey that of the journey. Key is the run's key, "" without one. Entry
	// is which run of the contact, journey and key it is, from 1.
	ID, Journey, Key string
	Entry            int64
	// Trigger are the properties of what began the run, a JSON object; {} when they were longer
	// than 4 KiB.
	Trigger string

	yield   func(request) bool
	journal []logged
	at      int
	names   map[string]bool
	stopped bool
	answer  logged // to the request in hand
}

// logged is a step that is over.
type logged struct {
	name    string
	kind    string
	input   string // what was asked: the text or, of a long one, its beginning and its hash
	outcome string
	doc     string // JSON: what came of it
}

// request is a step that the code asks for.
type request struct {
	logged
	step Step
}

// What the code is left with.
type (
	suspended struct{}        // it is stopped
	mismatch  struct{ error } // it asks for another step than before
	exited    struct{ reason string }
)

// Error implements error.
func (e exited) Error() string { return "exits: " + e.reason }

// Exit ends the run when the code returns it.
func (r *Run) Exit(reason string) error { return exited{reason} }

// Wait waits until a time.
func (r *Run) Wait(name string, until schedule.Until) { r.ask(Step{ID: name, Wait: &until}) }

// WaitUntil waits for a date in a property of the contact, which stands among the journey's
// Reads, and says what came: OutcomeReached, OutcomePast or OutcomeMissing.
func (r *Run) WaitUntil(name string, w WaitUntil) string {
	return r.ask(Step{ID: name, WaitUntil: &w}).outcome
}

// WaitFor waits for the first of several things, of which conditions stand among the
// journey's Conditions and a Lookback among its Lookbacks, and says which came, with the
// properties of the record: a JSON object, {} of a condition and the time-out, and when they
// are longer than 4 KiB. Of what came before, they are those that the Lookback keeps.
func (r *Run) WaitFor(name string, w WaitFor) (outcome, properties string) {
	came := r.ask(Step{ID: name, WaitFor: &w})
	return came.outcome, orEmpty(came.doc)
}

// Holds says whether one of the journey's Conditions does, by its name there.
func (r *Run) Holds(name, condition string) bool {
	return r.ask(Step{ID: name, Branch: []Arm{{As: condition, named: true, Do: nil}}}).outcome == condition
}

// Split says which share the contact takes, by its As.
func (r *Run) Split(name string, shares ...Share) string {
	return r.ask(Step{ID: name, Split: shares}).outcome
}

// Set sets properties of the contact, which are what encoding/json makes of v: an object.
func (r *Run) Set(name string, v any) {
	value := Literal(v)
	r.ask(Step{ID: name, Set: &value})
}

// Send is a product event of the contact.
func (r *Run) Send(name string, e Event) { r.ask(Step{ID: name, Trigger: &e}) }

// Bucket puts the contact into a manual bucket, or takes it out.
func (r *Run) Bucket(name string, m Membership) { r.ask(Step{ID: name, Bucket: &m}) }

// Email asks for a mail.
func (r *Run) Email(name string, e Email) { r.ask(Step{ID: name, Email: &e}) }

// Call asks a destination, and waits for its answer: a JSON object of result, status,
// receiverId and body. accepted is false when it failed.
func (r *Run) Call(name string, c Call) (answer string, accepted bool) {
	c.Failed = DoContinue
	came := r.ask(Step{ID: name, Call: &c})
	return orEmpty(came.doc), came.outcome == OutcomeAccepted
}

// ask has a step be done, or answers from the journal.
func (r *Run) ask(s Step) logged {
	if r.stopped {
		panic(suspended{})
	}
	kind := cmp.Or(slices.Concat(s.kinds(), []string{""})[0], kindSet)
	want := request{logged{name: s.ID, kind: kind, input: inputOf(&s, kind)}, s}
	if s.ID == "" {
		panic(mismatch{fmt.Errorf("a step %s has no name: give each a name of its own", kind)})
	}
	if r.names[s.ID] {
		panic(mismatch{fmt.Errorf("two steps are called %q: give each a name of its own", s.ID)})
	}
	r.names[s.ID] = true
	if r.at < len(r.journal) {
		before := r.journal[r.at]
		if !before.same(&want.logged) {
			panic(mismatch{fmt.Errorf("%w: the journal has %s, and the code asks for %s", errChanged, before.asked(), want.asked())})
		}
		r.at++
		return before
	}
	if !r.yield(want) {
		r.stopped = true
		panic(suspended{})
	}
	return r.answer
}

// maxInput is how many bytes of what was asked the journal keeps.
const maxInput = 160

// inputOf is what a step asks for, as the journal has it.
func inputOf(s *Step, kind string) string {
	var text string
	switch kind {
	case kindBranch:
		text = s.Branch[0].As
	case kindDo:
		text = s.job.input()
	default:
		text = canonicalText(writeMap(s, stepFields())[kind])
	}
	if len(text) <= maxInput {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return strings.ToValidUTF8(text[:maxInput-16], "") + "… " + hex.EncodeToString(sum[:6])
}

// errChanged is what a run fails with that code does not fit.
var errChanged = errors.New("the code is not as it was")

func (l *logged) same(other *logged) bool {
	return l.name == other.name && l.kind == other.kind && l.input == other.input
}

func (l *logged) asked() string { return fmt.Sprintf("%s %q %s", l.kind, l.name, l.input) }

// begun is the step that a run waits for, as its code asked for it.
func (r *run) begun() *logged { return &logged{name: r.open, kind: r.asked.kind, input: r.asked.input} }

// coroutine is the code of a run, as far as it has come: it asks for a step, or is over.
type coroutine struct {
	run   *Run
	next  func() (request, bool)
	stop  func()
	asks  request
	node  Node
	over  bool
	ended error // nil: it returned
}

// coroutine is the code of a run, which stands at the step that is open.
func (w *work) coroutine(r *run, p *Program) *coroutine {
	if co := w.code[r.id]; co != nil {
		return co
	}
	co := &coroutine{run: &Run{
		ID: r.id.String(), Journey: r.journey, Key: keyText(r.key), Entry: r.entry, Trigger: orEmpty(r.trigger.doc), journal: r.journal, names: map[string]bool{},
	}}
	co.next, co.stop = iter.Pull(func(yield func(request) bool) {
		defer func() {
			switch left := recover().(type) {
			case nil, suspended:
			case mismatch:
				co.ended = left.error
			default:
				co.ended = fmt.Errorf("the code panics: %v", left)
			}
		}()
		co.run.yield = yield
		co.ended = p.journey.Code(co.run)
		if co.ended == nil && co.run.at < len(co.run.journal) {
			before := co.run.journal[co.run.at]
			co.ended = fmt.Errorf("%w: the journal has %s, and the code returns", errChanged, before.asked())
		}
	})
	if w.code == nil {
		w.code = map[uuid.UUID]*coroutine{}
	}
	w.code[r.id] = co
	co.resume(p)
	if r.waits {
		co.compare(r.begun())
	}
	return co
}

// compare ends code that asks for another step than the one which its run waits for.
func (co *coroutine) compare(begun *logged) {
	switch {
	case co.over && co.ended == nil:
		co.ended = fmt.Errorf("%w: the run is at %s, and the code returns", errChanged, begun.asked())
	case !co.over && !begun.same(&co.asks.logged):
		co.stop()
		co.over, co.ended = true, fmt.Errorf("%w: the run is at %s, and the code asks for %s", errChanged, begun.asked(), co.asks.asked())
	}
}

// misfits ends a run that waits for a step for which its code, as it is now, does not ask.
func (w *work) misfits(id uuid.UUID, r *run) {
	w.leaveJob(r)
	r.waits = false
	w.proceed(id)
}

// resume has the code go on to its next step.
func (co *coroutine) resume(p *Program) {
	asks, more := co.next()
	if co.over = !more; co.over {
		return
	}
	co.asks = asks
	var err error
	if co.node, err = p.codedNode(&asks.step); err != nil {
		co.stop()
		co.over, co.ended = true, fmt.Errorf("step %q: %w", asks.name, err)
	}
}

// leave stops the code of all runs.
func (w *work) leave() {
	for _, co := range w.code {
		co.stop()
	}
}

// codedNode makes a node of a step that code asks for.
func (p *Program) codedNode(s *Step) (Node, error) {
	n := Node{ID: s.ID, step: s, path: s.ID}
	if len(s.Branch) == 1 && s.Branch[0].named {
		id, known := p.named[s.Branch[0].As]
		if !known {
			return n, fmt.Errorf("condition %q is not among the journey's Conditions", s.Branch[0].As)
		}
		n.Kind, n.arms = kindBranch, []arm{{name: s.Branch[0].As, when: id}}
		return n, nil
	}
	c := newChecker(&p.journey)
	c.steps("steps", "", []Step{*s}, 1)
	if len(c.out) > 0 {
		return n, errors.New(c.out[0].path + ": " + c.out[0].message)
	}
	n.Kind = s.kinds()[0]
	for _, outcome := range s.outcomes() {
		n.Next = append(n.Next, Edge{outcome, theEnd})
	}
	scratch := &compiler{p: &Program{journey: p.journey, version: p.version, byID: map[string]int{}}, zone: p.zone}
	scratch.node(&n)
	n.keep.whole = true
	return n, cmp.Or(p.undeclared(s, &n, scratch.p), scratch.err)
}

// undeclared says what a step looks at that the journey does not declare; conditions get
// the ids under which they are compiled.
func (p *Program) undeclared(s *Step, n *Node, scratch *Program) error {
	for _, path := range scratch.ofContact.all() {
		if !slices.ContainsFunc(p.journey.Reads, func(r predicate.Path) bool { return slices.Equal(r, path) }) {
			return fmt.Errorf("the property %s of the contact is not among the journey's Reads", strings.Join(path, "."))
		}
	}
	for i := range n.any {
		if a := &n.any[i]; a.memo != nil {
			memo, err := p.declared(a)
			if err != nil {
				return err
			}
			a.memo = memo
		}
		if n.any[i].condition == "" {
			continue
		}
		id := p.conditionID(s.WaitFor.Any[i].Condition)
		if id == "" {
			return fmt.Errorf("the condition of %q is not among the journey's Conditions", n.any[i].name)
		}
		n.any[i].condition = id
	}
	return nil
}

// declared is the memo of the journey's Lookbacks from which a wait of code is answered.
func (p *Program) declared(a *alternative) (*memo, error) {
	i := slices.IndexFunc(p.memos, func(m *memo) bool {
		return m.match.event == a.memo.match.event && m.where == a.memo.where && m.lookback >= a.lookback
	})
	if i < 0 {
		return nil, fmt.Errorf("a lookback of %s at %q is not among the journey's Lookbacks", time.Duration(a.lookback)*time.Microsecond, a.name)
	}
	for _, path := range a.memo.keep.all() { // what is compared with values of the run
		if !slices.ContainsFunc(p.memos[i].keep.all(), func(kept predicate.Path) bool { return slices.Equal(kept, path) }) {
			return nil, fmt.Errorf("the property %s of %q is compared and looked back at: add it to Keep of its Lookback", strings.Join(path, "."), a.name)
		}
	}
	return p.memos[i], nil
}

// conditionID is the id of a condition that the journey declares, or "".
func (p *Program) conditionID(c predicate.Condition) string {
	for i := range p.conditions {
		if p.conditions[i].Condition.Equal(c) {
			return p.conditions[i].ID
		}
	}
	return ""
}

// proceed has the code of a run go on until it waits or ends.
func (w *work) proceed(id uuid.UUID) {
	for {
		r, p := w.run(id)
		if r == nil || r.waits || !w.awake(r) {
			return
		}
		co := w.coroutine(r, p)
		if co.over {
			w.returned(id, co.ended)
			return
		}
		w.perform(id, r, p, &co.node)
		if r, _ := w.run(id); r != nil && r.waits {
			r.wakes, r.asked = co.node.wakes(), asked{co.asks.kind, co.asks.input}
		}
	}
}

// wakesAny stands for records of all names: a condition or a date may be another then.
const wakesAny = "*"

// wakes are the names of the records that may end a wait, so that code is not run for others.
func (n *Node) wakes() []string {
	if n.Kind == kindWaitUntil {
		return []string{wakesAny}
	}
	var out []string
	for i := range n.any {
		if n.any[i].match == nil {
			return []string{wakesAny}
		}
		out = append(out, n.any[i].match.name)
	}
	return out
}

// mayWake says whether a record may end the wait of a run; nil is none, which may turn
// conditions.
func (r *run) mayWake(p *Program, by *record) bool {
	return !p.journey.Coded || slices.Contains(r.wakes, wakesAny) || by != nil && slices.Contains(r.wakes, by.Name)
}

// returned ends a run whose code is over.
func (w *work) returned(id uuid.UUID, ended error) {
	var exits exited
	switch {
	case ended == nil:
		w.end(id, Completed, "", "")
	case errors.As(ended, &exits):
		w.end(id, Exited, exits.reason, "")
	default:
		w.end(id, Failed, "", ended.Error())
	}
	if co := w.code[id]; co != nil {
		co.stop()
		delete(w.code, id)
	}
}

// log notes what came of the step in hand, and has the code go on with it. It returns the
// name of the next step, "" when the code is over.
func (w *work) log(r *run, p *Program, outcome string) string {
	co := w.coroutine(r, p)
	entry := co.asks.logged
	entry.outcome = outcome
	switch co.node.Kind {
	case kindWaitFor:
		if outcome != OutcomeTimeout {
			entry.doc = r.last.doc
		}
	case kindCall, kindDo:
		for i := range r.answers {
			entry.doc = r.answers[i].doc
		}
		r.answers = nil
	}
	r.journal = append(slices.Clip(r.journal), entry)
	co.run.answer = entry
	size := 0
	for i := range r.journal {
		size += len(r.journal[i].name) + len(r.journal[i].outcome) + len(r.journal[i].doc) + 16
	}
	if size > maxJournal {
		co.stop()
		co.over, co.ended = true, errors.New("journal_full: what the steps of the run came to is more than 64 KiB")
		return ""
	}
	co.resume(p)
	if co.over {
		return ""
	}
	return co.asks.name
}
