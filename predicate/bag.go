package predicate

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hogstream/hogstream/schemas/document"
)

// maxKept is how long the JSON of a value may be to be looked at; of a longer one it is
// only known that it is there.
const maxKept = 4 << 10

// tooLong stands for such a value: it exists, and equals and compares with nothing.
const tooLong = "{}"

// paths are the properties that somebody looks at, each with a slot. A document is read
// once for all of them.
type paths struct {
	root pathNode
	n    int
}

// pathNode is what is looked at below a name.
type pathNode struct {
	slot     int // 0: the value itself is not looked at; slots begin at 1 here
	children map[string]*pathNode
}

// slot is the place of a path, from 0, given when it is new.
func (p *paths) slot(path Path) int {
	at := &p.root
	for _, name := range path {
		next := at.children[name]
		if next == nil {
			next = &pathNode{}
			if at.children == nil {
				at.children = map[string]*pathNode{}
			}
			at.children[name] = next
		}
		at = next
	}
	if at.slot == 0 {
		p.n++
		at.slot = p.n
	}
	return at.slot - 1
}

// found is a value at a slot, "" for none.
type found struct {
	slot int
	raw  string
}

// reading is what a document has of some paths. Of several values at one slot the last
// counts, as for every reader of JSON.
type reading []found

// at is the JSON at a slot, "" for none.
func (r reading) at(slot int) string {
	for i := len(r) - 1; i >= 0; i-- {
		if r[i].slot == slot {
			return r[i].raw
		}
	}
	return ""
}

// read appends what a document has of the paths.
func (n *pathNode) read(doc string, out reading) reading {
	m := document.Members{Text: doc}
	for m.NextName() {
		child, start := n.children[m.Name], m.At
		if m.SkipValue(); m.Err != nil {
			return out
		}
		if child != nil {
			out = child.take(doc[start:m.At], out)
		}
	}
	return out
}

func (n *pathNode) take(raw string, out reading) reading {
	if n.slot > 0 {
		out = append(out, found{n.slot - 1, kept(raw)})
	}
	if out = n.forget(out); len(n.children) > 0 && raw[0] == '{' {
		out = n.read(raw, out)
	}
	return out
}

// forget says that nothing is below, whatever stood under the same name before.
func (n *pathNode) forget(out reading) reading {
	for _, child := range n.children {
		if child.slot > 0 {
			out = append(out, found{child.slot - 1, ""})
		}
		out = child.forget(out)
	}
	return out
}

// kept is the value as it is remembered, without whitespace.
func kept(raw string) string {
	switch {
	case len(raw) > maxKept:
		return tooLong
	case raw[0] == '{' || raw[0] == '[':
		return document.Compact(raw)
	}
	return raw
}

// properties are the contact's that somebody looks at, by id.
func (s *Set) properties(doc string, out []property) []property {
	var few [16]found
	for _, f := range s.contact.root.read(doc, few[:0]) {
		id := s.contactIDs[f.slot]
		at, known := slices.BinarySearchFunc(out, id, func(p property, id uint64) int { return cmp.Compare(p.id, id) })
		switch {
		case known && f.raw == "":
			out = slices.Delete(out, at, at+1)
		case known:
			out[at].raw = f.raw
		case f.raw != "":
			out = slices.Insert(out, at, property{id, f.raw})
		}
	}
	return out
}

// replaceProperties puts those of a contact in the place of what was known, and appends to
// touched who looks at one that is another now.
func (s *Set) replaceProperties(state *State, now []property, touched []int) []int {
	before := state.properties
	if slices.Equal(before, now) {
		return touched
	}
	state.properties = make([]property, 0, len(now))
	for len(before)+len(now) > 0 {
		switch {
		case len(now) == 0 || len(before) > 0 && before[0].id < now[0].id: // gone
			touched = append(touched, s.readers[before[0].id]...)
			before = before[1:]
		case len(before) > 0 && before[0] == now[0]:
			state.properties = append(state.properties, before[0])
			before, now = before[1:], now[1:]
		default: // new, or another value
			if len(before) > 0 && before[0].id == now[0].id {
				before = before[1:]
			}
			touched = append(touched, s.readers[now[0].id]...)
			state.properties = append(state.properties, property{now[0].id, strings.Clone(now[0].raw)})
			now = now[1:]
		}
	}
	return touched
}
