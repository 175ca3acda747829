package predicate

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/schemas"
)

// Selector says which records are meant, as it is written in the filter of a destination:
//
//	{event: order.completed, where: {amount: {gt: 100}}, bucket: keen}
//
// or a list of these, of which one must hold. It is immutable and safe for concurrent use;
// its zero value is none. [CompileFilter] makes ready what was written.
type Selector struct{ rules []*rule }

// rule is one form; what is empty is not asked.
type rule struct {
	event     string
	where     *expr
	bucket    string
	notBucket string

	source *tree
}

// ruleFields are the keys of a rule.
var ruleFields = []string{"event", "where", "bucket", "notBucket"}

// IsZero says that nothing was written.
func (s Selector) IsZero() bool { return len(s.rules) == 0 }

// Canonical is the one JSON text of the selector, as that of a condition.
func (s Selector) Canonical() string { return canonicalText(s.object()) }

// MarshalJSON implements json.Marshaler with the canonical form.
func (s Selector) MarshalJSON() ([]byte, error) { return []byte(s.Canonical()), nil }

// MarshalYAML implements the interface of go-yaml with the canonical form.
func (s Selector) MarshalYAML() (any, error) { return s.object(), nil }

// UnmarshalJSON implements json.Unmarshaler; null is none. Errors as [ParseSelectorJSON].
func (s *Selector) UnmarshalJSON(text []byte) error {
	r := &reader{}
	t := r.json(text)
	if len(r.faults) == 0 && t.kind == treeNull {
		*s = Selector{}
		return nil
	}
	read, err := r.selector(t, "")
	if err == nil {
		*s = read
	}
	return err
}

// ParseSelectorYAML reads a selector from the text of a YAML file. The file's name is for the
// faults alone. The error is [Faults], with all that is wrong.
func ParseSelectorYAML(file string, text []byte) (Selector, error) {
	node, err := oneDocument(file, text, "selector")
	if err != nil {
		return Selector{}, err
	}
	return SelectorFromNode(file, "", node)
}

// ParseSelectorJSON reads a selector from JSON text. Errors as [ParseSelectorYAML].
func ParseSelectorJSON(file string, text []byte) (Selector, error) {
	r := &reader{file: file}
	t := r.json(text)
	return r.selector(t, "")
}

// SelectorFromNode reads a selector from a part of a YAML file that was parsed already; path
// is where in the file it stands, such as filter. Errors as [ParseSelectorYAML].
func SelectorFromNode(file, path string, node ast.Node) (Selector, error) {
	r := &reader{file: file}
	return r.selector(r.yaml(node, path, 0), path)
}

// selector reads one rule or a list of them.
func (r *reader) selector(t *tree, path string) (Selector, error) {
	var out Selector
	switch {
	case len(r.faults) > 0:
	case t.kind != treeList:
		out.rules = []*rule{r.rule(t, path)}
	case len(t.items) == 0:
		r.fault(t, path, "can never be true: a list of nothing takes no record")
	default:
		for i, item := range t.items {
			out.rules = append(out.rules, r.rule(item, index(path, i)))
		}
	}
	if len(r.faults) > 0 {
		return Selector{}, r.faults.Sorted()
	}
	return out, nil
}

func (r *reader) rule(at *tree, path string) *rule {
	out := &rule{source: at}
	if !r.expect(at, path, treeMap) {
		return out
	}
	faults := len(r.faults)
	for _, m := range at.members {
		switch inner := join(path, m.name); m.name {
		case "event":
			out.event = r.pattern(m.value, inner)
		case "where":
			out.where = r.where(m.value, inner)
		case "bucket":
			out.bucket = r.nonEmpty(m.value, inner)
		case "notBucket":
			out.notBucket = r.nonEmpty(m.value, inner)
		default:
			r.note(m.line, m.column, inner, "%s", oneOf(m.name, ruleFields))
		}
	}
	if len(r.faults) == faults {
		r.checkRule(out, path)
	}
	if len(r.faults) == faults {
		out.normalise()
	}
	return out
}

// pattern is a name, or how names begin; event.tracked narrows it to product events.
func (r *reader) pattern(at *tree, path string) string {
	text := r.nonEmpty(at, path)
	if i := strings.IndexByte(text, '*'); i >= 0 && i < len(text)-1 {
		r.fault(at, path, "%q has a * before its end: write a name such as order.completed, or how names begin such as order.*", text)
	}
	if text == schemas.TypeEventTracked+":" {
		r.fault(at, path, "%q names no event after the colon: write %s for all product events", text, schemas.TypeEventTracked)
	}
	return text
}

// checkRule looks at what the fields of a rule say together.
func (r *reader) checkRule(u *rule, path string) {
	if u.where != nil {
		c := &checker{file: r.file, path: path, e: &expr{source: u.source}}
		c.filter("where", u.where)
		r.faults = append(append(r.faults, c.faults...), constants(r.file, join(path, "where"), u.where)...)
	}
	switch {
	case u.where != nil:
	case u.event == "" && u.bucket == "" && u.notBucket == "":
		r.fault(u.source, path, "is empty: write one of %s", words(ruleFields))
	case u.event == "*" && u.bucket == "" && u.notBucket == "":
		r.fault(u.source, path, "can never be false: it takes every record")
	}
	if u.bucket != "" && u.bucket == u.notBucket {
		r.fault(u.source, path, "can never be true: nobody is a member of %q and is not", u.bucket)
	}
}

// normalise writes the fact that an alias stands for.
func (u *rule) normalise() {
	if fact, where := resolveAlias(u.event); fact != u.event {
		u.event, u.where = fact, allOf(append(where, u.where))
	}
}

func (s Selector) object() any {
	if s.IsZero() {
		return nil
	}
	list := make([]any, len(s.rules))
	for i, u := range s.rules {
		list[i] = u.object()
	}
	if len(list) == 1 {
		return list[0]
	}
	return list
}

func (u *rule) object() map[string]any {
	out := map[string]any{"event": orNil(u.event), "where": writeExpr(u.where), "bucket": orNil(u.bucket), "notBucket": orNil(u.notBucket)}
	for _, name := range ruleFields {
		if out[name] == nil {
			delete(out, name)
		}
	}
	return out
}

// Properties are those of the records that are looked at, each once.
func (s Selector) Properties() []Path {
	var in Inputs
	for _, u := range s.rules {
		u.where.leaves(false, func(leaf *expr, _ bool) {
			if leaf.kind == kindProperty {
				in.property(leaf.property)
			}
		})
	}
	return in.Properties
}

// buckets are those whose membership is asked for, each once.
func (s Selector) buckets() []string {
	var out []string
	for _, u := range s.rules {
		for _, id := range []string{u.bucket, u.notBucket} {
			if id != "" && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}
