package storage_test

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// runsCase draws what happens to runs and follows it in the database and in plain lists.
type runsCase struct {
	*rapid.T
	t        *testing.T
	db       *storage.DB
	runs     map[string]*storage.JourneyRun
	counts   map[storage.JourneyCount]int64 // with N and Took of zero
	took     map[storage.JourneyCount]time.Duration
	logs     map[string][]storage.JourneyLogLine
	effects  map[string]int64
	contacts []string
	at       time.Time
	n        int
}

func (c *runsCase) count(ch *storage.JourneyChange, step, what, detail string, took time.Duration) {
	k := storage.JourneyCount{JourneyID: ch.JourneyID, Version: ch.Version, Step: step, What: what, Detail: detail, Arm: ch.Arm}
	c.counts[k]++
	c.took[k] += took
}

// note is what the log of a run has to say of a change.
func (c *runsCase) note(ch *storage.JourneyChange) {
	if ch.RunID == "" {
		return
	}
	detail := cmp.Or(ch.Outcome, ch.Reason)
	c.logs[ch.RunID] = append(c.logs[ch.RunID], storage.JourneyLogLine{At: ch.At, Kind: ch.Kind, Step: ch.Step, Next: ch.Next, Detail: detail, Error: ch.Error})
	if ch.Anew {
		c.effects[ch.RunID] = 0
	}
	if ch.Does != "" {
		c.effects[ch.RunID]++
	}
	if ch.Does == "email" {
		c.count(ch, "", storage.RunMailed, "", 0)
	}
}

func (c *runsCase) tick() time.Time {
	c.at = c.at.Add(time.Duration(rapid.IntRange(1, 1000).Draw(c.T, "later")) * time.Second)
	return c.at
}

func (c *runsCase) change(kind string, r *storage.JourneyRun) storage.JourneyChange {
	return storage.JourneyChange{
		Kind: kind, At: c.tick(), ContactID: r.ContactID, Partition: int32(r.ContactID[0] % 3), JourneyID: r.JourneyID, Version: r.Version, Key: r.Key,
		RunID: r.ID, Arm: r.Arm, Entry: r.Entry, EnteredAt: r.EnteredAt,
	}
}

// start begins a run, or skips one.
func (c *runsCase) start() storage.JourneyChange {
	c.n++
	r := &storage.JourneyRun{
		ID: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, "run", c.n)).String(), ContactID: rapid.SampledFrom(c.contacts).Draw(c.T, "contact"),
		JourneyID: rapid.SampledFrom([]string{"a", "ü"}).Draw(c.T, "journey"), Version: rapid.SampledFrom([]string{"1", "2"}).Draw(c.T, "version"),
		Key: rapid.SampledFrom([]string{"", `"k"`}).Draw(c.T, "key"), Arm: rapid.SampledFrom([]string{"", "treatment"}).Draw(c.T, "arm"), Entry: int64(c.n), TriggerID: uuid.NewString(),
	}
	r.UserID = r.ContactID
	ch := c.change(storage.RunStarted, r)
	if rapid.IntRange(0, 4).Draw(c.T, "skip") == 0 {
		ch.Kind, ch.RunID, ch.Reason = storage.RunSkipped, "", "already_active"
		c.count(&ch, "", ch.Kind, ch.Reason, 0)
		return ch
	}
	ch.EnteredAt, ch.Next, ch.TriggerID = ch.At, "one", r.TriggerID
	r.EnteredAt, r.StepSince, r.Step, r.Status = ch.At, ch.At, "one", storage.RunWaiting
	c.runs[r.ID] = r
	c.count(&ch, "", ch.Kind, "", 0)
	c.count(&ch, "one", storage.RunCame, "", 0)
	return ch
}

