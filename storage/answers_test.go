package storage_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func runAnswers(t *testing.T, db *storage.DB) *storage.Answers {
	t.Helper()
	a := storage.NewAnswers(db)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return a
}

func saveAnswers(t *testing.T, db *storage.DB, answers ...storage.Answer) {
	t.Helper()
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.SaveAnswers(t.Context(), answers, time.Now()) }))
}

func TestManyWaitersGetTheirOwnAnswers(t *testing.T) {
	db := storagetest.New(t)
	a := runAnswers(t, db)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	var answers []storage.Answer
	var group sync.WaitGroup
	for i := range 500 { // more than one notification can name
		id := uuid.NewString()
		answers = append(answers, storage.Answer{InputID: id, JSON: fmt.Appendf(nil, `{"n":%d}`, i)})
		w := a.Register(id)
		group.Go(func() {
			defer w.Close()
			got, err := w.Wait(ctx)
			if err != nil || string(got) != fmt.Sprintf(`{"n":%d}`, i) {
				t.Errorf("answer %d: %s, %v", i, got, err)
			}
		})
	}
	saveAnswers(t, db, answers[:1]...)
	saveAnswers(t, db, answers[1:10]...)
	saveAnswers(t, db, answers[10:]...)
	group.Wait()
}

func TestAWaiterGivesUpWithItsContext(t *testing.T) {
	db := storagetest.New(t)
	a := runAnswers(t, db)
	w := a.Register(uuid.NewString())
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.Wait(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestAnAnswerGivenWhileTheDatabaseWasAwayIsFoundLater(t *testing.T) {
	server := storagetest.NewServer(t)
	db := server.DB()
	a := runAnswers(t, db)
	id := uuid.NewString()
	saveAnswers(t, db, storage.Answer{InputID: id, JSON: []byte(`{}`)}) // nobody waits for it yet
	w := a.Register(id)
	defer w.Close()
	server.Crash()
	server.Start()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := w.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, json.RawMessage(`{}`), got)
}

// Any number wait for one answer, before and after it was given.
func TestOneAnswerIsGivenToAllWhoWaitForIt(t *testing.T) {
	db := storagetest.New(t)
	a := runAnswers(t, db)
	id := uuid.NewString()
	early := []*storage.Waiter{a.Register(id), a.RegisterLate(id), a.Register(id)}
	early[0].Close()
	early[0].Close()
	given, err := a.Given(t.Context(), id)
	require.NoError(t, err)
	require.False(t, given)
	saveAnswers(t, db, storage.Answer{InputID: id, JSON: []byte(`{"n":1}`)})
	for _, w := range append(early[1:], a.RegisterLate(id)) {
		got, err := w.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, json.RawMessage(`{"n":1}`), got)
		w.Close()
	}
	given, err = a.Given(t.Context(), id)
	require.NoError(t, err)
	require.True(t, given)
}

func TestTheFirstAnswerCounts(t *testing.T) {
	db := storagetest.New(t)
	id := uuid.NewString()
	saveAnswers(t, db, storage.Answer{InputID: id, JSON: []byte(`1`)})
	saveAnswers(t, db, storage.Answer{InputID: id, JSON: []byte(`2`)})
	var got string
	require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `SELECT answer::text FROM answers`).Scan(&got))
	require.Equal(t, "1", got)
}
