package definition

import (
	_ "embed"
	"encoding/json"

	"github.com/hogstream/hogstream/predicate"
)

// Schema is the JSON Schema (draft 2020-12) of a bucket's file, for editors. It holds
// [predicate.Schema], so it needs no network.
//
//go:embed bucket.schema.json
var Schema []byte

// newSchema makes Schema.
func newSchema() []byte {
	var condition struct {
		Defs map[string]any `json:"$defs"`
	}
	if err := json.Unmarshal(predicate.Schema, &condition); err != nil {
		panic(err) // it is embedded
	}
	properties := map[string]any{}
	for _, f := range fields() {
		f.schema["description"] = f.doc
		properties[f.name] = f.schema
	}
	text, err := json.MarshalIndent(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "A bucket", "type": "object",
		"properties": properties, "required": required(), "additionalProperties": false,
		"if":    map[string]any{"properties": map[string]any{"kind": map[string]any{"const": KindManual}}, "required": []string{"kind"}},
		"then":  map[string]any{"properties": map[string]any{"criteria": false}},
		"else":  map[string]any{"required": []string{"criteria"}},
		"$defs": condition.Defs,
	}, "", "  ")
	if err != nil {
		panic(err) // maps of text
	}
	return append(text, '\n')
}

func textSchema() map[string]any     { return map[string]any{"type": "string", "minLength": 1} }
func booleanSchema() map[string]any  { return map[string]any{"type": "boolean"} }
func durationSchema() map[string]any { return map[string]any{"$ref": "#/$defs/duration"} }

func dwellSchema() map[string]any {
	one := func(name string) map[string]any {
		return map[string]any{"type": "object", "properties": map[string]any{name: durationSchema()}, "required": []string{name}, "additionalProperties": false}
	}
	return map[string]any{"type": "array", "items": map[string]any{"anyOf": []any{one("after"), one("every")}}}
}
