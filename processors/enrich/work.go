package enrich

import (
	"encoding/json"
	"hash/fnv"
	"math"
	"net/url"
	"slices"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/document"
	"github.com/hogstream/hogstream/schemas/packed"
)

// maxDue is how many instants are handled in one step. What is due beyond has the timer
// armed anew, which is told at once.
const maxDue = 1000

// grace is for how long a receipt is waited for after the call was too late.
const grace = time.Hour

// longestPause bounds the pauses after failures, unless an enrichment begins with a longer one.
const longestPause = 24 * time.Hour

// work is a step in hand.
type work struct {
	l       *Logic
	d       *subset
	s       State
	contact string
	fresh   bool // nothing was known of the contact
	changed bool // the state is to be written

	at      int64 // as of when conditions are judged
	now     int64 // when it is handled: what is asked counts from here
	touched []int // of d.list: to be looked at, ascending
	out     []schemas.Message
	cancel  []string
	waited  bool // something was asked because an hour or more had passed
	caused  bool // something was because of a record, or a shorter time

	few    [16]int
	timers [1]derive.Timer
}

// begin goes on as of an instant, which is never before the last.
func (w *work) begin(at int64) { w.at = max(at, w.s.clock) }

func (w *work) touch(i int) {
	if at, found := slices.BinarySearch(w.touched, i); !found {
		w.touched = slices.Insert(w.touched, at, i)
	}
}

// touchNumbers touches those whose conditions these are.
func (w *work) touchNumbers(numbers []int) {
	for _, n := range numbers {
		w.touch(w.d.of[n])
	}
}

func (w *work) touchAll() {
	w.touched, w.changed = w.touched[:0], true
	for i := range w.d.list {
		w.touched = append(w.touched, i)
	}
}

// settle looks at what was touched.
func (w *work) settle() {
	for _, i := range w.touched {
		w.changed, w.s.clock = true, w.at
		w.review(i)
	}
	w.touched = w.touched[:0]
}

// catchUp handles what is due until an instant, that one included, oldest first and each as
// of when it is due.
func (w *work) catchUp(until int64) {
	for range maxDue {
		due := w.s.needed()
		if due > until {
			return
		}
		w.begin(due)
		w.s.clock, w.changed = w.at, true
		for i := range w.s.entries {
			w.handleDue(&w.s.entries[i])
		}
	}
}

// handleDue does what is due for one enrichment.
func (w *work) handleDue(en *entry) {
	i := w.d.find(en.enrichment)
	if packed.OrNever(en.next) <= w.at {
		if en.next = 0; i >= 0 {
			w.review(i)
		}
	}
	if packed.OrNever(en.due) > w.at {
		return
	}
	reason := en.why
	en.due, en.why = 0, whyNone
	switch {
	case reason == whyLost && i < 0:
		delete(w.s.asks, en.ask)
	case i < 0:
	case reason == whyLost:
		delete(w.s.asks, en.ask)
		w.waited = true
		w.fail(w.d.list[i], en, outcomeLost, "")
	case en.holds:
		if reason != whyRetry {
			en.failures = 0
		}
		w.waited = true
		w.ask(w.d.list[i], en, reason)
	}
}

