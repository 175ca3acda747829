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

type parkedRequest struct {
	Keys      []string `json:"keys,omitempty" doc:"Contact ids."`
	Reason    string   `json:"reason,omitempty" enum:"failing,spilled"`
	Status    int      `json:"status,omitempty" doc:"Of HTTP, of the last attempt."`
	Error     string   `json:"error,omitempty" doc:"A part of the last error."`
	Partition *int     `json:"partition,omitempty"`
	ReplayID  string   `json:"replayId,omitempty" doc:"Of a backfill; 00000000-0000-0000-0000-000000000000 for live deliveries."`
	All       bool     `json:"all,omitempty" doc:"Needed when nothing narrows."`
	Cursor    string   `json:"cursor,omitempty" doc:"nextCursor of the call before, with the same filter."`
}

// parkedRoutes are those of contacts whose records wait.
func (c *console) parkedRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/parked", Scopes: reading, Tag: "Parked keys", Summary: "Count what each destination has parked",
			Answers: map[int]any{200: parkedTotalsPage{}},
			Example: `/v1/admin/parked`, Handle: c.listParkedTotals,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/webhooks/{id}/parked", Scopes: reading, Tag: "Parked keys", Summary: "List the parked contacts of a destination",
			Params: []web.Param{limit500, nextCursor, {Name: "reason", WordsOf: parkedKeyJSON{}}, {Name: "status", Text: "of HTTP, of the last attempt"},
				{Name: "error", Text: "a part of the last error"}, {Name: "partition"}, {Name: "replayId"}, flag("total", "true to count them all")}, Answers: map[int]any{200: parkedPage{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/parked?reason=failing&total=true`, Handle: c.listParked, NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/parked/retry", Scopes: changing, Tag: "Parked keys", Summary: "Try parked contacts again now",
			Request: parkedRequest{}, Answers: map[int]any{200: parkedWished{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/parked/retry {"status":503}`, Handle: c.wishParked("retry", storage.RetryParked), NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/parked/skip", Scopes: changing, Tag: "Parked keys", Summary: "Give up what is parked of contacts by now: dead letters",
			Request: parkedRequest{}, Answers: map[int]any{200: parkedWished{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/parked/skip {"keys":["0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01"]}`, Handle: c.wishParked("skip", storage.SkipParked), NotFound: noWebhook,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/webhooks/{id}/parked/{key}", Scopes: reading, Tag: "Parked keys", Summary: "Show a parked contact and its records",
			Params: []web.Param{limit500, {Name: "key", Text: "contact id"}}, Answers: map[int]any{200: parkedKeyPage{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/parked/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01`, Handle: c.getParked, NotFound: noParkedKey,
		},
	}
}

// listParkedTotals is GET /parked: how much each destination has parked.
func (c *console) listParkedTotals(r *web.Request) (any, error) {
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
func (c *console) listParked(r *web.Request) (any, error) {
	id, err := r.ID()
	if err != nil {
		return nil, err
	}
	f, q := r.Values()
	filter := storage.ParkedFilter{Reason: q.Get("reason"), Status: f.Within(q, "status", 0, 0, 999), Error: q.Get("error"), ReplayID: q.Get("replayId")}
	if q.Has("partition") {
		p := int32(f.Within(q, "partition", 0, 0, 1<<31-1))
		filter.Partition = &p
	}
	limit, total := f.Within(q, "limit", 50, 1, 500), web.QueryFlag(q, "total", false)
	if err := f.Err(); err != nil {
		return nil, err
	}
	if _, err := c.Destinations.Get(r.Context(), id); err != nil {
		return nil, err
	}
	list, next, err := c.DB.ParkedKeys(r.Context(), id, filter, q.Get("cursor"), limit)
	if err != nil {
		return nil, err
	}
	out := parkedPage{Keys: []parkedKeyJSON{}, Limit: limit, NextCursor: optional(next)}
	for i := range list {
		out.Keys = append(out.Keys, parkedKeyOf(&list[i]))
	}
	if total {
		out.Total = &parkedCount{}
		out.Total.Keys, out.Total.Records, err = c.DB.ParkedTotals(r.Context(), id)
	}
	return out, err
}

// getParked is GET /webhooks/{id}/parked/{key}.
func (c *console) getParked(r *web.Request) (any, error) {
	id, err := r.ID()
	if err != nil {
		return nil, err
	}
	f, q := r.Values()
	limit := f.Within(q, "limit", 50, 1, 500)
	if err := f.Err(); err != nil {
		return nil, err
	}
	keys, records, err := c.DB.InspectParkedKey(r.Context(), id, r.TextParam("key"), limit)
	if err == nil && len(keys) == 0 {
		err = web.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	out := parkedKeyPage{Records: []parkedRecordJSON{}}
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
	return func(r *web.Request) (any, error) {
		id, f, err := r.Target()
		if err != nil {
			return nil, err
		}
		filter, narrow := parkedFilter(f)
		all, cursor := f.Flag("all"), f.Text("cursor", 1, maxURL)
		if err := f.Err(); err != nil {
			return nil, err
		}
		if !narrow && (all == nil || !*all) {
			f.Wrong("all", "custom", "Nothing says which keys", `name "keys", narrow with "reason", "status", "error", "partition" or "replayId", or send "all": true`)
			return nil, f.Err()
		}
		if _, err := c.Destinations.Get(r.Context(), id); err != nil {
			return nil, err
		}
		out := parkedWished{NextCursor: cursor}
		for began := time.Now(); out.NextCursor != nil || out.Keys == 0; {
			from := ""
			take(&from, out.NextCursor)
			n, next, err := c.DB.WishParked(r.Context(), wish, id, filter, from)
			if err != nil {
				return nil, err
			}
			out.Keys, out.NextCursor = out.Keys+n, optional(next)
			if next == "" || time.Since(began) > wishTime {
				break
			}
		}
		filter.Keys = filter.Keys[:min(len(filter.Keys), 20)] // of a long list its beginning tells enough
		c.audit(r, "webhooks", id, map[string]any{"operation": "parked-" + what, "filter": filter, "keys": out.Keys})
		return out, nil
	}
}

// parkedFilter reads which keys are meant, and whether the body narrows at all.
func parkedFilter(f *web.Form) (filter storage.ParkedFilter, narrow bool) {
	filter.Keys = f.Texts("keys")
	take(&filter.Reason, f.Text("reason", 1, maxNameLen))
	take(&filter.Error, f.Text("error", 1, maxDescribed))
	take(&filter.ReplayID, f.Text("replayId", 1, maxNameLen))
	take(&filter.Status, f.Whole("status"))
	if n := f.Whole("partition"); n != nil {
		p := int32(*n)
		filter.Partition = &p
	}
	narrow = len(filter.Keys) > 0 || filter.Partition != nil || filter.Status != 0 || filter.Reason+filter.Error+filter.ReplayID != ""
	return filter, narrow
}
