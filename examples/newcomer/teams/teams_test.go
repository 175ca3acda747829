package teams

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hogstream/hogstream/stream/delivery"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

func TestARecordIsPostedAsALine(t *testing.T) {
	var got string
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = string(body)
	}))
	defer receiver.Close()
	codec := schemas.NewCodec()
	d, err := sinks.New(sinks.Config{AllowLoopback: true, OwnKinds: []sinks.Kind{Kind}}, codec, zap.NewNop(), nil)
	require.NoError(t, err)
	defer d.Close()

	user, now := "ada", time.Unix(1, 0)
	event := &schemas.Event{ID: "6ba7b812-9dad-11d1-80b4-00c04fd430c8", ContactID: "b2f0c3d4-1111-5222-8333-444455556666", Name: "order.completed", UserID: &user, Properties: `{}`, OccurredAt: now, ReceivedAt: now, Source: "api"}
	value, err := codec.Encode(event)
	require.NoError(t, err)
	record := &stream.Record{Topic: schemas.TopicEvents, Key: []byte(event.ContactID), Value: value, ID: event.ID, Type: event.Meta().Type, AppendTime: now}
	out := d.Deliver(t.Context(), delivery.Delivery{
		Destination: &storage.Destination{ID: "1", Name: "team", Kind: "teams", URL: receiver.URL, Config: json.RawMessage(`{"prefix":"shop: "}`)},
		Records:     []*stream.Record{record}, Attempt: 1,
	})
	require.Equal(t, delivery.Delivered, out.Verdict, out.Err)
	require.JSONEq(t, `{"text":"shop: order.completed of ada"}`, got)
}
