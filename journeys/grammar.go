package journeys

import (
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/definition/node"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schedule"
)

func journeyFields() []field[Journey] {
	return []field[Journey]{
		needed(textField("id", "Unique and stable: it stands in facts and commands.", func(j *Journey) *string { return &j.ID })),
		needed(textField("name", "What people call it.", func(j *Journey) *string { return &j.Name })),
		textField("description", "What it is for.", func(j *Journey) *string { return &j.Description }),
		{"enabled", "Whether it enrols anybody. When it does not, its runs go on.", true, boolSchema(),
			func(r *reader, at ast.Node, path string, j *Journey) { j.Enabled = r.Boolean(at, path) },
			func(j *Journey) any { return j.Enabled }},
		{"trigger", "What begins a run: a record, one of several, or a time that comes again for the members of a bucket.", true, ref("trigger"),
			func(r *reader, at ast.Node, path string, j *Journey) { j.Trigger = readTrigger(r, at, path) },
			func(j *Journey) any { return writeTrigger(&j.Trigger) }},
		pathField("key", "The property of the trigger that tells the runs of one contact from each other.", func(j *Journey) *predicate.Path { return &j.Key }),
		wordField("entryLimit", "How often a contact, or each of its keys, may begin.", entryLimits(), func(j *Journey) *string { return &j.EntryLimit }),
		durationField("entryPeriod", "With once_per_period: how long after the last entry; 24h by default.", func(j *Journey) *time.Duration { return &j.EntryPeriod }),
		wordField("live", "What comes of a trigger while a run of the same contact and key lives.", lives(), func(j *Journey) *string { return &j.Live }),
		zoneField("zone", "The IANA time zone of times of day; by default that of the contact.", func(j *Journey) **time.Location { return &j.Zone }),
		{"subscribed", "Whether those who unsubscribed from everything are left out; true by default.", false, boolSchema(),
			func(r *reader, at ast.Node, path string, j *Journey) { j.Everybody = !r.Boolean(at, path) },
			func(j *Journey) any { return unlessZero(j.Everybody, false) }},
		{"exitOn", "What ends a run before its end.", false, listSchema(ref("exit")),
			func(r *reader, at ast.Node, path string, j *Journey) { j.ExitOn = readList(r, at, path, true, r.exit) },
			func(j *Journey) any { return writeList(j.ExitOn, writeExit) }},
		percentField("holdout", "Of how many in a hundred contacts nothing is done, to compare with.", func(j *Journey) *float64 { return &j.Holdout }),
		{"goal", "What the journey is for.", false, ref("goal"),
			func(r *reader, at ast.Node, path string, j *Journey) {
				readMap(r, at, path, "{event: order.paid, within: 7d}", goalFields(), &j.Goal)
				splitWhere(r, at, path, &j.Goal.Match)
			},
			func(j *Journey) any { return unlessZero(j.Goal.Event != "", writeMap(&j.Goal, goalFields())) }},
		wordField("onChange", "What comes of live runs when the journey is changed or removed.", onChanges(), func(j *Journey) *string { return &j.OnChange }),
		{"window", "When waits that name a time of day and no window of their own may end.", false, ref("window"),
			func(r *reader, at ast.Node, path string, j *Journey) {
				w, err := schedule.WindowFromNode(r.File, path, at)
				r.Take(err)
				j.Window = w
			},
			func(j *Journey) any { return unlessZero(j.Window != schedule.Window{}, any(j.Window)) }},
		textField("version", "What a run belongs to; by default it follows from trigger, key, exits and steps.", func(j *Journey) *string { return &j.Version }),
		{"steps", "What happens, in order.", false, ref("steps"),
			func(r *reader, at ast.Node, path string, j *Journey) { j.Steps = r.steps(at, path) },
			func(j *Journey) any { return writeSteps(j.Steps) }},
		{codedField, "The steps are Go code.", false, boolSchema(),
			func(r *reader, at ast.Node, path string, j *Journey) { j.Coded = r.Boolean(at, path) },
			func(j *Journey) any { return unlessZero(j.Coded, true) }},
	}
}

