package sinks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// posthogKind sends to PostHog's /batch/, many records a request. Each event has
// the record's id as uuid and its own time as timestamp, so PostHog collapses
// what is sent twice. There is no sent_at, which would shift the times.
var posthogKind = Kind{Name: "posthog", Records: 500, Bytes: 512 << 10, Answer: posthogV1Answer, Open: openPosthog, Receivers: hostOr(posthogHost)}

const (
	posthogHost    = "https://us.i.posthog.com"
	posthogEvent   = 500 << 10 // of one event
	posthogRequest = 4 << 20   // of a request; PostHog takes 20 MB
	posthogEvents  = 500       // of a request
	posthogName    = 200       // characters of an event's name and a distinct id
)

// posthogConfig is the config of kind posthog.
type posthogConfig struct {
	// APIKey is the project's key (phc_…).
	APIKey string `json:"apiKey"`
	// In the EU the host is https://eu.i.posthog.com.
	analytics
	// BucketProperty mirrors buckets as properties of persons: the name is this
	// prefix and the bucket's id; empty for none.
	BucketProperty string `json:"bucketProperty"`
	// API is batch (the default) or v1, whose answers tell of each event.
	API string `json:"api"`
}

type posthog struct {
	url *url.URL
	cfg posthogConfig
}

func openPosthog(dest *storage.Destination, guard *transport.Guard) (Sink, error) {
	p := &posthog{}
	if err := ReadConfig(dest.Config, &p.cfg); err != nil {
		return nil, err
	}
	path := "/batch/"
	switch p.cfg.API {
	case "", "batch":
	case "v1":
		path = posthogV1Path
	default:
		return nil, fmt.Errorf("config.api: %q is unknown: use batch or v1", p.cfg.API)
	}
	var err error
	if p.url, err = p.cfg.open(guard, "config.apiKey", p.cfg.APIKey, posthogHost, path); err != nil {
		return nil, err
	}
	if p.cfg.API == "v1" {
		return posthogV1{p}, nil
	}
	return p, nil
}

// Build implements [Sink].
func (s *posthog) Build(a *Attempt) (*transport.Request, error) {
	o := begin(make([]byte, 0, 256+1024*len(a.Payloads)))
	o.str("api_key", s.cfg.APIKey)
	req := &transport.Request{URL: s.url, Header: http.Header{"Content-Type": {"application/json"}}, Gzip: s.cfg.Gzip}
	return req, s.batch(o, a, req)
}

// batch ends the body of a request with its events.
func (s *posthog) batch(o object, a *Attempt, req *transport.Request) error {
	if a.ReplayID != "" {
		o.bool("historical_migration", true)
	}
	o.key("batch")
	o.b = append(o.b, '[')
	events := 0
	for i, p := range a.Payloads {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		before := len(o.b)
		o.b = s.appendEvent(o.b, p, allTraits(p))
		if len(o.b)-before > posthogEvent {
			var leftOut, of int
			o.b, leftOut, of = trimmed(o.b[:before], p, posthogEvent, s.appendEvent)
			req.Note(i, noteTraits(leftOut, of, "PostHog", posthogEvent))
		}
		if size := len(o.b) - before; size > posthogEvent {
			return fmt.Errorf("the event has %d bytes: PostHog takes at most %d", size, posthogEvent)
		}
		links := posthogLinks(p)
		for i := range links {
			o.b = s.appendLink(append(o.b, ','), p, &links[i])
		}
		events += 1 + len(links)
	}
	o.b = append(o.b, ']')
	body := o.end()
	if events > posthogEvents && len(a.Payloads) > 1 {
		return fmt.Errorf("the request has %d events: at most %d are sent at once", events, posthogEvents)
	}
	if len(body) > posthogRequest && len(a.Payloads) > 1 {
		return fmt.Errorf("the request has %d bytes: at most %d are sent at once", len(body), posthogRequest)
	}
	req.Body = body
	return nil
}

func (s *posthog) appendEvent(b []byte, p *Payload, t shown) []byte {
	o := begin(b)
	o.str("event", truncate(s.cfg.EventNames.of(p), posthogName))
	o.str("distinct_id", posthogDistinctID(p.Person))
	o.time("timestamp", p.OccurredAt)
	o.str("uuid", p.ID)
	if s.cfg.API == "v1" {
		o.raw("options", "{}")
	}
	o.key("properties")
	props := begin(o.b)
	if t.once {
		props.members(without(p.Properties(), "properties"))
	} else {
		props.properties(p)
	}
	if t.leftOut > 0 {
		props.int("traitsLeftOut", int64(t.leftOut))
	}
	if p.ownProperties() && p.Seq > 0 { // the data of a fact has them
		props.int("hogstream_seq", p.Seq)
		props.int("hogstream_era", p.Era)
	}
	s.person(&props, p, t)
	if !located(p) {
		props.bool("$geoip_disable", true)
	}
	props.str("$lib", "hogstream")
	o.b = props.end()
	return o.end()
}

