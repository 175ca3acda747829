package definition

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/definition/node"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/program"
)

// EnrichmentKind is the kind of enrichments, as [Ref] has it.
const EnrichmentKind = "enrichment"

// Enrichment asks a destination for what it knows of a contact, and patches the contact with
// the answer. It is asked when When turns true, when the contact enters a bucket, and when
// a property is old. The zero value of a field that has a default means the default.
type Enrichment struct {
	ID          string // unique and stable: it stands in requests, and as source of patches
	Name        string // for people
	Description string // for people
	// Enabled: one that is not asks for nothing, and what it asked for before is not used.
	Enabled bool

	// When is asked for each time it turns true; while it is false nothing is asked. Nothing
	// is like always true.
	When predicate.Condition
	// Entered is the bucket that it is asked at each entry of; not beside When.
	Entered string
	// Refresh has it asked again when a property is old; nil is never.
	Refresh *Refresh

	Destination string        // the name of what is asked
	Send        []string      // the properties of the contact that it is told
	Map         string        // jq: what of the answer becomes properties of the contact
	Within      time.Duration // after so long it is asked in vain; DefaultWithin when zero
	Retry       time.Duration // the pause after a failure, doubled with each in a row; DefaultRetry when zero
	Attempts    int           // how often it is asked in a row; DefaultAttempts when zero
	// Backfill is the time over which those are asked for whom it is true when the enrichment
	// is new or changed; zero is that they are not.
	Backfill time.Duration

	// File is where it was defined, for faults. It is no part of the canonical form.
	File string
}

// Refresh is when a property is old.
type Refresh struct {
	Property string
	After    time.Duration // since it changed, or an answer said what it is
}

// Defaults of an [Enrichment].
const (
	DefaultWithin   = 24 * time.Hour
	DefaultRetry    = time.Hour
	DefaultAttempts = 5
)

// Bounds of an [Enrichment]. A wait of an hour begins a chain of causes anew, and so only
// shorter ones have an end of their own.
const (
	minPause    = time.Hour
	minWithin   = time.Second
	maxWithin   = 7 * 24 * time.Hour
	maxAttempts = 20
	maxSend     = 50
)

// EnrichmentInUse is an enrichment of the set in use, with its defaults filled in.
type EnrichmentInUse struct {
	Enrichment
	InUse
}

// HasEnrichments says whether a set has any that is enabled.
func HasEnrichments(s *Set) bool {
	return slices.ContainsFunc(s.Enrichments, func(e EnrichmentInUse) bool { return e.Enabled })
}

// EnrichmentRef names an enrichment.
func EnrichmentRef(id string) Ref { return Ref{EnrichmentKind, id} }

// EnrichmentSchema is the JSON Schema of an enrichment's file, as [Schema] is a bucket's.
//
//go:embed enrichment.schema.json
var EnrichmentSchema []byte

var enrichmentKind = &kind{
	name: EnrichmentKind, dir: "enrich", built: "enrichments built in Go",
	schema: SchemaFile{"enrichment.schema.json", EnrichmentSchema, func() []byte {
		return published("An enrichment", enrichmentFields().schema(), conditionDefs())
	}},
	read:    reads("an enrichment", enrichmentFields),
	decode:  decodes(func(w writtenEnrichment) Definition { return w.read() }),
	compile: compileEnrichments,
	files:   inFiles(func(f *Files) *[]Enrichment { return &f.Enrichments }),
	set: inSet(func(s *Set) *[]EnrichmentInUse { return &s.Enrichments },
		func(e EnrichmentInUse) (Enrichment, InUse) { return e.Enrichment, e.InUse },
		func(e Enrichment, use InUse) EnrichmentInUse { return EnrichmentInUse{e, use} }),
}

// Ref implements [Definition].
func (e Enrichment) Ref() Ref { return EnrichmentRef(e.ID) }

func (e Enrichment) head() head { return head{e.ID, e.Enabled, e.File} }

