package definition

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/definition/node"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/document"
)

// caseBegins is when a case begins that does not say.
var caseBegins = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// readTest reads a file of tests; display is its name in faults.
func readTest(display, name string, text []byte, known knownBuckets) ([]TestCase, predicate.Faults) {
	documents, err := predicate.Documents(display, text)
	r := newReader(display)
	r.known = known
	r.Take(err)
	if err == nil && len(documents) != 1 {
		r.Faults = append(r.Faults, predicate.Fault{File: display, Line: 1, Column: 1, Message: fmt.Sprintf("holds %d documents: write one, with cases", len(documents))})
	}
	if len(r.Faults) > 0 {
		return nil, r.Faults
	}
	r.begin(documents[0])
	var t writtenTest
	object(r, documents[0], "", "a file of tests", testFields(), &t)
	cases := r.cases(name, &t)
	return cases, r.Faults.Sorted()
}

// cases lays the steps of each case out in time.
func (r *reader) cases(name string, t *writtenTest) []TestCase {
	given := script{reader: r, begins: caseBegins, contacts: map[string]bool{}}
	if t.given.at.written() {
		given.begins = t.given.at.from(caseBegins)
	}
	given.now = given.begins
	given.add(t.given.steps)
	seen := map[string]bool{}
	var out []TestCase
	for _, c := range t.cases {
		if seen[c.name] {
			r.note(c.path+".name", "%q is another case's name too: names are unique in a file", c.name)
		}
		seen[c.name] = c.name != ""
		s := given
		s.contacts, s.steps = maps.Clone(given.contacts), slices.Clip(given.steps)
		s.add(c.steps)
		line, _ := node.Position(c.node)
		out = append(out, TestCase{Name: c.name, File: name, Line: line, Begins: s.begins, Buckets: t.buckets, Steps: s.steps})
	}
	return out
}

// script lays steps out in time.
type script struct {
	*reader
	begins, now time.Time
	contacts    map[string]bool // that a step before named
	steps       []TestStep
}

func (s *script) add(steps []writtenStep) {
	for i := range steps {
		s.step(&steps[i])
	}
}

// step adds what one says, an event as often as it comes.
func (s *script) step(w *writtenStep) {
	form := s.form(w)
	if form == nil {
		return
	}
	s.passTime(w)
	line, column := node.Position(w.node)
	step := TestStep{File: s.File, Line: line, Column: column, At: s.now, Contact: s.contactOf(w, form)}
	switch form.does {
	case "event":
		s.events(w, &step)
		return
	case "properties", "identify":
		change := w.identify
		change.Properties = w.properties
		step.Change = &change
	case "merge":
		step.Merge = w.merge
		s.mustBeKnown(w.path+".merge", w.merge)
		if w.merge == step.Contact {
			s.note(w.path+".merge", "is the contact itself: name the one that is merged into %s", step.Contact)
		}
	case "delete":
		step.Delete = true
		s.mustBeKnown(w.path+".delete", step.Contact)
	case "add":
		step.Add = w.add
		s.mustBeManual(w.path+".add", w.add)
		if step.Until = w.until.from(s.begins); w.until.written() && !step.Until.After(s.now) {
			s.note(w.path+".until", "is not after %s, when the contact is put into it", s.now.Format(time.RFC3339))
		}
	case "remove":
		step.Remove = w.remove
		s.mustBeKnown(w.path+".contact", step.Contact)
		s.mustBeManual(w.path+".remove", w.remove)
	case "expect":
		step.Expect = w.expect.from(s.begins)
		s.mustBeKnown(w.path+".contact", step.Contact)
	}
	if step.Contact != "" {
		s.contacts[step.Contact] = true
	}
	s.steps = append(s.steps, step)
}

// form is what a step does; nil when it does nothing or too much, which is noted.
func (s *script) form(w *writtenStep) *stepForm {
	written := s.written(w.path, stepFields().names())
	for i := range stepForms {
		form := &stepForms[i]
		if !slices.Contains(written, form.does) {
			continue
		}
		for _, name := range written {
			if name != form.does && !slices.Contains(form.with, name) {
				s.Fault(s.nodes[w.path+"."+name], w.path+"."+name, "does not go with %s: write it in a step of its own, or leave it out", form.does)
				return nil
			}
		}
		return form
	}
	if !s.faultWithin(w.path) { // else it was mistyped
		s.Fault(w.node, w.path, "does nothing: write one of %s", strings.Join(formNames(), ", "))
	}
	return nil
}

// faultWithin says whether what stands at a path, or within it, has a fault already.
func (r *reader) faultWithin(path string) bool {
	return slices.ContainsFunc(r.Faults, func(f predicate.Fault) bool {
		return f.Path == path || strings.HasPrefix(f.Path, path+".") || strings.HasPrefix(f.Path, path+"[")
	})
}

