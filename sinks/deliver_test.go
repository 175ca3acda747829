package sinks

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/signing"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/reader"
)

func newDeliverer(t testing.TB, cfg Config) *Deliverer {
	t.Helper()
	d, err := New(cfg, schemas.NewCodec(), zap.NewNop(), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return d
}

// receiving is a receiver and a destination that points at it.
func receiving(t testing.TB, opts sinktest.Options) (*sinktest.Receiver, *storage.Destination) {
	t.Helper()
	secret := signing.NewSecret()
	opts.Secrets = []string{secret}
	r, err := sinktest.New(opts)
	require.NoError(t, err)
	url, err := r.Start("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r, &storage.Destination{ID: "d1", Name: "test", Kind: "webhook", URL: url, Secret: secret, Revision: 1}
}

func TestAFactArrivesSignedAndWhole(t *testing.T) {
	r, dest := receiving(t, sinktest.Options{Keep: 10})
	d := newDeliverer(t, Config{AllowLoopback: true, Version: "1.2.3"})
	fact := sinktest.Fact(schemas.FactContactUpdated)
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(fact, 7)}, Attempt: 1, ReplayID: "r1"})

	require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
	require.Equal(t, 204, out.Status)
	require.Positive(t, out.Latency)
	require.Equal(t, 0, r.Stats().BadSignatures)
	got := r.Messages()[0]
	require.Empty(t, got.Problem)
	require.Equal(t, string(samplePayload(t, schemas.FactContactUpdated).Envelope), string(got.Body))
	require.Equal(t, "Hogstream/1.2.3", got.Header.Get("User-Agent"))
	require.Equal(t, "r1", got.Header.Get("Hogstream-Replay"))
	require.Empty(t, got.Header.Get("Accept-Encoding"))
}

func TestAnAnswerDecidesWhatFollows(t *testing.T) {
	for status, want := range map[int]delivery.Verdict{
		200: delivery.Delivered, 201: delivery.Delivered, 204: delivery.Delivered, 299: delivery.Delivered,
		408: delivery.Retry, 425: delivery.Retry, 429: delivery.Retry, 500: delivery.Retry, 502: delivery.Retry, 503: delivery.Retry, 599: delivery.Retry,
		409: delivery.Retry, 421: delivery.Retry, 423: delivery.Retry, 424: delivery.Retry,
		400: delivery.Reject, 413: delivery.Reject, 422: delivery.Reject,
		301: delivery.Refuse, 302: delivery.Refuse, 307: delivery.Refuse, 308: delivery.Refuse, 304: delivery.Refuse,
		401: delivery.Refuse, 403: delivery.Refuse, 404: delivery.Refuse, 405: delivery.Refuse,
		402: delivery.Refuse, 406: delivery.Refuse, 415: delivery.Refuse, 418: delivery.Refuse, 431: delivery.Refuse, 451: delivery.Refuse,
		410: delivery.Gone,
	} {
		require.Equal(t, want, JudgeStatus(status), "%d", status)
	}
}

func TestRetryAfterIsReadInBothFormsAndCapped(t *testing.T) {
	now := at("2026-01-02T03:04:05Z")
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "1.5": 1500 * time.Millisecond, "0": 0, "-3": 0, "nonsense": 0,
		"NaN": 0, "inf": time.Hour, "99999999999999999999": time.Hour, "7200": time.Hour,
		now.Add(30 * time.Second).Format(http.TimeFormat): 30 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
		now.Add(48 * time.Hour).Format(http.TimeFormat):   time.Hour,
		"Friday, 02-Jan-26 03:04:35 GMT":                  30 * time.Second,
		"Fri Jan  2 03:04:35 2026":                        30 * time.Second,
	} {
		require.Equal(t, want, retryAfter(header, now), "%q", header)
	}
}

func TestWhateverAReceiverDoesTheAttemptEnds(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  sinktest.Answer
		want    delivery.Verdict
		status  int
		inError string
	}{
		{"bad request", sinktest.Answer{Status: 400, Body: "no\x00good\xff"}, delivery.Reject, 400, "HTTP 400"},
		{"asks to wait", sinktest.Answer{Status: 429, RetryAfter: "3"}, delivery.Retry, 429, "HTTP 429"},
		{"fails", sinktest.Answer{Status: 500}, delivery.Retry, 500, "HTTP 500"},
		{"hangs", sinktest.Answer{Hang: true}, delivery.Retry, 0, "timeout after"},
		{"resets", sinktest.Answer{Reset: true}, delivery.Retry, 0, ""},
		{"speaks another protocol", sinktest.Answer{Garbage: true}, delivery.Retry, 0, "malformed"},
		{"drips its body after a 200", sinktest.Answer{Status: 200, SlowBody: true}, delivery.Delivered, 200, ""},
		{"drips its body after a 500", sinktest.Answer{Status: 500, SlowBody: true}, delivery.Retry, 500, "HTTP 500"},
		{"answers at length", sinktest.Answer{Status: 500, Body: strings.Repeat("ü", 100_000)}, delivery.Retry, 500, "HTTP 500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, dest := receiving(t, sinktest.Options{Script: func(*sinktest.Message) sinktest.Answer { return c.answer }})
			d := newDeliverer(t, Config{AllowLoopback: true, Timeout: 300 * time.Millisecond})
			start := time.Now()
			out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(sinktest.Event(), 1)}})
			require.Less(t, time.Since(start), 5*time.Second)
			require.Equal(t, c.want, out.Verdict, "%+v", out)
			require.Equal(t, c.status, out.Status)
			require.Contains(t, out.Err, c.inError)
			require.LessOrEqual(t, len(out.Response), 1<<10+16)
			require.NotContains(t, string(out.Response), "\x00")
			require.True(t, json.Valid(appendString(nil, string(out.Response))))
			if c.answer.RetryAfter != "" {
				require.Equal(t, 3*time.Second, out.RetryAfter)
			}
		})
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	var followed bool
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	defer target.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		from := httptest.NewServer(http.RedirectHandler(target.URL, status))
		d := newDeliverer(t, Config{AllowLoopback: true})
		dest := &storage.Destination{ID: "d1", Kind: "webhook", URL: from.URL, Secret: signing.NewSecret(), Revision: 1}
		out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(sinktest.Event(), 1)}})
		require.Equal(t, delivery.Refuse, out.Verdict)
		require.False(t, followed)
		from.Close()
	}
}

