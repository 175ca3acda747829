package definition_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	d "github.com/hogstream/hogstream/definition"
)

func compiledSchema(t *testing.T) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(d.Schema))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("bucket.schema.json", doc))
	schema, err := c.Compile("bucket.schema.json")
	require.NoError(t, err)
	return schema
}

// instance is a YAML text as a validator of JSON Schema sees it.
func instance(t *testing.T, text string) any {
	var v any
	require.NoError(t, yaml.Unmarshal([]byte(text), &v), text)
	raw, err := json.Marshal(v)
	require.NoError(t, err)
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	require.NoError(t, err)
	return out
}

func TestThePublishedSchemaTakesWhatTheLoaderTakes(t *testing.T) {
	schema := compiledSchema(t)
	for _, text := range []string{
		vip, old,
		"id: b\nname: B\nenabled: true\nkind: manual\nmaxDwell: 14d\n",
		vip + "dwell: [{after: 7d}, {every: {days: 1}}]\nentryLimit: once_per_period\nentryPeriod: 7d\nreconcileJoins: false\njoins: told\ntimeBased: true\nfastExpiry: true\nreconcileEvery: 5m\nminDwell: 90s\ndescription: x\n",
	} {
		require.NoError(t, schema.Validate(instance(t, text)), text)
		files, faults := loadOne(t, text)
		require.Empty(t, faults)
		require.NoError(t, schema.Validate(instance(t, files.Buckets[0].Canonical())))
	}
}

func TestThePublishedSchemaRefusesWhatTheLoaderRefuses(t *testing.T) {
	schema := compiledSchema(t)
	for _, text := range []string{
		"{}", "id: b\nname: B\n", "id: b\nname: B\nenabled: true\n",
		vip + "kind: manual\n", vip + "kind: other\n", vip + "naem: x\n", vip + "maxDwell: 7 days\n", vip + "joins: maybe\n",
		vip + "dwell: {after: 7d}\n", vip + "dwell: [{after: 7d, every: 7d}]\n", vip + "dwell: [{}]\n", vip + "fastExpiry: 1\n",
		"id: b\nname: B\nenabled: true\ncriteria: {type: evnt}\n",
	} {
		require.Error(t, schema.Validate(instance(t, text)), text)
		_, faults := loadOne(t, text)
		assert.NotEmpty(t, faults, text)
	}
}
