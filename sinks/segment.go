package sinks

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"

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
	o := begin(make([]byte, 0, 256+1024*len(a.Payloads)))
	o.key("batch")
	o.b = append(o.b, '[')
	for i, p := range a.Payloads {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		before := len(o.b)
		o.b = s.appendMessage(o.b, p)
		if size := len(o.b) - before; size > segmentMessage {
			return nil, fmt.Errorf("the message has %d bytes: Segment takes at most %d", size, segmentMessage)
		}
	}
	o.b = append(o.b, ']')
	body := o.end()
	if len(body) > segmentRequest {
		return nil, fmt.Errorf("the request has %d bytes: Segment takes at most %d", len(body), segmentRequest)
	}
	header := http.Header{"Content-Type": {"application/json"}, "Authorization": {s.auth}}
	return &transport.Request{URL: s.url, Header: header, Body: body, Gzip: s.cfg.Gzip}, nil
}

func (s *segment) appendMessage(b []byte, p *Payload) []byte {
	o := begin(b)
	traits, identify := p.Traits()
	if identify {
		o.str("type", "identify")
	} else {
		o.str("type", "track")
	}
	o.str("messageId", p.MessageID())
	o.str("userId", p.Person.DistinctID())
	o.strIfSet("anonymousId", p.Person.AnonymousID)
	o.time("timestamp", p.OccurredAt)
	o.key("context")
	context := begin(o.b)
	context.raw("library", `{"name":"hogstream"}`)
	if p.Seq > 0 {
		context.key("hogstream")
		place := begin(context.b)
		place.int("seq", p.Seq)
		place.int("era", p.Era)
		context.b = place.end()
	}
	o.b = context.end()
	if identify {
		o.key("traits")
		t := begin(o.b)
		t.members(traits)
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

// Judge implements [Sink]. Segment answers 200 to everything but bad JSON and
// what is too large.
func (s *segment) Judge(_ *Attempt, ans *transport.Answer) (delivery.Verdict, string) {
	return JudgeStatus(ans.Status), ""
}
