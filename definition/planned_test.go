package definition_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	d "github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/journeys"
	p "github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func plan(t testing.TB, db *storage.DB, want d.Wanted) *d.Plan {
	t.Helper()
	made, err := d.NewPlan(current(t, db), want, options())
	require.NoError(t, err)
	return made
}

func former(t testing.TB, db *storage.DB, version int64) *d.Former {
	t.Helper()
	set, err := d.Version(t.Context(), db, version)
	require.NoError(t, err)
	return &d.Former{Set: set}
}

func moving(made *d.Plan) (ids []string) {
	for _, e := range made.Effects() {
		ids = append(ids, e.Bucket+": "+e.Why)
	}
	return ids
}

func TestAPlanNamesTheBucketsWhoseMembersMayChangeAndWhy(t *testing.T) {
	db := storagetest.New(t)
	off := bucket("off")
	off.Enabled = false
	staff := d.Bucket{ID: "staff", Name: "Staff", Enabled: true, Kind: d.KindManual}
	apply(t, db, built(t, bucket("a"), bucket("asks-a", p.InBucket("a")), bucket("b"), bucket("c"), off))

	changed, renamed, on := bucket("a", p.Event("other").Exists()), bucket("b"), bucket("off")
	changed.MinDwell, renamed.Name = time.Hour, "B"
	made := plan(t, db, built(t, changed, bucket("asks-a", p.InBucket("a")), renamed, on, staff, bucket("new")))
	require.Equal(t, []string{"a: changed (criteria, minDwell)", "asks-a: asks for a", "new: added", "off: changed (enabled)"}, moving(made))
	require.Equal(t, "2 added, 3 changed, 1 removed", d.Summary(made.Changes))
	require.Empty(t, moving(plan(t, db, built(t, bucket("a"), bucket("asks-a", p.InBucket("a")), renamed, bucket("c"), off))), "a name moves nobody")
}

func TestAPlanIsAppliedWhileNothingHasMovedAndOtherwiseSaysWhatHas(t *testing.T) {
	db := storagetest.New(t)
	apply(t, db, built(t, bucket("a")))
	files := built(t, bucket("a"), bucket("b"))
	made := plan(t, db, files)
	read, err := d.ParseHash(made.Basis.Hash())
	require.NoError(t, err)
	require.Equal(t, made.Basis, read)

	other := options()
	other.NoEvents = true
	for name, c := range map[string]struct {
		want d.Wanted
		opts d.Options
		says string
	}{
		"other definitions": {built(t, bucket("a"), bucket("c")), options(), "the definitions are not those of the plan"},
		"other settings":    {files, other, "EVENTS_RETENTION, EVENTS_MODE"},
		"another version":   {former(t, db, 1), options(), "the definitions are not those of the plan"},
	} {
		_, err := d.ApplyPlan(t.Context(), db, c.want, c.opts, "test", made.Basis)
		var moved *d.MovedError
		require.ErrorAs(t, err, &moved, name)
		require.ErrorContains(t, err, c.says, name)
		require.Equal(t, int64(1), current(t, db).Version, name)
	}

	apply(t, db, built(t, bucket("a", p.Event("quick").Exists())))
	_, err = d.ApplyPlan(t.Context(), db, files, options(), "test", made.Basis)
	require.ErrorContains(t, err, "version 2 is in use, and it was 1; test applied it at ")
	require.ErrorContains(t, err, "since then a: changed (criteria)")

	done, err := d.ApplyPlan(t.Context(), db, files, options(), "test", plan(t, db, files).Basis)
	require.NoError(t, err)
	require.Equal(t, int64(3), done.Set.Version)
	_, err = d.ApplyPlan(t.Context(), db, files, options(), "test", made.Basis)
	require.Error(t, err, "a plan is applied once")
	for _, none := range []string{"", "12", "x-0123456789abcdef-01234567", "-1-0123456789abcdef-01234567", "1-0123-01234567"} {
		_, err := d.ParseHash(none)
		require.ErrorContains(t, err, "is no hash of a plan", none)
	}
}

func TestThePlanOfAMendedFileIsAnother(t *testing.T) {
	db, dir := storagetest.New(t), t.TempDir()
	bad := plan(t, db, write(t, dir, map[string]string{"vip.yaml": vip, "old.yaml": "id: old\n"}))
	require.Len(t, bad.Next.Failing, 1)
	worse := plan(t, db, write(t, dir, map[string]string{"vip.yaml": vip, "old.yaml": "id: old\nname: Old\n"}))
	require.NotEqual(t, bad.Basis, worse.Basis)
	commented := plan(t, db, write(t, dir, map[string]string{"other.yaml": "# a comment\n" + vip, "old.yaml": "id: old\n"}))
	require.Equal(t, bad.Basis, commented.Basis, "neither names of files nor comments count")
}

