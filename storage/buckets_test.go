package storage_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// membersModel is a plain list of joins, changed one transition after the other.
type membersModel struct{ rows []storage.BucketMember }

func (m *membersModel) apply(tr storage.BucketTransition) {
	i := slices.IndexFunc(m.rows, func(r storage.BucketMember) bool {
		return r.BucketID == tr.BucketID && r.ContactID == tr.ContactID && r.Epoch == tr.Epoch
	})
	switch {
	case tr.Entered && i < 0:
		m.rows = append(m.rows, storage.BucketMember{
			BucketID: tr.BucketID, ContactID: tr.ContactID, Epoch: tr.Epoch, UserID: tr.ContactID, EnteredAt: tr.At, Source: tr.Source, Until: tr.Until, MaxDwellAt: tr.MaxDwellAt,
		})
	case tr.Entered, i < 0 || !m.rows[i].LeftAt.IsZero():
	case tr.Kept:
		m.rows[i].Until, m.rows[i].MaxDwellAt = tr.Until, tr.MaxDwellAt
	default:
		m.rows[i].LeftAt, m.rows[i].Reason = tr.At, tr.Reason
	}
}

func (m *membersModel) forget(contacts ...string) {
	m.rows = slices.DeleteFunc(m.rows, func(r storage.BucketMember) bool { return slices.Contains(contacts, r.ContactID) })
}

// of are its rows of a bucket, the newest joins first.
func (m *membersModel) of(bucket string, left bool) (found []storage.BucketMember) {
	for _, r := range m.rows {
		if r.BucketID == bucket && r.LeftAt.IsZero() != left {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b storage.BucketMember) int {
		return cmp.Or(b.EnteredAt.Compare(a.EnteredAt), cmp.Compare(b.ContactID, a.ContactID), cmp.Compare(b.Epoch, a.Epoch))
	})
	return found
}

func (m *membersModel) counts(bucket string, now time.Time) storage.BucketCounts {
	c := storage.BucketCounts{BucketID: bucket}
	var dwelt time.Duration
	for _, r := range m.rows {
		switch {
		case r.BucketID != bucket:
			continue
		case r.LeftAt.IsZero():
			c.Active++
			dwelt += now.Sub(r.EnteredAt)
		default:
			c.Left++
			dwelt += r.LeftAt.Sub(r.EnteredAt)
		}
		if c.Entered++; c.Entered > 0 {
			c.Dwell = dwelt / time.Duration(c.Entered)
		}
	}
	return c
}

func (m *membersModel) points(bucket string, first func(time.Time) time.Time) (found []storage.BucketPoint) {
	points := map[time.Time]storage.BucketPoint{}
	add := func(at time.Time, entered, left int64) {
		p := points[first(at)]
		points[first(at)] = storage.BucketPoint{Date: first(at), Entered: p.Entered + entered, Left: p.Left + left}
	}
	for _, r := range m.rows {
		if r.BucketID != bucket {
			continue
		}
		add(r.EnteredAt, 1, 0)
		if !r.LeftAt.IsZero() {
			add(r.LeftAt, 0, 1)
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(points), time.Time.Compare) {
		found = append(found, points[at])
	}
	return found
}

var periods = map[string]func(time.Time) time.Time{
	"day":   func(t time.Time) time.Time { return t.Truncate(24 * time.Hour) },
	"month": func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC) },
	"week": func(t time.Time) time.Time {
		day := t.Truncate(24 * time.Hour)
		return day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
	},
}

// bucketsCase draws transitions and follows them in the database and in the model.
type bucketsCase struct {
	*rapid.T
	t        *testing.T
	db       *storage.DB
	model    membersModel
	buckets  []string
	contacts []string
	epochs   map[[2]string]int64 // of the last join
	at       time.Time
	before   []storage.BucketTransition // the last batch
}

func (c *bucketsCase) partition(contact string) int32 { return int32(contact[0] % 3) }

