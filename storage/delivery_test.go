package storage_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestWhoMayTakeALease(t *testing.T) {
	const us, them = "id of this instance", "id of another"
	read := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	for name, c := range map[string]struct {
		holder, by string
		left       time.Duration // until it runs out
		may        bool
	}{
		"anybody, once it has run out":                            {them, us, -time.Microsecond, true},
		"anybody, at the very moment when it runs out":            {them, us, 0, true},
		"anybody without proof, once it has run out":              {them, "", 0, true},
		"nobody else, before it runs out":                         {them, us, time.Microsecond, false},
		"nobody without proof, before it runs out":                {them, "", time.Hour, false},
		"the instance whose dead process had it":                  {us, us, time.Hour, true},
		"not an instance without proof, of a holder without":      {"", "", time.Hour, false},
		"not an instance with proof, of a holder without":         {"", us, time.Hour, false},
		"a process that may have it itself names no instance: no": {us, "", time.Hour, false},
	} {
		row := storage.LeaseRow{Holder: storage.Holder{Name: "one name", InstanceID: c.holder}, ReadAt: read, ExpiresAt: read.Add(c.left)}
		require.Equal(t, c.may, row.MayTake(c.by), name)
	}
	require.True(t, storage.LeaseRow{}.MayTake(""), "a lease that nobody ever had")
}

func TestALeaseIsHeldByOneUntilItIsReleasedOrHasRunOut(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	acquire := func(holder string, lasts time.Duration) []storage.Lease {
		leases, err := db.AcquireLeases(ctx, storage.Holder{Name: holder, InstanceID: holder}, []int32{1, 2}, lasts)
		require.NoError(t, err)
		return leases
	}
	first := acquire("a", time.Hour)
	require.Len(t, first, 2)
	require.Empty(t, acquire("b", time.Hour), "another's is not taken")
	require.Empty(t, acquire("a", time.Hour), "nor one's own: it may be this process that has it")

	require.NoError(t, db.ReleaseLeases(ctx, first[:1]))
	renewed, err := db.RenewLeases(ctx, first, 0)
	require.NoError(t, err)
	require.Equal(t, []int32{first[1].Partition}, renewed, "a released lease is not revived")
	require.Len(t, acquire("b", time.Hour), 2, "one was released, the other has run out")
}

func TestAnInstanceThatIsBackTakesItsLeasesAndNoOthers(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	acquire := func(by storage.Holder, partition int32) {
		leases, err := db.AcquireLeases(ctx, by, []int32{partition}, time.Hour)
		require.NoError(t, err)
		require.Len(t, leases, 1)
	}
	back := func(by storage.Holder) []int32 {
		leases, err := db.TakeBackLeases(ctx, by, time.Hour)
		require.NoError(t, err)
		var partitions []int32
		for _, l := range leases {
			partitions = append(partitions, l.Partition)
		}
		return partitions
	}
	us := storage.Holder{Name: "one", InstanceID: "us"}
	acquire(us, 1)
	acquire(storage.Holder{Name: "one", InstanceID: "a copy of the directory"}, 2)
	acquire(storage.Holder{Name: "one"}, 3)
	require.Empty(t, back(storage.Holder{Name: "one"}), "a name proves nothing")
	require.Empty(t, back(storage.Holder{Name: "one", InstanceID: "other"}))
	require.Equal(t, []int32{1}, back(us))
	require.Equal(t, []int32{1}, back(us), "also when kills follow each other")
}

func TestALeaseThatIsTakenBackLeavesItsFormerTokenVoid(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	us := storage.Holder{Name: "one", InstanceID: "us"}
	dead, err := db.AcquireLeases(ctx, us, []int32{1}, time.Hour)
	require.NoError(t, err)
	now, err := db.TakeBackLeases(ctx, us, time.Hour)
	require.NoError(t, err)
	require.Len(t, now, 1)
	require.NotEqual(t, dead, now)
	renewed, err := db.RenewLeases(ctx, dead, time.Hour)
	require.NoError(t, err)
	require.Empty(t, renewed)
}

