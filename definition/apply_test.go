package definition_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	d "github.com/hogstream/hogstream/definition"
	p "github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func options() d.Options { return d.Options{Limits: p.DefaultLimits()} }

// bucket is a definition with an event as its criteria, or others.
func bucket(id string, criteria ...p.Condition) d.Bucket {
	if len(criteria) == 0 {
		criteria = []p.Condition{p.Event(id).Exists()}
	}
	return d.Bucket{ID: id, Name: id, Enabled: true, Criteria: criteria[0]}
}

func built(t testing.TB, buckets ...d.Bucket) *d.Files {
	t.Helper()
	files, err := d.Built(buckets, options())
	require.NoError(t, err)
	return files
}

func apply(t testing.TB, db *storage.DB, files *d.Files) *d.Outcome {
	t.Helper()
	out, err := d.Apply(t.Context(), db, files, options(), "test")
	require.NoError(t, err)
	return out
}

// write makes the files of a directory of definitions be these, and loads it.
func write(t testing.TB, dir string, files map[string]string) *d.Files {
	t.Helper()
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "buckets"), 0o700))
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "buckets", name), []byte(text), 0o600))
	}
	loaded, err := d.Load(dir, options())
	require.NoError(t, err)
	return loaded
}

func revisions(s *d.Set) map[string]int64 {
	out := map[string]int64{}
	for _, b := range s.Buckets {
		out[b.ID] = b.Revision
	}
	return out
}

func current(t testing.TB, db *storage.DB) *d.Set {
	t.Helper()
	set, err := d.Current(t.Context(), db)
	require.NoError(t, err)
	return set
}

func TestARevisionGrowsWithWhatMembersDependOnAndNothingElse(t *testing.T) {
	db := storagetest.New(t)
	base := func() []d.Bucket {
		return []d.Bucket{bucket("a"), bucket("asks-a", p.InBucket("a")), bucket("asks-asks-a", p.Not(p.Not(p.InBucket("asks-a")))), bucket("b")}
	}
	for name, c := range map[string]struct {
		change func(list []d.Bucket) []d.Bucket
		raised map[string]int64 // by how much
		same   bool             // no new version
	}{
		"nothing":         {func(l []d.Bucket) []d.Bucket { return l }, nil, true},
		"the order":       {func(l []d.Bucket) []d.Bucket { l[0], l[3] = l[3], l[0]; return l }, nil, true},
		"a default":       {func(l []d.Bucket) []d.Bucket { l[0].Kind, l[0].Joins = d.KindDynamic, d.JoinsSilent; return l }, nil, true},
		"a name":          {func(l []d.Bucket) []d.Bucket { l[0].Name = "other"; return l }, nil, false},
		"a description":   {func(l []d.Bucket) []d.Bucket { l[0].Description = "other"; return l }, nil, false},
		"criteria of b":   {func(l []d.Bucket) []d.Bucket { l[3].Criteria = p.Identified(); return l }, map[string]int64{"b": 1}, false},
		"a dwell of b":    {func(l []d.Bucket) []d.Bucket { l[3].Dwell = []d.Dwell{{After: time.Hour}}; return l }, map[string]int64{"b": 1}, false},
		"a limit of b":    {func(l []d.Bucket) []d.Bucket { l[3].EntryLimit = d.EntryOnce; return l }, map[string]int64{"b": 1}, false},
		"b is disabled":   {func(l []d.Bucket) []d.Bucket { l[3].Enabled = false; return l }, nil, false},
		"b is removed":    {func(l []d.Bucket) []d.Bucket { return l[:3] }, nil, false},
		"one is added":    {func(l []d.Bucket) []d.Bucket { return append(l, bucket("c")) }, map[string]int64{"c": 1}, false},
		"one that asks a": {func(l []d.Bucket) []d.Bucket { return append(l, bucket("c", p.InBucket("a"))) }, map[string]int64{"c": 1}, false},
		"criteria of a, which others ask for": {func(l []d.Bucket) []d.Bucket { l[0].Criteria = p.Identified(); return l },
			map[string]int64{"a": 1, "asks-a": 1, "asks-asks-a": 1}, false},
		"the one between": {func(l []d.Bucket) []d.Bucket { l[1].MinDwell = time.Hour; return l }, map[string]int64{"asks-a": 1, "asks-asks-a": 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, db, built(t))
			first := apply(t, db, built(t, base()...))
			second := apply(t, db, built(t, c.change(base())...))
			assert.Equal(t, !c.same, second.Changed)
			assert.Equal(t, !c.same, len(second.Changes) > 0)
			for id, got := range revisions(second.Set) {
				assert.Equal(t, first.Set.Version+c.raised[id], got, id)
			}
			assert.Equal(t, second.Set, current(t, db))
		})
	}
}

