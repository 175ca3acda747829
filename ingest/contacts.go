package ingest

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

// What bodies look like, for the description alone: they are read by hand.
type (
	contactRequest struct {
		UserID      string          `json:"userId,omitempty" minLength:"1" maxLength:"255" doc:"One of userId, email and anonymousId is needed."`
		Email       string          `json:"email,omitempty" format:"email" maxLength:"320"`
		AnonymousID string          `json:"anonymousId,omitempty" minLength:"1" maxLength:"255"`
		Properties  map[string]any  `json:"properties,omitempty" doc:"Merged into the contact's; null removes a property."`
		Lists       map[string]bool `json:"lists,omitempty"`
	}
	// SubjectRequest names a person.
	SubjectRequest struct {
		UserID      string `json:"userId,omitempty"`
		Email       string `json:"email,omitempty"`
		AnonymousID string `json:"anonymousId,omitempty"`
	}
	findQuery struct {
		SubjectRequest
		ID string `json:"id,omitempty" doc:"the contact's own id"`
	}
	deletedResponse struct {
		Deleted bool `json:"deleted"`
	}
	conflictResponse struct {
		Error     string             `json:"error"`
		Fix       string             `json:"fix,omitempty"`
		RequestID string             `json:"requestId"`
		Conflicts []schemas.Conflict `json:"conflicts,omitempty"`
	}
)

func (a *API) contactRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodPut, Path: "/v1/contacts", Scopes: []string{storage.ScopeIngest, storage.ScopeWrite}, Tag: "Contacts", Summary: "Create or change a contact",
			Text:    "Answers when the change is applied; 202 with the input's id when that takes longer than 5 seconds.",
			Request: contactRequest{}, Answers: map[int]any{200: contactResponse{}, 202: acceptedResponse{}, 409: conflictResponse{}, 413: conflictResponse{}},
			Example: `/v1/contacts {"userId":"u-1","properties":{"plan":"pro"}}`, Serve: a.putContact,
		},
		{
			Method: http.MethodDelete, Path: "/v1/contacts", Scopes: []string{storage.ScopeIngest}, Tag: "Contacts", Summary: "Erase a contact",
			Text:    "404 when there is none.",
			Request: SubjectRequest{}, Answers: map[int]any{200: deletedResponse{}, 202: acceptedResponse{}, 404: web.FailureBody{}, 409: conflictResponse{}},
			Example: `/v1/contacts {"userId":"u-1"}`, Serve: a.deleteContact,
		},
		{
			Method: http.MethodGet, Path: "/v1/contacts/find", Scopes: []string{storage.ScopeIngest, storage.ScopeRead}, Tag: "Contacts", Summary: "Find contacts",
			Text:    "By any name a contact ever had, also of one that was merged into it. At least one parameter is needed; each finds at most one.",
			Query:   findQuery{},
			Answers: map[int]any{200: contactsResponse{}}, Example: "/v1/contacts/find?email=ada@example.com", Serve: a.findContacts,
		},
	}
}

// contactResponse is the answer to PUT /v1/contacts.
type contactResponse struct {
	ID         string             `json:"id"`
	Created    bool               `json:"created"`
	Linked     bool               `json:"linked"`
	Merged     []string           `json:"merged,omitempty"`
	Conflicts  []schemas.Conflict `json:"conflicts,omitempty"`
	ListsError string             `json:"listsError,omitempty"`
	InputID    string             `json:"inputId"`
}

// acceptedResponse says that an input is on the log and what comes of it was not
// known in time.
type acceptedResponse struct {
	InputID string `json:"inputId"`
	Pending bool   `json:"pending"`
}

// refusedResponse is a failure with what stood in the way.
type refusedResponse struct {
	web.FailureBody
	Conflicts []schemas.Conflict `json:"conflicts,omitempty"`
}

const noSubject = "email or userId is required"

func failNoSubject(x *web.Exchange) {
	x.Fail(http.StatusBadRequest, noSubject, "name the person: give userId, email or anonymousId")
}

// conflictSize is the kind of the conflict of a patch that was refused because
// the contact would have grown beyond schemas.MaxProperties.
const conflictSize = "size"

// putContact is PUT /v1/contacts.
func (a *API) putContact(x *web.Exchange, r *http.Request) {
	a.change(x, r, contactBody, maxContactBody, a.answerContact)
}

// deleteContact is DELETE /v1/contacts.
func (a *API) deleteContact(x *web.Exchange, r *http.Request) {
	a.change(x, r, deleteBody, maxDeleteBody, a.answerDelete)
}

func (a *API) change(x *web.Exchange, r *http.Request, kind bodyKind, limit int, give giver) {
	in, ok := a.readOne(x, r, kind, limit)
	if !ok {
		return
	}
	if a.deps.Answers == nil {
		x.Unavailable("Service unavailable: nobody answers here", "")
		return
	}
	a.appendAndWait(x, r, in, give)
}

func (a *API) answerContact(_ context.Context, x *web.Exchange, in *schemas.Input, decided *schemas.Answer) {
	if decided == nil {
		x.Encode(http.StatusAccepted, acceptedResponse{InputID: in.ID, Pending: true})
		return
	}
	if decided.Error != "" {
		a.answerRefused(x, decided)
		return
	}
	if i := slices.IndexFunc(decided.Conflicts, func(c schemas.Conflict) bool { return c.Kind == conflictSize }); i >= 0 {
		x.Encode(http.StatusRequestEntityTooLarge, refusedResponse{
			FailureBody: web.FailureBody{Error: "The contact would be too large: the properties were not changed", Fix: decided.Conflicts[i].Reason, RequestID: x.RequestID},
			Conflicts:   decided.Conflicts,
		})
		return
	}
	x.Encode(http.StatusOK, contactResponse{
		ID: decided.ContactID, Created: decided.Created, Linked: decided.Linked, Merged: decided.Merged,
		Conflicts: decided.Conflicts, ListsError: decided.ListsError, InputID: in.ID,
	})
}

