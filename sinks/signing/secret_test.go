package signing

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

func TestSignatureMatchesThePublishedVectors(t *testing.T) {
	for _, v := range []struct{ secret, id, ts, body, want string }{
		{"whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", "msg_abc", "1700000000",
			`{"id":"msg_abc","type":"contact.created","timestamp":"2023-11-14T22:13:20.000Z","data":{}}`,
			"v1,vK82tIvvUyRyOagHyKoWDiDPObn3jAL1+Q3fJZ/uMMQ="},
		{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", `{"test": 2432232314}`,
			"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
	} {
		s, err := OpenSecret(v.secret)
		require.NoError(t, err)
		for range 2 { // the state of HMAC is used again
			require.Equal(t, v.want, string(s.Append(nil, v.id, v.ts, []byte(v.body))))
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
	require.Equal(t, a[:12], Shown(a))
}

func TestASecretOutsideTheStandardIsRefusedWithoutShowingIt(t *testing.T) {
	enc := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for secret, want := range map[string]string{
		"": "can't be empty", "whsec_": "0 bytes", enc(23): "23 bytes", enc(65): "65 bytes", "whsec_a-b_": "base64",
	} {
		_, err := OpenSecret(secret)
		require.ErrorContains(t, err, want)
		if len(secret) > 6 {
			require.NotContains(t, err.Error(), secret)
		}
	}
	for _, n := range []int{24, 64} {
		_, err := OpenSecret(enc(n))
		require.NoError(t, err)
	}
}

func FuzzSignatureIsAcceptedByThePublicLibrary(f *testing.F) {
	f.Add("a", []byte(`{"x":1}`))
	f.Fuzz(func(t *testing.T, id string, body []byte) {
		secret := "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
		s, err := OpenSecret(secret)
		require.NoError(t, err)
		ts := strconv.FormatInt(time.Now().Unix(), 10)
		id = "msg_" + url.QueryEscape(id)
		h := http.Header{}
		h.Set("webhook-id", id)
		h.Set("webhook-timestamp", ts)
		h.Set("webhook-signature", string(s.Append(nil, id, ts, body)))
		wh, err := standardwebhooks.NewWebhook(secret)
		require.NoError(t, err)
		require.NoError(t, wh.Verify(body, h))
	})
}