func TestABucketThatIsRemovedAndAddedAgainOrSwitchedOffAndOnIsFilledAgain(t *testing.T) {
	db := storagetest.New(t)
	apply(t, db, built(t, bucket("a"), bucket("b", p.InBucket("a"))))
	apply(t, db, built(t))
	assert.Empty(t, current(t, db).Buckets)
	back := apply(t, db, built(t, bucket("a"), bucket("b", p.InBucket("a"))))
	assert.Equal(t, map[string]int64{"a": 3, "b": 3}, revisions(back.Set))

	off, err := d.Switch(t.Context(), db, d.BucketRef("a"), false, "somebody")
	require.NoError(t, err)
	assert.Equal(t, []d.Change{{Kind: d.BucketKind, ID: "a", What: d.Changed, Fields: []string{"enabled"}}}, off.Changes)
	a := off.Set.Find("a")
	assert.False(t, a.Enabled)
	assert.True(t, a.Declared)
	assert.Equal(t, map[string]int64{"a": 3, "b": 3}, revisions(off.Set))
	assert.Equal(t, "somebody", off.Set.AppliedBy)

	renamed := bucket("a")
	renamed.Name = "other"
	kept := apply(t, db, built(t, renamed, bucket("b", p.InBucket("a"))))
	assert.False(t, kept.Set.Find("a").Enabled, "applying a definition does not switch a bucket on")

	on, err := d.Switch(t.Context(), db, d.BucketRef("a"), true, "somebody")
	require.NoError(t, err)
	assert.Nil(t, on.Set.Find("a").Switched)
	assert.Equal(t, map[string]int64{"a": 6, "b": 6}, revisions(on.Set))
	again, err := d.Switch(t.Context(), db, d.BucketRef("a"), true, "somebody")
	require.NoError(t, err)
	assert.False(t, again.Changed)
	_, err = d.Switch(t.Context(), db, d.BucketRef("none"), true, "somebody")
	assert.ErrorIs(t, err, d.ErrUnknown)
}

func TestOnlyABucketThatIsNotDefinedCanBeForgotten(t *testing.T) {
	db := storagetest.New(t)
	unused := func(id string) error {
		return db.InTx(t.Context(), func(tx *storage.Tx) error { return d.RequireUnused(t.Context(), tx, id) })
	}
	require.NoError(t, unused("a"))
	apply(t, db, built(t, bucket("a")))
	assert.ErrorIs(t, unused("a"), d.ErrInUse)
	_, err := d.Switch(t.Context(), db, d.BucketRef("a"), false, "test")
	require.NoError(t, err)
	assert.ErrorIs(t, unused("a"), d.ErrInUse)
	apply(t, db, built(t))
	require.NoError(t, unused("a"))
}

const (
	vip = "id: vip\nname: VIP\nenabled: true\ncriteria: {type: property, property: plan, operator: eq, value: pro}\n"
	old = "id: old\nname: Old\nenabled: true\ncriteria: {type: event, eventName: a, check: exists}\n"
)

