package console

import (
	"errors"
	"net/http"

	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/web"
)

// whyRoutes say why somebody is in a bucket.
func (c *console) whyRoutes() []web.Route {
	return []web.Route{{
		Method: http.MethodGet, Path: "/v1/admin/buckets/{id}/members/{userId}/why", Scopes: reading, Tag: "Buckets", Summary: "Say why a contact is in a bucket, or why not",
		Text: "`reasons` say what decides, the one that does first. `criteria` are the condition as a tree, each part with its answer, what it looked at, when " +
			"time alone may turn it, and, of the parts that look at something, what turned it last and where that stands on the log, as far as that is known.",
		Params:  append([]web.Param{{Name: "userId", Text: "a userId, an anonymousId or a contact id; it need not be a member"}}, bucketParams...),
		Example: `/v1/admin/buckets/cart-abandoned/members/u-1/why?at=2/left`, Handle: web.Query(c.why), NotFound: noBucket,
	}}
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
