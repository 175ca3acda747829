package storage_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

var noon = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

func storeEvent(t *testing.T, db *storage.DB, receivedAt time.Time, properties string) {
	t.Helper()
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		return tx.StoreEvents(t.Context(), []storage.StoredEvent{{
			ID: uuid.NewString(), ContactID: uuid.NewString(), Name: "x", Properties: properties,
			OccurredAt: receivedAt.AddDate(-3, 0, 0), ReceivedAt: receivedAt, Source: "test",
		}})
	}))
}

func count(t *testing.T, db *storage.DB, from string) int {
	t.Helper()
	var n int
	require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), "SELECT count(*) FROM "+from).Scan(&n))
	return n
}

func TestEventsLiveInPartitionsByDayOfReceipt(t *testing.T) {
	db := storagetest.New(t)
	for range 2 { // again does no harm
		require.NoError(t, db.CreateEventPartitions(t.Context(), noon, 2))
	}
	for day := range 3 {
		storeEvent(t, db, noon.AddDate(0, 0, day), `{}`)
	}
	storeEvent(t, db, noon.AddDate(0, 0, -5), `{}`) // before the first partition
	require.Equal(t, 1, count(t, db, "events_p20260311"))
	require.Equal(t, 1, count(t, db, "events_default"))

	dropped, err := db.DropEventPartitions(t.Context(), noon.AddDate(0, 0, 1))
	require.NoError(t, err)
	require.Equal(t, []string{"events_p20260310"}, dropped)
	n, err := db.CleanUnpartitionedEvents(t.Context(), noon, 100)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Equal(t, 2, count(t, db, "events"))
}

func TestADayWithEventsInTheDefaultPartitionIsLeftThere(t *testing.T) {
	db := storagetest.New(t)
	storeEvent(t, db, noon, `{}`)
	require.NoError(t, db.CreateEventPartitions(t.Context(), noon, 1))
	storeEvent(t, db, noon.AddDate(0, 0, 1), `{}`)
	require.Equal(t, 1, count(t, db, "events_p20260311"))
}

// A change of partitions locks the whole table, and whoever comes after it queues up
// behind it. While somebody reads for hours, as pg_dump does, that was everybody.
func TestALongReaderDoesNotHoldWritersUpBehindAChangeOfPartitions(t *testing.T) {
	old, today := noon.AddDate(0, 0, -9), noon
	for name, change := range map[string]func(*storage.DB) error{
		"a day of events is made":        func(db *storage.DB) error { return db.CreateEventPartitions(t.Context(), noon.AddDate(0, 0, 1), 0) },
		"a day of events is dropped":     func(db *storage.DB) error { _, err := db.DropEventPartitions(t.Context(), noon); return err },
		"a day of deliveries is made":    func(db *storage.DB) error { return db.PrepareAttempts(t.Context(), noon.AddDate(0, 0, 1), 0) },
		"a day of deliveries is dropped": func(db *storage.DB) error { _, err := db.DropAttempts(t.Context(), noon); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := storagetest.New(t)
			for _, day := range []time.Time{old, today} {
				require.NoError(t, db.CreateEventPartitions(t.Context(), day, 0))
				require.NoError(t, db.PrepareAttempts(t.Context(), day, 0))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			require.NoError(t, db.InTx(ctx, func(reader *storage.Tx) error {
				_, err := storagetest.SQL(reader).Exec(ctx, `SELECT FROM events; SELECT FROM delivery_attempts`)
				require.NoError(t, err)
				changed := make(chan error, 1)
				go func() { changed <- change(db) }()
				for len(changed) == 0 && !somebodyWaits(ctx, t, db) {
				}
				require.NoError(t, db.InTx(ctx, func(writer *storage.Tx) error {
					return errors.Join(
						writer.StoreEvents(ctx, []storage.StoredEvent{{ID: uuid.NewString(), ContactID: uuid.NewString(), Name: "x", Properties: `{}`, OccurredAt: today, ReceivedAt: today, Source: "test"}}),
						writer.WriteAttempts(ctx, []storage.Attempt{{At: today, DestinationID: uuid.NewString(), RecordID: "r", RecordType: "x", RecordKey: "k", Topic: "events", Outcome: "delivered", Status: 200}}))
				}))
				require.Error(t, <-changed, "the reader is still there")
				return nil
			}))
			require.NoError(t, change(db), "again, later")
		})
	}
}