// codedField is for what is stored of a journey that was built in Go.
const codedField = "coded"

func entryLimits() []string { return []string{EntryOnce, EntryOncePerPeriod, EntryUnlimited} }
func lives() []string       { return []string{LiveIgnore, LiveRestart, LiveQueue} }
func onChanges() []string   { return []string{OnChangeFinish, OnChangeExit} }

func triggerFields() []field[Trigger] {
	return []field[Trigger]{
		{"repeat", "The time that comes again.", true, ref("repeat"),
			func(r *reader, at ast.Node, path string, t *Trigger) {
				repeat, err := schedule.RepeatFromNode(r.File, path, at)
				r.Take(err)
				t.Repeat = &repeat
			},
			func(t *Trigger) any { return t.Repeat }},
		needed(textField("bucket", "For whose members.", func(t *Trigger) *string { return &t.Bucket })),
		durationField("notAfter", "One that is later is skipped; 2h by default.", func(t *Trigger) *time.Duration { return &t.NotAfter }),
	}
}

// readTrigger reads one record, a list of them, or a time that comes again.
func readTrigger(r *reader, at ast.Node, path string) Trigger {
	var t Trigger
	if hasKey(at, "repeat") {
		readMap(r, at, path, "{repeat: {at: \"09:00\"}, bucket: vip}", triggerFields(), &t)
		return t
	}
	t.Records = readList(r, at, path, true, r.match)
	return t
}

func writeTrigger(t *Trigger) any {
	if t.Repeat != nil {
		return writeMap(t, triggerFields())
	}
	return writeList(t.Records, func(m *Match) any { return writeMatch(m) })
}

func matchFields() []field[Match] { return matchFieldsOf(func(m *Match) *Match { return m }) }

// matchFieldsOf are event and where of what has a match in it. where is read by splitWhere.
func matchFieldsOf[T any](of func(*T) *Match) []field[T] {
	return []field[T]{
		{"event", "The name of a product event, or a fact such as bucket.entered:vip.", false, textSchema(),
			func(r *reader, at ast.Node, path string, v *T) { of(v).Event = r.Text(at, path) },
			func(v *T) any { return unlessZero(of(v).Event != "", of(v).Event) }},
		{"where", "On its properties: values, lists, operators, or values of the run such as {run: key}.", false, ref("where"),
			func(*reader, ast.Node, string, *T) {},
			func(v *T) any { return writeWhere(of(v)) }},
	}
}

func (r *reader) match(at ast.Node, path string) Match {
	var m Match
	if readMap(r, at, path, "{event: order.paid}", needEvent(matchFields()), &m) {
		splitWhere(r, at, path, &m)
	}
	return m
}

func needEvent[T any](fields []field[T]) []field[T] {
	fields[0].required = true
	return fields
}

func writeMatch(m *Match) map[string]any { return writeMap(m, matchFields()) }

// splitWhere reads what stands at where: properties that are to be the same as a value of the
// run are ours, the rest is a selector's.
func splitWhere(r *reader, at ast.Node, path string, m *Match) {
	where := r.places[join(path, "where")]
	if where == nil {
		return
	}
	parts := []ast.Node{where}
	list, many := where.(*ast.SequenceNode)
	if many {
		parts = list.Values
	}
	var rest []ast.Node
	for _, part := range parts {
		if left := r.takeSame(part, join(path, "where"), m); left != nil {
			rest = append(rest, left)
		}
	}
	switch {
	case len(m.Same) == 0:
		m.Where = r.selector(where, path)
	case len(rest) == 1:
		m.Where = r.selector(rest[0], path)
	case len(rest) > 1:
		m.Where = r.selector(&ast.SequenceNode{BaseNode: &ast.BaseNode{}, Start: where.GetToken(), Values: rest}, path)
	}
}