// written are the keys among names that a map has.
func (r *reader) written(path string, names []string) (out []string) {
	for _, name := range names {
		if r.nodes[under(path, name)] != nil {
			out = append(out, name)
		}
	}
	return out
}

// passTime moves on to the time of a step.
func (s *script) passTime(w *writtenStep) {
	switch at := w.at.from(s.begins); {
	case w.at.written() && w.after > 0:
		s.note(w.path+".after", "stands beside at: write one of the two")
	case w.at.written() && at.Before(s.now):
		s.note(w.path+".at", "is %s, before the step before, which is at %s: time does not go back; an event that comes late has late", at.Format(time.RFC3339), s.now.Format(time.RFC3339))
	case w.at.written():
		s.now = at
	default:
		s.now = s.now.Add(w.after + w.advance)
	}
	if s.now.Year() > lastYear {
		s.Fault(w.node, w.path, "is after the year %d", lastYear)
		s.now = s.begins
	}
}

// lastYear is the last year of a test: an instant in microseconds has to be one in nanoseconds, too.
const lastYear = 2200

// contactOf is whom a step is about.
func (s *script) contactOf(w *writtenStep, form *stepForm) string {
	switch {
	case form.does == "delete":
		return w.delete
	case !slices.Contains(form.with, "contact"):
		return ""
	case w.contact == "":
		return someone
	}
	return w.contact
}

// events adds an event as often as it comes.
func (s *script) events(w *writtenStep, first *TestStep) {
	if w.event != "" && !IsStored(w.event) || w.event == schemas.TypeEventTracked {
		s.note(w.path+".event", "%s is a fact, which Hogstream tells by itself: name a product event", w.event)
	}
	if w.every > 0 && w.times == 0 {
		s.note(w.path+".every", "has no meaning without times: write how often the event comes")
	}
	change := w.identify
	change.Properties = w.contactProperties
	for i := range max(1, w.times) {
		step := *first
		if i > 0 {
			s.now = s.now.Add(w.every)
		}
		step.At = s.now
		step.Event = &TestEvent{Name: w.event, Properties: w.properties, Late: w.late}
		if step.Event.Properties == "" {
			step.Event.Properties = "{}"
		}
		if change != (TestChange{}) {
			step.Change = &change
		}
		s.steps = append(s.steps, step)
	}
	s.contacts[first.Contact] = true
}

func (s *script) mustBeKnown(path, contact string) {
	if contact == "" || s.contacts[contact] {
		return
	}
	known := slices.Sorted(maps.Keys(s.contacts))
	if len(known) == 0 {
		s.note(path, "contact %q is not known: no step before this one is about a contact", contact)
		return
	}
	s.note(path, "contact %s", predicate.NotKnown(contact, known))
}

func (s *script) mustBeManual(path, id string) {
	if slices.Contains(s.known.ids, id) && !s.known.manual[id] && !s.known.faulty[id] {
		s.note(path, "bucket %q has criteria, which decide who is a member: nobody is put into it by hand", id)
	}
}

func (e *writtenExpectation) from(begins time.Time) *Expectation {
	out := &Expectation{Members: e.members, Not: e.not}
	if e.facts != nil {
		out.Facts = []ExpectedFact{}
	}
	for _, f := range e.facts {
		out.Facts = append(out.Facts, ExpectedFact{Type: f.typ, Bucket: f.bucket, At: f.at.from(begins), Reason: f.reason, Source: f.source})
	}
	return out
}

// writtenMoment is an instant, or a time since the case began; zero is none.
type writtenMoment struct {
	instant time.Time
	since   time.Duration
}

func (m writtenMoment) written() bool { return m != writtenMoment{} }

func (m writtenMoment) from(begins time.Time) time.Time {
	if m.since != 0 {
		return begins.Add(m.since)
	}
	return m.instant
}

func (r *reader) moment(at ast.Node, path string) writtenMoment {
	if text, ok := at.(*ast.StringNode); ok {
		for _, layout := range []string{time.RFC3339, time.DateOnly} {
			if t, err := time.Parse(layout, text.Value); err == nil {
				return r.whole(at, path, t.UTC())
			}
		}
		if strings.Contains(text.Value, "-") {
			r.Fault(at, path, "%q is no time: write an instant such as 2026-01-31T12:00:00Z, a date, or how long after the case began, such as 3d", text.Value)
			return writtenMoment{}
		}
	}
	return writtenMoment{since: r.Duration(at, path)}
}

// whole refuses what no record can have as its time.
func (r *reader) whole(at ast.Node, path string, t time.Time) writtenMoment {
	if t.Year() < 1970 || t.Year() > lastYear || t.Nanosecond()%1000 != 0 {
		r.Fault(at, path, "is no time of whole microseconds between 1970 and %d", lastYear)
		return writtenMoment{}
	}
	return writtenMoment{instant: t}
}

