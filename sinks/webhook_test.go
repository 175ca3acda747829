package sinks

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
)

func TestSignatureMatchesThePublishedVectors(t *testing.T) {
	for _, v := range []struct{ secret, id, ts, body, want string }{
		{"whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", "msg_abc", "1700000000",
			`{"id":"msg_abc","type":"contact.created","timestamp":"2023-11-14T22:13:20.000Z","data":{}}`,
			"v1,vK82tIvvUyRyOagHyKoWDiDPObn3jAL1+Q3fJZ/uMMQ="},
		{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", `{"test": 2432232314}`,
			"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
	} {
		s, err := newSigner(v.secret)
		require.NoError(t, err)
		for range 2 { // the state of HMAC is used again
			require.Equal(t, v.want, string(s.append(nil, v.id, v.ts, []byte(v.body))))
		}
	}
}

func TestNewSecretIsWhatStrictDecodersTake(t *testing.T) {
	a, b := NewSecret(), NewSecret()
	require.NotEqual(t, a, b)
	require.Len(t, a, 50)
	require.True(t, strings.HasPrefix(a, "whsec_"))
	require.NotContains(t, a[6:], "-")
	require.NotContains(t, a[6:], "_")
	key, err := base64.StdEncoding.DecodeString(a[6:])
	require.NoError(t, err)
	require.Len(t, key, 32)
	require.Equal(t, a[:12], SecretPrefix(a))
}

func TestASecretOutsideTheStandardIsRefusedWithoutShowingIt(t *testing.T) {
	enc := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for secret, want := range map[string]string{
		"": "can't be empty", "whsec_": "0 bytes", enc(23): "23 bytes", enc(65): "65 bytes", "whsec_a-b_": "base64",
	} {
		_, err := newSigner(secret)
		require.ErrorContains(t, err, want)
		if len(secret) > 6 {
			require.NotContains(t, err.Error(), secret)
		}
	}
	for _, n := range []int{24, 64} {
		_, err := newSigner(enc(n))
		require.NoError(t, err)
	}
}

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
	secret := NewSecret()
	sink := openTestWebhook(t, &storage.Destination{Secret: secret, Config: json.RawMessage(`{"headers":{"x-api-key":"k1"}}`)})
	p := samplePayload(t, schemas.FactContactCreated)
	now := time.Now()
	req, err := sink.Build(&Attempt{Now: now, Payloads: []*Payload{p}})
	require.NoError(t, err)
	require.Equal(t, "https://example.com/hook?x=1", req.URL.String())
	require.Equal(t, string(p.Envelope), string(req.Body))
	require.Equal(t, "msg_"+testFactID, req.Header.Get("Webhook-Id"))
	require.Equal(t, unixSeconds(now), req.Header.Get("Webhook-Timestamp"))
	require.Equal(t, "application/json", req.Header.Get("Content-Type"))
	require.Equal(t, "k1", req.Header.Get("X-Api-Key"))
	verify(t, secret, req, true)
	verify(t, NewSecret(), req, false)
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
	current, previous := NewSecret(), NewSecret()
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
		_, err := openWebhook(&storage.Destination{URL: "https://example.com", Secret: NewSecret(), Config: json.RawMessage(config)}, transport.NewGuard(transport.Config{}))
		require.ErrorContains(t, err, want)
	}
}

func FuzzSignatureIsAcceptedByThePublicLibrary(f *testing.F) {
	f.Add("a", []byte(`{"x":1}`))
	f.Fuzz(func(t *testing.T, id string, body []byte) {
		secret := "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
		s, err := newSigner(secret)
		require.NoError(t, err)
		ts := unixSeconds(time.Now())
		id = "msg_" + url.QueryEscape(id)
		h := http.Header{}
		h.Set("webhook-id", id)
		h.Set("webhook-timestamp", ts)
		h.Set("webhook-signature", string(s.append(nil, id, ts, body)))
		wh, err := standardwebhooks.NewWebhook(secret)
		require.NoError(t, err)
		require.NoError(t, wh.Verify(body, h))
	})
}

func TestAHeaderWithALineBreakIsRefused(t *testing.T) {
	for name, value := range map[string]string{"X-A": "a\r\nX-B: b", "X-B": "a\nb", "X-C": "a\x00", "X-D: y\r\nX-E": "v", "X F": "v", "": "v"} {
		require.Error(t, addHeaders(http.Header{}, map[string]string{name: value}), "%q: %q", name, value)
	}
	require.NoError(t, addHeaders(http.Header{}, map[string]string{"X-A": "a, b; c=\"d\"\te"}))
}