func TestTheLeaseOfAWriterCannotBeTakenBeforeItsTransactionEnds(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	held, err := db.AcquireLeases(ctx, storage.Holder{Name: "a"}, []int32{1}, 0)
	require.NoError(t, err)
	taken := make(chan error, 1)
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		valid, err := tx.HoldLeases(ctx, held)
		require.NoError(t, err)
		require.Equal(t, []int32{1}, valid)
		go func() {
			_, err := db.AcquireLeases(ctx, storage.Holder{Name: "b"}, []int32{1}, time.Hour)
			taken <- err
		}()
		awaitTakers(t, db, 1)
		require.Empty(t, taken)
		return nil
	}))
	require.NoError(t, <-taken)
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		valid, err := tx.HoldLeases(ctx, held)
		require.Empty(t, valid)
		return err
	}))
}

// Both have read that it has run out.
func TestALeaseThatTwoFindFreeIsTakenByOne(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	held, err := db.AcquireLeases(ctx, storage.Holder{Name: "a"}, []int32{1}, 0)
	require.NoError(t, err)
	got := make(chan int, 2)
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		_, err := tx.HoldLeases(ctx, held)
		require.NoError(t, err)
		for _, name := range []string{"b", "c"} {
			go func() {
				leases, err := db.AcquireLeases(ctx, storage.Holder{Name: name}, []int32{1}, time.Hour)
				assert.NoError(t, err)
				got <- len(leases)
			}()
		}
		awaitTakers(t, db, 2)
		return nil
	}))
	require.Equal(t, 1, <-got+<-got)
}

// awaitTakers waits until so many have read that a lease is free and wait for its row.
func awaitTakers(t *testing.T, db *storage.DB, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		var waiting int
		require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO leases%'`).Scan(&waiting))
		return waiting >= n
	}, 10*time.Second, 5*time.Millisecond)
}

