package destinations

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/stream"
)

// Sample is what a preview or a test is made with: a record of the log; or a
// message as JSON, in the form in which webhooks get it or in which records are
// shown; or, without both, a webhook.test.
type Sample struct {
	Record  *stream.Record
	Message json.RawMessage
}

// sample is a sample as destinations see it. shaped says that filter and
// transform apply to it: not to a webhook.test.
func (o *Operations) sample(s Sample, destinationID string, now time.Time) (p *sinks.Payload, shaped bool, err error) {
	switch {
	case s.Record != nil:
		p, err = o.deliverer.Payload(s.Record)
	case len(s.Message) > 0:
		p, err = pasted(s.Message, now)
	default:
		return sinks.TestPayload(uuid.Must(uuid.NewV7()).String(), destinationID, now), false, nil
	}
	if err != nil && !errors.Is(err, schemas.ErrRegistryUnavailable) {
		err = &InvalidError{Field: "message", Message: err.Error()}
	}
	return p, true, err
}

// pasted reads a message: {"id", "type", "timestamp", "data"}, or a record as
// `topics tail --json` shows it, or the value of one.
func pasted(message json.RawMessage, now time.Time) (*sinks.Payload, error) {
	var m struct {
		Topic     schemas.Topic   `json:"topic"`
		Value     json.RawMessage `json:"value"`
		ID        string          `json:"id"`
		Type      string          `json:"type"`
		Timestamp *time.Time      `json:"timestamp"`
		Data      json.RawMessage `json:"data"`
		Name      string          `json:"name"` // of an event's value
	}
	if err := json.Unmarshal(message, &m); err != nil {
		return nil, fmt.Errorf("is not a message: %w", err)
	}
	if err := onlyKnown(message, len(m.Data) > 0, len(m.Value) > 0); err != nil {
		return nil, err
	}
	if len(m.Data) > 0 {
		if m.Timestamp == nil {
			m.Timestamp = &now
		}
		return sinks.EnvelopePayload(m.ID, m.Type, *m.Timestamp, m.Data)
	}
	value := message
	if len(m.Value) > 0 {
		value = m.Value
	}
	topic := m.Topic
	switch {
	case topic == "" && m.Name != "":
		topic = schemas.TopicEvents
	case topic == "" && m.Type != "":
		topic = schemas.TopicLifecycle
	case topic == "":
		return nil, errors.New(`has neither "type" and "data", as webhooks get it, nor "topic" and "value", as records are shown`)
	}
	read, err := schemas.MessageFromJSON(topic, value)
	if err != nil {
		return nil, err
	}
	return sinks.PayloadOf(read)
}

// onlyKnown refuses a field that is in neither form of a message: one that is misspelt
// and passed over is found out too late.
func onlyKnown(message json.RawMessage, envelope, shown bool) error {
	known := []string{"topic", "partition", "offset", "appendTime", "key", "id", "type", "value"}
	switch {
	case envelope:
		known = []string{"id", "type", "timestamp", "data"}
	case !shown:
		return nil // the value of a record
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(message, &members); err != nil {
		return fmt.Errorf("is not a message: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("has the unknown field %q: use %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}
