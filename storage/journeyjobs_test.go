package storage_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// jobs are those of one database, of one journey.
type jobs struct {
	t  *testing.T
	db *storage.DB
}

var jobCode = storage.JourneyCode{JourneyID: "j", Version: "1"}

func newJobs(t *testing.T) *jobs { return &jobs{t, storagetest.New(t)} }

func (j *jobs) save(ch *storage.JourneyJobChanges) {
	j.t.Helper()
	require.NoError(j.t, j.db.InTx(j.t.Context(), func(tx *storage.Tx) error { return tx.SaveJourneyJobs(j.t.Context(), ch) }))
}

// begin begins n jobs of new runs of a contact.
func (j *jobs) begin(contact string, code storage.JourneyCode, n int) (begun []storage.NewJourneyJob) {
	j.t.Helper()
	for range n {
		begun = append(begun, storage.NewJourneyJob{
			JourneyJobRef: storage.JourneyJobRef{RunID: uuid.NewString(), Epoch: 3}, ContactID: contact, JourneyID: code.JourneyID, Version: code.Version, Step: "ask", Hops: 2,
		})
	}
	j.save(&storage.JourneyJobChanges{Begun: begun})
	return begun
}

func (j *jobs) take(limit int, codes ...storage.JourneyCode) []storage.JourneyJob {
	j.t.Helper()
	if len(codes) == 0 {
		codes = []storage.JourneyCode{jobCode}
	}
	taken, err := j.db.TakeJourneyJobs(j.t.Context(), "journeys", codes, uuid.NewString(), limit, time.Hour)
	require.NoError(j.t, err)
	return taken
}

func (j *jobs) note(notes ...storage.JourneyJobNote) []storage.JourneyJobInHand {
	j.t.Helper()
	noted, err := j.db.NoteJourneyJobs(j.t.Context(), notes)
	require.NoError(j.t, err)
	return noted
}

func (j *jobs) renew(held ...storage.JourneyJobInHand) []storage.JourneyJobInHand {
	j.t.Helper()
	still, err := j.db.RenewJourneyJobs(j.t.Context(), held, time.Hour)
	require.NoError(j.t, err)
	return still
}

func inHand(j *storage.JourneyJob) storage.JourneyJobInHand {
	return storage.JourneyJobInHand{JourneyJobRef: j.JourneyJobRef, Token: j.Token}
}

func TestAJobIsInOneHandAndOnlyOfWhoHasItsCode(t *testing.T) {
	j := newJobs(t)
	contact := uuid.NewString()
	begun := j.begin(contact, jobCode, 3)
	j.save(&storage.JourneyJobChanges{Begun: begun}) // as a batch that is run again does
	j.begin(contact, storage.JourneyCode{JourneyID: "j", Version: "2"}, 1)
	require.Empty(t, j.take(5, storage.JourneyCode{JourneyID: "other", Version: "1"}))
	require.Len(t, j.take(5), 3, "those of version 1")
	require.Empty(t, j.take(5), "they are in a hand")
	two := j.take(5, jobCode, storage.JourneyCode{JourneyID: "j", Version: "2"})
	require.Len(t, two, 1)
	require.Equal(t, storage.JourneyJob{NewJourneyJob: two[0].NewJourneyJob, Attempts: 1, Token: two[0].Token}, two[0])
	require.Equal(t, 2, two[0].Hops)

	due, now, err := j.db.NextJourneyJob(t.Context(), []storage.JourneyCode{jobCode})
	require.NoError(t, err)
	require.Greater(t, due.Sub(now), 50*time.Minute, "the first lease ends")
	due, _, err = j.db.NextJourneyJob(t.Context(), []storage.JourneyCode{{JourneyID: "other", Version: "1"}})
	require.NoError(t, err)
	require.True(t, due.IsZero())
}

