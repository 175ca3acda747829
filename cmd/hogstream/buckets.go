package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

type bucketsCmd struct {
	Ls       bucketsLsCmd       `cmd:"" help:"List buckets: how each is, and how many members it has."`
	Show     bucketsShowCmd     `cmd:"" help:"Show a bucket, its criteria, the journeys that it begins, and who joined last."`
	Members  bucketsMembersCmd  `cmd:"" help:"List the members of a bucket, the newest joins first; with --user-id, whether one is a member."`
	Why      bucketsWhyCmd      `cmd:"" help:"Say why a contact is in a bucket, or why not: the tree of its criteria, and what turned each."`
	Upcoming bucketsUpcomingCmd `cmd:"" help:"Say what time alone will do: how many leave and join each bucket."`
	Export   bucketsExportCmd   `cmd:"" help:"Write all members of a bucket as NDJSON or CSV."`
	Add      bucketsAddCmd      `cmd:"" help:"Put a contact into a manual bucket."`
	Remove   bucketsRemoveCmd   `cmd:"" help:"Take a contact out of a manual bucket."`
	Purge    bucketsPurgeCmd    `cmd:"" help:"Forget the members of a bucket that is defined no more."`
}

type bucket struct {
	ID          string  `json:"id"`
	Name        string  `json:"name"`
	Description *string `json:"description"`
	Enabled     bool    `json:"enabled"`
	Kind        string  `json:"kind"`
	EntryLimit  string  `json:"entryLimit"`
	Counts      struct {
		Active int64 `json:"active"`
		Left   int64 `json:"left"`
	} `json:"counts"`
	State    bucketState     `json:"state"`
	Criteria json.RawMessage `json:"criteria"`
	Recent   []bucketMember  `json:"recentMembers"`
	Feeds    []fedJourney    `json:"feedsJourneys"`
}

// fedJourney is a journey that a bucket begins runs of.
type fedJourney struct {
	ID      string  `json:"id"`
	Name    string  `json:"name"`
	Trigger string  `json:"trigger"`
	Source  *string `json:"sourceBucketId"`
	Owned   bool    `json:"owned"`
}

// stands says where it is defined.
func (j *fedJourney) stands() string {
	switch {
	case j.Owned:
		return "with this bucket"
	case j.Source != nil:
		return "with bucket " + *j.Source
	}
	return "by itself"
}

func printFed(w io.Writer, all []fedJourney) {
	rows := make([][]string, 0, len(all))
	for i := range all {
		rows = append(rows, []string{all[i].ID, all[i].Name, cmp.Or(all[i].Trigger, "a schedule"), all[i].stands()})
	}
	table(w, []string{"journey", "name", "begins with", "stands"}, rows)
}

type bucketState struct {
	Is      string `json:"is"`
	Filling *struct {
		Percent int `json:"percent"`
	} `json:"filling,omitempty"`
	Error *string    `json:"error,omitempty"`
	Since *time.Time `json:"since,omitempty"`
}

// String is the state in a word or two: live, filling (40 %), failing.
func (s bucketState) String() string {
	if s.Filling == nil {
		return s.Is
	}
	filling := fmt.Sprintf("filling (%d %%)", s.Filling.Percent)
	if s.Is == "filling" {
		return filling
	}
	return s.Is + ", " + filling
}

// warn says what a list of members lacks.
func (s bucketState) warn(w io.Writer) {
	if s.Filling != nil {
		fmt.Fprintf(w, "%s: members are missing, the list is not complete\n", s)
	}
	if s.Error != nil {
		fmt.Fprintf(w, "failing since %s; its last good form is in use:\n%s\n", s.Since.Local().Format(time.DateTime), *s.Error)
	}
	if s.Is == "disabled" {
		fmt.Fprintln(w, "disabled: the members are those of when it was disabled")
	}
}

