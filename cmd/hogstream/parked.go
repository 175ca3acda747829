package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
)

type parkedCmd struct {
	Ls    parkedLsCmd    `cmd:"" help:"List parked contacts of a destination; without one, how much each destination has parked."`
	Show  parkedShowCmd  `cmd:"" help:"Show a parked contact and its records, in order."`
	Retry parkedRetryCmd `cmd:"" help:"Try contacts again now."`
	Skip  parkedSkipCmd  `cmd:"" help:"Give up what is parked by now: dead letters \"skipped\"."`
}

type parkedKey struct {
	Key           string          `json:"key"`
	Reason        string          `json:"reason"`
	Since         *string         `json:"since"`
	NextAttemptAt *string         `json:"nextAttemptAt"`
	Skipping      bool            `json:"skipping"`
	Attempts      int             `json:"attempts"`
	Status        *int            `json:"status"`
	Error         *string         `json:"error"`
	Records       int             `json:"records"`
	Bytes         int64           `json:"bytes"`
	Oldest        json.RawMessage `json:"oldest"`
	Partition     int32           `json:"partition"`
	ReplayID      *string         `json:"replayId"`
}

// parkedFilter narrows parked contacts.
type parkedFilter struct {
	Reason    string `help:"Only with this reason: failing or spilled."`
	Status    int    `help:"Only with this HTTP status of the last attempt."`
	Error     string `help:"Only with this text in the last error."`
	Partition *int   `help:"Only of this partition."`
	Replay    string `help:"Only of this backfill."`
}

// body is the filter as the API takes it.
func (f *parkedFilter) body() map[string]any {
	body := map[string]any{}
	give(body, "partition", f.Partition)
	for name, value := range map[string]string{"reason": f.Reason, "error": f.Error, "replayId": f.Replay} {
		if value != "" {
			body[name] = value
		}
	}
	if f.Status != 0 {
		body["status"] = f.Status
	}
	return body
}

func (f *parkedFilter) query() url.Values {
	query := url.Values{}
	for name, value := range f.body() {
		query.Set(name, fmt.Sprint(value))
	}
	return query
}

type parkedLsCmd struct {
	apiFlags
	parkedFilter
	Destination string `arg:"" optional:"" help:"Id or name of the destination."`
	Limit       int    `help:"At most so many." default:"50"`
}

// Run lists parked contacts, in the order of partition and contact.
func (c *parkedLsCmd) Run(ctx context.Context, out *output) error {
	if c.Destination == "" {
		return c.totals(ctx, out)
	}
	api, path, err := c.destination(ctx, c.Destination)
	if err != nil {
		return err
	}
	found, err := pages[parkedKey](ctx, api, path+"/parked", "keys", c.query(), c.Limit, 500)
	if err != nil {
		return err
	}
	return out.value(found, func(w io.Writer) {
		rows := make([][]string, 0, len(found))
		for _, k := range found {
			rows = append(rows, []string{
				k.Key, k.Reason, strconv.Itoa(k.Records), size(k.Bytes), strconv.Itoa(k.Attempts), text(k.Since), k.next(), status(k.Status), text(k.Error),
			})
		}
		table(w, []string{"contact", "reason", "records", "size", "attempts", "since", "next attempt", "status", "error"}, rows)
	})
}

func (k *parkedKey) next() string {
	if k.Skipping {
		return "being skipped"
	}
	return attemptTime(k.NextAttemptAt)
}

// attemptTime is when an attempt is made that the API gives no time for when it waits
// for nothing else.
func attemptTime(at *string) string {
	if at == nil {
		return "when there is room"
	}
	return *at
}

func (c *parkedLsCmd) totals(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var answer struct {
		Destinations []struct {
			ID            string  `json:"destinationId"`
			Name          string  `json:"name"`
			Keys          int     `json:"keys"`
			Records       int     `json:"records"`
			NextAttemptAt *string `json:"nextAttemptAt"`
		} `json:"destinations"`
	}
	if err := api.call(ctx, "GET", "/v1/admin/parked", nil, nil, &answer); err != nil {
		return err
	}
	return out.value(answer.Destinations, func(w io.Writer) {
		rows := [][]string{}
		for _, d := range answer.Destinations {
			rows = append(rows, []string{d.ID, d.Name, strconv.Itoa(d.Keys), strconv.Itoa(d.Records), attemptTime(d.NextAttemptAt)})
		}
		table(w, []string{"id", "destination", "contacts", "records", "next attempt"}, rows)
	})
}

type parkedShowCmd struct {
	oneDestination
	Contact string `arg:"" help:"Id of the contact."`
	Limit   int    `help:"At most so many records." default:"50"`
}

// Run shows a parked contact.
func (c *parkedShowCmd) Run(ctx context.Context, out *output) error {
	api, path, err := c.destination(ctx, c.ID)
	if err != nil {
		return err
	}
	return showJSON(ctx, out, api, path+"/parked/"+url.PathEscape(c.Contact), url.Values{"limit": {strconv.Itoa(c.Limit)}})
}

// parkedWish is retry or skip of some parked contacts, or of all.
type parkedWish struct {
	oneDestination
	parkedFilter
	Contacts []string `arg:"" optional:"" help:"Ids of contacts; without any, those that the flags name."`
	All      bool     `help:"All of them."`
	Yes      bool     `help:"Do not ask." short:"y"`
}

func (c *parkedWish) wish(ctx context.Context, out *output, verb, question, done string) error {
	body := c.body()
	if len(c.Contacts) > 0 {
		body["keys"] = c.Contacts
	}
	if len(body) == 0 && !c.All {
		return errors.New("name contacts, narrow with --reason, --status, --error, --partition or --replay, or say --all")
	}
	if question != "" && !c.Yes {
		if err := confirm(ctx, question); err != nil {
			return err
		}
	}
	body["all"] = c.All
	var all struct {
		Keys int `json:"keys"`
	}
	for {
		var part struct {
			Keys int     `json:"keys"`
			Next *string `json:"nextCursor"`
		}
		if err := c.post(ctx, "parked/"+verb, body, &part); err != nil {
			return err
		}
		all.Keys += part.Keys
		if part.Next == nil {
			return out.value(all, func(w io.Writer) { fmt.Fprintf(w, "%d contacts %s\n", all.Keys, done) })
		}
		body["cursor"] = *part.Next
	}
}

type parkedRetryCmd struct{ parkedWish }

// Run has parked contacts tried again now.
func (c *parkedRetryCmd) Run(ctx context.Context, out *output) error {
	return c.wish(ctx, out, "retry", "", "are tried again now")
}

type parkedSkipCmd struct{ parkedWish }

// Run gives up what is parked.
func (c *parkedSkipCmd) Run(ctx context.Context, out *output) error {
	return c.wish(ctx, out, "skip", "Make dead letters of what is parked by now?", "are skipped; records that come later are delivered")
}

// text is an optional text of a table.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// status is an optional HTTP status of a table.
func status(n *int) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(*n)
}