// identify keeps who the contact is. Devices of one user come and go: that changes nothing.
func (w *work) identify(r *derive.Record[State]) {
	var p person
	if e := r.Event; e != nil {
		p = person{text(e.UserID), text(e.Email), text(e.AnonymousID)}
	} else {
		p = person{text(r.Fact.UserID), text(r.Fact.Email), text(r.Fact.AnonymousID)}
	}
	before := w.s.person
	w.s.person = p
	if p.userID != before.userID || p.email != before.email || p.userID == "" && p != before {
		w.changed = w.changed || len(w.d.list) > 0
		for i, e := range w.d.list {
			if en := w.s.find(e.ID); en != nil && w.s.open(en) {
				w.touch(i)
			}
		}
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// learn keeps the properties that are sent or refreshed; "" is that nothing is said of them.
func (w *work) learn(properties string) {
	if properties == "" || len(w.d.tracked) == 0 {
		return
	}
	found := make(map[string]string, len(w.d.tracked))
	for m := (document.Members{Text: properties}); m.Next(); {
		if w.d.looks[m.Name] != nil {
			found[m.Name] = m.Value
		}
	}
	for _, name := range w.d.tracked {
		if !w.s.put(name, found[name], w.at) {
			continue
		}
		w.changed = true
		for _, i := range w.d.looks[name] {
			w.renewAge(i, name)
			w.touch(i)
		}
	}
}

// renewAge has the age of a property count from its change.
func (w *work) renewAge(i int, name string) {
	e := w.d.list[i]
	if en := w.s.find(e.ID); en != nil && en.why == whyAge && e.Refresh != nil && e.Refresh.Property == name {
		en.due, en.why = 0, whyNone
	}
}

// look asks the condition of an enrichment; one without is true.
func (w *work) look(e *definition.EnrichmentInUse) (holds bool, next int64) {
	number, conditional := w.d.numbers[e.ID]
	if !conditional {
		return true, 0
	}
	verdict := w.d.set.Evaluate(number, &w.s.facts, nil, packed.Instant(w.at))
	return verdict.Holds, packed.Micros(verdict.Next)
}

// review looks at an enrichment again: the condition may have turned, or what is sent changed.
func (w *work) review(i int) {
	e := w.d.list[i]
	holds, next := w.look(e)
	en := w.s.find(e.ID)
	if en == nil {
		if !holds && next == 0 {
			return
		}
		en = w.s.entry(e.ID)
	}
	was := en.holds
	en.holds, en.next = holds, next
	switch {
	case was && !holds:
		w.stop(en)
	case !was && holds && !e.When.IsZero():
		w.caused = true
		w.trigger(e, en, whyCondition)
	case holds && w.s.open(en) && !en.drop && w.hash(e) != en.sent:
		w.takeBack(en)
	}
	w.schedule(e, en)
}

// stop ends what is asked for what is not true any more.
func (w *work) stop(en *entry) {
	en.failures = 0
	if w.s.open(en) {
		w.takeBack(en)
		return
	}
	en.due, en.why = 0, whyNone
}

// takeBack cancels a call, if it still waits; an answer that comes all the same is not used.
func (w *work) takeBack(en *entry) {
	if !en.drop {
		en.drop = true
		w.cancel = append(w.cancel, en.ask)
	}
}

// enter triggers what is asked at the entry of a bucket.
func (w *work) enter(bucket string) {
	for _, i := range w.d.entered[bucket] {
		e := w.d.list[i]
		en := w.s.entry(e.ID)
		en.holds, w.changed, w.caused = true, true, true
		w.trigger(e, en, whyEntered)
	}
}

// trigger asks, unless a call is under way: what that leads to is as good.
func (w *work) trigger(e *definition.EnrichmentInUse, en *entry, reason why) {
	if w.s.open(en) {
		return
	}
	en.failures = 0
	w.ask(e, en, reason)
}

// schedule says when a property is old, where nothing else is due. One that was never there is
// old at once.
func (w *work) schedule(e *definition.EnrichmentInUse, en *entry) {
	if e.Refresh == nil || !en.holds || en.due != 0 || w.s.open(en) || e.Entered != "" && en.epoch == 0 {
		return
	}
	since := en.settled
	if v := w.s.value(e.Refresh.Property); v.hash != 0 {
		since = max(since, v.since)
	}
	if since == 0 {
		w.caused = true
		w.ask(e, en, whyAge)
		return
	}
	en.due, en.why, w.changed = since+e.Refresh.After.Microseconds(), whyAge, true
}

// adopt has an enrichment begin for a contact that was there before. Who is asked for is
// spread over the time that the enrichment gives for it, or over the age that a property may
// have: nobody is asked for at once. anew is false for what goes on from before.
func (w *work) adopt(i int, anew bool) {
	e := w.d.list[i]
	holds, next := w.look(e)
	en := w.s.find(e.ID)
	if en == nil {
		if !holds && next == 0 {
			return
		}
		en = w.s.entry(e.ID)
	}
	en.holds, en.next = holds, next
	if w.s.open(en) {
		if anew {
			w.takeBack(en)
		}
		return
	}
	if !anew {
		w.schedule(e, en)
		return
	}
	en.due, en.why, en.failures = 0, whyNone, 0
	switch {
	case !holds, e.Entered != "" && en.epoch == 0:
	case e.Backfill > 0:
		en.due, en.why = w.at+share(w.contact, e.ID, e.Backfill), whyBackfill
	case e.Refresh != nil:
		en.due, en.why = w.at+share(w.contact, e.ID, e.Refresh.After), whyAge
	}
}

// share is the part of a time after which a contact has its turn, the same each time.
func share(contact, enrichment string, over time.Duration) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(enrichment + "\x00" + contact)) // never fails
	mixed := h.Sum64() * 0x9e3779b97f4a7c15               // similar ids differ in their last bits
	return int64(float64(mixed>>11) / float64(uint64(1)<<53) * float64(over.Microseconds()))
}

