package console

import (
	"net/http"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/web"
)

// parkedKeyJSON is a contact whose records wait because the first of them failed
// or there are too many.
type parkedKeyJSON struct {
	Key           string            `json:"key" doc:"The contact id."`
	Reason        string            `json:"reason" enum:"failing,spilled"`
	Since         *schemas.ISOTime  `json:"since" format:"date-time"`
	FirstFailedAt *schemas.ISOTime  `json:"firstFailedAt" format:"date-time"`
	NextAttemptAt *schemas.ISOTime  `json:"nextAttemptAt" format:"date-time" doc:"null: as soon as there is room, as for what spilled or is to be tried again now."`
	Skipping      bool              `json:"skipping" doc:"What is parked by now is being given up."`
	Attempts      int               `json:"attempts" doc:"Made of the oldest record."`
	FailingMS     int64             `json:"failingMs" doc:"For how long it has failed, counting only time in which the destination is delivered to."`
	Status        *int              `json:"status"`
	Error         *string           `json:"error" doc:"The class of the failure; its text is in the delivery log."`
	Records       int               `json:"records"`
	Bytes         int64             `json:"bytes"`
	Oldest        *parkedRecordJSON `json:"oldest"`
	Partition     int32             `json:"partition"`
	ReplayID      *string           `json:"replayId"`
}

// parkedRecordJSON is a record that waits, named as a delivery is.
type parkedRecordJSON struct {
	Delivery   string           `json:"deliveryId"`
	RecordID   string           `json:"recordId"`
	Type       string           `json:"type"`
	OccurredAt *schemas.ISOTime `json:"occurredAt" format:"date-time"`
	AppendedAt schemas.ISOTime  `json:"appendedAt" format:"date-time"`
	ParkedAt   schemas.ISOTime  `json:"parkedAt" format:"date-time"`
	Bytes      *int             `json:"bytes,omitempty"`
	ReplayID   *string          `json:"replayId"`
}

type parkedPage struct {
	Keys       []parkedKeyJSON `json:"keys"`
	Total      *parkedCount    `json:"total" doc:"Of the destination whatever the filter; when total=true asks for it, since it counts them all."`
	Limit      int             `json:"limit"`
	NextCursor *string         `json:"nextCursor"`
}

type parkedCount struct {
	Keys    int `json:"keys"`
	Records int `json:"records"`
}

type parkedKeyPage struct {
	Keys    []parkedKeyJSON    `json:"keys" doc:"Its state in live deliveries and in each backfill."`
	Records []parkedRecordJSON `json:"records" doc:"In the order of their delivery."`
}

type parkedTotalsPage struct {
	Destinations []parkedTotalJSON `json:"destinations"`
}

type parkedTotalJSON struct {
	ID            string           `json:"destinationId"`
	Name          string           `json:"name"`
	Keys          int              `json:"keys"`
	Records       int              `json:"records"`
	NextAttemptAt *schemas.ISOTime `json:"nextAttemptAt" format:"date-time" doc:"Of the first of them; null: as soon as there is room."`
}

type parkedWished struct {
	Keys       int     `json:"keys" doc:"How many keys that concerns."`
	NextCursor *string `json:"nextCursor" doc:"Not all in this call: send it as cursor to go on."`
}

const noParkedKey = "No such key is parked"

func parkedKeyOf(k *storage.WaitingKey) parkedKeyJSON {
	out := parkedKeyJSON{
		Key: k.Key, Reason: k.Reason, Since: schemas.ISOTimeOf(k.Since), FirstFailedAt: schemas.ISOTimeOf(k.FirstFailedAt), NextAttemptAt: attemptAt(k.NextAttemptAt),
		Skipping: k.SkipBefore != nil, Attempts: k.Attempts, FailingMS: k.Failing.Milliseconds(), Error: optional(delivery.FailureClass(k.Error, k.Status)),
		Records: k.Records, Bytes: k.Bytes, Partition: k.Partition, ReplayID: replayIDOf(k.ReplayID),
	}
	if k.Status != 0 {
		out.Status = &k.Status
	}
	if k.Oldest != nil {
		oldest := parkedRecordOf(k.Oldest)
		out.Oldest = &oldest
	}
	return out
}