func (e Enrichment) withHead(h head) Definition {
	e.ID, e.Enabled, e.File = h.ID, h.Enabled, h.File
	return e
}

func (e Enrichment) defaulted() Definition {
	e.Within = cmp.Or(e.Within, DefaultWithin)
	e.Retry = cmp.Or(e.Retry, DefaultRetry)
	e.Attempts = cmp.Or(e.Attempts, DefaultAttempts)
	return e
}

func (e Enrichment) asks() []Ref {
	if e.Entered == "" {
		return nil
	}
	return []Ref{BucketRef(e.Entered)}
}

func (e Enrichment) looksAt() []string { return eventNames(e.When) }

// enrichmentFields is what an enrichment's file may say.
func enrichmentFields() table[Enrichment] {
	return table[Enrichment]{
		{"id", "Unique and stable: it stands in requests, and as source of patches.", true, textSchema(),
			func(r *reader, at ast.Node, path string, e *Enrichment) { e.ID = r.Text(at, path) }},
		{"name", "What people call it.", true, textSchema(),
			func(r *reader, at ast.Node, path string, e *Enrichment) { e.Name = r.Text(at, path) }},
		{"description", "What it is for.", false, textSchema(),
			func(r *reader, at ast.Node, path string, e *Enrichment) { e.Description = r.Text(at, path) }},
		{"enabled", "Whether anything is asked.", true, booleanSchema(),
			func(r *reader, at ast.Node, path string, e *Enrichment) { e.Enabled = r.Boolean(at, path) }},
		{"when", "Asked each time this turns true, and while it is true.", false, map[string]any{"$ref": "#/$defs/condition"},
			func(r *reader, at ast.Node, path string, e *Enrichment) { e.When = r.condition(at, path) }},
		{"entered", "The bucket that it is asked at each entry of.", false, textSchema(),
			func(r *reader, at ast.Node, path string, e *Enrichment) { e.Entered = r.Text(at, path) }},
		{"refresh", "Asked again when a property is older than this.", false, refreshSchema(),
			func(r *reader, at ast.Node, path string, e *Enrichment) {
				e.Refresh = &Refresh{}
				object(r, at, path, "a property and a time", refreshFields(), e.Refresh)
			}},
		{"destination", "The name of the destination that is asked.", true, textSchema(),
			func(r *reader, at ast.Node, path string, e *Enrichment) { e.Destination = r.Text(at, path) }},
		{"send", "The properties of the contact that the destination is told.", false,
			map[string]any{"type": "array", "items": textSchema(), "maxItems": maxSend},
			func(r *reader, at ast.Node, path string, e *Enrichment) { e.Send = r.texts(at, path) }},
		{"map", "jq: makes of the answer an object of properties of the contact.", true, textSchema(),
			func(r *reader, at ast.Node, path string, e *Enrichment) { e.Map = r.Text(at, path) }},
		durationField("within", "Not asked any more after this time; 24h when left out.", func(e *Enrichment) *time.Duration { return &e.Within }),
		durationField("retry", "The pause after a failure, doubled with each in a row; 1h when left out.", func(e *Enrichment) *time.Duration { return &e.Retry }),
		{"attempts", "How often it is asked in a row; 5 when left out.", false, map[string]any{"type": "integer", "minimum": 1, "maximum": maxAttempts},
			func(r *reader, at ast.Node, path string, e *Enrichment) { e.Attempts = r.number(at, path) }},
		durationField("backfill", "The time over which those are asked for whom it is true when the enrichment is new or changed; left out, they are not.",
			func(e *Enrichment) *time.Duration { return &e.Backfill }),
	}
}

func refreshFields() table[Refresh] {
	return table[Refresh]{
		{"property", "Of the contact.", true, textSchema(),
			func(r *reader, at ast.Node, path string, f *Refresh) { f.Property = r.Text(at, path) }},
		{"after", "How old it may be.", true, durationSchema(),
			func(r *reader, at ast.Node, path string, f *Refresh) { f.After = r.Duration(at, path) }},
	}
}

