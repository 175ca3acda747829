package console

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

// Appender appends messages to the log, as stream.Log does.
type Appender interface {
	Append(ctx context.Context, msgs ...schemas.Message) error
}

// memberJSON is a join to a bucket. Its id is made of bucket, contact and entry count.
type memberJSON struct {
	ID              string           `json:"id"`
	UserID          string           `json:"userId" doc:"The contact's userId, else its anonymousId, else its own id."`
	UserEmail       *string          `json:"userEmail"`
	ContactID       string           `json:"contactId"`
	BucketID        string           `json:"bucketId"`
	Status          string           `json:"status" enum:"active,left"`
	EnteredAt       schemas.ISOTime  `json:"enteredAt" format:"date-time"`
	LeftAt          *schemas.ISOTime `json:"leftAt" format:"date-time"`
	ExpiresAt       *schemas.ISOTime `json:"expiresAt" format:"date-time" doc:"When a member that was put in by hand leaves."`
	MaxDwellAt      *schemas.ISOTime `json:"maxDwellAt" format:"date-time" doc:"When it leaves by the bucket's maxDwell."`
	LastEvaluatedAt *schemas.ISOTime `json:"lastEvaluatedAt" format:"date-time" doc:"null: it is evaluated all the time."`
	EntryCount      int64            `json:"entryCount" doc:"1 for the first join of the contact."`
	Source          *string          `json:"source" doc:"Of the join: event, reconcile, backfill or manual."`
	Reason          *string          `json:"reason" doc:"Of the leave: criteria, maxDwell, manual or merged."`
	Context         struct{}         `json:"context"`
	CreatedAt       schemas.ISOTime  `json:"createdAt" format:"date-time"`
	UpdatedAt       schemas.ISOTime  `json:"updatedAt" format:"date-time"`
}

func memberOf(m *storage.BucketMember) memberJSON {
	out := memberJSON{
		ID: schemas.Derive(m.ContactID, "bucket.member."+m.BucketID, int(m.Epoch)), UserID: m.UserID, UserEmail: optional(m.Email), ContactID: m.ContactID,
		BucketID: m.BucketID, Status: "active", EnteredAt: schemas.ISOTime{Time: m.EnteredAt}, LeftAt: isoOrNil(m.LeftAt),
		ExpiresAt: isoOrNil(m.Until), MaxDwellAt: isoOrNil(m.MaxDwellAt), EntryCount: m.Epoch, Source: optional(m.Source), Reason: optional(m.Reason),
		CreatedAt: schemas.ISOTime{Time: m.EnteredAt}, UpdatedAt: schemas.ISOTime{Time: m.EnteredAt},
	}
	if out.LeftAt != nil {
		out.Status, out.UpdatedAt = "left", *out.LeftAt
	}
	return out
}

func membersOf(list []storage.BucketMember) []memberJSON {
	out := make([]memberJSON, 0, len(list))
	for i := range list {
		out = append(out, memberOf(&list[i]))
	}
	return out
}

