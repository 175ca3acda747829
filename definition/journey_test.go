package definition_test

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	d "github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

const (
	keenFile = "id: keen\nname: Keen\nenabled: true\ncriteria: {type: event, eventName: seen, check: count, operator: gte, value: 2, within: 7d}\n"
	vipFile  = "id: vip\nname: VIP\nenabled: true\nkind: manual\n"
	cartFile = `id: cart
name: Cart
enabled: true
trigger: {event: "bucket.entered:keen"}
exitOn: [{event: paid}]
steps:
  - wait: 1h
  - branch: [{when: {type: event, eventName: looked, check: exists, within: 1d}, do: [{bucket: {add: vip}}]}, {else: [{exit: cold}]}]
`
)

func loadFS(t testing.TB, files map[string]string) *d.Files {
	t.Helper()
	from := fstest.MapFS{}
	for name, text := range files {
		from[name] = &fstest.MapFile{Data: []byte(text)}
	}
	loaded, err := d.LoadFS(from, "d", options())
	require.NoError(t, err)
	return loaded
}

func TestAJourneyIsADefinitionThatNeedsItsBuckets(t *testing.T) {
	files := loadFS(t, map[string]string{"buckets/keen.yaml": keenFile, "buckets/vip.yaml": vipFile, "journeys/cart.yaml": cartFile})
	require.Empty(t, files.Faults())
	require.Len(t, files.Journeys, 1)

	db := storagetest.New(t)
	out := apply(t, db, files)
	require.Equal(t, "keen: added", out.Changes[0].String())
	require.Equal(t, "journey cart: added", out.Changes[2].String())
	inUse := out.Set.FindJourney("cart")
	require.Equal(t, "journeys/cart.yaml", inUse.File)
	require.Equal(t, files.Journeys[0].Canonical(), inUse.Canonical())
	require.EqualValues(t, 1, inUse.Revision)
	require.True(t, out.Set.LooksAt("looked"), "a condition looks it up")
	require.False(t, out.Set.LooksAt("paid"), "nobody looks it up: it comes")

	without := loadFS(t, map[string]string{"buckets/keen.yaml": keenFile, "journeys/cart.yaml": cartFile})
	require.Contains(t, without.Faults().Error(), `names bucket "vip"`)
	out = apply(t, db, without)
	require.False(t, out.Changed, "the journey stays in its last good form, and its bucket with it")
	require.NotNil(t, out.Set.Find("vip"))
}

func TestWhatIsWrongWithAJourneyIsSaidWhereItStands(t *testing.T) {
	files := loadFS(t, map[string]string{
		"buckets/keen.yaml": keenFile, "journeys/a.yaml": "id: a\nname: A\nenabled: true\ntrigger: {event: x}\nsteps:\n  - wiat: 1h\n",
		"journeys/b.yaml": "id: b\nname: B\nenabled: true\ntrigger: {event: \"bucket.entered:kene\"}\nsteps: [{wait: 1h}]\n",
	})
	require.Contains(t, files.Faults().Error(), "d/journeys/a.yaml:6:5")
	require.Contains(t, files.Faults().Error(), "wait")
	require.Contains(t, files.Faults().Error(), `d/journeys/b.yaml:4:18: trigger[0].event: names bucket "kene": "kene" is not known: did you mean "keen"?`)
	require.Equal(t, []string{"a"}, files.Faulty[0].IDs)
}

// A step puts contacts into manual buckets alone, wherever the two stand.
func TestAStepOfAJourneyIsAboutAManualBucket(t *testing.T) {
	joins := func(bucket string) string {
		return "id: j\nname: J\nenabled: true\ntrigger: {event: x}\nsteps: [{bucket: {add: vip}}, {wait: 1d}, {bucket: {remove: " + bucket + "}}]\n"
	}
	all := map[string]string{"buckets/keen.yaml": keenFile, "buckets/vip.yaml": vipFile, "journeys/j.yaml": joins("keen")}
	const wrong = `names bucket "keen", whose criteria decide who is a member: use one of kind manual`
	require.Contains(t, loadFS(t, all).Faults().Error(), "d/journeys/j.yaml:5:61: steps[2].bucket.remove: "+wrong)

	all["journeys/j.yaml"] = joins("vip")
	right := loadFS(t, all)
	require.Empty(t, right.Faults())
	db := storagetest.New(t)
	apply(t, db, right)

	dynamic := strings.Replace(keenFile, "keen", "vip", 1)
	all["buckets/vip.yaml"] = dynamic
	out := apply(t, db, loadFS(t, all))
	require.False(t, out.Changed, "a bucket that becomes dynamic stays as it is while the journey needs it")
	require.Equal(t, d.KindManual, out.Set.Find("vip").Kind)
	require.Contains(t, out.Set.Failing[0].Faults, `names bucket "vip"`)

	on := keenFile + "on: [{leave: [{bucket: {add: keen}}]}]\n"
	require.Contains(t, loadFS(t, map[string]string{"buckets/keen.yaml": on}).Faults().Error(), "on[0].leave[0].bucket.add: "+wrong)

	var built d.Journey
	require.NoError(t, built.UnmarshalJSON([]byte(right.Journeys[0].Canonical())))
	_, err := loadFS(t, map[string]string{"buckets/vip.yaml": dynamic}).With(d.All([]d.Journey{built}), options())
	require.ErrorContains(t, err, `journey "j": steps[0].bucket.add: names bucket "vip", whose criteria`)
}