// asks stores a destination whose filter asks for a bucket.
func asks(t testing.TB, db *storage.DB, name, bucket string) {
	t.Helper()
	box, err := storage.NewBox(make([]byte, 32))
	require.NoError(t, err)
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		return storage.NewDestinations(db, box).Insert(t.Context(), tx, &storage.Destination{
			ID: uuid.NewString(), URL: "https://example.com", EventTypes: []string{}, Config: []byte("{}"), DeliveryLog: "all", Name: name, Kind: "webhook", Status: storage.DestinationActive, Selector: `[{"event":"order"},{"bucket":"` + bucket + `"}]`,
		})
	}))
}

func TestABucketThatADestinationAsksForIsNotRemovedByAPlan(t *testing.T) {
	db := storagetest.New(t)
	apply(t, db, built(t, bucket("keen"), bucket("other")))
	asks(t, db, "crm", "keen")
	asks(t, db, "erp", "never-defined")
	files := built(t, bucket("other"))
	made := plan(t, db, files)
	broken, err := made.Broken(t.Context(), db)
	require.NoError(t, err)
	require.Equal(t, []d.Reference{{Bucket: "keen", Kind: "destination", Name: "crm"}}, broken)
	_, err = d.ApplyPlan(t.Context(), db, files, options(), "test", made.Basis)
	var refused *d.BrokenError
	require.ErrorAs(t, err, &refused)
	require.EqualError(t, err, "the filter of destination crm asks for bucket keen, which is removed: change that filter first, or keep the bucket")
	require.Equal(t, int64(1), current(t, db).Version)

	require.Equal(t, broken, apply(t, db, files).Broken, "what a save or a start applies says so, and is applied")
}

func TestARollbackPutsADefinitionInUseAgainAsANewVersion(t *testing.T) {
	db := storagetest.New(t)
	first := []d.Bucket{bucket("a"), bucket("b")}
	apply(t, db, built(t, first...))
	_, err := d.Switch(t.Context(), db, d.BucketRef("b"), false, "test")
	require.NoError(t, err)
	apply(t, db, built(t, bucket("a", p.Event("other").Exists()), bucket("c")))

	back := former(t, db, 2)
	made := plan(t, db, back)
	require.Equal(t, []d.Change{{Kind: d.BucketKind, ID: "a", What: d.Changed, Fields: []string{"criteria"}}, {Kind: d.BucketKind, ID: "b", What: d.Added}, {Kind: d.BucketKind, ID: "c", What: d.Removed}}, made.Changes)
	require.Equal(t, []string{"a: changed (criteria)"}, moving(made), "b is switched off again")
	done, err := d.ApplyPlan(t.Context(), db, back, options(), "test", made.Basis)
	require.NoError(t, err)
	require.Equal(t, int64(4), done.Set.Version)
	require.Equal(t, back.Hash, done.Set.Hash)
	require.Equal(t, map[string]int64{"a": 4, "b": 4}, revisions(done.Set), "everybody is filled with what is another than before")
	require.Empty(t, plan(t, db, former(t, db, 4)).Changes)

	empty, err := d.ApplyPlan(t.Context(), db, former(t, db, 0), options(), "test", plan(t, db, former(t, db, 0)).Basis)
	require.NoError(t, err)
	require.Empty(t, empty.Set.Buckets, "version 0 is before all")
	_, err = d.Version(t.Context(), db, 99)
	require.ErrorIs(t, err, d.ErrNoVersion)
}

func TestAVersionThatIsNotAllowedAnyMoreIsNotPutInUseAgain(t *testing.T) {
	db := storagetest.New(t)
	apply(t, db, built(t, bucket("long", p.Event("e").Within(30*24*time.Hour).Exists())))
	apply(t, db, built(t, bucket("other")))
	opts := options()
	opts.Limits.Retention = 24 * time.Hour
	_, err := d.NewPlan(current(t, db), former(t, db, 1), opts)
	var refused *d.NotAllowedError
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, `version 1 cannot be put in use again: bucket "long": criteria`)
}

func TestTheHistorySaysWhenByWhomAndWhat(t *testing.T) {
	db := storagetest.New(t)
	before := time.Now().Add(-time.Minute)
	apply(t, db, built(t, bucket("a"), bucket("b")))
	changed := bucket("a")
	changed.MaxDwell = time.Hour
	apply(t, db, built(t, changed))
	apply(t, db, built(t, changed, bucket("c")))
	all, err := d.History(t.Context(), db, 0, 10)
	require.NoError(t, err)
	require.Len(t, all, 3)
	require.True(t, all[0].AppliedAt.After(before))
	require.Equal(t, "test", all[0].AppliedBy)
	require.Equal(t, []d.Change{{Kind: d.BucketKind, ID: "a", What: d.Changed, Fields: []string{"maxDwell"}}, {Kind: d.BucketKind, ID: "b", What: d.Removed}}, all[1].Changes)
	require.Equal(t, "0 added, 1 changed, 1 removed", all[1].Summary)
	require.Equal(t, "2 added, 0 changed, 0 removed", all[2].Summary)
	require.Equal(t, 2, all[2].Buckets)
	page, err := d.History(t.Context(), db, 3, 1)
	require.NoError(t, err)
	require.Equal(t, all[1:2], page)
}

