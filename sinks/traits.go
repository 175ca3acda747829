package sinks

import (
	"fmt"
	"slices"

	"github.com/hogstream/hogstream/schemas/document"
)

// shown is what a message says of what its person is like.
type shown struct {
	traits  string // a JSON object
	ok      bool   // it says something
	once    bool   // no second time among the properties of the fact
	leftOut int    // traits that did not fit
}

func allTraits(p *Payload) shown {
	traits, ok := p.Traits()
	return shown{traits: traits, ok: ok}
}

// roomToTell is what a message needs to say how much was left out.
const roomToTell = 48

// trimmed writes a message that is too large with the traits that fit into limit: those
// that the fact says were changed come before the others. It returns how many were left
// out, and of how many. A message without traits is written as it is.
func trimmed(b []byte, p *Payload, limit int, write func([]byte, *Payload, shown) []byte) (out []byte, leftOut, of int) {
	all := allTraits(p)
	if !all.ok {
		return write(b, p, all), 0, 0
	}
	frame := len(write(b, p, shown{traits: "{}", ok: true, once: true})) - len(b)
	traits, leftOut, of := fitting(all.traits, changedBy(p), limit-frame-roomToTell)
	return write(b, p, shown{traits: traits, ok: true, once: true, leftOut: leftOut}), leftOut, of
}

func changedBy(p *Payload) []string {
	if p.Fact == nil || p.Fact.Contact == nil {
		return nil
	}
	return p.Fact.Contact.Changed
}

// fitting is the JSON object of those members that fit into so many bytes, in their
// order: the preferred ones are chosen first. It says how many were left out, and of
// how many. One that is too large by itself keeps no later one out.
func fitting(object string, preferred []string, budget int) (kept string, leftOut, of int) {
	type member struct {
		name, value       string
		preferred, chosen bool
	}
	var all []member
	m := document.Members{Text: object}
	for m.Next() {
		all = append(all, member{name: InQuotes(m.Name), value: m.Value, preferred: slices.Contains(preferred, m.Name)})
	}
	choose := func(which bool) {
		for i := range all {
			size := len(all[i].name) + len(`"":,`) + len(all[i].value)
			if all[i].preferred == which && size <= budget {
				budget -= size
				all[i].chosen = true
			}
		}
	}
	choose(true)
	choose(false)
	o := begin(make([]byte, 0, len(object)))
	for i := range all {
		if !all[i].chosen {
			leftOut++
			continue
		}
		o.key(all[i].name)
		o.b = append(o.b, all[i].value...)
	}
	return string(o.end()), leftOut, len(all)
}

// without is a JSON object without one of its members.
func without(object, name string) string {
	o := begin(make([]byte, 0, len(object)))
	m := document.Members{Text: object}
	for m.Next() {
		if m.Name != name {
			o.key(InQuotes(m.Name))
			o.b = append(o.b, m.Value...)
		}
	}
	return string(o.end())
}

// noteTraits is the text for the delivery log; empty when all were sent.
func noteTraits(leftOut, of int, vendor string, limit int) string {
	if leftOut == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d traits were left out: %s takes at most %d bytes", leftOut, of, vendor, limit)
}
