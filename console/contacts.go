package console

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

type contactJSON struct {
	ID          string           `json:"id"`
	ExternalID  *string          `json:"externalId"`
	AnonymousID *string          `json:"anonymousId"`
	Email       *string          `json:"email"`
	Properties  json.RawMessage  `json:"properties"`
	Identifiers []identifierJSON `json:"identifiers"`
	Merged      []string         `json:"merged"`
	Version     int64            `json:"version"`
	FirstSeenAt schemas.ISOTime  `json:"firstSeenAt" format:"date-time"`
	LastSeenAt  schemas.ISOTime  `json:"lastSeenAt" format:"date-time"`
	CreatedAt   schemas.ISOTime  `json:"createdAt" format:"date-time"`
	UpdatedAt   schemas.ISOTime  `json:"updatedAt" format:"date-time"`
}

type identifierJSON struct {
	Kind  string `json:"kind"`
	Value string `json:"value"`
}

type contactPage struct {
	Contacts []contactJSON `json:"contacts"`
	Total    *int          `json:"total,omitempty" doc:"Not counted with a cursor."`
	web.Page
	NextCursor *string `json:"nextCursor,omitempty" doc:"Of the next page, when the request had a cursor and this is not the last one."`
}

type contactQuery struct {
	web.Page
	Search string  `json:"search" doc:"part of an email, userId or anonymousId"`
	Cursor *string `json:"cursor" doc:"empty to read all contacts in the order of their ids, then nextCursor of the page before; in place of offset"`
}

type contactResponse struct {
	Contact     contactJSON  `json:"contact"`
	Memberships []memberJSON `json:"memberships" doc:"Buckets that it is a member of, then those that it left, the newest joins first; a hundred at most."`
	Runs        []runJSON    `json:"runs" doc:"Runs of journeys: those that live, then those that ended, the newest first; a hundred at most."`
}

// shownMemberships is how many memberships of a contact are shown.
const shownMemberships = 100

func contactOf(c *storage.Contact) contactJSON {
	out := contactJSON{
		ID: c.ID, ExternalID: optional(c.ExternalID), AnonymousID: optional(c.AnonymousID), Email: optional(c.Email),
		Properties: json.RawMessage(c.Properties), Identifiers: []identifierJSON{}, Merged: append([]string{}, c.Merged...), Version: c.Version,
		FirstSeenAt: schemas.ISOTime{Time: c.FirstSeenAt}, LastSeenAt: schemas.ISOTime{Time: c.LastSeenAt}, CreatedAt: schemas.ISOTime{Time: c.CreatedAt}, UpdatedAt: schemas.ISOTime{Time: c.UpdatedAt},
	}
	for _, i := range c.Identifiers {
		out.Identifiers = append(out.Identifiers, identifierJSON(i))
	}
	return out
}

// contactRoutes are those of contacts.
func (c *console) contactRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/contacts", Scopes: reading, Tag: "Contacts", Summary: "List contacts",
			Example: `/v1/admin/contacts?search=example.com`, Handle: web.Query(c.listContacts),
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/contacts/{id}", Scopes: reading, Tag: "Contacts", Summary: "Show a contact by its id or userId",
			Params:  []web.Param{{Name: "id", Text: "its id or userId"}},
			Example: `/v1/admin/contacts/u-1`, Handle: web.Path(c.getContact), NotFound: "Contact not found",
		},
	}
}

// listContacts is GET /contacts.
func (c *console) listContacts(r *web.Request, q *contactQuery) (out contactPage, err error) {
	out = contactPage{Contacts: []contactJSON{}, Page: q.Page}
	var found []*storage.Contact
	if q.Cursor != nil {
		var next string
		found, next, err = c.DB.WalkContacts(r.Context(), q.Search, q.Limit, *q.Cursor)
		out.NextCursor = optional(next)
	} else {
		var total int
		found, total, err = c.DB.ListContacts(r.Context(), q.Search, q.Limit, q.Offset)
		out.Total = &total
	}
	if err != nil {
		return out, err
	}
	for _, contact := range found {
		out.Contacts = append(out.Contacts, contactOf(contact))
	}
	return out, nil
}

// getContact is GET /contacts/{id}: by the contact's own id, also of one that was
// merged away, or by an external id it ever had.
func (c *console) getContact(r *web.Request) (out contactResponse, err error) {
	contact, err := c.contact(r.Context(), r.TextParam("id"))
	switch {
	case err != nil:
		return out, err
	case contact == nil:
		return out, web.ErrNotFound
	}
	memberships, err := c.DB.BucketMemberships(r.Context(), contact.ID, shownMemberships)
	if err != nil {
		return out, err
	}
	runs, err := c.DB.RunsOf(r.Context(), contact.ID, shownMemberships)
	return contactResponse{contactOf(contact), membersOf(memberships), runsOf(runs)}, err
}

func (c *console) contact(ctx context.Context, id string) (*storage.Contact, error) {
	return c.DB.ContactNamed(ctx, id, schemas.KindExternal)
}
