package predicate

import (
	"slices"
	"strings"
	"time"
)

// The written language is two tables: fields (a key: how it is read, written and
// described) and forms (a kind of condition: which fields it has, and which words they
// take). Parser, canonical form and JSON Schema are made from them. They are
// functions because their parts refer to each other, and are asked when definitions are loaded,
// never for a record.

// A field is one key of a condition.
type field struct {
	name   string
	doc    string
	schema func(f *form) map[string]any
	read   func(r *reader, f *form, at *tree, path string, e *expr)
	write  func(e *expr) any // nil: not there, or the default
}

// A form is one kind of condition.
type form struct {
	kind     string
	doc      string
	required []string
	optional []string
	words    map[string][]string // by field
}

// Words of check, operator, by and occurrence.
const (
	checkExists      = "exists"
	checkNotExists   = "not_exists"
	checkCount       = "count"
	checkTotal       = "total"
	checkLast        = "last"
	checkFirst       = "first"
	checkFollowed    = "followed"
	checkNotFollowed = "not_followed"

	operatorAnd = "and"
	operatorOr  = "or"

	byAny    = "any"
	byUserID = "userId"
	byEmail  = "email"

	occurAny  = "any"
	occurLast = "last"
)

func numberOperators() []string { return []string{"eq", "gt", "gte", "lt", "lte"} }

func forms() []*form {
	return []*form{
		{kind: kindProperty, doc: "A property of the contact; within where, of the event.",
			required: []string{"property", "operator"}, optional: []string{"value", "ignoreCase", "zone"},
			words: map[string][]string{"operator": propertyOperators.words()}},
		{kind: kindEvent, doc: "What happened: whether, how often, how much in total, or what the newest said.",
			required: []string{"eventName", "check"}, optional: []string{"where", "within", "operator", "value", "of", "ignoreCase", "zone"},
			words: map[string][]string{
				"check":    {checkExists, checkNotExists, checkCount, checkTotal, checkLast},
				"operator": propertyOperators.words(),
			}},
		{kind: kindSeen, doc: "When the contact, or an event of it, was seen first or last.",
			required: []string{"check", "operator", "value"}, optional: []string{"eventName", "where", "zone"},
			words: map[string][]string{"check": {checkFirst, checkLast}, "operator": dateOperators()}},
		{kind: kindSequence, doc: "One event, then another within a time; or the first without the other.",
			required: []string{"first", "then"}, optional: []string{"check", "within", "occurrence", "lookback"},
			words: map[string][]string{"check": {checkFollowed, checkNotFollowed}, "occurrence": {occurAny, occurLast}}},
		{kind: kindBucket, doc: "Membership of another bucket.", required: []string{"bucketId"}},
		{kind: kindIdentified, doc: "Whether we know who it is.", optional: []string{"by"},
			words: map[string][]string{"by": {byAny, byUserID, byEmail}}},
		{kind: kindEmail, doc: "What became of the newest mail of a template; false for all checks when none was sent.",
			required: []string{"templateKey", "check"},
			words:    map[string][]string{"check": {"opened", "clicked", "not_opened", "not_clicked"}}},
		{kind: kindComposite, doc: "All of the conditions, or any of them.", required: []string{"operator", "conditions"},
			words: map[string][]string{"operator": {operatorAnd, operatorOr}}},
		{kind: kindNot, doc: "The complement of a condition.", required: []string{"condition"}},
	}
}

// stepForm is either side of a sequence, which has no type.
func stepForm() *form {
	return &form{kind: kindStep, doc: "An event.", required: []string{"eventName"}, optional: []string{"where"}}
}

func findForm(kind string) *form {
	if kind == kindStep {
		return stepForm()
	}
	all := forms()
	return all[slices.IndexFunc(all, func(f *form) bool { return f.kind == kind })]
}

func kinds() []string {
	var out []string
	for _, f := range forms() {
		out = append(out, f.kind)
	}
	return out
}

func (f *form) names() []string { return slices.Concat(f.required, f.optional) }

func findField(name string) *field {
	all := fields()
	return &all[slices.IndexFunc(all, func(f field) bool { return f.name == name })]
}