// takeSame takes the properties that are to be the same as a value of the run, and returns
// what is left; nil for nothing.
func (r *reader) takeSame(part ast.Node, path string, m *Match) ast.Node {
	pairs, isMap := node.Pairs(part)
	taken := len(m.Same)
	var rest []*ast.MappingValueNode
	for _, pair := range pairs {
		source, is := node.Pairs(pair.Value)
		if name, plain := pair.Key.(*ast.StringNode); plain && is && sourceOf(source) != "" {
			m.Same = append(m.Same, Same{name.Value, readValue(r, pair.Value, join(path, name.Value), 0)})
			continue
		}
		rest = append(rest, pair)
	}
	switch {
	case !isMap || len(m.Same) == taken:
		return part
	case len(rest) == 0:
		return nil
	}
	return &ast.MappingNode{BaseNode: &ast.BaseNode{}, Start: part.GetToken(), Values: rest}
}

// selector reads a where; path is that of what it stands in.
func (r *reader) selector(where ast.Node, path string) predicate.Selector {
	key := &ast.StringNode{BaseNode: &ast.BaseNode{}, Token: where.GetToken(), Value: "where"}
	rule := &ast.MappingNode{BaseNode: &ast.BaseNode{}, Start: where.GetToken(),
		Values: []*ast.MappingValueNode{{BaseNode: &ast.BaseNode{}, Start: where.GetToken(), Key: key, Value: where}}}
	s, err := predicate.SelectorFromNode(r.File, path, rule)
	r.Take(err)
	return s
}

func writeWhere(m *Match) any {
	where := selectorWhere(m.Where)
	if len(m.Same) == 0 {
		return where
	}
	list := map[string]any{}
	for i := range m.Same {
		list[m.Same[i].Property] = m.Same[i].Value.object()
	}
	if where == nil {
		return list
	}
	return []any{where, list}
}

func exitFields() []field[Exit] {
	return append(matchFieldsOf(func(e *Exit) *Match { return &e.Match }),
		field[Exit]{"leftBucket", "As event: bucket.left:….", false, textSchema(),
			func(r *reader, at ast.Node, path string, e *Exit) {
				if id := r.Text(at, path); id != "" {
					e.Event = factLeft + ":" + id
				}
			},
			func(*Exit) any { return nil }},
		durationField("settle", "Of bucket.left: how long after it, unless the contact is a member again by then.", func(e *Exit) *time.Duration { return &e.Settle }),
		textField("reason", "What the run's end says; by default the event.", func(e *Exit) *string { return &e.Reason }),
	)
}

func (r *reader) exit(at ast.Node, path string) Exit {
	var e Exit
	if !readMap(r, at, path, "{event: order.paid} or {leftBucket: vip}", exitFields(), &e) {
		return e
	}
	if r.places[join(path, "event")] != nil && r.places[join(path, "leftBucket")] != nil {
		r.Fault(at, path, "has event and leftBucket: write one of the two")
	}
	splitWhere(r, at, path, &e.Match)
	return e
}

func writeExit(e *Exit) any { return writeMap(e, exitFields()) }

func goalFields() []field[Goal] {
	within := durationField("within", "How long after the entry.", func(g *Goal) *time.Duration { return &g.Within })
	return append(needEvent(matchFieldsOf(func(g *Goal) *Match { return &g.Match })), needed(within))
}