// go on with a run: a step, its goal, an end; or try a failed one again.
func (c *runsCase) goOn(r *storage.JourneyRun) (ch storage.JourneyChange, ok bool) {
	kinds := []string{storage.RunStepped, storage.RunConverted, storage.RunExited, storage.RunCompleted, storage.RunFailed}
	if r.Status == storage.RunFailed {
		kinds = []string{storage.RunRetried}
	} else if r.Status != storage.RunWaiting {
		return ch, false
	}
	ch = c.change(rapid.SampledFrom(kinds).Draw(c.T, "kind"), r)
	switch ch.Kind {
	case storage.RunConverted:
		r.ConvertedAt = ch.At
		c.count(&ch, "", ch.Kind, "", 0)
	case storage.RunRetried:
		ch.Next, ch.Anew = r.Step, rapid.Bool().Draw(c.T, "anew")
		r.Status, r.EndedAt, r.Reason, r.Error, r.StepSince = storage.RunWaiting, time.Time{}, "", "", ch.At
		c.count(&ch, "", ch.Kind, "", 0)
		c.count(&ch, r.Step, storage.RunCame, "", 0)
	case storage.RunStepped:
		ch.Step, ch.Since, ch.Outcome, ch.Next = r.Step, r.StepSince, "timeout", rapid.SampledFrom([]string{"one", "two"}).Draw(c.T, "next")
		ch.Does = rapid.SampledFrom([]string{"", "email", "call"}).Draw(c.T, "does")
		c.count(&ch, r.Step, ch.Kind, ch.Outcome, ch.At.Sub(ch.Since))
		r.Step, r.StepSince = ch.Next, ch.At
		c.count(&ch, r.Step, storage.RunCame, "", 0)
	default:
		ch.Step, ch.Since, ch.Reason = r.Step, r.StepSince, rapid.SampledFrom([]string{"", "event"}).Draw(c.T, "reason")
		if ch.Kind == storage.RunFailed {
			ch.Error = "HTTP 500"
		}
		r.Status, r.EndedAt, r.Reason, r.Error = ch.Kind, ch.At, ch.Reason, ch.Error
		c.count(&ch, "", ch.Kind, ch.Reason, ch.At.Sub(r.EnteredAt))
		c.count(&ch, r.Step, ch.Kind, ch.Reason, ch.At.Sub(ch.Since))
	}
	return ch, true
}

func (c *runsCase) save(changes []storage.JourneyChange, took map[string]string, forget []storage.ForgottenRuns) {
	require.NoError(c, c.db.InBatch(c.t.Context(), func(tx *storage.Tx) error {
		return tx.SaveJourneyChanges(c.t.Context(), changes, took, forget)
	}))
}

func (c *runsCase) batch() {
	var changes []storage.JourneyChange
	before := maps.Clone(c.counts)
	for range rapid.IntRange(1, 12).Draw(c.T, "changes") {
		ids := slices.Sorted(maps.Keys(c.runs))
		if len(ids) == 0 || rapid.IntRange(0, 3).Draw(c.T, "new") == 0 {
			changes = append(changes, c.start())
			c.note(&changes[len(changes)-1])
		} else if ch, ok := c.goOn(c.runs[rapid.SampledFrom(ids).Draw(c.T, "run")]); ok {
			changes = append(changes, ch)
			c.note(&ch)
		}
	}
	c.save(changes, nil, nil)
	for _, n := range storage.CountJourneyChanges(changes) {
		k := n
		k.N, k.Took = 0, 0
		before[k] += n.N
	}
	require.Equal(c, c.counts, before)
}

func (c *runsCase) merge() {
	two := rapid.SliceOfNDistinct(rapid.SampledFrom(c.contacts), 2, 2, rapid.ID).Draw(c.T, "merged")
	for _, r := range c.runs {
		if r.ContactID == two[0] {
			r.ContactID, r.UserID = two[1], two[1]
		}
	}
	c.save(nil, map[string]string{two[0]: two[1]}, nil)
}

func (c *runsCase) erase() {
	gone := rapid.SampledFrom(c.contacts).Draw(c.T, "gone")
	for id, r := range c.runs {
		if r.ContactID != gone {
			continue
		}
		if r.Status == storage.RunWaiting {
			ch := c.change(storage.RunExited, r)
			c.count(&ch, "", ch.Kind, "erased", 0)
			c.count(&ch, r.Step, ch.Kind, "erased", 0)
		}
		delete(c.runs, id)
	}
	c.save(nil, nil, []storage.ForgottenRuns{{ContactID: gone, Partition: int32(gone[0] % 3)}})
}

func (c *runsCase) clean() {
	before := c.at.Add(-time.Duration(rapid.IntRange(0, 3000).Draw(c.T, "age")) * time.Second)
	for {
		n, err := c.db.CleanJourneyRuns(c.t.Context(), before, 2)
		require.NoError(c, err)
		require.LessOrEqual(c, n, int64(2))
		if n == 0 {
			break
		}
	}
	maps.DeleteFunc(c.runs, func(_ string, r *storage.JourneyRun) bool { return !r.EndedAt.IsZero() && r.EndedAt.Before(before) })
}

