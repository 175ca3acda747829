package delivery

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// erasing is a bench whose courier hears of erasures.
func erasing(t *testing.T) (*courierBench, func(key string)) {
	b := newCourierBench(t, nil)
	b.courier.env.erased = newNoted(nil, zap.NewNop(), func() {})
	b.courier.env.flush.erased = b.courier.env.erased
	return b, func(key string) { b.courier.env.erased.heard(t.Context(), key) }
}

func TestNoAttemptBeginsAfterAnErasureWhateverWaitsInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, erase := erasing(t)
		person, other := uuid.NewString(), uuid.NewString()
		hold := make(chan struct{})
		var first sync.Once
		b.answer = func(d Delivery) Outcome {
			if string(d.Records[0].Key) == person {
				first.Do(func() { <-hold }) // under way when the person is erased
				return Outcome{Verdict: Retry, Err: "HTTP 503", Response: []byte("about them")}
			}
			return Outcome{Status: 200}
		}
		b.append(person, other, person, other, person)
		synctest.Wait()
		require.Equal(t, 1, b.calls[person])
		erase(person)
		close(hold)
		<-time.After(time.Hour) // of the bubble: every retry would be due
		synctest.Wait()
		require.Equal(t, 1, b.calls[person], "neither its retry nor what stood behind it is sent")
		require.Equal(t, []int64{1, 3}, b.took[other])
		require.Empty(t, b.letters)
		require.EqualValues(t, 5, b.track.places[0].cursor.Position(), "all of it is finished")
		outcomes := map[string]int{}
		for _, a := range b.track.results {
			if a.RecordKey == person {
				outcomes[a.Outcome]++
				logged := b.courier.env.flush.withoutErased(a)
				require.Empty(t, logged.Error)
				require.Empty(t, logged.Response)
			}
		}
		require.Equal(t, map[string]int{"retry": 1, "erased": 3}, outcomes)
	})
}

func TestARecordOfTheErasedThatIsGivenUpBecomesNoDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, erase := erasing(t)
		person := uuid.NewString()
		b.answer = func(Delivery) Outcome {
			erase(person) // while the attempt is under way
			return Outcome{Verdict: Reject, Err: "HTTP 422"}
		}
		b.append(person)
		synctest.Wait()
		require.Equal(t, 1, b.calls[person])
		require.Empty(t, b.letters)
		require.EqualValues(t, 1, b.track.places[0].cursor.Position())
	})
}

func TestThatSomebodyWasDeletedIsDeliveredAndParkedWhole(t *testing.T) {
	b, erase := erasing(t)
	person := uuid.NewString()
	erase(person + " " + uuid.NewString())
	deleted := &stream.Record{Key: []byte(person), Type: schemas.FactContactDeleted}
	require.False(t, b.courier.env.erased.has(deleted))
	require.True(t, b.courier.env.erased.has(&stream.Record{Key: []byte(person), Type: schemas.FactContactUpdated}))
	require.False(t, b.courier.env.erased.has(&stream.Record{Key: []byte("no contact"), Type: schemas.FactContactUpdated}))
	fl := b.courier.env.flush
	for typ, kept := range map[string]bool{schemas.FactContactDeleted: true, schemas.FactContactUpdated: false} {
		parked := fl.parkedWithoutErased(storage.ParkedRecord{Key: person, RecordType: typ, Value: []byte("x")})
		require.Equal(t, kept, parked.Value != nil, typ)
	}
}
