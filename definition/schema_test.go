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

func compiledSchema(t *testing.T, text []byte) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("of.schema.json", doc))
	schema, err := c.Compile("of.schema.json")
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
	schema := compiledSchema(t, d.Schema)
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
	schema := compiledSchema(t, d.Schema)
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

func TestThePublishedSchemaOfTestsTakesWhatTheLoaderTakes(t *testing.T) {
	schema := compiledSchema(t, d.TestSchema)
	for _, text := range []string{
		"buckets: [vip]\ngiven: {at: 2026-03-02, steps: []}\ncases: []",
		oneCase("  - {event: a, times: 3, every: 1h, late: {hours: 1}, contact: ann, properties: {a: 1}, contactProperties: {b: null}, identify: {userId: u}}\n" +
			"  - {properties: {a: 1}, identify: {email: x}, after: 1d}\n  - {identify: {anonymousId: x}}\n  - {merge: ann, at: 3d}\n  - {add: hand, until: 9d}\n  - remove: hand\n" +
			"  - advance: 1d\n  - at: 2026-02-02T00:00:00Z\n  - expect: {members: [vip], not: [], facts: [bucket.left vip, {type: bucket.dwell, bucket: vip, at: 1d, source: event}]}\n  - delete: someone"),
	} {
		require.NoError(t, schema.Validate(instance(t, text)), text)
		_, faults := loadTests(t, text)
		require.Empty(t, faults, text)
	}
}

func TestThePublishedSchemaOfTestsRefusesWhatTheLoaderRefuses(t *testing.T) {
	schema := compiledSchema(t, d.TestSchema)
	for _, text := range []string{
		"{}", "cases: {}", "case: []\ncases: []", "cases: [{name: x}]", "cases: [{steps: []}]", "cases: []\ngiven: {at: soon}", "cases: []\nbuckets: vip",
		oneCase("  - {}"), oneCase("  - evnt: a"), oneCase("  - {event: a, advance: 1d}"), oneCase("  - contact: ann"), oneCase("  - {event: a, times: 0}"),
		oneCase("  - {event: a, properties: b}"), oneCase("  - {add: hand, times: 3}"), oneCase("  - {event: a}\n  - expect: {facts: [bucket.left]}"),
		oneCase("  - {event: a}\n  - expect: {facts: [{type: left, bucket: vip}]}"), oneCase("  - {event: a}\n  - expect: {facts: [{type: bucket.left}]}"),
		oneCase("  - {event: a}\n  - expect: {members: vip}"),
	} {
		require.Error(t, schema.Validate(instance(t, text)), text)
		_, faults := loadTests(t, text)
		assert.NotEmpty(t, faults, text)
	}
}