func stepFields() []field[Step] {
	return []field[Step]{
		textField("id", "Names the step in facts and values; by default it is made of kind and place.", func(s *Step) *string { return &s.ID }),
		{kindWait, "Waits for a time: 2d, or as described for until.", false, anyOf(ref("duration"), ref("until")),
			func(r *reader, at ast.Node, path string, s *Step) { s.Wait = readWait(r, at, path) },
			func(s *Step) any { return unlessNil(s.Wait) }},
		{kindWaitUntil, "Waits for a date in a property of the contact, and follows it when it changes.", false, ref("waitUntil"),
			func(r *reader, at ast.Node, path string, s *Step) {
				s.WaitUntil = &WaitUntil{}
				readMap(r, at, path, "{property: trialEndsAt, shift: -1d}", waitUntilFields(), s.WaitUntil)
			},
			func(s *Step) any { return writePart(s.WaitUntil, waitUntilFields()) }},
		{kindWaitFor, "Waits for the first of several records or conditions, or a time-out.", false, ref("waitFor"),
			func(r *reader, at ast.Node, path string, s *Step) {
				s.WaitFor = &WaitFor{}
				readMap(r, at, path, "{any: [{event: order.paid}], timeout: 2d}", waitForFields(), s.WaitFor)
			},
			func(s *Step) any { return writePart(s.WaitFor, waitForFields()) }},
		{kindBranch, "Goes on with the first part whose conditions hold.", false, listSchema(ref("arm")),
			func(r *reader, at ast.Node, path string, s *Step) { s.Branch = readList(r, at, path, false, r.arm) },
			func(s *Step) any { return writeList(s.Branch, writeArm) }},
		{kindSplit, "Goes on with one part, by percentages.", false, listSchema(ref("share")),
			func(r *reader, at ast.Node, path string, s *Step) { s.Split = readList(r, at, path, false, r.share) },
			func(s *Step) any { return writeList(s.Split, func(v *Share) any { return writeMap(v, shareFields()) }) }},
		objectField(kindSet, "Sets properties of the contact.", func(s *Step) **Value { return &s.Set }),
		{kindTrigger, "A product event of the contact.", false, ref("productEvent"),
			func(r *reader, at ast.Node, path string, s *Step) {
				s.Trigger = &Event{}
				readMap(r, at, path, "{event: trial.reminded}", eventFields(), s.Trigger)
			},
			func(s *Step) any { return writePart(s.Trigger, eventFields()) }},
		{kindBucket, "Puts the contact into a manual bucket, or takes it out.", false, ref("membership"),
			func(r *reader, at ast.Node, path string, s *Step) {
				s.Bucket = &Membership{}
				readMap(r, at, path, "{add: vip} or {remove: vip}", membershipFields(), s.Bucket)
			},
			func(s *Step) any { return writePart(s.Bucket, membershipFields()) }},
		{kindEmail, "Asks for a mail.", false, ref("email"),
			func(r *reader, at ast.Node, path string, s *Step) {
				s.Email = &Email{}
				readMap(r, at, path, "{template: welcome}", emailFields(), s.Email)
			},
			func(s *Step) any { return writePart(s.Email, emailFields()) }},
		{kindCall, "Asks a destination, and waits for its answer.", false, ref("call"),
			func(r *reader, at ast.Node, path string, s *Step) {
				s.Call = &Call{}
				readMap(r, at, path, "{destination: …, body: {…}}", callFields(), s.Call)
			},
			func(s *Step) any { return writePart(s.Call, callFields()) }},
		textField(kindExit, "Ends the run, and says why.", func(s *Step) *string { return &s.Exit }),
		{"then", "Steps for an outcome of waitFor, waitUntil or call, by its name.", false, map[string]any{"type": "object", "additionalProperties": ref("steps"), "minProperties": 1},
			func(r *reader, at ast.Node, path string, s *Step) { s.Then = r.then(at, path) },
			func(s *Step) any { return writeThen(s.Then) }},
	}
}

// Kinds of steps, as they are written.
const (
	kindWait      = "wait"
	kindWaitUntil = "waitUntil"
	kindWaitFor   = "waitFor"
	kindBranch    = "branch"
	kindSplit     = "split"
	kindSet       = "set"
	kindTrigger   = "trigger"
	kindBucket    = "bucket"
	kindEmail     = "email"
	kindCall      = "call"
	kindExit      = "exit"
	kindDo        = "do" // of code alone
)

func (r *reader) steps(at ast.Node, path string) []Step {
	return readList(r, at, path, false, func(at ast.Node, path string) Step {
		var s Step
		if r.depth++; r.depth > MaxDepth {
			r.Fault(at, path, "stands within more than %d others", MaxDepth-1)
		} else {
			readMap(r, at, path, "one of wait, waitFor, waitUntil, branch, split, set, trigger, bucket, email, call, exit", stepFields(), &s)
		}
		r.depth--
		return s
	})
}

func writeSteps(steps []Step) any {
	return writeList(steps, func(s *Step) any { return writeMap(s, stepFields()) })
}

