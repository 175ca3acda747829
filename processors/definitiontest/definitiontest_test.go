package definitiontest_test

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/examples/shop"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/definitiontest"
)

func TestTheTestsOfTheShopPass(t *testing.T) { definitiontest.Verify(t, shop.Definitions()) }

// buckets are those of the cases here.
const buckets = `
id: pro
name: Pro
enabled: true
criteria: {type: property, property: plan, operator: eq, value: pro}
---
id: known
name: Known
enabled: true
criteria: {type: event, eventName: contact.merged, check: exists}
---
id: busy
name: Busy
enabled: true
criteria: {type: event, eventName: look, check: count, operator: gte, value: 3, within: 1d}
dwell: [{after: 1h}]
---
id: short
name: Short
enabled: true
criteria: {type: event, eventName: look, check: exists}
maxDwell: 2h
---
id: large
name: Large
enabled: true
criteria: {type: event, eventName: pay, check: exists, where: {amount: {gt: 100}}}
---
id: hand
name: Hand
enabled: true
kind: manual
---
id: on-hand
name: On hand
enabled: true
criteria: {type: bucket, bucketId: hand}
---
id: off
name: "Off"
enabled: false
criteria: {type: event, eventName: look, check: exists}
`

func directory(test string) fstest.MapFS {
	return fstest.MapFS{"buckets/all.yaml": {Data: []byte(buckets)}, "buckets/all_test.yaml": {Data: []byte(test)}}
}

// failuresOf runs the only case of a test.
func failuresOf(t *testing.T, test string) (texts []string) {
	t.Helper()
	opts := definition.Options{Limits: predicate.DefaultLimits()}
	files, err := definition.LoadFS(directory(test), "", opts)
	require.NoError(t, err)
	require.Empty(t, files.Faults())
	tests, err := definition.LoadTestsFS(directory(test), "", files)
	require.NoError(t, err)
	require.Empty(t, tests.Faults)
	require.Len(t, tests.Cases, 1)
	logic := definitiontest.Compile(files, opts, nil)
	for _, f := range definitiontest.Run(logic, tests.Cases[0]).Failures {
		texts = append(texts, f.String())
	}
	return texts
}

// Each case says what the steps do, and passes.
func TestWhatStepsDo(t *testing.T) {
	definitiontest.Verify(t, directory(`
buckets: [pro, busy, short, large, hand, on-hand]
cases:
- name: properties of a contact are a patch
  steps:
  - properties: {plan: pro, seats: 3}
  - expect: {members: [pro], facts: [bucket.entered pro]}
  - properties: {seats: null}
  - expect: {members: [pro], facts: []}
  - properties: {plan: null}
  - expect: {not: [pro], facts: [{type: bucket.left, bucket: pro, reason: criteria, source: event, at: 2026-01-01}]}
- name: what comes with an event is known beside it
  steps:
  - {event: x, contactProperties: {plan: pro}, properties: {plan: free}}
  - expect: {members: [pro]}
- name: properties of events are looked at
  steps:
  - {event: pay, properties: {amount: 100}}
  - expect: {not: [large]}
  - {event: pay, properties: {amount: 100.5}}
  - expect: {members: [large]}
- name: time passes, and tells what is due
  steps:
  - {event: look, times: 3, every: 1h}
  - expect: {members: [busy], not: [short], facts: [bucket.entered short, bucket.entered busy, {type: bucket.left, bucket: short, at: 2h, reason: maxDwell}]}
  - at: 3d
  - expect:
      not: [busy]
      facts:
      - {type: bucket.dwell, bucket: busy, at: 3h}
      - {type: bucket.left, bucket: busy, at: 1d, source: reconcile}
- name: an event that comes late counts from when it happened
  steps:
  - {event: look, times: 2, late: 23h}
  - {event: look}
  - expect: {members: [busy]}
  - advance: 2h
  - expect: {not: [busy]}
- name: contacts are apart until they are merged
  steps:
  - {contact: ann, event: look, times: 2}
  - {contact: bob, event: look}
  - {contact: ann, expect: {not: [busy, known]}}
  - {contact: ann, merge: bob}
  - {contact: ann, expect: {members: [busy, known]}}
  - {contact: bob, expect: {not: [busy, short], facts: [bucket.entered short, {type: bucket.left, bucket: short, reason: merged}]}}
  - {contact: bob, properties: {plan: pro}}
  - {contact: ann, expect: {members: [pro]}}
- name: who was erased is somebody else afterwards
  steps:
  - {contact: ann, event: look, times: 3}
  - delete: ann
  - {contact: ann, expect: {not: [busy], facts: [bucket.entered short, bucket.entered busy]}}
  - {contact: ann, event: look}
  - {contact: ann, expect: {not: [busy], facts: [bucket.entered short]}}
- name: members by hand, and who asks for them
  steps:
  - {add: hand, until: 2d}
  - expect: {members: [hand, on-hand], facts: [{type: bucket.entered, bucket: hand, source: manual}, {type: bucket.entered, bucket: on-hand, source: event}]}
  - remove: hand
  - expect: {not: [hand, on-hand], facts: [{type: bucket.left, bucket: hand, reason: manual}, bucket.left on-hand]}
  - {add: hand, until: 2d}
  - at: 3d
  - expect: {not: [hand], facts: [bucket.entered hand, bucket.entered on-hand, {type: bucket.left, bucket: hand, at: 2d}, bucket.left on-hand]}
`))
}

