package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

type contactsShowCmd struct {
	infraFlags
	URL   string        `help:"URL of the API." env:"HOGSTREAM_URL"`
	Key   string        `help:"API key." env:"HOGSTREAM_API_KEY,ADMIN_API_KEY"`
	ID    string        `arg:"" help:"The contact's id, or its user id."`
	Since time.Duration `help:"How far back the log is read." default:"720h"`
	Limit int           `short:"n" help:"Newest entries of the timeline." default:"50"`
}

// Help is shown by --help.
func (c *contactsShowCmd) Help() string {
	return "The timeline has what the contact did (events), what followed from it (facts), and what was delivered to whom: events and facts from the log, deliveries from the delivery log."
}

// shownContact is what of a contact is printed above its timeline.
type shownContact struct {
	ID          string          `json:"id"`
	ExternalID  *string         `json:"externalId"`
	Email       *string         `json:"email"`
	AnonymousID *string         `json:"anonymousId"`
	Properties  json.RawMessage `json:"properties"`
	Merged      []string        `json:"merged"`
	FirstSeenAt time.Time       `json:"firstSeenAt"`
	LastSeenAt  time.Time       `json:"lastSeenAt"`
}

// entry is one line of a timeline.
type entry struct {
	At   time.Time `json:"at"`
	What string    `json:"what"` // event, fact or delivery
	Type string    `json:"type"` // of an event its name
	// Seq and Era are its place in the order of its contact, where the record says it.
	Seq    int64  `json:"seq,omitempty"`
	Era    int64  `json:"era,omitempty"`
	ID     string `json:"id"`
	Detail string `json:"detail"`

	place       time.Time // where it stands in the timeline
	destination string    // of a delivery
}

// Run prints the contact and its timeline.
func (c *contactsShowCmd) Run(ctx context.Context, out *output) error {
	if c.Limit < 1 {
		return fmt.Errorf("--limit is %d: give at least 1", c.Limit)
	}
	api, err := apiFlags{URL: c.URL, Key: c.Key, DataDir: c.DataDir}.client()
	if err != nil {
		return err
	}
	var found struct {
		Contact     json.RawMessage `json:"contact"`
		Memberships []bucketMember  `json:"memberships"`
		Runs        []journeyRun    `json:"runs"`
	}
	if err := api.call(ctx, "GET", "/v1/admin/contacts/"+url.PathEscape(c.ID), nil, nil, &found); err != nil {
		return err
	}
	var contact shownContact
	if err := json.Unmarshal(found.Contact, &contact); err != nil {
		return err
	}
	records, err := c.records(ctx, &contact)
	if err != nil {
		return err
	}
	deliveries, err := c.deliveries(ctx, api, &contact)
	if err != nil {
		return err
	}
	timeline := newest(append(records, deliveries...), c.Limit)
	return out.value(map[string]any{"contact": found.Contact, "memberships": found.Memberships, "runs": found.Runs, "timeline": timeline}, func(w io.Writer) {
		contact.print(w)
		printMemberships(w, found.Memberships)
		if len(found.Runs) > 0 {
			fmt.Fprintln(w, "\nRuns of journeys:")
			printRuns(w, found.Runs)
		}
		fmt.Fprintln(w)
		printTimeline(w, timeline)
		if len(timeline) == 0 {
			fmt.Fprintf(w, "nothing within %s: --since looks further back\n", c.Since)
		}
		if len(deliveries) > 0 {
			name := deliveries[len(deliveries)-1].destination
			next(w, "send that destination the last hour again", "replay "+name+" --rewind --to 1h")
		}
	})
}

// keys are the ids under which records of the contact stand on the log: its own, and those
// of the contacts that were merged into it.
func (s *shownContact) keys() []string { return append([]string{s.ID}, s.Merged...) }

// records reads the contact's events and facts from the log.
func (c *contactsShowCmd) records(ctx context.Context, contact *shownContact) (found []entry, err error) {
	cfg, err := c.kafka()
	if err != nil {
		return nil, err
	}
	codec, err := cfg.Codec()
	if err != nil {
		return nil, err
	}
	kafka := cfg.StreamConfig()
	kafka.Contents = codec
	for _, key := range contact.keys() {
		own := map[schemas.Topic][]entry{} // of each no more than can be shown
		opts := reader.TailOptions{
			Topics: []schemas.Topic{schemas.TopicEvents, schemas.TopicLifecycle}, Key: key, From: reader.AtTime(time.Now().Add(-c.Since)),
		}
		err := reader.Tail(ctx, kafka, opts, zap.NewNop(), func(r *stream.Record) error {
			e, err := recordEntry(codec, r)
			kept := append(own[r.Topic], e)
			own[r.Topic] = kept[max(0, len(kept)-c.Limit):]
			return err
		})
		if err != nil {
			return nil, err
		}
		found = append(found, inOrder(slices.Concat(own[schemas.TopicEvents], own[schemas.TopicLifecycle]))...)
	}
	return found, nil
}

