package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

// bucketsProcessor is the processor that members are derived by, and commands are for.
const bucketsProcessor = "buckets"

type bucketJSON struct {
	ID          string      `json:"id"`
	Name        string      `json:"name"`
	Description *string     `json:"description,omitempty"`
	Enabled     bool        `json:"enabled"`
	Kind        string      `json:"kind" enum:"dynamic,manual"`
	TimeBased   bool        `json:"timeBased"`
	EntryLimit  string      `json:"entryLimit" enum:"unlimited,once,once_per_period"`
	Counts      countsJSON  `json:"counts"`
	State       bucketState `json:"state"`
}

type countsJSON struct {
	Active int64 `json:"active"`
	Left   int64 `json:"left"`
}

// bucketState is how a bucket is.
type bucketState struct {
	Is      string           `json:"is" enum:"live,filling,failing,disabled"`
	Filling *fillingJSON     `json:"filling,omitempty" doc:"While contacts are still looked at for the first time: who is a member is not all there."`
	Error   *string          `json:"error,omitempty" doc:"What is wrong with the definition in its file; the last good form of it is in use."`
	Since   *schemas.ISOTime `json:"since,omitempty" format:"date-time" doc:"How long it has failed."`
}

type fillingJSON struct {
	Percent int   `json:"percent"`
	Passed  int64 `json:"passed" doc:"contacts"`
	Total   int64 `json:"total" doc:"contacts"`
}

type bucketDetail struct {
	bucketJSON
	Criteria       any           `json:"criteria,omitempty" doc:"A condition, in its one form."`
	EntryPeriod    *durationJSON `json:"entryPeriod,omitempty"`
	MinDwell       *durationJSON `json:"minDwell,omitempty"`
	MaxDwell       *durationJSON `json:"maxDwell,omitempty"`
	ReconcileEvery *durationJSON `json:"reconcileEvery,omitempty"`
	ReconcileJoins bool          `json:"reconcileJoins"`
	Dwell          []string      `json:"dwell" doc:"Labels of the dwells that are told, with milliseconds."`
	Joins          string        `json:"joins" enum:"silent,told"`
	FastExpiry     bool          `json:"fastExpiry"`
	SyncToPostHog  bool          `json:"syncToPostHog" doc:"false: a destination of PostHog says which buckets it is told of."`
	FeedsJourneys  []fedJourney  `json:"feedsJourneys" doc:"Its own reactions first, then other journeys that begin with its facts, or at a time for its members."`
	RecentMembers  []memberJSON  `json:"recentMembers" doc:"The ten that joined last."`
}

