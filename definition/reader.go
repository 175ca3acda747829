package definition

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/predicate"
)

// reader reads one bucket of a file and notes what is wrong with it.
type reader struct {
	file   string // as it is named in faults
	faults predicate.Faults
	top    ast.Node
	nodes  map[string]ast.Node // values by path
}

// bucket reads a document. What has faults is as if it were not there.
func (r *reader) bucket(document ast.Node) Bucket {
	r.top, r.nodes = document, map[string]ast.Node{}
	var b Bucket
	pairs, ok := mapping(document)
	if !ok {
		r.fault(document, "", "is %s: write a bucket, with %s", describe(document), strings.Join(required(), ", "))
		return b
	}
	for _, pair := range pairs {
		r.member(pair, &b)
	}
	for _, name := range required() {
		if r.nodes[name] == nil {
			r.fault(document, name, "is missing: a bucket has %s", strings.Join(required(), ", "))
		}
	}
	for _, p := range b.check() {
		if !r.hasFault(p.field) {
			r.note(p.field, "%s", p.message)
		}
	}
	r.faults = r.faults.Sorted()
	return b.withDefaults()
}

// member reads one key of a bucket.
func (r *reader) member(pair *ast.MappingValueNode, b *Bucket) {
	key, plain := pair.Key.(*ast.StringNode)
	if !plain {
		r.fault(pair.Key, "", "%s is no name of a key", pair.Key.String())
		return
	}
	if fix, refused := refusals[key.Value]; refused {
		r.fault(key, key.Value, "%s", fix)
		return
	}
	names := make([]string, 0, len(fields()))
	for _, f := range fields() {
		if f.name == key.Value {
			r.nodes[f.name] = pair.Value
			f.read(r, pair.Value, f.name, b)
			return
		}
		names = append(names, f.name)
	}
	r.fault(key, key.Value, "%s", predicate.NotKnown(key.Value, names))
}

// fault notes what is wrong at a node.
func (r *reader) fault(at ast.Node, path, format string, args ...any) {
	line, column := position(at)
	r.faults = append(r.faults, predicate.Fault{File: r.file, Line: line, Column: column, Path: path, Message: fmt.Sprintf(format, args...)})
}

// note notes what is wrong with a value that was read.
func (r *reader) note(path, format string, args ...any) {
	r.fault(r.node(path), path, format, args...)
}

// hasFault says whether a key, or what stands within it, has a fault already.
func (r *reader) hasFault(path string) bool {
	key := func(path string) string {
		if end := strings.IndexAny(path, ".["); end >= 0 {
			return path[:end]
		}
		return path
	}
	return slices.ContainsFunc(r.faults, func(f predicate.Fault) bool { return key(f.Path) == key(path) })
}

// node is the value at a path, or the nearest around it that was read.
func (r *reader) node(path string) ast.Node {
	for path != "" {
		if node := r.nodes[path]; node != nil {
			return node
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return r.top
}

func (r *reader) position(path string) (line, column int) { return position(r.node(path)) }

// place is where a value stands, as in a fault.
func (r *reader) place(path string) string {
	line, column := r.position(path)
	return fmt.Sprintf("%s:%d:%d", r.file, line, column)
}

// position is where a node begins; a map does with its first key.
func position(at ast.Node) (line, column int) {
	if pairs, ok := mapping(at); ok && len(pairs) > 0 && at.GetToken().Value == ":" {
		at = pairs[0].Key
	}
	if at != nil && at.GetToken() != nil && at.GetToken().Position != nil {
		return at.GetToken().Position.Line, at.GetToken().Position.Column
	}
	return 1, 1
}

// mapping are the keys of a map.
func mapping(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode: // a map of one key
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// describe says what was written instead of something else.
func describe(node ast.Node) string {
	switch node.(type) {
	case nil, *ast.NullNode:
		return "empty"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a map"
	}
	return strings.ToLower(node.Type().String()) + " of YAML"
}

// text reads a string that is not empty.
func (r *reader) text(at ast.Node, path string) string {
	var text string
	switch n := at.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = strings.TrimRight(n.Value.Value, "\n")
	default:
		r.fault(at, path, "is %s: write text", describe(at))
		return ""
	}
	if text == "" {
		r.fault(at, path, "is empty: write text")
	}
	return text
}

func (r *reader) word(at ast.Node, path string, known []string) string {
	word := r.text(at, path)
	if word != "" && !slices.Contains(known, word) {
		r.fault(at, path, "%s", predicate.NotKnown(word, known))
	}
	return word
}

func (r *reader) boolean(at ast.Node, path string) bool {
	n, ok := at.(*ast.BoolNode)
	if !ok {
		r.fault(at, path, "is %s: write true or false", describe(at))
		return false
	}
	return n.Value
}

// others takes the faults of a part that predicate read.
func (r *reader) others(err error) {
	var faults predicate.Faults
	if errors.As(err, &faults) {
		r.faults = append(r.faults, faults...)
	}
}

// dwell reads [{after: 7d}, {every: 1d}].
func (r *reader) dwell(at ast.Node, path string) []Dwell {
	list, ok := at.(*ast.SequenceNode)
	if !ok {
		r.fault(at, path, "is %s: write a list such as [{after: 7d}, {every: 1d}]", describe(at))
		return nil
	}
	out := make([]Dwell, len(list.Values))
	for i, item := range list.Values {
		path := fmt.Sprintf("%s[%d]", path, i)
		r.nodes[path] = item
		pairs, ok := mapping(item)
		if !ok {
			r.fault(item, path, "is %s: write {after: 7d} or {every: 1d}", describe(item))
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
		d.After = r.duration(pair.Value, path)
	case "every":
		d.Every = r.duration(pair.Value, path)
	default:
		r.fault(pair.Key, path, "%s", predicate.NotKnown(name, []string{"after", "every"}))
	}
}
