package predicate

import (
	"slices"

	"github.com/hogstream/hogstream/schemas/document"
)

// maxKept is how long the JSON of a value may be to be looked at; of a longer one it is
// only known that it is there.
const maxKept = 4 << 10

// tooLong stands for such a value: it exists, and equals and compares with nothing.
const tooLong = "{}"

// paths are the properties that somebody looks at. A document is read once for all.
type paths struct {
	list []Path
}

// slot is the place of a path, added when it is new.
func (p *paths) slot(path Path) int {
	for i, known := range p.list {
		if slices.Equal(known, path) {
			return i
		}
	}
	p.list = append(p.list, path)
	return len(p.list) - 1
}

// read gives the JSON of each path in a document, "" where there is none. Of a repeated
// name the last counts, as for every reader of JSON.
func (p *paths) read(doc string, out []string) {
	clear(out)
	p.readLevel(doc, 0, out, nil)
}

// readLevel reads the members of an object at a depth; way are the names that led there.
func (p *paths) readLevel(doc string, depth int, out []string, way Path) {
	m := document.Members{Text: doc}
	for m.NextName() {
		if !p.wants(m.Name, depth, way) {
			m.SkipValue()
			continue
		}
		start := m.At
		if m.SkipValue(); m.Err != nil {
			return
		}
		p.take(m.Name, doc[start:m.At], depth, out, way)
	}
}

func (p *paths) wants(name string, depth int, way Path) bool {
	for _, path := range p.list {
		if len(path) > depth && path[depth] == name && slices.Equal(path[:depth], way) {
			return true
		}
	}
	return false
}

// take keeps a value for those that end here, and reads on for those that lead deeper.
func (p *paths) take(name, raw string, depth int, out []string, way Path) {
	deeper := false
	for i, path := range p.list {
		if len(path) <= depth || path[depth] != name || !slices.Equal(path[:depth], way) {
			continue
		}
		out[i] = ""
		if len(path) == depth+1 {
			out[i] = kept(raw)
		} else {
			deeper = true
		}
	}
	if deeper && raw[0] == '{' {
		p.readLevel(raw, depth+1, out, append(slices.Clone(way), name))
	}
}

// kept is the value as it is remembered, without whitespace.
func kept(raw string) string {
	if len(raw) > maxKept {
		return tooLong
	}
	return document.Compact(raw)
}