func (r *reader) then(at ast.Node, path string) map[string][]Step {
	pairs, ok := node.Pairs(at)
	if !ok || len(pairs) == 0 {
		r.Fault(at, path, "is %s: write the steps by outcome, such as {timeout: [{exit: too late}]}", node.Describe(at))
		return nil
	}
	out := map[string][]Step{}
	for _, pair := range pairs {
		name, ok := r.Key(pair, path)
		if !ok {
			continue
		}
		inner := join(path, name)
		r.places[inner] = pair.Value
		out[name] = r.steps(pair.Value, inner)
	}
	return out
}

func writeThen(then map[string][]Step) any {
	if len(then) == 0 {
		return nil
	}
	out := map[string]any{}
	for name, steps := range then {
		out[name] = writeSteps(steps)
	}
	return out
}

// readWait reads a duration or a time to wait for.
func readWait(r *reader, at ast.Node, path string) *schedule.Until {
	if _, isMap := node.Pairs(at); !isMap || hasKey(at, "hours") || hasKey(at, "minutes") || hasKey(at, "seconds") {
		return &schedule.Until{After: r.Duration(at, path)}
	}
	until, err := schedule.UntilFromNode(r.File, path, at)
	r.Take(err)
	return &until
}

func waitUntilFields() []field[WaitUntil] {
	return []field[WaitUntil]{
		needed(pathField("property", "What holds the date: an instant with its zone, or a calendar date.", func(w *WaitUntil) *predicate.Path { return &w.Property })),
		{"shift", "From the date: -1d is a day before it.", false, map[string]any{"type": "string", "pattern": "^[+-]?([0-9]+[wdhms])+$"},
			func(r *reader, at ast.Node, path string, w *WaitUntil) { w.Shift = readShift(r, at, path) },
			func(w *WaitUntil) any { return unlessZero(w.Shift != 0, w.Shift.String()) }},
		{"at", "The time of day on the date.", false, ref("time"),
			func(r *reader, at ast.Node, path string, w *WaitUntil) { w.At = readTime(r, at, path) },
			func(w *WaitUntil) any { return unlessZero(!w.At.IsZero(), w.At.String()) }},
		wordField("past", "What comes of a date that is past.", []string{DoContinue, DoExit}, func(w *WaitUntil) *string { return &w.Past }),
		wordField("missing", "What comes of no date.", []string{DoWait, DoContinue, DoExit}, func(w *WaitUntil) *string { return &w.Missing }),
	}
}

func waitForFields() []field[WaitFor] {
	return []field[WaitFor]{
		{"any", "What is waited for: the first counts.", true, listSchema(ref("alternative")),
			func(r *reader, at ast.Node, path string, w *WaitFor) {
				w.Any = readList(r, at, path, true, r.alternative)
			},
			func(w *WaitFor) any { return writeList(w.Any, writeAlternative) }},
		needed(durationField("timeout", "How long at most; up to 30d.", func(w *WaitFor) *time.Duration { return &w.Timeout })),
		durationField("lookback", "Takes also records that came so long before.", func(w *WaitFor) *time.Duration { return &w.Lookback }),
	}
}

func alternativeFields() []field[Alternative] {
	return append(matchFieldsOf(func(a *Alternative) *Match { return &a.Match }),
		conditionField("condition", "Instead of a record: a condition on the contact.", func(a *Alternative) *predicate.Condition { return &a.Condition }),
		textField("as", "The name of the outcome; by default the event, or condition.", func(a *Alternative) *string { return &a.As }))
}

func (r *reader) alternative(at ast.Node, path string) Alternative {
	var a Alternative
	if readMap(r, at, path, "{event: order.paid} or {condition: {…}}", alternativeFields(), &a) {
		splitWhere(r, at, path, &a.Match)
	}
	return a
}

func writeAlternative(a *Alternative) any { return writeMap(a, alternativeFields()) }

