package stream_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestAGroupIsBehindWhileARecordOfBeforeIsNotCommitted(t *testing.T) {
	env := streamtest.New(t, streamtest.Partitions(1))
	admin, err := stream.OpenAdmin(env.Config, nil)
	require.NoError(t, err)
	defer admin.Close()
	groups := map[string]schemas.Topic{"identity": schemas.TopicIngest}
	behind := func(before time.Time) string {
		t.Helper()
		who, err := admin.Behind(t.Context(), groups, before)
		require.NoError(t, err)
		return who
	}
	require.Empty(t, behind(time.Now()), "of an empty topic")
	env.Append(streamtest.Input("u:a", 1))
	appended := env.WaitRecords(schemas.TopicIngest, 1)[0].AppendTime
	require.Empty(t, behind(appended.Add(-time.Second)), "it was appended later")
	require.Equal(t, "identity, partition 0", behind(appended.Add(time.Second)))
	offsets := make(kadm.Offsets)
	offsets.AddOffset(env.Config.Topic(schemas.TopicIngest), 0, env.Ends(schemas.TopicIngest)[0], -1)
	require.NoError(t, env.Admin().CommitAllOffsets(t.Context(), env.Config.Group("identity"), offsets))
	require.Empty(t, behind(appended.Add(time.Second)))
}