// taken are the model's runs that a filter takes, the newest first.
func (c *runsCase) taken(f storage.JourneyRunFilter) (found []storage.JourneyRun) {
	takes := func(want, have string) bool { return want == "" || want == have }
	for _, r := range c.runs {
		if takes(f.JourneyID, r.JourneyID) && takes(f.Status, r.Status) && takes(f.Version, r.Version) && takes(f.Step, r.Step) &&
			takes(f.Reason, r.Reason) && takes(f.ContactID, r.ContactID) && within(f.Began, r.EnteredAt) && (f.Ended == storage.Span{} || !r.EndedAt.IsZero() && within(f.Ended, r.EndedAt)) {
			found = append(found, *r)
		}
	}
	slices.SortFunc(found, func(a, b storage.JourneyRun) int {
		return cmp.Or(b.EnteredAt.Compare(a.EnteredAt), cmp.Compare(b.ID, a.ID))
	})
	return found
}

func within(s storage.Span, at time.Time) bool {
	return !at.Before(s.From) && (s.Until.IsZero() || at.Before(s.Until))
}

func (c *runsCase) check() {
	ctx := c.t.Context()
	half := noon.Add(c.at.Sub(noon) / 2).Truncate(time.Second)
	filters := []storage.JourneyRunFilter{{}, {JourneyID: "ü"}, {JourneyID: "a", Status: storage.RunWaiting}, {Status: storage.RunExited, Reason: "event"}, {JourneyID: "a", Version: "2", Step: "two"},
		{JourneyID: "a", Began: storage.Span{From: half}}, {JourneyID: "a", Began: storage.Span{Until: half}}, {Ended: storage.Span{From: half, Until: c.at}}}
	for _, contact := range c.contacts {
		filters = append(filters, storage.JourneyRunFilter{ContactID: contact}, storage.JourneyRunFilter{ContactID: contact, JourneyID: "a", Status: storage.RunFailed})
	}
	for _, f := range filters {
		want := c.taken(f)
		n, err := c.db.CountJourneyRuns(ctx, f)
		require.NoError(c, err)
		require.Len(c, want, n)
		effects, err := c.db.CountJourneyEffects(ctx, f)
		require.NoError(c, err)
		for _, r := range want {
			effects -= c.effects[r.ID]
		}
		require.Zero(c, effects)
		var walked []storage.JourneyRun
		for cursor, more := "", true; more; more = cursor != "" {
			var page []storage.JourneyRun
			page, cursor, err = c.db.WalkJourneyRuns(ctx, f, 2, cursor)
			require.NoError(c, err)
			walked = append(walked, page...)
		}
		require.Equal(c, want, sameRows(walked))
		listed, err := c.db.ListJourneyRuns(ctx, f, 3, 1)
		require.NoError(c, err)
		require.Equal(c, sameRows(want[min(1, len(want)):min(4, len(want))]), sameRows(listed))
	}
	for id, r := range c.runs {
		got, err := c.db.JourneyRun(ctx, id)
		require.NoError(c, err)
		require.Equal(c, r, got)
		log, err := c.db.JourneyLog(ctx, id)
		require.NoError(c, err)
		require.Equal(c, c.logs[id], log)
	}
	c.checkTriggers()
	have := map[storage.JourneyCount]int64{}
	for _, journey := range []string{"a", "ü"} {
		counts, err := c.db.JourneyCounts(ctx, journey)
		require.NoError(c, err)
		for _, n := range counts {
			k := n
			k.N, k.Took = 0, 0
			have[k] = n.N
			require.InDelta(c, c.took[k].Seconds(), n.Took.Seconds(), 0.001)
		}
	}
	require.Equal(c, c.counts, have)
	c.checkSums(have)
}

// checkTriggers: what began a run is found at its contact, and nothing else is.
func (c *runsCase) checkTriggers() {
	contacts, triggers, want := []string{c.contacts[0]}, []string{uuid.NewString()}, map[string]bool{}
	for _, r := range c.runs {
		contacts, triggers = append(contacts, r.ContactID, uuid.NewString()), append(triggers, r.TriggerID, r.TriggerID)
		want[r.TriggerID] = true
	}
	began, err := c.db.JourneyTriggers(c.t.Context(), contacts, triggers)
	require.NoError(c, err)
	require.Equal(c, want, began)
}