// somebodyWaits says that a lock on a table of the schema is waited for.
func somebodyWaits(ctx context.Context, t *testing.T, db *storage.DB) (waiting bool) {
	t.Helper()
	require.NoError(t, storagetest.SQL(db).QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
		               WHERE NOT l.granted AND c.relnamespace = current_schema()::regnamespace)`).Scan(&waiting))
	return waiting
}

func TestPropertiesAreStoredByteForByte(t *testing.T) {
	db := storagetest.New(t)
	odd := `{"b":1e2, "a":12345678901234567890,"z":"\u0000é","a":{"k":[null]}}`
	storeEvent(t, db, noon, odd)
	var got string
	require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `SELECT properties::text FROM events`).Scan(&got))
	require.Equal(t, odd, got)

	c := &storage.Contact{
		ID: uuid.NewString(), Properties: odd, Version: 1, Identifiers: []schemas.Identifier{{Kind: schemas.KindExternal, Value: "a\"b\\é"}},
		FirstSeenAt: noon, LastSeenAt: noon, CreatedAt: noon, UpdatedAt: noon, Merged: []string{uuid.NewString()},
	}
	save := func(ch *storage.ContactChanges) {
		require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.SaveContacts(t.Context(), ch, noon) }))
	}
	save(&storage.ContactChanges{Saved: []*storage.Contact{c}})
	c.Version++
	save(&storage.ContactChanges{Patched: []*storage.Contact{c}})
	loaded, err := db.GetContact(t.Context(), c.ID)
	require.NoError(t, err)
	require.Equal(t, c, loaded)
}

func TestWhatExpiredIsCleanedWithinTheLimit(t *testing.T) {
	db := storagetest.New(t)
	for i := range 5 {
		at := noon.Add(time.Duration(i) * time.Hour)
		for _, sql := range []string{
			`INSERT INTO idempotency_keys (scope, key, input_id, created_at) VALUES ('s', $2, $3::text::uuid, $1)`,
			`INSERT INTO answers (input_id, answer, created_at) SELECT $3::text::uuid, '{}', $1 WHERE $2::text <> ''`,
			`INSERT INTO erased_identifiers (kind, hash, erased_at, partition, "offset") SELECT 'email', $2::bytea, $1, 0, 0 WHERE $3::text <> ''`,
			`INSERT INTO contact_marks (contact_id, marked_at) SELECT $3::text::uuid, $1 WHERE $2::text <> ''`,
			`INSERT INTO derived_contacts (processor, contact_id, partition, seq, era, written, epoch, took, heard, last_seq, last_era, ended_at)
			 VALUES ($2::text, $3::text::uuid, 0, 0, 0, 0, 0, '{}', '{}', 0, 0, $1)`,
		} {
			_, err := storagetest.SQL(db).Exec(t.Context(), sql, at, fmt.Sprint("k", i), uuid.NewString())
			require.NoError(t, err)
		}
	}
	before := noon.Add(150 * time.Minute) // the first three
	for table, clean := range map[string]func() (int64, error){
		"idempotency_keys":   func() (int64, error) { return db.CleanIdempotencyKeys(t.Context(), before, 2) },
		"answers":            func() (int64, error) { return db.CleanAnswers(t.Context(), before, 2) },
		"erased_identifiers": func() (int64, error) { return db.CleanErasedIdentifiers(t.Context(), before, 2) },
		"derived_contacts":   func() (int64, error) { return db.CleanDerivedMarks(t.Context(), before, 2) },
		"contact_marks":      func() (int64, error) { return db.CleanContactMarks(t.Context(), before, 2) },
	} {
		for _, want := range []int64{2, 1, 0} {
			n, err := clean()
			require.NoError(t, err, table)
			require.Equal(t, want, n, table)
		}
		require.Equal(t, 2, count(t, db, table), table)
	}
}

func TestPreferencesOfAnAddressAreFoldedOverContacts(t *testing.T) {
	db := storagetest.New(t)
	save := func(p schemas.Preference) {
		require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
			return tx.SaveContacts(t.Context(), &storage.ContactChanges{
				Preferences: map[string][]schemas.Preference{uuid.NewString(): {p}},
			}, noon)
		}))
	}
	save(schemas.Preference{Email: "a@b.co", Categories: map[string]bool{"news": true, "beta": true}, BounceCount: 2})
	save(schemas.Preference{Email: "a@b.co", Categories: map[string]bool{"news": false}, UnsubscribedAll: true, LastBounceAt: &noon})
	got, err := db.Preferences(t.Context(), "a@b.co")
	require.NoError(t, err)
	require.Equal(t, schemas.Preference{
		Email: "a@b.co", UnsubscribedAll: true, BounceCount: 2, LastBounceAt: &noon,
		Categories: map[string]bool{"news": false, "beta": true},
	}, got)
}

// Between the answer to a deletion, which identity gives, and the moment that
// contacts removes the row, the contact could be read by its id.
func TestADeletedContactIsNotFoundBeforeItsRowIsGone(t *testing.T) {
	db := storagetest.New(t)
	c := &storage.Contact{
		ID: uuid.NewString(), Properties: "{}", Version: 1,
		FirstSeenAt: noon, LastSeenAt: noon, CreatedAt: noon, UpdatedAt: noon,
	}
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		return tx.SaveContacts(t.Context(), &storage.ContactChanges{Saved: []*storage.Contact{c}}, noon)
	}))
	loser := uuid.NewString()
	_, err := storagetest.SQL(db).Exec(t.Context(), `
		INSERT INTO identities (contact_id, first_seen_at, merged_into) VALUES ($1::text::uuid, $3, NULL), ($2::text::uuid, $3, $1::text::uuid)`, c.ID, loser, noon)
	require.NoError(t, err)
	for _, id := range []string{c.ID, loser} {
		_, err := db.GetContact(t.Context(), id)
		require.NoError(t, err)
	}
	_, err = storagetest.SQL(db).Exec(t.Context(), `UPDATE identities SET deleted_at = $2 WHERE contact_id = $1::text::uuid`, c.ID, noon)
	require.NoError(t, err)
	for _, id := range []string{c.ID, loser} {
		_, err := db.GetContact(t.Context(), id)
		require.True(t, storage.IsNotFound(err), "%v", err)
	}
	listed, total, err := db.ListContacts(t.Context(), "", 10, 0)
	require.NoError(t, err)
	require.Empty(t, listed)
	require.Zero(t, total)
}

// A release before wrote contacts and marks without their partition, and may still do so.
func TestPartitionsOfContactsAreFilledInWithinTheLimit(t *testing.T) {
	db := storagetest.New(t)
	const rows = 7
	for range rows {
		_, err := storagetest.SQL(db).Exec(t.Context(), `
			WITH c AS (INSERT INTO contacts (id, version, first_seen_at, last_seen_at, created_at, updated_at) VALUES ($1::text::uuid, 1, $3, $3, $3, $3))
			INSERT INTO contact_marks (contact_id, marked_at) VALUES ($2::text::uuid, $3)`, uuid.NewString(), uuid.NewString(), noon)
		require.NoError(t, err)
	}
	partitionOf := func(id string) int32 { return int32(id[0]) }
	for _, want := range []int{6, 6, 2, 0} {
		placed, err := db.PlaceContacts(t.Context(), partitionOf, 3)
		require.NoError(t, err)
		require.Equal(t, want, placed)
	}
	var right int
	require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `
		SELECT (SELECT count(*) FROM contacts WHERE partition = ascii(id::text)) + (SELECT count(*) FROM contact_marks WHERE partition = ascii(contact_id::text))`).Scan(&right))
	require.Equal(t, 2*rows, right)
}

// A rebuild makes partitions while the machine is busy: a pause between two statements must
// not end it.
func TestPartitionsAreMadeAndDroppedInOneRoundTripEach(t *testing.T) {
	db, err := storage.Open(t.Context(), storage.Config{URL: storagetest.URL(t) + "&idle_in_transaction_session_timeout=1"})
	require.NoError(t, err)
	defer db.Close()
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for range 20 {
		require.NoError(t, db.CreateEventPartitions(t.Context(), at, 5))
		dropped, err := db.DropEventPartitions(t.Context(), at.AddDate(0, 0, 30))
		require.NoError(t, err)
		require.NotEmpty(t, dropped)
	}
}
