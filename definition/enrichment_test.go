package definition_test

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	d "github.com/hogstream/hogstream/definition"
	p "github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/storage/storagetest"
)

const company = `id: company
name: Company behind an address
enabled: true
when: {type: property, property: domain, operator: exists}
refresh: {property: company, after: 30d}
destination: companies
send: [domain, country]
map: '{company: .name}'
within: 2h
backfill: 12h
`

// loadAll reads files by their names below the directory.
func loadAll(t testing.TB, files map[string]string) *d.Files {
	t.Helper()
	from := fstest.MapFS{}
	for name, text := range files {
		from[name] = &fstest.MapFile{Data: []byte(text)}
	}
	read, err := d.LoadFS(from, "defs", options())
	require.NoError(t, err)
	return read
}

func TestAnEnrichmentIsReadAsItIsWritten(t *testing.T) {
	files := loadAll(t, map[string]string{"enrich/company.yaml": company})
	require.Empty(t, files.Faults())
	want := d.Enrichment{
		ID: "company", Name: "Company behind an address", Enabled: true, When: p.Prop("domain").Exists(),
		Refresh: &d.Refresh{Property: "company", After: 30 * 24 * time.Hour}, Destination: "companies", Send: []string{"domain", "country"},
		Map: "{company: .name}", Within: 2 * time.Hour, Retry: d.DefaultRetry, Attempts: d.DefaultAttempts, Backfill: 12 * time.Hour, File: "enrich/company.yaml",
	}
	require.Len(t, files.Enrichments, 1)
	require.Equal(t, want.Canonical(), files.Enrichments[0].Canonical())
	got := files.Enrichments[0]
	got.When = want.When // compared by its text
	require.Equal(t, want, got)
}

func TestWhatIsWrongWithAnEnrichmentIsSaidWithItsPlaceAndTheFix(t *testing.T) {
	const head = "id: a\nname: A\nenabled: true\ndestination: x\n"
	for text, want := range map[string]string{
		head + "map: .\n": "defs/enrich/a.yaml:1:1: when: is missing: write when it is asked, or entered: a bucket, or refresh: {property: plan, after: 30d}",
		head + "map: '{a: .b'\nrefresh: {property: a, after: 30d}\n":                                                            "defs/enrich/a.yaml:5:6: map: is not jq: unexpected EOF",
		head + "map: .\nrefresh: {property: a, after: 30m}\n":                                                                   "defs/enrich/a.yaml:6:31: refresh.after: is 30m0s: use at least 1h0m0s",
		head + "map: .\nrefresh: {after: 30d}\n":                                                                                "defs/enrich/a.yaml:6:10: refresh.property: is missing: a property and a time has property, after",
		head + "map: .\nentered: vip\n":                                                                                         `defs/enrich/a.yaml:6:10: entered: "vip"`,
		head + "map: .\nwhen: {type: bucket, bucketId: vip}\n":                                                                  `defs/enrich/a.yaml:6:7: when: asks for bucket "vip": write entered: vip, or the bucket's criteria here`,
		head + "map: .\nsend: [a, a]\nrefresh: {property: a, after: 30d}\n":                                                     `defs/enrich/a.yaml:6:11: send[1]: says "a" a second time: leave it out`,
		head + "map: .\nwithin: 8d\nretry: 1m\nattempts: 0\nrefresh: {property: a, after: 30d}\n":                               "defs/enrich/a.yaml:8:11: attempts: is a number: write a whole number, from 1 on",
		head + "map: .\nwhen: {type: event, eventName: e, check: count, operator: gte, value: 5000}\n":                          "defs/enrich/a.yaml:6:",
		"id: a\nname: A\nenabled: true\nmap: .\nrefresh: {property: a, after: 30d}\n":                                           "defs/enrich/a.yaml:1:1: destination: is missing: an enrichment has id, name, enabled, destination, map",
		head + "map: .\nmapp: .\nrefresh: {property: a, after: 30d}\n":                                                          `mapp: "mapp"`,
		head + "map: .\nentered: vip\nwhen: {type: property, property: a, operator: exists}\nrefresh: {property: a, after: 2h}": "entered: has no meaning beside when: leave one out",
	} {
		files := loadAll(t, map[string]string{"enrich/a.yaml": text})
		require.NotEmpty(t, files.Faults(), text)
		assert.Contains(t, files.Faults().Error(), want, text)
		assert.Empty(t, files.Enrichments)
	}
}

