package definition

import (
	"slices"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/schemas"
)

// writtenTest is a file of tests as it is written.
type writtenTest struct {
	buckets []string
	given   writtenGiven
	cases   []writtenCase
}

type writtenGiven struct {
	at    writtenMoment
	steps []writtenStep
}

type writtenCase struct {
	node  ast.Node
	path  string
	name  string
	steps []writtenStep
}

type writtenStep struct {
	node    ast.Node
	path    string
	contact string
	at      writtenMoment
	after   time.Duration

	event             string
	properties        string
	contactProperties string
	identify          TestChange
	late, every       time.Duration
	times             int

	merge, delete, add, remove string
	until                      writtenMoment
	advance                    time.Duration
	expect                     writtenExpectation
}

type writtenExpectation struct {
	members, not []string
	facts        []writtenFact
}

type writtenFact struct {
	typ, bucket, reason, source string
	at                          writtenMoment
}

// testFields is what a file of tests may say.
func testFields() table[writtenTest] {
	return table[writtenTest]{
		{"buckets", "The buckets whose facts count in this file; all when not given.", false, bucketsSchema(),
			func(r *reader, at ast.Node, path string, t *writtenTest) { t.buckets = r.buckets(at, path) }},
		{"given", "What is so before each case.", false, givenFields().schema(),
			func(r *reader, at ast.Node, path string, t *writtenTest) {
				object(r, at, path, "what is given", givenFields(), &t.given)
			}},
		{"cases", "What happens, and what is expected.", true, listSchema(caseFields().schema()),
			func(r *reader, at ast.Node, path string, t *writtenTest) {
				t.cases = list(r, at, path, (*reader).testCase)
			}},
	}
}

func givenFields() table[writtenGiven] {
	return table[writtenGiven]{
		{"at", "The time at which each case begins; 2026-01-01T00:00:00Z when not given.", false, momentSchema(),
			func(r *reader, at ast.Node, path string, g *writtenGiven) { g.at = r.moment(at, path) }},
		{"steps", "What happens before the steps of each case.", false, stepsSchema(),
			func(r *reader, at ast.Node, path string, g *writtenGiven) {
				g.steps = list(r, at, path, (*reader).step)
			}},
	}
}

func caseFields() table[writtenCase] {
	return table[writtenCase]{
		{"name", "What the case is about.", true, textSchema(),
			func(r *reader, at ast.Node, path string, c *writtenCase) { c.name = r.Text(at, path) }},
		{"steps", "What happens and is expected, in this order.", true, stepsSchema(),
			func(r *reader, at ast.Node, path string, c *writtenCase) { c.steps = list(r, at, path, (*reader).step) }},
	}
}

// stepFields is what a step may say; which goes with which, stepForms.
func stepFields() table[writtenStep] {
	return table[writtenStep]{
		textField("event", "An event of this name.", func(s *writtenStep) *string { return &s.event }),
		{"properties", "Those of the event; without an event a patch of the contact's, where null removes one.", false, objectSchema(),
			func(r *reader, at ast.Node, path string, s *writtenStep) { s.properties = r.json(at, path) }},
		{"contactProperties", "A patch of the contact's properties that comes with the event.", false, objectSchema(),
			func(r *reader, at ast.Node, path string, s *writtenStep) { s.contactProperties = r.json(at, path) }},
		{"identify", "What the contact is known by from now on.", false, identifyFields().schema(),
			func(r *reader, at ast.Node, path string, s *writtenStep) {
				object(r, at, path, "identifiers", identifyFields(), &s.identify)
			}},
		{"late", "How long after it happened the event is received.", false, durationSchema(),
			func(r *reader, at ast.Node, path string, s *writtenStep) { s.late = r.Duration(at, path) }},
		{"times", "How often the event comes.", false, map[string]any{"type": "integer", "minimum": 1, "maximum": maxTimes},
			func(r *reader, at ast.Node, path string, s *writtenStep) { s.times = r.count(at, path) }},
		{"every", "How long after each other the events come; at once when not given.", false, durationSchema(),
			func(r *reader, at ast.Node, path string, s *writtenStep) { s.every = r.Duration(at, path) }},
		textField("merge", "The contact that is merged into the one of the step.", func(s *writtenStep) *string { return &s.merge }),
		textField("delete", "The contact that is erased.", func(s *writtenStep) *string { return &s.delete }),
		bucketField("add", "The manual bucket that the contact is put into.", func(s *writtenStep) *string { return &s.add }),
		{"until", "When the membership expires.", false, momentSchema(),
			func(r *reader, at ast.Node, path string, s *writtenStep) { s.until = r.moment(at, path) }},
		bucketField("remove", "The manual bucket that the contact is taken out of.", func(s *writtenStep) *string { return &s.remove }),
		{"expect", "What has to be true of the contact.", false, expectFields().schema(),
			func(r *reader, at ast.Node, path string, s *writtenStep) {
				if object(r, at, path, "what is expected", expectFields(), &s.expect) && len(r.written(path, expectFields().names())) == 0 && !r.faultWithin(path) {
					r.Fault(at, path, "expects nothing: write members, not or facts")
				}
			}},
		{"advance", "Time passes, as long as this.", false, durationSchema(),
			func(r *reader, at ast.Node, path string, s *writtenStep) { s.advance = r.Duration(at, path) }},
		{"at", "The time of the step: an instant, a date (UTC), or how long after the case began. By itself, time passes until then.", false, momentSchema(),
			func(r *reader, at ast.Node, path string, s *writtenStep) { s.at = r.moment(at, path) }},
		{"after", "How long after the step before.", false, durationSchema(),
			func(r *reader, at ast.Node, path string, s *writtenStep) { s.after = r.Duration(at, path) }},
		textField("contact", "Whom the step is about, by any name; "+someone+" when not given.", func(s *writtenStep) *string { return &s.contact }),
	}
}