func refreshSchema() map[string]any { return refreshFields().schema() }

// texts reads a list of texts.
func (r *reader) texts(at ast.Node, path string) []string {
	list, ok := at.(*ast.SequenceNode)
	if !ok {
		r.Fault(at, path, "is %s: write a list such as [plan, country]", node.Describe(at))
		return nil
	}
	var out []string
	for i, item := range list.Values {
		path := fmt.Sprintf("%s[%d]", path, i)
		r.nodes[path] = item
		out = append(out, r.Text(item, path))
	}
	return out
}

// number reads a whole number above zero.
func (r *reader) number(at ast.Node, path string) int {
	if n, ok := at.(*ast.IntegerNode); ok {
		if v, err := strconv.Atoi(n.String()); err == nil && v > 0 {
			return v
		}
	}
	r.Fault(at, path, "is %s: write a whole number, from 1 on", node.Describe(at))
	return 0
}

// check returns everything that is wrong with an enrichment by itself.
func (e Enrichment) check() []problem {
	var out []problem
	wrong := func(field, format string, args ...any) {
		out = append(out, problem{field, fmt.Sprintf(format, args...)})
	}
	if message := wrongID(e.ID); message != "" {
		wrong("id", "%s", message)
	}
	for _, text := range []struct{ field, is, fix string }{
		{"name", e.Name, "write what people call it"},
		{"destination", e.Destination, "write the name of a destination of kind webhook"},
		{"map", e.Map, "write jq that makes an object, such as {company: .name}"},
	} {
		if text.is == "" {
			wrong(text.field, "is missing: %s", text.fix)
		}
	}
	if err := program.Parses(e.Map); e.Map != "" && err != nil {
		wrong("map", "%v", err)
	}
	switch {
	case e.When.IsZero() && e.Entered == "" && e.Refresh == nil:
		wrong("when", "is missing: write when it is asked, or entered: a bucket, or refresh: {property: plan, after: 30d}")
	case !e.When.IsZero() && e.Entered != "":
		wrong("entered", "has no meaning beside when: leave one out")
	}
	if asked := e.When.Inputs().Buckets; len(asked) > 0 {
		wrong("when", "asks for bucket %q: write entered: %s, or the bucket's criteria here", asked[0], asked[0])
	}
	for i, name := range e.Send {
		if name != "" && slices.Contains(e.Send[:i], name) {
			wrong(fmt.Sprintf("send[%d]", i), "says %q a second time: leave it out", name)
		}
	}
	if len(e.Send) > maxSend {
		wrong("send", "has %d properties: at most %d are sent", len(e.Send), maxSend)
	}
	if e.Attempts < 0 || e.Attempts > maxAttempts {
		wrong("attempts", "is %d: use 1 to %d", e.Attempts, maxAttempts)
	}
	return append(out, e.checkTimes()...)
}

func (e Enrichment) checkTimes() []problem {
	var out []problem
	check := func(field string, d, least, most time.Duration) {
		switch {
		case d%time.Microsecond != 0 || d < 0:
			out = append(out, problem{field, fmt.Sprintf("is %s: write a time of whole microseconds, longer than zero", d)})
		case d < least:
			out = append(out, problem{field, fmt.Sprintf("is %s: use at least %s", d, least)})
		case most > 0 && d > most:
			out = append(out, problem{field, fmt.Sprintf("is %s: use at most %s", d, most)})
		}
	}
	check("within", cmp.Or(e.Within, DefaultWithin), minWithin, maxWithin)
	check("retry", cmp.Or(e.Retry, DefaultRetry), minPause, 0)
	check("backfill", e.Backfill, 0, 0)
	if e.Refresh != nil {
		if e.Refresh.Property == "" {
			out = append(out, problem{"refresh.property", "is missing: write which property of the contact"})
		}
		check("refresh.after", e.Refresh.After, minPause, 0)
	}
	return out
}

