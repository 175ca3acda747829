package destinations

import (
	"cmp"
	"encoding/json"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/hogstream/hogstream/sinks"
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

func addressOf(receiver string) (address, bool) {
	u, err := url.Parse(strings.TrimSpace(receiver))
	if err != nil || u.Hostname() == "" {
		return address{}, false
	}
	port := cmp.Or(u.Port(), map[bool]string{true: "443", false: "80"}[u.Scheme == "https"])
	return address{strings.ToLower(net.JoinHostPort(u.Hostname(), port)), u.Scheme == "https" || u.Scheme == "tls"}, true
}

func addressesOf(kind *sinks.Kind, d *storage.Destination) (all []address) {
	for _, receiver := range kind.Receivers(d) {
		if a, ok := addressOf(receiver); ok {
			all = append(all, a)
		}
	}
	return all
}

// movedTo is where secrets would be sent that were not sent there before; "" for
// nowhere. The kind is that of after.
func movedTo(kind *sinks.Kind, before, after *storage.Destination) string {
	if kind.Receivers == nil {
		return ""
	}
	var known []address
	if before.Kind == after.Kind {
		known = addressesOf(kind, before)
	}
	for _, a := range addressesOf(kind, after) {
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
func keptSecrets(kind *sinks.Kind, written json.RawMessage, d *storage.Destination) []string {
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

func eachSecret(path, parent string, config any, kind *sinks.Kind, found func(field string)) {
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
func refuseMove(kind *sinks.Kind, before, after *storage.Destination, kept []string) error {
	to := movedTo(kind, before, after)
	if len(kept) == 0 || to == "" {
		return nil
	}
	return &InvalidError{kept[0], "is hidden, and was given for another receiver than " + to +
		": send the value again together with the new address, or leave the field out"}
}
