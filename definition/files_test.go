package definition_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	d "github.com/hogstream/hogstream/definition"
	p "github.com/hogstream/hogstream/predicate"
)

// loadOne loads one file of this text and returns the faults, with the directory left out.
func loadOne(t testing.TB, text string) (*d.Files, string) {
	t.Helper()
	dir := t.TempDir()
	files := write(t, dir, map[string]string{"b.yaml": text})
	return files, strings.ReplaceAll(files.Faults().Error(), filepath.Join(dir, "buckets")+string(filepath.Separator), "")
}

func TestABucketIsReadWithAllItSays(t *testing.T) {
	files, faults := loadOne(t, `
id: power-users
name: Power users
description: |
  Those who do much.
enabled: false
kind: dynamic
criteria: {type: event, eventName: key.action, check: count, operator: gte, value: 10, within: 30d}
entryLimit: once_per_period
entryPeriod: {hours: 168}
minDwell: 90s
maxDwell: 14d
reconcileJoins: false
dwell: [{after: 7d}, {every: {days: 1}}]
joins: told
timeBased: true
fastExpiry: true
reconcileEvery: 5m
`)
	require.Empty(t, faults)
	yes, no := true, false
	require.Len(t, files.Buckets, 1)
	b := files.Buckets[0]
	assert.True(t, b.Criteria.Equal(p.Event("key.action").Within(p.Days(30)).AtLeast(10)))
	b.Criteria = p.Condition{}
	assert.Equal(t, d.Bucket{
		ID: "power-users", Name: "Power users", Description: "Those who do much.", Kind: d.KindDynamic,
		EntryLimit: d.EntryOncePerPeriod, EntryPeriod: 7 * 24 * time.Hour, MinDwell: 90 * time.Second, MaxDwell: 14 * 24 * time.Hour,
		ReconcileJoins: &no, Dwell: []d.Dwell{{After: 7 * 24 * time.Hour}, {Every: 24 * time.Hour}}, Joins: d.JoinsTold,
		TimeBased: &yes, FastExpiry: true, ReconcileEvery: 5 * time.Minute, File: "buckets/b.yaml",
	}, b)
	assert.Equal(t, "after-604800000", b.Dwell[0].Label())
	assert.Equal(t, "every-86400000", b.Dwell[1].Label())

	files, faults = loadOne(t, "id: staff\nname: Staff\nenabled: true\nkind: manual\n")
	require.Empty(t, faults)
	assert.Equal(t, d.Bucket{ID: "staff", Name: "Staff", Enabled: true, Kind: d.KindManual, EntryLimit: d.EntryUnlimited, Joins: d.JoinsSilent, File: "buckets/b.yaml"}, files.Buckets[0])
}

func TestEveryFaultOfABucketIsNamedByFileLineAndPath(t *testing.T) {
	_, faults := loadOne(t, `id: vip
naem: VIP
enabled: yes please
kind: dynamc
criteria:
  type: property
  property: plan
  opertor: eq
entryLimit: sometimes
maxDwell: 1h
minDwell: 2h
dwell: [{aftr: 7d}, {after: 7 days}, {every: 1d}, {every: 24h}]
syncToPostHog: true
`)
	assert.Equal(t, `b.yaml:1:1: name: is missing: a bucket has id, name, enabled
b.yaml:2:1: naem: "naem" is not known: did you mean "name"?
b.yaml:3:10: enabled: is text: write true or false
b.yaml:4:7: kind: "dynamc" is not known: did you mean "dynamic"?
b.yaml:6:7: criteria: operator is missing: a condition of type property has property, operator
b.yaml:8:3: criteria.opertor: "opertor" is not known: did you mean "operator"?
b.yaml:9:13: entryLimit: "sometimes" is not known: use one of unlimited, once, once_per_period
b.yaml:10:11: maxDwell: is shorter than minDwell: nobody can leave after 1h0m0s who must stay for 2h0m0s
b.yaml:12:10: dwell[0].aftr: "aftr" is not known: did you mean "after"?
b.yaml:12:29: dwell[1].after: "7 days" is no duration: write numbers with w, d, h, m or s, such as 30d or 1h30m
b.yaml:13:1: syncToPostHog: is not said here: a destination of kind posthog has the setting bucketProperty; leave it out`, faults)
}

