package schedule

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"unicode"

	"github.com/hogstream/hogstream/predicate"
)

// Schema is the JSON Schema (draft 2020-12) of the written values, for editors and for the
// schemas of what holds them. Each is one of its $defs: until, repeat and window.
//
//go:embed schedule.schema.json
var Schema []byte

// newSchema makes Schema.
func newSchema() []byte {
	var condition struct {
		Defs map[string]any `json:"$defs"`
	}
	if err := json.Unmarshal(predicate.Schema, &condition); err != nil {
		panic(err) // it is embedded
	}
	var choices []any
	for _, name := range []string{"until", "repeat", "window"} {
		choices = append(choices, ref(name))
	}
	text, err := json.MarshalIndent(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "A time to wait for, a time that comes again, or a window",
		"anyOf":   choices,
		"$defs": map[string]any{
			"until": untilDefinition(), "repeat": repeatDefinition(), "window": windowDefinition(),
			"duration": condition.Defs["duration"],
			"time":     map[string]any{"type": "string", "pattern": "^" + timePattern + "$", "description": "A time of day, such as 09:30."},
			"weekday":  map[string]any{"type": "string", "pattern": weekdayPattern(), "examples": On(week...).words()},
		},
	}, "", "  ")
	if err != nil {
		panic(err) // maps of text
	}
	return append(text, '\n')
}

const timePattern = `\s*([01]?[0-9]|2[0-3]):[0-5][0-9]\s*`

// weekdayPattern is the days of the week in upper and lower case, in full or three letters.
func weekdayPattern() string {
	var words []string
	for _, word := range On(week...).words() {
		words = append(words, anyCase(word[:3])+"("+anyCase(word[3:])+")?")
	}
	return "^(" + strings.Join(words, "|") + ")$"
}

func anyCase(word string) string {
	var out strings.Builder
	for _, letter := range word {
		fmt.Fprintf(&out, "[%c%c]", letter, unicode.ToUpper(letter))
	}
	return out.String()
}

func untilDefinition() map[string]any {
	out := mapSchema(untilFields())
	needsTime := []string{"at"}
	out["dependentRequired"] = map[string]any{"day": needsTime, "ifPast": needsTime}
	out["not"] = map[string]any{"required": []string{"day", "after"}}
	out["anyOf"] = []any{requires("at"), requires("after"), requires("window")}
	return out
}

func repeatDefinition() map[string]any {
	out := mapSchema(repeatFields())
	out["required"] = []string{"at"}
	out["not"] = map[string]any{"required": []string{"days", "monthDays"}}
	return out
}

func windowDefinition() map[string]any {
	out := mapSchema(windowFields())
	out["dependentRequired"] = map[string]any{"from": []string{"to"}, "to": []string{"from"}}
	out["minProperties"] = 1
	short := map[string]any{"type": "string", "pattern": "^" + timePattern + "-" + timePattern + "$", "examples": []string{"09:00-17:00"}}
	return map[string]any{"anyOf": []any{short, out}, "description": "When something may be sent."}
}

func mapSchema[T any](fields []field[T]) map[string]any {
	properties := map[string]any{}
	for _, f := range fields {
		described := map[string]any{"description": f.doc}
		maps.Copy(described, f.schema)
		properties[f.name] = described
	}
	return map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
}

func requires(name string) map[string]any { return map[string]any{"required": []string{name}} }

func ref(name string) map[string]any { return map[string]any{"$ref": "#/$defs/" + name} }

func textSchema() map[string]any { return map[string]any{"type": "string", "minLength": 1} }

func oneOrMore(one map[string]any) map[string]any {
	return map[string]any{"anyOf": []any{one, map[string]any{"type": "array", "minItems": 1, "items": one}}}
}

func daySchema() map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"type": "string", "pattern": "^" + anyCase(tomorrow) + "$", "examples": []string{tomorrow}}, oneOrMore(ref("weekday"))}}
}