type bucketMember struct {
	UserID     string  `json:"userId"`
	Email      *string `json:"userEmail"`
	ContactID  string  `json:"contactId"`
	BucketID   string  `json:"bucketId"`
	Status     string  `json:"status"`
	EnteredAt  string  `json:"enteredAt"`
	LeftAt     *string `json:"leftAt"`
	ExpiresAt  *string `json:"expiresAt"`
	EntryCount int64   `json:"entryCount"`
	Source     *string `json:"source"`
	Reason     *string `json:"reason"`
}

func printMembers(w io.Writer, members []bucketMember) {
	rows := make([][]string, 0, len(members))
	for _, m := range members {
		rows = append(rows, []string{m.UserID, text(m.Email), m.EnteredAt, strconv.FormatInt(m.EntryCount, 10), text(m.Source), text(m.ExpiresAt), text(m.LeftAt), text(m.Reason)})
	}
	table(w, []string{"user id", "email", "entered", "entry", "source", "expires", "left", "reason"}, rows)
}

const bucketsPath = "/v1/admin/buckets"

// bucketFlags name a bucket.
type bucketFlags struct {
	apiFlags
	Bucket string `arg:"" help:"Id of the bucket."`
}

func (f *bucketFlags) path() string { return bucketsPath + "/" + url.PathEscape(f.Bucket) }

type bucketsLsCmd struct{ apiFlags }

// bucketList is an answer to the question which buckets there are.
type bucketList struct {
	Buckets []json.RawMessage `json:"buckets"`
	Failing []struct {
		File  string    `json:"file"`
		Error string    `json:"error"`
		Since time.Time `json:"since"`
	} `json:"failing"`
	Removed []struct {
		ID     string `json:"id"`
		Counts struct {
			Active int64 `json:"active"`
			Left   int64 `json:"left"`
		} `json:"counts"`
	} `json:"removed"`
}

// Run lists buckets, what is wrong with definitions, and which are defined no more.
func (c *bucketsLsCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	const limit = 100
	all := []json.RawMessage{}
	var last bucketList
	for {
		last = bucketList{}
		query := url.Values{"limit": {strconv.Itoa(limit)}, "offset": {strconv.Itoa(len(all))}}
		if err := api.call(ctx, http.MethodGet, bucketsPath, query, nil, &last); err != nil {
			return err
		}
		if all = append(all, last.Buckets...); len(last.Buckets) < limit {
			break
		}
	}
	last.Buckets = all
	return out.value(last, func(w io.Writer) {
		rows := make([][]string, 0, len(all))
		for _, raw := range all {
			var b bucket
			_ = json.Unmarshal(raw, &b)
			rows = append(rows, []string{b.ID, b.Name, b.Kind, b.State.String(), strconv.FormatInt(b.Counts.Active, 10), strconv.FormatInt(b.Counts.Left, 10)})
		}
		table(w, []string{"id", "name", "kind", "state", "members", "left"}, rows)
		for _, f := range last.Failing {
			fmt.Fprintf(w, "\n%s fails since %s:\n%s\n", f.File, f.Since.Local().Format(time.DateTime), f.Error)
		}
		for _, r := range last.Removed {
			fmt.Fprintf(w, "\n%s is defined no more; %d members and %d that left are kept (hogstream buckets purge %s forgets them)\n", r.ID, r.Counts.Active, r.Counts.Left, r.ID)
		}
	})
}

type bucketsShowCmd struct{ bucketFlags }

// Run shows a bucket.
func (c *bucketsShowCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var answer struct {
		Bucket json.RawMessage `json:"bucket"`
	}
	if err := api.call(ctx, http.MethodGet, c.path(), nil, nil, &answer); err != nil {
		return err
	}
	var b bucket
	if err := json.Unmarshal(answer.Bucket, &b); err != nil {
		return err
	}
	return out.value(answer.Bucket, func(w io.Writer) {
		fmt.Fprintf(w, "%s  %s (%s)  %s\n", b.ID, b.Name, b.Kind, b.State)
		if b.Description != nil {
			fmt.Fprintf(w, "  %s\n", *b.Description)
		}
		fmt.Fprintf(w, "  members  %d, %d left\n", b.Counts.Active, b.Counts.Left)
		if len(b.Criteria) > 0 {
			fmt.Fprintf(w, "  criteria %s\n", b.Criteria)
		}
		b.State.warn(w)
		if len(b.Feeds) > 0 {
			fmt.Fprintln(w, "\nJourneys that it begins:")
			printFed(w, b.Feeds)
		}
		if len(b.Recent) > 0 {
			fmt.Fprintln(w, "\nWho joined last:")
			printMembers(w, b.Recent)
		}
	})
}

