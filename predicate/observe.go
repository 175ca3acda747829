package predicate

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// observer collects what the nodes of one leaf look at.
type observer struct {
	set   *Set
	view  view
	asked *expr // the leaf
	saw   Saw
	why   string
}

// because says why, unless that was said.
func (o *observer) because(format string, args ...any) {
	if o.why == "" {
		o.why = fmt.Sprintf(format, args...)
	}
}

// event notes an event of a leg, each once.
func (o *observer) event(e *entry, nth int, decides bool) {
	o.part("", e, nth, decides)
}

func (o *observer) part(part string, e *entry, nth int, decides bool) {
	for i := range o.saw.Events {
		if known := &o.saw.Events[i]; known.ID == e.id && known.At.Equal(instant(e.at)) && known.Part == part {
			known.Decides = known.Decides || decides
			return
		}
	}
	o.saw.Events = append(o.saw.Events, SawEvent{ID: e.id, At: instant(e.at), Nth: nth, Part: part, Decides: decides})
}

func (n allNode) observe(o *observer) {
	for _, inner := range n {
		inner.observe(o)
	}
}

func (n anyNode) observe(o *observer) { allNode(n).observe(o) }

func (n notNode) observe(o *observer) { n.inner.observe(o) }

func (n *compareNode) observe(o *observer) {
	actual := o.value(n.of)
	op := propertyOperators.find(o.asked.operator)
	if takes, want := op.takes(actual.kind); actual.kind > typeNull && !takes {
		o.because("it is %s, and %s compares %s", named(actual), op.word, want)
	}
}

// takes says whether an operator compares values of a type, and which it does.
func (o *operator) takes(kind valueKind) (bool, operandKind) {
	switch {
	case o.word == "list_contains":
		return kind == typeList, "a list"
	case o.wants == wantsNothing:
		return true, wantsNothing
	case o.wants == wantsScalar, o.wants == wantsList:
		return kind >= typeBool && kind <= typeText, wantsScalar
	case o.wants == wantsText:
		return kind == typeText, wantsText
	}
	return kind == typeNumber, wantsNumber
}

// value notes what a property holds, or that there is none.
func (o *observer) value(of valueSource) value {
	raw := of.raw(o.view)
	if raw != "" {
		o.saw.Value = json.RawMessage(strings.Clone(raw))
	}
	whose := "the contact"
	path := o.asked.property
	if leg, ofEvent := of.(newestValue); ofEvent {
		entries := o.view.state.entries(uint64(leg))
		if len(entries) == 0 {
			o.because("no such event was seen")
			return value{}
		}
		o.event(&entries[0], 1, true)
		whose, path = "the newest event", o.asked.of
	}
	actual := readValue(raw)
	switch actual.kind {
	case typeAbsent:
		o.because("%s has no property %s", whose, path.words())
	case typeNull:
		o.because("it is null")
	}
	return actual
}

// named says of which type a value is.
func named(v value) string {
	if v.kind == typeObject && v.text == tooLong {
		return "an empty object, or a value of more than 4 KiB"
	}
	return valueNames[v.kind]
}

func (n *dateNode) observe(o *observer) {
	actual, ok := o.moment(n.of)
	if !ok {
		return
	}
	o.saw.Date = actual.String()
	for _, side := range n.sides {
		zone := n.zone
		if zone == nil {
			zone = zoneOf(o.view, n.deployment)
		}
		o.saw.With = append(o.saw.With, side.moment.atInstant(o.view.now, zone).String())
		switch {
		case actual.calendar && !side.moment.calendar:
			o.because("it is a calendar date, and compares with no instant")
		case side.moment.calendar:
			o.saw.Zone, o.saw.Date = zone.String(), actual.dateIn(zone).String()
		}
	}
}

// moment notes the date on the left side.
func (o *observer) moment(of momentSource) (Moment, bool) {
	actual, ok := of.moment(o.view)
	switch source := of.(type) {
	case textMoment:
		switch v := o.value(source.of); {
		case ok || v.kind <= typeNull:
		case v.kind == typeText:
			o.because("it is text that is no date")
		default:
			o.because("it is %s, and %s compares a date", named(v), o.asked.operator)
		}
		return actual, ok
	case eventSeen:
		entries := o.view.state.entries(uint64(source))
		if len(entries) == 0 {
			break
		}
		nth := 1
		if o.asked.check == checkFirst {
			nth = 0
		}
		o.event(&entries[0], nth, true)
	}
	if !ok {
		o.because("nothing was seen yet")
	}
	return actual, ok
}

func (n *countNode) observe(o *observer) {
	entries := o.view.state.entries(n.leg)
	count := recentOf(entries, n.within, o.view.now)
	o.saw.Count = &count
	o.saw.More = count == len(entries) && count >= o.set.legs[n.leg].size
	if len(entries) == 0 {
		o.because("no such event was seen")
		return
	}
	o.event(&entries[0], 1, false)
	kth := n.bounds.low
	if n.bounds.low <= 0 || count > n.bounds.high {
		kth = n.bounds.high + 1
	}
	if kth < 1 || kth > len(entries) {
		return
	}
	o.event(&entries[kth-1], kth, true)
	if kth > count {
		o.because("%s left the window at %s", newestWords(kth), timeWords(instant(entries[kth-1].at+n.within+1)))
	}
}

