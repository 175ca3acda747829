package journeys

import (
	_ "embed"
	"encoding/json"
	"maps"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schedule"
)

// Schema is the JSON Schema (draft 2020-12) of a journey's file, for editors. It holds those
// of conditions and schedules, so it needs no network.
//
//go:embed journey.schema.json
var Schema []byte

// MakeSchema makes [Schema] of the tables, for the test that they are the same.
func MakeSchema() []byte {
	defs := definitionsOf(predicate.Schema)
	maps.Copy(defs, definitionsOf(schedule.Schema))
	maps.Copy(defs, map[string]any{
		"steps": listSchema(ref("journeyStep")), "journeyStep": stepSchema(),
		"trigger":      anyOf(ref("match"), listSchema(ref("match")), mapSchema(triggerFields())),
		"match":        mapSchema(needEvent(matchFields())),
		"exit":         exitSchema(),
		"goal":         mapSchema(goalFields()),
		"waitUntil":    mapSchema(waitUntilFields()),
		"waitFor":      mapSchema(waitForFields()),
		"alternative":  alternativeSchema(),
		"arm":          armSchema(),
		"share":        mapSchema(shareFields()),
		"productEvent": mapSchema(eventFields()),
		"membership":   oneKey(mapSchema(membershipFields()), "add", "remove"),
		"email":        mapSchema(emailFields()),
		"call":         mapSchema(callFields()),
		"object":       map[string]any{"type": "object", "description": "An object, in which values may be looked up: {run: key}, {trigger: property}, {last: property}, {contact: property}, {step: id, path: property}."},
		"source":       sourceSchema(),
		"where":        whereSchema(defs["short"]),
	})
	schema := mapSchema(journeyFields())
	delete(schema["properties"].(map[string]any), codedField)
	schema["required"] = append(schema["required"].([]string), "steps")
	schema["$schema"], schema["title"], schema["$defs"] = "https://json-schema.org/draft/2020-12/schema", "A journey", defs
	text, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		panic(err) // maps of text
	}
	return append(text, '\n')
}

func definitionsOf(schema []byte) map[string]any {
	var read struct {
		Defs map[string]any `json:"$defs"`
	}
	if err := json.Unmarshal(schema, &read); err != nil {
		panic(err) // it is embedded
	}
	return read.Defs
}

func mapSchema[T any](fields []field[T]) map[string]any {
	properties := map[string]any{}
	var required []string
	for _, f := range fields {
		described := map[string]any{"description": f.doc}
		maps.Copy(described, f.schema)
		properties[f.name] = described
		if f.required {
			required = append(required, f.name)
		}
	}
	out := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		out["required"] = required
	}
	return out
}

// oneKey has exactly one of some keys be there.
func oneKey(schema map[string]any, keys ...string) map[string]any {
	var choices []any
	for _, key := range keys {
		choices = append(choices, map[string]any{"required": []string{key}})
	}
	schema["oneOf"] = choices
	return schema
}

func stepSchema() map[string]any {
	out := oneKey(mapSchema(stepFields()), stepKinds()...)
	out["if"] = map[string]any{"required": []string{"then"}}
	out["then"] = anyOf(needs(kindWaitFor), needs(kindWaitUntil), needs(kindCall))
	return out
}

func needs(key string) map[string]any { return map[string]any{"required": []string{key}} }

func exitSchema() map[string]any {
	return oneKey(mapSchema(exitFields()), "event", "leftBucket")
}

func alternativeSchema() map[string]any {
	return oneKey(mapSchema(alternativeFields()), "event", "condition")
}

func armSchema() map[string]any {
	out := mapSchema(armFields())
	out["anyOf"] = []any{needs("when"), needs("trigger"), needs("last"), needs("else")}
	return out
}

func sourceSchema() map[string]any {
	var choices []map[string]any
	for _, source := range sources() {
		one := map[string]any{"type": "object", "required": []string{source}, "additionalProperties": false}
		switch source {
		case sourceRun:
			one["properties"] = map[string]any{source: map[string]any{"enum": runFields()}}
		case sourceStep:
			one["properties"] = map[string]any{source: textSchema(), "path": ref("path")}
			one["required"] = []string{source, "path"}
		default:
			one["properties"] = map[string]any{source: ref("path")}
		}
		choices = append(choices, one)
	}
	return anyOf(choices...)
}

// whereSchema is that of where: a condition, properties with what they are compared with, or
// a list.
func whereSchema(short any) map[string]any {
	mixed := maps.Clone(short.(map[string]any))
	mixed["additionalProperties"] = anyOf(mixed["additionalProperties"].(map[string]any), ref("source"))
	one := anyOf(ref("condition"), mixed)
	return anyOf(ref("condition"), mixed, listSchema(one))
}