type bucketsMembersCmd struct {
	bucketFlags
	Left   bool   `help:"Those that left, instead of members."`
	UserID string `help:"Only this contact: a user id, an anonymous id or a contact id."`
	Limit  int    `help:"At most so many." default:"50"`
}

// Run lists members.
func (c *bucketsMembersCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	query := url.Values{"cursor": {""}}
	if c.Left {
		query.Set("status", "left")
	}
	setQuery(query, "userId", c.UserID)
	var state bucketState
	found, err := pagesWith[bucketMember](ctx, api, c.path()+"/members", "members", query, c.Limit, 100, func(page map[string]json.RawMessage) error {
		return json.Unmarshal(page["state"], &state)
	})
	if err != nil {
		return err
	}
	return out.value(map[string]any{"state": state, "members": found}, func(w io.Writer) {
		state.warn(w)
		if c.UserID != "" && !c.Left && len(found) == 0 {
			fmt.Fprintf(w, "%s is no member of %s\n", c.UserID, c.Bucket)
			return
		}
		printMembers(w, found)
	})
}

type bucketsExportCmd struct {
	bucketFlags
	Format string `help:"ndjson or csv." enum:"ndjson,csv" default:"ndjson"`
	To     string `help:"File to write to, instead of the terminal." placeholder:"FILE" type:"path"`
}

// Run writes all members.
func (c *bucketsExportCmd) Run(ctx context.Context, out *output) (err error) {
	api, err := c.client()
	if err != nil {
		return err
	}
	api.http.Timeout = 0 // it is as long as the bucket is large
	resp, err := api.do(ctx, http.MethodGet, c.path()+"/members/export", url.Values{"format": {c.Format}}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	to := out.W
	if c.To != "" {
		file, err := os.Create(c.To)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		to = file
	}
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("the export broke off, what was written is not the whole: %w", err)
	}
	if state := resp.Header.Get("Bucket-State"); state == "filling" {
		fmt.Fprintf(stderr, "%s is filling: members are missing, the export is not complete\n", c.Bucket)
	}
	return nil
}

// memberFlags name a bucket and a contact, and how long to wait for what is asked for.
type memberFlags struct {
	bucketFlags
	UserID string        `arg:"" help:"A user id, an anonymous id or a contact id."`
	Wait   time.Duration `help:"How long to wait until it is applied; 0 does not wait." default:"10s"`
}

// wish is what the API answers to an addition or a removal.
type wish struct {
	ContactID string  `json:"contactId"`
	Member    bool    `json:"member"`
	ExpiresAt *string `json:"expiresAt"`
	Applied   bool    `json:"applied"` // as far as was waited
}

