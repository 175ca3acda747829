package sinks

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/stream/delivery"
)

func TestRequestsToVendorsAreCompressedWhereTheSettingsSaySoAndNotWhenSmall(t *testing.T) {
	d := newDeliverer(t, Config{AllowLoopback: true})
	records := sinktest.Records()
	for name, c := range map[string]struct {
		kind   string
		vendor *sinktest.Vendor
		config map[string]any
	}{
		"posthog":    {"posthog", sinktest.NewPosthog("k"), map[string]any{"apiKey": "k"}},
		"posthog-v1": {"posthog", sinktest.NewPosthogV1("k"), map[string]any{"apiKey": "k", "api": "v1"}},
		"segment":    {"segment", sinktest.NewSegment("k"), map[string]any{"writeKey": "k"}},
	} {
		dest := vendor(t, c.kind, c.vendor, c.config)
		dest.ID = name
		require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records}).Verdict)
		require.Zero(t, c.vendor.Compressed(), "not unless it is asked for")

		c.config["gzip"] = true
		dest = vendor(t, c.kind, c.vendor, c.config)
		dest.ID, dest.Revision = name, 2
		for range 3 {
			require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records}).Verdict)
		}
		require.Equal(t, 3, c.vendor.Compressed())
		require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records[2:3]}).Verdict)
		require.Equal(t, 3, c.vendor.Compressed(), "a small one is sent as it is")
		require.Empty(t, c.vendor.Problems())
		require.Len(t, c.vendor.Items(), 4*len(records)+1)

		p, err := d.Payload(records[0])
		require.NoError(t, err)
		req, err := d.open(dest).sink.Build(&Attempt{Number: 1, Payloads: []*Payload{p}})
		require.NoError(t, err)
		require.Contains(t, string(req.Body), `"batch":[{`, "as a preview shows it")
	}
}