// recentOf is how many of the events are in a window.
func recentOf(entries []entry, within, now int64) int {
	count := len(entries)
	for within != 0 && count > 0 && entries[count-1].at < now-within {
		count--
	}
	return count
}

func (n *totalNode) observe(o *observer) {
	l := o.view.state.find(n.leg)
	if l == nil || len(l.entries) == 0 {
		o.saw.Total = amountText(0)
		o.because("no such event with a number was seen")
		return
	}
	if n.within == 0 {
		o.saw.Total = amountText(l.total)
		turned := compareAmounts(n.operator, l.total, n.want) != compareAmounts(n.operator, addAmounts(l.total, -l.entries[0].amount), n.want)
		o.event(&l.entries[0], 1, turned)
		return
	}
	entries := l.entries[:min(n.newest, len(l.entries))]
	entries = entries[:recentOf(entries, n.within, o.view.now)]
	total, count := int64(0), len(entries)
	for i := range entries {
		total = addAmounts(total, entries[i].amount)
	}
	o.saw.Total, o.saw.Count, o.saw.More = amountText(total), &count, count == n.newest
	if count == 0 {
		o.event(&l.entries[0], 1, false)
		o.because("the newest event left the window at %s", timeWords(instant(l.entries[0].at+n.within+1)))
		return
	}
	o.event(&entries[0], 1, false)
	next := n.windowed(entries).next
	if left := slices.IndexFunc(entries, func(e entry) bool { return e.at+n.within+1 == next }); left >= 0 {
		o.event(&entries[left], left+1, true)
	}
}

func (n *recentNode) observe(o *observer) {
	entries := o.view.state.entries(n.leg)
	if len(entries) > 0 && recentOf(entries[:1], n.within, o.view.now) == 0 {
		o.because("the newest event left the window at %s", timeWords(instant(entries[0].at+n.within+1)))
	}
}

// observe shows the newest first event of those that decide, and what followed it.
func (n *sequenceNode) observe(o *observer) {
	firsts := o.view.state.entries(n.leg)
	firsts = firsts[:min(n.newest, len(firsts))]
	if len(firsts) == 0 {
		o.because("%s", map[bool]string{true: "no such mail was sent", false: "no such first event was seen"}[o.asked.kind == kindEmail])
		return
	}
	at := max(0, slices.IndexFunc(firsts, func(e entry) bool {
		return n.followed(&e) != n.missing && window(n.span(e.at), o.view.now).holds
	}))
	first, followed := &firsts[at], n.followed(&firsts[at])
	o.part("first", first, 0, !followed)
	if first.amount != never {
		o.part("then", o.followed(n.then, first.amount), 0, followed)
	}
	n.because(o, first, followed)
}

// because says why a first event does not count.
func (n *sequenceNode) because(o *observer, first *entry, followed bool) {
	s := n.span(first.at)
	switch {
	case window(s, o.view.now).holds && followed != n.missing:
	case followed == n.missing && first.amount == never:
		o.because("nothing followed it")
	case n.missing && followed:
		o.because("it was followed %s later", microWords(first.amount-first.at))
	case followed == n.missing:
		o.because("it was followed %s later, which is too late", microWords(first.amount-first.at))
	case o.view.now < s.from:
		o.because("it may be followed until %s", timeWords(instant(s.from-1)))
	default:
		o.because("the first event left the time of lookback at %s", timeWords(instant(s.until)))
	}
}

// followed is the event of a leg at an instant; one that is not kept has no id.
func (o *observer) followed(leg uint64, at int64) *entry {
	entries := o.view.state.entries(leg)
	if i := slices.IndexFunc(entries, func(e entry) bool { return e.at == at }); i >= 0 {
		return &entries[i]
	}
	return &entry{at: at}
}

func (bucketNode) observe(*observer)     {}
func (identifiedNode) observe(*observer) {}

// atInstant is a moment as it is at an instant.
func (m Moment) atInstant(now int64, zone *time.Location) Moment {
	switch {
	case m.relative && m.calendar:
		return Moment{calendar: true, at: dayOf(time.UnixMicro(now).In(zone)) + m.at}
	case m.relative:
		return Moment{at: now + m.at}
	}
	return m
}

// dateIn is the calendar date of a moment that is not relative.
func (m Moment) dateIn(zone *time.Location) Moment {
	if m.calendar {
		return m
	}
	return Moment{calendar: true, at: dayOf(time.UnixMicro(m.at).In(zone))}
}

// amountText is an amount as a decimal number.
func amountText(amount int64) json.Number {
	text := big.NewRat(amount, amountUnit).FloatString(6)
	return json.Number(strings.TrimSuffix(strings.TrimRight(text, "0"), "."))
}