// ask sends a request until the contact is known to the processor, then waits until the
// members are as was asked for; both for as long as Wait says.
func (c *memberFlags) ask(ctx context.Context, out *output, method, path string, body any, done string) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var w wish
	until := time.Now().Add(c.Wait)
	for {
		err := api.call(ctx, method, path, nil, body, &w)
		var refused *apiError
		if err == nil {
			break
		}
		if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable || !pause(ctx, until) {
			return err
		}
	}
	for !w.Applied && c.Wait > 0 {
		if w.Applied, err = c.applied(ctx, api, &w); err != nil {
			return err
		}
		if !w.Applied && !pause(ctx, until) {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return out.value(w, func(o io.Writer) {
		switch {
		case w.Applied:
			fmt.Fprintf(o, "%s %s %s\n", c.UserID, done, c.Bucket)
		case c.Wait == 0:
			fmt.Fprintln(o, "accepted")
		default:
			fmt.Fprintf(o, "accepted, and not applied within %s: see hogstream processors ls\n", c.Wait)
		}
	})
}

// applied says whether the members are as was asked for.
func (c *memberFlags) applied(ctx context.Context, api *client, w *wish) (bool, error) {
	var page struct {
		Members []bucketMember `json:"members"`
	}
	if err := api.call(ctx, http.MethodGet, c.path()+"/members", url.Values{"userId": {w.ContactID}}, nil, &page); err != nil {
		return false, err
	}
	if !w.Member || len(page.Members) == 0 {
		return w.Member == (len(page.Members) > 0), nil
	}
	return text(page.Members[0].ExpiresAt) == text(w.ExpiresAt), nil
}

// pause waits a moment; false when there is no time left for another try.
func pause(ctx context.Context, until time.Time) bool {
	const moment = 100 * time.Millisecond
	if time.Now().Add(moment).After(until) {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(moment):
		return true
	}
}

type bucketsAddCmd struct {
	memberFlags
	ExpiresIn *time.Duration `help:"How long it is a member, such as 720h; for ever when left out." xor:"expiry"`
	ExpiresAt string         `help:"Until when it is a member, such as 2027-01-31T00:00:00Z." xor:"expiry"`
}

// Run puts a contact into a bucket.
func (c *bucketsAddCmd) Run(ctx context.Context, out *output) error {
	body := map[string]any{"userId": c.UserID}
	if c.ExpiresIn != nil {
		if *c.ExpiresIn <= 0 {
			return fmt.Errorf("--expires-in is %s: give a time that is to come, or leave it out", *c.ExpiresIn)
		}
		body["expiresAt"] = time.Now().Add(*c.ExpiresIn).UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano)
	}
	if c.ExpiresAt != "" {
		body["expiresAt"] = c.ExpiresAt
	}
	return c.ask(ctx, out, http.MethodPost, c.path()+"/members", body, "is a member of")
}

type bucketsRemoveCmd struct{ memberFlags }

// Run takes a contact out of a bucket.
func (c *bucketsRemoveCmd) Run(ctx context.Context, out *output) error {
	return c.ask(ctx, out, http.MethodDelete, c.path()+"/members/"+url.PathEscape(c.UserID), nil, "is no member of")
}

type bucketsPurgeCmd struct {
	bucketFlags
	Yes bool `help:"Do not ask." short:"y"`
}

// Run forgets the members of a bucket.
func (c *bucketsPurgeCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	if !c.Yes {
		if err := confirm(ctx, "Forget who was and is a member of "+c.Bucket+"? Defined again, everybody in it joins for the first time."); err != nil {
			return err
		}
	}
	var all struct {
		Removed int64 `json:"removed"`
	}
	for {
		var part struct {
			Removed int64 `json:"removed"`
			Done    bool  `json:"done"`
		}
		err := api.call(ctx, http.MethodPost, c.path()+"/purge", nil, nil, &part)
		var refused *apiError
		if all.Removed > 0 && errors.As(err, &refused) && refused.Status == http.StatusNotFound {
			part.Done, err = true, nil // the part before was the last
		}
		if err != nil {
			return err
		}
		if all.Removed += part.Removed; part.Done {
			return out.value(all, func(w io.Writer) { fmt.Fprintf(w, "%d memberships are forgotten\n", all.Removed) })
		}
	}
}

// printMemberships says of a contact what it is a member of, and what it was.
func printMemberships(w io.Writer, memberships []bucketMember) {
	var in, left []string
	for _, m := range memberships {
		if m.Status == "active" {
			in = append(in, m.BucketID)
		} else {
			left = append(left, m.BucketID)
		}
	}
	for _, line := range []struct {
		name    string
		buckets []string
	}{{"member of", in}, {"left", left}} {
		if len(line.buckets) > 0 {
			fmt.Fprintf(w, "  %-10s  %s\n", line.name, strings.Join(line.buckets, ", "))
		}
	}
}