func armFields() []field[Arm] {
	return []field[Arm]{
		conditionField("when", "A condition on the contact.", func(a *Arm) *predicate.Condition { return &a.When }),
		whereField("trigger", "On the properties of what began the run.", func(a *Arm) *predicate.Selector { return &a.Trigger }),
		whereField("last", "On those of the record that ended the last waitFor.", func(a *Arm) *predicate.Selector { return &a.Last }),
		textField("as", "The name of the outcome; by default the number of the part, from 1.", func(a *Arm) *string { return &a.As }),
		{"do", "The steps of the part.", false, ref("steps"),
			func(r *reader, at ast.Node, path string, a *Arm) { a.Do = r.steps(at, path) },
			func(a *Arm) any { return writeSteps(a.Do) }},
		{"else", "The steps when no part before holds; it stands last.", false, ref("steps"),
			func(r *reader, at ast.Node, path string, a *Arm) { a.Do, a.As = r.steps(at, path), OutcomeElse },
			func(*Arm) any { return nil }},
	}
}

func (r *reader) arm(at ast.Node, path string) Arm {
	var a Arm
	readMap(r, at, path, "{when: {…}, do: […]} or {else: […]}", armFields(), &a)
	if hasKey(at, "else") && len(mapKeys(at)) > 1 {
		r.Fault(at, path, "has else and %s: else stands alone", strings.Join(mapKeys(at), ", "))
	}
	return a
}

func (a *Arm) isElse() bool { return a.When.IsZero() && a.Trigger.IsZero() && a.Last.IsZero() }

func writeArm(a *Arm) any {
	if a.isElse() {
		return map[string]any{"else": writeSteps(a.Do)}
	}
	return writeMap(a, armFields())
}

func shareFields() []field[Share] {
	return []field[Share]{
		needed(percentField("percent", "Of how many in a hundred.", func(s *Share) *float64 { return &s.Percent })),
		textField("as", "The name of the outcome; by default the number of the part, from 1.", func(s *Share) *string { return &s.As }),
		{"do", "The steps of the part.", false, ref("steps"),
			func(r *reader, at ast.Node, path string, s *Share) { s.Do = r.steps(at, path) },
			func(s *Share) any { return writeSteps(s.Do) }},
	}
}

func (r *reader) share(at ast.Node, path string) Share {
	var s Share
	readMap(r, at, path, "{percent: 50, do: […]}", shareFields(), &s)
	return s
}

func eventFields() []field[Event] {
	return []field[Event]{
		needed(textField("event", "Its name.", func(e *Event) *string { return &e.Name })),
		objectField("properties", "Its properties.", func(e *Event) **Value { return &e.Properties }),
	}
}

func membershipFields() []field[Membership] {
	return []field[Membership]{
		textField("add", "The bucket that the contact is put into.", func(m *Membership) *string { return &m.Add }),
		textField("remove", "The bucket that the contact is taken out of.", func(m *Membership) *string { return &m.Remove }),
	}
}

func emailFields() []field[Email] {
	return []field[Email]{
		needed(textField("template", "What is sent.", func(e *Email) *string { return &e.Template })),
		textField("category", "The list that somebody may leave; journey by default.", func(e *Email) *string { return &e.Category }),
		textField("subject", "Instead of the template's.", func(e *Email) *string { return &e.Subject }),
		objectField("props", "What the template is given.", func(e *Email) **Value { return &e.Props }),
		{"skipPreference", "Sends also to those who unsubscribed.", false, boolSchema(),
			func(r *reader, at ast.Node, path string, e *Email) { e.SkipPreference = r.Boolean(at, path) },
			func(e *Email) any { return unlessZero(e.SkipPreference, true) }},
	}
}

func callFields() []field[Call] {
	return []field[Call]{
		needed(textField("destination", "The id of the destination.", func(c *Call) *string { return &c.Destination })),
		objectField("body", "What it is sent.", func(c *Call) **Value { return &c.Body }),
		{"headers", "Headers of the request, beside those of the destination.", false, map[string]any{"type": "object", "additionalProperties": textSchema()},
			func(r *reader, at ast.Node, path string, c *Call) { c.Headers = r.texts(at, path) },
			func(c *Call) any { return unlessZero(len(c.Headers) > 0, any(c.Headers)) }},
		durationField("timeout", "Until when it may be tried again; 1h by default.", func(c *Call) *time.Duration { return &c.Timeout }),
		wordField("failed", "What comes of a failure when there are no steps for it.", []string{DoFail, DoContinue}, func(c *Call) *string { return &c.Failed }),
	}
}
