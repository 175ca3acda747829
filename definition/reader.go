package definition

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/definition/node"
	"github.com/hogstream/hogstream/predicate"
)

// reader reads one bucket of a file and notes what is wrong with it.
type reader struct {
	node.Reader
	top   ast.Node
	nodes map[string]ast.Node // values by path
}

// bucket reads a document. What has faults is as if it were not there.
func (r *reader) bucket(document ast.Node) Bucket {
	r.top, r.nodes = document, map[string]ast.Node{}
	var b Bucket
	pairs, ok := node.Pairs(document)
	if !ok {
		r.Fault(document, "", "is %s: write a bucket, with %s", node.Describe(document), strings.Join(required(), ", "))
		return b
	}
	for _, pair := range pairs {
		r.member(pair, &b)
	}
	for _, name := range required() {
		if r.nodes[name] == nil {
			r.Fault(document, name, "is missing: a bucket has %s", strings.Join(required(), ", "))
		}
	}
	for _, p := range b.check() {
		if !r.hasFault(p.field) {
			r.note(p.field, "%s", p.message)
		}
	}
	r.Faults = r.Faults.Sorted()
	return b.withDefaults()
}

// member reads one key of a bucket.
func (r *reader) member(pair *ast.MappingValueNode, b *Bucket) {
	key, ok := r.Key(pair, "")
	if !ok {
		return
	}
	if fix, refused := refusals[key]; refused {
		r.Fault(pair.Key, key, "%s", fix)
		return
	}
	names := make([]string, 0, len(fields()))
	for _, f := range fields() {
		if f.name == key {
			r.nodes[f.name] = pair.Value
			f.read(r, pair.Value, f.name, b)
			return
		}
		names = append(names, f.name)
	}
	r.Fault(pair.Key, key, "%s", predicate.NotKnown(key, names))
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