// request is what a destination is sent.
type request struct {
	Enrichment  string                     `json:"enrichment"`
	ContactID   string                     `json:"contactId"`
	UserID      string                     `json:"userId,omitempty"`
	Email       string                     `json:"email,omitempty"`
	AnonymousID string                     `json:"anonymousId,omitempty"`
	Properties  map[string]json.RawMessage `json:"properties"`
}

// bodyOf is the request as it is sent now, for a contact.
func (w *work) bodyOf(e *definition.EnrichmentInUse, contact string) string {
	p := w.s.person
	r := request{Enrichment: e.ID, ContactID: contact, UserID: p.userID, Email: p.email, Properties: map[string]json.RawMessage{}}
	if p.userID == "" {
		r.AnonymousID = p.anonymousID
	}
	for _, name := range e.Send {
		if v := w.s.value(name); v.raw != "" {
			r.Properties[name] = json.RawMessage(v.raw)
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		panic("enrich: properties of a contact are no JSON: " + err.Error()) // contacts checks them
	}
	return string(text)
}

// hash is that of what would be sent now, but for the contact's id: one that took in another
// has no reason to ask again because of it.
func (w *work) hash(e *definition.EnrichmentInUse) uint64 {
	return hashOf(w.bodyOf(e, ""))
}

// ask asks the destination, or fails when there is none.
func (w *work) ask(e *definition.EnrichmentInUse, en *entry, reason why) {
	w.changed = true
	delete(w.s.asks, en.ask)
	w.s.notes = append(w.s.notes, note{enrichment: e.ID, why: reason})
	target, there := w.l.targets[e.Destination]
	if !there {
		w.fail(e, en, outcomeNoDestination, "")
		return
	}
	en.epoch++
	en.ask = schemas.Derive(w.contact, "enrich:"+url.QueryEscape(e.ID), int(en.epoch))
	en.drop, en.sent, en.asked = false, w.hash(e), w.now
	notAfter := w.now + e.Within.Microseconds()
	en.due, en.why = notAfter+grace.Microseconds(), whyLost
	w.s.asks.Ask(en.ask)
	w.out = append(w.out, &schemas.Outbox{
		ID: en.ask, OccurredAt: packed.Instant(w.now), Destination: target, Kind: schemas.OutboxCall,
		Body: w.bodyOf(e, w.contact), NotAfter: packed.Instant(notAfter), Epoch: en.epoch,
	})
}

// fail notes a failure. It is asked again after a pause, as often as the enrichment says; then
// it rests until it is triggered anew.
func (w *work) fail(e *definition.EnrichmentInUse, en *entry, outcome, detail string) {
	w.ended(en, outcome, detail)
	en.failures++
	en.due, en.why = 0, whyNone
	if !en.holds {
		return
	}
	if en.failures < e.Attempts {
		en.due, en.why = w.now+pause(e.Retry, en.failures).Microseconds(), whyRetry
		return
	}
	en.settled = w.now
	w.schedule(e, en)
}

// pause is that after so many failures in a row.
func pause(first time.Duration, failures int) time.Duration {
	doubled := float64(first) * math.Pow(2, float64(failures-1))
	return time.Duration(min(doubled, float64(max(first, longestPause))))
}

func (w *work) ended(en *entry, outcome, detail string) {
	en.outcome, en.detail, w.changed = outcome, detail, true
	w.s.notes = append(w.s.notes, note{enrichment: en.enrichment, outcome: outcome})
}
