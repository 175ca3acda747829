package journeys

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/definition/node"
	"github.com/hogstream/hogstream/predicate"
)

// Value is what a step says: JSON, of which parts may be looked up when the step is
// performed. It is immutable; its zero value is null.
type Value struct {
	json    string // a scalar
	source  string // of what is looked up
	path    predicate.Path
	step    string // of sourceStep
	list    []Value
	isList  bool
	members []member
	isMap   bool
}

type member struct {
	name  string
	value Value
}

// What values may be looked up in.
const (
	sourceRun     = "run"     // id, key, journey, entry
	sourceTrigger = "trigger" // properties of the record that began the run
	sourceLast    = "last"    // of the record that ended the last WaitFor
	sourceContact = "contact" // properties of the contact, as they are now
	sourceStep    = "step"    // the answer of a call
	// literal has its value be taken as it stands, when it looks like a source.
	literal = "literal"
)

func sources() []string {
	return []string{sourceRun, sourceTrigger, sourceLast, sourceContact, sourceStep}
}

func runFields() []string { return []string{"id", "key", "journey", "entry"} }

// Literal is a value that is known: what encoding/json makes of v. It panics when that is
// nothing, for it is written by a programmer.
func Literal(v any) Value {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("journeys: a value that is no JSON: %v", err))
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		panic(fmt.Sprintf("journeys: a value that is no JSON: %v", err))
	}
	return plainValue(plain)
}

func plainValue(v any) Value {
	switch v := v.(type) {
	case map[string]any:
		out := Value{isMap: true}
		for name, inner := range v {
			out.members = append(out.members, member{name, plainValue(inner)})
		}
		slices.SortFunc(out.members, func(a, b member) int { return strings.Compare(a.name, b.name) })
		return out
	case []any:
		out := Value{isList: true}
		for _, inner := range v {
			out.list = append(out.list, plainValue(inner))
		}
		return out
	}
	return Value{json: canonicalText(v)}
}

// RunKey is the key of the run.
func RunKey() Value { return Value{source: sourceRun, path: predicate.Path{"key"}} }

// FromTrigger is a property of the record that began the run.
func FromTrigger(name string, nested ...string) Value {
	return Value{source: sourceTrigger, path: append(predicate.Path{name}, nested...)}
}

// FromLast is a property of the record that ended the last WaitFor.
func FromLast(name string, nested ...string) Value {
	return Value{source: sourceLast, path: append(predicate.Path{name}, nested...)}
}

// FromContact is a property of the contact.
func FromContact(name string, nested ...string) Value {
	return Value{source: sourceContact, path: append(predicate.Path{name}, nested...)}
}

// FromStep is a part of the answer that a call got.
func FromStep(step, name string, nested ...string) Value {
	return Value{source: sourceStep, step: step, path: append(predicate.Path{name}, nested...)}
}