// isoOrNil is nil for the zero time.
func isoOrNil(t time.Time) *schemas.ISOTime {
	if t.IsZero() {
		return nil
	}
	return &schemas.ISOTime{Time: t}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// What requests hold, and the answers.
type (
	memberQuery struct {
		web.Page
		Status string  `json:"status" enum:"active,left" default:"active"`
		UserID string  `json:"userId" doc:"a userId, an anonymousId or a contact id: whether this contact is a member"`
		Cursor *string `json:"cursor" doc:"empty to read all members, then nextCursor of the page before; in place of offset"`
	}
	memberPage struct {
		Members []memberJSON `json:"members"`
		Total   int          `json:"total"`
		web.Page
		NextCursor *string     `json:"nextCursor,omitempty" doc:"Of the next page, when the request had a cursor and this is not the last one."`
		State      bucketState `json:"state" doc:"Of the bucket: while it is filling, members are missing."`
	}
	exportQuery struct {
		Format string `json:"format" enum:"ndjson,csv" default:"ndjson"`
	}
	memberRequest struct {
		UserID    string     `json:"userId" minLength:"1" maxLength:"512" doc:"a userId, an anonymousId or a contact id"`
		ExpiresAt *time.Time `json:"expiresAt,omitempty" doc:"When the contact leaves by itself; never when left out. Of a member it is set anew."`
	}
	memberWish struct {
		ID        string           `json:"id" doc:"Of the command on topic signals."`
		BucketID  string           `json:"bucketId"`
		ContactID string           `json:"contactId"`
		Member    bool             `json:"member"`
		ExpiresAt *schemas.ISOTime `json:"expiresAt" format:"date-time"`
	}
)

// bucketMemberRoutes are those of the members of buckets.
func (c *console) bucketMemberRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/buckets/{id}/members", Scopes: reading, Tag: "Buckets", Summary: "List the members of a bucket, or who left it, newest joins first",
			Params: bucketParams, Example: `/v1/admin/buckets/cart-abandoned/members?userId=u-1`, Handle: web.Query(c.listMembers), NotFound: noBucket,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/buckets/{id}/members", Scopes: changing, Tag: "Buckets", Summary: "Put a contact into a manual bucket",
			Text:   "202: the contact becomes a member in the order of its records. One who is a member already gets another expiry.",
			Params: bucketParams, Example: `/v1/admin/buckets/beta-testers/members {"userId":"u-1","expiresAt":"2027-01-31T00:00:00Z"}`, Handle: web.Body(c.addMember), Status: http.StatusAccepted, NotFound: noBucket,
		},
		{
			Method: http.MethodDelete, Path: "/v1/admin/buckets/{id}/members/{userId}", Scopes: changing, Tag: "Buckets", Summary: "Take a contact out of a manual bucket",
			Params:  append([]web.Param{{Name: "userId", Text: "a userId, an anonymousId or a contact id"}}, bucketParams...),
			Example: `/v1/admin/buckets/beta-testers/members/u-1`, Handle: web.Path(c.removeMember), Status: http.StatusAccepted, NotFound: noBucket,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/buckets/{id}/members/export", Scopes: reading, Tag: "Buckets", Summary: "Export all members of a bucket",
			Text:    "As NDJSON, or as CSV with a header. Whoever is a member all the while is in it once. An answer that breaks off is not the whole. Header Bucket-State says `filling` while members are missing.",
			Params:  bucketParams,
			Answers: map[int]any{http.StatusOK: ndjson},
			Example: `/v1/admin/buckets/cart-abandoned/members/export?format=csv`, Handle: web.Query(c.exportMembers), NotFound: noBucket,
		},
	}
}

// listMembers is GET /buckets/{id}/members.
func (c *console) listMembers(r *web.Request, q *memberQuery) (out memberPage, err error) {
	u, b, err := c.bucket(r.Context(), r.TextParam("id"))
	if err != nil {
		return out, err
	}
	out = memberPage{Members: []memberJSON{}, Page: q.Page, State: u.state(b)}
	f := storage.BucketMemberFilter{Left: q.Status == "left"}
	if q.UserID != "" {
		contact, err := c.contactNamed(r.Context(), q.UserID)
		if err != nil || contact == nil {
			return out, err
		}
		f.ContactID = contact.ID
	}
	if out.Total, err = c.DB.CountBucketMembers(r.Context(), b.ID, f); err != nil {
		return out, err
	}
	var found []storage.BucketMember
	if q.Cursor != nil {
		var next string
		found, next, err = c.DB.WalkBucketMembers(r.Context(), b.ID, f, q.Limit, *q.Cursor)
		out.NextCursor = optional(next)
	} else {
		found, err = c.DB.ListBucketMembers(r.Context(), b.ID, f, q.Limit, q.Offset)
	}
	out.Members = membersOf(found)
	return out, err
}

// contactNamed is the contact of a userId as members have it: an external id, an anonymous
// id, or a contact's own; nil when nobody has it.
func (c *console) contactNamed(ctx context.Context, id string) (*storage.Contact, error) {
	return c.DB.ContactNamed(ctx, id, schemas.KindExternal, schemas.KindAnonymous)
}

// addMember is POST /buckets/{id}/members.
func (c *console) addMember(r *web.Request, req *memberRequest) (memberWish, error) {
	if req.ExpiresAt != nil && !req.ExpiresAt.After(time.Now()) {
		return memberWish{}, web.IssuesError{web.Wrong("expiresAt", "too_small", "Too small: the time has passed", "send a time that is to come, or leave the field out")}
	}
	return c.wishMember(r, req.UserID, true, req.ExpiresAt)
}

// removeMember is DELETE /buckets/{id}/members/{userId}.
func (c *console) removeMember(r *web.Request) (memberWish, error) {
	return c.wishMember(r, r.TextParam("userId"), false, nil)
}