// checkSums: of whoever came to a step, those who have not left it stand there; and those
// who have not ended live.
func (c *runsCase) checkSums(have map[storage.JourneyCount]int64) {
	standing, living := map[string]int64{}, int64(0)
	for k, n := range have {
		switch {
		case k.Step == "" && (k.What == storage.RunStarted || k.What == storage.RunRetried):
			living += n
		case k.Step == "" && k.What != storage.RunSkipped && k.What != storage.RunConverted && k.What != storage.RunMailed:
			living -= n
		case k.What == storage.RunCame:
			standing[k.Step] += n
		case k.Step != "":
			standing[k.Step] -= n
		}
	}
	for _, r := range c.runs {
		if r.Status == storage.RunWaiting {
			living--
			standing[r.Step]--
		}
	}
	require.Zero(c, living)
	for step, n := range standing {
		require.Zero(c, n, step)
	}
}

func TestRunsAndCountersOfJourneysFollowWhatHappenedThroughMergesErasuresAndCleaning(t *testing.T) {
	db := storagetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		c := &runsCase{T: rt, t: t, db: db, at: noon, runs: map[string]*storage.JourneyRun{}, counts: map[storage.JourneyCount]int64{}, took: map[storage.JourneyCount]time.Duration{}, logs: map[string][]storage.JourneyLogLine{}, effects: map[string]int64{}}
		for i := range 4 {
			c.contacts = append(c.contacts, uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)).String())
		}
		_, err := storagetest.SQL(db).Exec(t.Context(), `TRUNCATE journey_runs, journey_counters`)
		require.NoError(rt, err)
		steps := map[string]func(){"batch": c.batch, "merge": c.merge, "erase": c.erase, "clean": c.clean}
		names := append(slices.Sorted(maps.Keys(steps)), "batch", "batch", "batch")
		for _, step := range rapid.SliceOfN(rapid.SampledFrom(names), 1, 8).Draw(rt, "steps") {
			steps[step]()
			c.check()
		}
	})
}

func TestAVersionOfAJourneyIsKeptAsLongAsARunMayNeedIt(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	keep := func(versions ...string) (kept []string) {
		var inUse []storage.JourneyVersion
		for _, v := range versions {
			inUse = append(inUse, storage.JourneyVersion{JourneyID: "cart", Version: v, Definition: "{" + v + "}"})
		}
		require.NoError(t, db.InBatch(t.Context(), func(tx *storage.Tx) error {
			all, _, err := tx.KeepJourneyVersions(t.Context(), inUse)
			for _, v := range all {
				kept = append(kept, v.Version)
				require.Equal(t, "{"+v.Version+"}", v.Definition)
			}
			return err
		}))
		return kept
	}
	run := uuid.NewString()
	change := func(kind string) {
		require.NoError(t, db.InBatch(t.Context(), func(tx *storage.Tx) error {
			return tx.SaveJourneyChanges(t.Context(), []storage.JourneyChange{{
				Kind: kind, At: noon, EnteredAt: noon, Since: noon, ContactID: run, JourneyID: "cart", Version: "1", RunID: run, Step: "one", Entry: 1,
			}}, nil, nil)
		}))
	}
	drop := func() (left []string) {
		_, err := db.DropJourneyVersions(t.Context(), time.Now().Add(time.Hour))
		require.NoError(t, err)
		all, err := db.JourneyVersions(t.Context())
		require.NoError(t, err)
		for _, v := range all {
			left = append(left, fmt.Sprint(v.Version, " live ", v.Live, " in use ", v.Superseded.IsZero()))
		}
		return left
	}
	require.Equal(t, []string{"1"}, keep("1"))
	require.NoError(t, db.InBatch(t.Context(), func(tx *storage.Tx) error {
		_, changed, err := tx.KeepJourneyVersions(t.Context(), []storage.JourneyVersion{{JourneyID: "cart", Version: "1", Definition: "{1}"}})
		require.False(t, changed)
		return err
	}))
	change(storage.RunStarted)
	require.Equal(t, []string{"1", "2"}, keep("2"))
	require.Equal(t, []string{"2 live 0 in use true", "1 live 1 in use false"}, drop())
	change(storage.RunFailed)
	require.Len(t, drop(), 2, "it may be tried again")
	change(storage.RunRetried)
	change(storage.RunCompleted)
	require.Equal(t, []string{"2 live 0 in use true"}, drop())
	require.Equal(t, []string{"1", "2"}, keep("1"), "it comes back")
	require.Equal(t, []string{"1", "2"}, keep(), "all are removed, and nobody has run in them")
	require.Empty(t, drop())
}

