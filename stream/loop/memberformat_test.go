package loop

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What a member of a group says is anybody's: whoever may join can write it.
func FuzzWhatAMemberSaysIsAFormatOrTheFirst(f *testing.F) {
	for _, said := range []string{"", "hogstream format 2", "hogstream format 0", "hogstream format -1", "hogstream format 99999999999", "hogstream format 2 ", "format 2"} {
		f.Add([]byte(said))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		format := parseFormat(said)
		require.GreaterOrEqual(t, format, int32(firstFormat))
		require.Equal(t, format, parseFormat(appendFormat(nil, format)))
	})
}

func TestAMemberSaysItsFormatBesideWhatTheRangeBalancerSays(t *testing.T) {
	topics := []string{"a", "b"}
	said := declaring{kgo.RangeBalancer(), 7}.JoinGroupMetadata(topics, nil, 3)
	var joined, plain kmsg.ConsumerMemberMetadata
	require.NoError(t, joined.ReadFrom(said))
	require.NoError(t, plain.ReadFrom(kgo.RangeBalancer().JoinGroupMetadata(topics, nil, 3)))
	require.EqualValues(t, 7, parseFormat(joined.UserData))
	joined.UserData = plain.UserData
	require.Equal(t, plain, joined)
	require.EqualValues(t, firstFormat, parseFormat(plain.UserData), "one of a release before formats")
}
