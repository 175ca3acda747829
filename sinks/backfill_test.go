package sinks

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

func TestABackfillSendsTheSameAsLive(t *testing.T) {
	var got []byte
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
	}))
	defer srv.Close()
	d := newDeliverer(t, Config{AllowLoopback: true, AllowHTTP: true})
	large := sinktest.Event()
	large.Properties = `{"x":"` + strings.Repeat("y", 20_000) + `"}`
	records := []*stream.Record{sinktest.Record(large, 0)}
	for len(records) < 128 {
		records = append(records, sinktest.Records()...)
	}
	undecodable := *records[3]
	undecodable.Value = []byte{1}
	records = append(records, &undecodable)
	dests := []*storage.Destination{
		{ID: "p", Kind: "posthog", Config: []byte(`{"host":"` + srv.URL + `","apiKey":"phc_x"}`), Revision: 1},
		{ID: "s", Kind: "segment", Config: []byte(`{"host":"` + srv.URL + `","writeKey":"wk"}`), Revision: 1},
		{ID: "t", Kind: "posthog", Config: []byte(`{"host":"` + srv.URL + `","apiKey":"phc_x"}`), Revision: 1, Transform: `.data.added = 1`, Filter: `.type != "email.sent"`},
	}
	for _, dest := range dests {
		send := func(ctx context.Context, records []*stream.Record, replay string) []byte {
			got = nil
			d.Deliver(ctx, delivery.Delivery{Destination: dest, Records: records, Attempt: 1, ReplayID: replay})
			return bytes.ReplaceAll(got, []byte(`"historical_migration":true,`), nil)
		}
		for _, part := range [][]*stream.Record{records, records[1:], records[:len(records)-7], records} {
			live := send(t.Context(), part, "")
			require.NotEmpty(t, live)
			require.Equal(t, string(live), string(send(t.Context(), part, "r1")), dest.ID)
		}
	}
}