// list reads a list, each item as read says.
func list[T any](r *reader, at ast.Node, path string, read func(r *reader, at ast.Node, path string) T) []T {
	items, ok := at.(*ast.SequenceNode)
	if !ok {
		r.Fault(at, path, "is %s: write a list", node.Describe(at))
		return nil
	}
	out := make([]T, len(items.Values))
	for i, item := range items.Values {
		path := fmt.Sprintf("%s[%d]", path, i)
		r.nodes[path] = item
		out[i] = read(r, item, path)
	}
	return out
}

func (r *reader) testCase(at ast.Node, path string) writtenCase {
	c := writtenCase{node: at, path: path}
	object(r, at, path, "a case", caseFields(), &c)
	return c
}

func (r *reader) step(at ast.Node, path string) writtenStep {
	s := writtenStep{node: at, path: path}
	object(r, at, path, "a step", stepFields(), &s)
	return s
}

// fact reads "bucket.entered keen", or a map.
func (r *reader) fact(at ast.Node, path string) (f writtenFact) {
	text, ok := at.(*ast.StringNode)
	if !ok {
		object(r, at, path, "a fact", factFields(), &f)
		return f
	}
	var bucket string
	f.typ, bucket, _ = strings.Cut(text.Value, " ")
	f.bucket = strings.TrimSpace(bucket)
	if message := predicate.NotKnown(f.typ, factTypes()); message != "" {
		r.Fault(at, path, "%s", message)
	} else if f.bucket == "" {
		r.Fault(at, path, "names no bucket: write %s and its id", f.typ)
	} else {
		r.mustBeBucket(at, path, f.bucket)
	}
	return f
}

func (r *reader) buckets(at ast.Node, path string) []string {
	return list(r, at, path, (*reader).bucketID)
}

func (r *reader) bucketID(at ast.Node, path string) string {
	id := r.Text(at, path)
	if id != "" {
		r.mustBeBucket(at, path, id)
	}
	return id
}

func (r *reader) mustBeBucket(at ast.Node, path, id string) {
	switch {
	case len(r.known.ids) == 0:
		r.Fault(at, path, "%q is not known: no bucket is defined", id)
	case !slices.Contains(r.known.ids, id):
		r.Fault(at, path, "bucket %s", predicate.NotKnown(id, r.known.ids))
	}
}

// count reads how often.
func (r *reader) count(at ast.Node, path string) int {
	n, ok := at.(*ast.IntegerNode)
	if !ok {
		r.Fault(at, path, "is %s: write a whole number", node.Describe(at))
		return 0
	}
	count, ok := n.Value.(uint64)
	if !ok || count < 1 || count > maxTimes {
		r.Fault(at, path, "is %v: write a number from 1 to %d", n.Value, maxTimes)
		return 0
	}
	return int(count)
}

// json reads a map as a JSON object.
func (r *reader) json(at ast.Node, path string) string {
	if _, ok := node.Pairs(at); !ok {
		r.Fault(at, path, "is %s: write a map of properties", node.Describe(at))
		return ""
	}
	value, ok := r.value(at, path, 0)
	if !ok {
		return ""
	}
	text, err := json.Marshal(value)
	if err == nil {
		err = document.Validate(string(text), maxNesting)
	}
	if err != nil {
		r.Fault(at, path, "is no JSON: %v", err)
		return ""
	}
	return string(text)
}

// maxNesting is how deep properties may nest, as in those that are sent.
const maxNesting = document.MaxDepth

// value is what a node says, for JSON; false when it says what JSON cannot.
func (r *reader) value(at ast.Node, path string, depth int) (any, bool) {
	if depth > maxNesting {
		r.Fault(at, path, "nests deeper than %d levels", maxNesting)
		return nil, false
	}
	switch n := at.(type) {
	case nil, *ast.NullNode:
		return nil, true
	case *ast.BoolNode:
		return n.Value, true
	case *ast.IntegerNode:
		return n.Value, true
	case *ast.FloatNode:
		return n.Value, true
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.SequenceNode:
		out := make([]any, len(n.Values))
		for i, item := range n.Values {
			var ok bool
			if out[i], ok = r.value(item, fmt.Sprintf("%s[%d]", path, i), depth+1); !ok {
				return nil, false
			}
		}
		return out, true
	}
	pairs, ok := node.Pairs(at)
	if !ok {
		r.Fault(at, path, "is %s: write the value itself", node.Describe(at))
		return nil, false
	}
	out := make(map[string]any, len(pairs))
	for _, pair := range pairs {
		key, plain := pair.Key.(*ast.StringNode)
		if !plain {
			r.Fault(pair.Key, path, "%s is no name of a property: write it in quotes", pair.Key.String())
			return nil, false
		}
		if out[key.Value], ok = r.value(pair.Value, under(path, key.Value), depth+1); !ok {
			return nil, false
		}
	}
	return out, true
}