// durationJSON is a duration as the parts of a day.
type durationJSON struct {
	Hours   int64   `json:"hours,omitempty"`
	Minutes int64   `json:"minutes,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// durationOf is nil for none.
func durationOf(d time.Duration) *durationJSON {
	if d == 0 {
		return nil
	}
	return &durationJSON{int64(d / time.Hour), int64(d % time.Hour / time.Minute), (d % time.Minute).Seconds()}
}

// failingJSON is a file of definitions with faults.
type failingJSON struct {
	File  string          `json:"file"`
	IDs   []string        `json:"ids" doc:"Of its definitions, as far as they can be read."`
	Error string          `json:"error"`
	Since schemas.ISOTime `json:"since" format:"date-time"`
}

// removedJSON is a bucket that is defined no more.
type removedJSON struct {
	ID     string     `json:"id"`
	Counts countsJSON `json:"counts"`
}

// What requests hold, and the answers.
type (
	bucketQuery struct {
		web.Page
		Enabled *bool `json:"enabled"`
	}
	bucketPage struct {
		Buckets []bucketJSON `json:"buckets"`
		Total   int          `json:"total"`
		web.Page
		Failing []failingJSON `json:"failing" doc:"Files with faults, also of buckets that were never good."`
		Removed []removedJSON `json:"removed" doc:"Buckets that are defined no more; their members are kept until they are purged."`
	}
	bucketResponse struct {
		Bucket bucketDetail `json:"bucket"`
	}
	bucketSwitch struct {
		Enabled bool `json:"enabled" required:"true"`
	}
	switchedJSON struct {
		ID        string          `json:"id"`
		Name      string          `json:"name"`
		Enabled   bool            `json:"enabled"`
		UpdatedAt schemas.ISOTime `json:"updatedAt" format:"date-time"`
	}
	switchedResponse struct {
		Bucket switchedJSON `json:"bucket"`
	}
	purgedResponse struct {
		Removed int64 `json:"removed" doc:"Memberships, present and past ones."`
		Done    bool  `json:"done" doc:"false: there are more; send the request again."`
	}
)

const noBucket = "Bucket not found"

// bucketParams says what the id in the path is.
var bucketParams = []web.Param{{Name: "id", Text: "id of the bucket, as its definition has it"}}

// switching is what a switch of buckets asks for.
var switching = []string{storage.ScopeJourneyAdmin}

// bucketRoutes are those of buckets.
func (c *console) bucketRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/buckets", Scopes: reading, Tag: "Buckets", Summary: "List buckets",
			Example: `/v1/admin/buckets?enabled=true`, Handle: web.Query(c.listBuckets),
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/buckets/{id}", Scopes: reading, Tag: "Buckets", Summary: "Show a bucket",
			Params: bucketParams, Example: `/v1/admin/buckets/cart-abandoned`, Handle: web.Path(c.getBucket), NotFound: noBucket,
		},
		{
			Method: http.MethodPatch, Path: "/v1/admin/buckets/{id}", Scopes: switching, Tag: "Buckets", Summary: "Enable or disable a bucket",
			Text:   "What is said here goes before its definition, until that is removed. A bucket that is disabled keeps its members, and is evaluated no more.",
			Params: bucketParams, Example: `/v1/admin/buckets/cart-abandoned {"enabled":false}`, Handle: web.Body(c.switchBucket), NotFound: noBucket,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/buckets/{id}/purge", Scopes: changing, Tag: "Buckets", Summary: "Forget the members of a bucket that is defined no more",
			Params: bucketParams, Example: `/v1/admin/buckets/cart-abandoned/purge`, Handle: web.Path(c.purgeBucket), NotFound: noBucket,
		},
	}
}

// inUse is the set of definitions in use, with how far it is filled.
type inUse struct {
	*definition.Set
	fill storage.FillProgress
}

func (c *console) definitions(ctx context.Context) (u inUse, err error) {
	if u.Set, err = definition.Current(ctx, c.DB); err != nil || u.Version == 0 {
		return u, err
	}
	u.fill, err = c.DB.FillProgress(ctx, bucketsProcessor, u.Version)
	return u, err
}

// bucket is one that is defined, or the error of one that is not, with what is known of it.
func (c *console) bucket(ctx context.Context, id string) (u inUse, b *definition.BucketInUse, err error) {
	if u, err = c.definitions(ctx); err != nil {
		return u, nil, err
	}
	if b = u.Find(id); b != nil {
		return u, b, nil
	}
	if f := u.FailingOf(definition.BucketRef(id)); f != nil {
		return u, nil, refuse(http.StatusNotFound, noBucket, "mend its definition, which was never good: "+f.Faults)
	}
	counts, err := c.DB.BucketCountsOf(ctx, id)
	switch {
	case err != nil:
		return u, nil, err
	case counts.Entered > 0:
		return u, nil, refuse(http.StatusNotFound, noBucket, "define it again: it is defined no more, and its members are kept until it is purged")
	}
	return u, nil, web.ErrNotFound
}

// state is how a bucket is. Filling is told beside what is wrong with it.
func (u *inUse) state(b *definition.BucketInUse) bucketState {
	s := bucketState{Is: "live"}
	if b.Enabled && b.Kind == definition.KindDynamic && !u.fill.Done && b.Revision > u.fill.Filled {
		s.Is, s.Filling = "filling", &fillingJSON{Passed: u.fill.Passed, Total: u.fill.Total}
		if u.fill.Total > 0 { // those that are being looked at are not all there
			s.Filling.Percent = int(min(99, 100*u.fill.Passed/u.fill.Total))
		}
	}
	if f := u.FailingOf(definition.BucketRef(b.ID)); f != nil {
		s.Is, s.Error, s.Since = "failing", &f.Faults, schemas.ISOTimeOf(&f.Since)
	}
	if !b.Enabled {
		s.Is = "disabled"
	}
	return s
}

func (u *inUse) bucketOf(b *definition.BucketInUse, counts storage.BucketCounts) bucketJSON {
	return bucketJSON{
		ID: b.ID, Name: b.Name, Description: optional(b.Description), Enabled: b.Enabled, Kind: b.Kind, EntryLimit: b.EntryLimit,
		TimeBased: b.TimeBased != nil && *b.TimeBased, Counts: countsJSON{counts.Active, counts.Left}, State: u.state(b),
	}
}

// listBuckets is GET /buckets.
func (c *console) listBuckets(r *web.Request, q *bucketQuery) (out bucketPage, err error) {
	u, err := c.definitions(r.Context())
	if err != nil {
		return out, err
	}
	counts, err := c.DB.BucketCounts(r.Context())
	if err != nil {
		return out, err
	}
	out = bucketPage{Buckets: []bucketJSON{}, Page: q.Page, Failing: []failingJSON{}, Removed: []removedJSON{}}
	for i := range u.Buckets {
		b := &u.Buckets[i]
		if q.Enabled != nil && *q.Enabled != b.Enabled {
			continue
		}
		if out.Total >= q.Offset && len(out.Buckets) < q.Limit {
			out.Buckets = append(out.Buckets, u.bucketOf(b, counts[b.ID]))
		}
		out.Total++
	}
	for _, f := range u.Failing {
		out.Failing = append(out.Failing, failingJSON{f.File, append([]string{}, f.IDs...), f.Faults, schemas.ISOTime{Time: f.Since}})
	}
	for _, id := range sortedKeys(counts) {
		if n := counts[id]; n.Entered > 0 && u.Find(id) == nil {
			out.Removed = append(out.Removed, removedJSON{id, countsJSON{n.Active, n.Left}})
		}
	}
	return out, nil
}

// recently is how many members a bucket shows.
const recently = 10

// getBucket is GET /buckets/{id}.
func (c *console) getBucket(r *web.Request) (out bucketResponse, err error) {
	u, b, err := c.bucket(r.Context(), r.TextParam("id"))
	if err != nil {
		return out, err
	}
	counts, err := c.DB.BucketCountsOf(r.Context(), b.ID)
	if err != nil {
		return out, err
	}
	recent, err := c.DB.ListBucketMembers(r.Context(), b.ID, storage.BucketMemberFilter{}, recently, 0)
	if err != nil {
		return out, err
	}
	out.Bucket = bucketDetail{
		bucketJSON: u.bucketOf(b, counts), EntryPeriod: durationOf(b.EntryPeriod), MinDwell: durationOf(b.MinDwell), MaxDwell: durationOf(b.MaxDwell),
		ReconcileEvery: durationOf(b.ReconcileEvery), ReconcileJoins: b.ReconcileJoins == nil || *b.ReconcileJoins, Dwell: []string{}, Joins: b.Joins,
		FastExpiry: b.FastExpiry, FeedsJourneys: u.fedBy(b.ID), RecentMembers: membersOf(recent),
	}
	if !b.Criteria.IsZero() {
		out.Bucket.Criteria = b.Criteria
	}
	for _, d := range b.Dwell {
		out.Bucket.Dwell = append(out.Bucket.Dwell, d.Label())
	}
	return out, nil
}

// switchBucket is PATCH /buckets/{id}.
func (c *console) switchBucket(r *web.Request, req *bucketSwitch) (out switchedResponse, err error) {
	if _, _, err := c.bucket(r.Context(), r.TextParam("id")); err != nil {
		return out, err
	}
	done, err := definition.Switch(r.Context(), c.DB, definition.BucketRef(r.TextParam("id")), req.Enabled, r.Exchange.Caller.Name)
	switch {
	case errors.Is(err, definition.ErrUnknown):
		return out, web.ErrNotFound
	case err != nil:
		return out, err
	}
	b := done.Set.Find(r.TextParam("id"))
	c.audit(r, "buckets", b.ID, map[string]any{"enabled": b.Enabled})
	return switchedResponse{switchedJSON{b.ID, b.Name, b.Enabled, schemas.ISOTime{Time: done.Set.AppliedAt}}}, nil
}

// A purge removes so many rows in a transaction, and goes on for so long.
const (
	purgedAtOnce = 1000
	purgeTime    = 10 * time.Second
)

// purgeBucket is POST /buckets/{id}/purge.
func (c *console) purgeBucket(r *web.Request) (out purgedResponse, err error) {
	id := r.TextParam("id")
	for until := time.Now().Add(purgeTime); !out.Done && time.Now().Before(until); {
		n, err := c.purgeSome(r.Context(), id)
		if errors.Is(err, definition.ErrInUse) {
			return out, refuse(http.StatusConflict, fmt.Sprintf("Bucket %s is defined", id), "remove its definition first: what is known of the members of a bucket in use is not forgotten")
		}
		if err != nil {
			return out, err
		}
		out.Removed, out.Done = out.Removed+n, n == 0
	}
	if out.Done && out.Removed == 0 {
		return out, web.ErrNotFound
	}
	c.audit(r, "buckets", id, map[string]any{"operation": "purge", "removed": out.Removed, "done": out.Done})
	return out, nil
}

// purgeSome removes some memberships, and tells the processor to forget the contacts' states
// in the bucket: before the rows are gone, for as long as there are rows it is told again.
func (c *console) purgeSome(ctx context.Context, id string) (removed int64, err error) {
	err = c.DB.InRetriedTx(ctx, func(tx *storage.Tx) error {
		if err := definition.RequireUnused(ctx, tx, id); err != nil {
			return err
		}
		var contacts []string
		if removed, contacts, err = tx.PurgeBucket(ctx, id, purgedAtOnce); err != nil {
			return err
		}
		_, err = c.tell(ctx, contacts, "forget", map[string]any{"bucket": id})
		return err
	})
	return removed, err
}
