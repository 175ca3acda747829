package signing_test

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/signing"
)

func TestWhatIsSignedVerifiesAndNothingElseDoes(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	secret, private := signing.NewSecret(), signing.NewKey()
	sign, err := signing.OpenSecret(secret)
	require.NoError(t, err)
	key, err := signing.OpenKey(private)
	require.NoError(t, err)
	body := []byte(`{"a":1}`)
	request := func(at time.Time) http.Header {
		timestamp := strconv.FormatInt(at.Unix(), 10)
		signature := append(append(sign.Append(nil, "msg_1", timestamp, body), ' '), key.Append(nil, "msg_1", timestamp, body)...)
		return http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {"v1,AAAA " + string(signature)}}
	}
	for _, k := range []string{secret, signing.PublicKey(private)} {
		require.NoError(t, signing.Verify(k, request(now), body, now))
		require.NoError(t, signing.Verify(k, request(now.Add(-signing.Tolerance)), body, now))
		require.ErrorContains(t, signing.Verify(k, request(now), []byte(`{"a":2}`), now), "fits the key and the body")
		require.ErrorContains(t, signing.Verify(k, request(now.Add(-signing.Tolerance-time.Second)), body, now), "away from now")
		require.ErrorContains(t, signing.Verify(k, request(now.Add(signing.Tolerance+time.Second)), body, now), "away from now")
		for _, name := range []string{signing.HeaderID, signing.HeaderTimestamp, signing.HeaderSignature} {
			h := request(now)
			h.Del(name)
			require.ErrorContains(t, signing.Verify(k, h, body, now), "is missing")
		}
		h := request(now)
		h.Set("Webhook-Id", "msg_2")
		require.Error(t, signing.Verify(k, h, body, now))
		h.Set("Webhook-Timestamp", "yesterday")
		require.ErrorContains(t, signing.Verify(k, h, body, now), "seconds since 1970")
	}
	require.Error(t, signing.Verify(signing.NewSecret(), request(now), body, now))
	require.Error(t, signing.Verify(signing.PublicKey(signing.NewKey()), request(now), body, now))
	require.ErrorContains(t, signing.Verify("whpk_x", request(now), body, now), "public key")
	require.ErrorContains(t, signing.Verify("whsec_x", request(now), body, now), "neither a secret (whsec_")
}

func FuzzVerify(f *testing.F) {
	f.Add("msg_1", "1700000000", "v1,AAAA v1a,BBBB", "{}")
	secret := signing.NewSecret()
	f.Fuzz(func(t *testing.T, id, timestamp, signature, body string) {
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {signature}}
		if signing.Verify(secret, h, []byte(body), time.Unix(1_700_000_000, 0)) == nil {
			t.Fatal("what nobody signed verifies")
		}
	})
}
