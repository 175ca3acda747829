package journeys

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schedule"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/packed"
)

// Reasons of an exit that no definition names.
const (
	ReasonRestarted = "restarted"          // another run of the same contact and key began
	ReasonMerged    = "merged"             // a run of the contact it was merged into goes on
	ReasonChanged   = "definition_changed" // the journey was changed or removed
	ReasonCancelled = "cancelled"          // somebody ended it
	ReasonPast      = "date_passed"        // of a waitUntil
	ReasonMissing   = "no_date"            // of a waitUntil
)

// grace is how long after a call's time-out its answer is waited for.
const grace = 5 * time.Minute

// advance has a run go on until it waits or ends.
func (w *work) advance(id uuid.UUID) {
	for {
		run, p := w.run(id)
		switch {
		case run == nil || run.waits || !w.awake(run):
			return
		case p.journey.Coded:
			w.proceed(id)
			return
		}
		w.perform(id, run, p, &p.nodes[run.node])
	}
}

// place is the name of the step where a run is; "" of code that is over.
func (w *work) place(r *run, p *Program) string {
	if !p.journey.Coded {
		return p.nodes[r.node].ID
	}
	if co := w.coroutine(r, p); !co.over {
		return co.asks.name
	}
	return ""
}

// perform begins a node. Afterwards the run waits, stands at the next node, or has ended.
func (w *work) perform(id uuid.UUID, run *run, p *Program, n *Node) {
	w.touch()
	switch n.Kind {
	case kindWait:
		run.waits, run.due = true, packed.Micros(ceil(n.until.Resolve(packed.Instant(w.at), run.location())))
	case kindWaitUntil:
		run.waits = true
		w.untilDate(id, run, n)
	case kindWaitFor:
		w.waitFor(id, run, p, n)
	case kindBranch:
		w.stepped(id, w.branch(run, n))
	case kindSplit:
		w.stepped(id, w.share(n, run))
	case kindExit:
		w.end(id, Exited, n.step.Exit, "")
	case kindCall:
		w.call(run, p, n)
	case kindDo:
		w.beginJob(run, n)
	default:
		w.say(w.message(run, p, n), w.hopsOf(run))
		w.stepped(id, OutcomeNext)
	}
}

// ceil is the first whole microsecond not before an instant.
func ceil(t time.Time) time.Time {
	if down := t.Truncate(time.Microsecond); down.Before(t) {
		return down.Add(time.Microsecond)
	}
	return t
}

func (r *run) location() *time.Location {
	zone, err := predicate.LoadZone(r.zone)
	if err != nil {
		return time.UTC // this machine does not know it
	}
	return zone
}

// waitFor opens a wait, or ends it at once with what came before.
func (w *work) waitFor(id uuid.UUID, run *run, p *Program, n *Node) {
	run.waits, run.due, run.next = true, w.at+n.step.WaitFor.Timeout.Microseconds(), 0
	for i := range n.any {
		a := &n.any[i]
		if a.match == nil {
			holds, turns := w.holds(a.condition)
			if holds {
				w.stepped(id, a.name)
				return
			}
			run.next = earlier(run.next, turns)
			continue
		}
		if e := w.lookBack(run, p, a); e != nil {
			run.last = trigger{id: e.id, at: e.at, doc: p.ofLast.cut(orEmpty(e.doc))}
			w.stepped(id, a.name)
			return
		}
	}
}

func orEmpty(doc string) string {
	if doc == "" {
		return "{}"
	}
	return doc
}

// lookBack is the newest event that a wait may look back at. What began the run, or ended
// its last wait, does not count again.
func (w *work) lookBack(run *run, p *Program, a *alternative) *seen {
	if a.memo == nil {
		return nil
	}
	for i := range w.s.seen {
		e := &w.s.seen[i]
		if e.memo == a.memo.id && e.at >= w.at-a.lookback && e.id != run.trigger.id && e.id != run.last.id &&
			sameAs(a.match.same, orEmpty(e.doc), w.lookUp(run, p)) {
			return e
		}
	}
	return nil
}

