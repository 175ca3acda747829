package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

type contactsLsCmd struct {
	apiFlags
	Search string `help:"Only those with this in email, user id or anonymous id."`
	Limit  int    `help:"At most so many." default:"50"`
}

// Run lists contacts, last seen first.
func (c *contactsLsCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	query := url.Values{}
	setQuery(query, "search", c.Search)
	found, err := offsetPages[json.RawMessage](ctx, api, "/v1/admin/contacts", "contacts", query, c.Limit)
	if err != nil {
		return err
	}
	return out.value(found, func(w io.Writer) {
		rows := make([][]string, 0, len(found))
		for _, raw := range found {
			var contact struct {
				ID          string          `json:"id"`
				ExternalID  *string         `json:"externalId"`
				AnonymousID *string         `json:"anonymousId"`
				Email       *string         `json:"email"`
				LastSeenAt  string          `json:"lastSeenAt"`
				Properties  json.RawMessage `json:"properties"`
			}
			_ = json.Unmarshal(raw, &contact)
			rows = append(rows, []string{contact.ID, text(contact.ExternalID), text(contact.Email), text(contact.AnonymousID), contact.LastSeenAt, string(contact.Properties)})
		}
		table(w, []string{"id", "user id", "email", "anonymous id", "last seen", "properties"}, rows)
	})
}

// subjectFlags name a person.
type subjectFlags struct {
	ID          string `arg:"" optional:"" help:"A user id, or an email address."`
	Email       string `help:"Email address."`
	UserID      string `help:"User id."`
	AnonymousID string `help:"Anonymous id."`
}

// body is the person as the API takes it.
func (f *subjectFlags) body() (map[string]any, error) {
	switch {
	case f.ID == "":
	case strings.Contains(f.ID, "@"):
		f.Email = f.ID
	default:
		f.UserID = f.ID
	}
	body := map[string]any{}
	for name, value := range map[string]string{"email": f.Email, "userId": f.UserID, "anonymousId": f.AnonymousID} {
		if value != "" {
			body[name] = value
		}
	}
	if len(body) == 0 {
		return nil, errors.New("name the contact: a user id, an email address, or --anonymous-id")
	}
	return body, nil
}

type contactsUpsertCmd struct {
	apiFlags
	subjectFlags
	Prop  map[string]string `help:"Property, name=value; the value is JSON, else a string; null removes it. Repeatable." mapsep:"none"`
	Props string            `help:"Properties as a JSON object."`
	List  map[string]bool   `help:"List, name=true to be on it, name=false to leave it. Repeatable." mapsep:"none"`
}

// changed is the answer to a change of a contact.
type changed struct {
	ID      string   `json:"id,omitempty"`
	Created bool     `json:"created"`
	Linked  bool     `json:"linked"`
	Merged  []string `json:"merged,omitempty"`
	InputID string   `json:"inputId"`
	Pending bool     `json:"pending,omitempty"`
	Lists   string   `json:"listsError,omitempty"`
}

// Run creates or changes a contact.
func (c *contactsUpsertCmd) Run(ctx context.Context, out *output) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	props, err := properties("props", c.Props, c.Prop)
	if err != nil {
		return err
	}
	if len(props) > 0 {
		body["properties"] = props
	}
	if len(c.List) > 0 {
		body["lists"] = c.List
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	var answer changed
	if err := api.call(ctx, http.MethodPut, "/v1/contacts", nil, body, &answer); err != nil {
		return err
	}
	return out.value(answer, func(w io.Writer) { fmt.Fprintln(w, answer.text()) })
}

func (c *changed) text() string {
	switch {
	case c.Pending:
		return "accepted as " + c.InputID + ", and not applied yet: see hogstream processors ls"
	case c.Created:
		return "created " + c.ID
	case len(c.Merged) > 0:
		return "changed " + c.ID + ", merged with it: " + strings.Join(c.Merged, ", ")
	}
	return "changed " + c.ID
}

type contactsDeleteCmd struct {
	apiFlags
	subjectFlags
	Yes bool `help:"Do not ask." short:"y"`
}

// Run erases a contact.
func (c *contactsDeleteCmd) Run(ctx context.Context, out *output) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	if !c.Yes {
		if err := confirm(ctx, "Erase this contact with all that is known of it? That cannot be undone."); err != nil {
			return err
		}
	}
	var answer json.RawMessage
	if err := api.call(ctx, http.MethodDelete, "/v1/contacts", nil, body, &answer); err != nil {
		return err
	}
	var pending changed
	_ = json.Unmarshal(answer, &pending)
	return out.value(answer, func(w io.Writer) {
		if pending.Pending {
			fmt.Fprintln(w, pending.text())
			return
		}
		fmt.Fprintln(w, "erased")
	})
}
