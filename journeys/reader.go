package journeys

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/definition/node"
	"github.com/hogstream/hogstream/predicate"
)

// reader reads one journey and remembers where its parts stand.
type reader struct {
	node.Reader
	places map[string]ast.Node // by path
	depth  int                 // of the steps in hand
}

// FromNode reads a journey from a part of a YAML file that was parsed already; path is where
// in the file it stands, empty for the whole. The error is [predicate.Faults], with all that
// is wrong; the journey has its id then, as far as it could be read.
func FromNode(file, path string, at ast.Node) (Journey, error) {
	j, _, err := Read(file, path, at)
	return j, err
}

// Read is FromNode, and says where the parts of the journey stand, by their paths.
func Read(file, path string, at ast.Node) (Journey, map[string]ast.Node, error) {
	r, j := readWhole(file, path, at)
	if len(r.Faults) == 0 && j.Coded {
		r.Fault(r.places[join(path, codedField)], join(path, codedField), "is for journeys that are built in Go: leave it out, and write steps")
	}
	if len(r.Faults) == 0 {
		r.check(at, path, j.problems())
	}
	if len(r.Faults) > 0 {
		return Journey{File: file, ID: j.ID}, r.places, r.Faults.Sorted()
	}
	return j, r.places, nil
}

func readWhole(file, path string, at ast.Node) (*reader, Journey) {
	r := &reader{Reader: node.Reader{File: file}, places: map[string]ast.Node{}}
	j := Journey{File: file}
	readMap(r, at, path, "a journey with id, name, enabled, trigger, steps", journeyFields(), &j)
	return r, j
}

// ParseYAML reads a journey from the text of a YAML file, or of JSON, which is YAML. Errors
// as [FromNode].
func ParseYAML(file string, text []byte) (Journey, error) {
	document, err := oneDocument(file, text)
	if err != nil {
		return Journey{}, err
	}
	return FromNode(file, "", document)
}

func oneDocument(file string, text []byte) (ast.Node, error) {
	documents, err := predicate.Documents(file, text)
	if err == nil && len(documents) != 1 {
		err = predicate.Faults{{File: file, Line: 1, Column: 1, Message: fmt.Sprintf("holds %d documents: write one journey", len(documents))}}
	}
	if err != nil {
		return nil, err
	}
	return documents[0], nil
}

// UnmarshalJSON reads what MarshalJSON writes. Unlike [ParseYAML] it takes a journey of which
// parts do not fit together, which [Journey.Check] says: what was stored can be read.
func (j *Journey) UnmarshalJSON(text []byte) error {
	document, err := oneDocument("", text)
	if err != nil {
		return err
	}
	r, read := readWhole("", "", document)
	if len(r.Faults) > 0 {
		return r.Faults.Sorted()
	}
	*j = read
	return nil
}

// MarshalJSON writes the canonical form.
func (j Journey) MarshalJSON() ([]byte, error) { return []byte(j.Canonical()), nil }

// Canonical is the one JSON text of the journey: keys sorted, defaults left out. Two that
// say the same have the same text.
func (j Journey) Canonical() string { return canonicalText(writeMap(&j, journeyFields())) }

var _ json.Marshaler = Journey{}

// check notes what is wrong at the places of values, or at what stands around them.
func (r *reader) check(top ast.Node, path string, problems []problem) {
	for _, p := range problems {
		where := join(path, p.path)
		place := top
		for at := where; at != ""; at = at[:max(0, strings.LastIndexAny(at, ".["))] {
			if r.places[at] != nil {
				place = r.places[at]
				break
			}
		}
		r.Fault(place, where, "%s", p.message)
	}
}

// field is one key of a map. Reader, canonical form and JSON Schema are made from tables of
// them.
type field[T any] struct {
	name     string
	doc      string
	required bool
	schema   map[string]any
	read     func(r *reader, at ast.Node, path string, v *T)
	write    func(v *T) any // nil: is left out
}

func namesOf[T any](fields []field[T]) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.name
	}
	return out
}

// readMap reads a map whose keys are fields. It is false for what is no map.
func readMap[T any](r *reader, at ast.Node, path, what string, fields []field[T], v *T) bool {
	pairs, ok := node.Pairs(at)
	if !ok {
		r.Fault(at, path, "is %s: write %s", node.Describe(at), what)
		return false
	}
	seen := map[string]bool{}
	for _, pair := range pairs {
		name, ok := r.Key(pair, path)
		if !ok {
			continue
		}
		inner := join(path, name)
		i := slices.IndexFunc(fields, func(f field[T]) bool { return f.name == name })
		switch {
		case i < 0:
			r.Fault(pair.Key, inner, "%s", predicate.NotKnown(name, namesOf(fields)))
		case seen[name]:
			r.Fault(pair.Key, inner, "stands twice: write it once")
		default:
			r.places[inner] = pair.Value
			fields[i].read(r, pair.Value, inner, v)
		}
		seen[name] = true
	}
	for _, f := range fields {
		if f.required && !seen[f.name] {
			r.Fault(at, join(path, f.name), "is missing: write %s", what)
		}
	}
	return true
}

func writeMap[T any](v *T, fields []field[T]) map[string]any {
	out := map[string]any{}
	for _, f := range fields {
		if written := f.write(v); written != nil {
			out[f.name] = written
		}
	}
	return out
}

// readList reads a list, or what may stand instead of a list of one.
func readList[T any](r *reader, at ast.Node, path string, alone bool, read func(at ast.Node, path string) T) []T {
	list, many := at.(*ast.SequenceNode)
	if !many {
		if alone {
			r.places[index(path, 0)] = at
			return []T{read(at, index(path, 0))}
		}
		r.Fault(at, path, "is %s: write a list", node.Describe(at))
		return nil
	}
	if len(list.Values) == 0 {
		r.Fault(at, path, "is empty: write at least one, or leave it out")
	}
	var out []T
	for i, item := range list.Values {
		inner := index(path, i)
		r.places[inner] = item
		out = append(out, read(item, inner))
	}
	return out
}
