package sinks

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

func TestACallIsSentAsItIsSignedAndItsAnswerIsTold(t *testing.T) {
	body := "<ask>1</ask>"
	var got *http.Request
	var read []byte
	answer := `{"id":"rcv_1","padding":"` + strings.Repeat("x", 20<<10) + `"}`
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		read, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, answer)
	}))
	defer receiver.Close()
	d, err := New(Config{AllowLoopback: true}, schemas.NewCodec(), nil, nil)
	require.NoError(t, err)
	defer d.Close()
	dest := &storage.Destination{
		ID: uuid.NewString(), Name: "crm", Kind: Webhook, URL: receiver.URL, Secret: "whsec_" + strings.Repeat("A", 32), Status: storage.DestinationActive,
		Filter: "false", Transform: `{"no": 1}`, Revision: 1,
	}
	require.NoError(t, d.CheckOutbox(dest))
	send := func(o *schemas.Outbox, dest *storage.Destination) delivery.Outcome {
		value, err := schemas.NewCodec().Encode(o)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r := &stream.Record{Topic: schemas.TopicOutbox, Key: []byte(o.ContactID), Value: value, ID: o.ID, Type: o.Meta().Type}
		return d.Deliver(ctx, delivery.Delivery{Destination: dest, Records: []*stream.Record{r}, Attempt: 1})
	}
	o := &schemas.Outbox{
		ID: uuid.NewString(), ContactID: uuid.NewString(), Destination: dest.ID, Kind: schemas.OutboxCall, Body: body,
		Headers: map[string]string{"content-type": "application/xml", "X-Ask": "1"}, NotAfter: time.Now().Add(time.Hour), Asker: "asker",
	}
	out := send(o, dest)
	require.Equal(t, delivery.Delivered, out.Verdict, out.Err)
	require.Equal(t, body, string(read), "neither filter nor transform is applied")
	require.Equal(t, "application/xml", got.Header.Get("Content-Type"))
	require.Equal(t, "1", got.Header.Get("X-Ask"))
	require.Equal(t, "msg_"+o.ID, got.Header.Get("Webhook-Id"))
	require.NotEmpty(t, got.Header.Get("Webhook-Signature"))
	require.Len(t, out.Response, keptOfAnswer)
	require.Equal(t, answer[:toldOfAnswer], string(out.Answer))

	o.Headers = map[string]string{"Webhook-Id": "mine"}
	out = send(o, dest)
	require.Equal(t, delivery.Reject, out.Verdict)
	require.Equal(t, delivery.FailureHeaders, out.Class())

	o.Headers, o.Kind = nil, "fax"
	require.Equal(t, delivery.Reject, send(o, dest).Verdict)

	slack := &storage.Destination{ID: uuid.NewString(), Name: "slack", Kind: "slack", URL: receiver.URL, Revision: 1}
	require.ErrorContains(t, d.CheckOutbox(slack), `eventTypes: "outbox"`)
	o.Kind = schemas.OutboxCall
	out = send(o, slack)
	require.Equal(t, delivery.Reject, out.Verdict)
	require.Equal(t, delivery.FailureNoOutbox, out.Class())
}
