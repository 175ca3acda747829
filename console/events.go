package console

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

type eventJSON struct {
	ID         string          `json:"id"`
	ContactID  string          `json:"contactId" doc:"That it was stored under; one merged away since is among merged of the contact."`
	Event      string          `json:"event"`
	Properties json.RawMessage `json:"properties"`
	OccurredAt schemas.ISOTime `json:"occurredAt" format:"date-time"`
	ReceivedAt schemas.ISOTime `json:"receivedAt" format:"date-time"`
	Source     string          `json:"source"`
	Seq        int64           `json:"seq" doc:"Its place in the order of its contact (docs/order.md); 0 without one."`
	Era        int64           `json:"era"`
}

type eventPage struct {
	Events     []eventJSON `json:"events"`
	Limit      int         `json:"limit"`
	NextCursor *string     `json:"nextCursor"`
}

type eventQuery struct {
	NextPage
	Limit int       `json:"limit" minimum:"1" maximum:"500" default:"50"`
	Event string    `json:"event" doc:"name"`
	From  time.Time `json:"from" doc:"of when it happened, inclusive"`
	To    time.Time `json:"to" doc:"exclusive"`
}

// eventRoutes are those of stored events.
func (c *console) eventRoutes() []web.Route {
	return []web.Route{{
		Method: http.MethodGet, Path: "/v1/admin/contacts/{id}/events", Scopes: reading, Tag: "Contacts", Summary: "List a contact's stored events, newest first",
		Params:  []web.Param{{Name: "id", Text: "its id or userId"}},
		Example: `/v1/admin/contacts/u-1/events?event=order.completed`, Handle: web.Query(c.listEvents), NotFound: "Contact not found",
	}}
}

// listEvents is GET /contacts/{id}/events.
func (c *console) listEvents(r *web.Request, q *eventQuery) (out eventPage, err error) {
	contact, err := c.contact(r.Context(), r.TextParam("id"))
	switch {
	case err != nil:
		return out, err
	case contact == nil:
		return out, web.ErrNotFound
	}
	filter := storage.EventFilter{Name: q.Event, From: q.From, To: q.To}
	found, next, err := c.DB.ContactEvents(r.Context(), append([]string{contact.ID}, contact.Merged...), filter, q.Cursor, q.Limit)
	out = eventPage{Events: []eventJSON{}, Limit: q.Limit, NextCursor: optional(next)}
	for _, e := range found {
		out.Events = append(out.Events, eventJSON{
			ID: e.ID, ContactID: e.ContactID, Event: e.Name, Properties: json.RawMessage(e.Properties),
			OccurredAt: schemas.ISOTime{Time: e.OccurredAt}, ReceivedAt: schemas.ISOTime{Time: e.ReceivedAt}, Source: e.Source, Seq: e.Seq, Era: e.Era,
		})
	}
	return out, err
}
