package schemas

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatIsDecodedIntoARoomIsWhatIsDecodedElsewhere(t *testing.T) {
	c := NewCodec()
	bare := &Fact{ID: "f", Type: FactContactDeleted, ContactID: "c", Deleted: &ContactDeleted{}}
	var room Room
	for range 3 { // of which the second is in memory that was used before
		for _, fact := range []*Fact{sampleFact(), bare} {
			value, err := c.Encode(fact)
			require.NoError(t, err)
			want, err := c.DecodeFact(value)
			require.NoError(t, err)
			var all []*Fact
			for range 3 * slabMin {
				got, err := c.DecodeFactIn(&room, value)
				require.NoError(t, err)
				all = append(all, got)
			}
			for _, got := range all {
				require.Equal(t, want, got)
			}
		}
		value, err := c.Encode(sampleEvent())
		require.NoError(t, err)
		want, err := c.DecodeEvent(value)
		require.NoError(t, err)
		got, err := c.DecodeEventIn(&room, value)
		require.NoError(t, err)
		require.Equal(t, want, got)

		_, err = c.DecodeFactIn(&room, append([]byte{}, value[:len(value)-1]...))
		require.ErrorIs(t, err, ErrUndecodable)
		_, err = c.DecodeEventIn(&room, value[:len(value)-1])
		require.ErrorIs(t, err, ErrUndecodable)
		room.Reset()
	}
}
