package journeys_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/schemas"
)

// The naive interpreter: it walks over what the file says, step within step, as a reader
// would, has the whole history in memory, and looks at every instant at which something
// might happen. It shares no code with the machine.

type object = map[string]any

// happening is a record in the history.
type happening struct {
	at    time.Time
	id    string
	name  string // of an event, or the type of a fact
	about string // the bucket or journey of a fact
	props object
}

// line is one of the story.
type line struct {
	at                                        time.Time
	kind, journey, key, step, outcome, reason string
}

func (l line) String() string {
	return strings.Join([]string{l.at.UTC().Format("02T15:04:05.000000"), l.kind, l.journey, l.key, l.step, l.outcome, l.reason}, " ")
}

type naive struct {
	contact      string
	journeys     []object // by id
	now          time.Time
	history      []happening
	contactProps object
	members      map[string]bool
	unsubscribed bool
	entries      map[string]*naiveEntry
	runs         []*naiveRun
	told         []happening
	story        []line
	tried        []string // what senders are told, as a stage has it
}

type naiveEntry struct {
	count     int
	last      time.Time
	queued    *happening
	goalUntil time.Time
}

type naiveRun struct {
	n        *naive
	journey  object
	id       string
	key      any
	entered  time.Time
	entry    int
	trigger  happening
	last     happening
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
	due  time.Time                           // zero: never
	look func(h *happening) (outcome string) // h is nil when time or the contact may have turned something
}

func (n *naive) tell(l line) {
	l.at = n.now
	n.story = append(n.story, l)
}

// record is something that comes now.
func (n *naive) record(h happening) {
	n.apply(h)
	n.happen(h)
	n.drain()
}

func (n *naive) apply(h happening) {
	n.history = append(n.history, h)
	switch h.name {
	case schemas.FactContactUpdated, schemas.FactContactMerged:
		n.contactProps = h.props
	case schemas.FactBucketEntered:
		n.members[h.about] = true
	case schemas.FactBucketLeft:
		delete(n.members, h.about)
	case schemas.FactContactUnsubscribed:
		n.unsubscribed = true
	}
}

// leave stops what waits.
func (n *naive) leave() {
	for _, r := range n.runs {
		r.stop()
	}
}

func (n *naive) drain() {
	for len(n.told) > 0 {
		h := n.told[0]
		n.told = n.told[1:]
		n.apply(h)
		n.happen(h)
	}
}

func (n *naive) live() []*naiveRun {
	out := slices.DeleteFunc(slices.Clone(n.runs), func(r *naiveRun) bool { return r.over })
	slices.SortFunc(out, func(a, b *naiveRun) int { return cmp.Or(a.entered.Compare(b.entered), cmp.Compare(a.id, b.id)) })
	return out
}

func (n *naive) happen(h happening) {
	var tried []string
	for _, r := range n.live() {
		if h.name == schemas.FactBucketEntered && h.about == r.rejoined {
			r.settle, r.rejoined = time.Time{}, ""
		}
		for _, e := range list(r.journey["exitOn"]) {
			if !n.meant(e, &h, r) {
				continue
			}
			if text, is := e["settle"].(string); is {
				if r.settle.IsZero() {
					_, r.rejoined, _ = strings.Cut(e["event"].(string), ":")
					r.settle = n.now.Add(duration(text))
				}
				continue
			}
			r.exit(e["event"].(string))
			break
		}
		if fact := strings.Contains(h.name, "."); !fact && len(list(r.journey["exitOn"])) > 0 {
			tried = append(tried, triedLine(r.journey["id"].(string), keyText(r.key), r.over))
		}
	}
	slices.Sort(tried)
	n.tried = append(n.tried, tried...)
	for _, j := range n.journeys {
		goal, is := j["goal"].(object)
		if !is {
			continue
		}
		for _, key := range n.keysOf(j) {
			e := n.entries[key]
			if !e.goalUntil.IsZero() && !e.goalUntil.Before(n.now) && n.meant(goal, &h, &naiveRun{n: n, journey: j}) {
				e.goalUntil = time.Time{}
				n.tell(line{kind: "converted", journey: j["id"].(string), key: strings.SplitN(key, "\x00", 2)[1]})
			}
		}
	}
	for _, r := range n.live() {
		if !r.over && r.want.look != nil {
			if outcome := r.want.look(&h); outcome != "" {
				r.resume(outcome)
			}
		}
	}
	for _, j := range n.journeys {
		n.trigger(j, h)
	}
}