// What is no part of a version, such as what becomes of runs when the journey is removed, is
// kept as it was defined last.
func TestAVersionOfAJourneyIsKeptAsItWasDefinedLast(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	keep := func(definitions ...string) (kept []string, changed bool) {
		inUse := make([]storage.JourneyVersion, len(definitions))
		for i, text := range definitions {
			inUse[i] = storage.JourneyVersion{JourneyID: "cart", Version: "1", Definition: text}
		}
		require.NoError(t, db.InBatch(t.Context(), func(tx *storage.Tx) error {
			all, is, err := tx.KeepJourneyVersions(t.Context(), inUse)
			changed = is
			for i := range all {
				kept = append(kept, all[i].Definition)
			}
			return err
		}))
		return kept, changed
	}
	for _, step := range []struct {
		inUse, kept string
		changed     bool
	}{{"finish", "finish", true}, {"exit", "exit", true}, {"exit", "exit", false}} {
		kept, changed := keep(step.inUse)
		require.Equal(t, []string{step.kept}, kept)
		require.Equal(t, step.changed, changed)
	}
	kept, _ := keep()
	require.Equal(t, []string{"exit"}, kept, "it was removed")
}

// A page in the middle of many runs reads about as many rows as it has.
func TestAPageOfRunsIsReadFromTheIndex(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	sql := storagetest.SQL(db)
	_, err := sql.Exec(t.Context(), `
INSERT INTO journey_runs (run_id, contact_id, journey_id, version, entry, status, node, node_since, entered_at, ended_at, trigger_id)
SELECT gen_random_uuid(), gen_random_uuid(), 'cart', '1', 1, CASE n % 3 WHEN 0 THEN 'waiting' WHEN 1 THEN 'completed' ELSE 'exited' END, 'one', $1, $1::timestamptz + n * interval '1 second', NULL, ''
FROM generate_series(1, 20000) AS n`, noon)
	require.NoError(t, err)
	_, err = sql.Exec(t.Context(), `ANALYZE journey_runs`)
	require.NoError(t, err)
	var plan string
	page, args := storage.JourneyRunsPage(storage.JourneyRunFilter{JourneyID: "cart"}, 50, noon.Add(10000*time.Second), uuid.NewString())
	require.NoError(t, sql.QueryRow(t.Context(), "EXPLAIN (ANALYZE, FORMAT JSON) "+page, args...).Scan(&plan))
	read := 0
	for _, m := range regexp.MustCompile(`"Actual Rows": (\d+)[^{}]*?"Index Name": "journey_runs_journey_idx"|"Index Name": "journey_runs_journey_idx"[^{}]*?"Actual Rows": (\d+)`).FindAllStringSubmatch(plan, -1) {
		n, err := strconv.Atoi(m[1] + m[2])
		require.NoError(t, err)
		read += n
	}
	require.NotZero(t, read, plan)
	require.LessOrEqual(t, read, 4*50, plan)
}

// A run that goes on and on keeps the beginning of its log, and says so of nothing else.
func TestTheLogOfARunIsBounded(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	run := uuid.NewString()
	for n := range 20 {
		var changes []storage.JourneyChange
		for i := range 50 {
			kind := storage.RunStepped
			if n+i == 0 {
				kind = storage.RunStarted
			}
			changes = append(changes, storage.JourneyChange{
				Kind: kind, At: noon, EnteredAt: noon, Since: noon, ContactID: run, JourneyID: "cart", Version: "1", RunID: run, Entry: 1,
				Step: "a", Next: "a", Outcome: "it \"goes\"\ton", Error: strings.Repeat("é", 300),
			})
		}
		require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.SaveJourneyChanges(t.Context(), changes, nil, nil) }))
	}
	log, err := db.JourneyLog(t.Context(), run)
	require.NoError(t, err)
	require.Greater(t, len(log), 50)
	require.Less(t, len(log), 200)
	require.Equal(t, "it \"goes\"\ton", log[1].Detail)
	require.Equal(t, strings.Repeat("é", 100)+"…", log[1].Error)
}
