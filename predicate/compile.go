package predicate

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"time"
)

// repeatsKnown is of how many of the newest events of a total without a window the ids are
// kept, which is only for repeats.
const repeatsKnown = 100

// Compile makes a set of conditions. The error is [Faults]: fields that do not fit
// together, windows longer than events are kept, thresholds beyond the limits, buckets
// that are unknown or ask for each other in a circle, ids that stand twice.
func Compile(list []Named, opts Options) (*Set, error) {
	if err := opts.Limits.Validate(); err != nil {
		return nil, err
	}
	ordered, faults := order(list, opts.Buckets)
	c := &compiler{opts: opts, set: &Set{
		ids: map[string]int{}, zone: cmp.Or(opts.Zone, time.UTC),
		events: map[string]*eventSpec{}, legs: map[uint64]*legSpec{},
		readers: map[uint64][]int{}, membership: map[string][]int{},
	}, faults: faults}
	for _, named := range ordered {
		c.add(named)
	}
	if len(c.faults) > 0 {
		return nil, c.faults
	}
	return c.set, nil
}

// compiler turns conditions into nodes, and notes in the set what they look at.
type compiler struct {
	opts   Options
	set    *Set
	faults Faults

	// Of the condition in hand:
	named  Named
	number int
	inputs Inputs
	filter *eventSpec // within where: of which event; nil otherwise
}

func (c *compiler) add(named Named) {
	c.named, c.number, c.inputs = named, len(c.set.conditions), Inputs{}
	faults := checkAll(named.File, named.Path, named.Condition.expr)
	if named.Condition.IsZero() {
		faults = Faults{{File: named.File, Path: named.Path, Message: "is missing: a condition is needed"}}
	}
	c.faults = append(c.faults, faults...)
	if len(faults) == 0 {
		c.checkWindows()
	}
	if len(c.faults) > 0 {
		return // nodes are made of what is right
	}
	root := c.node(named.Condition.expr)
	c.set.ids[named.ID] = c.number
	c.set.conditions = append(c.set.conditions, compiled{named, root, c.inputs})
}

// checkWindows compares with how much is kept.
func (c *compiler) checkWindows() {
	c.named.Condition.walk(c.named.Path, func(e *expr, path string) {
		fault := func(field, format string, args ...any) {
			c.faults = append(c.faults, faultAt(c.named.File, path, e, field, format, args...))
		}
		keep := c.opts.Limits.Retention
		if keep > 0 && e.within > keep {
			fault("within", "is longer than events are kept: use at most %s", durationText(keep))
		}
		if keep > 0 && e.lookback > keep {
			fault("lookback", "is longer than events are kept: use at most %s", durationText(keep))
		}
		if n, _ := e.value.(float64); e.check == checkCount && n > float64(c.opts.Limits.Count) {
			fault("value", "is beyond what is counted: use at most %d", c.opts.Limits.Count)
		}
	})
}

func (c *compiler) node(e *expr) node {
	switch e.kind {
	case kindComposite:
		return c.composite(e)
	case kindNot:
		return notNode{c.node(e.conditions[0])}
	case kindProperty:
		return c.compare(e, c.property(e))
	case kindEvent:
		return c.event(e)
	case kindSeen:
		return c.date(e, c.seen(e))
	case kindSequence:
		return c.sequence(e)
	case kindEmail:
		return c.node(mailSequence(e))
	case kindBucket:
		c.inputs.bucket(e.bucketID)
		c.set.membership[e.bucketID] = c.readBy(c.set.membership[e.bucketID])
		return bucketNode(e.bucketID)
	}
	c.inputs.Identity = true
	c.set.identity = c.readBy(c.set.identity)
	return identifiedNode(e.by)
}

func (c *compiler) composite(e *expr) node {
	nodes := make([]node, len(e.conditions))
	for i, inner := range e.conditions {
		nodes[i] = c.node(inner)
	}
	if e.operator == operatorAnd {
		return allNode(nodes)
	}
	return anyNode(nodes)
}

// readBy adds the condition in hand to those that look at something.
func (c *compiler) readBy(list []int) []int {
	if n := len(list); n > 0 && list[n-1] == c.number {
		return list
	}
	return append(list, c.number)
}

// property is where a comparison finds its left side.
func (c *compiler) property(e *expr) valueSource {
	if c.filter != nil {
		return eventProperty(c.filter.paths.slot(e.property))
	}
	return contactProperty(c.watch(e.property))
}

// watch notes that the condition in hand looks at a property of the contact.
func (c *compiler) watch(p Path) uint64 {
	c.inputs.property(p)
	id := pathID(p)
	if c.set.contact.slot(p) == len(c.set.contactIDs) {
		c.set.contactIDs = append(c.set.contactIDs, id)
	}
	c.set.readers[id] = c.readBy(c.set.readers[id])
	return id
}

// compare compares a value as operator and value of the condition say.
func (c *compiler) compare(e *expr, left valueSource) node {
	op := propertyOperators.find(e.operator)
	if len(e.moments()) > 0 {
		return c.date(e, textMoment{left})
	}
	if op.negates != "" {
		return notNode{&compareNode{left, propertyOperators.find(op.negates).test, newOperand(e.value, e.ignoreCase)}}
	}
	return &compareNode{left, op.test, newOperand(e.value, e.ignoreCase)}
}

