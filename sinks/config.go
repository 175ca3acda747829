package sinks

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// ReadConfig decodes a destination's config for a [Kind]. Unknown fields are refused: a
// misspelt setting that is ignored is found out too late.
func ReadConfig(config json.RawMessage, into any) error {
	if len(config) == 0 || string(config) == "null" {
		return nil
	}
	dec := json.NewDecoder(strings.NewReader(string(config)))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrongType) && wrongType.Field != "":
		return fmt.Errorf("config.%s: must be %s, not of type %s", asWritten(wrongType.Field, reflect.TypeOf(into)), wanted(wrongType.Type), given(wrongType))
	case errors.As(err, &wrongType):
		return fmt.Errorf("config: must be an object, not of type %s", given(wrongType))
	case err != nil:
		return fmt.Errorf("config: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// asWritten is the path of a setting without the structs that a kind's settings embed,
// which encoding/json names and nobody has written.
func asWritten(path string, settings reflect.Type) string {
	for {
		for settings.Kind() == reflect.Pointer {
			settings = settings.Elem()
		}
		first, rest, deeper := strings.Cut(path, ".")
		if !deeper || settings.Kind() != reflect.Struct {
			return path
		}
		field, found := settings.FieldByName(first)
		if !found || !field.Anonymous {
			return path
		}
		path, settings = rest, field.Type
	}
}

// wanted names a setting's type as those do who write JSON.
func wanted(t reflect.Type) string {
	switch t.Kind() { //nolint:exhaustive // settings have no others
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	default:
		return "a number"
	}
}

// given is the type of what was written instead, without its value.
func given(err *json.UnmarshalTypeError) string {
	kind, _, _ := strings.Cut(err.Value, " ")
	return kind
}
