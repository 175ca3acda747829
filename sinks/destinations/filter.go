package destinations

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/hogstream/hogstream/predicate"
)

// Filter says which records a destination is sent: jq, or a condition on records, which is
// evaluated without a worker process. Its zero value is all. As JSON it is a text of jq, or the
// condition as an object or a list of these.
type Filter struct {
	JQ       string
	Selector predicate.Selector
}

// MarshalJSON implements json.Marshaler; none is "".
func (f Filter) MarshalJSON() ([]byte, error) {
	if !f.Selector.IsZero() {
		return f.Selector.MarshalJSON()
	}
	return json.Marshal(f.JQ)
}

// UnmarshalJSON implements json.Unmarshaler; null is none. The error is an
// [*InvalidError] of field filter.
func (f *Filter) UnmarshalJSON(text []byte) error {
	var read Filter
	switch text = bytes.TrimSpace(text); {
	case len(text) > 0 && text[0] == '"':
		if err := json.Unmarshal(text, &read.JQ); err != nil {
			return &InvalidError{"filter", err.Error()}
		}
	case !bytes.Equal(text, []byte("null")):
		s, err := predicate.ParseSelectorJSON("", text)
		if err != nil {
			return &InvalidError{"filter", inOneLine(err)}
		}
		read.Selector = s
	}
	*f = read
	return nil
}

// inOneLine says faults without the lines of a file that nobody has.
func inOneLine(err error) string {
	var faults predicate.Faults
	if !errors.As(err, &faults) {
		return err.Error()
	}
	texts := make([]string, len(faults))
	for i, fault := range faults {
		fault.Line = 0
		texts[i] = fault.String()
	}
	return strings.Join(texts, "; ")
}

// stored is the selector as a destination keeps it.
func (f Filter) stored() string {
	if f.Selector.IsZero() {
		return ""
	}
	return f.Selector.Canonical()
}

// filterOf is the filter of jq and a stored selector. One that this release cannot read is
// shown as it stands.
func filterOf(jq, selector string) any {
	if selector != "" {
		return json.RawMessage(selector)
	}
	return jq
}