func fields() []field {
	return []field{
		{"property", "The name of the property; a list of names is the way to a nested one.", pathSchema,
			func(r *reader, _ *form, at *tree, path string, e *expr) { e.property = r.path(at, path) },
			func(e *expr) any { return writePath(e.property) }},
		{"of", "The property of the event that total adds up, or last looks at.", pathSchema,
			func(r *reader, _ *form, at *tree, path string, e *expr) { e.of = r.path(at, path) },
			func(e *expr) any { return writePath(e.of) }},
		wordField("operator", "How to compare.", func(e *expr) *string { return &e.operator }, ""),
		{"value", "What to compare with.", valueSchema,
			func(r *reader, _ *form, at *tree, path string, e *expr) { e.value = r.value(at, path) },
			func(e *expr) any { return e.value }},
		{"ignoreCase", "Compare text without regard to upper and lower case.", booleanSchema, readIgnoreCase,
			func(e *expr) any { return orNil(e.ignoreCase) }},
		nameField("zone", "The IANA time zone of calendar dates, such as Europe/Berlin; by default the contact's ($timezone, $geoip_time_zone, timezone), else the deployment's.", func(e *expr) *string { return &e.zone }),
		nameField("eventName", "The exact name of the event, or the type of a fact such as email.clicked.", func(e *expr) *string { return &e.eventName }),
		wordField("check", "What to ask.", func(e *expr) *string { return &e.check }, checkFollowed),
		{"where", "Only events whose properties satisfy this: a condition, {property: value}, {property: {operator: value}}; a list is all of them.", whereSchema,
			func(r *reader, _ *form, at *tree, path string, e *expr) { e.where = r.where(at, path) },
			func(e *expr) any { return writeExpr(e.where) }},
		durationField("within", "How long: of an event, the time up to now; of a sequence, from the first to the other.", func(e *expr) *time.Duration { return &e.within }),
		durationField("lookback", "Only first events in the time up to now.", func(e *expr) *time.Duration { return &e.lookback }),
		stepField("first", "The event that comes first.", func(e *expr) **expr { return &e.first }),
		stepField("then", "The event that comes later, or is missing.", func(e *expr) **expr { return &e.then }),
		wordField("occurrence", "Which first events count: any, or the newest alone.", func(e *expr) *string { return &e.occur }, occurAny),
		nameField("bucketId", "The id of the bucket.", func(e *expr) *string { return &e.bucketID }),
		wordField("by", "By what: a user id, an email address, or any of these.", func(e *expr) *string { return &e.by }, byAny),
		nameField("templateKey", "The key of the template.", func(e *expr) *string { return &e.templateKey }),
		{"conditions", "The conditions.", conditionsSchema, readConditions,
			func(e *expr) any {
				if e.kind != kindComposite {
					return nil
				}
				return writeExprs(e.conditions)
			}},
		{"condition", "The condition whose complement is meant.", conditionSchema,
			func(r *reader, _ *form, at *tree, path string, e *expr) {
				e.conditions = []*expr{r.condition(at, path)}
			},
			func(e *expr) any {
				if e.kind != kindNot {
					return nil
				}
				return writeExpr(e.conditions[0])
			}},
	}
}

// wordField takes one of the form's words; byDefault is left out of the canonical form.
func wordField(name, doc string, at func(*expr) *string, byDefault string) field {
	return field{name, doc, wordSchema(name),
		func(r *reader, f *form, t *tree, path string, e *expr) { *at(e) = r.word(t, path, f.words[name]) },
		func(e *expr) any {
			if *at(e) == byDefault {
				return nil
			}
			return orNil(*at(e))
		}}
}

func nameField(name, doc string, at func(*expr) *string) field {
	return field{name, doc, textSchema,
		func(r *reader, _ *form, t *tree, path string, e *expr) { *at(e) = r.nonEmpty(t, path) },
		func(e *expr) any { return orNil(*at(e)) }}
}

func durationField(name, doc string, at func(*expr) *time.Duration) field {
	return field{name, doc, durationSchema,
		func(r *reader, _ *form, t *tree, path string, e *expr) { *at(e) = r.duration(t, path) },
		func(e *expr) any {
			if *at(e) == 0 {
				return nil
			}
			return durationObject(*at(e))
		}}
}

func stepField(name, doc string, at func(*expr) **expr) field {
	return field{name, doc, stepSchema,
		func(r *reader, _ *form, t *tree, path string, e *expr) {
			*at(e) = r.form(stepForm(), t, path)
		},
		func(e *expr) any { return writeExpr(*at(e)) }}
}

func readIgnoreCase(r *reader, _ *form, at *tree, path string, e *expr) {
	if r.expect(at, path, treeBool) {
		e.ignoreCase = at.truth
	}
}

func readConditions(r *reader, _ *form, at *tree, path string, e *expr) {
	if !r.expect(at, path, treeList) {
		return
	}
	for i, item := range at.items {
		e.conditions = append(e.conditions, r.condition(item, index(path, i)))
	}
}

// object is the condition as encoding/json and go-yaml write it.
func (e *expr) object() map[string]any {
	out := map[string]any{}
	if e.kind != kindStep {
		out["type"] = e.kind
	}
	form := findForm(e.kind)
	for _, f := range fields() {
		if !slices.Contains(form.names(), f.name) {
			continue
		}
		if v := f.write(e); v != nil {
			out[f.name] = v
		}
	}
	return out
}

func writeExpr(e *expr) any {
	if e == nil {
		return nil
	}
	return e.object()
}

func writeExprs(list []*expr) any {
	out := make([]any, len(list))
	for i, e := range list {
		out[i] = e.object()
	}
	return out
}

func writePath(p Path) any {
	switch len(p) {
	case 0:
		return nil
	case 1:
		return p[0]
	}
	return []string(p)
}

// orNil is nil for a zero value.
func orNil[T comparable](v T) any {
	if v == *new(T) {
		return nil
	}
	return v
}

// form reads a map whose keys are those of a form.
func (r *reader) form(f *form, at *tree, path string) *expr {
	e := &expr{kind: f.kind, source: at}
	if !r.expect(at, path, treeMap) {
		return e
	}
	for _, m := range at.members {
		switch {
		case m.name == "type" && f.kind != kindStep:
		case slices.Contains(f.names(), m.name):
			findField(m.name).read(r, f, m.value, join(path, m.name), e)
		default:
			r.note(m.line, m.column, join(path, m.name), "%s", oneOf(m.name, f.names()))
		}
	}
	for _, name := range f.required {
		if at.get(name) == nil {
			r.fault(at, path, "%s is missing: a condition of type %s has %s", name, f.kind, strings.Join(f.required, ", "))
		}
	}
	return e
}
