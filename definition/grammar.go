package definition

import (
	"maps"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
)

// field is one key of a map in a file, of which a T is made. Reader and JSON Schema are made
// from tables of them.
type field[T any] struct {
	name     string
	doc      string
	required bool
	schema   map[string]any
	read     func(r *reader, at ast.Node, path string, into *T)
}

// table is what a map may say.
type table[T any] []field[T]

func (t table[T]) names() []string {
	names := make([]string, len(t))
	for i, f := range t {
		names[i] = f.name
	}
	return names
}

func (t table[T]) required() []string {
	var names []string
	for _, f := range t {
		if f.required {
			names = append(names, f.name)
		}
	}
	return names
}

// leading are the names to begin with: those that are needed, or all.
func (t table[T]) leading() []string {
	if names := t.required(); len(names) > 0 {
		return names
	}
	return t.names()
}

// fields is what a bucket's file may say.
func fields() table[Bucket] {
	return table[Bucket]{
		{"id", "Unique and stable: it stands in facts and commands.", true, textSchema(),
			func(r *reader, at ast.Node, path string, b *Bucket) { b.ID = r.Text(at, path) }},
		{"name", "What people call it.", true, textSchema(),
			func(r *reader, at ast.Node, path string, b *Bucket) { b.Name = r.Text(at, path) }},
		{"description", "What it is for.", false, textSchema(),
			func(r *reader, at ast.Node, path string, b *Bucket) { b.Description = r.Text(at, path) }},
		{"enabled", "Whether it is evaluated. When it is not, its members stay as they are.", true, booleanSchema(),
			func(r *reader, at ast.Node, path string, b *Bucket) { b.Enabled = r.Boolean(at, path) }},
		wordField("kind", "dynamic: the criteria decide who is a member; manual: somebody does.", bucketKinds(),
			func(b *Bucket) *string { return &b.Kind }),
		{"criteria", "Who is a member.", false, map[string]any{"$ref": "#/$defs/condition"},
			func(r *reader, at ast.Node, path string, b *Bucket) { b.Criteria = r.condition(at, path) }},
		wordField("entryLimit", "Which joins of a contact are told.", entryLimits(), func(b *Bucket) *string { return &b.EntryLimit }),
		durationField("entryPeriod", "With once_per_period: how long after the last leave a join is told again.",
			func(b *Bucket) *time.Duration { return &b.EntryPeriod }),
		durationField("minDwell", "Who no longer satisfies the criteria leaves this long after the join at the earliest.",
			func(b *Bucket) *time.Duration { return &b.MinDwell }),
		durationField("maxDwell", "Every member leaves this long after the join at the latest.",
			func(b *Bucket) *time.Duration { return &b.MaxDwell }),
		{"reconcileJoins", "Whether time alone may make somebody a member; true unless it is false.", false, booleanSchema(),
			func(r *reader, at ast.Node, path string, b *Bucket) { b.ReconcileJoins = pointer(r.Boolean(at, path)) }},
		{"dwell", "When it is told that somebody is still a member.", false, dwellSchema(),
			func(r *reader, at ast.Node, path string, b *Bucket) { b.Dwell = r.dwell(at, path) }},
		wordField("joins", "Whether it is told that somebody joined when a new or changed bucket is filled.", joins(),
			func(b *Bucket) *string { return &b.Joins }),
		{"on", "Journeys of who enters the bucket, leaves it, or still is a member after a time of dwell.", false, map[string]any{"$ref": "#/$defs/reactions"},
			func(r *reader, at ast.Node, path string, b *Bucket) {
				list, places, err := journeys.ReadReactions(r.File, path, at)
				r.Take(err)
				maps.Copy(r.nodes, places)
				b.On = list
			}},
		{"timeBased", "A hint of other systems; not needed.", false, booleanSchema(),
			func(r *reader, at ast.Node, path string, b *Bucket) { b.TimeBased = pointer(r.Boolean(at, path)) }},
		{"fastExpiry", "A hint of other systems; not needed: every change by time is told when it is due.", false, booleanSchema(),
			func(r *reader, at ast.Node, path string, b *Bucket) { b.FastExpiry = r.Boolean(at, path) }},
		durationField("reconcileEvery", "A hint of other systems; not needed.",
			func(b *Bucket) *time.Duration { return &b.ReconcileEvery }),
	}
}

// refusals are keys of other systems that have another place here.
var refusals = map[string]string{
	"syncToPostHog":      postHogFix,
	"postHogPropertyKey": postHogFix,
}

const postHogFix = "is not said here: a destination of kind posthog has the setting bucketProperty; leave it out"

func wordField[T any](name, doc string, known []string, at func(*T) *string) field[T] {
	return field[T]{name, doc, false, map[string]any{"enum": known},
		func(r *reader, value ast.Node, path string, d *T) { *at(d) = r.Word(value, path, known) }}
}

func durationField[T any](name, doc string, at func(*T) *time.Duration) field[T] {
	return field[T]{name, doc, false, durationSchema(),
		func(r *reader, value ast.Node, path string, d *T) { *at(d) = r.Duration(value, path) }}
}

func (r *reader) condition(at ast.Node, path string) predicate.Condition {
	c, err := predicate.FromNode(r.File, path, at)
	r.Take(err)
	return c
}

func pointer[T any](v T) *T { return &v }
