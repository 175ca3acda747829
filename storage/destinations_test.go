package storage_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func boxOf(t *testing.T, fill byte, previous ...byte) *storage.Box {
	t.Helper()
	var olds [][]byte
	for _, p := range previous {
		olds = append(olds, bytes.Repeat([]byte{p}, storage.KeySize))
	}
	box, err := storage.NewBox(bytes.Repeat([]byte{fill}, storage.KeySize), olds...)
	require.NoError(t, err)
	return box
}

func sampleDestination(name string) *storage.Destination {
	description, until := "for tests", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &storage.Destination{
		ID: uuid.NewString(), Name: name, Kind: "webhook", URL: "https://example.com/hook", Description: &description,
		EventTypes: []string{"contact.*", "event.tracked:order.completed"}, Config: json.RawMessage(`{"headers":{"x":"sesame"}}`),
		Secret: "whsec_currentcurrent", PreviousSecret: "whsec_previous", PreviousSecretUntil: &until,
		Filter: ".type", Selector: `{"event":"a"}`, Transform: ".", RateLimit: 12.5, Concurrency: 7, RetryHorizon: time.Hour, DeliveryLog: "failures",
	}
}

func insert(t *testing.T, db *storage.DB, s *storage.Destinations, d *storage.Destination) error {
	t.Helper()
	return db.InTx(t.Context(), func(tx *storage.Tx) error { return s.Insert(t.Context(), tx, d) })
}

func TestADestinationIsReadAsItWasWritten(t *testing.T) {
	db := storagetest.New(t)
	s := storage.NewDestinations(db, boxOf(t, 1))
	d := sampleDestination("crm")
	require.NoError(t, insert(t, db, s, d))
	require.EqualValues(t, 1, d.Revision)
	require.Equal(t, storage.DestinationActive, d.Status)

	got, err := s.Get(t.Context(), d.ID)
	require.NoError(t, err)
	require.Equal(t, d.PreviousSecretUntil.UTC(), got.PreviousSecretUntil.UTC())
	got.PreviousSecretUntil = d.PreviousSecretUntil
	require.Equal(t, d, got)
	for _, nameOrID := range []string{"crm", d.ID} {
		found, err := s.Find(t.Context(), nameOrID)
		require.NoError(t, err)
		require.Equal(t, d.ID, found.ID)
	}
	_, err = s.Get(t.Context(), "no uuid at all")
	require.True(t, storage.IsNotFound(err), "%v", err)
}

func TestSecretsAndConfigStandSealedInTheTable(t *testing.T) {
	db := storagetest.New(t)
	s := storage.NewDestinations(db, boxOf(t, 1))
	d := sampleDestination("crm")
	require.NoError(t, insert(t, db, s, d))
	var row string
	require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(),
		`SELECT d::text || convert_from(secret, 'UTF8') || convert_from(config, 'UTF8') || convert_from(previous_secret, 'UTF8') FROM destinations d`).Scan(&row))
	for _, secret := range []string{"sesame", "currentcurrent", "whsec_previous"} {
		require.NotContains(t, row, secret)
	}
}

func TestATakenNameSaysSo(t *testing.T) {
	db := storagetest.New(t)
	s := storage.NewDestinations(db, boxOf(t, 1))
	require.NoError(t, insert(t, db, s, sampleDestination("crm")))
	require.ErrorIs(t, insert(t, db, s, sampleDestination("crm")), storage.ErrDestinationName)
}

func TestAnUpdateOfAnOldRevisionIsRefused(t *testing.T) {
	db := storagetest.New(t)
	s := storage.NewDestinations(db, boxOf(t, 1))
	d := sampleDestination("crm")
	require.NoError(t, insert(t, db, s, d))
	stale := *d
	d.URL, d.Secret = "https://example.com/other", "whsec_next"
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error { return s.Update(t.Context(), tx, d) }))
	require.EqualValues(t, 2, d.Revision)
	got, err := s.Get(t.Context(), d.ID)
	require.NoError(t, err)
	require.Equal(t, "whsec_next", got.Secret)

	err = db.InTx(t.Context(), func(tx *storage.Tx) error { return s.Update(t.Context(), tx, &stale) })
	require.ErrorIs(t, err, storage.ErrDestinationChanged)
}

