package sinks

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
	verify(t, made.Secret, &Request{Header: header, Body: body}, true)
	body[5] ^= 1
	require.False(t, verifiesAsymmetric(t, *updated.PublicKey, header, body))

	shown, err := json.Marshal(updated)
	require.NoError(t, err)
	stored, err := o.find(t.Context(), made.ID)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(stored.SigningKey, "whsk_"))
	require.NotContains(t, string(shown), strings.TrimPrefix(stored.SigningKey, "whsk_")[:43], "the private key never leaves")
	var plain int
	require.NoError(t, o.db.QueryRow(t.Context(), `SELECT count(*) FROM destinations WHERE signing_key::text LIKE '%' || encode(convert_to($1, 'UTF8'), 'hex') || '%'`,
		stored.SigningKey).Scan(&plain))
	require.Zero(t, plain, "it is sealed")

	same, err := o.Update(t.Context(), made.ID, Patch{Description: ptr("x")})
	require.NoError(t, err)
	require.Equal(t, *updated.PublicKey, *same.PublicKey)

	rotated, err := o.RotateSecret(t.Context(), made.ID, nil)
	require.NoError(t, err)
	require.NotEqual(t, *updated.PublicKey, *rotated.PublicKey)
	require.Len(t, send(made.ID), 4)
	for _, public := range []string{*updated.PublicKey, *rotated.PublicKey} {
		require.True(t, verifiesAsymmetric(t, public, header, body))
	}
	for _, secret := range []string{made.Secret, rotated.Secret} {
		verify(t, secret, &Request{Header: header, Body: body}, true)
	}
	_, err = o.RotateSecret(t.Context(), made.ID, ptr(time.Duration(0)))
	require.NoError(t, err)
	require.Len(t, send(made.ID), 2)
	require.False(t, verifiesAsymmetric(t, *rotated.PublicKey, header, body))

	off, err := o.Update(t.Context(), made.ID, Patch{Config: json.RawMessage(`{"ed25519":false}`)})
	require.NoError(t, err)
	require.Nil(t, off.PublicKey)
	require.Len(t, send(made.ID), 1)
}
