package predicate

import (
	_ "embed"
	"encoding/json"
	"slices"
)

// Schema is the JSON Schema (draft 2020-12) of a written condition, for editors. It is
// made from the table of forms, and knows what one condition can look like; what its
// parts say together, such as two windows, only the loader checks.
//
//go:embed condition.schema.json
var Schema []byte

// SelectorSchema is the JSON Schema of a [Selector], as [Schema] is that of a condition.
//
//go:embed selector.schema.json
var SelectorSchema []byte

// newSchema makes Schema.
func newSchema() []byte {
	definitions := formDefinitions(kinds())
	definitions["step"], definitions["duration"] = formSchema(stepForm()), durationDefinition()
	return schemaText("A condition", ref("condition"), definitions)
}

// newSelectorSchema makes SelectorSchema.
func newSelectorSchema() []byte {
	definitions := formDefinitions(filterKinds)
	definitions["rule"] = ruleDefinition()
	rules := map[string]any{"type": "array", "minItems": 1, "items": ref("rule")}
	return schemaText("A selector of records", map[string]any{"anyOf": []any{ref("rule"), rules}}, definitions)
}

func schemaText(title string, top, definitions map[string]any) []byte {
	top["$schema"], top["title"], top["$defs"] = "https://json-schema.org/draft/2020-12/schema", title, definitions
	text, err := json.MarshalIndent(top, "", "  ")
	if err != nil {
		panic(err) // maps of text
	}
	return append(text, '\n')
}

// formDefinitions are the forms of some kinds, and what they refer to.
func formDefinitions(kinds []string) map[string]any {
	definitions := map[string]any{
		"condition":  conditionUnion(kinds),
		"short":      shortDefinition(),
		"comparison": comparisonDefinition(),
		"path":       pathDefinition(),
		"value":      valueDefinition(),
	}
	for _, kind := range kinds {
		definitions[kind] = formSchema(findForm(kind))
	}
	return definitions
}

func ruleDefinition() map[string]any {
	described := func(s map[string]any, doc string) map[string]any {
		s["description"] = doc
		return s
	}
	return map[string]any{
		"type": "object", "minProperties": 1, "additionalProperties": false,
		"properties": map[string]any{
			"event":     described(textSchema(nil), "The name of an event or the type of a fact; or how these begin, such as order.*; event.tracked:order.* are product events alone."),
			"where":     described(whereSchema(nil), findField("where").doc),
			"bucket":    described(textSchema(nil), "The contact is a member of this bucket."),
			"notBucket": described(textSchema(nil), "The contact is no member of this bucket."),
		},
	}
}

// shortDefinition is the short form of where.
func shortDefinition() map[string]any {
	long := func(other string) any { return map[string]any{"required": []string{"operator", other}} }
	return map[string]any{
		"type": "object", "minProperties": 1,
		"propertyNames":        map[string]any{"minLength": 1},
		"properties":           map[string]any{"type": map[string]any{"not": map[string]any{"type": "string"}, "$ref": "#/$defs/comparison"}},
		"additionalProperties": ref("comparison"),
		"not":                  map[string]any{"anyOf": []any{long("property"), long("conditions")}},
	}
}

// comparisonDefinition is what stands behind the name of a property in the short form.
func comparisonDefinition() map[string]any {
	options := map[string]any{"ignoreCase": booleanSchema(nil), "zone": textSchema(nil)}
	var some []any
	for _, op := range propertyOperators {
		options[op.word] = operandSchema(op.wants)
		if op.wants == wantsNothing {
			options[op.word] = booleanSchema(nil)
		}
		some = append(some, map[string]any{"required": []string{op.word}})
	}
	return map[string]any{"anyOf": []any{
		operandSchema(wantsScalar),
		operandSchema(wantsList),
		map[string]any{"type": "object", "properties": options, "additionalProperties": false, "anyOf": some},
	}}
}

// conditionUnion picks the form by its type, so that an editor completes its keys alone.
func conditionUnion(kinds []string) map[string]any {
	var choices []any
	for _, kind := range kinds {
		f := findForm(kind)
		choices = append(choices, map[string]any{
			"if":   map[string]any{"properties": map[string]any{"type": map[string]any{"const": f.kind}}, "required": []string{"type"}},
			"then": ref(f.kind),
		})
	}
	return map[string]any{
		"type": "object", "required": []string{"type"},
		"properties": map[string]any{"type": map[string]any{"enum": kinds, "description": "What is asked."}},
		"allOf":      choices,
	}
}