func TestAReceiverThatIsNotAllowedIsTheDestinationsFault(t *testing.T) {
	_, dest := receiving(t, sinktest.Options{})
	// The URL passes the check of the settings; what it leads to does not pass that
	// of the connection.
	d := newDeliverer(t, Config{AllowLoopback: true})
	require.NoError(t, d.open(dest).err)
	d.client = transport.New(transport.Config{})
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(sinktest.Event(), 1)}})
	require.Equal(t, delivery.Refuse, out.Verdict, "%+v", out)
	require.Contains(t, out.Err, "blocked by the guard")
}

func TestSettingsThatCannotBeUsedRefuseAndAnUndecodableRecordIsRejected(t *testing.T) {
	d := newDeliverer(t, Config{AllowLoopback: true})
	_, dest := receiving(t, sinktest.Options{})
	bad := *dest
	bad.ID, bad.Secret = "d2", "whsec_x"
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: &bad, Records: []*stream.Record{sinktest.Record(sinktest.Event(), 1)}})
	require.Equal(t, delivery.Refuse, out.Verdict)
	bad.ID, bad.Kind = "d3", "pigeon"
	out = d.Deliver(t.Context(), delivery.Delivery{Destination: &bad, Records: []*stream.Record{sinktest.Record(sinktest.Event(), 1)}})
	require.Equal(t, delivery.Refuse, out.Verdict)
	require.Contains(t, out.Err, "pigeon")

	broken := sinktest.Record(sinktest.Event(), 1)
	broken.Value = []byte("garbage")
	out = d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{broken}})
	require.Equal(t, delivery.Reject, out.Verdict)
}

func TestANewRevisionIsUsedAtOnce(t *testing.T) {
	r, dest := receiving(t, sinktest.Options{})
	d := newDeliverer(t, Config{AllowLoopback: true})
	rec := sinktest.Record(sinktest.Event(), 1)
	require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{rec}}).Verdict)
	rotated := *dest
	rotated.Secret, rotated.Revision = signing.NewSecret(), 2
	require.NoError(t, r.SetSecrets(rotated.Secret))
	require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), delivery.Delivery{Destination: &rotated, Records: []*stream.Record{rec}}).Verdict)
	require.Equal(t, 1, r.Stats().Duplicates)
}

func TestManyAttemptsAtOnceShareConnections(t *testing.T) {
	r, dest := receiving(t, sinktest.Options{})
	d := newDeliverer(t, Config{AllowLoopback: true})
	var wg sync.WaitGroup
	outs := make(chan delivery.Outcome, 2000)
	for w := range 64 {
		wg.Go(func() {
			for i := range 25 {
				e := sinktest.Event()
				e.ID = fmt.Sprintf("00000000-0000-7000-8000-%06d%06d", w, i)
				outs <- d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(e, int64(i))}})
			}
		})
	}
	wg.Wait()
	close(outs)
	for out := range outs {
		require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
	}
	require.Equal(t, 1600, r.Stats().Unique)
	require.Zero(t, r.Stats().BadSignatures)
}

func TestABackfillWaitsForItsPlaceAndLiveDeliveriesDoNot(t *testing.T) {
	r, dest := receiving(t, sinktest.Options{Keep: 10})
	d := newDeliverer(t, Config{AllowLoopback: true})
	records := []*stream.Record{sinktest.Record(sinktest.Fact(schemas.FactContactUpdated), 7)}
	limiter := reader.NewCPULimiter()
	release := make(chan struct{})
	var computing, left sync.WaitGroup
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		computing.Add(1)
		left.Go(func() { limiter.Do(context.Background(), func() { computing.Done(); <-release }) })
	}
	computing.Wait()
	soon, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	backfill := delivery.Delivery{Destination: dest, Records: records, Attempt: 1, ReplayID: "r1", CPULimiter: limiter}
	require.Equal(t, delivery.Retry, d.Deliver(soon, backfill).Verdict)
	require.Empty(t, r.Messages())

	live := delivery.Delivery{Destination: dest, Records: records, Attempt: 1}
	require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), live).Verdict)

	close(release)
	left.Wait()
	require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), backfill).Verdict)
	require.True(t, limiter.Do(t.Context(), func() {}), "it has given its place back")
}

func TestDeliveriesGoThroughTheProxyAndWaitForItWhenItIsAway(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.RequestURI)
	}))
	address, err := transport.ParseProxy(proxy.URL)
	require.NoError(t, err)
	d := newDeliverer(t, Config{AllowLoopback: true, Proxy: address})
	dest := &storage.Destination{ID: "d1", Name: "test", Kind: "webhook", URL: "http://127.0.0.1:8080/hook", Secret: signing.NewSecret(), Revision: 1}
	sent := delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(sinktest.Event(), 1)}, Attempt: 1}
	require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), sent).Verdict)
	require.Equal(t, []string{"POST http://127.0.0.1:8080/hook"}, asked)
	proxy.Close()
	require.Equal(t, delivery.Retry, d.Deliver(t.Context(), sent).Verdict)
}
