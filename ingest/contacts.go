package ingest

import (
	"net/http"

	"github.com/hogstream/hogstream/schemas"
)

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

// putContact is PUT /v1/contacts.
func (a *API) putContact(x *exchange, r *http.Request) {
	a.change(x, r, contactBody, maxContactBody, a.answerContact)
}

// deleteContact is DELETE /v1/contacts.
func (a *API) deleteContact(x *exchange, r *http.Request) {
	a.change(x, r, deleteBody, maxDeleteBody, a.answerDelete)
}

func (a *API) change(x *exchange, r *http.Request, kind bodyKind, limit int, give func(*exchange, *schemas.Input, *answer)) {
	ws := getWorkspace()
	defer ws.release()
	in, ok := a.readOne(x, r, ws, kind, limit)
	if !ok {
		return
	}
	if a.deps.Answers == nil {
		x.unavailable("Service unavailable: nobody answers here", "")
		return
	}
	in.Wait = true
	a.appendAndWait(x, r, ws, in, give)
}

func (a *API) answerContact(x *exchange, in *schemas.Input, decided *answer) {
	if decided == nil {
		x.encode(http.StatusAccepted, acceptedResponse{InputID: in.ID, Pending: true})
		return
	}
	if decided.Error != "" {
		a.answerRefused(x, decided)
		return
	}
	x.encode(http.StatusOK, contactResponse{
		ID: decided.ContactID, Created: decided.Created, Linked: decided.Linked, Merged: decided.Merged,
		Conflicts: decided.Conflicts, ListsError: decided.ListsError, InputID: in.ID,
	})
}

func (a *API) answerDelete(x *exchange, in *schemas.Input, decided *answer) {
	switch {
	case decided == nil:
		x.encode(http.StatusAccepted, acceptedResponse{InputID: in.ID, Pending: true})
	case decided.Deleted:
		x.json(http.StatusOK, []byte(`{"deleted":true}`))
	case decided.Error == "" || decided.Error == "not_found":
		x.fail(http.StatusNotFound, "Contact not found", "")
	default:
		a.answerRefused(x, decided)
	}
}

// answerRefused is for an input that was understood and could not be applied.
func (a *API) answerRefused(x *exchange, decided *answer) {
	body := struct {
		failureBody
		Conflicts []schemas.Conflict `json:"conflicts,omitempty"`
	}{Conflicts: decided.Conflicts}
	body.RequestID = x.requestID
	status := http.StatusConflict
	switch decided.Error {
	case "conflict":
		body.Error, body.Fix = "The identifiers name different contacts", "send one identifier, or resolve the conflicts"
	case "erased":
		body.Error, body.Fix = "The contact was deleted after the request was sent", "send the request again to create the person anew"
	case "not_found":
		status, body.Error = http.StatusNotFound, "Contact not found"
	default:
		body.Error, body.Fix = "The contact could not be changed", "see conflicts, and the dead letters"
	}
	x.encode(status, body)
}