func TestAFlushOfAnEpochBeforeARewindIsRefused(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	id := uuid.NewString()
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, 'crm', 'webhook', '{*}')`, id)
	require.NoError(t, err)
	require.NoError(t, db.CreateCursors(ctx, id, []storage.CursorStart{{Topic: "lifecycle", Partition: 0, Offset: 7}, {Topic: "lifecycle", Partition: 1, Offset: 9}}))
	read, err := db.DestinationCursors(ctx, id)
	require.NoError(t, err)
	require.Len(t, read, 2)

	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		return tx.RewindCursors(ctx, id, []storage.CursorStart{{Topic: "lifecycle", Partition: 0, Offset: 3}})
	}))
	for i := range read {
		read[i].Position += 100
		read[i].Finished = []byte{1, 1}
	}
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		saved, err := tx.SaveCursors(ctx, read)
		require.Equal(t, 1, saved, "the one that was not rewound")
		return err
	}))
	now, err := db.LoadCursors(ctx, []int32{0, 1})
	require.NoError(t, err)
	require.EqualValues(t, 3, now[0].Position)
	require.Empty(t, now[0].Finished)
	require.EqualValues(t, 2, now[0].Epoch)
	require.EqualValues(t, 109, now[1].Position)
}

// Several processes that start at once make the same days. The one that waited
// looked at what it knew from before it waited, and logged an error for each day.
func TestManyMakeTheSameDaysOfTheDeliveryLogAtOnce(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	day := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	for round := range 5 {
		var all errgroup.Group
		for range 6 {
			all.Go(func() error { return db.PrepareAttempts(t.Context(), day.AddDate(0, 0, 3*round), 2) })
		}
		require.NoError(t, all.Wait())
	}
}

func TestTheDeliveryLogHasAPartitionForEachDayAndDropsOldOnes(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	day := time.Date(2026, 3, 10, 15, 0, 0, 0, time.UTC)
	for range 2 { // may be called again
		require.NoError(t, db.PrepareAttempts(ctx, day, 2))
	}
	attempt := storage.Attempt{At: day, DestinationID: uuid.NewString(), RecordID: "r", RecordType: "contact.created", RecordKey: "k",
		Topic: "lifecycle", Partition: 1, Offset: 2, Attempt: 1, Outcome: "delivered", Status: 200, Latency: 3 * time.Millisecond, Response: []byte{0, 1}}
	later := attempt
	later.At, later.ReplayID, later.Status, later.Error = day.AddDate(0, 0, 1), uuid.NewString(), 0, "reset"
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error { return tx.WriteAttempts(ctx, []storage.Attempt{attempt, later}) }))
	count := func(table string) (n int) {
		require.NoError(t, storagetest.SQL(db).QueryRow(ctx, `SELECT count(*) FROM `+table).Scan(&n))
		return n
	}
	require.Equal(t, 1, count("delivery_attempts_20260310"))
	require.Equal(t, 1, count("delivery_attempts_20260311"))
	dropped, err := db.DropAttempts(ctx, day.AddDate(0, 0, 1))
	require.NoError(t, err)
	require.Equal(t, 1, dropped)
	require.Equal(t, 1, count("delivery_attempts"))
}

func TestADayWhoseAttemptsAreInTheDefaultPartitionGetsOneOfItsOwnLater(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	day := time.Date(2026, 3, 10, 15, 0, 0, 0, time.UTC)
	write := func(at time.Time) {
		attempt := storage.Attempt{At: at, DestinationID: uuid.NewString(), RecordID: "r", RecordType: "contact.created", RecordKey: "k",
			Topic: "lifecycle", Partition: 1, Offset: 2, Attempt: 1, Outcome: "delivered", Status: 200}
		require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error { return tx.WriteAttempts(ctx, []storage.Attempt{attempt}) }))
	}
	rows := func(table string) int { return count(t, db, table) }
	// Nobody made the days: a laptop slept, or only the API ran.
	for _, at := range []time.Time{day.AddDate(0, 0, -40), day, day.AddDate(0, 0, 1)} {
		write(at)
	}
	require.Equal(t, 3, rows("delivery_attempts_default"))

	require.NoError(t, db.PrepareAttempts(ctx, day, 2))
	require.Equal(t, 1, rows("delivery_attempts_20260310"))
	require.Equal(t, 1, rows("delivery_attempts_20260311"))
	require.Equal(t, 0, rows("delivery_attempts_20260312"))
	require.Equal(t, 1, rows("delivery_attempts_default"))
	write(day)
	require.Equal(t, 2, rows("delivery_attempts_20260310"))

	_, err := db.DropAttempts(ctx, day.AddDate(0, 0, -30))
	require.NoError(t, err)
	require.Equal(t, 0, rows("delivery_attempts_default"), "what is older than the retention")
	require.Equal(t, 3, rows("delivery_attempts"))
	var indexes int
	require.NoError(t, storagetest.SQL(db).QueryRow(ctx, `SELECT count(*) FROM pg_indexes WHERE schemaname = current_schema() AND tablename = 'delivery_attempts_20260310'`).Scan(&indexes))
	require.Equal(t, 1, indexes)
}

func TestARewindRemovesParkedRecordsAtOrBeyondItsTargetAndRefusesThoseOfItsPast(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	id := uuid.NewString()
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, 'crm', 'webhook', '{*}')`, id)
	require.NoError(t, err)
	require.NoError(t, db.CreateCursors(ctx, id, []storage.CursorStart{{Topic: "lifecycle", Offset: 10}, {Topic: "events", Offset: 10}}))
	row := func(key, topic string, offset int64) storage.ParkedRecord {
		return storage.ParkedRecord{ParkedTrack: storage.ParkedTrack{DestinationID: id, ReplayID: storage.LiveReplay}, Key: key, Topic: topic, Offset: offset, Epoch: 1}
	}
	park := func(rows ...storage.ParkedRecord) {
		require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error { return tx.ParkRecords(ctx, rows) }))
	}
	count := func() int {
		_, records, err := db.ParkedTotals(ctx, id)
		require.NoError(t, err)
		return records
	}
	park(row("a", "lifecycle", 5), row("a", "lifecycle", 9), row("b", "lifecycle", 9), row("a", "events", 9))
	park(row("a", "lifecycle", 5)) // a flush whose outcome was unknown
	require.Equal(t, 4, count())
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		return tx.RewindCursors(ctx, id, []storage.CursorStart{{Topic: "lifecycle", Offset: 7}})
	}))
	keys, _, err := db.ParkedKeys(ctx, id, storage.ParkedFilter{}, "", 10)
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.Equal(t, "a", keys[0].Key)
	_, records, err := db.InspectParkedKey(ctx, id, "a", 10)
	require.NoError(t, err)
	require.Len(t, records, 2)
	require.Equal(t, []int64{5, 9}, []int64{records[0].Offset, records[1].Offset}, "lifecycle, then events")
	park(row("c", "lifecycle", 12))
	require.Equal(t, 2, count(), "read before the rewind")
	current := row("c", "lifecycle", 12)
	current.Epoch = 2
	park(current)
	require.Equal(t, 3, count())
}