// transition is a plausible next one: a join of who is none, a leave or a new end of a member;
// or a leave that nobody joined for.
func (c *bucketsCase) transition(contact string) storage.BucketTransition {
	bucket := rapid.SampledFrom(c.buckets).Draw(c.T, "bucket")
	place := [2]string{bucket, contact}
	c.at = c.at.Add(time.Duration(rapid.Int64Range(0, int64(20*24*time.Hour/time.Microsecond)).Draw(c.T, "after")) * time.Microsecond)
	tr := storage.BucketTransition{ContactID: contact, Partition: c.partition(contact), BucketID: bucket, At: c.at, Source: "event", Reason: "criteria"}
	kind := rapid.SampledFrom([]string{"entered", "left", "kept"}).Draw(c.T, "kind")
	tr.Entered, tr.Kept = kind == "entered", kind == "kept"
	if rapid.Bool().Draw(c.T, "until") {
		tr.Until, tr.MaxDwellAt = c.at.Add(time.Hour), c.at.Add(time.Minute)
	}
	if tr.Entered && rapid.IntRange(0, 3).Draw(c.T, "again") > 0 {
		c.epochs[place]++
	}
	tr.Epoch = max(1, c.epochs[place])
	return tr
}

func (c *bucketsCase) save(transitions []storage.BucketTransition, forget ...string) {
	require.NoError(c, c.db.InBatch(c.t.Context(), func(tx *storage.Tx) error { return tx.SaveBucketTransitions(c.t.Context(), transitions, forget) }))
	for _, tr := range transitions {
		c.model.apply(tr)
	}
	c.model.forget(forget...)
}

func (c *bucketsCase) batch() {
	c.before = nil
	for range rapid.IntRange(0, 12).Draw(c.T, "transitions") {
		c.before = append(c.before, c.transition(rapid.SampledFrom(c.contacts).Draw(c.T, "contact")))
	}
	// In one batch a join comes before what follows from it, and a leave is its end.
	begun, ended := map[string]bool{}, map[string]bool{}
	c.before = slices.DeleteFunc(c.before, func(tr storage.BucketTransition) bool {
		place := fmt.Sprint(tr.BucketID, tr.ContactID, tr.Epoch)
		if begun[place] && tr.Entered || ended[place] {
			return true
		}
		begun[place], ended[place] = true, !tr.Entered && !tr.Kept
		return false
	})
	c.save(c.before)
}

// erase forgets some contacts in the batch in which something else happens.
func (c *bucketsCase) erase() {
	gone := rapid.SliceOfNDistinct(rapid.SampledFrom(c.contacts), 1, 2, rapid.ID).Draw(c.T, "erased")
	c.save([]storage.BucketTransition{c.transition(rapid.SampledFrom(c.contacts).Draw(c.T, "contact"))}, gone...)
}

func (c *bucketsCase) purge() {
	bucket := rapid.SampledFrom(c.buckets).Draw(c.T, "bucket")
	limit := rapid.IntRange(1, 3).Draw(c.T, "limit")
	var gone []string
	for {
		var n int64
		var of []string
		require.NoError(c, c.db.InTx(c.t.Context(), func(tx *storage.Tx) (err error) {
			n, of, err = tx.PurgeBucket(c.t.Context(), bucket, limit)
			return err
		}))
		require.LessOrEqual(c, int64(len(of)), n)
		gone = append(gone, of...)
		require.LessOrEqual(c, n, int64(limit))
		if n == 0 {
			break
		}
	}
	c.model.rows = slices.DeleteFunc(c.model.rows, func(r storage.BucketMember) bool {
		if r.BucketID == bucket {
			require.Contains(c, gone, r.ContactID)
		}
		return r.BucketID == bucket
	})
	require.Zero(c, count(c.t, c.db, "bucket_counts WHERE bucket_id = '"+bucket+"'")+count(c.t, c.db, "bucket_days WHERE bucket_id = '"+bucket+"'"))
}