// untilDate arms a wait for the date that its property holds now, and says whether it is
// over.
func (w *work) untilDate(id uuid.UUID, run *run, n *Node) bool {
	u := n.step.WaitUntil
	date, known := u.date(find(w.s.contact, u.Property), run.location())
	switch {
	case known && packed.Micros(date) == run.due:
		return false // as it was: its time ends it
	case !known && u.Missing == DoContinue:
		w.stepped(id, OutcomeMissing)
	case !known && u.Missing == DoExit:
		w.end(id, Exited, ReasonMissing, "")
	case !known && len(n.step.Then[OutcomeMissing]) > 0:
		w.stepped(id, OutcomeMissing)
	case !known:
		w.arm(run, 0)
		return false
	case packed.Micros(date) > w.at:
		w.arm(run, packed.Micros(date))
		return false
	case u.Past == DoExit:
		w.end(id, Exited, ReasonPast, "")
	default:
		w.stepped(id, OutcomePast)
	}
	return true
}

func (w *work) arm(run *run, due int64) {
	if run.due != due {
		run.due = due
		w.touch()
	}
}

// date is when the wait ends, as a property says; false for what is no date.
func (u *WaitUntil) date(raw string, zone *time.Location) (time.Time, bool) {
	word := text(raw)
	at, calendar := u.At, false
	t, err := time.Parse(time.RFC3339, word)
	if err != nil {
		if t, err = time.Parse(time.DateOnly, word); err != nil {
			return time.Time{}, false
		}
		calendar = true
	}
	if !calendar && at.IsZero() {
		return ceil(t.Add(u.Shift)), true
	}
	if !calendar {
		t = t.In(zone)
	}
	days := int(u.Shift / (24 * time.Hour))
	year, month, day := t.Date()
	return schedule.OnDate(year, month, day+days, at, zone).Add(u.Shift % (24 * time.Hour)), true
}

// branch is the first part whose conditions hold.
func (w *work) branch(run *run, n *Node) string {
	for i := range n.arms {
		a := &n.arms[i]
		if a.when != "" && !w.facts.Evaluate(a.when, packed.Instant(w.at)).Holds {
			continue
		}
		if takes(a.trigger, run.trigger.doc) && takes(a.last, run.last.doc) {
			return a.name
		}
	}
	return OutcomeElse
}

func takes(f *predicate.Filter, doc string) bool {
	return f == nil || f.Match(&predicate.Record{Properties: orEmpty(doc)}, nil)
}

// share is the part of a split that a contact takes.
func (w *work) share(n *Node, run *run) string {
	p := percent(w.contact, run.journey, n.ID)
	for i, end := range n.ends {
		if p < end {
			return n.Next[i].Outcome
		}
	}
	return n.Next[len(n.Next)-1].Outcome
}

// percent is a number from 0 until before 100 that follows from the contact, a journey and
// what it is for.
func percent(contact, journey, what string) float64 {
	sum := sha256.Sum256([]byte(contact + "\x00" + journey + "\x00" + what))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53) * 100
}

// effect is the id of what a node has done.
func (w *work) effect(run *run, n *Node) string {
	return schemas.Derive(run.id.String(), n.Kind+":"+n.ID, int(run.epoch))
}

// called is the id of the call that a run would wait for where it is.
func (r *run) called(p *Program) string {
	name := r.open
	if !p.journey.Coded {
		name = p.nodes[r.node].ID
	}
	return schemas.Derive(r.id.String(), kindCall+":"+name, int(r.epoch))
}

// message is what a node has done that is not waited for.
func (w *work) message(run *run, p *Program, n *Node) schemas.Message {
	id, at, look := w.effect(run, n), packed.Instant(w.at), w.lookUp(run, p)
	switch n.Kind {
	case kindSet:
		properties := n.step.Set.render(look)
		in := w.input(id, run)
		in.Type, in.ContactProperties = schemas.InputContact, &properties
		return in
	case kindTrigger:
		properties := n.step.Trigger.Properties.render(look)
		in := w.input(id, run)
		in.Type, in.Event, in.EventProperties = schemas.InputEvent, &n.step.Trigger.Name, &properties
		return in
	case kindBucket:
		return w.membership(id, n.step.Bucket)
	}
	e := n.step.Email
	runID := run.id.String()
	category := e.Category
	if category == "" {
		category = defaultCategory
	}
	return &schemas.EmailRequest{
		ID: id, ContactID: w.contact, OccurredAt: at, Template: e.Template, To: pointer(w.s.person.email), Subject: pointer(e.Subject),
		Category: &category, Props: e.Props.render(look), JourneyID: pointer(run.journey), JourneyStateID: &runID, SkipPreference: e.SkipPreference,
	}
}