// date compares a date.
func (c *compiler) date(e *expr, left momentSource) node {
	n := &dateNode{of: left, deployment: c.set.zone}
	moments := e.moments()
	operators := []string{e.operator}
	if e.operator == opBetween {
		operators = []string{opOnOrAfter, opOnOrBefore}
	}
	for i, m := range moments {
		n.sides = append(n.sides, dateSide{operators[i], m})
	}
	switch {
	case e.zone != "":
		n.zone = findZone(e.zone) // was checked
	case c.filter == nil && moments[0].calendar:
		for _, property := range zoneProperties {
			c.watch(Path{property})
		}
	}
	return n
}

func (c *compiler) event(e *expr) node {
	within := e.within.Microseconds()
	switch e.check {
	case checkTotal:
		want, _ := amountOf(e.value.(float64)) // was checked
		size := c.opts.Limits.Total
		if within == 0 {
			size = min(size, repeatsKnown)
		}
		return &totalNode{c.leg(e, modeAmounts, size, e.of), within, e.operator, want, size}
	case checkLast:
		leg := c.leg(e, modeValue, 1, e.of)
		last := c.compare(e, newestValue(leg))
		if within == 0 {
			return last
		}
		return allNode{&recentNode{leg, within}, last}
	}
	b, _ := e.countBounds()
	return &countNode{c.leg(e, modeTimes, b.needs(), nil), within, b}
}

func (c *compiler) seen(e *expr) momentSource {
	switch {
	case e.eventName != "" && e.check == checkFirst:
		return eventSeen(c.leg(e, modeOldest, 1, nil))
	case e.eventName != "":
		return eventSeen(c.leg(e, modeTimes, 1, nil))
	case e.check == checkFirst:
		c.inputs.FirstSeen = true
		c.set.firstSeen = c.readBy(c.set.firstSeen)
		return contactSeen{}
	}
	c.inputs.LastSeen = true
	c.set.lastSeen = c.readBy(c.set.lastSeen)
	return contactSeen{last: true}
}

func (c *compiler) sequence(e *expr) node {
	size := c.opts.Limits.Sequence
	then := c.legSpec(e.then, modeTimes, size, "")
	if e.occur == occurLast {
		size = 1
	}
	first := c.legSpec(e.first, modeFollowed, size, then.key)
	first.readBy = c.readBy(first.readBy)
	if first.then == nil {
		first.then, then.firsts = then, append(then.firsts, first)
	}
	return &sequenceNode{
		leg: first.id, then: then.id, gap: e.within.Microseconds(), lookback: e.lookback.Microseconds(),
		missing: e.check == checkNotFollowed, newest: size,
	}
}

// mailSequence is what became of the newest mail of a template, in facts.
func mailSequence(e *expr) *expr {
	what, negative := strings.CutPrefix(e.check, "not_")
	where := isEqual("templateKey", e.templateKey)
	sent := &expr{kind: kindStep, eventName: "email.sent", where: where}
	followed := &expr{kind: kindSequence, occur: occurLast, first: sent,
		then: &expr{kind: kindStep, eventName: "email." + what, where: where}}
	if !negative {
		return followed
	}
	return allOf([]*expr{
		{kind: kindEvent, eventName: sent.eventName, where: where, check: checkExists},
		{kind: kindNot, conditions: []*expr{followed}},
	})
}

// leg notes that the condition in hand looks at an event, and returns the id of what is
// kept of it.
func (c *compiler) leg(e *expr, mode legMode, size int, of Path) uint64 {
	which := ""
	if of != nil {
		which = canonicalText([]string(of))
	}
	spec := c.legSpec(e, mode, size, which)
	if of != nil {
		spec.of = c.set.events[e.eventName].paths.slot(of)
	}
	spec.readBy = c.readBy(spec.readBy)
	return spec.id
}

// legSpec is the leg of an event, made when it is new. Beside name and filter, what tells
// it from others is the property that is looked at, or the other event of a sequence.
func (c *compiler) legSpec(e *expr, mode legMode, size int, which string) *legSpec {
	where := ""
	if e.where != nil {
		where = canonicalText(e.where.object())
	}
	c.inputs.event(EventInput{e.eventName, where})
	key := canonicalText([]any{e.eventName, where, mode, which})
	id := hashID(key)
	spec := c.set.legs[id]
	if spec == nil {
		spec = c.newLeg(e, mode)
		spec.id, spec.key = id, key
		c.set.legs[id] = spec
	}
	spec.size = max(spec.size, size)
	return spec
}

func (c *compiler) newLeg(e *expr, mode legMode) *legSpec {
	event := c.set.events[e.eventName]
	if event == nil {
		event = &eventSpec{}
		c.set.events[e.eventName] = event
	}
	spec := &legSpec{mode: mode, of: -1}
	if e.where != nil {
		c.filter = event
		spec.where = c.node(e.where)
		c.filter = nil
	}
	event.legs = append(event.legs, spec)
	return spec
}

// pathID and hashID name what a state keeps, the same in every set. 64 bits of SHA-256
// do not meet by chance within a set.
func pathID(p Path) uint64 { return hashID(canonicalText([]string(p))) }

func hashID(key string) uint64 {
	sum := sha256.Sum256([]byte(key))
	return binary.BigEndian.Uint64(sum[:])
}
