package sinks

import (
	"cmp"
	"encoding/json"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/hogstream/hogstream/storage"
)

// A destination's secrets were given for its receiver. Whoever may change settings
// sees them nowhere, and must not be able to have them sent to another receiver
// either: one that moves is given its secrets again.

// An address is where a receiver is, as far as it matters to who gets a secret.
type address struct {
	host      string // with port
	encrypted bool
}

func addressOf(raw string) []address {
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil || u.Hostname() == "" {
		return nil
	}
	encrypted := u.Scheme == "https"
	port := u.Port()
	if port == "" && encrypted {
		port = "443"
	}
	return []address{{strings.ToLower(net.JoinHostPort(u.Hostname(), cmp.Or(port, "80"))), encrypted}}
}

// urlAddress is the address of kinds that are sent to the destination's URL.
func urlAddress(d *storage.Destination) []address { return addressOf(d.URL) }

// hostAddress is that of kinds with a host in their config.
func hostAddress(fallback string) func(*storage.Destination) []address {
	return func(d *storage.Destination) []address {
		var cfg struct {
			Host string `json:"host"`
		}
		if len(d.Config) > 0 && json.Unmarshal(d.Config, &cfg) != nil {
			return nil
		}
		return addressOf(cmp.Or(cfg.Host, fallback))
	}
}

// brokerAddresses is that of kind kafka.
func brokerAddresses(d *storage.Destination) (all []address) {
	var cfg struct {
		Brokers []string `json:"brokers"`
		TLS     bool     `json:"tls"`
	}
	if len(d.Config) > 0 && json.Unmarshal(d.Config, &cfg) != nil {
		return nil
	}
	for _, broker := range cfg.Brokers {
		all = append(all, address{strings.ToLower(broker), cfg.TLS})
	}
	return all
}

// receiverAddresses are the addresses of URLs.
func receiverAddresses(urls func(*storage.Destination) []string) func(*storage.Destination) []address {
	return func(d *storage.Destination) (all []address) {
		for _, u := range urls(d) {
			all = append(all, addressOf(u)...)
		}
		return all
	}
}

// movedTo is where secrets would be sent that were not sent there before; "" for
// nowhere.
func (c catalog) movedTo(before, after *storage.Destination) string {
	kind, err := c.find(after.Kind)
	if err != nil || kind.addresses == nil {
		return ""
	}
	var known []address
	if before.Kind == after.Kind {
		known = kind.addresses(before)
	}
	for _, a := range kind.addresses(after) {
		same := func(k address) bool { return k.host == a.host && (a.encrypted || !k.encrypted) }
		if !slices.ContainsFunc(known, same) {
			return a.host
		}
	}
	return ""
}

// keptSecrets are the fields of a destination's config that hold a secret which a
// change leaves as it is, without telling it: hidden in the config that is written, or
// all, when none is.
func (c catalog) keptSecrets(written json.RawMessage, d *storage.Destination) []string {
	kind, _ := c.find(d.Kind)
	var kept []string
	var config any
	if written == nil {
		_ = json.Unmarshal(d.Config, &config) // no secret in what is no JSON
		eachSecret("config", "", config, kind, func(field string) { kept = append(kept, field) })
	} else {
		_ = json.Unmarshal(written, &config)
		eachHidden("config", config, func(field string) { kept = append(kept, field) })
	}
	slices.Sort(kept)
	return kept
}

func eachSecret(path, parent string, config any, kind *Kind, found func(field string)) {
	switch v := config.(type) {
	case map[string]any:
		for name, member := range v {
			if field := path + "." + name; isSecret(parent, name, kind) && member != nil && member != "" {
				found(field)
			} else {
				eachSecret(field, name, member, kind, found)
			}
		}
	case []any:
		for _, member := range v {
			eachSecret(path, parent, member, kind, found)
		}
	}
}

func eachHidden(path string, config any, found func(field string)) {
	switch v := config.(type) {
	case string:
		if v == redacted {
			found(path)
		}
	case map[string]any:
		for name, member := range v {
			eachHidden(path+"."+name, member, found)
		}
	case []any:
		for _, member := range v {
			eachHidden(path, member, found)
		}
	}
}

// refuseMove is the error of a change that would have a hidden secret sent to another
// receiver than the one that it was given for.
func (c catalog) refuseMove(before, after *storage.Destination, kept []string) error {
	to := c.movedTo(before, after)
	if len(kept) == 0 || to == "" {
		return nil
	}
	return &InvalidError{kept[0], "is hidden, and was given for another receiver than " + to +
		": send the value again together with the new address, or leave the field out"}
}