// Object is an object of values; those that are missing when it is made are left out.
func Object(members map[string]Value) Value {
	out := Value{isMap: true}
	for name, v := range members {
		out.members = append(out.members, member{name, v})
	}
	slices.SortFunc(out.members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return out
}

// walk visits all that is looked up.
func (v *Value) walk(visit func(v *Value)) {
	if v == nil {
		return
	}
	if v.source != "" {
		visit(v)
	}
	for i := range v.list {
		v.list[i].walk(visit)
	}
	for i := range v.members {
		v.members[i].value.walk(visit)
	}
}

// render is the JSON of the value; find is the JSON of what is looked up, "" for nothing.
// Members that are nothing are left out, elsewhere nothing is null.
func (v *Value) render(find func(v *Value) string) string {
	switch {
	case v == nil:
		return "{}"
	case v.source != "":
		return find(v)
	case v.isList:
		parts := make([]string, len(v.list))
		for i := range v.list {
			parts[i] = orNull(v.list[i].render(find))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case v.isMap:
		var parts []string
		for i := range v.members {
			if text := v.members[i].value.render(find); text != "" {
				parts = append(parts, canonicalText(v.members[i].name)+":"+text)
			}
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	return orNull(v.json)
}

func orNull(text string) string {
	if text == "" {
		return "null"
	}
	return text
}

// object is the value as it is written.
func (v *Value) object() any {
	switch {
	case v == nil:
		return nil
	case v.source == sourceStep:
		return map[string]any{sourceStep: v.step, "path": writePath(v.path)}
	case v.source != "":
		return map[string]any{v.source: writePath(v.path)}
	case v.isList:
		out := make([]any, len(v.list))
		for i := range v.list {
			out[i] = v.list[i].object()
		}
		return out
	case v.isMap:
		out := v.written()
		if sourceIn(sortedNames(out)) != "" {
			return map[string]any{literal: out}
		}
		return out
	}
	return json.RawMessage(orNull(v.json))
}

// written is an object as it is written where nothing but an object stands.
func (v *Value) written() map[string]any {
	out := map[string]any{}
	for i := range v.members {
		out[v.members[i].name] = v.members[i].value.object()
	}
	return out
}

func writePath(p predicate.Path) any {
	if len(p) == 1 {
		return p[0]
	}
	return []string(p)
}

// readValue reads JSON with parts that are looked up.
func readValue(r *reader, at ast.Node, path string, depth int) Value {
	if depth > MaxDepth {
		r.Fault(at, path, "nests deeper than %d levels", MaxDepth)
		return Value{}
	}
	switch n := at.(type) {
	case nil, *ast.NullNode:
		return Value{}
	case *ast.BoolNode:
		return plainValue(n.Value)
	case *ast.IntegerNode:
		return plainValue(n.Value)
	case *ast.FloatNode:
		if math.IsInf(n.Value, 0) || math.IsNaN(n.Value) {
			r.Fault(at, path, "is a number beyond what JSON has")
			return Value{}
		}
		return plainValue(n.Value)
	case *ast.StringNode:
		return plainValue(n.Value)
	case *ast.LiteralNode:
		return plainValue(n.Value.Value)
	case *ast.SequenceNode:
		out := Value{isList: true}
		for i, item := range n.Values {
			out.list = append(out.list, readValue(r, item, index(path, i), depth+1))
		}
		return out
	}
	pairs, ok := node.Pairs(at)
	if !ok {
		r.Fault(at, path, "is %s: write the value itself", node.Describe(at))
		return Value{}
	}
	if source := sourceOf(pairs); source != "" {
		return readSource(r, at, pairs, path, source, depth)
	}
	return readMembers(r, pairs, path, depth)
}

func readMembers(r *reader, pairs []*ast.MappingValueNode, path string, depth int) Value {
	out := Value{isMap: true}
	for _, pair := range pairs {
		name, ok := r.Key(pair, path)
		if !ok {
			continue
		}
		if slices.ContainsFunc(out.members, func(m member) bool { return m.name == name }) {
			r.Fault(pair.Key, join(path, name), "stands twice: write it once")
		}
		out.members = append(out.members, member{name, readValue(r, pair.Value, join(path, name), depth+1)})
	}
	slices.SortFunc(out.members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return out
}

// sourceOf is what a map looks up, or literal; "" for an object, which any map is that has
// more than these keys.
func sourceOf(pairs []*ast.MappingValueNode) string {
	var names []string
	for _, pair := range pairs {
		if key, plain := pair.Key.(*ast.StringNode); plain {
			names = append(names, key.Value)
		}
	}
	if len(names) != len(pairs) {
		return ""
	}
	return sourceIn(names)
}

func sourceIn(names []string) string {
	switch {
	case len(names) == 1 && (slices.Contains(sources(), names[0]) || names[0] == literal):
		return names[0]
	case len(names) == 2 && slices.Contains(names, sourceStep) && slices.Contains(names, "path"):
		return sourceStep
	}
	return ""
}

// readSource reads {trigger: path}, {step: id, path: path} or {literal: …}.
func readSource(r *reader, at ast.Node, pairs []*ast.MappingValueNode, path, source string, depth int) Value {
	v := Value{source: source}
	faults := len(r.Faults)
	for _, pair := range pairs {
		name := pair.Key.(*ast.StringNode).Value // as sourceOf says
		inner := join(path, name)
		members, isMap := node.Pairs(pair.Value)
		switch {
		case name == literal && isMap:
			v = readMembers(r, members, inner, depth)
		case name == literal:
			v = readValue(r, pair.Value, inner, depth+1)
		case name == sourceStep:
			v.step = r.Text(pair.Value, inner)
		default:
			v.path = readPath(r, pair.Value, inner)
		}
	}
	switch {
	case len(r.Faults) > faults:
		r.Fault(at, path, "{%s: …} looks something up: of an object that has such a property, write {literal: {…}}", source)
	case source == sourceStep && v.path == nil:
		r.Fault(at, path, "path is missing: write {step: id, path: property}")
	case source == sourceRun && len(v.path) == 1:
		if wrong := predicate.NotKnown(v.path[0], runFields()); wrong != "" {
			r.Fault(at, join(path, source), "%s", wrong)
		}
	case source == sourceRun:
		r.Fault(at, join(path, source), "use one of %s", strings.Join(runFields(), ", "))
	}
	return v
}

// readPath reads the name of a property, or the names on the way to a nested one.
func readPath(r *reader, at ast.Node, path string) predicate.Path {
	list, many := at.(*ast.SequenceNode)
	if !many {
		if text := r.Text(at, path); text != "" {
			return predicate.Path{text}
		}
		return nil
	}
	var out predicate.Path
	for i, item := range list.Values {
		out = append(out, r.Text(item, index(path, i)))
	}
	if len(out) == 0 {
		r.Fault(at, path, "is empty: write the name of a property")
	}
	return out
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func join(path, name string) string {
	if path == "" || name == "" || name[0] == '[' {
		return path + name
	}
	return path + "." + name
}
