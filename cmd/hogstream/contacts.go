package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

type contactsCmd struct {
	Ls     contactsLsCmd     `cmd:"" help:"List contacts, last seen first."`
	Upsert contactsUpsertCmd `cmd:"" help:"Create a contact, or change one."`
	Delete contactsDeleteCmd `cmd:"" help:"Erase a contact."`
	Get    contactsGetCmd    `cmd:"" help:"Find contacts by user id, email, or contact id."`
	Show   contactsShowCmd   `cmd:"" help:"Show a contact and its timeline: events, facts and deliveries."`
}

type contactsGetCmd struct {
	apiFlags
	ID     string `arg:"" optional:"" help:"A user id, or an email address."`
	Email  string `help:"Email address."`
	UserID string `help:"User id."`
}

// Run prints the contacts that are found; none is an error.
func (c *contactsGetCmd) Run(ctx context.Context, out *output) error {
	if c.ID != "" {
		if strings.Contains(c.ID, "@") {
			c.Email = c.ID
		} else {
			c.UserID = c.ID
		}
	}
	query := url.Values{}
	if c.Email != "" {
		query.Set("email", c.Email)
	}
	if c.UserID != "" {
		query.Set("userId", c.UserID)
	}
	if len(query) == 0 {
		return errors.New("give --email or --user-id")
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	var answer struct {
		Contacts []json.RawMessage `json:"contacts"`
	}
	if err := api.call(ctx, "GET", "/v1/contacts/find", query, nil, &answer); err != nil {
		return err
	}
	if len(answer.Contacts) == 0 {
		return errors.New("no such contact")
	}
	return out.value(answer.Contacts, func(w io.Writer) {
		for _, contact := range answer.Contacts {
			var v any
			_ = json.Unmarshal(contact, &v)
			b, _ := json.MarshalIndent(v, "", "  ")
			fmt.Fprintln(w, string(b))
		}
	})
}