// posthogLink is an event that makes two persons of PostHog one.
type posthogLink struct {
	id, event  string
	distinctID string // whom it is about
	field      string // the property that has the other name
	other      string
}

// posthogLinks are the events that follow a payload's own, so that PostHog knows its
// person by all the names that it was sent.
//
// PostHog refuses $identify and $create_alias when the other person is identified: when
// it was the aim of one of the two before, or has a user id. Then there is only
// $merge_dangerously, which does the same without that question.
func posthogLinks(p *Payload) (events []posthogLink) {
	distinctID := posthogDistinctID(p.Person)
	for _, l := range links(p) {
		if l.kind != contactLink && l.kind != externalLink || l.name == distinctID || l.kind == externalLink && refusedByPosthog(l.name) {
			continue // formerLink: tied to the contact's id when that one took it in
		}
		e := posthogLink{id: schemas.Derive(p.ID, "link", len(events)), event: "$create_alias", distinctID: distinctID, field: "alias", other: l.name}
		switch {
		case l.kind == externalLink || l.tookIn:
			e.event = "$merge_dangerously"
		case distinctID != p.Person.ContactID:
			e.event, e.field = "$identify", "$anon_distinct_id"
		}
		events = append(events, e)
	}
	return events
}

func (s *posthog) appendLink(b []byte, p *Payload, l *posthogLink) []byte {
	o := begin(b)
	o.str("event", l.event)
	o.str("distinct_id", l.distinctID)
	o.time("timestamp", p.OccurredAt)
	o.str("uuid", l.id)
	if s.cfg.API == "v1" {
		o.raw("options", "{}")
	}
	o.key("properties")
	props := begin(o.b)
	props.str(l.field, l.other)
	props.bool("$geoip_disable", true)
	props.str("$lib", "hogstream")
	o.b = props.end()
	return o.end()
}

// located says whether the event itself tells where it comes from, or decides about
// that. Without either, PostHog would place every person where Hogstream runs.
func located(p *Payload) bool {
	if !p.mentions('$') { // most do not, and this is looked at for every event
		return false
	}
	var own struct {
		IP      json.RawMessage `json:"$ip"`
		Disable json.RawMessage `json:"$geoip_disable"`
	}
	return json.Unmarshal([]byte(p.Properties()), &own) == nil && (own.IP != nil || own.Disable != nil)
}

// person writes what the fact says about the person.
func (s *posthog) person(props *object, p *Payload, t shown) {
	if t.ok {
		props.key("$set")
		set := begin(props.b)
		set.members(t.traits)
		set.strIfSet("email", p.Person.Email)
		props.b = set.end()
		return
	}
	if s.cfg.BucketProperty == "" || p.Fact == nil || p.Fact.Bucket == nil {
		return
	}
	name := s.cfg.BucketProperty + p.Fact.Bucket.BucketID
	switch reason := p.Fact.Bucket.Reason; {
	case p.Fact.Type == schemas.FactBucketDwell:
		return // nothing has changed
	case p.Fact.Type == schemas.FactBucketLeft && reason != nil && *reason == "merged":
		return // PostHog has one person of both, and what the survivor enters is said by its own facts
	case p.Fact.Type == schemas.FactBucketEntered:
		props.key("$set")
		set := begin(props.b)
		set.key(InQuotes(name))
		set.b = append(set.b, "true"...)
		props.b = set.end()
		return
	}
	props.strings("$unset", []string{name}) // not false: cohorts of "is set" must be right too
}

// refusedDistinctIDs are what PostHog takes for a mistake, in lower case, beyond what
// is no id here either.
var refusedDistinctIDs = map[string]bool{
	"00000000-0000-0000-0000-000000000000": true, "[object object]": true, "anonymous-user": true, "backend": true,
	"nan": true, "none": true, "null": true, "system": true, "user": true,
}

func refusedByPosthog(id string) bool {
	return schemas.MistakenID(id) != "" || refusedDistinctIDs[strings.ToLower(strings.TrimSpace(id))] || utf8.RuneCountInString(id) > posthogName
}

// posthogDistinctID is the person's distinct id, or the contact id when PostHog
// would refuse it.
func posthogDistinctID(p Person) string {
	if id := p.DistinctID(); !refusedByPosthog(id) {
		return id
	}
	return p.ContactID
}

// truncate cuts a text to a number of characters.
func truncate(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	n := 0
	for i := range s {
		if n == limit {
			return s[:i]
		}
		n++
	}
	return s
}

// Judge implements [Sink]. PostHog answers 200 also when it drops everything
// because a quota is used up.
func (s *posthog) Judge(_ *Attempt, ans *transport.Answer) (delivery.Verdict, string) {
	verdict := JudgeStatus(ans.Status)
	if verdict == delivery.Delivered {
		if _, limited, found := bytes.Cut(ans.Body, []byte(`"quota_limited"`)); found && bytes.Contains(limited, []byte(`"events"`)) {
			return delivery.Retry, "PostHog drops events: the quota of the project is used up"
		}
	}
	return verdict, ""
}