// recordEntry is one event or fact of a timeline.
func recordEntry(codec *schemas.Codec, r *stream.Record) (entry, error) {
	if r.Topic == schemas.TopicEvents {
		event, err := codec.DecodeEvent(r.Value)
		if err != nil {
			return entry{}, err
		}
		return entry{At: r.AppendTime, What: "event", Type: event.Name, Seq: event.Seq, Era: event.Era, ID: event.ID, Detail: event.Properties}, nil
	}
	fact, err := codec.DecodeFact(r.Value)
	if err != nil {
		return entry{}, err
	}
	e := entry{At: r.AppendTime, What: "fact", Type: fact.Type, Seq: fact.Seq, Era: fact.Era, ID: fact.ID}
	switch {
	case fact.Contact != nil && fact.Type == schemas.FactContactUpdated:
		e.Detail = "changed " + strings.Join(fact.Contact.Changed, ", ")
	case fact.Contact != nil:
		e.Detail = fact.Contact.Properties
	case fact.Merged != nil:
		e.Detail = "took in " + fact.Merged.LoserID
	case fact.Conflict != nil && len(fact.Conflict.Conflicts) > 0:
		e.Detail = fact.Conflict.Conflicts[0].Reason
	case fact.Bucket != nil:
		e.Detail = fact.Bucket.BucketID
	case fact.Journey != nil:
		e.Detail = fact.Journey.JourneyID
	}
	return e, nil
}

// deliveries reads the newest attempts to deliver what is about the contact, of each destination.
func (c *contactsShowCmd) deliveries(ctx context.Context, api *client, contact *shownContact) ([]entry, error) {
	var found []entry
	var destinations []destination
	err := eachDestination(ctx, api, func(d *destination) bool {
		destinations = append(destinations, *d)
		return true
	})
	if err != nil {
		return nil, err
	}
	for _, d := range destinations {
		for _, key := range contact.keys() {
			query := url.Values{"key": {key}, "from": {time.Now().Add(-c.Since).UTC().Format(time.RFC3339)}}
			attempts, err := pages[delivery](ctx, api, "/v1/admin/webhooks/"+d.ID+"/deliveries", "deliveries", query, c.Limit, 500)
			if err != nil {
				return nil, err
			}
			for _, a := range attempts {
				found = append(found, a.entry(d.Name))
			}
		}
	}
	return found, nil
}

func (d *delivery) entry(destination string) entry {
	at, _ := time.Parse(time.RFC3339, d.At) // what the API writes
	detail := fmt.Sprintf("%s → %s", d.Outcome, destination)
	if d.Status != nil {
		detail += fmt.Sprintf(" (%d, %d ms)", *d.Status, d.LatencyMS)
	}
	if d.Attempt > 1 {
		detail += fmt.Sprintf(", attempt %d", d.Attempt)
	}
	if d.ReplayID != nil {
		detail += ", replay"
	}
	if d.Error != nil && *d.Error != "" {
		detail += ": " + *d.Error
	}
	return entry{At: at, place: at, destination: destination, What: "delivery", Type: d.Type, ID: d.RecordID, Detail: detail}
}

// inOrder gives the records of one contact their places: what is numbered stands in the order
// of its numbers, whatever the clocks of the two topics said; the rest goes by time.
func inOrder(records []entry) []entry {
	slices.SortStableFunc(records, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.Era, b.Era), cmp.Compare(a.Seq, b.Seq))
	})
	var last time.Time
	for i := range records {
		e := &records[i]
		if e.place = e.At; e.Seq == 0 {
			continue
		}
		if e.place.Before(last) {
			e.place = last
		}
		last = e.place
	}
	return records
}

// newest are the last entries of a timeline, in its order.
func newest(all []entry, limit int) []entry {
	slices.SortStableFunc(all, func(a, b entry) int { return a.place.Compare(b.place) })
	return all[max(0, len(all)-limit):]
}

func (s *shownContact) print(w io.Writer) {
	names := []string{}
	for _, name := range []*string{s.ExternalID, s.Email, s.AnonymousID} {
		if name != nil {
			names = append(names, *name)
		}
	}
	fmt.Fprintf(w, "contact %s  %s\n", s.ID, strings.Join(names, "  "))
	fmt.Fprintf(w, "  properties  %s\n  seen        %s to %s\n", s.Properties, s.FirstSeenAt.Format(time.DateTime), s.LastSeenAt.Format(time.DateTime))
	if len(s.Merged) > 0 {
		fmt.Fprintf(w, "  merged      %s\n", strings.Join(s.Merged, ", "))
	}
}

// printTimeline is the timeline for people, who are told why numbers begin again.
func printTimeline(w io.Writer, timeline []entry) {
	var before *entry // with a number
	for i := range timeline {
		e := &timeline[i]
		if e.Seq > 0 {
			if before != nil && e.Era > before.Era {
				fmt.Fprintf(w, "contacts was rebuilt: numbers begin again, in era %d\n", e.Era)
			}
			before = e
		}
		e.print(w)
	}
}

func (e *entry) print(w io.Writer) {
	number := ""
	if e.Seq > 0 {
		number = fmt.Sprintf("#%d", e.Seq)
	}
	fmt.Fprintf(w, "%s  %4s  %-8s  %-20s  %s\n", e.At.Local().Format("2006-01-02 15:04:05.000"), number, e.What, e.Type, cell(e.Detail))
}