// check compares everything that can be read with the model.
func (c *bucketsCase) check() {
	ctx := c.t.Context()
	all, err := c.db.BucketCounts(ctx)
	require.NoError(c, err)
	for _, bucket := range c.buckets {
		now, err := c.db.Clock(ctx)
		require.NoError(c, err)
		want := c.model.counts(bucket, now)
		got, err := c.db.BucketCountsOf(ctx, bucket)
		require.NoError(c, err)
		require.InDelta(c, want.Dwell, got.Dwell, float64(time.Minute))
		want.Dwell, got.Dwell = 0, 0
		require.Equal(c, want, got)
		require.Equal(c, want.Active, all[bucket].Active)

		for _, left := range []bool{false, true} {
			want, f := c.model.of(bucket, left), storage.BucketMemberFilter{Left: left}
			n, err := c.db.CountBucketMembers(ctx, bucket, f)
			require.NoError(c, err)
			require.Len(c, want, n)
			listed, err := c.db.ListBucketMembers(ctx, bucket, f, 1000, 0)
			require.NoError(c, err)
			require.Equal(c, want, sameRows(listed))
			require.Equal(c, want, sameRows(c.walk(bucket, f)))
		}
		for period, first := range periods {
			points, err := c.db.BucketPoints(ctx, bucket, period, noon.AddDate(-1, 0, 0), noon.AddDate(30, 0, 0))
			require.NoError(c, err)
			require.Equal(c, c.model.points(bucket, first), sameRows(points), period)
		}
		for _, contact := range c.contacts {
			is, err := c.db.IsBucketMember(ctx, bucket, contact)
			require.NoError(c, err)
			latest := slices.MaxFunc(append(c.model.rows, storage.BucketMember{LeftAt: c.at}), func(a, b storage.BucketMember) int {
				rank := func(r storage.BucketMember) int64 {
					if r.BucketID != bucket || r.ContactID != contact {
						return 0
					}
					return r.Epoch
				}
				return cmp.Compare(rank(a), rank(b))
			})
			require.Equal(c, latest.LeftAt.IsZero() && latest.BucketID == bucket && latest.ContactID == contact, is)
		}
	}
}

// sameRows is a list as the model has it: nil when it is empty.
func sameRows[T any](rows []T) []T {
	if len(rows) == 0 {
		return nil
	}
	return rows
}

func (c *bucketsCase) walk(bucket string, f storage.BucketMemberFilter) (all []storage.BucketMember) {
	for cursor := ""; ; {
		page, next, err := c.db.WalkBucketMembers(c.t.Context(), bucket, f, 2, cursor)
		require.NoError(c, err)
		if all = append(all, page...); next == "" {
			return all
		}
		cursor = next
	}
}

func TestCountersOfBucketsEqualTheirRowsThroughTransitionsErasuresAndPurges(t *testing.T) {
	db := storagetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		c := &bucketsCase{T: rt, t: t, db: db, epochs: map[[2]string]int64{}, at: noon, buckets: []string{"a", "b:%", "ç"}}
		for i := range 4 {
			c.contacts = append(c.contacts, uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)).String())
		}
		_, err := storagetest.SQL(db).Exec(t.Context(), `TRUNCATE bucket_members, bucket_counts, bucket_days`)
		require.NoError(rt, err)
		again := func() { c.save(c.before) }
		steps := map[string]func(){"batch": c.batch, "batch again": again, "erase": c.erase, "purge": c.purge}
		names := append(slices.Sorted(maps.Keys(steps)), "batch", "batch")
		for _, step := range rapid.SliceOfN(rapid.SampledFrom(names), 1, 10).Draw(rt, "steps") {
			steps[step]()
			c.check()
		}
	})
}

func TestAJoinAndALeaveAndANewJoinInOneBatchAreThreeTransitions(t *testing.T) {
	t.Parallel()
	db, contact := storagetest.New(t), uuid.NewString()
	tr := func(epoch int64, entered bool, minutes int) storage.BucketTransition {
		return storage.BucketTransition{ContactID: contact, Partition: 1, BucketID: "b", Epoch: epoch, Entered: entered, At: noon.Add(time.Duration(minutes) * time.Minute), Source: "event", Reason: "criteria"}
	}
	require.NoError(t, db.InBatch(t.Context(), func(tx *storage.Tx) error {
		return tx.SaveBucketTransitions(t.Context(), []storage.BucketTransition{tr(1, true, 0), tr(1, false, 1), tr(2, true, 2)}, nil)
	}))
	memberships, err := db.BucketMemberships(t.Context(), contact, 10)
	require.NoError(t, err)
	require.Len(t, memberships, 2)
	require.Equal(t, []int64{2, 1}, []int64{memberships[0].Epoch, memberships[1].Epoch})
	require.Equal(t, noon.Add(time.Minute), memberships[1].LeftAt)
	counts, err := db.BucketCountsOf(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 1}, []int64{counts.Active, counts.Entered, counts.Left})
}

