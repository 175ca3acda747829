package destinations

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/signing"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// verifiesAsymmetric checks a request as the standard says, with nothing but the
// public key.
func verifiesAsymmetric(t *testing.T, public string, header http.Header, body []byte) bool {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(public, "whpk_"))
	require.NoError(t, err)
	require.Len(t, key, ed25519.PublicKeySize)
	message := header.Get("Webhook-Id") + "." + header.Get("Webhook-Timestamp") + "." + string(body)
	for _, part := range strings.Split(header.Get("Webhook-Signature"), " ") {
		version, encoded, _ := strings.Cut(part, ",")
		sig, err := base64.StdEncoding.DecodeString(encoded)
		require.NoError(t, err)
		if version == "v1a" && ed25519.Verify(key, []byte(message), sig) {
			return true
		}
	}
	return false
}

// verifies checks a request as the standard's own library does.
func verifies(t *testing.T, secret string, header http.Header, body []byte) bool {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	return wh.Verify(body, header) == nil
}

func TestAWebhookMaySignWithAKeyThatReceiversVerifyWithoutASecret(t *testing.T) {
	o := newOperations(t)
	var header http.Header
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, _ = io.ReadAll(r.Body)
	}))
	defer srv.Close()
	send := func(id string) []string {
		tested, err := o.Test(t.Context(), id, Sample{})
		require.NoError(t, err)
		require.True(t, tested.Delivered, "%+v", tested)
		return strings.Split(header.Get("Webhook-Signature"), " ")
	}
	made, err := o.Create(t.Context(), Settings{URL: srv.URL, EventTypes: []string{"*"}})
	require.NoError(t, err)
	require.Nil(t, made.PublicKey)
	require.Len(t, send(made.ID), 1)

	updated, err := o.Update(t.Context(), made.ID, Patch{Config: json.RawMessage(`{"ed25519":true}`)})
	require.NoError(t, err)
	require.NotNil(t, updated.PublicKey)
	require.True(t, strings.HasPrefix(*updated.PublicKey, "whpk_"))
	require.Len(t, send(made.ID), 2, "the one with the secret stays")
	require.True(t, verifiesAsymmetric(t, *updated.PublicKey, header, body))
	require.True(t, verifies(t, made.Secret, header, body))
	body[5] ^= 1
	require.False(t, verifiesAsymmetric(t, *updated.PublicKey, header, body))

	shown, err := json.Marshal(updated)
	require.NoError(t, err)
	stored, err := o.find(t.Context(), made.ID)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(stored.SigningKey, "whsk_"))
	require.NotContains(t, string(shown), strings.TrimPrefix(stored.SigningKey, "whsk_")[:43], "the private key never leaves")
	var plain int
	require.NoError(t, storagetest.SQL(o.db).QueryRow(t.Context(), `SELECT count(*) FROM destinations WHERE signing_key::text LIKE '%' || encode(convert_to($1, 'UTF8'), 'hex') || '%'`,
		stored.SigningKey).Scan(&plain))
	require.Zero(t, plain, "it is sealed")

	same, err := o.Update(t.Context(), made.ID, Patch{Description: new("x")})
	require.NoError(t, err)
	require.Equal(t, *updated.PublicKey, *same.PublicKey)

	rotated, err := o.RotateSecret(t.Context(), made.ID, Rotation{})
	require.NoError(t, err)
	require.NotEqual(t, *updated.PublicKey, *rotated.PublicKey)
	require.Len(t, send(made.ID), 4)
	for _, public := range []string{*updated.PublicKey, *rotated.PublicKey} {
		require.True(t, verifiesAsymmetric(t, public, header, body))
	}
	for _, secret := range []string{made.Secret, rotated.Secret} {
		require.True(t, verifies(t, secret, header, body))
	}
	_, err = o.RotateSecret(t.Context(), made.ID, Rotation{Overlap: new(time.Duration(0)), Force: true})
	require.NoError(t, err)
	require.Len(t, send(made.ID), 2)
	require.False(t, verifiesAsymmetric(t, *rotated.PublicKey, header, body))

	off, err := o.Update(t.Context(), made.ID, Patch{Config: json.RawMessage(`{"ed25519":false}`)})
	require.NoError(t, err)
	require.Nil(t, off.PublicKey)
	require.Len(t, send(made.ID), 1)
}

