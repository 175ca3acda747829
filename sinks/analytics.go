package sinks

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
)

// What the analytics kinds (posthog, segment) have in common: an event has a
// name, a person, and properties; some facts also say what a person is like.

// analytics are the settings that they share.
type analytics struct {
	// Host is that of the vendor's region, or of one's own installation.
	Host string `json:"host"`
	// EventNames maps names of events.
	EventNames names `json:"eventNames"`
	// Gzip has requests compressed.
	Gzip bool `json:"gzip"`
	batching
}

// open checks the settings with the vendor's key, and returns the address of its API.
func (c *analytics) open(guard *transport.Guard, keyField, key, defaultHost, path string) (*url.URL, error) {
	if err := checkKey(keyField, key); err != nil {
		return nil, err
	}
	if err := c.EventNames.check(); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return guard.CheckURL("config.host", strings.TrimRight(cmp.Or(c.Host, defaultHost), "/")+path)
}

// hostOr makes the Receivers of a kind with a host in its config.
func hostOr(fallback string) func(*storage.Destination) []string {
	return func(dest *storage.Destination) []string {
		var cfg struct {
			Host string `json:"host"`
		}
		if len(dest.Config) > 0 && json.Unmarshal(dest.Config, &cfg) != nil {
			return nil
		}
		return []string{cmp.Or(cfg.Host, fallback)}
	}
}

// batching are the settings of all kinds that send many records at once.
type batching struct {
	// LingerMs is how long, in milliseconds, the first record of a request waits for
	// more when there are fewer than fit; 0 sends what is there at once.
	LingerMs int `json:"lingerMs"`
}

// maxLinger keeps a destination's latency in seconds, whatever is written.
const maxLinger = 5000

func (b batching) check() error {
	if b.LingerMs < 0 || b.LingerMs > maxLinger {
		return fmt.Errorf("config.lingerMs: is %d: write 0 to %d milliseconds", b.LingerMs, maxLinger)
	}
	return nil
}

// Name is what an analytics system shall call it: a product event by its own
// name, a fact by its type.
func (p *Payload) Name() string {
	if p.Event != nil && (!p.Transformed || p.Type == schemas.TypeEventTracked) {
		return p.Event.Name
	}
	return p.Type
}

// Properties is the JSON object of what belongs to it: of a product event its
// properties, of a fact its data.
func (p *Payload) Properties() string {
	if p.ownProperties() {
		if p.Event.Properties == "" {
			return "{}"
		}
		return p.Event.Properties
	}
	return string(p.Data)
}

// ownProperties says whether the properties are those of a product event, and not
// the data.
func (p *Payload) ownProperties() bool { return p.Event != nil && !p.Transformed }

// mentions says whether a byte occurs in the properties.
func (p *Payload) mentions(c byte) bool {
	if p.ownProperties() {
		return strings.IndexByte(p.Event.Properties, c) >= 0
	}
	return bytes.IndexByte(p.Data, c) >= 0
}

// properties splices the members of the payload's properties into the object.
func (o *object) properties(p *Payload) {
	if p.ownProperties() {
		o.members(p.Properties())
		return
	}
	splice(o, bytes.TrimSpace(p.Data))
}

// Traits is the JSON object of what the person is like, for facts that say it.
func (p *Payload) Traits() (traits string, ok bool) {
	if p.Transformed {
		return string(p.traits), p.Fact != nil && p.Fact.Contact != nil && len(p.traits) > 0
	}
	switch {
	case p.Fact == nil:
		return "", false
	case p.Fact.Contact != nil:
		traits = p.Fact.Contact.Properties
	case p.Fact.Merged != nil:
		traits = p.Fact.Merged.Properties
	default:
		return "", false
	}
	if traits == "" {
		traits = "{}"
	}
	return traits, true
}

// names maps names of events to those that a system knows them by.
type names map[string]string

func (n names) check() error {
	for from, to := range n {
		if from == "" || to == "" {
			return fmt.Errorf("config.eventNames: %q → %q: neither side may be empty; use filter to leave events out", from, to)
		}
	}
	return nil
}

func (n names) of(p *Payload) string {
	name := p.Name()
	if mapped, ok := n[name]; ok {
		return mapped
	}
	return name
}

// checkKey demands a credential, without ever showing it.
func checkKey(field, key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%s: is missing: write the key of the project", field)
	case strings.TrimSpace(key) != key, strings.ContainsAny(key, "\r\n\x00"):
		return fmt.Errorf("%s: has spaces or line breaks around it", field)
	}
	return nil
}

// members splices the members of a JSON object into the one being written.
func (o *object) members(document string) { splice(o, strings.TrimSpace(document)) }

// splice is members of a document without space around it.
func splice[T string | []byte](o *object, document T) {
	from, to := 1, len(document)-1
	for from < to && isSpace(document[from]) {
		from++
	}
	for to > from && isSpace(document[to-1]) {
		to--
	}
	if from == to {
		return
	}
	if o.comma {
		o.b = append(o.b, ',')
	}
	o.comma = true
	o.b = append(o.b, document[from:to]...)
}

// isSpace says whether JSON takes the byte for space.
func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

func (o *object) bool(k string, v bool) {
	o.key(k)
	if v {
		o.b = append(o.b, "true"...)
		return
	}
	o.b = append(o.b, "false"...)
}
