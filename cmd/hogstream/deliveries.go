package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

type delivery struct {
	ID        string  `json:"deliveryId"`
	At        string  `json:"attemptedAt"`
	RecordID  string  `json:"recordId"`
	Type      string  `json:"type"`
	Key       string  `json:"key"`
	Attempt   int     `json:"attempt"`
	Outcome   string  `json:"outcome"`
	Status    *int    `json:"status"`
	LatencyMS int64   `json:"latencyMs"`
	Error     *string `json:"error"`
	Response  *string `json:"response"`
	ReplayID  *string `json:"replayId"`
}

type destinationsDeliveriesCmd struct {
	oneDestination
	RecordID string `help:"Only this record."`
	Contact  string `help:"Only this contact id."`
	Type     string `help:"Only this type."`
	Outcome  string `help:"Only this outcome: delivered, retry, rejected, refused, skipped, erased." enum:",delivered,retry,rejected,refused,skipped,split,erased" default:""`
	Status   int    `help:"Only this HTTP status."`
	From     string `help:"Attempts from this time on."`
	To       string `help:"Attempts before this time."`
	Limit    int    `help:"At most so many." default:"50"`
	Follow   bool   `short:"f" help:"Show the newest, oldest first, and go on with what is attempted."`
}

// Run searches the delivery log of a destination, newest first.
func (c *destinationsDeliveriesCmd) Run(ctx context.Context, out *output) error {
	api, path, err := c.destination(ctx, c.ID)
	if err != nil {
		return err
	}
	query := url.Values{}
	setQuery(query, "recordId", c.RecordID, "contact", c.Contact, "type", c.Type, "outcome", c.Outcome, "from", c.From, "to", c.To)
	if c.Status != 0 {
		query.Set("status", strconv.Itoa(c.Status))
	}
	if c.Follow {
		return c.follow(ctx, out, api, path, query)
	}
	found, err := pages[delivery](ctx, api, path+"/deliveries", "deliveries", query, c.Limit, 500)
	if err != nil {
		return err
	}
	return out.value(found, func(w io.Writer) {
		rows := make([][]string, 0, len(found))
		for _, d := range found {
			rows = append(rows, d.cells())
		}
		table(w, []string{"at", "delivery", "type", "contact", "attempt", "outcome", "status", "took", "error"}, rows)
	})
}

// cells are an attempt as a row of a table.
func (d *delivery) cells() []string {
	return []string{d.At, d.ID, d.Type, d.Key, strconv.Itoa(d.Attempt), d.Outcome, status(d.Status), fmt.Sprint(d.LatencyMS, " ms"), text(d.Error)}
}

// How often it is looked for new attempts, and how far back: processes write theirs a
// moment after they were made, each with its own clock.
const (
	followEvery = time.Second
	followBack  = 15 * time.Second
)

// follow shows attempts as they are made, until ctx ends.
func (c *destinationsDeliveriesCmd) follow(ctx context.Context, out *output, api *client, path string, query url.Values) error {
	if c.To != "" {
		return errors.New("--to: with --follow there is no end")
	}
	seen := map[string]time.Time{}
	limit := c.Limit
	for {
		found, err := pages[delivery](ctx, api, path+"/deliveries", "deliveries", maps.Clone(query), limit, 500)
		if err != nil {
			return untilStopped(ctx, err)
		}
		newest, err := c.unseen(out, found, seen)
		if err != nil {
			return err
		}
		if !newest.IsZero() {
			from := newest.Add(-followBack)
			maps.DeleteFunc(seen, func(_ string, at time.Time) bool { return at.Before(from) })
			query.Set("from", from.UTC().Format(time.RFC3339Nano))
		}
		limit = math.MaxInt
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// unseen prints what was not printed yet, oldest first, and says when the newest was.
func (c *destinationsDeliveriesCmd) unseen(out *output, found []delivery, seen map[string]time.Time) (newest time.Time, err error) {
	for _, d := range slices.Backward(found) {
		at, err := time.Parse(time.RFC3339Nano, d.At)
		if err != nil {
			return newest, fmt.Errorf("read the delivery log: %w", err)
		}
		if at.After(newest) {
			newest = at
		}
		attempt := fmt.Sprint(d.ID, text(d.ReplayID), d.Attempt, d.At)
		if _, known := seen[attempt]; known {
			continue
		}
		seen[attempt] = at
		cells := d.cells()
		for i := range cells {
			cells[i] = cell(cells[i])
		}
		if err := out.line(d, strings.TrimRight(strings.Join(cells, "  "), " ")); err != nil {
			return newest, err
		}
	}
	return newest, nil
}

// setQuery sets the pairs whose value is not empty.
func setQuery(query url.Values, pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			query.Set(pairs[i], pairs[i+1])
		}
	}
}

type destinationsRedeliverCmd struct {
	oneDestination
	Delivery string `arg:"" help:"The delivery, as \"destinations deliveries\" shows it: lifecycle-3-1042."`
}

// Run delivers one record again now.
func (c *destinationsRedeliverCmd) Run(ctx context.Context, out *output) error {
	var r struct {
		Delivered bool   `json:"delivered"`
		Verdict   string `json:"verdict"`
		Status    int    `json:"status"`
		LatencyMS int64  `json:"latencyMs"`
		Error     string `json:"error"`
		Response  string `json:"response"`
	}
	if err := c.post(ctx, "deliveries/"+url.PathEscape(c.Delivery)+"/redeliver", nil, &r); err != nil {
		return err
	}
	if err := out.value(r, func(w io.Writer) {
		fmt.Fprintln(w, outcomeText(r.Verdict, r.Status, r.LatencyMS, r.Error))
	}); err != nil {
		return err
	}
	if !r.Delivered {
		return fmt.Errorf("not delivered: %s", r.Verdict)
	}
	return nil
}

// outcomeText is what became of an attempt, with what there is of an answer.
func outcomeText(verdict string, status int, latencyMS int64, failure string) string {
	text := verdict
	if status != 0 {
		text += fmt.Sprintf(", HTTP %d", status)
	}
	if status != 0 || latencyMS > 0 {
		text += fmt.Sprintf(" in %d ms", latencyMS)
	}
	if failure != "" {
		text += ": " + failure
	}
	return text
}