func TestAFailureSaysWhatWasExpectedWhatIsSoAndWhy(t *testing.T) {
	require.Equal(t, []string{
		`buckets/all_test.yaml:6:5: someone at 2026-01-01T01:00:00Z (1h after the case began): expected a member of busy; is a member of pro, short
    ✗ look at least 3 within 1d  2 counted, newest at 2026-01-01 01:00:00Z`,
		`buckets/all_test.yaml:6:5: someone at 2026-01-01T01:00:00Z (1h after the case began): expected no member of pro; is one since 2026-01-01T00:00:00Z
    ✓ plan is "pro"  "pro"`,
		`buckets/all_test.yaml:6:5: someone at 2026-01-01T01:00:00Z (1h after the case began): expected facts
  bucket.entered busy, at: 2026-01-01T00:00:00Z
were told
  bucket.entered pro, at: 2026-01-01T00:00:00Z, source: event`,
	}, failuresOf(t, `buckets: [pro, busy]
cases:
- name: x
  steps:
  - {event: look, times: 2, every: 1h, contactProperties: {plan: pro}}
  - expect: {members: [busy], not: [pro], facts: [{type: bucket.entered, bucket: busy, at: 2026-01-01}]}
`))
}

func TestAFailureOfABucketWithoutCriteriaHasNoTree(t *testing.T) {
	require.Equal(t, []string{
		`buckets/all_test.yaml:5:5: someone at 2026-01-02T03:00:00Z (1d3h after the case began): expected a member of hand; is a member of none`,
		`buckets/all_test.yaml:5:5: someone at 2026-01-02T03:00:00Z (1d3h after the case began): expected a member of off; is a member of none; the bucket is disabled`,
	}, failuresOf(t, "cases:\n- name: x\n  steps:\n  - event: x\n  - {expect: {members: [hand, off]}, after: 27h}\n"))
}

func TestAFailureNamesWhatHoldsAMemberBesideTheCriteria(t *testing.T) {
	require.Equal(t, []string{
		`buckets/all_test.yaml:6:5: someone at 2026-01-01T03:00:00Z (3h after the case began): expected a member of short; is a member of none; because of maxDwell
    ✓ look happened  1 counted, newest at 2026-01-01 00:00:00Z`,
	}, failuresOf(t, "cases:\n- name: x\n  steps:\n  - event: look\n  - advance: 3h\n  - expect: {members: [short]}\n"))
}

func TestFactsAreExactInNumberAndOrder(t *testing.T) {
	for facts, fails := range map[string]bool{
		"[bucket.entered short, bucket.entered busy]":                                  false,
		"[bucket.entered busy, bucket.entered short]":                                  true,
		"[bucket.entered short]":                                                       true,
		"[bucket.entered short, bucket.entered busy, bucket.left busy]":                true,
		"[bucket.entered short, bucket.left busy]":                                     true,
		"[{type: bucket.entered, bucket: short, source: manual}, bucket.entered busy]": true,
		"[{type: bucket.entered, bucket: short, at: 1s}, bucket.entered busy]":         true,
		"[]": true,
	} {
		failed := failuresOf(t, "cases:\n- name: x\n  steps:\n  - {event: look, times: 3}\n  - expect: {facts: "+facts+"}\n")
		require.Equal(t, fails, len(failed) > 0, facts)
	}
}

func TestAStepThatCannotBeDoneFailsTheCase(t *testing.T) {
	require.Equal(t, []string{"buckets/all_test.yaml:6:5: ann at 2026-01-01T00:00:00Z (0s after the case began): this step failed: bob was erased"},
		failuresOf(t, "cases:\n- name: x\n  steps:\n  - {contact: bob, event: x}\n  - delete: bob\n  - {contact: ann, merge: bob}\n  - {contact: ann, expect: {members: [hand]}}\n"))
}

func TestDefinitionsBuiltInGoAreThereToo(t *testing.T) {
	definitiontest.Verify(t, fstest.MapFS{"keen_test.yaml": {Data: []byte("cases:\n- name: x\n  steps:\n  - event: catalog\n  - expect: {members: [keen]}\n")}},
		definition.Bucket{ID: "keen", Name: "Keen", Enabled: true, Criteria: predicate.Event("catalog").Exists()})
}