func TestASuspensionDoesNotUndoAMend(t *testing.T) {
	db := storagetest.New(t)
	s := storage.NewDestinations(db, boxOf(t, 1))
	d := sampleDestination("crm")
	require.NoError(t, insert(t, db, s, d))
	suspended, err := db.SuspendDestination(t.Context(), d.ID, 7, "401")
	require.NoError(t, err)
	require.False(t, suspended)
	suspended, err = db.SuspendDestination(t.Context(), d.ID, 1, "401")
	require.NoError(t, err)
	require.True(t, suspended)
	changed, err := s.SetStatus(t.Context(), d.ID, storage.DestinationActive, "")
	require.NoError(t, err)
	require.True(t, changed)
	changed, err = s.SetStatus(t.Context(), d.ID, storage.DestinationActive, "")
	require.NoError(t, err)
	require.False(t, changed, "it was active already")
	got, err := s.Get(t.Context(), d.ID)
	require.NoError(t, err)
	require.EqualValues(t, 3, got.Revision)
}

func TestEveryChangeIsHeard(t *testing.T) {
	db := storagetest.New(t)
	s := storage.NewDestinations(db, boxOf(t, 1))
	heard := make(chan string, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- db.Listen(ctx, storage.ChannelDestinations, func(id string) { heard <- id }) }()
	require.Empty(t, receive(t, heard), "listening")

	d := sampleDestination("crm")
	require.NoError(t, insert(t, db, s, d))
	require.Equal(t, d.ID, receive(t, heard))
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error { return s.Update(ctx, tx, d) }))
	require.Equal(t, d.ID, receive(t, heard))
	_, err := s.SetStatus(ctx, d.ID, storage.DestinationPaused, "")
	require.NoError(t, err)
	require.Equal(t, d.ID, receive(t, heard))
	require.NoError(t, db.StampDeliveries(ctx, map[string]time.Time{d.ID: time.Now()}))
	deleted, err := s.Delete(ctx, d.ID)
	require.NoError(t, err)
	require.True(t, deleted)
	require.Equal(t, d.ID, receive(t, heard))
	cancel()
	require.NoError(t, <-done)
}

func receive(t *testing.T, heard chan string) string {
	t.Helper()
	select {
	case id := <-heard:
		return id
	case <-time.After(20 * time.Second):
		t.Fatal("heard nothing")
		return ""
	}
}

func TestADestinationWhoseKeyIsLostIsListedAsUnreadable(t *testing.T) {
	db := storagetest.New(t)
	require.NoError(t, insert(t, db, storage.NewDestinations(db, boxOf(t, 1)), sampleDestination("old")))
	s := storage.NewDestinations(db, boxOf(t, 2))
	require.NoError(t, insert(t, db, s, sampleDestination("new")))
	list, err := s.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, "new", list[0].Name, "newest first")
	require.Empty(t, list[0].Unreadable)
	require.NotEmpty(t, list[1].Unreadable)
	require.Empty(t, list[1].Secret)
}

