// Package teams is a kind of destination that posts a line of text for each record.
package teams

import (
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/hogstream/hogstream/stream/delivery"

	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
)

// Kind posts to an incoming webhook, whose address is a secret.
var Kind = sinks.Kind{Name: "teams", NeedsURL: true, SecretURL: true, Records: 1, Bytes: 64 << 10, Open: open}

// config are the settings beside the URL.
type config struct {
	Prefix string `json:"prefix"`
}

type teams struct {
	url *url.URL
	cfg config
}

// open checks the settings and prepares what is the same for every attempt. Its errors
// begin with the field and say what to write instead.
func open(dest *storage.Destination, guard *transport.Guard) (sinks.Sink, error) {
	t := &teams{}
	if err := sinks.ReadConfig(dest.Config, &t.cfg); err != nil {
		return nil, err
	}
	var err error
	t.url, err = guard.CheckURL("url", dest.URL)
	return t, err
}

// Build implements [sinks.Sink]. The same record gives the same bytes at every attempt.
func (t *teams) Build(a *sinks.Attempt) (*transport.Request, error) {
	p := a.Payloads[0] // Records is 1
	body, err := json.Marshal(map[string]string{"text": t.cfg.Prefix + p.Name() + " of " + p.Person.DistinctID()})
	if err != nil {
		return nil, err
	}
	return &transport.Request{URL: t.url, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}, nil
}

// Judge implements [sinks.Sink]: 2xx is delivered, 429 and 5xx are tried again, 400 is
// the record's fault, 401 the destination's.
func (t *teams) Judge(_ *sinks.Attempt, ans *transport.Answer) (delivery.Verdict, string) {
	return sinks.JudgeStatus(ans.Status), ""
}