// attemptAt is nil for a key that waits for no time: such keys are due by 1970, in the
// order in which they are taken.
func attemptAt(due time.Time) *schemas.ISOTime {
	if !due.After(time.Unix(0, 0)) {
		return nil
	}
	return schemas.ISOTimeOf(&due)
}

func parkedRecordOf(r *storage.ParkedRecord) parkedRecordJSON {
	out := parkedRecordJSON{
		Delivery: place{schemas.Topic(r.Topic), r.Partition, r.Offset}.String(), RecordID: r.RecordID, Type: r.RecordType,
		AppendedAt: schemas.ISOTime{Time: r.AppendTime}, ParkedAt: schemas.ISOTime{Time: r.ParkedAt}, ReplayID: replayIDOf(r.ReplayID),
	}
	if !r.OccurredAt.IsZero() {
		out.OccurredAt = schemas.ISOTimeOf(&r.OccurredAt)
	}
	if r.Value != nil {
		n := len(r.Value)
		out.Bytes = &n
	}
	return out
}

func replayIDOf(id string) *string {
	if id == storage.LiveReplay {
		return nil
	}
	return &id
}

// ParkedFilter narrows which parked keys are meant.
type ParkedFilter struct {
	Reason    string `json:"reason,omitempty" enum:"failing,spilled"`
	Status    int    `json:"status,omitempty" minimum:"0" maximum:"999" doc:"Of HTTP, of the last attempt."`
	Error     string `json:"error,omitempty" minLength:"1" maxLength:"500" doc:"A part of the last error."`
	Partition *int32 `json:"partition,omitempty" minimum:"0" maximum:"2147483647"`
	ReplayID  string `json:"replayId,omitempty" minLength:"1" maxLength:"100" doc:"Of a backfill; 00000000-0000-0000-0000-000000000000 for live deliveries."`
}

type (
	parkedQuery struct {
		NextPage
		ParkedFilter
		Limit int  `json:"limit" minimum:"1" maximum:"500" default:"50"`
		Total bool `json:"total" doc:"true to count them all"`
	}
	parkedRequest struct {
		Keys []string `json:"keys,omitempty" minItems:"1" nullable:"false" doc:"Contact ids."`
		ParkedFilter
		All    bool   `json:"all,omitempty" doc:"Needed when nothing narrows."`
		Cursor string `json:"cursor,omitempty" minLength:"1" maxLength:"2048" doc:"nextCursor of the call before, with the same filter."`
	}
	parkedKeyQuery struct {
		Limit int `json:"limit" minimum:"1" maximum:"500" default:"50"`
	}
)

func (f *ParkedFilter) filter() storage.ParkedFilter {
	return storage.ParkedFilter{Reason: f.Reason, Status: f.Status, Error: f.Error, Partition: f.Partition, ReplayID: f.ReplayID}
}