func TestResealingLeavesNothingUnderAnOldKey(t *testing.T) {
	db := storagetest.New(t)
	d := sampleDestination("crm")
	require.NoError(t, insert(t, db, storage.NewDestinations(db, boxOf(t, 1)), d))
	both := storage.NewDestinations(db, boxOf(t, 2, 1))
	n, err := both.ResealStale(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = both.ResealStale(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
	got, err := storage.NewDestinations(db, boxOf(t, 2)).Get(t.Context(), d.ID)
	require.NoError(t, err)
	require.Equal(t, d.Secret, got.Secret)
	require.Equal(t, d.PreviousSecret, got.PreviousSecret)
	require.NotErrorIs(t, err, storage.ErrSecretKey)
}

// sealedColumns are all of a destination.
var sealedColumns = []string{"config", "secret", "previous_secret", "signing_key", "previous_signing_key", "sealed_url"}

func TestWhatIsSealedOpensInItsOwnColumnAndRowAlone(t *testing.T) {
	db := storagetest.New(t)
	s := storage.NewDestinations(db, boxOf(t, 1))
	full := func(name string) *storage.Destination {
		d := sampleDestination(name)
		d.URL, d.SigningKey, d.PreviousSigningKey = "https://hooks.example.com/"+name, "whsk_"+name, "whsk_before_"+name
		require.NoError(t, insert(t, db, s, d))
		return d
	}
	mine, other := full("mine"), full("other")
	set := func(column, from, row string) (before []byte) {
		require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `SELECT `+column+` FROM destinations WHERE id::text = $1`, mine.ID).Scan(&before))
		require.NotEmpty(t, before, column)
		_, err := storagetest.SQL(db).Exec(t.Context(), `UPDATE destinations SET `+column+` = (SELECT `+from+` FROM destinations WHERE id::text = $2) WHERE id::text = $1`, mine.ID, row)
		require.NoError(t, err)
		return before
	}
	for _, column := range sealedColumns {
		for _, from := range sealedColumns {
			for _, row := range []string{mine.ID, other.ID} {
				before := set(column, from, row)
				got, err := s.Get(t.Context(), mine.ID)
				require.NoError(t, err)
				if column == from && row == mine.ID {
					require.Empty(t, got.Unreadable)
				} else {
					require.NotEmpty(t, got.Unreadable, "%s of %s in %s", from, row, column)
					require.Empty(t, got.URL+got.Secret+got.SigningKey+string(got.Config))
				}
				_, err = storagetest.SQL(db).Exec(t.Context(), `UPDATE destinations SET `+column+` = $2 WHERE id::text = $1`, mine.ID, before)
				require.NoError(t, err)
			}
		}
	}
}

func TestTheURLOfADestinationIsSealedAlsoWhenItWasWrittenBefore(t *testing.T) {
	db := storagetest.New(t)
	s := storage.NewDestinations(db, boxOf(t, 1))
	d := sampleDestination("alerts")
	d.Kind, d.URL = "slack", "https://hooks.slack.com/services/T1/B1/credential"
	require.NoError(t, insert(t, db, s, d))
	everything := func() (row string) {
		require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `SELECT destinations::text FROM destinations`).Scan(&row))
		return row
	}
	require.NotContains(t, everything(), "credential")

	_, err := storagetest.SQL(db).Exec(t.Context(), `UPDATE destinations SET url = $1, sealed_url = NULL`, d.URL) // as an older process did
	require.NoError(t, err)
	got, err := s.Get(t.Context(), d.ID)
	require.NoError(t, err)
	require.Equal(t, d.URL, got.URL)
	n, err := s.ResealStale(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.NotContains(t, everything(), "credential")
	got, err = s.Get(t.Context(), d.ID)
	require.NoError(t, err)
	require.Equal(t, d.URL, got.URL)
	n, err = s.ResealStale(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestASecretThatWasBoundToItsRowAloneIsReadAndSealedAnew(t *testing.T) {
	db := storagetest.New(t)
	s := storage.NewDestinations(db, boxOf(t, 1))
	d := sampleDestination("crm")
	require.NoError(t, insert(t, db, s, d))
	_, err := storagetest.SQL(db).Exec(t.Context(), `UPDATE destinations SET secret = $1`, sealedV1(t, 1, "whsec_before", d.ID))
	require.NoError(t, err)
	got, err := s.Get(t.Context(), d.ID)
	require.NoError(t, err)
	require.Equal(t, "whsec_before", got.Secret)
	n, err := s.ResealStale(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	var sealed string
	require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `SELECT convert_from(secret, 'UTF8') FROM destinations`).Scan(&sealed))
	require.True(t, strings.HasPrefix(sealed, "v2:"), sealed)
	got, err = s.Get(t.Context(), d.ID)
	require.NoError(t, err)
	require.Equal(t, "whsec_before", got.Secret)
}

// sealedV1 seals as the version before did.
func sealedV1(t *testing.T, key byte, secret, owner string) []byte {
	t.Helper()
	raw := bytes.Repeat([]byte{key}, storage.KeySize)
	sum := sha256.Sum256(raw)
	id := hex.EncodeToString(sum[:4])
	block, err := aes.NewCipher(raw)
	require.NoError(t, err)
	aead, err := cipher.NewGCMWithRandomNonce(block)
	require.NoError(t, err)
	sealed := aead.Seal(nil, nil, []byte(secret), []byte("v1:"+id+":"+owner))
	return []byte("v1:" + id + ":" + base64.RawStdEncoding.EncodeToString(sealed))
}