// What the owner finishes after a rewind forward of what it had begun before is not
// left out; what it parks is.
func TestARewindForwardKeepsWhatIsOpenBeforeItsTargetAndTheOwnerTakesOutWhatItStillFinishes(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	id := uuid.NewString()
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, 'crm', 'webhook', '{contact.*}')`, id)
	require.NoError(t, err)
	require.NoError(t, db.CreateCursors(ctx, id, []storage.CursorStart{{Topic: "lifecycle", Offset: 10}, {Topic: "events", Offset: 10}}))
	row := func(key, topic string, offset int64) storage.ParkedRecord {
		return storage.ParkedRecord{ParkedTrack: storage.ParkedTrack{DestinationID: id, ReplayID: storage.LiveReplay}, Key: key, Topic: topic, Offset: offset, Epoch: 1}
	}
	in := func(do func(*storage.Tx) error) { t.Helper(); require.NoError(t, db.InTx(ctx, do)) }
	in(func(tx *storage.Tx) error {
		return tx.ParkRecords(ctx, []storage.ParkedRecord{row("a", "lifecycle", 5), row("b", "lifecycle", 6), row("a", "events", 5), row("c", "lifecycle", 25)})
	})
	to := []storage.CursorStart{{Topic: "lifecycle", Offset: 20}}
	n, err := db.CountSkipped(ctx, id, to)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	in(func(tx *storage.Tx) error { return tx.RewindCursors(ctx, id, to) })
	in(func(tx *storage.Tx) error {
		saved, err := tx.SaveCursors(ctx, []storage.Cursor{{DestinationID: id, ReplayID: storage.LiveReplay, Topic: "lifecycle", Position: 12, Finished: []byte{1, 1}, Epoch: 1}})
		require.Zero(t, saved, "the live cursor stays")
		return err
	})
	in(func(tx *storage.Tx) error {
		return tx.ParkRecords(ctx, []storage.ParkedRecord{row("d", "lifecycle", 15), row("d", "lifecycle", 21)})
	})
	in(func(tx *storage.Tx) error {
		return tx.RemoveParkedRecords(ctx, []storage.ParkedRecord{row("b", "lifecycle", 6)})
	})

	skips, err := db.LoadSkips(ctx, []int32{0})
	require.NoError(t, err)
	require.Len(t, skips, 1)
	k := skips[0]
	require.Equal(t, storage.Skip{ID: k.ID, DestinationID: id, Destination: "crm", Topic: "lifecycle", Epoch: 1, Position: 12, Finished: []byte{1, 1},
		EndOffset: 20, EventTypes: []string{"contact.*"}}, k)
	parked, err := db.SkippedParked(ctx, &k, 10, 1<<20)
	require.NoError(t, err)
	var places []string
	for _, r := range parked {
		places = append(places, fmt.Sprintf("%s %d", r.Key, r.Offset))
	}
	require.Equal(t, []string{"a 5", "d 15"}, places, "one was delivered after all, and one lies beyond the target")
	keys, _, err := db.ParkedKeys(ctx, id, storage.ParkedFilter{}, "", 10)
	require.NoError(t, err)
	require.Len(t, keys, 1, "of the other topic; the rest is read again from the log")

	in(func(tx *storage.Tx) error { return tx.EndSkip(ctx, k.ID) })
	ended, err := db.GetSkip(ctx, k.ID)
	require.NoError(t, err)
	require.Nil(t, ended)
}

func TestAWishForManyParkedKeysIsNotedInPartsAndConcernsEachKeyOnce(t *testing.T) {
	ctx := t.Context()
	db := storagetest.New(t)
	id := uuid.NewString()
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1::text::uuid, 'crm', 'webhook', '{*}')`, id)
	require.NoError(t, err)
	_, err = storagetest.SQL(db).Exec(ctx, `INSERT INTO parked_keys (destination_id, partition, record_key, reason, next_attempt_at)
		SELECT $1::text::uuid, n % 3, n::text, 'failing', 'infinity' FROM generate_series(1, 12000) n`, id)
	require.NoError(t, err)
	n, next, err := db.WishParked(ctx, storage.SkipParked, id, storage.ParkedFilter{}, "")
	require.NoError(t, err)
	require.Equal(t, 5000, n)
	require.NotEmpty(t, next)
	total := 0
	for cursor, more := "", true; more; more = cursor != "" {
		n, cursor, err = db.WishParked(ctx, storage.RetryParked, id, storage.ParkedFilter{}, cursor)
		require.NoError(t, err)
		total += n
	}
	require.Equal(t, 12000, total)
	var due, skipped int
	require.NoError(t, storagetest.SQL(db).QueryRow(ctx, `SELECT count(*) FILTER (WHERE next_attempt_at = 'epoch'), count(skip_before) FROM parked_keys`).Scan(&due, &skipped))
	require.Equal(t, 12000, due)
	require.Equal(t, 5000, skipped)
	_, _, err = db.WishParked(ctx, storage.RetryParked, id, storage.ParkedFilter{}, "nonsense")
	require.ErrorIs(t, err, storage.ErrListCursor)
}

