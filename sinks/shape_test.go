package sinks

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/signing"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

func shaped(t *testing.T, filter, transform string, p *Payload) (*Payload, error) {
	t.Helper()
	d := newDeliverer(t, Config{AllowLoopback: true})
	o := d.ready(&storage.Destination{Kind: "webhook", URL: "http://localhost", Secret: signing.NewSecret(), Filter: filter, Transform: transform})
	require.NoError(t, o.err)
	return d.shapeOne(t.Context(), o, p)
}

func TestATransformWritesTheEnvelopeAndKeepsLargeNumbers(t *testing.T) {
	p := samplePayload(t, schemas.TypeEventTracked)
	got, err := shaped(t, "", `{type: "Order", data: {id: .data.properties.a, big: .data.properties.nested}}`, p)
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"Order","data":{"id":9007199254740993,"big":{"b":[1,{"c":null}]}}}`, string(got.Envelope))
	require.Contains(t, string(got.Envelope), "9007199254740993")
	require.Equal(t, "Order", got.Name())
	require.JSONEq(t, `{"id":9007199254740993,"big":{"b":[1,{"c":null}]}}`, got.Properties())
	require.Equal(t, p.ID, got.ID)
	require.Equal(t, "event.tracked", p.Type, "the shared payload is untouched")

	for _, transform := range []string{"null", "empty"} {
		got, err = shaped(t, "", transform, p)
		require.NoError(t, err)
		require.Nil(t, got)
	}
}

func TestWhatAFilterDropsIsSkippedAndAFailingTransformRejectsItsRecord(t *testing.T) {
	r, dest := receiving(t, sinktest.Options{})
	d := newDeliverer(t, Config{AllowLoopback: true})
	dest.Filter = `.type == "contact.created"`
	deliver := func(m schemas.Message) delivery.Outcome {
		return d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(m, 1)}})
	}
	require.Equal(t, delivery.Skipped, deliver(sinktest.Event()).Verdict)
	require.Equal(t, delivery.Delivered, deliver(sinktest.Fact(schemas.FactContactCreated)).Verdict)
	require.Equal(t, 1, r.Stats().Requests)
	changed := *dest
	changed.Revision, changed.Filter, changed.Transform = 2, "", ".data.properties.x.y.z.w | error"
	dest = &changed
	require.Equal(t, delivery.Reject, deliver(sinktest.Event()).Verdict)
}

func TestABatchIsSentWithoutWhatItsFilterDrops(t *testing.T) {
	v := sinktest.NewPosthog("k")
	dest := vendor(t, "posthog", v, map[string]any{"apiKey": "k"})
	dest.Filter, dest.Transform = `.type | startswith("email.")`, `.type |= "mail " + . | .data |= {to}`
	d := newDeliverer(t, Config{AllowLoopback: true})
	records := sinktest.Records()
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records})
	require.Equal(t, delivery.Partial, out.Verdict, "%+v", out)
	for i, r := range records {
		want := delivery.Skipped
		if strings.HasPrefix(r.Type, "email.") {
			want = delivery.Delivered
		}
		require.Equal(t, delivery.Result{Verdict: want}, out.Results[i], "the delivery log tells the two apart: %s", r.Type)
	}
	items := v.Items()
	require.Len(t, items, 6)
	require.Equal(t, "mail email.sent", items[0].Name)
	require.Equal(t, map[string]any{"to": "ann@example.com", "$lib": "hogstream", "$geoip_disable": true}, items[0].Fields)
}

func TestAFilterThatIsBrokenOffWithItsAttemptGivesNothingUp(t *testing.T) {
	dest := vendor(t, "posthog", sinktest.NewPosthog("k"), map[string]any{"apiKey": "k"})
	dest.Filter = "last(range(1e18))"
	d := newDeliverer(t, Config{AllowLoopback: true})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	records := sinktest.Records()
	for n, want := range map[int]struct{ ended, late delivery.Verdict }{1: {delivery.Retry, delivery.Retry}, len(records): {delivery.Retry, delivery.Split}} {
		del := delivery.Delivery{Destination: dest, Records: records[:n], Attempt: 100}
		require.Equal(t, want.ended, d.Deliver(ended, del).Verdict, n)
		out := d.Deliver(late, del)
		require.Equal(t, want.late, out.Verdict, n)
		require.Equal(t, "filter or transform: had no turn within the time of the attempt", out.Err)
		require.Equal(t, "filter or transform", out.Class())
	}
}

func TestAProgramThatTakesTooLongIsTheRecordsFaultOnlyWhenItDoesSoAgain(t *testing.T) {
	dest := vendor(t, "posthog", sinktest.NewPosthog("k"), map[string]any{"apiKey": "k"})
	dest.Filter = `if .type == "email.sent" then last(range(1e18)) else . end`
	d := newDeliverer(t, Config{AllowLoopback: true})
	records := sinktest.Records()
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records, Attempt: 1})
	require.Equal(t, delivery.Split, out.Verdict, "%+v", out)
	slow := slices.IndexFunc(records, func(r *stream.Record) bool { return r.Type == "email.sent" })
	for attempt, want := range []delivery.Verdict{1: delivery.Retry, 2: delivery.Retry, 3: delivery.Retry, 4: delivery.Reject} {
		if attempt > 0 {
			out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records[slow : slow+1], Attempt: attempt})
			require.Equal(t, want, out.Verdict, "attempt %d: %+v", attempt, out)
		}
	}
}