// input is one of the contact itself: never by a name that could be another's.
func (w *work) input(id string, run *run) *schemas.Input {
	contact := w.contact
	return &schemas.Input{
		ID: id, ReceivedAt: packed.Instant(w.at), OccurredAt: packed.Instant(w.at), Source: "journey:" + run.journey, ContactID: &contact,
		IdempotencyKey: &id, Scope: pointer("journeys"),
	}
}

func (w *work) membership(id string, m *Membership) *schemas.Signal {
	bucket := m.Add
	if bucket == "" {
		bucket = m.Remove
	}
	said := canonicalText(map[string]any{"bucket": bucket, "member": m.Add != ""})
	return &schemas.Signal{
		ID: id, Type: schemas.SignalCommand, For: Buckets, ContactID: w.contact, OccurredAt: packed.Instant(w.at), What: MemberCommand, State: &said,
	}
}

// call asks a destination, and waits.
func (w *work) call(run *run, p *Program, n *Node) {
	c := n.step.Call
	until := w.at + cmp.Or(c.Timeout, defaultTimeout).Microseconds()
	run.waits, run.due = true, until+grace.Microseconds()
	w.say(&schemas.Outbox{
		ID: w.effect(run, n), ContactID: w.contact, OccurredAt: packed.Instant(w.at), Destination: c.Destination, Kind: schemas.OutboxCall,
		Body: c.Body.render(w.lookUp(run, p)), Headers: c.Headers, NotAfter: packed.Instant(until), Asker: Name, Epoch: run.epoch,
	}, w.hopsOf(run))
}

// answered goes on with the run that a receipt is for. One that nobody waits for is stale.
func (w *work) answered(in *Input, now time.Time) error {
	at := asOf(in, now)
	if err := w.catchUp(at-1, at-1); err != nil {
		return err
	}
	w.begin(at)
	for _, id := range w.ids() {
		run, p := w.run(id)
		if run == nil || !run.waits || run.called(p) != in.Receipt.OutboxID {
			continue
		}
		n := w.node(run, p)
		if n == nil {
			w.misfits(id, run)
			continue
		}
		w.touch()
		w.note(run, n, in.Receipt)
		if in.Receipt.Result == schemas.ReceiptAccepted {
			w.stepped(id, OutcomeAccepted)
		} else {
			w.callFailed(id, run, n, in.Receipt.Result+": "+in.Receipt.Reason)
		}
		w.advance(id)
	}
	return w.drain()
}

// note keeps what is read of an answer.
func (w *work) note(run *run, n *Node, r *schemas.Receipt) {
	said := map[string]any{"result": r.Result}
	if r.Status != nil {
		said["status"] = *r.Status
	}
	if r.ReceiverID != nil {
		said["receiverId"] = *r.ReceiverID
	}
	if r.Body != nil {
		said["body"] = *r.Body
		if json.Valid([]byte(*r.Body)) {
			said["body"] = json.RawMessage(*r.Body)
		}
	}
	if doc := n.keep.cut(canonicalText(said)); doc != "" {
		run.answers = append(run.answers, answer{run.node, doc})
	}
}

// callFailed is what comes of a call that was not accepted.
func (w *work) callFailed(id uuid.UUID, run *run, n *Node, why string) {
	if len(n.step.Then[OutcomeFailed]) > 0 || n.step.Call.Failed == DoContinue {
		w.stepped(id, OutcomeFailed)
		return
	}
	w.end(id, Failed, "", fmt.Sprintf("call to %s: %s", n.step.Call.Destination, why))
}