func (a *API) answerDelete(_ context.Context, x *web.Exchange, in *schemas.Input, decided *schemas.Answer) {
	switch {
	case decided == nil:
		x.Encode(http.StatusAccepted, acceptedResponse{InputID: in.ID, Pending: true})
	case decided.Deleted:
		x.JSON(http.StatusOK, []byte(`{"deleted":true}`))
	case decided.Error == "" || decided.Error == schemas.AnswerNotFound:
		x.Fail(http.StatusNotFound, "Contact not found", "")
	default:
		a.answerRefused(x, decided)
	}
}

// answerRefused is for an input that was understood and could not be applied.
func (a *API) answerRefused(x *web.Exchange, decided *schemas.Answer) {
	body := refusedResponse{Conflicts: decided.Conflicts}
	body.RequestID = x.RequestID
	status := http.StatusConflict
	switch decided.Error {
	case schemas.AnswerConflict:
		body.Error, body.Fix = "The identifiers name different contacts", "send one identifier, or resolve the conflicts"
	case schemas.AnswerErased:
		body.Error, body.Fix = "The contact was deleted after the request was sent", "send the request again to create the person anew"
	case schemas.AnswerNotFound:
		status, body.Error = http.StatusNotFound, "Contact not found"
	default:
		body.Error, body.Fix = "The contact could not be changed", "see conflicts, and the dead letters"
	}
	x.Encode(status, body)
}

// contactJSON is a contact as the API shows it.
type contactJSON struct {
	ID          string          `json:"id"`
	ExternalID  *string         `json:"externalId"`
	Email       *string         `json:"email"`
	AnonymousID *string         `json:"anonymousId"`
	Properties  json.RawMessage `json:"properties"`
	FirstSeenAt string          `json:"firstSeenAt"`
	LastSeenAt  string          `json:"lastSeenAt"`
	CreatedAt   string          `json:"createdAt"`
	UpdatedAt   string          `json:"updatedAt"`
}

type contactsResponse struct {
	Contacts []contactJSON `json:"contacts"`
}

func contactOf(c *storage.Contact) contactJSON {
	return contactJSON{
		ID: c.ID, ExternalID: optional(&c.ExternalID), Email: optional(&c.Email), AnonymousID: optional(&c.AnonymousID),
		Properties:  json.RawMessage(c.Properties),
		FirstSeenAt: isoTime(c.FirstSeenAt), LastSeenAt: isoTime(c.LastSeenAt), CreatedAt: isoTime(c.CreatedAt), UpdatedAt: isoTime(c.UpdatedAt),
	}
}

// findContacts is GET /v1/contacts/find?email=&userId=&anonymousId=&id=. It
// knows contacts by every name they ever had, also through merges.
func (a *API) findContacts(x *web.Exchange, r *http.Request) {
	query := r.URL.Query()
	d := &draft{}
	var names []schemas.Identifier
	for parameter, kind := range map[string]string{"email": schemas.KindEmail, "userId": schemas.KindExternal, "anonymousId": schemas.KindAnonymous, "id": ""} {
		value := strings.TrimSpace(query.Get(parameter))
		switch {
		case value == "":
		case !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0:
			d.issue(web.Issue{Code: "invalid_format", Origin: "string", Format: "text", Message: "Invalid text: not UTF-8, or contains the character U+0000", Fix: "send plain text"}, parameter)
		case kind == "":
			id, err := uuid.Parse(value)
			if err != nil {
				d.issue(web.Issue{Code: "invalid_format", Origin: "string", Format: "uuid", Message: "Invalid UUID", Fix: "send the contact's id"}, parameter)
				continue
			}
			names = append(names, schemas.Identifier{Value: id.String()}) // other forms of it are none to Postgres
		case kind == schemas.KindEmail:
			names = append(names, schemas.Identifier{Kind: kind, Value: strings.ToLower(value)})
		default:
			names = append(names, schemas.Identifier{Kind: kind, Value: value})
		}
	}
	switch {
	case len(d.issues) > 0:
		x.FailIssues(d.issues)
		return
	case len(names) == 0:
		failNoSubject(x)
		return
	}
	ctx, cancel := a.bounded(r)
	defer cancel()
	found, err := a.find(ctx, names)
	if err != nil {
		x.FailErr(err)
		return
	}
	response := contactsResponse{Contacts: make([]contactJSON, 0, len(found))}
	for _, c := range found {
		response.Contacts = append(response.Contacts, contactOf(c))
	}
	x.Encode(http.StatusOK, response)
}

// find looks for contacts by identifiers, and by id where the kind is empty.
func (a *API) find(ctx context.Context, names []schemas.Identifier) ([]*storage.Contact, error) {
	byName := slices.DeleteFunc(slices.Clone(names), func(n schemas.Identifier) bool { return n.Kind == "" })
	var found []*storage.Contact
	if len(byName) > 0 {
		var err error
		if found, err = a.deps.DB.FindContacts(ctx, byName); err != nil {
			return nil, err
		}
	}
	for _, n := range names {
		if n.Kind != "" {
			continue
		}
		c, err := a.deps.DB.GetContact(ctx, n.Value)
		switch {
		case storage.IsNotFound(err):
		case err != nil:
			return nil, err
		case !slices.ContainsFunc(found, func(other *storage.Contact) bool { return other.ID == c.ID }):
			found = append(found, c)
		}
	}
	return found, nil
}