// B11, B12.
func TestABadFileStopsNoOtherAndItsLastGoodFormStaysInUse(t *testing.T) {
	db, dir := storagetest.New(t), t.TempDir()
	apply(t, db, write(t, dir, map[string]string{"vip.yaml": vip, "old.yaml": old}))
	out := apply(t, db, write(t, dir, map[string]string{
		"vip.yaml": strings.Replace(vip, "operator: eq", "operator: qe", 1),
		"old.yaml": strings.Replace(old, "eventName: a", "eventName: b", 1),
		"new.yaml": strings.Replace(old, "id: old", "id: new", 1),
	}))
	assert.Equal(t, []d.Change{{Kind: d.BucketKind, ID: "new", What: d.Added}, {Kind: d.BucketKind, ID: "old", What: d.Changed, Fields: []string{"criteria"}}}, out.Changes)
	assert.Equal(t, map[string]int64{"vip": 1, "old": 2, "new": 2}, revisions(out.Set))
	failing := out.Set.FailingOf(d.BucketRef("vip"))
	require.NotNil(t, failing)
	assert.Equal(t, "buckets/vip.yaml", failing.File)
	assert.Contains(t, failing.Faults, `buckets/vip.yaml:4:54: criteria.operator: "qe" is not known: did you mean "eq"?`)
	assert.WithinDuration(t, time.Now(), failing.Since, time.Minute)

	again := apply(t, db, write(t, dir, map[string]string{"vip.yaml": "id: vip\n", "old.yaml": old}))
	assert.Equal(t, failing.Since, again.Set.FailingOf(d.BucketRef("vip")).Since, "it fails since then")
	assert.Nil(t, again.Set.Find("new"))

	unread := apply(t, db, write(t, dir, map[string]string{"vip.yaml": "id: {"}))
	assert.NotNil(t, unread.Set.Find("vip"))
	assert.NotNil(t, unread.Set.Find("old"), "what a file that cannot be read defines is not known, so nothing is removed")
	assert.NotNil(t, unread.Set.FailingOf(d.BucketRef("vip")))

	mended := apply(t, db, write(t, dir, map[string]string{"vip.yaml": vip}))
	assert.Empty(t, mended.Set.Failing)
	assert.Equal(t, map[string]int64{"vip": 1}, revisions(mended.Set))
}

func TestWhatIsInUseGoesTogetherWhateverFails(t *testing.T) {
	db, dir := storagetest.New(t), t.TempDir()
	in := func(id, other string) string {
		return "id: " + id + "\nname: x\nenabled: true\ncriteria: {type: bucket, bucketId: " + other + "}\n"
	}
	for name, c := range map[string]struct {
		before, after map[string]string
		want          map[string]string // what each asks for; "" is none
		failing       []string
	}{
		"one that is kept keeps what it asks for": {
			map[string]string{"a.yaml": in("a", "old"), "old.yaml": old}, map[string]string{"a.yaml": "id: a\n"},
			map[string]string{"a": "old", "old": ""}, []string{"a"},
		},
		"one that asks for a new one with faults is left out": {
			nil, map[string]string{"a.yaml": in("a", "b"), "b.yaml": "id: b\n", "old.yaml": old},
			map[string]string{"old": ""}, []string{"a", "b"},
		},
		"one that asks for a new one with faults stays what it was": {
			map[string]string{"a.yaml": in("a", "old"), "old.yaml": old}, map[string]string{"a.yaml": in("a", "b"), "b.yaml": "id: b\n", "old.yaml": old},
			map[string]string{"a": "old", "old": ""}, []string{"a", "b"},
		},
		"a circle through one that is kept is not closed": {
			map[string]string{"a.yaml": in("a", "old"), "b.yaml": in("b", "a"), "old.yaml": old},
			map[string]string{"a.yaml": in("a", "b"), "b.yaml": "id: b\n", "old.yaml": old},
			map[string]string{"a": "old", "b": "a", "old": ""}, []string{"a", "b"},
		},
		"nor is it when the one that is kept comes first": {
			map[string]string{"a.yaml": in("a", "b"), "b.yaml": in("b", "old"), "old.yaml": old},
			map[string]string{"a.yaml": "id: a\n", "b.yaml": in("b", "a"), "old.yaml": old},
			map[string]string{"a": "b", "b": "old", "old": ""}, []string{"a", "b"},
		},
		"one taken back opens the circle": {
			map[string]string{"a.yaml": in("a", "old"), "k.yaml": in("k", "a"), "old.yaml": old},
			map[string]string{"a.yaml": in("a", "z"), "z.yaml": in("z", "k"), "k.yaml": "id: k\n", "old.yaml": old},
			map[string]string{"a": "old", "k": "a", "old": "", "z": "k"}, []string{"a", "k"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, db, write(t, dir, nil))
			apply(t, db, write(t, dir, c.before))
			set := apply(t, db, write(t, dir, c.after)).Set
			got := map[string]string{}
			for _, b := range set.Buckets {
				got[b.ID] = strings.Join(b.Criteria.Inputs().Buckets, ",")
			}
			assert.Equal(t, c.want, got)
			for _, id := range c.failing {
				assert.NotNil(t, set.FailingOf(d.BucketRef(id)), id)
			}
		})
	}
}