func TestWhatABucketMayNotSay(t *testing.T) {
	const criteria = "criteria: {type: event, eventName: a, check: exists}\n"
	with := func(lines string) string { return "id: b\nname: B\nenabled: true\n" + lines }
	for text, want := range map[string]string{
		"[1, 2]":   "b.yaml:1:1: is a list: write a bucket, with id, name, enabled",
		"id: b":    "name: is missing",
		"id: {":    "is no YAML",
		"7: x":     "is no name of a key",
		"id: ''":   "id: is empty",
		"id: 7":    "id: is a number: write text",
		"&x id: b": "",
		with(""):   "criteria: is missing: write who is a member, or kind: manual",
		with(strings.Repeat(" ", 300<<10) + "\n"):                                                               "is longer than 256 KiB",
		with("kind: manual\n" + criteria):                                                                       "b.yaml:5:11: criteria: has no meaning with kind manual",
		with("kind: manual\nreconcileJoins: false\n"):                                                           "reconcileJoins: has no meaning with kind manual",
		with("postHogPropertyKey: x\n" + criteria):                                                              "postHogPropertyKey: is not said here: a destination of kind posthog",
		with("maxDwell: 1h\nminDwell: 1h1s\n" + criteria):                                                       "b.yaml:4:11: maxDwell: is shorter than minDwell", // spec/02 4.2 rule 1
		with("entryPeriod: 1h\n" + criteria):                                                                    "entryPeriod: has no meaning with entryLimit unlimited",
		with("dwell: {after: 1d}\n" + criteria):                                                                 "dwell: is a map: write a list such as",
		with("dwell: [7d]\n" + criteria):                                                                        "dwell[0]: is text: write {after: 7d} or {every: 1d}",
		with("dwell: [{after: 1d, every: 1d}]\n" + criteria):                                                    "dwell[0]: needs either after or every",
		with("dwell: [{}]\n" + criteria):                                                                        "dwell[0]: needs either after or every",
		with("dwell: [{every: 1d}, {every: 24h}]\n" + criteria):                                                 "dwell[1]: says the same as one before it",
		with("dwell: [{after: {seconds: 0.0001}}]\n" + criteria):                                                "dwell[0]: is no whole number of milliseconds",
		with("minDwell: 0s\n" + criteria):                                                                       "minDwell: a duration must be longer than zero",
		"id: ' b'\nname: B\nenabled: true\n" + criteria:                                                         "id: holds a control character, or a blank at an end",
		"id: " + strings.Repeat("b", 201) + "\nname: B\nenabled: true\n" + criteria:                             "id: is 201 bytes long: use at most 200",
		with("criteria: {type: event, eventName: a, check: not_exists}\n"):                                      "criteria: asks only for what is not there", // rule 4
		with("criteria: {type: property, property: a, operator: neq, value: 1}\n"):                              "criteria: asks only for what is not there",
		with("criteria: {type: composite, operator: and, conditions: []}\n"):                                    "can never be false", // W6
		with("criteria: {type: event, eventName: a, check: count, operator: gte, value: 0}"):                    "can never be false",
		with("criteria: {type: email_engagement, templateKey: x, check: opened}\n"):                             "criteria: email_engagement is not for buckets", // rule 6
		with("criteria: {type: not, condition: {type: email_engagement, templateKey: x, check: not_opened}}\n"): "criteria.condition: email_engagement",
		with("criteria: {type: bucket, bucketId: b}\n"):                                                         "b.yaml:4:11: criteria: asks for its own membership: b → b",
		with("criteria: {type: bucket, bucketId: c}\n"):                                                         `b.yaml:4:36: criteria.bucketId: "c" is not known: did you mean "b"?`,
		with("criteria: {type: event, eventName: a, check: exists, within: 31d}\n"):                             "b.yaml:4:62: criteria.within: is longer than events are kept: use at most 4w2d",
		with(criteria) + "---\n" + with(criteria):                                                               `b.yaml:6:5: id: "b" stands in `,
		with("criteria: {type: event, eventName: a, check: exists, within: 31d}\nmaxDwell: 1h\nx: 1\n"):         `x: "x" is not known`,
	} {
		opts := options()
		opts.Limits.Retention = p.Days(30)
		dir := t.TempDir()
		write(t, dir, map[string]string{"b.yaml": text})
		files, err := d.Load(dir, opts)
		require.NoError(t, err)
		if want == "" {
			continue
		}
		assert.Contains(t, files.Faults().Error(), want, text)
	}
	for _, text := range []string{
		"", "# nothing yet\n", "---\n",
		with("maxDwell: 1h\nminDwell: 1h\n" + criteria),
		with("entryLimit: once_per_period\n" + criteria),                                               // case 18
		with("criteria: {type: event, eventName: a, check: not_exists, within: 7d}\n"),                 // rule 4
		with("criteria: {type: event, eventName: 'bucket:entered:x', check: exists}\n"),                // rule 5 is no more
		with("criteria: {type: event, eventName: a, check: count, operator: lte, value: 0}\n"),         // rule 4
		with(criteria) + "---\n" + "id: c\nname: C\nenabled: true\nkind: manual\n" + "---\n# the end.", // rule 2 is no more
	} {
		_, faults := loadOne(t, text)
		assert.Empty(t, faults, text)
	}
}

