package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/hogstream/hogstream/stream/replay"
)

type deadlettersCmd struct {
	Ls      deadlettersLsCmd      `cmd:"" help:"List what could not be processed or delivered, newest first."`
	Show    deadlettersShowCmd    `cmd:"" help:"Show one with its original bytes."`
	Redrive deadlettersRedriveCmd `cmd:"" help:"Send one, those that match, or all on their way again."`
	Discard deadlettersDiscardCmd `cmd:"" help:"Mark one as not wanted any more."`
}

type letter struct {
	ID         string  `json:"id"`
	Source     string  `json:"source"`
	Reason     string  `json:"reason"`
	Error      string  `json:"error"`
	Status     string  `json:"status"`
	CreatedAt  string  `json:"createdAt"`
	RecordType string  `json:"recordType"`
	RecordKey  string  `json:"recordKey"`
	Topic      string  `json:"topic"`
	Partition  int32   `json:"partition"`
	Offset     int64   `json:"offset"`
	SourceID   *string `json:"sourceId"`

	Destination *struct {
		Name string `json:"name"`
		Kind string `json:"kind"`
		URL  string `json:"url"`
	} `json:"destination"`
}

// from is what gave up: of a delivery with the kind and URL of where it was to go.
func (l *letter) from() string {
	if l.Destination == nil {
		return l.Source
	}
	return fmt.Sprintf("%s (%s %s)", l.Source, l.Destination.Kind, l.Destination.URL)
}

// letterFlags narrow dead letters.
type letterFlags struct {
	apiFlags
	Source      string `help:"Only of this source: processor:<name> or destination:<name>."`
	Destination string `help:"Only of this destination, by id or name."`
	Reason      string `help:"Only with this reason: undecodable, failed, rejected, expired, skipped, gap, too-large."`
	Type        string `help:"Only of this type of record; event.tracked is all product events, a * at the end any ending."`
	Contact     string `help:"Only of this contact id."`
	From        string `help:"Only what was given up from this time on."`
	To          string `help:"Only what was given up before this time."`
}

func (f *letterFlags) query(ctx context.Context, api *client) (url.Values, error) {
	query := url.Values{}
	setQuery(query, "source", f.Source, "reason", f.Reason, "type", f.Type, "contact", f.Contact, "from", f.From, "to", f.To)
	if f.Destination != "" {
		id, err := destinationID(ctx, api, f.Destination)
		if err != nil {
			return nil, err
		}
		query.Set("destination", id)
	}
	return query, nil
}

type deadlettersLsCmd struct {
	letterFlags
	Status string `help:"Only in this state: pending, retrying, retried, discarded." enum:",pending,retrying,retried,discarded" default:""`
	Limit  int    `help:"At most so many." default:"50"`
}

// Run lists dead letters.
func (c *deadlettersLsCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	query, err := c.query(ctx, api)
	if err != nil {
		return err
	}
	setQuery(query, "status", c.Status)
	found, err := pages[letter](ctx, api, "/v1/admin/dlq", "entries", query, c.Limit, 100)
	if err != nil {
		return err
	}
	return out.value(found, func(w io.Writer) {
		rows := make([][]string, 0, len(found))
		for _, l := range found {
			rows = append(rows, []string{l.ID, l.CreatedAt, l.from(), l.Reason, l.RecordType, l.RecordKey, l.Status, l.Error})
		}
		table(w, []string{"id", "at", "source", "reason", "type", "key", "status", "error"}, rows)
	})
}

type deadlettersShowCmd struct {
	apiFlags
	ID string `arg:"" help:"Id of the dead letter."`
}

// Run shows a dead letter.
func (c *deadlettersShowCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	return showJSON(ctx, out, api, "/v1/admin/dlq/"+url.PathEscape(c.ID), nil)
}

type deadlettersRedriveCmd struct {
	letterFlags
	ID  string `arg:"" optional:"" help:"Id of the dead letter; without one, those that the flags name."`
	All bool   `help:"All pending ones."`
	Yes bool   `help:"Do not ask." short:"y"`
}

// Run redrives.
func (c *deadlettersRedriveCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	if c.ID != "" {
		var answer map[string]any
		if err := api.call(ctx, "POST", "/v1/admin/dlq/"+url.PathEscape(c.ID)+"/retry", nil, nil, &answer); err != nil {
			return err
		}
		return out.value(answer, func(w io.Writer) { fmt.Fprintln(w, "on its way again") })
	}
	query, err := c.query(ctx, api)
	if err != nil {
		return err
	}
	if len(query) == 0 && !c.All {
		return errors.New("name a dead letter, narrow with --source, --destination, --reason, --type or --contact, or say --all")
	}
	if !c.Yes {
		if err := confirm(ctx, "Send the pending dead letters that match on their way again?"); err != nil {
			return err
		}
	}
	return c.many(ctx, out, api, query)
}

func (c *deadlettersRedriveCmd) many(ctx context.Context, out *output, api *client, query url.Values) error {
	total := replay.Redriven{Errors: []string{}}
	bar := newProgress(-1, "redriving", false, out.JSON)
	var broken error
	for {
		var part replay.Redriven
		query.Set("limit", "50")
		if broken = api.call(ctx, "POST", "/v1/admin/dlq/retry", query, nil, &part); broken != nil {
			break // what was done is told all the same
		}
		total.Retried += part.Retried
		total.Failed += part.Failed
		if len(total.Errors) < 5 {
			total.Errors = append(total.Errors, part.Errors...)
		}
		_ = bar.Add(part.Retried + part.Failed)
		if part.Next == "" {
			break
		}
		query.Set("cursor", part.Next)
	}
	_ = bar.Finish()
	if err := out.value(total, func(w io.Writer) { fmt.Fprintf(w, "%d on their way again, %d failed\n", total.Retried, total.Failed) }); err != nil {
		return err
	}
	for _, e := range total.Errors {
		fmt.Fprintln(stderr, e)
	}
	if broken != nil {
		return fmt.Errorf("not all were looked at, the same command goes on: %w", broken)
	}
	if total.Failed > 0 {
		return fmt.Errorf("%d dead letters are still pending", total.Failed)
	}
	return nil
}

type deadlettersDiscardCmd struct {
	apiFlags
	ID string `arg:"" help:"Id of the dead letter."`
}

// Run discards a dead letter.
func (c *deadlettersDiscardCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var answer map[string]any
	if err := api.call(ctx, "DELETE", "/v1/admin/dlq/"+url.PathEscape(c.ID), nil, nil, &answer); err != nil {
		return err
	}
	return out.value(answer, func(w io.Writer) { fmt.Fprintln(w, "discarded") })
}
