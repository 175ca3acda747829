package schemas

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// NewMessage is an empty message of a topic; an error for one that there is not.
func NewMessage(topic Topic) (Message, error) {
	switch topic {
	case TopicIngest:
		return &Input{}, nil
	case TopicResolved:
		return &Resolved{}, nil
	case TopicEvents:
		return &Event{}, nil
	case TopicLifecycle:
		return &Fact{}, nil
	case TopicContacts:
		return &Contact{}, nil
	case TopicSignals:
		return &Signal{}, nil
	case TopicEmailRequests:
		return &EmailRequest{}, nil
	case TopicOutbox:
		return &Outbox{}, nil
	case TopicDeadLetters:
		return &DeadLetter{}, nil
	}
	return nil, fmt.Errorf("there is no topic %q", topic)
}

// FromJSON reads a message of a topic from the form that [Codec.JSON] writes: fields under
// the names of the schema, documents (properties) embedded, times as RFC 3339, bytes as
// base64. Fields that are left out are empty. The error names the field, as one that the
// schema does not have.
func FromJSON(topic Topic, text []byte) (Message, error) {
	m, err := NewMessage(topic)
	if err != nil {
		return nil, err
	}
	if err := fromJSON(text, reflect.ValueOf(m).Elem(), ""); err != nil {
		return nil, fmt.Errorf("a record of topic %s: %w", topic, err)
	}
	return m, nil
}

// fromJSON sets v, which stands at path.
func fromJSON(raw json.RawMessage, v reflect.Value, path string) error {
	raw = bytes.TrimSpace(raw)
	switch {
	case v.Kind() == reflect.Pointer:
		if string(raw) == "null" {
			return nil
		}
		v.Set(reflect.New(v.Type().Elem()))
		return fromJSON(raw, v.Elem(), path)
	case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]():
		return structFromJSON(raw, v, path)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		var items []json.RawMessage
		if err := json.Unmarshal(raw, &items); err != nil {
			return wrongField(path, "is not a list")
		}
		v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
		for i, item := range items {
			if err := fromJSON(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	case v.Kind() == reflect.String && len(raw) > 0 && (raw[0] == '{' || raw[0] == '['):
		if !json.Valid(raw) {
			return wrongField(path, "is not JSON")
		}
		v.SetString(string(raw)) // a document stands as it is
		return nil
	}
	if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
		return wrongField(path, fmt.Sprintf("%.60s is no %s", raw, v.Type()))
	}
	return nil
}

func wrongField(path, what string) error {
	if path == "" {
		return fmt.Errorf("the text %s", what)
	}
	return fmt.Errorf("field %s: %s", path, what)
}

func structFromJSON(raw json.RawMessage, v reflect.Value, path string) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return wrongField(path, "is not a JSON object")
	}
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("avro")
		member, given := members[name]
		if !given || name == "" {
			continue
		}
		delete(members, name)
		if err := fromJSON(member, v.Field(i), strings.TrimPrefix(path+"."+name, ".")); err != nil {
			return err
		}
	}
	if unknown := slices.Sorted(maps.Keys(members)); len(unknown) > 0 {
		return wrongField(strings.TrimPrefix(path+"."+unknown[0], "."), "is not in the schema")
	}
	return nil
}