// someone is the contact of a step that names none.
const someone = "someone"

// maxTimes is how often an event may come in one step.
const maxTimes = 10_000

// stepForm is what a step does, and what may stand beside that.
type stepForm struct {
	does string
	with []string
}

// timing are the keys that say when a step is, and contact whose.
var timing = []string{"at", "after"}

// stepForms are tried in this order: the first whose key is written is what the step does.
var stepForms = []stepForm{
	{"event", append([]string{"properties", "contactProperties", "identify", "late", "times", "every", "contact"}, timing...)},
	{"merge", append([]string{"contact"}, timing...)},
	{"delete", timing},
	{"add", append([]string{"until", "contact"}, timing...)},
	{"remove", append([]string{"contact"}, timing...)},
	{"expect", append([]string{"contact"}, timing...)},
	{"properties", append([]string{"identify", "contact"}, timing...)},
	{"identify", append([]string{"contact"}, timing...)},
	{"advance", nil},
	{"at", nil},
}

func formNames() []string {
	names := make([]string, len(stepForms))
	for i, f := range stepForms {
		names[i] = f.does
	}
	return names
}

func identifyFields() table[TestChange] {
	return table[TestChange]{
		textField("userId", "A user id.", func(c *TestChange) *string { return &c.UserID }),
		textField("email", "An email address.", func(c *TestChange) *string { return &c.Email }),
		textField("anonymousId", "An anonymous id.", func(c *TestChange) *string { return &c.AnonymousID }),
	}
}

func expectFields() table[writtenExpectation] {
	return table[writtenExpectation]{
		{"members", "Buckets that the contact is a member of.", false, bucketsSchema(),
			func(r *reader, at ast.Node, path string, e *writtenExpectation) { e.members = r.buckets(at, path) }},
		{"not", "Buckets that the contact is no member of.", false, bucketsSchema(),
			func(r *reader, at ast.Node, path string, e *writtenExpectation) { e.not = r.buckets(at, path) }},
		{"facts", "All facts that were told of the contact since they were expected last, in this order.", false, listSchema(factSchema()),
			func(r *reader, at ast.Node, path string, e *writtenExpectation) {
				e.facts = append([]writtenFact{}, list(r, at, path, (*reader).fact)...)
			}},
	}
}

func factFields() table[writtenFact] {
	return table[writtenFact]{
		{"type", "Of the fact.", true, map[string]any{"enum": factTypes()},
			func(r *reader, at ast.Node, path string, f *writtenFact) { f.typ = r.Word(at, path, factTypes()) }},
		requiredBucket(bucketField("bucket", "Of the fact.", func(f *writtenFact) *string { return &f.bucket })),
		{"at", "When it became true.", false, momentSchema(),
			func(r *reader, at ast.Node, path string, f *writtenFact) { f.at = r.moment(at, path) }},
		{"reason", "Why the contact left.", false, map[string]any{"enum": leaveReasons()},
			func(r *reader, at ast.Node, path string, f *writtenFact) { f.reason = r.Word(at, path, leaveReasons()) }},
		{"source", "What made it so.", false, map[string]any{"enum": transitionSources()},
			func(r *reader, at ast.Node, path string, f *writtenFact) {
				f.source = r.Word(at, path, transitionSources())
			}},
	}
}

func factTypes() []string {
	return []string{schemas.FactBucketEntered, schemas.FactBucketLeft, schemas.FactBucketDwell}
}

// leaveReasons and transitionSources are those of processor buckets; a filling has no
// part in a test.
func leaveReasons() []string      { return []string{"criteria", "maxDwell", "manual", "merged"} }
func transitionSources() []string { return []string{"event", "reconcile", "manual"} }

func textField[T any](name, doc string, at func(*T) *string) field[T] {
	return field[T]{name, doc, false, textSchema(),
		func(r *reader, value ast.Node, path string, into *T) { *at(into) = r.Text(value, path) }}
}

func bucketField[T any](name, doc string, at func(*T) *string) field[T] {
	return field[T]{name, doc, false, textSchema(),
		func(r *reader, value ast.Node, path string, into *T) { *at(into) = r.bucketID(value, path) }}
}

func requiredBucket[T any](f field[T]) field[T] {
	f.required = true
	return f
}

func objectSchema() map[string]any { return map[string]any{"type": "object"} }

func listSchema(items map[string]any) map[string]any {
	return map[string]any{"type": "array", "items": items}
}

func bucketsSchema() map[string]any { return listSchema(textSchema()) }

func stepsSchema() map[string]any { return listSchema(map[string]any{"$ref": "#/$defs/step"}) }

// momentSchema: an instant, a date, or how long after the case began.
func momentSchema() map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"type": "string", "pattern": `^\d{4}-\d{2}-\d{2}`}, durationSchema()}}
}

func factSchema() map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"type": "string", "pattern": `^bucket\.\w+ .+`}, factFields().schema()}}
}

// stepSchema allows beside each key that says what a step does those that go with it.
func stepSchema() map[string]any {
	out := stepFields().schema()
	var forms []any
	for _, form := range stepForms {
		var others []any
		for _, name := range stepFields().names() {
			if name != form.does && !slices.Contains(form.with, name) {
				others = append(others, map[string]any{"required": []string{name}})
			}
		}
		forms = append(forms, map[string]any{"required": []string{form.does}, "not": map[string]any{"anyOf": others}})
	}
	out["anyOf"] = forms
	return out
}
