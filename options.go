package hogstream

import (
	"net/http"
	"slices"
	"sync"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/sinks"
)

// Option is something that a program which embeds Hogstream adds to it.
type Option func(*options)

// options are what a program adds.
type options struct {
	kinds      []sinks.Kind
	middleware []func(http.Handler) http.Handler
	progress   func(step string)

	defined []definition.Definition
	built   bool // definitions were given, were it none
	coded   []journeys.Journey
	applied func(*definition.Outcome, error)
}

// WithSinks adds kinds of destination beside those that Hogstream has. They are always
// enabled, so ENABLED_DESTINATION_PRESETS need not name them, and destinations of them
// are made through the admin API like any other. Every process that plays ingest or
// sinks must be given the same kinds: a destination of a kind that a process does not
// know is refused there.
//
// A kind that lacks something, or is called like another, is an error of New.
func WithSinks(kinds ...sinks.Kind) Option {
	return func(o *options) { o.kinds = append(o.kinds, kinds...) }
}

// WithMiddleware puts functions around the HTTP API, health included, the first
// outermost: they see a request before Hogstream has asked for its key, and may answer
// in its place. They must pass on the request's context and body, and be safe for
// concurrent use. The separate listener for metrics (METRICS_ADDR) goes without them.
func WithMiddleware(middleware ...func(http.Handler) http.Handler) Option {
	return func(o *options) { o.middleware = append(o.middleware, middleware...) }
}

// WithBuckets defines buckets in Go, beside those of files. They are put in use when the
// process starts, in the place of those that a program defined before: give every process
// the same, and no bucket to take the last ones away. One that has a fault, or an id that
// stands twice or in a file, is an error of New.
func WithBuckets(buckets ...definition.Bucket) Option {
	return func(o *options) { o.defined, o.built = append(o.defined, definition.All(buckets)...), true }
}

// WithEnrichments defines enrichments in Go as [WithBuckets] does buckets.
func WithEnrichments(enrichments ...definition.Enrichment) Option {
	return func(o *options) { o.defined, o.built = append(o.defined, definition.All(enrichments)...), true }
}

// WithJourneys defines journeys in Go as [WithBuckets] does buckets, with steps that are
// values or, as [journeys.Define] makes them, code. Of one whose steps are code, versions
// before may be given, too, in front of the one to be used: live runs go on with the code
// that they began with, as long as it is given.
func WithJourneys(list ...journeys.Journey) Option {
	return func(o *options) {
		o.built = true
		for i, j := range list {
			if j.Coded {
				o.coded = append(o.coded, j)
			}
			newer := func(other journeys.Journey) bool { return other.ID == j.ID && j.Coded && other.Coded }
			if !slices.ContainsFunc(list[i+1:], newer) {
				o.defined = append(o.defined, definition.Journey{Journey: j})
			}
		}
	}
}

// WithDefinitionsApplied has fn called each time RunDev has applied the files of
// DEFINITIONS_DIR, after each save, or could not. Faults of files are no error, but
// in the outcome. It is called from one goroutine at a time.
func WithDefinitionsApplied(fn func(*definition.Outcome, error)) Option {
	return func(o *options) { o.applied = fn }
}

// WithProgress has fn called with what RunDev begins to do while it starts, such as
// "starting Postgres": a first start fetches and makes things. It is called from several
// goroutines, one at a time.
func WithProgress(fn func(step string)) Option {
	var one sync.Mutex
	return func(o *options) {
		o.progress = func(step string) {
			one.Lock()
			defer one.Unlock()
			fn(step)
		}
	}
}

// say tells of a step, if anybody wants to hear of it.
func (o *options) say(step string) {
	if o.progress != nil {
		o.progress(step)
	}
}

// wrap puts the middleware around a handler.
func (o *options) wrap(handler http.Handler) http.Handler {
	for i := len(o.middleware) - 1; i >= 0; i-- {
		handler = o.middleware[i](handler)
	}
	return handler
}
