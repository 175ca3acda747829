package storage_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/storage"
)

var d1 = storage.Cell{Table: "destinations", Column: "secret", Row: "d1"}

func newBox(t testing.TB, previous ...[]byte) (*storage.Box, []byte) {
	t.Helper()
	key, err := storage.ParseKey(storage.GenerateKey())
	require.NoError(t, err)
	box, err := storage.NewBox(key, previous...)
	require.NoError(t, err)
	return box, key
}

func TestASealedSecretOpensForItsOwnerAloneAndHidesItself(t *testing.T) {
	t.Parallel()
	box, _ := newBox(t)
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOf(rapid.Byte()).Draw(t, "secret")
		owner := rapid.String().Draw(t, "owner")
		at := storage.Cell{Table: "t", Column: "c", Row: owner}
		sealed := box.Seal(secret, at)
		opened, err := box.Open(sealed, at)
		require.NoError(t, err)
		require.Equal(t, string(secret), string(opened))
		require.NotEqual(t, sealed, box.Seal(secret, at))
		for _, other := range []storage.Cell{{"t", "c", owner + "x"}, {"t", "d", owner}, {"u", "c", owner}} {
			_, err = box.Open(sealed, other)
			require.Error(t, err)
		}
	})
	require.NotContains(t, string(box.Seal([]byte("whsec_hunter2"), d1)), "hunter2")
}

func TestASealedSecretWithAnyByteChangedDoesNotOpen(t *testing.T) {
	t.Parallel()
	box, _ := newBox(t)
	sealed := box.Seal([]byte("whsec_hunter2"), d1)
	for i := range sealed {
		tampered := append([]byte(nil), sealed...)
		tampered[i] ^= 1
		opened, err := box.Open(tampered, d1)
		require.Error(t, err, "byte %d: %q", i, opened)
		require.NotContains(t, err.Error(), "hunter2")
	}
	for _, garbage := range []string{"", "v1", "v1::", "whsec_plain", "v1:00000000:AAAA", string(sealed[:20])} {
		_, err := box.Open([]byte(garbage), d1)
		require.Error(t, err, garbage)
	}
}

func TestAKeyIsRotatedByKeepingTheOldOneAsPrevious(t *testing.T) {
	t.Parallel()
	before, old := newBox(t)
	sealed := before.Seal([]byte("s"), d1)
	require.False(t, before.Stale(sealed))

	forgetful, _ := newBox(t)
	_, err := forgetful.Open(sealed, d1)
	require.ErrorIs(t, err, storage.ErrSecretKey)

	after, _ := newBox(t, old)
	opened, err := after.Open(sealed, d1)
	require.NoError(t, err)
	require.Equal(t, "s", string(opened))
	require.True(t, after.Stale(sealed))
	require.False(t, after.Stale(after.Seal(opened, d1)))
}

func TestAKeyIsReadInEveryCommonFormAndRefusedWithTheFix(t *testing.T) {
	t.Parallel()
	raw := []byte(strings.Repeat("\xfb\xff\x01\x02", 8))
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		key, err := storage.ParseKey(" " + encoding.EncodeToString(raw) + "\n")
		require.NoError(t, err)
		require.Equal(t, raw, key)
	}
	for _, bad := range []string{"", "not base64!", base64.StdEncoding.EncodeToString(raw[:16])} {
		_, err := storage.ParseKey(bad)
		require.ErrorContains(t, err, "openssl rand -base64 32", bad)
	}
	_, err := storage.NewBox(raw, raw[:5])
	require.ErrorContains(t, err, "secret key 2 of 2: 5 bytes")
}