// wishMember tells the processor who is to be a member of a manual bucket.
func (c *console) wishMember(r *web.Request, userID string, member bool, until *time.Time) (out memberWish, err error) {
	_, b, err := c.bucket(r.Context(), r.TextParam("id"))
	switch {
	case err != nil:
		return out, err
	case b.Kind != definition.KindManual:
		return out, refuse(http.StatusConflict, fmt.Sprintf("Bucket %s is dynamic: its criteria say who is a member", b.ID), "name a bucket of kind manual")
	case !b.Enabled:
		return out, refuse(http.StatusConflict, fmt.Sprintf("Bucket %s is disabled", b.ID), "enable it first")
	}
	contact, err := c.contactNamed(r.Context(), userID)
	if err != nil {
		return out, err
	}
	if contact == nil {
		return out, refuse(http.StatusNotFound, "Contact not found", "create the contact first, with PUT /v1/contacts, or name another")
	}
	known, err := c.DB.IsDerived(r.Context(), bucketsProcessor, contact.ID)
	if err != nil {
		return out, err
	}
	if !known { // and the command would be about nobody
		return out, refuse(http.StatusServiceUnavailable, "Processor buckets has not seen the contact yet", "send the request again in a moment")
	}
	wish := map[string]any{"bucket": b.ID, "member": member}
	if until != nil {
		wish["until"] = until.UTC()
	}
	ids, err := c.tell(r.Context(), []string{contact.ID}, "member", wish)
	if err != nil {
		return out, err
	}
	c.audit(r, "buckets", b.ID, map[string]any{"operation": "member", "contactId": contact.ID, "member": member, "expiresAt": schemas.ISOTimeOf(until)})
	return memberWish{ids[0], b.ID, contact.ID, member, schemas.ISOTimeOf(until)}, nil
}

// tell appends a command of contacts to the processor of buckets, and returns its ids.
func (c *console) tell(ctx context.Context, contacts []string, what string, content any) (ids []string, err error) {
	text, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	state, now := string(text), time.Now()
	msgs := make([]schemas.Message, 0, len(contacts))
	for _, contact := range contacts {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, err
		}
		ids = append(ids, id.String())
		msgs = append(msgs, &schemas.Signal{ID: id.String(), Type: schemas.SignalCommand, For: bucketsProcessor, ContactID: contact, OccurredAt: now, What: what, State: &state})
	}
	if len(msgs) == 0 {
		return nil, nil
	}
	return ids, c.Log.Append(ctx, msgs...)
}

// Formats of an export.
const (
	ndjson web.Media = "application/x-ndjson"
	asCSV  web.Media = "text/csv; charset=utf-8; header=present"
)

// exportedMember is a line of an export.
type exportedMember struct {
	UserID     string           `json:"userId"`
	Email      *string          `json:"email"`
	ContactID  string           `json:"contactId"`
	EnteredAt  schemas.ISOTime  `json:"enteredAt"`
	ExpiresAt  *schemas.ISOTime `json:"expiresAt"`
	MaxDwellAt *schemas.ISOTime `json:"maxDwellAt"`
	EntryCount int64            `json:"entryCount"`
	Source     string           `json:"source"`
}

// exportMembers is GET /buckets/{id}/members/export.
func (c *console) exportMembers(r *web.Request, q *exportQuery) (any, error) {
	u, b, err := c.bucket(r.Context(), r.TextParam("id"))
	if err != nil {
		return nil, err
	}
	r.Exchange.Header().Set("Bucket-State", u.state(b).Is)
	write, media := writeNDJSON, ndjson
	if q.Format == "csv" {
		write, media = writeCSV, asCSV
	}
	return web.Stream{Media: media, Write: func(ctx context.Context, w io.Writer) error {
		return write(w, func(fn func(*storage.BucketMember) error) error { return c.DB.EachBucketMember(ctx, b.ID, fn) })
	}}, nil
}

func writeNDJSON(w io.Writer, each func(func(*storage.BucketMember) error) error) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return each(func(m *storage.BucketMember) error {
		return enc.Encode(exportedMember{
			m.UserID, optional(m.Email), m.ContactID, schemas.ISOTime{Time: m.EnteredAt}, isoOrNil(m.Until), isoOrNil(m.MaxDwellAt), m.Epoch, m.Source,
		})
	})
}

func writeCSV(w io.Writer, each func(func(*storage.BucketMember) error) error) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{"userId", "email", "contactId", "enteredAt", "expiresAt", "maxDwellAt", "entryCount", "source"}); err != nil {
		return err
	}
	err := each(func(m *storage.BucketMember) error {
		return out.Write([]string{
			m.UserID, m.Email, m.ContactID, isoText(m.EnteredAt), isoText(m.Until), isoText(m.MaxDwellAt), strconv.FormatInt(m.Epoch, 10), m.Source,
		})
	})
	out.Flush()
	if err == nil {
		err = out.Error()
	}
	return err
}

func isoText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}
