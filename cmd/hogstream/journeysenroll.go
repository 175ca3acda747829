package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

type journeysEnrollCmd struct {
	journeyFlags
	UserID     string `arg:"" optional:"" help:"A user id, an anonymous id or a contact id."`
	File       string `help:"Enrol those in this file (- for stdin), each on a line: an id, or a JSON object {\"userId\":\"u1\",\"properties\":{…}}." xor:"who" placeholder:"FILE"`
	Bucket     string `help:"Enrol the members of this bucket." xor:"who"`
	Properties string `help:"A JSON object, as the properties of a trigger, of all who have none of their own." placeholder:"JSON"`
	Batch      string `help:"Of many: whom a batch of this name has enrolled it does not enrol again. A new name when left out."`
	DryRun     bool   `help:"Of many: only say who is known."`
	Yes        bool   `help:"Of many: do not ask." short:"y"`
}

// enrolUser is a contact to be enrolled.
type enrolUser struct {
	UserID     string          `json:"userId"`
	Properties json.RawMessage `json:"properties,omitempty"`
}

// Run enrols a contact, or many.
func (c *journeysEnrollCmd) Run(ctx context.Context, out *output) error {
	var properties json.RawMessage
	if c.Properties != "" {
		var object map[string]json.RawMessage
		if json.Unmarshal([]byte(c.Properties), &object) != nil {
			return errors.New(`--properties: is no JSON object: write one such as {"cartId":"a"}`)
		}
		properties = json.RawMessage(c.Properties)
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	switch {
	case c.UserID != "" && c.File+c.Bucket == "":
		return c.enrollOne(ctx, out, api, properties)
	case c.UserID != "" || c.File+c.Bucket == "":
		return errors.New("name one contact, or --file, or --bucket")
	}
	users, err := c.users(ctx, api)
	if err != nil {
		return err
	}
	for i := range users {
		if users[i].Properties == nil {
			users[i].Properties = properties
		}
	}
	return c.enrollAll(ctx, out, api, users)
}

func (c *journeysEnrollCmd) enrollOne(ctx context.Context, out *output, api *client, properties json.RawMessage) error {
	var answer json.RawMessage
	if err := api.call(ctx, http.MethodPost, c.path()+"/enroll", nil, enrolUser{c.UserID, properties}, &answer); err != nil {
		return err
	}
	return out.value(answer, func(w io.Writer) {
		fmt.Fprintf(w, "told: hogstream journeys runs %s --user-id %s shows what came of it\n", c.Journey, c.UserID)
	})
}

// users are all who are to be enrolled.
func (c *journeysEnrollCmd) users(ctx context.Context, api *client) ([]enrolUser, error) {
	if c.Bucket != "" {
		return bucketUsers(ctx, api, c.Bucket)
	}
	if c.File == "-" {
		return readUsers(os.Stdin)
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readUsers(f)
}

// bucketUsers are the members of a bucket, by the ids of their contacts.
func bucketUsers(ctx context.Context, api *client, bucket string) ([]enrolUser, error) {
	resp, err := api.do(ctx, http.MethodGet, "/v1/admin/buckets/"+url.PathEscape(bucket)+"/members/export", nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var users []enrolUser
	lines := json.NewDecoder(resp.Body)
	for {
		var member struct {
			ContactID string `json:"contactId"`
		}
		switch err := lines.Decode(&member); {
		case errors.Is(err, io.EOF):
			return users, nil
		case err != nil:
			return nil, fmt.Errorf("read the members of %s: %w", bucket, err)
		}
		users = append(users, enrolUser{UserID: member.ContactID})
	}
}

// readUsers reads one user a line.
func readUsers(r io.Reader) ([]enrolUser, error) {
	var users []enrolUser
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		user := enrolUser{UserID: string(line)}
		if line[0] == '{' {
			user.UserID = ""
			dec := json.NewDecoder(bytes.NewReader(line))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&user); err != nil || user.UserID == "" {
				return nil, fmt.Errorf(`line %d: is neither an id nor an object such as {"userId":"u1","properties":{"cartId":"a"}}`, n)
			}
		}
		users = append(users, user)
	}
	return users, lines.Err()
}

// enrolled is what came of many.
type enrolled struct {
	Batch    string         `json:"batch"`
	Enrolled int            `json:"enrolled"`
	Skipped  int            `json:"skipped"`
	Reasons  map[string]int `json:"reasons"`
	Sample   []string       `json:"sample"` // of those who were skipped
}

// enrollAll looks who is known, asks, and enrols.
func (c *journeysEnrollCmd) enrollAll(ctx context.Context, out *output, api *client, users []enrolUser) error {
	if c.Batch == "" {
		c.Batch = uuid.NewString()
	}
	found, err := c.send(ctx, api, users, true, out.JSON)
	if err != nil {
		return err
	}
	if c.DryRun {
		return out.value(found, func(w io.Writer) { found.print(w, "known") })
	}
	if !c.Yes {
		found.print(stderr, "known")
		if err := confirm(ctx, fmt.Sprintf("Enrol %d contacts in %s?", found.Enrolled, c.Journey)); err != nil {
			return err
		}
	}
	fmt.Fprintf(stderr, "batch %s: with --batch %s the same command goes on after an interruption, and enrols nobody twice\n", c.Batch, c.Batch)
	done, err := c.send(ctx, api, users, false, out.JSON)
	if err != nil {
		return fmt.Errorf("%d contacts were told before; go on with --batch %s: %w", done.Enrolled, c.Batch, err)
	}
	return out.value(done, func(w io.Writer) {
		done.print(w, "told")
		next(w, "what came of it", "journeys runs "+c.Journey)
	})
}

// atOnce is how many users a request has.
const atOnce = 500

func (c *journeysEnrollCmd) send(ctx context.Context, api *client, users []enrolUser, dryRun, quiet bool) (*enrolled, error) {
	what := "enrol"
	if dryRun {
		what = "look"
	}
	all := &enrolled{Batch: c.Batch, Reasons: map[string]int{}, Sample: []string{}}
	bar := newProgress(max(int64(len(users)), 1), what, false, quiet)
	for part := range slices.Chunk(users, atOnce) {
		var answer struct {
			Enrolled int `json:"enrolled"`
			Skipped  int `json:"skipped"`
			Results  []struct {
				UserID string `json:"userId"`
				Reason string `json:"reason"`
			} `json:"results"`
		}
		body := map[string]any{"users": part, "batch": c.Batch, "dryRun": dryRun}
		if err := api.call(ctx, http.MethodPost, c.path()+"/enroll/batch", nil, body, &answer); err != nil {
			return all, err
		}
		all.Enrolled, all.Skipped = all.Enrolled+answer.Enrolled, all.Skipped+answer.Skipped
		for _, r := range answer.Results {
			if r.Reason == "" {
				continue
			}
			all.Reasons[r.Reason]++
			if len(all.Sample) < 10 {
				all.Sample = append(all.Sample, r.UserID)
			}
		}
		_ = bar.Add(len(part))
	}
	return all, bar.Finish()
}

func (e *enrolled) print(w io.Writer, word string) {
	fmt.Fprintf(w, "%d contacts %s", e.Enrolled, word)
	for _, reason := range slices.Sorted(maps.Keys(e.Reasons)) {
		fmt.Fprintf(w, ", %s %s", strconv.Itoa(e.Reasons[reason]), reason)
	}
	fmt.Fprintln(w)
	if len(e.Sample) > 0 {
		fmt.Fprintf(w, "not, among others: %s\n", strings.Join(e.Sample, ", "))
	}
}
