package definition

import (
	_ "embed"
	"encoding/json"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
)

// Schema is the JSON Schema (draft 2020-12) of a bucket's file, for editors. It holds
// [predicate.Schema], so it needs no network.
//
//go:embed bucket.schema.json
var Schema []byte

// TestSchema is the JSON Schema of a file of tests, as [Schema] is a bucket's.
//
//go:embed test.schema.json
var TestSchema []byte

// SchemaFile is a JSON Schema that stands beside definitions, for editors.
type SchemaFile struct {
	Name string // of the file
	Text []byte

	made func() []byte // makes Text
}

// SchemaFiles are those of all kinds, and of tests.
func SchemaFiles() []SchemaFile {
	var out []SchemaFile
	for _, k := range kinds {
		if k.schema.Name != "" {
			out = append(out, k.schema)
		}
	}
	return append(out, SchemaFile{"test.schema.json", TestSchema, newTestSchema})
}

// newTestSchema makes TestSchema.
func newTestSchema() []byte {
	return published("Tests of definitions", testFields().schema(), map[string]any{
		"step": stepSchema(), "duration": conditionDefs()["duration"],
	})
}

// newSchema makes Schema.
func newSchema() []byte {
	schema := fields().schema()
	schema["if"] = map[string]any{"properties": map[string]any{"kind": map[string]any{"const": KindManual}}, "required": []string{"kind"}}
	schema["then"] = map[string]any{"properties": map[string]any{"criteria": false}}
	schema["else"] = map[string]any{"required": []string{"criteria"}}
	reactions, defs := journeys.ReactionsSchema()
	defs["reactions"] = reactions
	return published("A bucket", schema, defs)
}

// conditionDefs are the parts of the schema of conditions.
func conditionDefs() map[string]any {
	var condition struct {
		Defs map[string]any `json:"$defs"`
	}
	if err := json.Unmarshal(predicate.Schema, &condition); err != nil {
		panic(err) // it is embedded
	}
	return condition.Defs
}

// schema is the schema of a map as its table says.
func (t table[T]) schema() map[string]any {
	properties := map[string]any{}
	for _, f := range t {
		f.schema["description"] = f.doc
		properties[f.name] = f.schema
	}
	out := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if names := t.required(); len(names) > 0 {
		out["required"] = names
	}
	return out
}

// published is the text of a schema.
func published(title string, schema, defs map[string]any) []byte {
	schema["$schema"], schema["title"], schema["$defs"] = "https://json-schema.org/draft/2020-12/schema", title, defs
	text, err := json.MarshalIndent(schema, "", "  ")
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