// stepped ends a node with an outcome, and has the run stand at the next one.
func (w *work) stepped(id uuid.UUID, outcome string) {
	run, p := w.run(id)
	if p.journey.Coded {
		w.steppedInCode(id, run, p, outcome)
		return
	}
	n := &p.nodes[run.node]
	to := n.leads(outcome)
	c := w.change(Stepped, run, p)
	c.Step, c.Outcome, c.Since, c.Does = n.ID, outcome, packed.Instant(run.since), does(n)
	if to != theEnd {
		c.Next = p.nodes[to].ID
	}
	run.trigger.hops = w.hopsOf(run)
	w.tell(c, run.trigger.hops)
	w.touch()
	run.waits, run.due, run.next = false, 0, 0
	if to == theEnd {
		w.end(id, Completed, "", "")
		return
	}
	run.node, run.since = to, w.at
	run.epoch++
}

// steppedInCode is stepped of a run whose code then says what comes next.
func (w *work) steppedInCode(id uuid.UUID, run *run, p *Program, outcome string) {
	c := w.change(Stepped, run, p)
	c.Step, c.Outcome, c.Since, c.Does = run.open, outcome, packed.Instant(run.since), does(w.nodeAt(run, p))
	w.leaveJob(run)
	c.Next = w.log(run, p, outcome)
	run.trigger.hops = w.hopsOf(run)
	w.tell(c, run.trigger.hops)
	w.touch()
	run.waits, run.due, run.next, run.open, run.asked = false, 0, 0, c.Next, asked{}
	run.since = w.at
	if c.Next == "" {
		w.returned(id, w.code[id].ended)
		return
	}
	run.epoch++
}

// does is the kind of a node that has done something when it is over; "" of one that only
// waits or decides.
func does(n *Node) string {
	if n == nil || slices.Contains([]string{kindWait, kindWaitUntil, kindWaitFor, kindBranch, kindSplit, kindExit}, n.Kind) {
		return ""
	}
	return n.Kind
}

// nodeAt is the node where a run is, nil when there is none any more.
func (w *work) nodeAt(r *run, p *Program) *Node {
	switch {
	case p == nil, !p.journey.Coded && r.node >= len(p.nodes):
		return nil
	case p.journey.Coded && r.open == "":
		return nil // its code has come to its end
	}
	return w.node(r, p)
}

// leads is where a node goes with an outcome. A wait that was skipped goes on as if its time
// had come, and a call as if it had been accepted.
func (n *Node) leads(outcome string) int {
	if outcome == OutcomeSkipped {
		switch n.Kind {
		case kindWaitFor:
			outcome = OutcomeTimeout
		case kindWaitUntil:
			outcome = OutcomeReached
		case kindCall:
			outcome = OutcomeAccepted
		default:
			outcome = OutcomeNext
		}
	}
	for _, edge := range n.Next {
		if edge.Outcome == outcome {
			return edge.To
		}
	}
	return theEnd
}

// end ends a run, and begins the one that waited for it.
func (w *work) end(id uuid.UUID, kind, reason, failure string) {
	i := w.s.find(id)
	run := w.s.runs[i]
	p := w.m.Program(run.journey, run.version)
	c := w.change(kind, &run, p)
	c.Reason, c.Error, c.Since = reason, failure, packed.Instant(run.since)
	if n := w.nodeAt(&run, p); n != nil && kind != Completed {
		c.Step = n.ID
		if kind == Failed {
			c.Does = does(n)
		}
		if n.Kind == kindCall && run.waits && kind == Exited {
			w.cancel = append(w.cancel, w.effect(&run, n))
		}
	} else if kind != Completed {
		c.Step = run.open // of code that is over, or not as it was
	}
	w.leaveJob(&run)
	w.s.runs = append(w.s.runs[:i], w.s.runs[i+1:]...)
	if kind == Failed {
		w.keepFailed(run)
	}
	w.touch()
	w.tell(c, w.hopsOf(&run))
	e := w.s.entry(run.journey, run.key)
	e.live = w.s.live(run.journey, run.key) >= 0
	if e.live || e.queued == nil {
		return
	}
	queued := *e.queued
	e.queued = nil
	if u := w.m.byID[run.journey]; u != nil {
		w.admit(u, &queued)
	}
}