// Kinds have ids of their own, and what asks for another kind's falls with it.
func TestAnEnrichmentAsksForABucketOfTheSameSet(t *testing.T) {
	db := storagetest.New(t)
	entered := "id: vip\nname: Of VIPs\nenabled: true\nentered: vip\ndestination: x\nmap: .\n"
	both := map[string]string{"buckets/vip.yaml": vip, "enrich/vip.yaml": entered}
	files := loadAll(t, both)
	require.Empty(t, files.Faults())
	out := apply(t, db, files)
	assert.Equal(t, []d.Change{{Kind: d.BucketKind, ID: "vip", What: d.Added}, {Kind: d.EnrichmentKind, ID: "vip", What: d.Added}}, out.Changes)
	assert.Equal(t, "enrichment vip: added", out.Changes[1].String())
	assert.Equal(t, []d.Count{{Kind: "bucket", N: 1}, {Kind: "enrichment", N: 1}}, out.Set.Counts())

	set := current(t, db)
	require.Len(t, set.Enrichments, 1)
	assert.Equal(t, "enrich/vip.yaml", set.Enrichments[0].File)
	assert.EqualValues(t, 1, set.Enrichments[0].Revision)

	delete(both, "buckets/vip.yaml")
	without := loadAll(t, both)
	assert.Contains(t, without.Faults().Error(), "enrich/vip.yaml:4:10: entered: ")
	out = apply(t, db, without)
	assert.Empty(t, out.Changes, "the enrichment stays as it was, and so does what it asks for")
	assert.NotNil(t, out.Set.FailingOf(d.EnrichmentRef("vip")))
	assert.Nil(t, out.Set.FailingOf(d.BucketRef("vip")))

	both["buckets/vip.yaml"] = vip
	delete(both, "enrich/vip.yaml")
	out = apply(t, db, loadAll(t, both))
	assert.Equal(t, []d.Change{{Kind: d.EnrichmentKind, ID: "vip", What: d.Removed}}, out.Changes)
	differences := d.Diff(set, out.Set)
	require.Len(t, differences, 1)
	assert.Contains(t, differences[0].Diff, "-destination: x")

	back, err := d.ApplyPlan(t.Context(), db, former(t, db, 1), options(), "test", plan(t, db, former(t, db, 1)).Basis)
	require.NoError(t, err)
	assert.Len(t, back.Set.Enrichments, 1)
	off, err := d.Switch(t.Context(), db, d.EnrichmentRef("vip"), false, "test")
	require.NoError(t, err)
	assert.False(t, off.Set.Enrichments[0].Enabled)
	assert.True(t, off.Set.Buckets[0].Enabled)
}

// A bucket that changes is another thing to enter.
func TestTheRevisionOfAnEnrichmentRisesWithTheBucketThatItAsksFor(t *testing.T) {
	db := storagetest.New(t)
	e := d.Enrichment{ID: "e", Name: "E", Enabled: true, Entered: "b", Destination: "x", Map: "."}
	built := func(b d.Bucket, e d.Enrichment) *d.Files {
		files, err := d.Built([]d.Definition{b, e}, options())
		require.NoError(t, err)
		return files
	}
	apply(t, db, built(bucket("b"), e))
	e.Description = "for people"
	assert.EqualValues(t, 1, apply(t, db, built(bucket("b"), e)).Set.Enrichments[0].Revision)
	changed := bucket("b")
	changed.MaxDwell = time.Hour
	assert.EqualValues(t, 3, apply(t, db, built(changed, e)).Set.Enrichments[0].Revision)
}
