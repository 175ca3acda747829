package destinations

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/hogstream/hogstream/sinks"
)

// redacted stands for a secret in what is shown. Writing it back keeps the
// stored value.
const redacted = "***"

// secretName recognises settings that hold a secret by their name, whatever the
// kind: a setting shown by mistake is worse than one hidden.
var secretName = regexp.MustCompile(`(?i)(secret|token|passw|credential|authorization|cookie|private|^sasl$|(api|write|access|signing|project)[-_]?key|^key$)`)

// isSecret decides for a member of a config, by its name and that of the object
// it stands in. Headers often carry credentials, so all of them are hidden.
func isSecret(parent, name string, kind *sinks.Kind) bool {
	if parent == "headers" || secretName.MatchString(name) {
		return true
	}
	return kind != nil && kind.SecretURL && parent == "" && name == "url"
}

// redactConfig is a config as it may be shown.
func redactConfig(config json.RawMessage, kind *sinks.Kind) json.RawMessage {
	var doc any
	if len(config) == 0 || json.Unmarshal(config, &doc) != nil {
		return nil
	}
	shown, err := json.Marshal(redact("", doc, kind))
	if err != nil {
		return nil // cannot happen: it was JSON
	}
	return shown
}

func redact(parent string, doc any, kind *sinks.Kind) any {
	switch v := doc.(type) {
	case map[string]any:
		for name, member := range v {
			if isSecret(parent, name, kind) && member != nil {
				v[name] = redacted
				continue
			}
			v[name] = redact(name, member, kind)
		}
	case []any:
		for i := range v {
			v[i] = redact(parent, v[i], kind)
		}
	}
	return doc
}

// restoreConfig puts the stored values back where a config that was shown is
// written back with its secrets hidden.
func restoreConfig(config, stored json.RawMessage) (json.RawMessage, error) {
	if !strings.Contains(string(config), redacted) {
		return config, nil
	}
	var doc, old any
	if err := json.Unmarshal(config, &doc); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if len(stored) > 0 {
		if err := json.Unmarshal(stored, &old); err != nil {
			return nil, fmt.Errorf("stored config: %w", err)
		}
	}
	doc, err := restore("config", doc, old)
	if err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

func restore(path string, doc, old any) (any, error) {
	switch v := doc.(type) {
	case string:
		if v != redacted {
			return doc, nil
		}
		if old == nil {
			return nil, fmt.Errorf("%s: %s hides a value, and none is stored: write the value", path, redacted)
		}
		return old, nil
	case map[string]any:
		before, _ := old.(map[string]any)
		for name, member := range v {
			kept, err := restore(path+"."+name, member, before[name])
			if err != nil {
				return nil, err
			}
			v[name] = kept
		}
	case []any:
		before, _ := old.([]any)
		for i, member := range v {
			var same any // of another list nobody knows which member it was
			if len(before) == len(v) {
				same = before[i]
			}
			kept, err := restore(fmt.Sprintf("%s[%d]", path, i), member, same)
			if err != nil {
				return nil, err
			}
			v[i] = kept
		}
	}
	return doc, nil
}

// redactURL is a URL as it may be shown: of a kind whose URL is the credential,
// only the host; of others without what its query calls a secret.
func redactURL(raw string, kind *sinks.Kind) string {
	if raw == "" {
		return raw
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "":
		return redacted
	case kind == nil || kind.SecretURL:
		return u.Scheme + "://" + u.Host + "/" + redacted
	}
	before, query, found := strings.Cut(raw, "?")
	if !found {
		return raw
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		if name, value, _ := strings.Cut(pair, "="); value != "" && secretName.MatchString(name) {
			pairs[i] = name + "=" + redacted
		}
	}
	return before + "?" + strings.Join(pairs, "&")
}
