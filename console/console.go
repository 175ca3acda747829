// Package console is what operators see and do: the admin API.
//
// What it promises:
//   - Every change leaves an audit row with who, what and from where. Changes of
//     API keys and their audit rows commit together.
//   - Nothing secret is shown, except a new secret to the one who made it.
//   - A request that is not understood in full changes nothing, and the answer
//     names each field or parameter at fault with its fix.
//
// Authentication, scopes and rate limits are around it: whoever serves its routes lets
// through who holds their scopes, and names the caller in the exchange.
package console

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

// Deps is what the API works with. All of it is needed.
type Deps struct {
	DB *storage.DB
	// Destinations is what operators do to destinations, Rewinds moves their positions,
	// Replays runs backfills.
	Destinations *destinations.Operations
	Rewinds      Rewinds
	Replays      Replays
	// Records reads single records, DeadLetters is what was given up.
	Records     Records
	DeadLetters DeadLetters
	Values      Values
	// Explain says why somebody is in a bucket, and what became of records.
	Explain *explain.Explainer
	// Checked is what definitions are checked against, Foresee says who would enter and leave
	// buckets, as far as there is time until then, naming so many of each.
	Checked definition.Options
	Foresee func(ctx context.Context, p *definition.Plan, sample int, until time.Time) (*definition.Forecast, error)
	// Missing says which versions of journeys this process cannot run, and why, by id@version.
	Missing func([]storage.JourneyVersion) map[string]error
	// Log is where commands to processors are appended.
	Log    Appender
	Logger *zap.Logger
}

type console struct {
	Deps
}

// Routes are those of the admin API, to be served to callers who hold their scopes.
func Routes(deps Deps) []web.Route {
	c := &console{deps}
	routes := slices.Concat(
		c.keyRoutes(), c.auditRoutes(), c.contactRoutes(), c.eventRoutes(),
		c.webhookRoutes(), c.sampleRoutes(), c.parkedRoutes(),
		c.rewindRoutes(), c.replayRoutes(),
		c.deliveryRoutes(), c.letterRoutes(),
		c.bucketRoutes(), c.journeyRoutes(), c.journeyManyRoutes(), c.journeyEnrolRoutes(), c.journeyMetricRoutes(), c.journeyVersionRoutes(), c.enrichmentRoutes(), c.bucketMemberRoutes(), c.bucketMetricRoutes(), c.whyRoutes(),
		c.definitionRoutes(),
	)
	for i := range routes {
		routes[i].Errors = inWords
	}
	return routes
}

// What a route asks for.
var (
	reading  = []string{storage.ScopeRead}
	changing = []string{storage.ScopeFullAdmin}
)

// NextPage is the parameter of lists that are read by a cursor. As others that requests
// embed, it is exported for their fields to be found.
type NextPage struct {
	Cursor string `json:"cursor" doc:"nextCursor of the page before"`
}

// optional is nil for an empty text.
func optional[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}