// keepFailed keeps a failed run to be tried again, and forgets the oldest of too many.
func (w *work) keepFailed(r run) {
	r.failed, r.waits, r.due, r.next, r.settle, r.asked = true, false, 0, 0, 0, asked{}
	w.s.runs = append(w.s.runs, r)
	w.sortRuns()
	count := 0
	for i := len(w.s.runs) - 1; i >= 0; i-- {
		if !w.s.runs[i].failed {
			continue
		}
		if count++; count > maxFailed {
			w.s.runs = append(w.s.runs[:i], w.s.runs[i+1:]...)
		}
	}
}

// change is what happens to a run.
func (w *work) change(kind string, r *run, p *Program) Change {
	c := Change{
		Kind: kind, At: packed.Instant(w.at), Journey: r.journey, Version: r.version, Key: r.key, Run: r.id.String(), Entry: r.entry,
		Entered: packed.Instant(r.entered), Trigger: r.trigger.id, epoch: r.epoch,
	}
	if p != nil {
		c.Arm = p.arm(false)
	}
	return c
}

// tell notes a change to which as many causes led, and publishes the fact that says so.
func (w *work) tell(c Change, hops int) {
	w.s.changes = append(w.s.changes, c)
	f := w.fact(&c)
	w.say(f, hops)
	r, err := factRecord(f)
	if err != nil {
		panic(fmt.Sprintf("journeys: the id of a fact: %v", err)) // it was derived
	}
	r.depth, r.hops = w.depth+1, hops
	w.told = append(w.told, r)
}

// factTypes are the facts that say changes.
var factTypes = map[string]string{
	Started: schemas.FactJourneyStarted, Stepped: schemas.FactJourneyStep, Exited: schemas.FactJourneyExited, Completed: schemas.FactJourneyCompleted,
	Failed: schemas.FactJourneyFailed, Skipped: schemas.FactJourneySkipped, Converted: schemas.FactJourneyStep, Retried: schemas.FactJourneyStep,
}

func (w *work) fact(c *Change) *schemas.Fact {
	typ := factTypes[c.Kind]
	name := ""
	if u := w.m.byID[c.Journey]; u != nil {
		name = u.Program.journey.Name
	} else if p := w.m.Program(c.Journey, c.Version); p != nil {
		name = p.journey.Name
	}
	j := &schemas.JourneyFact{
		JourneyID: c.Journey, JourneyName: name, StateID: c.Run, Reason: pointer(c.Reason), Version: pointer(c.Version), Key: pointer(keyText(c.Key)),
		Arm: pointer(c.Arm), Step: pointer(c.Step), Outcome: pointer(c.Outcome), Error: pointer(c.Error), Trigger: pointer(c.Trigger),
	}
	if c.Entry != 0 {
		j.Entry = &c.Entry
	}
	if !c.Since.IsZero() {
		j.Since = &c.Since
	}
	switch c.Kind {
	case Completed:
		j.CompletedAt, j.Since = &c.At, &c.Entered
	case Exited, Failed:
		j.Since = &c.Entered
	}
	return &schemas.Fact{
		ID: w.factID(c, typ), Type: typ, ContactID: w.contact, OccurredAt: c.At,
		UserID: pointer(w.s.person.userID), Email: pointer(w.s.person.email), AnonymousID: pointer(w.s.person.anonymousID), Journey: j,
	}
}

// factID follows from what the fact says, so that it is the same however often it is told.
func (w *work) factID(c *Change, typ string) string {
	switch c.Kind {
	case Skipped:
		return schemas.Derive(c.Trigger, typ+":"+c.Journey+":"+c.Key, 0)
	case Converted:
		return schemas.Derive(c.Trigger, typ+":"+c.Journey+":"+c.Key+":"+goalStep, int(c.Entry))
	}
	return schemas.Derive(c.Run, typ+":"+c.Step, int(c.epoch))
}

// keyText is a key as people write it.
func keyText(key string) string {
	if t := text(key); t != "" {
		return t
	}
	return key
}

func pointer(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