func formSchema(f *form) map[string]any {
	properties := map[string]any{}
	required := slices.Concat([]string{}, f.required)
	if f.kind != kindStep {
		properties["type"] = map[string]any{"const": f.kind}
		required = append(required, "type")
	}
	for _, name := range f.names() {
		field := findField(name)
		s := field.schema(f)
		s["description"] = field.doc
		properties[name] = s
	}
	out := map[string]any{
		"type": "object", "description": f.doc, "properties": properties,
		"required": required, "additionalProperties": false,
	}
	if rules := operandRules(f); len(rules) > 0 {
		out["allOf"] = rules
	}
	return out
}

// operandRules say which value an operator wants, for forms whose operators compare.
func operandRules(f *form) []any {
	var rules []any
	for _, op := range propertyOperators {
		if !slices.Contains(f.words["operator"], op.word) || !slices.Contains(f.names(), "value") {
			continue
		}
		then := map[string]any{"properties": map[string]any{"value": operandSchema(op.wants)}, "required": []string{"value"}}
		if op.wants == wantsNothing {
			then = map[string]any{"properties": map[string]any{"value": false}}
		}
		rules = append(rules, map[string]any{
			"if":   map[string]any{"properties": map[string]any{"operator": map[string]any{"const": op.word}}, "required": []string{"operator"}},
			"then": then,
		})
	}
	return rules
}

func operandSchema(wants operandKind) map[string]any {
	switch wants {
	case wantsText, wantsMoment, wantsDay:
		return map[string]any{"type": "string"}
	case wantsNumber:
		return map[string]any{"type": "number"}
	case wantsList:
		return map[string]any{"type": "array", "minItems": 1}
	case wantsPair:
		return map[string]any{"type": "array", "minItems": 2, "maxItems": 2}
	}
	return map[string]any{"type": []string{"string", "number", "boolean"}}
}

func ref(name string) map[string]any { return map[string]any{"$ref": "#/$defs/" + name} }

func pathSchema(*form) map[string]any      { return ref("path") }
func valueSchema(*form) map[string]any     { return ref("value") }
func durationSchema(*form) map[string]any  { return ref("duration") }
func stepSchema(*form) map[string]any      { return ref("step") }
func conditionSchema(*form) map[string]any { return ref("condition") }
func booleanSchema(*form) map[string]any   { return map[string]any{"type": "boolean"} }
func textSchema(*form) map[string]any      { return map[string]any{"type": "string", "minLength": 1} }

func conditionsSchema(*form) map[string]any {
	return map[string]any{"type": "array", "minItems": 1, "items": ref("condition")}
}

func whereSchema(*form) map[string]any {
	one := map[string]any{"anyOf": []any{ref("condition"), ref("short")}}
	return map[string]any{"anyOf": []any{ref("condition"), ref("short"), map[string]any{"type": "array", "minItems": 1, "items": one}}}
}

func wordSchema(name string) func(*form) map[string]any {
	return func(f *form) map[string]any { return map[string]any{"enum": f.words[name]} }
}

func pathDefinition() map[string]any {
	return map[string]any{"anyOf": []any{
		textSchema(nil),
		map[string]any{"type": "array", "minItems": 1, "items": textSchema(nil)},
	}}
}

func valueDefinition() map[string]any {
	scalar := map[string]any{"type": []string{"string", "number", "boolean"}}
	return map[string]any{"anyOf": []any{scalar, map[string]any{"type": "array", "items": scalar}}}
}

func durationDefinition() map[string]any {
	parts := map[string]any{}
	for _, name := range durationParts() {
		parts[name] = map[string]any{"type": "number", "minimum": 0}
	}
	return map[string]any{
		"description": "A time such as 30d or 1h30m, or its parts.",
		"anyOf": []any{
			map[string]any{"type": "string", "pattern": "^([0-9]+[wdhms])+$"},
			map[string]any{"type": "object", "properties": parts, "additionalProperties": false, "minProperties": 1},
		},
	}
}
