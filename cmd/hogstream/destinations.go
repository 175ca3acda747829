package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

type destinationsCmd struct {
	Add destinationsAddCmd `cmd:"" help:"Add a destination; the next record is delivered to it."`
	Ls  destinationsLsCmd  `cmd:"" help:"List destinations."`
	Rm  destinationsRmCmd  `cmd:"" help:"Remove a destination."`

	Pause      destinationsPauseCmd      `cmd:"" help:"Stop deliveries at their place."`
	Resume     destinationsResumeCmd     `cmd:"" help:"Go on after a pause or a suspension."`
	Deliveries destinationsDeliveriesCmd `cmd:"" help:"Search the delivery log, newest first."`
	Redeliver  destinationsRedeliverCmd  `cmd:"" help:"Deliver one record again now."`

	Skip destinationsSkipCmd `cmd:"" help:"Go on from now, leaving out what was not sent yet."`
}

type destination struct {
	ID             string          `json:"id"`
	Name           string          `json:"name"`
	URL            string          `json:"url"`
	Kind           string          `json:"kind"`
	Description    *string         `json:"description"`
	EventTypes     []string        `json:"eventTypes"`
	Secret         string          `json:"secret,omitempty"`
	SecretPrefix   *string         `json:"secretPrefix"`
	PublicKey      *string         `json:"publicKey"`
	Config         json.RawMessage `json:"config"`
	Status         string          `json:"status"`
	LastDeliveryAt *string         `json:"lastDeliveryAt"`
	CreatedAt      string          `json:"createdAt"`
}

type destinationsAddCmd struct {
	apiFlags
	URL2        string   `arg:"" name:"destination-url" optional:"" help:"URL that records are delivered to."`
	Name        string   `help:"Unique name; made from the URL when not given."`
	Kind        string   `help:"Kind of sink." default:"webhook"`
	Event       []string `help:"Types to deliver: catalog names or patterns such as contact.*; * is every fact, event.tracked every product event. Repeatable." default:"*,event.tracked"`
	Description string   `help:"What it is for."`
	Config      string   `help:"Settings of the kind, a JSON object."`
}

// Run creates the destination and prints its secret, the only time it is shown.
func (c *destinationsAddCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	body := map[string]any{"url": c.URL2, "kind": c.Kind, "eventTypes": c.Event}
	if c.Name != "" {
		body["name"] = c.Name
	}
	if c.Description != "" {
		body["description"] = c.Description
	}
	if c.Config != "" {
		if !json.Valid([]byte(c.Config)) {
			return fmt.Errorf("--config: not a JSON object")
		}
		body["config"] = json.RawMessage(c.Config)
	}
	var d destination
	if err := api.call(ctx, "POST", "/v1/admin/webhooks", nil, body, &d); err != nil {
		return err
	}
	return out.value(d, func(w io.Writer) {
		fmt.Fprintf(w, "%s  %s → %s (%s)\n", d.ID, d.Name, d.URL, strings.Join(d.EventTypes, ", "))
		if d.Secret != "" {
			fmt.Fprintf(w, "\nsecret %s\nKeep it now: it is not shown again.\n", d.Secret)
		}
		if d.PublicKey != nil {
			fmt.Fprintf(w, "public key %s\n", *d.PublicKey)
		}
	})
}

type destinationsLsCmd struct{ apiFlags }

// Run lists destinations.
func (c *destinationsLsCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var page struct {
		Endpoints []destination `json:"endpoints"`
	}
	if err := api.call(ctx, "GET", "/v1/admin/webhooks", url.Values{"limit": {"100"}}, nil, &page); err != nil {
		return err
	}
	return out.value(page.Endpoints, func(w io.Writer) {
		rows := make([][]string, 0, len(page.Endpoints))
		for _, d := range page.Endpoints {
			last := "never"
			if d.LastDeliveryAt != nil {
				last = *d.LastDeliveryAt
			}
			rows = append(rows, []string{d.ID, d.Name, d.Kind, d.URL, strings.Join(d.EventTypes, ","), d.Status, last})
		}
		table(w, []string{"id", "name", "kind", "url", "types", "status", "last delivery"}, rows)
	})
}

type destinationsRmCmd struct {
	apiFlags
	ID string `arg:"" help:"Id or name of the destination."`
}

// Run removes a destination.
func (c *destinationsRmCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	id, err := destinationID(ctx, api, c.ID)
	if err != nil {
		return err
	}
	var answer map[string]any
	if err := api.call(ctx, "DELETE", "/v1/admin/webhooks/"+url.PathEscape(id), nil, nil, &answer); err != nil {
		return err
	}
	return out.value(answer, func(w io.Writer) { fmt.Fprintln(w, "removed") })
}

// destinationID finds the id of a destination given by id or name.
func destinationID(ctx context.Context, api *client, idOrName string) (string, error) {
	const limit = 100
	for offset := 0; ; offset += limit {
		var page struct {
			Endpoints []destination `json:"endpoints"`
		}
		query := url.Values{"limit": {strconv.Itoa(limit)}, "offset": {strconv.Itoa(offset)}}
		if err := api.call(ctx, "GET", "/v1/admin/webhooks", query, nil, &page); err != nil {
			return "", err
		}
		for _, d := range page.Endpoints {
			if d.Name == idOrName {
				return d.ID, nil
			}
		}
		if len(page.Endpoints) < limit {
			return idOrName, nil
		}
	}
}