func TestWhatIsParkedOfATopicGoesWithItsCursors(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	id := uuid.NewString()
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, 'crm', 'webhook', '{*}')`, id)
	require.NoError(t, err)
	require.NoError(t, db.CreateCursors(ctx, id, []storage.CursorStart{{Topic: "lifecycle"}, {Topic: "events"}}))
	row := func(key, topic string) storage.ParkedRecord {
		return storage.ParkedRecord{ParkedTrack: storage.ParkedTrack{DestinationID: id, ReplayID: storage.LiveReplay}, Key: key, Topic: topic, RecordID: "r", RecordType: "t", Epoch: 1}
	}
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		return tx.ParkRecords(ctx, []storage.ParkedRecord{row("a", "lifecycle"), row("a", "events"), row("b", "events")})
	}))
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error { return tx.DeleteCursors(ctx, id, "events") }))
	require.Equal(t, 1, count(t, db, "cursors"))
	require.Equal(t, 1, count(t, db, "parked_records"))
	require.Equal(t, 1, count(t, db, "parked_keys"))
}

func TestASearchOfTheDeliveryLogFromATimeOnLeavesOutTheDaysBefore(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	now := time.Now()
	require.NoError(t, db.PrepareAttempts(t.Context(), now.AddDate(0, 0, -9), 9))
	days := func(f storage.AttemptFilter) int {
		sql, args, err := storage.SearchAttemptsSQL(uuid.NewString(), f, "", 100)
		require.NoError(t, err)
		var plan string
		require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+sql, args...).Scan(&plan))
		return strings.Count(plan, `"Relation Name": "delivery_attempts_2`)
	}
	place := storage.AttemptFilter{Topic: "lifecycle", Partition: 1, Offset: 7}
	require.Equal(t, 10, days(place))
	place.From = now.Add(-time.Hour).Truncate(24 * time.Hour)
	require.LessOrEqual(t, days(place), 2)
}