func (n *naive) keysOf(j object) []string {
	var out []string
	for key := range n.entries {
		if strings.HasPrefix(key, j["id"].(string)+"\x00") {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// meant says whether a record is what event and where say.
func (n *naive) meant(m object, h *happening, r *naiveRun) bool {
	event, _ := m["event"].(string)
	name, about, narrow := strings.Cut(event, ":")
	if h.name != name || narrow && h.about != about {
		return false
	}
	return r.where(m["where"], h.props)
}

func (r *naiveRun) where(where any, props object) bool {
	o, _ := where.(object)
	for property, want := range o {
		if source, is := want.(object); is {
			want = r.value(source)
		}
		if want == nil || props[property] != want {
			return false
		}
	}
	return true
}

func (r *naiveRun) value(source object) any {
	switch {
	case source["run"] != nil:
		return r.key
	case source["trigger"] != nil:
		return r.trigger.props[source["trigger"].(string)]
	case source["last"] != nil:
		return r.last.props[source["last"].(string)]
	}
	return r.n.contactProps[source["contact"].(string)]
}

func (n *naive) trigger(j object, h happening) {
	named, taken := false, false
	for _, m := range list(j["trigger"]) {
		bare := object{"event": m["event"]}
		named = named || n.meant(bare, &h, &naiveRun{n: n})
		taken = taken || n.meant(m, &h, &naiveRun{n: n})
	}
	id := j["id"].(string)
	skip := func(key any, reason string) {
		n.tell(line{kind: "skipped", journey: id, key: keyText(key), reason: reason})
		n.told = append(n.told, happening{at: n.now, name: schemas.FactJourneySkipped, about: id})
	}
	var key any
	switch {
	case !named:
		return
	case j["enabled"] == false:
		skip(nil, "journey_disabled")
		return
	case !taken:
		skip(nil, "trigger_conditions_not_met")
		return
	case j["key"] != nil:
		if key = h.props[j["key"].(string)]; key == nil {
			skip(nil, "no_key")
			return
		}
	}
	n.admit(j, h, key, skip)
}

func keyText(key any) string {
	if key == nil {
		return ""
	}
	return fmt.Sprint(key)
}

func (n *naive) admit(j object, h happening, key any, skip func(any, string)) {
	place := j["id"].(string) + "\x00" + keyText(key)
	e := n.entries[place]
	if e == nil {
		e = &naiveEntry{}
		n.entries[place] = e
	}
	var live *naiveRun
	for _, r := range n.live() {
		if r.journey["id"] == j["id"] && r.key == key {
			live = r
		}
	}
	switch {
	case j["entryLimit"] == "once" && e.count > 0:
		skip(key, "already_entered_once")
		return
	case j["entryLimit"] == "once_per_period" && e.count > 0 && e.last.After(n.now.Add(-duration(j["entryPeriod"].(string)))):
		skip(key, "period_not_elapsed")
		return
	case n.unsubscribed && j["subscribed"] != false:
		skip(key, "user_unsubscribed")
		return
	case live != nil && j["live"] == "queue" && e.queued == nil:
		e.queued = &h
		return
	case live != nil && j["live"] == "queue":
		skip(key, "already_queued")
		return
	case live != nil && j["live"] != "restart":
		skip(key, "already_active")
		return
	}
	if live != nil {
		live.exit("restarted")
	}
	n.start(j, h, key, e, skip)
}

func (n *naive) start(j object, h happening, key any, e *naiveEntry, skip func(any, string)) {
	id := j["id"].(string)
	e.count, e.last, e.goalUntil = e.count+1, n.now, time.Time{}
	if goal, is := j["goal"].(object); is {
		e.goalUntil = n.now.Add(duration(goal["within"].(string)))
	}
	if holdout, is := j["holdout"].(float64); is && chance(n.contact, id, "holdout") < holdout {
		skip(key, "holdout")
		return
	}
	json, _ := json.Marshal(key)
	if key == nil {
		json = nil
	}
	r := &naiveRun{n: n, journey: j, key: key, entered: n.now, entry: e.count, trigger: h, id: schemas.Derive(h.id, "journey:"+id+":"+string(json), 0)}
	n.runs = append(n.runs, r)
	r.say(line{kind: "started"}, schemas.FactJourneyStarted)
	r.next, r.stop = iter.Pull(func(yield func(request) bool) {
		w := walker{r, yield}
		if w.steps(j["steps"], "") {
			r.end("completed", "")
		}
	})
	r.proceed()
}

func (r *naiveRun) say(l line, fact string) {
	l.journey, l.key = r.journey["id"].(string), keyText(r.key)
	r.n.tell(l)
	r.n.told = append(r.n.told, happening{at: r.n.now, id: schemas.Derive(r.id, fact+":"+l.step, r.epoch), name: fact, about: l.journey})
}

// proceed has the run go on until it waits or is over.
func (r *naiveRun) proceed() {
	want, more := r.next()
	if !more {
		r.over = true
		return
	}
	r.want = want
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
	r.say(line{kind: kind, step: step, reason: reason}, "journey."+kind)
	e := r.n.entries[r.journey["id"].(string)+"\x00"+keyText(r.key)]
	if e.queued != nil {
		h := *e.queued
		e.queued = nil
		n := r.n
		n.admit(r.journey, h, r.key, func(key any, reason string) {
			n.tell(line{kind: "skipped", journey: r.journey["id"].(string), key: keyText(key), reason: reason})
			n.told = append(n.told, happening{at: n.now, name: schemas.FactJourneySkipped})
		})
	}
}

// walker walks over the steps of a run. Its methods are false when the run is over.
type walker struct {
	r     *naiveRun
	yield func(request) bool
}

func (w walker) steps(steps any, prefix string) bool {
	for i, s := range list(steps) {
		if !w.step(s, prefix, i) {
			return false
		}
	}
	return true
}

func (w walker) wait(want request) (string, bool) {
	if !w.yield(want) {
		return "", false
	}
	return w.r.answer, true
}

func (w walker) step(s object, prefix string, i int) bool {
	kind := ""
	for name := range s {
		if name != "id" && name != "then" {
			kind = name
		}
	}
	id := fmt.Sprintf("%s%s-%d", prefix, kind, i)
	if given, is := s["id"].(string); is {
		id = given
	}
	w.r.at = id
	w.r.epoch++
	outcome, inner := "next", any(nil)
	ok := true
	r, n := w.r, w.r.n
	switch kind {
	case "exit":
		r.end("exited", s[kind].(string))
		return false
	case "wait":
		_, ok = w.wait(request{due: waitEnd(s[kind], n.now)})
	case "waitFor":
		outcome, ok = w.waitFor(s[kind].(object))
	case "waitUntil":
		outcome, ok = w.waitUntil(s[kind].(object))
	case "branch":
		outcome, inner = w.branch(list(s[kind]))
	case "split":
		outcome, inner = w.split(list(s[kind]), id)
	case "call":
		r.call = schemas.Derive(r.id, "call:"+id, r.epoch)
		outcome, ok = w.wait(request{due: n.now.Add(duration(s[kind].(object)["timeout"].(string)) + 5*time.Minute)})
		r.call = ""
		if outcome == "" {
			outcome = "failed"
		}
		if then, _ := s["then"].(object); ok && outcome == "failed" && s[kind].(object)["failed"] != "continue" && then["failed"] == nil {
			r.end("failed", "")
			return false
		}
	}
	if !ok || r.over {
		return false
	}
	r.say(line{kind: "step", step: id, outcome: outcome}, schemas.FactJourneyStep)
	if then, is := s["then"].(object); is {
		inner = then[outcome]
	}
	return w.steps(inner, id+"."+outcome+".")
}

func (w walker) waitFor(f object) (string, bool) {
	r, n := w.r, w.r.n
	alternatives := list(f["any"])
	name := func(a object) string {
		for _, field := range []string{"as", "event"} {
			if text, is := a[field].(string); is {
				return text
			}
		}
		return "condition"
	}
	look := func(h *happening) string {
		for _, a := range alternatives {
			switch {
			case a["condition"] != nil:
				if r.n.holds(a["condition"].(object)) {
					return name(a)
				}
			case h != nil && r.n.meant(a, h, r):
				r.last = *h
				return name(a)
			}
		}
		return ""
	}
	for _, a := range alternatives {
		if a["condition"] != nil {
			if n.holds(a["condition"].(object)) {
				return name(a), true
			}
			continue
		}
		if text, is := f["lookback"].(string); is {
			if h := w.before(a, n.now.Add(-duration(text))); h != nil {
				r.last = *h
				return name(a), true
			}
		}
	}
	outcome, ok := w.wait(request{due: n.now.Add(duration(f["timeout"].(string))), look: look})
	return cmp.Or(outcome, "timeout"), ok
}

// before is the newest record since an instant that is meant.
func (w walker) before(a object, since time.Time) *happening {
	var found *happening
	for i := range w.r.n.history {
		h := &w.r.n.history[i]
		if h.at.Before(since) || h.id == w.r.trigger.id || h.id == w.r.last.id || !w.r.n.meant(a, h, w.r) {
			continue
		}
		if found == nil || h.at.After(found.at) || h.at.Equal(found.at) && h.id < found.id {
			found = h
		}
	}
	return found
}

func (w walker) waitUntil(u object) (string, bool) {
	for {
		n := w.r.n // that of another, when the contact was merged meanwhile
		date, known := dateOf(n.contactProps[u["property"].(string)], u)
		switch {
		case !known && u["missing"] == "continue":
			return "missing", true
		case !known && u["missing"] == "exit":
			w.r.end("exited", "no_date")
			return "", false
		case known && !date.After(n.now) && u["past"] == "exit":
			w.r.end("exited", "date_passed")
			return "", false
		case known && !date.After(n.now):
			return "past", true
		}
		want := request{look: func(*happening) string {
			now, still := dateOf(w.r.n.contactProps[u["property"].(string)], u)
			if still != known || !now.Equal(date) {
				return "moved"
			}
			return ""
		}}
		if known {
			want.due = date
		}
		outcome, ok := w.wait(want)
		switch {
		case !ok:
			return "", false
		case outcome == "":
			return "reached", true
		}
	}
}

func dateOf(v any, u object) (time.Time, bool) {
	text, _ := v.(string)
	t, err := time.Parse(time.RFC3339, text)
	shift := duration(strings.TrimPrefix(fmt.Sprint(u["shift"]), "-"))
	if err == nil && u["at"] == nil {
		return t.Add(-shift), true
	}
	if err != nil {
		if t, err = time.Parse(time.DateOnly, text); err != nil {
			return t, false
		}
	}
	day := t.UTC().Truncate(24 * time.Hour) // UTC has no changes of clocks
	if at, is := u["at"].(string); is {
		day = day.Add(clock(at))
	}
	return day.Add(-shift), true
}

func clock(text string) time.Duration {
	var h, m int
	if _, err := fmt.Sscanf(text, "%d:%d", &h, &m); err != nil {
		panic(err)
	}
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
}

// waitEnd looks at minute after minute.
func waitEnd(wait any, now time.Time) time.Time {
	o, is := wait.(object)
	if !is {
		return now.Add(duration(wait.(string)))
	}
	t := now.Add(duration(o["after"].(string)))
	from, to, _ := strings.Cut(o["window"].(string), "-")
	for {
		inDay := t.Sub(t.Truncate(24 * time.Hour))
		open := inDay >= clock(from) && inDay < clock(to)
		if clock(from) > clock(to) {
			open = inDay >= clock(from) || inDay < clock(to)
		}
		if open {
			return t
		}
		t = t.Truncate(time.Minute).Add(time.Minute)
	}
}

func (w walker) branch(arms []object) (string, any) {
	r := w.r
	for i, a := range arms {
		if a["else"] != nil {
			return "else", a["else"]
		}
		when, is := a["when"].(object)
		if is && !r.n.holds(when) || a["trigger"] != nil && !r.where(a["trigger"], r.trigger.props) || a["last"] != nil && !r.where(a["last"], r.last.props) {
			continue
		}
		return fmt.Sprint(i + 1), a["do"]
	}
	return "else", nil
}

func (w walker) split(shares []object, id string) (string, any) {
	p, end := chance(w.r.n.contact, w.r.journey["id"].(string), id), 0.0
	for i, s := range shares {
		if end += s["percent"].(float64); p < end {
			return fmt.Sprint(i + 1), s["do"]
		}
	}
	panic("more than all")
}

func chance(of ...string) float64 {
	sum := sha256.Sum256([]byte(strings.Join(of, "\x00")))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53) * 100
}

// holds answers for the two kinds of conditions that are drawn.
func (n *naive) holds(c object) bool {
	if c["type"] == "property" {
		return n.contactProps[c["property"].(string)] == c["value"]
	}
	since := n.now.Add(-duration(c["within"].(string)))
	found := slices.ContainsFunc(n.history, func(h happening) bool { return h.name == c["eventName"] && !h.at.Before(since) })
	return found == (c["check"] == "exists")
}

// merge takes in another contact: of two runs of one journey and key the older goes on.
func (n *naive) merge(l *naive, id string) {
	for key, other := range l.entries {
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
			e.goalUntil = other.goalUntil
		}
		if e.queued == nil {
			e.queued = other.queued
		}
	}
	for _, r := range l.runs {
		r.n = n
	}
	n.runs, n.history = append(n.runs, l.runs...), append(n.history, l.history...)
	n.unsubscribed = n.unsubscribed || l.unsubscribed
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
	n.record(happening{n.now, id, schemas.FactContactMerged, "", object{}})
}

// answered is what came of a call.
func (n *naive) answered(id string, accepted bool) {
	for _, r := range n.live() {
		if r.call == id {
			r.resume(map[bool]string{true: "accepted", false: "failed"}[accepted])
		}
	}
	n.drain()
}

// until has everything happen that time brings before an instant, instant by instant.
func (n *naive) until(end time.Time) {
	for {
		at, any := n.nextInstant()
		if !any || !at.Before(end) {
			break
		}
		n.now = at
		for _, r := range n.live() {
			if !r.settle.IsZero() && !r.settle.After(at) {
				r.exit("bucket.left:" + r.rejoined)
			}
		}
		for _, r := range n.live() {
			switch {
			case !r.want.due.IsZero() && !r.want.due.After(at):
				r.resume("")
			case r.want.look != nil:
				if outcome := r.want.look(nil); outcome != "" {
					r.resume(outcome)
				}
			}
		}
		n.drain()
	}
	n.now = end
}

// nextInstant is the next at which time may bring something about: the ends of waits, and
// when an event leaves a window that is looked at, which are an hour or two.
func (n *naive) nextInstant() (next time.Time, any bool) {
	take := func(at time.Time) {
		if !at.Before(n.now) && !at.IsZero() && (!any || at.Before(next)) {
			next, any = at, true
		}
	}
	for _, r := range n.live() {
		take(r.want.due)
		take(r.settle)
		for _, h := range n.history {
			for _, window := range []time.Duration{time.Hour, 2 * time.Hour} {
				if at := h.at.Add(window + time.Microsecond); r.want.look != nil && at.After(n.now) {
					take(at)
				}
			}
		}
	}
	return next, any
}

func list(v any) []object {
	var out []object
	switch v := v.(type) {
	case object:
		out = append(out, v)
	case []any:
		for _, item := range v {
			out = append(out, item.(object))
		}
	}
	return out
}

func duration(text string) time.Duration {
	if text == "<nil>" {
		return 0
	}
	if days, is := strings.CutSuffix(text, "d"); is {
		return 24 * duration(days+"h")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return d
}
