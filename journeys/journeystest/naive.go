// Package journeystest has what tests of journeys share: it draws journeys, and interprets them
// naively.
package journeystest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/schemas"
)

// Object is one of JSON.
type Object = map[string]any

// Happening is a record in the history.
type Happening struct {
	At    time.Time
	ID    string
	Name  string // of an event, or the type of a fact
	About string // the bucket or journey of a fact
	Epoch int64  // of a membership
	Props Object

	known time.Time // the latest instant as of which it was known: what no wait looked back at then is forgotten
}

// Line is one of the story.
type Line struct {
	At                                        time.Time
	Kind, Journey, Key, Step, Outcome, Reason string
}

// String says all of it in one line.
func (l Line) String() string {
	return strings.Join([]string{l.At.UTC().Format("02T15:04:05.000000"), l.Kind, l.Journey, l.Key, l.Step, l.Outcome, l.Reason}, " ")
}

// TriedLine says what an event did to a run that exits by such ones.
func TriedLine(journey, key string, exited bool) string {
	return strings.Join(strings.Fields(journey+" "+key+" "+map[bool]string{true: "exited", false: "stays"}[exited]), " ")
}

// Defined is a journey as the file says it, and the version of the definitions in which it
// was changed last.
type Defined struct {
	Journey  Object
	Revision int64
}

// Naive interprets the journeys of a contact: it walks over what the file says, step within
// step, as a reader would, has the whole history in memory, and looks at every instant at
// which something might happen. It shares no code with the machine. It is not safe for
// concurrent use, and Leave must be called.
type Naive struct {
	Story []Line
	// Tried are what events tried to end, see [TriedLine].
	Tried []string

	contact      string
	journeys     []Defined // by id
	version      int64     // of the definitions
	filled       int64     // the version for which all is known that is asked
	now          time.Time
	touched      time.Time // when something changed last: what comes is never before
	history      []Happening
	contactProps Object // that runs read
	knownProps   Object // that conditions do
	members      map[string]int64
	unsubscribed bool
	entries      map[string]*naiveEntry
	runs         []*naiveRun
	told         []Happening
}

// NewNaive is a contact of which nothing is known.
func NewNaive(contact string, version int64, journeys []Defined, now time.Time) *Naive {
	return &Naive{
		contact: contact, journeys: journeys, version: version, filled: version, now: now, contactProps: Object{}, knownProps: Object{},
		members: map[string]int64{}, entries: map[string]*naiveEntry{},
	}
}

// Use has other definitions be in use. Nobody is filled with them yet.
func (n *Naive) Use(version int64, journeys []Defined) { n.version, n.journeys = version, journeys }

// naiveEntry is how a contact has begun a journey, with one key.
type naiveEntry struct {
	count     int
	last      time.Time
	queued    *Happening
	goalUntil time.Time
	journey   Object // that it began last
}

type naiveRun struct {
	n        *Naive
	journey  Object
	id       string
	key      any
	entered  time.Time
	entry    int
	trigger  Happening
	last     Happening
	settle   time.Time
	at       string // step
	call     string // id of the open call
	epoch    int
	want     request
	next     func() (request, bool)
	stop     func()
	answer   string // what the request came to
	over     bool
	rejoined string // the bucket whose entering settles
}

// request is what a run waits for.
type request struct {
	held bool                                // until the contact is filled
	due  time.Time                           // zero: never
	look func(h *Happening) (outcome string) // h is nil when time or the contact may have turned something
}

func (n *Naive) tell(l Line) {
	l.At = n.now
	n.Story = append(n.Story, l)
	n.touch()
}

func (n *Naive) touch() { n.touched = n.now }

func (n *Naive) remember() {
	for i := range n.history {
		n.history[i].known = later(n.history[i].known, n.now)
	}
}