func TestADiffIsOfTheOneFormOfEachDefinition(t *testing.T) {
	db := storagetest.New(t)
	apply(t, db, built(t, bucket("a"), bucket("b"), bucket("same")))
	changed := bucket("a")
	changed.MaxDwell = time.Hour
	apply(t, db, built(t, changed, bucket("same"), bucket("c")))
	_, err := d.Switch(t.Context(), db, d.BucketRef("same"), false, "test")
	require.NoError(t, err)
	differences := d.Diff(former(t, db, 1).Set, current(t, db))
	var ids []string
	for _, one := range differences {
		ids = append(ids, one.Change.String())
	}
	require.Equal(t, []string{"a: changed (maxDwell)", "b: removed", "c: added", "same: changed (enabled)"}, ids)
	require.Equal(t, `--- version 1/a
+++ version 3/a
@@ -5,3 +5,4 @@
   check: exists
   eventName: a
   type: event
+maxDwell: 1h0m0s
`, differences[0].Diff)
	require.Contains(t, differences[1].Diff, "\n-id: b\n")
	assert.Contains(t, differences[3].Diff, "+# switched by an administrator: enabled is false\n")
	require.Empty(t, d.Diff(current(t, db), current(t, db)))
}

func TestAPlanSaysWhichHistoryIsNotThere(t *testing.T) {
	db := storagetest.New(t)
	apply(t, db, built(t, bucket("known")))
	opts := options()
	opts.Referenced = true
	made, err := d.NewPlan(current(t, db), built(t, bucket("known", p.Event("known").AtLeast(2)), bucket("fresh"), bucket("mails", p.Event("email.opened").Exists())), opts)
	require.NoError(t, err)
	report, err := made.Reported(t.Context(), db, nil)
	require.NoError(t, err)
	require.Equal(t, []string{
		"EVENTS_MODE=referenced did not store fresh so far, so bucket fresh begins without history of it",
		"email.opened is no event that is stored, so bucket mails begins without history of it",
	}, report.Notes)
}

func TestAPlanSaysWhatBecomesOfLiveRunsByVersionAndStep(t *testing.T) {
	journey := func(id, template, onChange string) d.Journey {
		return d.Journey{Journey: journeys.Journey{
			ID: id, Name: id, Enabled: true, OnChange: onChange, Trigger: journeys.Trigger{Records: []journeys.Match{{Event: "began"}}},
			Steps: []journeys.Step{{Email: &journeys.Email{Template: template}}},
		}}
	}
	set := func(list ...d.Journey) *d.Files {
		files, err := d.Built(list, options())
		require.NoError(t, err)
		return files
	}
	db := storagetest.New(t)
	first := set(journey("ends", "a", journeys.OnChangeExit), journey("goes", "a", ""), journey("gone", "a", journeys.OnChangeExit), journey("same", "a", ""))
	apply(t, db, first)
	stand := func(id, version, step string, runs int) {
		_, err := storagetest.SQL(db).Exec(t.Context(), `
			INSERT INTO journey_runs (run_id, contact_id, journey_id, version, entry, status, node, node_since, entered_at, trigger_id)
			SELECT gen_random_uuid(), gen_random_uuid(), $1, $2, 1, 'waiting', $3, now(), now(), 'x' FROM generate_series(1, $4)`, id, version, step, runs)
		require.NoError(t, err)
	}
	for _, j := range first.Journeys {
		stand(j.ID, j.Identity(), "wait-1", 3)
	}
	stand("goes", "older", "wait-9", 2)
	made, err := d.NewPlan(current(t, db), set(journey("ends", "b", journeys.OnChangeExit), journey("goes", "b", ""), journey("same", "a", "")), options())
	require.NoError(t, err)
	report, err := made.Reported(t.Context(), db, nil)
	require.NoError(t, err)
	version := first.Journeys[0].Identity()
	require.ElementsMatch(t, []d.RunsLeft{
		{Journey: "ends", Version: version, Step: "wait-1", Runs: 3, Then: "exit"},
		{Journey: "goes", Version: version, Step: "wait-1", Runs: 3, Then: "finish"},
		{Journey: "goes", Version: "older", Step: "wait-9", Runs: 2, Then: "finish"},
		{Journey: "gone", Version: version, Step: "wait-1", Runs: 3, Then: "exit"},
	}, report.Runs)
}