func TestNoBucketLooksAtEventsWhereNoneAreStored(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"a.yaml": old, "b.yaml": vip,
		"c.yaml": "id: c\nname: C\nenabled: true\ncriteria: {type: event, eventName: email.clicked, check: exists}\n",
	})
	opts := options()
	opts.NoEvents = true
	files, err := d.Load(dir, opts)
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(dir, "buckets", "a.yaml")+`:4:11: criteria: looks at event "a", and EVENTS_MODE=none stores none: set it to referenced or all`, files.Faults().Error())
	assert.Len(t, files.Buckets, 2, "facts come by anyway")
}

func TestAnIDStandsInOneFile(t *testing.T) {
	dir := t.TempDir()
	files := write(t, dir, map[string]string{"a.yaml": vip, "b.yml": vip, "c.yaml": old, ".d.yaml": "{", "e.txt": "{"})
	assert.Equal(t, fmt.Sprintf("%s:1:5: id: \"vip\" stands in %s:1:5 too: ids are unique",
		filepath.Join(dir, "buckets", "b.yml"), filepath.Join(dir, "buckets", "a.yaml")), files.Faults().Error())
	assert.Len(t, files.Buckets, 2)
}

func TestAFaultIsToldOnce(t *testing.T) {
	dir := t.TempDir()
	files := write(t, dir, map[string]string{
		"a.yaml": "id: a\nname: A\nenabled: true\ncriteria: {type: bucket, bucketId: b}\n",
		"b.yaml": "id: b\nname: B\nenabled: maybe\n",
	})
	require.Len(t, files.Faulty, 1)
	assert.Equal(t, "buckets/b.yaml", files.Faulty[0].File)
	assert.Equal(t, []string{"b"}, files.Faulty[0].IDs)
}

func TestADirectoryThatIsNotThereIsAnError(t *testing.T) {
	_, err := d.Load(filepath.Join(t.TempDir(), "none"), options())
	assert.ErrorContains(t, err, "make one with `hogstream init")
	empty, err := d.Load(t.TempDir(), options())
	require.NoError(t, err)
	assert.Empty(t, empty.Buckets)
	_, err = d.Load(t.TempDir(), d.Options{})
	assert.ErrorContains(t, err, "limits: Count is 0")
}

func TestWhatIsWrongWithABuiltBucketIsSaid(t *testing.T) {
	for want, b := range map[string]d.Bucket{
		`bucket "": id: is missing`:                             {Name: "x", Criteria: p.Identified()},
		`bucket "b": name: is missing`:                          {ID: "b", Criteria: p.Identified()},
		`bucket "b": criteria: is missing`:                      {ID: "b", Name: "B"},
		`bucket "b": criteria.operator: "like" is not known`:    {ID: "b", Name: "B", Criteria: p.Prop("a").Is("like", 1)},
		`bucket "b": criteria.bucketId: "c" is not known`:       {ID: "b", Name: "B", Criteria: p.InBucket("c")},
		`bucket "b": minDwell: is -1ns`:                         {ID: "b", Name: "B", Criteria: p.Identified(), MinDwell: -1},
		`bucket "b": joins: "loud" is not known`:                {ID: "b", Name: "B", Criteria: p.Identified(), Joins: "loud"},
		`bucket "b": dwell[0]: needs either after or every`:     {ID: "b", Name: "B", Criteria: p.Identified(), Dwell: []d.Dwell{{}}},
		`bucket "b": criteria: email_engagement`:                {ID: "b", Name: "B", Criteria: p.Mail("x", "opened")},
		`bucket "b": criteria: asks only for what is not there`: {ID: "b", Name: "B", Criteria: p.Event("a").NotExists()},
	} {
		_, err := d.Built([]d.Bucket{b}, options())
		assert.ErrorContains(t, err, want)
	}
	_, err := d.Built([]d.Bucket{bucket("a"), bucket("a")}, options())
	assert.ErrorContains(t, err, `bucket "a": id: stands in another bucket built in Go too`)
}

