package sinks

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// segmentKind sends to Segment's /v1/batch: an identify for facts that say what a
// person is like, a track for everything else. messageId is the envelope's id.
var segmentKind = Kind{Name: "segment", Records: 500, Bytes: 192 << 10, Open: openSegment, Receivers: hostOr(segmentHost)}

// Limits of Segment's HTTP API, in bytes.
const (
	segmentHost    = "https://api.segment.io"
	segmentMessage = 32 << 10
	segmentRequest = 500 << 10
	segmentLinks   = 400 << 10 // of the links of one record
	segmentItems   = 2500      // messages of a request
)

// segmentConfig is the config of kind segment.
type segmentConfig struct {
	WriteKey string `json:"writeKey"`
	// In the EU the host is https://eu1.api.segmentapis.com.
	analytics
}

type segment struct {
	url  *url.URL
	auth string
	cfg  segmentConfig
}

func openSegment(dest *storage.Destination, guard *transport.Guard) (Sink, error) {
	s := &segment{}
	if err := ReadConfig(dest.Config, &s.cfg); err != nil {
		return nil, err
	}
	s.auth = "Basic " + base64.StdEncoding.EncodeToString([]byte(s.cfg.WriteKey+":"))
	var err error
	s.url, err = s.cfg.open(guard, "config.writeKey", s.cfg.WriteKey, segmentHost, "/v1/batch")
	return s, err
}

// Build implements [Sink].
func (s *segment) Build(a *Attempt) (*transport.Request, error) {
	header := http.Header{"Content-Type": {"application/json"}, "Authorization": {s.auth}}
	req := &transport.Request{URL: s.url, Header: header, Gzip: s.cfg.Gzip}
	o := begin(make([]byte, 0, 256+1024*len(a.Payloads)))
	o.key("batch")
	o.b = append(o.b, '[')
	items := 0
	for i, p := range a.Payloads {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		before := len(o.b)
		o.b = s.appendMessage(o.b, p, allTraits(p))
		if len(o.b)-before > segmentMessage {
			var leftOut, of int
			o.b, leftOut, of = trimmed(o.b[:before], p, segmentMessage, s.appendMessage)
			req.Note(i, noteTraits(leftOut, of, "Segment", segmentMessage))
		}
		if size := len(o.b) - before; size > segmentMessage {
			return nil, fmt.Errorf("the message has %d bytes: Segment takes at most %d", size, segmentMessage)
		}
		var linked, untied int
		o.b, linked, untied = appendSegmentLinks(o.b, p)
		if untied > 0 {
			req.Note(i, fmt.Sprintf("%d earlier names of the person were not tied: Segment takes at most %d bytes a request", untied, segmentRequest))
		}
		items += 1 + linked
	}
	o.b = append(o.b, ']')
	body := o.end()
	if items > segmentItems {
		return nil, fmt.Errorf("the request has %d messages: Segment takes at most %d", items, segmentItems)
	}
	if len(body) > segmentRequest {
		return nil, fmt.Errorf("the request has %d bytes: Segment takes at most %d", len(body), segmentRequest)
	}
	req.Body = body
	return req, nil
}

func (s *segment) appendMessage(b []byte, p *Payload, shows shown) []byte {
	o := begin(b)
	if shows.ok {
		o.str("type", "identify")
	} else {
		o.str("type", "track")
	}
	o.str("messageId", p.MessageID())
	o.who(p.Person)
	o.time("timestamp", p.OccurredAt)
	o.key("context")
	context := begin(o.b)
	context.raw("library", `{"name":"hogstream"}`)
	if shows.leftOut > 0 {
		context.int("traitsLeftOut", int64(shows.leftOut))
	}
	if p.Seq > 0 {
		context.key("hogstream")
		place := begin(context.b)
		place.int("seq", p.Seq)
		place.int("era", p.Era)
		context.b = place.end()
	}
	o.b = context.end()
	if shows.ok {
		o.key("traits")
		t := begin(o.b)
		t.members(shows.traits)
		t.strIfSet("email", p.Person.Email)
		o.b = t.end()
		return o.end()
	}
	o.str("event", s.cfg.EventNames.of(p))
	o.key("properties")
	props := begin(o.b)
	props.properties(p)
	o.b = props.end()
	return o.end()
}

// who names the person of a message: by the user id, or by an anonymous id as
// analytics.js does. A contact id is no user id: Segment never lets go of one.
func (o *object) who(p Person) {
	userID, anonymousID := deref(p.UserID), deref(p.AnonymousID)
	if userID != "" {
		o.str("userId", userID)
	} else if anonymousID == "" {
		anonymousID = p.ContactID
	}
	if anonymousID != "" {
		o.str("anonymousId", anonymousID)
	}
}

// appendSegmentLinks adds the messages that tie other names of a payload's person to
// its user id, of as many as a request can carry, and says how many there are and how
// many names are left. Without a user id
// Segment has no way to tie names; they are tied when the contact gets one.
func appendSegmentLinks(b []byte, p *Payload) (body []byte, n, untied int) {
	userID := deref(p.Person.UserID)
	if userID == "" {
		return b, 0, 0
	}
	start := len(b)
	said := map[string]bool{deref(p.Person.AnonymousID): true} // by the message itself
	for _, l := range links(p) {
		if l.kind != externalLink && said[l.name] {
			continue
		}
		if len(b)-start > segmentLinks || n == segmentItems-1 {
			untied++
			continue
		}
		o := begin(append(b, ','))
		if l.kind == externalLink {
			o.str("type", "alias")
			o.str("previousId", l.name)
		} else {
			said[l.name] = true
			o.str("type", "identify")
			o.str("anonymousId", l.name)
		}
		o.str("messageId", "msg_"+schemas.Derive(p.ID, "link", n))
		o.str("userId", userID)
		o.time("timestamp", p.OccurredAt)
		o.key("context")
		o.b = append(o.b, `{"library":{"name":"hogstream"}}`...)
		b = o.end()
		n++
	}
	return b, n, untied
}

// Judge implements [Sink]. Segment answers 200 to everything but bad JSON and
// what is too large.
func (s *segment) Judge(_ *Attempt, ans *transport.Answer) (delivery.Verdict, string) {
	return JudgeStatus(ans.Status), ""
}
