package predicate_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	p "github.com/hogstream/hogstream/predicate"
)

func compiledSchema(t *testing.T, text []byte) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("condition.schema.json", doc))
	schema, err := c.Compile("condition.schema.json")
	require.NoError(t, err)
	return schema
}

func instance(t require.TestingT, text string) any {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(text)))
	require.NoError(t, err)
	return v
}

func TestThePublishedSchemaTakesEveryForm(t *testing.T) {
	schema := compiledSchema(t, p.Schema)
	rapid.Check(t, func(t *rapid.T) {
		l := &language{T: t, Base: draw(t, "base", bases).At, Buckets: []string{"b"}}
		form := l.Condition(3)
		text, err := json.Marshal(form)
		require.NoError(t, err)
		require.NoError(t, schema.Validate(instance(t, string(text))), "as written: %s", text)
		canonical := readForm(t, form).Canonical()
		require.NoError(t, schema.Validate(instance(t, canonical)), "canonical: %s", canonical)
	})
}

func TestThePublishedSchemaRefusesWhatTheLoaderRefuses(t *testing.T) {
	schema := compiledSchema(t, p.Schema)
	for _, text := range []string{
		`{}`,
		`{"type":"evnt"}`,
		`{"type":"property","property":"a","opertor":"eq","value":1}`,
		`{"type":"property","property":"a","operator":"eq"}`,
		`{"type":"property","property":"","operator":"exists"}`,
		`{"type":"property","property":"a","operator":"exists","value":1}`,
		`{"type":"property","property":"a","operator":"gt","value":"5"}`,
		`{"type":"property","property":"a","operator":"in","value":[]}`,
		`{"type":"property","property":"a","operator":"between","value":[1]}`,
		`{"type":"event","eventName":"a","check":"exists","within":"7 days"}`,
		`{"type":"event","eventName":"a","check":"exists","within":{}}`,
		`{"type":"event","eventName":"a","check":"exists","within":{"dys":7}}`,
		`{"type":"seen","check":"first","operator":"eq","value":3}`,
		`{"type":"sequence","first":{"eventName":"a"}}`,
		`{"type":"sequence","first":{"eventName":"a","within":"3d"},"then":{"eventName":"b"}}`,
		`{"type":"composite","operator":"and","conditions":[]}`,
		`{"type":"not","condition":{"type":"property"}}`,
	} {
		require.Error(t, schema.Validate(instance(t, text)), text)
		_, err := p.ParseJSON("c.json", []byte(text))
		assert.Error(t, err, text)
	}
}