func TestAFileAndItsBuilderMakeOneDefinition(t *testing.T) {
	files, faults := loadOne(t, vip)
	require.Empty(t, faults)
	b := d.Bucket{ID: "vip", Name: "VIP", Enabled: true, Criteria: p.Prop("plan").Eq("pro"), Kind: d.KindDynamic}
	assert.Equal(t, files.Buckets[0].Canonical(), b.Canonical())
	assert.JSONEq(t, `{"id":"vip","name":"VIP","enabled":true,"criteria":{"type":"property","property":"plan","operator":"eq","value":"pro"}}`, b.Canonical())
}

// The canonical form depends on what is said, not on how it is written; it can be read as
// a file, and says the same again.
func TestTheCanonicalFormDoesNotDependOnTheWriting(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		said := map[string][]string{ // ways to write
			"id": {"b", `"b"`}, "name": {"Name # of it", `'Name'`}, "enabled": {"true"},
			"criteria": {"{type: event, eventName: a, check: exists, within: 7d}", "{within: {hours: 168}, check: exists, eventName: \"a\", type: event}",
				"\n  # this week\n  type: event\n  within: 1w\n  check: exists\n  eventName: a"},
		}
		for key, ways := range map[string][]string{
			"kind": {"dynamic"}, "joins": {"silent"}, "entryLimit": {"unlimited"}, "reconcileJoins": {"true"}, "fastExpiry": {"false"},
		} {
			if rapid.Bool().Draw(t, key) {
				said[key] = ways // a default
			}
		}
		more := map[string][]string{
			"description": {"x", `"x"`}, "maxDwell": {"14d", "{hours: 336}", "2w"}, "minDwell": {"90s", "1m30s", "{seconds: 90}"},
			"dwell": {"[{after: 1h}]", "\n  - after: 60m"}, "timeBased": {"false"}, "reconcileEvery": {"5m", "{minutes: 5}"},
		}
		keys := rapid.SliceOfDistinct(rapid.SampledFrom(slices.Sorted(maps.Keys(more))), rapid.ID[string]).Draw(t, "more")
		for _, key := range keys {
			said[key] = more[key]
		}
		once := func(label, file string) string {
			text := ""
			for _, key := range rapid.Permutation(slices.Sorted(maps.Keys(said))).Draw(t, "order "+label) {
				text += key + ": " + rapid.SampledFrom(said[key]).Draw(t, key+" "+label) + "\n"
				if rapid.Bool().Draw(t, "comment "+label) {
					text += "# " + label + "\n"
				}
			}
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "buckets")))
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "buckets"), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "buckets", file), []byte(text), 0o600))
			files, err := d.Load(dir, options())
			require.NoError(t, err)
			require.Empty(t, files.Faults(), text)
			return files.Buckets[0].Canonical()
		}
		one := once("one", "a.yaml")
		require.Equal(t, one, once("other", "z.yml"))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "buckets", "z.yml"), []byte(one), 0o600))
		files, err := d.Load(dir, options())
		require.NoError(t, err)
		require.Empty(t, files.Faults(), one)
		require.Equal(t, one, files.Buckets[0].Canonical())
	})
}

func FuzzLoad(f *testing.F) {
	f.Add(vip + "---\n" + old)
	f.Add("id: b\nname: B\nenabled: true\nkind: manual\ndwell: [{after: 7d}, {every: {days: 1}}]\nmaxDwell: 1h\n")
	f.Add("id: {\n")
	f.Add("- dwell: &x [*x]")
	f.Add(vip + "criteria: {type: bucket, bucketId: vip}")
	f.Fuzz(func(t *testing.T, text string) {
		load := func(text string) *d.Files {
			files, err := d.LoadFS(fstest.MapFS{"buckets/b.yaml": {Data: []byte(text)}}, "definitions", options())
			require.NoError(t, err)
			return files
		}
		files := load(text)
		for _, b := range files.Buckets {
			require.NotEmpty(t, b.ID)
			again := load(b.Canonical())
			if len(again.Buckets) == 1 { // a duration below a second is not written as text
				require.Equal(t, b.Canonical(), again.Buckets[0].Canonical())
			}
		}
		for _, fault := range files.Faults() {
			require.Positive(t, fault.Line, fault.String())
			require.NotEmpty(t, fault.Message)
		}
	})
}