// At has what comes next be judged as of an instant, when what was due before it is done.
func (n *Naive) At(at time.Time) {
	n.Until(at)
	n.now = later(at, n.touched)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Record is something that comes now.
func (n *Naive) Record(h Happening) {
	n.apply(h)
	n.happen(h)
	n.drain()
}

func (n *Naive) apply(h Happening) {
	n.history = append(n.history, h)
	n.remember()
	switch h.Name {
	case schemas.FactContactCreated, schemas.FactContactUpdated, schemas.FactContactMerged:
		n.contactProps, n.knownProps = h.Props, h.Props
	case schemas.FactBucketEntered:
		n.members[h.About] = max(h.Epoch, n.members[h.About])
	case schemas.FactBucketLeft:
		if h.Epoch >= n.members[h.About] {
			delete(n.members, h.About)
		}
	case schemas.FactContactUnsubscribed:
		n.unsubscribed = true
	}
}

// Leave stops what waits.
func (n *Naive) Leave() {
	for _, r := range n.runs {
		r.stop()
	}
}

func (n *Naive) drain() {
	for len(n.told) > 0 {
		h := n.told[0]
		n.told = n.told[1:]
		n.apply(h)
		n.happen(h)
	}
}

func (n *Naive) live() []*naiveRun {
	out := slices.DeleteFunc(slices.Clone(n.runs), func(r *naiveRun) bool { return r.over })
	slices.SortFunc(out, func(a, b *naiveRun) int { return cmp.Or(a.entered.Compare(b.entered), cmp.Compare(a.id, b.id)) })
	return out
}

// Live are the ids of the runs that go on.
func (n *Naive) Live() []string {
	var ids []string
	for _, r := range n.live() {
		ids = append(ids, r.id)
	}
	return ids
}

func (n *Naive) happen(h Happening) {
	var tried []string
	for _, r := range n.live() {
		if h.Name == schemas.FactBucketEntered && h.About == r.rejoined {
			r.settle, r.rejoined = time.Time{}, ""
			n.touch()
		}
		for _, e := range list(r.journey["exitOn"]) {
			if !n.meant(e, &h, r) {
				continue
			}
			if text, is := e["settle"].(string); is {
				if r.settle.IsZero() {
					_, r.rejoined, _ = strings.Cut(e["event"].(string), ":")
					r.settle = n.now.Add(duration(text))
					n.touch()
				}
				continue
			}
			r.exit(e["event"].(string))
			break
		}
		if fact := strings.Contains(h.Name, "."); !fact && len(list(r.journey["exitOn"])) > 0 {
			tried = append(tried, TriedLine(r.journey["id"].(string), keyText(r.key), r.over))
		}
	}
	slices.Sort(tried)
	n.Tried = append(n.Tried, tried...)
	n.goals(&h)
	for _, r := range n.live() {
		if !r.over && r.want.look != nil {
			if outcome := r.want.look(&h); outcome != "" {
				r.resume(outcome)
			}
		}
	}
	for _, d := range n.journeys {
		n.trigger(d.Journey, h)
	}
}

// goals looks at those of each entry, which are of the version that it began, and after it of
// the journey as it is now.
func (n *Naive) goals(h *Happening) {
	for _, key := range slices.Sorted(maps.Keys(n.entries)) {
		e := n.entries[key]
		id, text, _ := strings.Cut(key, "\x00")
		j := e.journey
		if now, there := n.find(id); there && (j == nil || Version(now.Journey) == Version(j)) {
			j = now.Journey
		}
		goal, is := j["goal"].(Object)
		if is && !e.goalUntil.IsZero() && !e.goalUntil.Before(n.now) && n.meant(goal, h, &naiveRun{n: n, journey: j}) {
			e.goalUntil = time.Time{}
			n.tell(Line{Kind: "converted", Journey: id, Key: text})
		}
	}
}

// find is a journey as it is now.
func (n *Naive) find(id string) (Defined, bool) {
	i := slices.IndexFunc(n.journeys, func(d Defined) bool { return d.Journey["id"] == id })
	if i < 0 {
		return Defined{}, false
	}
	return n.journeys[i], true
}

// Version is what the version of a journey is made of.
func Version(j Object) string {
	parts := Object{}
	for _, field := range []string{"trigger", "key", "exitOn", "window", "steps"} {
		parts[field] = j[field]
	}
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// stands says that a run stands still before its next step: not all is known that its journey
// asks.
func (n *Naive) stands(r *naiveRun) bool {
	d, there := n.find(r.journey["id"].(string))
	return there && d.Revision > n.filled && asks(d.Journey) && Version(d.Journey) == Version(r.journey)
}

// asks says that steps look at what is known of the contact from before the run.
func asks(v any) bool {
	switch v := v.(type) {
	case Object:
		for name, part := range v {
			if slices.Contains([]string{"condition", "when", "lookback", "contact", "waitUntil"}, name) || asks(part) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, asks)
	}
	return false
}

// meant says whether a record is what event and where say.
func (n *Naive) meant(m Object, h *Happening, r *naiveRun) bool {
	event, _ := m["event"].(string)
	name, about, narrow := strings.Cut(event, ":")
	if h.Name != name || narrow && h.About != about {
		return false
	}
	return r.where(m["where"], h.Props)
}

func (r *naiveRun) where(where any, props Object) bool {
	o, _ := where.(Object)
	for property, want := range o {
		if source, is := want.(Object); is {
			want = r.value(source)
		}
		if want == nil || props[property] != want {
			return false
		}
	}
	return true
}

func (r *naiveRun) value(source Object) any {
	switch {
	case source["run"] != nil:
		return r.key
	case source["trigger"] != nil:
		return r.trigger.Props[source["trigger"].(string)]
	case source["last"] != nil:
		return r.last.Props[source["last"].(string)]
	}
	return r.n.contactProps[source["contact"].(string)]
}

func (n *Naive) trigger(j Object, h Happening) {
	named, taken := false, false
	for _, m := range list(j["trigger"]) {
		bare := Object{"event": m["event"]}
		named = named || n.meant(bare, &h, &naiveRun{n: n})
		taken = taken || n.meant(m, &h, &naiveRun{n: n})
	}
	id := j["id"].(string)
	var key any
	switch {
	case !named:
		return
	case j["enabled"] == false:
		n.skip(id, nil, "journey_disabled")
		return
	case !taken:
		n.skip(id, nil, "trigger_conditions_not_met")
		return
	case j["key"] != nil:
		if key = h.Props[j["key"].(string)]; key == nil {
			n.skip(id, nil, "no_key")
			return
		}
	}
	n.admit(j, h, key)
}

// skip says why a trigger does not enrol.
func (n *Naive) skip(id string, key any, reason string) {
	n.tell(Line{Kind: "skipped", Journey: id, Key: keyText(key), Reason: reason})
	n.told = append(n.told, Happening{At: n.now, Name: schemas.FactJourneySkipped, About: id})
}

func keyText(key any) string {
	if key == nil {
		return ""
	}
	return fmt.Sprint(key)
}

func (n *Naive) admit(j Object, h Happening, key any) {
	id := j["id"].(string)
	place := id + "\x00" + keyText(key)
	e := n.entries[place]
	if e == nil {
		e = &naiveEntry{}
		n.entries[place] = e
	}
	var live *naiveRun
	for _, r := range n.live() {
		if r.journey["id"] == id && r.key == key {
			live = r
		}
	}
	switch {
	case j["enabled"] == false: // of one that was queued
		n.skip(id, key, "journey_disabled")
		return
	case j["entryLimit"] == "once" && e.count > 0:
		n.skip(id, key, "already_entered_once")
		return
	case j["entryLimit"] == "once_per_period" && e.count > 0 && e.last.After(n.now.Add(-duration(j["entryPeriod"].(string)))):
		n.skip(id, key, "period_not_elapsed")
		return
	case n.unsubscribed && j["subscribed"] != false:
		n.skip(id, key, "user_unsubscribed")
		return
	case live != nil && j["live"] == "queue" && e.queued == nil:
		e.queued = &h
		n.touch()
		return
	case live != nil && j["live"] == "queue":
		n.skip(id, key, "already_queued")
		return
	case live != nil && j["live"] != "restart":
		n.skip(id, key, "already_active")
		return
	}
	if live != nil {
		live.exit("restarted")
	}
	n.start(j, h, key, e)
}

func (n *Naive) start(j Object, h Happening, key any, e *naiveEntry) {
	id := j["id"].(string)
	e.count, e.last, e.goalUntil, e.journey = e.count+1, n.now, time.Time{}, j
	if goal, is := j["goal"].(Object); is {
		e.goalUntil = n.now.Add(duration(goal["within"].(string)))
	}
	if holdout, is := j["holdout"].(float64); is && chance(n.contact, id, "holdout") < holdout {
		n.skip(id, key, "holdout")
		return
	}
	json, _ := json.Marshal(key)
	if key == nil {
		json = nil
	}
	r := &naiveRun{n: n, journey: j, key: key, entered: n.now, entry: e.count, trigger: h, id: schemas.Derive(h.ID, "journey:"+id+":"+string(json), 0)}
	n.runs = append(n.runs, r)
	r.say(Line{Kind: "started"}, schemas.FactJourneyStarted)
	r.next, r.stop = iter.Pull(func(yield func(request) bool) {
		w := walker{r, yield}
		if w.steps(j["steps"], "") {
			r.end("completed", "")
		}
	})
	r.proceed()
}

func (r *naiveRun) say(l Line, fact string) {
	l.Journey, l.Key = r.journey["id"].(string), keyText(r.key)
	r.n.tell(l)
	r.n.told = append(r.n.told, Happening{At: r.n.now, ID: schemas.Derive(r.id, fact+":"+l.Step, r.epoch), Name: fact, About: l.Journey})
}

// proceed has the run go on until it waits or is over.
func (r *naiveRun) proceed() {
	want, more := r.next()
	if !more {
		r.over = true
		return
	}
	r.want = want
	r.n.touch()
}

func (r *naiveRun) resume(outcome string) {
	r.answer = outcome
	r.want = request{}
	r.proceed()
}

func (r *naiveRun) exit(reason string) {
	r.end("exited", reason)
	r.stop()
}

func (r *naiveRun) end(kind, reason string) {
	if r.over {
		return
	}
	r.over = true
	step := r.at
	if kind == "completed" {
		step = ""
	}
	n := r.n
	r.say(Line{Kind: kind, Step: step, Reason: reason}, "journey."+kind)
	id := r.journey["id"].(string)
	e := n.entries[id+"\x00"+keyText(r.key)]
	if e.queued == nil {
		return
	}
	h := *e.queued
	e.queued = nil
	if d, there := n.find(id); there {
		n.admit(d.Journey, h, r.key)
	}
}

// Merge takes in another contact, of which nothing is left: of two runs of one journey and
// key the older goes on. h is contact.merged.
func (n *Naive) Merge(l *Naive, h Happening) {
	n.touched = later(n.touched, l.touched)
	n.now = later(n.now, n.touched)
	n.inherit(l)
	for _, r := range l.runs {
		r.n = n
	}
	n.runs, n.history = append(n.runs, l.runs...), append(n.history, l.history...)
	n.unsubscribed, n.filled = n.unsubscribed || l.unsubscribed, min(n.filled, l.filled)
	seen := map[string]bool{}
	for _, r := range n.live() {
		place := r.journey["id"].(string) + "\x00" + keyText(r.key)
		if seen[place] {
			queued := n.entries[place].queued
			n.entries[place].queued = nil // the other goes on
			r.exit("merged")
			n.entries[place].queued = queued
		}
		seen[place] = true
	}
	n.Record(h)
}

// inherit adds up the entries of both.
func (n *Naive) inherit(l *Naive) {
	for _, key := range slices.Sorted(maps.Keys(l.entries)) {
		other := l.entries[key]
		e := n.entries[key]
		if e == nil {
			n.entries[key] = other
			continue
		}
		e.count += other.count
		if other.last.After(e.last) {
			e.last = other.last
		}
		if other.goalUntil.After(e.goalUntil) {
			e.goalUntil, e.journey = other.goalUntil, other.journey
		}
		id, text, _ := strings.Cut(key, "\x00")
		_, there := n.find(id)
		switch {
		case e.queued == nil:
			e.queued = other.queued
		case other.queued != nil && there:
			n.skip(id, text, "already_queued")
		}
	}
}

// Answered is what came of a call.
func (n *Naive) Answered(id string, accepted bool) {
	for _, r := range n.live() {
		if r.call == id {
			r.resume(map[bool]string{true: "accepted", false: "failed"}[accepted])
		}
	}
	n.drain()
}

// TakenOver has all that is known be what Postgres knows. Runs go on, once the contact is
// filled; of one that was merged away nothing is known but its events.
func (n *Naive) TakenOver(now time.Time, events []Happening, props Object, members map[string]int64, away bool) {
	n.history, n.members, n.filled = events, map[string]int64{}, n.version
	if props != nil {
		n.knownProps = props
	}
	maps.Copy(n.members, members)
	switch {
	case away:
	case len(n.live()) > 0:
		n.filled = 0
	default:
		n.now = later(now, n.touched)
		n.remember()
		n.contactProps = n.knownProps
	}
}

// Filled has the contact be filled with the definitions in use, at an instant: what was due
// before it is done, as far as it does not stand still, and then what did.
func (n *Naive) Filled(at time.Time, members map[string]int64) {
	n.At(at.Add(time.Microsecond))
	n.now = later(at, n.touched)
	n.remember()
	n.filled, n.contactProps = n.version, n.knownProps
	for bucket, epoch := range members {
		n.members[bucket] = max(n.members[bucket], epoch)
	}
	for _, r := range n.live() {
		now, there := n.find(r.journey["id"].(string))
		j := r.journey
		switch {
		case there && Version(now.Journey) == Version(r.journey):
			continue
		case there:
			j = now.Journey
		}
		if j["onChange"] == "exit" {
			r.exit("definition_changed")
		}
	}
	n.elapse(n.now)
	n.look()
	n.drain()
}

// elapse does what is due by an instant: runs that have settled exit before waits end.
func (n *Naive) elapse(at time.Time) {
	runs := n.live()
	for _, r := range runs {
		if !r.over && !n.stands(r) && !r.settle.IsZero() && !r.settle.After(at) {
			r.exit("bucket.left:" + r.rejoined)
		}
	}
	for _, r := range runs {
		switch {
		case r.over || n.stands(r):
		case r.want.held, !r.want.due.IsZero() && !r.want.due.After(at):
			r.resume("")
		case r.want.look != nil:
			if outcome := r.want.look(nil); outcome != "" {
				r.resume(outcome)
			}
		}
	}
}

// look has runs look at what is known of the contact.
func (n *Naive) look() {
	for _, r := range n.live() {
		if !r.over && r.want.look != nil {
			if outcome := r.want.look(nil); outcome != "" {
				r.resume(outcome)
			}
		}
	}
}

// Until has everything happen that time brings before an instant, instant by instant.
func (n *Naive) Until(end time.Time) {
	for {
		at, any := n.nextInstant()
		if !any || !at.Before(end) {
			break
		}
		n.now = later(at, n.touched)
		n.elapse(n.now)
		n.drain()
	}
	n.now = later(n.now, end)
}

// nextInstant is the next at which time may bring something about: the ends of waits, and
// when an event leaves a window that is looked at, which are an hour or two.
func (n *Naive) nextInstant() (next time.Time, any bool) {
	take := func(at time.Time) {
		if !at.IsZero() && (!any || at.Before(next)) {
			next, any = at, true
		}
	}
	for _, r := range n.live() {
		if n.stands(r) {
			continue
		}
		take(r.want.due)
		take(r.settle)
		for _, h := range n.history {
			for _, window := range []time.Duration{time.Hour, 2 * time.Hour} {
				if at := h.At.Add(window + time.Microsecond); r.want.look != nil && at.After(n.now) {
					take(at)
				}
			}
		}
	}
	return next, any
}
