package definition

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/definition/node"
	"github.com/hogstream/hogstream/predicate"
)

// reader reads one document of a file and notes what is wrong with it.
type reader struct {
	node.Reader
	top   ast.Node
	nodes map[string]ast.Node // values by path

	refused map[string]string // keys that have another place, and which
	known   knownBuckets      // that a test may name
}

func newReader(file string) *reader { return &reader{Reader: node.Reader{File: file}} }

// definition reads a document. What has faults is as if it were not there.
func (r *reader) definition(k *kind, document ast.Node) Definition {
	r.begin(document)
	r.refused = k.refused
	d, ok := k.read(r, document)
	if !ok {
		return d
	}
	for _, p := range d.check() {
		if !r.hasFault(p.field) {
			r.note(p.field, "%s", p.message)
		}
	}
	r.Faults = r.Faults.Sorted()
	return d.defaulted()
}

func (r *reader) begin(document ast.Node) { r.top, r.nodes = document, map[string]ast.Node{} }

// object reads a map as its table says; what says what it is, for people. It is false for
// what is no map.
func object[T any](r *reader, at ast.Node, path, what string, t table[T], into *T) bool {
	pairs, ok := node.Pairs(at)
	if !ok {
		r.Fault(at, path, "is %s: write %s, with %s", node.Describe(at), what, strings.Join(t.leading(), ", "))
		return false
	}
	for _, pair := range pairs {
		member(r, pair, path, t, into)
	}
	for _, name := range t.required() {
		if r.nodes[under(path, name)] == nil {
			r.Fault(at, under(path, name), "is missing: %s has %s", what, strings.Join(t.required(), ", "))
		}
	}
	return true
}

// member reads one key of a map.
func member[T any](r *reader, pair *ast.MappingValueNode, path string, t table[T], into *T) {
	key, ok := r.Key(pair, path)
	if !ok {
		return
	}
	at := under(path, key)
	if fix, refused := r.refused[key]; refused {
		r.Fault(pair.Key, at, "%s", fix)
		return
	}
	for _, f := range t {
		if f.name == key {
			r.nodes[at] = pair.Value
			f.read(r, pair.Value, at, into)
			return
		}
	}
	r.Fault(pair.Key, at, "%s", predicate.NotKnown(key, t.names()))
}

// under is the path of a key of a map.
func under(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// note notes what is wrong with a value that was read.
func (r *reader) note(path, format string, args ...any) {
	r.Fault(r.at(path), path, format, args...)
}

// hasFault says whether a key, or what stands within it, has a fault already.
func (r *reader) hasFault(path string) bool {
	key := func(path string) string {
		if end := strings.IndexAny(path, ".["); end >= 0 {
			return path[:end]
		}
		return path
	}
	return slices.ContainsFunc(r.Faults, func(f predicate.Fault) bool { return key(f.Path) == key(path) })
}

// at is the value at a path, or the nearest around it that was read.
func (r *reader) at(path string) ast.Node {
	for path != "" {
		if value := r.nodes[path]; value != nil {
			return value
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return r.top
}

func (r *reader) position(path string) (line, column int) { return node.Position(r.at(path)) }

// place is where a value stands, as in a fault.
func (r *reader) place(path string) string {
	line, column := r.position(path)
	return fmt.Sprintf("%s:%d:%d", r.File, line, column)
}

// dwell reads [{after: 7d}, {every: 1d}].
func (r *reader) dwell(at ast.Node, path string) []Dwell {
	list, ok := at.(*ast.SequenceNode)
	if !ok {
		r.Fault(at, path, "is %s: write a list such as [{after: 7d}, {every: 1d}]", node.Describe(at))
		return nil
	}
	out := make([]Dwell, len(list.Values))
	for i, item := range list.Values {
		path := fmt.Sprintf("%s[%d]", path, i)
		r.nodes[path] = item
		pairs, ok := node.Pairs(item)
		if !ok {
			r.Fault(item, path, "is %s: write {after: 7d} or {every: 1d}", node.Describe(item))
		}
		for _, pair := range pairs {
			r.dwellMember(pair, path, &out[i])
		}
	}
	return out
}

func (r *reader) dwellMember(pair *ast.MappingValueNode, path string, d *Dwell) {
	name := pair.Key.String()
	if key, plain := pair.Key.(*ast.StringNode); plain {
		name = key.Value
	}
	path += "." + name
	r.nodes[path] = pair.Value
	switch name {
	case "after":
		d.After = r.Duration(pair.Value, path)
	case "every":
		d.Every = r.Duration(pair.Value, path)
	default:
		r.Fault(pair.Key, path, "%s", predicate.NotKnown(name, []string{"after", "every"}))
	}
}