func TestWhatCameOfAJobIsToldUntilItIsOver(t *testing.T) {
	j := newJobs(t)
	j.begin(uuid.NewString(), jobCode, 1)
	taken := j.take(1)[0]
	require.Len(t, j.note(storage.JourneyJobNote{JourneyJobInHand: inHand(&taken), Error: "not yet"}), 1)
	require.Empty(t, j.note(storage.JourneyJobNote{JourneyJobInHand: inHand(&taken), Done: true, Result: "1"}), "it is in nobody's hand")
	taken = j.take(1)[0]
	require.Equal(t, 2, taken.Attempts)
	j.note(storage.JourneyJobNote{JourneyJobInHand: inHand(&taken), Uncounted: true})
	taken = j.take(1)[0]
	require.Equal(t, 2, taken.Attempts, "what was given back was no attempt")
	j.note(storage.JourneyJobNote{JourneyJobInHand: inHand(&taken), Done: true, Result: `{"a":1}`})
	again := j.take(1)
	require.Len(t, again, 1)
	require.True(t, again[0].Done)
	require.Equal(t, `{"a":1}`, again[0].Result)
	require.Empty(t, again[0].Token)
	require.Empty(t, j.take(1))
	due, now, err := j.db.NextJourneyJob(t.Context(), []storage.JourneyCode{jobCode})
	require.NoError(t, err)
	require.InDelta(t, 60, due.Sub(now).Seconds(), 30, "it is told again in a minute")
	j.save(&storage.JourneyJobChanges{Over: []storage.JourneyJobRef{taken.JourneyJobRef}})
	due, _, err = j.db.NextJourneyJob(t.Context(), []storage.JourneyCode{jobCode})
	require.NoError(t, err)
	require.True(t, due.IsZero())
}

// A transaction that changes a run holds up no worker: what it has locked is still in hand,
// and noted later.
func TestWorkersWaitForNoTransaction(t *testing.T) {
	j := newJobs(t)
	begun := j.begin(uuid.NewString(), jobCode, 2)
	taken := j.take(2)
	held := []storage.JourneyJobInHand{inHand(&taken[0]), inHand(&taken[1])}
	notes := []storage.JourneyJobNote{{JourneyJobInHand: held[0], Done: true, Result: "1"}, {JourneyJobInHand: held[1], Done: true, Result: "1"}}
	require.NoError(t, j.db.InTx(t.Context(), func(tx *storage.Tx) error {
		require.NoError(t, tx.SaveJourneyJobs(t.Context(), &storage.JourneyJobChanges{Over: []storage.JourneyJobRef{begun[0].JourneyJobRef}}))
		require.ElementsMatch(t, held, j.renew(held...))
		noted := j.note(notes...)
		require.Len(t, noted, 1)
		require.Equal(t, begun[1].RunID, noted[0].RunID)
		return nil
	}))
	require.Empty(t, j.renew(held...), "one is over, and one is noted")
}

func TestJobsGoWithTheirContact(t *testing.T) {
	j := newJobs(t)
	loser, survivor, other := uuid.NewString(), uuid.NewString(), uuid.NewString()
	j.begin(loser, jobCode, 1)
	j.begin(other, jobCode, 1)
	j.save(&storage.JourneyJobChanges{Took: map[string]string{loser: survivor}})
	contacts := map[string]bool{}
	taken := j.take(5)
	for _, job := range taken {
		contacts[job.ContactID] = true
	}
	require.Equal(t, map[string]bool{survivor: true, other: true}, contacts)
	j.save(&storage.JourneyJobChanges{Forget: []string{survivor}})
	require.Len(t, j.renew(inHand(&taken[0]), inHand(&taken[1])), 1)
}

func TestWorkersAreToldOfJobs(t *testing.T) {
	j := newJobs(t)
	ctx, cancel := context.WithCancel(t.Context())
	heard, ended := make(chan string, 10), make(chan error, 1)
	go func() {
		ended <- j.db.Listen(ctx, storage.ChannelJourneyJobs, func(payload string) { heard <- payload })
	}()
	require.Empty(t, <-heard)
	begun := j.begin(uuid.NewString(), jobCode, 2)
	require.Equal(t, storage.JobsBegun, <-heard)
	j.save(&storage.JourneyJobChanges{Over: []storage.JourneyJobRef{begun[0].JourneyJobRef}})
	require.Equal(t, storage.JobsOver, <-heard)
	j.save(&storage.JourneyJobChanges{Took: map[string]string{uuid.NewString(): uuid.NewString()}})
	j.save(&storage.JourneyJobChanges{Forget: []string{uuid.NewString()}})
	require.Equal(t, storage.JobsOver, <-heard)
	cancel()
	require.NoError(t, <-ended)
}
