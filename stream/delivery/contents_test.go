package delivery_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/reader"
)

func TestARecordWhoseHeadersDoNotSayWhatItIsIsDeliveredByItsContent(t *testing.T) {
	w := newWorld(t)
	w.Config.Contents = w.Codec
	var mu sync.Mutex
	types := map[string]string{}
	w.r.answer = func(_ context.Context, d delivery.Delivery) delivery.Outcome {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range d.Records {
			types[r.ID] = r.Type
			require.False(t, r.OccurredAt.IsZero())
		}
		return delivery.Outcome{Status: 200}
	}
	d := w.destination("crm", "contact.updated", "event.tracked:bought")
	contact, now := uuid.NewString(), time.Now().UTC().Truncate(time.Microsecond)
	event := func(name string) *schemas.Event {
		return &schemas.Event{ID: uuid.NewString(), ContactID: contact, Name: name, Properties: "{}", OccurredAt: now, ReceivedAt: now, Source: "api"}
	}
	updated, bare, bought, looked, keyless := fact(contact, schemas.FactContactUpdated), fact(contact, schemas.FactContactUpdated), event("bought"), event("looked"), event("bought")
	restored := func(m schemas.Message, key []byte, headers ...kgo.RecordHeader) {
		value, err := w.Codec.Encode(m)
		require.NoError(t, err)
		w.Produce(&kgo.Record{Topic: w.Config.Topic(m.Topic()), Key: key, Value: value, Headers: headers})
	}
	restored(updated, []byte(contact), kgo.RecordHeader{Key: "type", Value: []byte(`"contact.updated"`)}, kgo.RecordHeader{Key: "occurred-at", Value: []byte("yesterday")})
	restored(bare, []byte(contact))
	restored(bought, []byte(contact), kgo.RecordHeader{Key: "id", Value: []byte("?")})
	restored(looked, []byte(contact))
	restored(keyless, nil)
	for _, value := range [][]byte{nil, {}, []byte("no record of ours"), {0xff, 0, 0}} {
		w.Produce(&kgo.Record{Topic: w.Config.Topic(schemas.TopicLifecycle), Key: []byte(contact), Value: value})
	}
	w.start("one")
	w.waitFlushed(d)
	require.Equal(t, map[string]string{
		updated.ID: schemas.FactContactUpdated, bare.ID: schemas.FactContactUpdated, bought.ID: "event.tracked:bought", keyless.ID: "event.tracked:bought",
	}, types)
	letters := w.WaitRecords(schemas.TopicDeadLetters, 4)
	require.Len(t, letters, 4, "what nobody can read is not passed over")
	for _, l := range letters {
		letter, err := w.Codec.DecodeDeadLetter(l.Value)
		require.NoError(t, err)
		require.Equal(t, "undecodable", letter.Reason)
		require.NotEmpty(t, letter.Error)
	}

	admin, err := stream.OpenAdmin(w.Config, w.Logger)
	require.NoError(t, err)
	defer admin.Close()
	found, err := reader.FindRecord(w.Context(), admin, bought.ID, 1000, schemas.TopicEvents)
	require.NoError(t, err)
	require.NotNil(t, found, "it is found by its own id")
	require.Equal(t, now, found.OccurredAt)
	var shown []string
	tail := reader.TailOptions{Topics: []schemas.Topic{schemas.TopicEvents}, Types: []string{"event.tracked:bought"}}
	require.NoError(t, reader.Tail(w.Context(), w.Config, tail, w.Logger, func(r *stream.Record) error { shown = append(shown, r.ID); return nil }))
	require.ElementsMatch(t, []string{bought.ID, keyless.ID}, shown)
}