func TestTheLastAttemptOfARecordIsFoundWithoutReadingTheLogOfTheDaysBeforeItWasAppended(t *testing.T) {
	t.Parallel()
	db, ctx := storagetest.New(t), t.Context()
	now := time.Now().UTC().Truncate(24 * time.Hour).Add(12 * time.Hour)
	require.NoError(t, db.PrepareAttempts(ctx, now.AddDate(0, 0, -9), 9))
	id := uuid.NewString()
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO delivery_attempts (attempted_at, destination_id, record_id, record_type, record_key, topic, partition, "offset", attempt, outcome, latency_ms)
		SELECT $2::timestamptz - n * interval '1 minute', $1::text::uuid, n::text, 'contact.created', 'k', 'lifecycle', 1, n, 1, 'delivered', 1
		FROM generate_series(1, 10000) n`, id, now)
	require.NoError(t, err)
	_, err = storagetest.SQL(db).Exec(ctx, `ANALYZE delivery_attempts`)
	require.NoError(t, err)
	place := storage.AttemptPlace{Topic: "lifecycle", Partition: 1, Offset: 30}
	n, err := db.LastAttempt(ctx, id, place, now.Add(-2*time.Hour))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = db.LastAttempt(ctx, id, storage.AttemptPlace{Topic: "lifecycle", Partition: 1, Offset: 9999}, now.Add(-2*time.Hour))
	require.NoError(t, err)
	require.Zero(t, n)

	var plan string
	require.NoError(t, storagetest.SQL(db).QueryRow(ctx, "EXPLAIN (ANALYZE, FORMAT JSON) "+storage.LastAttemptSQL, id, place.Topic, place.Partition, int64(9999), now.Add(-2*time.Hour)).Scan(&plan))
	removed := 0
	for _, m := range regexp.MustCompile(`"Rows Removed by Filter": (\d+)`).FindAllStringSubmatch(plan, -1) {
		rows, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		removed += rows
	}
	require.LessOrEqual(t, removed, 120, plan)
	require.NotContains(t, plan, "delivery_attempts_"+now.AddDate(0, 0, -1).Format("20060102"), "of the days before nothing is read")
}

func TestARateThatIsNearlyNoneIsLeasedAsTheLeast(t *testing.T) {
	t.Parallel()
	db, ctx := storagetest.New(t), t.Context()
	id := uuid.NewString()
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1::text::uuid, 'crm', 'webhook', '{*}')`, id)
	require.NoError(t, err)
	first, err := db.LeaseRate(ctx, id, 1e-300, 1)
	require.NoError(t, err)
	require.False(t, first.Start.After(first.Now))
	second, err := db.LeaseRate(ctx, id, 1e-300, 1)
	require.NoError(t, err)
	require.Equal(t, first.Start.Add(1000*time.Second), second.Start)
}

func TestTheDeliveryLogIsNarrowedByTypeAsEverywhere(t *testing.T) {
	t.Parallel()
	db, ctx := storagetest.New(t), t.Context()
	id, now := uuid.NewString(), time.Now()
	types := []string{"contact.created", "event.tracked", "event.tracked:order.paid", "event.trackedly"}
	var rows []storage.Attempt
	for i, typ := range types {
		rows = append(rows, storage.Attempt{At: now, DestinationID: id, RecordID: typ, RecordType: typ, RecordKey: "k", Topic: "events", Offset: int64(i), Attempt: 1, Outcome: "delivered"})
	}
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error { return tx.WriteAttempts(ctx, rows) }))
	for _, pattern := range []string{"", "*", "contact.*", "event.tracked", "event.tracked:*", "event.tracked:order.paid", "x"} {
		found, _, err := db.SearchAttempts(ctx, id, storage.AttemptFilter{Type: pattern, Outcome: "delivered"}, "", 10)
		require.NoError(t, err, pattern)
		var got, want []string
		for _, a := range found {
			got = append(got, a.RecordType)
		}
		for _, typ := range types {
			if schemas.ParseTypePattern(pattern).Matches(typ) {
				want = append(want, typ)
			}
		}
		require.ElementsMatch(t, want, got, pattern)
	}
}
