package thanks

import (
	"testing"
	"time"

	"github.com/hogstream/hogstream/stream/loop"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

func TestAnOrderAsksForAnEmailAndTwiceTheSame(t *testing.T) {
	codec, email := schemas.NewCodec(), "ada@example.com"
	var records []*stream.Record
	for _, e := range []*schemas.Event{
		{ID: "6ba7b812-9dad-11d1-80b4-00c04fd430c8", ContactID: "b2f0c3d4-1111-5222-8333-444455556666", Name: "order.completed", Email: &email, Properties: `{"total":42}`},
		{ID: "6ba7b813-9dad-11d1-80b4-00c04fd430c8", ContactID: "b2f0c3d4-1111-5222-8333-444455556666", Name: "page.viewed", Email: &email, Properties: `{}`},
	} {
		e.OccurredAt, e.ReceivedAt, e.Source = time.Unix(1, 0), time.Unix(2, 0), "api"
		value, err := codec.Encode(e)
		require.NoError(t, err)
		records = append(records, &stream.Record{Topic: schemas.TopicEvents, Key: []byte(e.Key()), Value: value})
	}
	records = append(records, &stream.Record{Topic: schemas.TopicEvents, Value: []byte("no record")})
	apply := func() []loop.Output {
		b := loop.NewBatch(codec, time.Unix(3, 0), records)
		require.NoError(t, New(codec).Apply(t.Context(), nil, b))
		return b.Outputs()
	}
	outputs := apply()
	require.Len(t, outputs, 2)
	require.Equal(t, schemas.TopicEmailRequests, outputs[0].Topic)
	require.Equal(t, schemas.TopicDeadLetters, outputs[1].Topic)
	require.Equal(t, outputs[0], apply()[0])
}
