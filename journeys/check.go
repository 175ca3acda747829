package journeys

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
)

// problem is what is wrong with a part of a journey, by its path.
type problem struct{ path, message string }

// Check says all that is wrong with a journey that was built in Go. The error is
// [predicate.Faults], whose paths are those of a file. One that was read is right.
func (j *Journey) Check() error {
	var faults predicate.Faults
	for _, p := range j.problems() {
		faults = append(faults, predicate.Fault{File: j.File, Path: p.path, Message: p.message})
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// checker collects problems.
type checker struct {
	j     *Journey
	out   []problem
	ids   map[string]string // of steps, with their paths
	calls map[string]bool   // ids of calls
	refs  []reference
	count int
}

// reference is a value that names a step.
type reference struct{ path, step string }

func (c *checker) wrong(path, format string, args ...any) {
	c.out = append(c.out, problem{path, fmt.Sprintf(format, args...)})
}

func (j *Journey) problems() []problem {
	c := newChecker(j)
	c.head()
	c.trigger()
	for i := range j.ExitOn {
		c.exit(index("exitOn", i), &j.ExitOn[i])
	}
	if j.Goal.Event != "" || j.Goal.Within != 0 {
		c.match("goal", &j.Goal.Match, true)
		c.onlyOf("goal", j.Goal.Same, sourceRun, sourceContact)
		c.duration("goal.within", j.Goal.Within)
		if j.Goal.Within == 0 {
			c.wrong("goal.within", "is missing: write how long after the entry, such as 7d")
		}
	}
	switch {
	case !j.Coded && len(j.Steps) == 0:
		c.wrong("steps", "is missing: write what happens")
	case j.Coded && len(j.Steps) > 0:
		c.wrong("steps", "are code: leave them out")
	case j.Coded && j.Version == "":
		c.wrong("version", "is missing: write one that changes with the code")
	}
	for i := range j.Lookbacks {
		c.lookback(index("lookbacks", i), &j.Lookbacks[i])
	}
	c.steps("steps", "", j.Steps, 1)
	if c.count > MaxSteps {
		c.wrong("steps", "are %d: a journey has at most %d", c.count, MaxSteps)
	}
	if n := len(j.Canonical()); n > maxText {
		c.wrong("", "is %d KiB long when all is written out: a journey has at most %d KiB", n>>10, maxText>>10)
	}
	c.referred()
	return c.out
}

func newChecker(j *Journey) *checker {
	return &checker{j: j, ids: map[string]string{}, calls: map[string]bool{}}
}

// referred refuses values of steps that are no calls.
func (c *checker) referred() {
	for _, r := range c.refs {
		if !c.calls[r.step] {
			c.wrong(r.path, "%q is no call of this journey: %s", r.step, predicate.NotKnown(r.step, sortedNames(c.calls)))
		}
	}
}

func (c *checker) head() {
	j := c.j
	if message := wrongID(j.ID); message != "" {
		c.wrong("id", "%s", message)
	}
	if j.Name == "" {
		c.wrong("name", "is missing: write what people call it")
	}
	for _, word := range []struct {
		path, is string
		known    []string
	}{{"entryLimit", j.EntryLimit, entryLimits()}, {"live", j.Live, lives()}, {"onChange", j.OnChange, onChanges()}} {
		c.word(word.path, word.is, word.known)
	}
	c.duration("entryPeriod", j.EntryPeriod)
	if j.EntryPeriod != 0 && j.EntryLimit != EntryOncePerPeriod {
		c.wrong("entryPeriod", "is for entryLimit %s: leave it out", EntryOncePerPeriod)
	}
	if j.Live == LiveQueue && cmp.Or(j.EntryLimit, EntryOnce) == EntryOnce {
		c.wrong("live", "is queue, but nobody begins twice: write entryLimit too")
	}
	if j.Holdout < 0 || j.Holdout > 100 {
		c.wrong("holdout", "is %v: write a number up to 100", j.Holdout)
	}
	if strings.ContainsFunc(j.Version, unicode.IsControl) || len(j.Version) > 40 {
		c.wrong("version", "is no version: write at most 40 letters and digits")
	}
	if faults, ok := j.Window.Check().(predicate.Faults); ok { //nolint:errorlint // it is made there
		for _, f := range faults {
			c.wrong(join("window", f.Path), "%s", f.Message)
		}
	}
}

// wrongID says what is wrong with an id; "" is nothing.
func wrongID(id string) string {
	switch {
	case id == "":
		return "is missing: write a unique and stable name"
	case len(id) > maxID:
		return fmt.Sprintf("is longer than %d bytes", maxID)
	case strings.ContainsFunc(id, func(r rune) bool { return unicode.IsControl(r) || r == '@' }):
		return "holds a control character or @: leave it out"
	}
	return ""
}

func (c *checker) word(path, is string, known []string) {
	if message := predicate.NotKnown(is, known); is != "" && message != "" {
		c.wrong(path, "%s", message)
	}
}

func (c *checker) duration(path string, d time.Duration) {
	if d < 0 || d%time.Microsecond != 0 {
		c.wrong(path, "is %s: write a time of whole microseconds, longer than zero", d)
	}
}

func (c *checker) trigger() {
	t := &c.j.Trigger
	switch {
	case t.Repeat != nil && len(t.Records) > 0:
		c.wrong("trigger", "has repeat and records: write one of the two")
	case t.Repeat != nil:
		if faults, ok := t.Repeat.Check().(predicate.Faults); ok { //nolint:errorlint // it is made there
			for _, f := range faults {
				c.wrong(join("trigger.repeat", f.Path), "%s", f.Message)
			}
		}
		if t.Bucket == "" {
			c.wrong("trigger.bucket", "is missing: write for whose members it is")
		}
		if len(c.j.Key) > 0 {
			c.wrong("key", "is for records: a time that comes again has no properties")
		}
		if cmp.Or(c.j.EntryLimit, EntryOnce) == EntryOnce {
			c.wrong("entryLimit", "is once, but the trigger comes again: write unlimited or once_per_period")
		}
	case len(t.Records) == 0:
		c.wrong("trigger", "is missing: write what begins a run, such as {event: signed.up}")
	}
	c.duration("trigger.notAfter", t.NotAfter)
	for i := range t.Records {
		path := index("trigger", i)
		c.match(path, &t.Records[i], true)
		c.onlyOf(path, t.Records[i].Same, sourceContact)
	}
}

// onlyOf refuses values of what is not there when a record is compared.
func (c *checker) onlyOf(path string, same []Same, known ...string) {
	for i := range same {
		same[i].Value.walk(func(v *Value) {
			if !slices.Contains(known, v.source) {
				c.wrong(join(path, "where."+same[i].Property), "looks at %s, which is not known here: use %s", v.source, strings.Join(known, " or "))
			}
		})
	}
}

// match checks which records are meant.
func (c *checker) match(path string, m *Match, needed bool) {
	switch {
	case m.Event == "" && needed:
		c.wrong(join(path, "event"), "is missing: write the name of a product event or a fact")
	case strings.Contains(m.Event, "*"):
		c.wrong(join(path, "event"), "%q has a *: write one whole name; of several, write several", m.Event)
	case m.Event != "":
		if message := wrongEvent(m.Event); message != "" {
			c.wrong(join(path, "event"), "%s", message)
		}
	}
	for i := range m.Same {
		c.value(join(path, "where."+m.Same[i].Property), &m.Same[i].Value)
	}
}

func (c *checker) value(path string, v *Value) {
	v.walk(func(v *Value) {
		if v.source == sourceStep {
			c.refs = append(c.refs, reference{path, v.step})
		}
	})
}

func (c *checker) object(path string, v *Value) {
	if v != nil && !v.isMap {
		c.wrong(path, "is no object: use Object, or Literal of a map")
	}
}

func (c *checker) exit(path string, e *Exit) {
	c.match(path, &e.Match, true)
	c.duration(join(path, "settle"), e.Settle)
	if name, about, _ := eventOf(e.Event); e.Settle != 0 && (name != factLeft || about == "") {
		c.wrong(join(path, "settle"), "is for a bucket that is left: write leftBucket, or leave settle out")
	}
}

func (c *checker) steps(path, prefix string, steps []Step, depth int) {
	if depth > MaxDepth {
		c.wrong(path, "stand within more than %d others", MaxDepth-1)
		return
	}
	for i := range steps {
		s, at := &steps[i], index(path, i)
		c.count++
		kinds := s.kinds()
		if len(kinds) != 1 {
			c.wrong(at, "has %s: a step is one of %s", cmp.Or(strings.Join(kinds, " and "), "no kind"), strings.Join(stepKinds(), ", "))
			continue
		}
		id := s.idAt(prefix, i)
		c.stepID(at, id, s)
		c.step(at, id, kinds[0], s, depth)
		if kinds[0] == kindExit && i < len(steps)-1 {
			c.wrong(index(path, i+1), "stands behind an exit: nobody gets there")
		}
	}
}

func (c *checker) stepID(path, id string, s *Step) {
	if message := wrongID(id); message != "" {
		c.wrong(join(path, "id"), "%s", message)
	}
	if id == goalStep {
		c.wrong(join(path, "id"), "goal is the name of the journey's goal: use another")
	}
	if before, stands := c.ids[id]; stands {
		c.wrong(path, "has the id %q, as %s has: give one of them another id", id, before)
	}
	c.ids[id] = path
	if s.Call != nil {
		c.calls[id] = true
	}
}

// step checks what a step says by itself, and the steps within it.
func (c *checker) step(path, id, kind string, s *Step, depth int) {
	inner := join(path, kind)
	outcomes := s.outcomes()
	switch kind {
	case kindWait:
		if faults, ok := s.Wait.Check().(predicate.Faults); ok { //nolint:errorlint // it is made there
			for _, f := range faults {
				c.wrong(join(inner, f.Path), "%s", f.Message)
			}
		}
	case kindWaitUntil:
		c.waitUntil(inner, s.WaitUntil)
	case kindWaitFor:
		c.waitFor(inner, s.WaitFor)
	case kindBranch:
		c.branch(inner, id, s.Branch, depth)
	case kindSplit:
		c.split(inner, id, s.Split, depth)
	case kindSet:
		c.value(inner, s.Set)
		c.object(inner, s.Set)
		if s.Set.isMap && len(s.Set.members) == 0 {
			c.wrong(inner, "sets nothing: write properties with their values")
		}
	case kindTrigger:
		c.event(inner, s.Trigger)
	case kindBucket:
		if (s.Bucket.Add == "") == (s.Bucket.Remove == "") {
			c.wrong(inner, "write one of add, remove")
		}
	case kindEmail:
		c.value(join(inner, "props"), s.Email.Props)
		c.object(join(inner, "props"), s.Email.Props)
		if s.Email.Template == "" {
			c.wrong(join(inner, "template"), "is missing: write what is sent")
		}
	case kindCall:
		c.call(inner, s.Call)
	case kindDo:
		c.job(inner, s.job)
	}
	if len(s.Then) > 0 && kind != kindWaitFor && kind != kindWaitUntil && kind != kindCall {
		c.wrong(join(path, "then"), "is for waitFor, waitUntil and call: leave it out")
		return
	}
	for _, name := range sortedNames(s.Then) {
		if message := predicate.NotKnown(name, outcomes); message != "" {
			c.wrong(join(path, "then."+name), "%s", message)
		}
		c.steps(join(path, "then."+name), within(id, name), s.Then[name], depth+1)
	}
}

func (c *checker) waitUntil(path string, w *WaitUntil) {
	if len(w.Property) == 0 {
		c.wrong(join(path, "property"), "is missing: write what holds the date")
	}
	if w.Shift%time.Second != 0 {
		c.wrong(join(path, "shift"), "is %s: write whole seconds", w.Shift)
	}
	c.word(join(path, "past"), w.Past, []string{DoContinue, DoExit})
	c.word(join(path, "missing"), w.Missing, []string{DoWait, DoContinue, DoExit})
}

func (c *checker) waitFor(path string, w *WaitFor) {
	switch {
	case w.Timeout == 0:
		c.wrong(join(path, "timeout"), "is missing: write how long at most, such as 2d")
	case w.Timeout > MaxTimeout:
		c.wrong(join(path, "timeout"), "is longer than 30d, for which events are kept")
	}
	c.duration(join(path, "timeout"), w.Timeout)
	c.duration(join(path, "lookback"), w.Lookback)
	if w.Lookback > MaxTimeout {
		c.wrong(join(path, "lookback"), "is longer than 30d, for which events are kept")
	}
	if len(w.Any) == 0 {
		c.wrong(join(path, "any"), "is missing: write what is waited for")
	}
	names := map[string]bool{OutcomeTimeout: true, OutcomeSkipped: true}
	for i := range w.Any {
		a, at := &w.Any[i], index(join(path, "any"), i)
		if (a.Match.Event == "") == a.Condition.IsZero() {
			c.wrong(at, "write one of event, condition")
		}
		c.match(at, &a.Match, false)
		if a.Condition.IsZero() == (a.Match.Event == "") {
			continue
		}
		if names[a.name()] {
			c.wrong(at, "is the second that is called %q: name it with as", a.name())
		}
		names[a.name()] = true
	}
}

// lookback checks what code may look back at.
func (c *checker) lookback(path string, l *Lookback) {
	c.match(path, &l.Match, true)
	if len(l.Match.Same) > 0 {
		c.wrong(path, "compares with values of a run, and is kept before there is one: leave Same to the wait")
	}
	c.duration(join(path, "for"), l.For)
	if l.For <= 0 || l.For > MaxTimeout {
		c.wrong(join(path, "for"), "is %s: write up to 30d, for which events are kept", l.For)
	}
}

func (a *Alternative) name() string {
	if a.Match.Event == "" {
		return cmp.Or(a.As, "condition")
	}
	return cmp.Or(a.As, a.Match.Event)
}

func (c *checker) branch(path, id string, arms []Arm, depth int) {
	names := map[string]bool{}
	for i := range arms {
		a, at := &arms[i], index(path, i)
		if a.isElse() && i < len(arms)-1 {
			c.wrong(at, "has no condition, and is not the last: write when, trigger or last")
		}
		if a.isElse() && a.As != "" && a.As != OutcomeElse {
			c.wrong(join(at, "as"), "has no condition: it is called else")
		}
		if i == 0 && a.isElse() {
			c.wrong(at, "has no condition: write when, trigger or last")
		}
		c.part(at, "do", id, armName(a, i), a.Do, names, depth)
	}
}

func (c *checker) split(path, id string, shares []Share, depth int) {
	names, total := map[string]bool{}, 0.0
	for i := range shares {
		s, at := &shares[i], index(path, i)
		total += s.Percent
		if s.Percent <= 0 {
			c.wrong(join(at, "percent"), "is %v: write a number above 0", s.Percent)
		}
		c.part(at, "do", id, shareName(s, i), s.Do, names, depth)
	}
	if total < 99.995 || total > 100.005 {
		c.wrong(path, "is of %v per cent: the parts make 100", total)
	}
}

// part checks a part of a branch or split.
func (c *checker) part(path, field, id, name string, steps []Step, names map[string]bool, depth int) {
	if names[name] {
		c.wrong(path, "is the second that is called %q: name it with as", name)
	}
	names[name] = true
	c.steps(join(path, field), within(id, name), steps, depth+1)
}

// reserved is how names begin that no product event has.
var reserved = []string{"bucket:", "bucket.", "journey:", "journey.", "email.", "contact.", "webhook.", schemas.TypeEventTracked, "hogstream."}

func (c *checker) event(path string, e *Event) {
	c.value(join(path, "properties"), e.Properties)
	c.object(join(path, "properties"), e.Properties)
	switch {
	case e.Name == "":
		c.wrong(join(path, "event"), "is missing: write its name")
	case slices.ContainsFunc(reserved, func(prefix string) bool { return strings.HasPrefix(e.Name, prefix) }):
		c.wrong(join(path, "event"), "%q begins as a fact, which is not for journeys to tell: use another", e.Name)
	}
}

func (c *checker) call(path string, call *Call) {
	if call.Destination == "" {
		c.wrong(join(path, "destination"), "is missing: write the id of a destination")
	}
	c.value(join(path, "body"), call.Body)
	c.object(join(path, "body"), call.Body)
	c.duration(join(path, "timeout"), call.Timeout)
	if call.Timeout > MaxTimeout {
		c.wrong(join(path, "timeout"), "is longer than 30d")
	}
	c.word(join(path, "failed"), call.Failed, []string{DoFail, DoContinue})
}

// kinds are those that a step is; it should be one.
func (s *Step) kinds() []string {
	if s.job != nil {
		return []string{kindDo}
	}
	is := map[string]bool{
		kindWait: s.Wait != nil, kindWaitUntil: s.WaitUntil != nil, kindWaitFor: s.WaitFor != nil,
		kindBranch: len(s.Branch) > 0, kindSplit: len(s.Split) > 0, kindSet: s.Set != nil, kindTrigger: s.Trigger != nil,
		kindBucket: s.Bucket != nil, kindEmail: s.Email != nil, kindCall: s.Call != nil, kindExit: s.Exit != "",
	}
	return slices.DeleteFunc(stepKinds(), func(kind string) bool { return !is[kind] })
}

func stepKinds() []string {
	return []string{kindWait, kindWaitUntil, kindWaitFor, kindBranch, kindSplit, kindSet, kindTrigger, kindBucket, kindEmail, kindCall, kindExit}
}

// idAt is the id of a step of a list.
func (s *Step) idAt(prefix string, i int) string {
	if s.ID != "" {
		return s.ID
	}
	kind := ""
	if kinds := s.kinds(); len(kinds) > 0 {
		kind = kinds[0]
	}
	return fmt.Sprintf("%s%s-%d", prefix, kind, i)
}

// within is what the ids of the steps of an outcome begin with.
func within(id, outcome string) string { return id + "." + outcome + "." }

// outcomes are those of a step, in their order; what a run may go on by.
func (s *Step) outcomes() []string {
	switch {
	case s.WaitFor != nil:
		var out []string
		for i := range s.WaitFor.Any {
			out = append(out, s.WaitFor.Any[i].name())
		}
		return append(out, OutcomeTimeout)
	case s.WaitUntil != nil:
		return []string{OutcomeReached, OutcomePast, OutcomeMissing}
	case s.Call != nil:
		return []string{OutcomeAccepted, OutcomeFailed}
	case len(s.Branch) > 0:
		var out []string
		for i := range s.Branch {
			out = append(out, armName(&s.Branch[i], i))
		}
		if !s.Branch[len(s.Branch)-1].isElse() {
			out = append(out, OutcomeElse)
		}
		return out
	case len(s.Split) > 0:
		var out []string
		for i := range s.Split {
			out = append(out, shareName(&s.Split[i], i))
		}
		return out
	case s.job != nil:
		return []string{OutcomeDone, OutcomeFailed}
	case s.Exit != "":
		return nil
	}
	return []string{OutcomeNext}
}

func armName(a *Arm, i int) string {
	if a.isElse() {
		return OutcomeElse
	}
	return cmp.Or(a.As, fmt.Sprint(i+1))
}

func shareName(s *Share, i int) string { return cmp.Or(s.As, fmt.Sprint(i+1)) }
