package storage

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/schemas"
)

func TestIdentifiersAreReadAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		written := rapid.SliceOf(rapid.Custom(func(t *rapid.T) schemas.Identifier {
			return schemas.Identifier{
				Kind:  rapid.SampledFrom([]string{schemas.KindExternal, schemas.KindEmail, schemas.KindAnonymous}).Draw(t, "kind"),
				Value: rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{`a"b`, `\`, `],[`, "", "ü", "\u2028"})).Draw(t, "value"),
			}
		})).Draw(t, "identifiers")
		text, err := encodeIdentifiers(written)
		require.NoError(t, err)
		read, err := decodeIdentifiers([]byte(text))
		require.NoError(t, err)
		require.Len(t, read, len(written))
		for i := range written {
			require.Equal(t, written[i], read[i])
		}
	})
}