func TestTheBucketsOfManyContactsAreReadInOneStatement(t *testing.T) {
	t.Parallel()
	db, ann, bob := storagetest.New(t), uuid.NewString(), uuid.NewString()
	tr := func(contact, bucket string, epoch int64, entered bool) storage.BucketTransition {
		return storage.BucketTransition{ContactID: contact, BucketID: bucket, Epoch: epoch, Entered: entered, At: noon.Add(time.Duration(epoch) * time.Minute), Source: "event", Reason: "criteria"}
	}
	require.NoError(t, db.InBatch(t.Context(), func(tx *storage.Tx) error {
		return tx.SaveBucketTransitions(t.Context(), []storage.BucketTransition{
			tr(ann, "keen", 1, true), tr(ann, "keen", 1, false), tr(ann, "keen", 2, true), tr(ann, "new", 1, true), tr(ann, "other", 1, true),
			tr(bob, "keen", 1, true), tr(bob, "keen", 1, false),
		}, nil)
	}))
	of, err := db.BucketsOf(t.Context(), []string{ann, bob, uuid.NewString(), "no id"}, []string{"keen", "new"})
	require.NoError(t, err)
	require.Equal(t, map[string][]string{ann: {"keen", "new"}}, of)
}

func TestMembersAreReadInChunksAndOnceEachWhileOthersJoinAndLeave(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	join := func(n int, at time.Time) (made []storage.BucketTransition) {
		for range n {
			made = append(made, storage.BucketTransition{ContactID: uuid.NewString(), BucketID: "b", Epoch: 1, Entered: true, At: at, Source: "event"})
		}
		require.NoError(t, db.InBatch(t.Context(), func(tx *storage.Tx) error { return tx.SaveBucketTransitions(t.Context(), made, nil) }))
		return made
	}
	stay := map[string]bool{}
	for _, tr := range join(2500, noon) { // more than two chunks, of one time
		stay[tr.ContactID] = true
	}
	seen := map[string]int{}
	require.NoError(t, db.EachBucketMember(t.Context(), "b", func(m *storage.BucketMember) error {
		if seen[m.ContactID]++; len(seen)%500 == 0 {
			join(3, noon.Add(time.Hour))
		}
		return nil
	}))
	for contact, n := range seen {
		require.Equal(t, 1, n)
		delete(stay, contact)
	}
	require.Empty(t, stay)

	stopped := errors.New("the client hung up")
	require.ErrorIs(t, db.EachBucketMember(t.Context(), "b", func(*storage.BucketMember) error { return stopped }), stopped)
	_, _, err := db.WalkBucketMembers(t.Context(), "b", storage.BucketMemberFilter{}, 10, "bm9uc2Vuc2U")
	require.ErrorIs(t, err, storage.ErrListCursor)
}

func TestWhyTheNewestMembershipsBeganAndEndedIsKept(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	contact, at := uuid.NewString(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	save := func(tr storage.BucketTransition) {
		tr.ContactID, tr.BucketID, tr.At = contact, "keen", at.Add(time.Duration(tr.Epoch)*time.Hour)
		require.NoError(t, db.InBatch(t.Context(), func(tx *storage.Tx) error {
			return tx.SaveBucketTransitions(t.Context(), []storage.BucketTransition{tr}, nil)
		}))
	}
	for epoch := range int64(20) {
		save(storage.BucketTransition{Epoch: epoch + 1, Entered: true, Source: "event", Why: []byte{1, byte(epoch)}})
		save(storage.BucketTransition{Epoch: epoch + 1, Reason: "criteria", Why: []byte{2, byte(epoch)}})
	}
	whys, err := db.BucketWhys(t.Context(), "keen", contact, 100)
	require.NoError(t, err)
	require.Len(t, whys, 20)
	for i, w := range whys {
		epoch := int64(20 - i)
		require.Equal(t, epoch, w.Epoch)
		require.Equal(t, at.Add(time.Duration(epoch)*time.Hour), w.LeftAt)
		if i < 8 {
			require.Equal(t, []byte{1, byte(epoch - 1)}, w.Entered)
			require.Equal(t, []byte{2, byte(epoch - 1)}, w.Left)
		} else {
			require.Nil(t, w.Entered)
			require.Nil(t, w.Left)
		}
	}
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.SaveBucketTransitions(t.Context(), nil, []string{contact}) }))
	whys, err = db.BucketWhys(t.Context(), "keen", contact, 100)
	require.NoError(t, err)
	require.Empty(t, whys)
}
