package storage_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/storage"
)

var d1 = storage.Cell{Table: "destinations", Column: "secret", Row: "d1"}

func newBox(t testing.TB, previous ...[]byte) (*storage.Box, []byte) {
	t.Helper()
	key := make([]byte, storage.KeySize)
	_, _ = rand.Read(key) // never fails
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

func TestAKeyOfAnotherLengthIsRefusedWithTheFix(t *testing.T) {
	t.Parallel()
	raw := []byte(strings.Repeat("\xfb\xff\x01\x02", 8))
	_, err := storage.NewBox(raw, raw[:5])
	require.ErrorContains(t, err, "openssl rand -base64 32")
	require.ErrorContains(t, err, "secret key 2 of 2: 5 bytes")
}
