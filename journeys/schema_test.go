package journeys_test

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
)

var update = flag.Bool("update", false, "write files that are made from the code")

// `go test ./journeys -run Schema -update` writes it anew.
func TestThePublishedSchemaIsWhatTheCodeMakes(t *testing.T) {
	if *update {
		require.NoError(t, os.WriteFile("journey.schema.json", journeys.MakeSchema(), 0o600))
		return
	}
	require.Equal(t, string(journeys.MakeSchema()), string(journeys.Schema))
}

func compiledSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(journeys.Schema))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("journey.json", doc))
	schema, err := c.Compile("journey.json")
	require.NoError(t, err)
	return schema
}

// valid says whether the schema takes a YAML text.
func valid(t testing.TB, schema *jsonschema.Schema, text string) bool {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	require.NoError(t, err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	require.NoError(t, err)
	return schema.Validate(v) == nil
}

const example = `
id: abandoned-cart
name: Abandoned cart
description: Two mails about a cart that was left.
enabled: true
trigger:
  - {event: "bucket.entered:cart-abandoned"}
  - {event: cart.left, where: {total: {gt: 10}, country: [DE, AT]}}
key: cartId
entryLimit: once_per_period
entryPeriod: 7d
live: restart
zone: Europe/Berlin
subscribed: false
exitOn:
  - {event: order.paid, where: {cartId: {run: key}, total: {gt: 0}}, reason: paid}
  - {leftBucket: cart-abandoned, settle: 10m}
holdout: 10
goal: {event: order.paid, within: 7d}
onChange: exit
window: 09:00-20:00
version: "3"
steps:
  - wait: {after: 4h, window: 09:00-20:00}
  - email: {template: cart-1, category: news, subject: Your cart, props: {cart: {run: key}, items: {trigger: [cart, items]}}, skipPreference: true}
  - id: paid
    waitFor:
      any:
        - {event: cart.opened, where: {cartId: {run: key}}}
        - {event: cart.deleted, as: gone}
        - {condition: {type: property, property: plan, operator: eq, value: pro}}
      timeout: 2d
      lookback: 10m
    then:
      gone: [{exit: gone}]
      timeout: [{wait: 1d}, {email: {template: cart-2, props: {via: {last: via}}}}]
  - waitUntil: {property: trialEndsAt, shift: -1d, at: "09:00", past: exit, missing: continue}
    then: {missing: [{set: {trial: false, tags: [a, {contact: plan}], raw: {literal: {run: 1}}, distance: {run: 3, step: 4}}}]}
  - branch:
      - {when: {type: bucket, bucketId: vip}, trigger: {total: {gt: 100}}, as: big, do: [{bucket: {add: vips}}]}
      - {last: {via: mail}, do: [{bucket: {remove: vips}}]}
      - {else: [{trigger: {event: cart.reminded, properties: {n: 2}}}]}
  - split: [{percent: 12.5, as: a, do: [{wait: {day: monday, at: "09:00"}}]}, {percent: 87.5}]
  - id: ask
    call: {destination: crm, body: {id: {run: id}, n: {run: entry}}, headers: {X-A: b}, timeout: 5m, failed: continue}
  - set: {score: {step: ask, path: [body, score]}}
`

func TestTheExampleIsRightAndReadBackTheSame(t *testing.T) {
	j := parse(t, example)
	again := parse(t, j.Canonical())
	require.Equal(t, j.Canonical(), again.Canonical())
	require.Equal(t, j.Identity(), again.Identity())
	_, err := journeys.Compile(again, journeys.Options{})
	require.NoError(t, err)
	schema := compiledSchema(t)
	require.True(t, valid(t, schema, example))
	require.True(t, valid(t, schema, j.Canonical()))
	for _, wrong := range []string{
		`id: x`,
		steps(`steps: []`),
		steps(`steps: [{wait: 1d, exit: x}]`),
		steps(`steps: [{wait: 1d, then: {next: [{exit: x}]}}]`),
		steps(`steps: [{bucket: {add: a, remove: b}}]`),
		steps(`steps: [{exit: x}]` + "\nexitOn: [{event: a, leftBucket: b}]"),
	} {
		require.False(t, valid(t, schema, wrong), wrong)
		_, err := journeys.ParseYAML("wrong.yaml", []byte(wrong))
		require.Error(t, err, wrong)
	}
}

// Name, description, policies and goal are no part of the version: live runs stay.
func TestTheVersionFollowsFromWhatRunsDo(t *testing.T) {
	j := parse(t, example)
	j.Version = ""
	same, other := j, j
	same.Name, same.Description, same.Enabled, same.Holdout, same.EntryLimit, same.Live = "X", "Y", false, 50, "", ""
	same.Goal = journeys.Goal{}
	require.Equal(t, j.Identity(), same.Identity())
	other.Steps = other.Steps[1:]
	require.NotEqual(t, j.Identity(), other.Identity())
	other = j
	other.Version = "7"
	require.Equal(t, "7", other.Identity())
}
