package sinks

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/signing"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
)

func openTestWebhook(t *testing.T, dest *storage.Destination) Sink {
	t.Helper()
	if dest.URL == "" {
		dest.URL = "https://example.com/hook?x=1"
	}
	s, err := openWebhook(dest, transport.NewGuard(transport.Config{}))
	require.NoError(t, err)
	return s
}

func TestRequestIsTheEnvelopeWithTheHeadersOfStandardWebhooks(t *testing.T) {
	secret := signing.NewSecret()
	sink := openTestWebhook(t, &storage.Destination{Secret: secret, Config: json.RawMessage(`{"headers":{"x-api-key":"k1"}}`)})
	p := samplePayload(t, schemas.FactContactCreated)
	now := time.Now()
	req, err := sink.Build(&Attempt{Now: now, Payloads: []*Payload{p}})
	require.NoError(t, err)
	require.Equal(t, "https://example.com/hook?x=1", req.URL.String())
	require.Equal(t, string(p.Envelope), string(req.Body))
	require.Equal(t, "msg_"+sinktest.FactID, req.Header.Get("Webhook-Id"))
	require.Equal(t, strconv.FormatInt(now.Unix(), 10), req.Header.Get("Webhook-Timestamp"))
	require.Equal(t, "application/json", req.Header.Get("Content-Type"))
	require.Equal(t, "k1", req.Header.Get("X-Api-Key"))
	verify(t, secret, req, true)
	verify(t, signing.NewSecret(), req, false)
	req.Body = append([]byte(" "), req.Body...)
	verify(t, secret, req, false)
}

func verify(t *testing.T, secret string, req *transport.Request, want bool) {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	require.Equal(t, want, wh.Verify(req.Body, req.Header) == nil)
}

func TestBothSecretsSignUntilTheOverlapEnds(t *testing.T) {
	current, previous := signing.NewSecret(), signing.NewSecret()
	now := time.Now()
	until := now.Add(time.Minute)
	sink := openTestWebhook(t, &storage.Destination{Secret: current, PreviousSecret: previous, PreviousSecretUntil: &until})
	p := samplePayload(t, schemas.FactContactCreated)

	req, err := sink.Build(&Attempt{Now: now, Payloads: []*Payload{p}})
	require.NoError(t, err)
	require.Len(t, strings.Split(req.Header.Get("Webhook-Signature"), " "), 2)
	verify(t, current, req, true)
	verify(t, previous, req, true)

	req, err = sink.Build(&Attempt{Now: until, Payloads: []*Payload{p}})
	require.NoError(t, err)
	require.Len(t, strings.Split(req.Header.Get("Webhook-Signature"), " "), 1)
}

func TestAWebhookConfigErrorNamesTheField(t *testing.T) {
	for config, want := range map[string]string{
		`{"headres":{}}`:                           `config: unknown field "headres"`,
		`{"headers":{"a b":"x"}}`:                  "config.headers",
		`{"headers":{"x":"a\nb"}}`:                 "config.headers.x",
		`{"headers":{"webhook-signature":"x"}}`:    "config.headers.webhook-signature",
		`{"headers":{"content-length":"1"}}`:       "config.headers.content-length",
		`{"headers":{"Transfer-Encoding":"gzip"}}`: "config.headers.Transfer-Encoding",
		`[1]`: "config:",
	} {
		_, err := openWebhook(&storage.Destination{URL: "https://example.com", Secret: signing.NewSecret(), Config: json.RawMessage(config)}, transport.NewGuard(transport.Config{}))
		require.ErrorContains(t, err, want)
	}
}

func TestAHeaderWithALineBreakIsRefused(t *testing.T) {
	for name, value := range map[string]string{"X-A": "a\r\nX-B: b", "X-B": "a\nb", "X-C": "a\x00", "X-D: y\r\nX-E": "v", "X F": "v", "": "v"} {
		require.Error(t, addHeaders(http.Header{}, map[string]string{name: value}), "%q: %q", name, value)
	}
	require.NoError(t, addHeaders(http.Header{}, map[string]string{"X-A": "a, b; c=\"d\"\te"}))
}

func TestASignatureIsFoundAmongOthersAndIsNoneWithoutAHeaderOrAfterFiveMinutes(t *testing.T) {
	secret := signing.NewSecret()
	sink := openTestWebhook(t, &storage.Destination{Secret: secret})
	p := samplePayload(t, schemas.FactContactCreated)
	build := func(at time.Time) *transport.Request {
		req, err := sink.Build(&Attempt{Now: at, Payloads: []*Payload{p}})
		require.NoError(t, err)
		return req
	}
	wh, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)

	req := build(time.Now())
	req.Header.Set("Webhook-Signature", "v1a,x v1,wrong "+req.Header.Get("Webhook-Signature"))
	require.NoError(t, wh.Verify(req.Body, req.Header))
	for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} { // in any case
		header := req.Header.Clone()
		header.Del(name)
		require.Error(t, wh.Verify(req.Body, header), name)
	}
	require.NoError(t, wh.Verify(p.Envelope, build(time.Now().Add(-290*time.Second)).Header))
	require.Error(t, wh.Verify(p.Envelope, build(time.Now().Add(-302*time.Second)).Header))
}