// compileEnrichments checks conditions, and that the buckets are there.
func compileEnrichments(list []Definition, known known, opts Options) map[int]predicate.Faults {
	out := map[int]predicate.Faults{}
	for i, d := range list {
		e := d.(Enrichment)
		var faults predicate.Faults
		if !e.When.IsZero() {
			named := predicate.Named{ID: e.ID, Condition: e.When, Path: "when"}
			faults = append(faultsOf([]predicate.Named{named}, nil, opts), withoutEvents(e.When, "when", opts)...)
		}
		if e.Entered != "" && !slices.Contains(known.ids[BucketKind], e.Entered) {
			faults = append(faults, predicate.Fault{Path: "entered", Message: predicate.NotKnown(e.Entered, known.ids[BucketKind])})
		}
		if len(faults) > 0 {
			out[i] = faults
		}
	}
	return out
}

// writtenEnrichment is an enrichment as it is written, without what is a default.
type writtenEnrichment struct {
	ID          string              `json:"id"`
	Name        string              `json:"name,omitempty"`
	Description string              `json:"description,omitempty"`
	Enabled     bool                `json:"enabled"`
	When        predicate.Condition `json:"when,omitzero"`
	Entered     string              `json:"entered,omitempty"`
	Refresh     *writtenRefresh     `json:"refresh,omitempty"`
	Destination string              `json:"destination"`
	Send        []string            `json:"send,omitempty"`
	Map         string              `json:"map"`
	Within      duration            `json:"within,omitempty"`
	Retry       duration            `json:"retry,omitempty"`
	Attempts    int                 `json:"attempts,omitempty"`
	Backfill    duration            `json:"backfill,omitempty"`
}

type writtenRefresh struct {
	Property string   `json:"property"`
	After    duration `json:"after"`
}

// write is the enrichment without its defaults.
func (e Enrichment) write() writtenEnrichment {
	w := writtenEnrichment{
		ID: e.ID, Name: e.Name, Description: e.Description, Enabled: e.Enabled, When: e.When, Entered: e.Entered,
		Destination: e.Destination, Send: e.Send, Map: e.Map, Backfill: duration(e.Backfill),
		Within: duration(unlessIs(DefaultWithin, e.Within)), Retry: duration(unlessIs(DefaultRetry, e.Retry)),
		Attempts: unlessIs(DefaultAttempts, e.Attempts),
	}
	if e.Refresh != nil {
		w.Refresh = &writtenRefresh{e.Refresh.Property, duration(e.Refresh.After)}
	}
	return w
}

// read is the enrichment that was written, with its defaults filled in.
func (w writtenEnrichment) read() Definition {
	e := Enrichment{
		ID: w.ID, Name: w.Name, Description: w.Description, Enabled: w.Enabled, When: w.When, Entered: w.Entered,
		Destination: w.Destination, Send: w.Send, Map: w.Map, Within: time.Duration(w.Within), Retry: time.Duration(w.Retry),
		Attempts: w.Attempts, Backfill: time.Duration(w.Backfill),
	}
	if w.Refresh != nil {
		e.Refresh = &Refresh{w.Refresh.Property, time.Duration(w.Refresh.After)}
	}
	return e.defaulted()
}

// Canonical implements [Definition].
func (e Enrichment) Canonical() string { return canonicalText(e.write()) }

// evaluated is all but what is for people. It is in use anew when anything else changes: what
// it asks for is another thing then.
func (e Enrichment) evaluated() string {
	w := e.write()
	w.Name, w.Description, w.Enabled = "", "", false
	return canonicalText(w)
}

// unlessIs is the value, or zero when it is the default.
func unlessIs[T comparable](byDefault, v T) T {
	if v == byDefault {
		var zero T
		return zero
	}
	return v
}