func TestKeysMadeElsewhereAreTakenAndWrongOnesAreRefusedWithTheFix(t *testing.T) {
	o := newOperations(t)
	_, key, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	whole, seed := "whsk_"+base64.StdEncoding.EncodeToString(key), "whsk_"+base64.StdEncoding.EncodeToString(key.Seed())
	public := "whpk_" + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	mixed := append(bytes.Clone(key.Seed()), make([]byte, 32)...)
	secret := signing.NewSecret()
	asymmetric := json.RawMessage(`{"ed25519":true}`)
	made, err := o.Create(t.Context(), Settings{Name: "mine", URL: "https://example.com", EventTypes: []string{"*"}, Config: asymmetric, Secret: secret, SigningKey: seed})
	require.NoError(t, err)
	require.Equal(t, secret[:12], *made.SecretPrefix)
	require.Equal(t, public, *made.PublicKey)
	stored, err := o.find(t.Context(), "mine")
	require.NoError(t, err)
	require.Equal(t, []string{secret, whole}, []string{stored.Secret, stored.SigningKey})

	next := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)) // the prefix may be missing
	rotated, err := o.RotateSecret(t.Context(), "mine", Rotation{Secret: next})
	require.NoError(t, err)
	require.Equal(t, "whsec_"+next, rotated.Secret)
	require.NotEqual(t, public, *rotated.PublicKey, "the one that is not given is made")
	rotated, err = o.RotateSecret(t.Context(), "mine", Rotation{SigningKey: whole, Force: true})
	require.NoError(t, err)
	require.Equal(t, public, *rotated.PublicKey)

	for _, get := range []func() (any, error){
		func() (any, error) { return o.Get(t.Context(), "mine") },
		func() (any, error) { return o.List(t.Context()) },
		func() (any, error) { return o.Update(t.Context(), "mine", Patch{Description: new("x")}) },
	} {
		v, err := get()
		require.NoError(t, err)
		shown, err := json.Marshal(v)
		require.NoError(t, err)
		for _, hidden := range []string{rotated.Secret, whole, seed} {
			require.NotContains(t, string(shown), hidden[6:30])
		}
	}

	for _, c := range []struct{ kind, secret, signing, field, want string }{
		{"webhook", "whsec_c2hvcnQ=", "", "secret", "24 to 64"},
		{"webhook", "whsec_a-b_", "", "secret", "not standard base64"},
		{"webhook", whole, "", "secret", "as signingKey"},
		{"webhook", "", secret, "signingKey", "does not begin with whsk_"},
		{"webhook", "", public, "signingKey", "is a public key"},
		{"webhook", "", "whsk_***", "signingKey", "not standard base64"},
		{"webhook", "", "whsk_c2hvcnQ=", "signingKey", "has 5 bytes"},
		{"webhook", "", "whsk_" + base64.StdEncoding.EncodeToString(mixed), "signingKey", "not that of its seed"},
		{"webhook without ed25519", "", whole, "signingKey", "config.ed25519"},
		{"posthog", secret, "", "secret", "signs nothing"},
	} {
		s := Settings{Kind: c.kind, URL: "https://example.com", EventTypes: []string{"*"}, Config: asymmetric, Secret: c.secret, SigningKey: c.signing}
		switch c.kind {
		case "posthog":
			s.Config = json.RawMessage(`{"apiKey":"k"}`)
		case "webhook without ed25519":
			s.Kind, s.Config = "webhook", nil
		}
		_, err := o.Create(t.Context(), s)
		var wrong *InvalidError
		require.ErrorAs(t, err, &wrong, "%+v", c)
		require.Equal(t, c.field, wrong.Field)
		require.Contains(t, wrong.Message, c.want)
		for _, given := range []string{c.secret, c.signing} {
			require.False(t, len(given) > 20 && strings.Contains(wrong.Message, given[6:20]), "it does not show what was given")
		}
	}
	_, err = o.RotateSecret(t.Context(), "mine", Rotation{Secret: rotated.Secret, Force: true})
	require.ErrorContains(t, err, "secret: is the one that it has")
	_, err = o.RotateSecret(t.Context(), "mine", Rotation{SigningKey: "whsk_x", Force: true})
	require.ErrorContains(t, err, "signingKey: ")
}