// What is waited for beyond what the log keeps would never be said.
func TestACallIsNotWaitedForLongerThanOutboxKeepsIt(t *testing.T) {
	files := func(call string) fstest.MapFS {
		return fstest.MapFS{"journeys/j.yaml": {Data: []byte("id: j\nname: J\nenabled: true\ntrigger: {event: x}\nsteps: [{wait: 1d}, {call: " + call + "}]\n")}}
	}
	for call, want := range map[string]string{
		"{destination: crm, timeout: 48h}": "",
		"{destination: crm, timeout: 49h}": "d/journeys/j.yaml:5:56: steps[1].call.timeout: is 49h0m0s, and topic outbox keeps calls for 48h0m0s (RETENTION_EVENTS): write at most that, or keep them for longer",
	} {
		opts := options()
		opts.Outbox = 48 * time.Hour
		loaded, err := d.LoadFS(files(call), "d", opts)
		require.NoError(t, err)
		require.Equal(t, want, loaded.Faults().Error(), call)
		opts.Outbox = 0
		loaded, err = d.LoadFS(files(call), "d", opts)
		require.NoError(t, err)
		require.Empty(t, loaded.Faults(), "for ever")
	}
	opts := options()
	opts.Outbox = time.Minute
	loaded, err := d.LoadFS(files("{destination: crm}"), "d", opts)
	require.NoError(t, err)
	require.ErrorContains(t, loaded.Faults(), "steps[1].call.timeout: is 1h0m0s", "by default")
}

// Switched off and paused are two things, and a new form of the journey changes neither.
func TestAJourneyIsPausedUntilItIsResumed(t *testing.T) {
	db := storagetest.New(t)
	all := map[string]string{"buckets/keen.yaml": keenFile, "buckets/vip.yaml": vipFile, "journeys/cart.yaml": cartFile}
	apply(t, db, loadFS(t, all))
	pause := func(paused bool) *d.Outcome {
		out, err := d.Pause(t.Context(), db, "cart", paused, "test")
		require.NoError(t, err)
		return out
	}
	out := pause(true)
	require.Equal(t, "journey cart: changed (paused)", out.Changes[0].String())
	require.EqualValues(t, 1, out.Set.FindJourney("cart").Revision, "nobody is to be filled for that")
	require.False(t, pause(true).Changed)

	all["journeys/cart.yaml"] = cartFile + "  - wait: 2h\n"
	out = apply(t, db, loadFS(t, all))
	require.True(t, out.Set.FindJourney("cart").Paused)
	switched, err := d.Switch(t.Context(), db, d.JourneyRef("cart"), false, "test")
	require.NoError(t, err)
	require.True(t, switched.Set.FindJourney("cart").Paused)
	require.False(t, switched.Set.FindJourney("cart").Enabled)

	out = pause(false)
	require.False(t, out.Set.FindJourney("cart").Paused)
	require.Equal(t, out.Set.Version, out.Set.FindJourney("cart").Revision, "its runs are to be woken")
	_, err = d.Pause(t.Context(), db, "crat", true, "test")
	require.ErrorIs(t, err, d.ErrUnknown)
	_, err = d.Switch(t.Context(), db, d.BucketRef("cart"), true, "test")
	require.ErrorIs(t, err, d.ErrUnknown)
	require.NoError(t, db.InSnapshot(t.Context(), func(tx *storage.Tx) error {
		set, err := d.Current(t.Context(), tx)
		require.False(t, set.FindJourney("cart").Paused)
		return err
	}))
}

// Journeys that stand with a bucket are in use with it, and are checked with it.
func TestReactionsStandWithTheirBucket(t *testing.T) {
	db := storagetest.New(t)
	with := strings.Replace(keenFile, "criteria:", "dwell: [{after: 7d}]\non:\n  - enter: [{bucket: {add: vip}}]\n  - {dwell: {after: 7d}, do: [{branch: [{when: {type: bucket, bucketId: vip}, do: [{exit: vip}]}]}]}\ncriteria:", 1)
	files := loadFS(t, map[string]string{"buckets/keen.yaml": with, "buckets/vip.yaml": vipFile, "journeys/cart.yaml": cartFile})
	require.Empty(t, files.Faults())
	apply(t, db, files)
	set, err := d.Current(t.Context(), db)
	require.NoError(t, err)
	var ids []string
	for _, j := range set.AllJourneys() {
		ids = append(ids, j.ID)
		require.EqualValues(t, 1, j.Revision)
	}
	require.Equal(t, []string{"bucket-keen-on-dwell-after-604800000", "bucket-keen-on-enter", "cart"}, ids)
	require.Len(t, set.Journeys, 1)
	switched, err := d.Switch(t.Context(), db, d.BucketRef("keen"), false, "test")
	require.NoError(t, err)
	require.False(t, switched.Set.AllJourneys()[1].Enabled, "they go with the bucket")

	wrong := loadFS(t, map[string]string{
		"buckets/keen.yaml": strings.Replace(strings.Replace(with, "dwell: [{after: 7d}]\n", "", 1), "add: vip", "add: vup", 1), "buckets/vip.yaml": vipFile,
		"journeys/a.yaml": "id: bucket-keen-on-enter\nname: A\nenabled: true\ntrigger: {event: x}\nsteps: [{wait: 1h}]\n",
	})
	require.Contains(t, wrong.Faults().Error(), "on[1].dwell: is no dwell of the bucket")
	require.Contains(t, wrong.Faults().Error(), "d/journeys/a.yaml:1:5: id: is how a reaction of a bucket is called, which is a collision")
	wrong = loadFS(t, map[string]string{"buckets/keen.yaml": strings.Replace(with, "add: vip", "add: vup", 1), "buckets/vip.yaml": vipFile})
	require.Contains(t, wrong.Faults().Error(), `d/buckets/keen.yaml:6:28: on[0].enter[0].bucket.add: names bucket "vup": "vup" is not known: did you mean "vip"?`)
}