func TestAWindowThatBecameLongerThanEventsAreKeptStaysInUse(t *testing.T) {
	db := storagetest.New(t)
	apply(t, db, built(t, bucket("long", p.Event("a").Within(p.Days(90)).Exists()), bucket("b")))
	opts := options()
	opts.Limits.Retention = p.Days(30)
	dir := t.TempDir()
	write(t, dir, map[string]string{"old.yaml": old})
	files, err := d.Load(dir, opts)
	require.NoError(t, err)
	out, err := d.Apply(t.Context(), db, files, opts, "test")
	require.NoError(t, err)
	assert.Equal(t, []d.Change{{Kind: d.BucketKind, ID: "old", What: d.Added}}, out.Changes)
	assert.NotNil(t, out.Set.Find("long"))
}

func TestWhatWasBuiltInGoAndWhatCameFromFilesDoNotRemoveEachOther(t *testing.T) {
	db, dir := storagetest.New(t), t.TempDir()
	apply(t, db, built(t, bucket("go")))
	apply(t, db, write(t, dir, map[string]string{"vip.yaml": vip}))
	assert.Equal(t, map[string]int64{"go": 1, "vip": 2}, revisions(current(t, db)))
	apply(t, db, built(t))
	assert.Equal(t, map[string]int64{"vip": 2}, revisions(current(t, db)))

	both, err := write(t, dir, map[string]string{"vip.yaml": vip}).With([]d.Definition{bucket("go")}, options())
	require.NoError(t, err)
	assert.Len(t, apply(t, db, both).Set.Buckets, 2)
	_, err = write(t, dir, map[string]string{"vip.yaml": vip}).With([]d.Definition{bucket("vip")}, options())
	assert.ErrorContains(t, err, "vip.yaml too: ids are unique")
}

func TestADefinitionThatMovesBetweenFilesIsTheSame(t *testing.T) {
	db, dir := storagetest.New(t), t.TempDir()
	apply(t, db, write(t, dir, map[string]string{"vip.yaml": vip, "old.yaml": old}))
	assert.False(t, apply(t, db, write(t, dir, map[string]string{"all.yaml": "# both\n" + old + "---\n" + vip})).Changed)
}

func TestInstancesWithDifferentFilesEndWithOneVersionForAll(t *testing.T) {
	db := storagetest.New(t)
	one, other := write(t, t.TempDir(), map[string]string{"vip.yaml": vip}), write(t, t.TempDir(), map[string]string{"old.yaml": old})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watchers := []*d.Watcher{d.NewWatcher(db), d.NewWatcher(db)}
	var running sync.WaitGroup
	for _, w := range watchers {
		running.Go(func() { assert.NoError(t, w.Run(ctx)) })
	}
	var applying sync.WaitGroup
	for i := range 10 {
		files := one
		if i%2 == 1 {
			files = other
		}
		applying.Go(func() {
			_, err := d.Apply(t.Context(), db, files, options(), "test")
			assert.NoError(t, err)
		})
	}
	applying.Wait()
	want := current(t, db)
	assert.Len(t, want.Buckets, 1)
	for _, w := range watchers {
		set := w.Set()
		for set.Version < want.Version {
			var err error
			set, err = w.Next(t.Context(), set)
			require.NoError(t, err)
		}
		assert.Equal(t, want, set)
	}
	changes, _ := d.Compare(want, one, options())
	otherChanges, _ := d.Compare(want, other, options())
	assert.Equal(t, 2, len(changes)+len(otherChanges), "one of them has other files, and is told")
	cancel()
	running.Wait()
}
