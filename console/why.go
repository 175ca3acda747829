package console

import (
	"errors"
	"net/http"
	"time"

	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/web"
)

// whyRoutes say why somebody is in a bucket.
func (c *console) whyRoutes() []web.Route {
	return []web.Route{{
		Method: http.MethodGet, Path: "/v1/admin/upcoming", Scopes: reading, Tag: "Buckets", Summary: "Say what time alone will do to the members of buckets",
		Text:    "How many leave and join each bucket, if no record comes before. Exact up to `until`: the processor's own function is run over the contacts whose timers are due.",
		Example: `/v1/admin/upcoming?within=7d&bucket=cart-abandoned`, Handle: web.Query(c.upcoming), NotFound: noBucket,
	}, {
		Method: http.MethodGet, Path: "/v1/admin/trace/{record}", Scopes: reading, Tag: "Records", Summary: "Say what led to a record, and what it caused",
		Text:    "By the ids and causes on the log: from what was sent to the facts that are told. How far is looked is bounded: `whole` says whether effects may be missing.",
		Params:  []web.Param{{Name: "record", Text: "its id, or its place: topic-partition-offset"}},
		Example: `/v1/admin/trace/lifecycle-3-1204`, Handle: web.Path(c.trace), NotFound: noRecord,
	}, {
		Method: http.MethodGet, Path: "/v1/admin/buckets/{id}/members/{userId}/why", Scopes: reading, Tag: "Buckets", Summary: "Say why a contact is in a bucket, or why not",
		Text: "`reasons` say what decides, the one that does first. `criteria` are the condition as a tree, each part with its answer, what it looked at, when " +
			"time alone may turn it, and, of the parts that look at something, what turned it last and where that stands on the log, as far as that is known.",
		Params:  append([]web.Param{{Name: "userId", Text: "a userId, an anonymousId or a contact id; it need not be a member"}}, bucketParams...),
		Example: `/v1/admin/buckets/cart-abandoned/members/u-1/why?at=2/left`, Handle: web.Query(c.why), NotFound: noBucket,
	}}
}

type upcomingQuery struct {
	Within string `json:"within" default:"7d" doc:"From now on, such as 12h, 7d or 1d12h; a year at most."`
	Bucket string `json:"bucket" doc:"id of a bucket; all without"`
}

const (
	noRecord = "Record not found"
	year     = 366 * 24 * time.Hour
)

// upcoming is GET /upcoming.
func (c *console) upcoming(r *web.Request, q *upcomingQuery) (*explain.Upcoming, error) {
	now := time.Now()
	ago, ok := schemas.ParseMoment(q.Within, now)
	within := now.Sub(ago)
	if !ok || within <= 0 || within > year {
		return nil, web.IssuesError{web.Wrong("within", "invalid_string", "Invalid: no time from now on", "send how long, such as 12h or 7d; a year at most")}
	}
	out, err := c.Explain.Upcoming(r.Context(), q.Bucket, within)
	if errors.Is(err, explain.ErrNoBucket) {
		return nil, web.ErrNotFound
	}
	return out, err
}

// trace is GET /trace/{record}.
func (c *console) trace(r *web.Request) (*explain.Trace, error) {
	out, err := c.Explain.Trace(r.Context(), r.TextParam("record"))
	switch {
	case errors.Is(err, explain.ErrNoRecord), errors.Is(err, explain.ErrRecord), errors.Is(err, explain.ErrNoLog):
		return nil, refuse(http.StatusNotFound, noRecord, err.Error())
	}
	return out, err
}

type whyQuery struct {
	At string `json:"at" doc:"As of a transition, instead of now: the number of a membership (2 is its join, 2/left its leave), or the id of the bucket.entered or bucket.left that tells of it."`
}

const noContact = "Contact not found"

// why is GET /buckets/{id}/members/{userId}/why.
func (c *console) why(r *web.Request, q *whyQuery) (answer *explain.Answer, err error) {
	if q.At == "" {
		answer, err = c.Explain.Why(r.Context(), r.TextParam("id"), r.TextParam("userId"))
	} else {
		answer, err = c.Explain.WhyAt(r.Context(), r.TextParam("id"), r.TextParam("userId"), q.At)
	}
	switch {
	case errors.Is(err, explain.ErrNoTransition):
		return nil, refuse(http.StatusNotFound, "Transition not found", "give the number of a membership (2 is its join, 2/left its leave), or the id of the bucket.entered or bucket.left that tells of it")
	case errors.Is(err, explain.ErrNoContact):
		return nil, refuse(http.StatusNotFound, noContact, "name a userId, an anonymousId or a contact id: nobody has this one, or whoever had it was erased")
	case errors.Is(err, explain.ErrNoBucket):
		if _, _, err := c.bucket(r.Context(), r.TextParam("id")); err != nil {
			return nil, err
		}
	}
	return answer, err
}