// parkedRoutes are those of contacts whose records wait.
func (c *console) parkedRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/parked", Scopes: reading, Tag: "Parked keys", Summary: "Count what each destination has parked",
			Example: `/v1/admin/parked`, Handle: web.Path(c.listParkedTotals),
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/webhooks/{id}/parked", Scopes: reading, Tag: "Parked keys", Summary: "List the parked contacts of a destination",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/parked?reason=failing&total=true`, Handle: web.Query(c.listParked), NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/parked/retry", Scopes: changing, Tag: "Parked keys", Summary: "Try parked contacts again now",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/parked/retry {"status":503}`, Handle: c.wishParked("retry", storage.RetryParked), NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/parked/skip", Scopes: changing, Tag: "Parked keys", Summary: "Give up what is parked of contacts by now: dead letters",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/parked/skip {"keys":["0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01"]}`, Handle: c.wishParked("skip", storage.SkipParked), NotFound: noWebhook,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/webhooks/{id}/parked/{key}", Scopes: reading, Tag: "Parked keys", Summary: "Show a parked contact and its records",
			Params:  []web.Param{{Name: "key", Text: "contact id"}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/parked/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01`, Handle: web.Query(c.getParked), NotFound: noParkedKey,
		},
	}
}

// listParkedTotals is GET /parked: how much each destination has parked.
func (c *console) listParkedTotals(r *web.Request) (parkedTotalsPage, error) {
	totals, err := c.DB.AllParkedTotals(r.Context())
	out := parkedTotalsPage{Destinations: []parkedTotalJSON{}}
	for _, t := range totals {
		out.Destinations = append(out.Destinations, parkedTotalJSON{
			ID: t.DestinationID, Name: t.Destination, Keys: t.Keys, Records: t.Records, NextAttemptAt: attemptAt(t.NextAttemptAt),
		})
	}
	return out, err
}

// listParked is GET /webhooks/{id}/parked.
func (c *console) listParked(r *web.Request, q *parkedQuery) (out parkedPage, err error) {
	if _, err := c.Destinations.Get(r.Context(), r.ID); err != nil {
		return out, err
	}
	list, next, err := c.DB.ParkedKeys(r.Context(), r.ID, q.filter(), q.Cursor, q.Limit)
	if err != nil {
		return out, err
	}
	out = parkedPage{Keys: []parkedKeyJSON{}, Limit: q.Limit, NextCursor: optional(next)}
	for i := range list {
		out.Keys = append(out.Keys, parkedKeyOf(&list[i]))
	}
	if q.Total {
		out.Total = &parkedCount{}
		out.Total.Keys, out.Total.Records, err = c.DB.ParkedTotals(r.Context(), r.ID)
	}
	return out, err
}

// getParked is GET /webhooks/{id}/parked/{key}.
func (c *console) getParked(r *web.Request, q *parkedKeyQuery) (out parkedKeyPage, err error) {
	keys, records, err := c.DB.InspectParkedKey(r.Context(), r.ID, r.TextParam("key"), q.Limit)
	if err == nil && len(keys) == 0 {
		err = web.ErrNotFound
	}
	if err != nil {
		return out, err
	}
	out.Records = []parkedRecordJSON{}
	for i := range keys {
		out.Keys = append(out.Keys, parkedKeyOf(&keys[i]))
	}
	for i := range records {
		out.Records = append(out.Records, parkedRecordOf(&records[i]))
	}
	return out, nil
}

// wishTime bounds a call that retries or skips, and leaves time for a last part.
const wishTime = 5 * time.Second

// wishParked makes the handler of POST /webhooks/{id}/parked/retry and /skip: of
// the keys that the body names or narrows to, or of all when it says so.
// Of very many keys a call does what it can in some seconds.
func (c *console) wishParked(what string, wish storage.ParkedWish) web.Handler {
	return web.Body(func(r *web.Request, req *parkedRequest) (out parkedWished, err error) {
		if len(req.Keys) == 0 && req.ParkedFilter == (ParkedFilter{}) && !req.All {
			return out, web.IssuesError{web.Wrong("all", "custom", "Nothing says which keys", `name "keys", narrow with "reason", "status", "error", "partition" or "replayId", or send "all": true`)}
		}
		if _, err := c.Destinations.Get(r.Context(), r.ID); err != nil {
			return out, err
		}
		filter, from := req.filter(), req.Cursor
		filter.Keys = req.Keys
		for began := time.Now(); ; {
			var n int
			if n, from, err = c.DB.WishParked(r.Context(), wish, r.ID, filter, from); err != nil {
				return out, err
			}
			out.Keys += n
			if from == "" || time.Since(began) > wishTime {
				break
			}
		}
		out.NextCursor = optional(from)
		filter.Keys = filter.Keys[:min(len(filter.Keys), 20)] // of a long list its beginning tells enough
		c.audit(r, "webhooks", r.ID, map[string]any{"operation": "parked-" + what, "filter": filter, "keys": out.Keys})
		return out, nil
	})
}
