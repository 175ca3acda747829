package processors_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/processors"
	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestTheTableSaysOfEachProcessorWhatItSaysOfItself(t *testing.T) {
	seen := map[string]bool{}
	for _, line := range processors.All() {
		p, err := line.New(processors.Deps{Codec: schemas.NewCodec()})
		require.NoError(t, err)
		require.Equal(t, p.Name(), line.Name)
		require.Equal(t, p.Topics(), line.Topics)
		require.Equal(t, loop.FormatOf(p), line.Format)
		require.False(t, seen[line.Name], "two processors are called %s", line.Name)
		seen[line.Name] = true
		found, err := processors.Find(line.Name)
		require.NoError(t, err)
		require.Equal(t, line.Topics, found.Topics)
	}
	require.Len(t, processors.Names(), len(seen))
	_, err := processors.Find("nobody")
	require.EqualError(t, err, `no processor "nobody": use `+strings.Join(processors.Names(), " or "))
}

func TestARebuildOnTheLogNeedsThatNobodyRunsAndGivesTheStateBack(t *testing.T) {
	env, db := streamtest.New(t), storagetest.New(t)
	stop := startProcessors(t, env, db)
	env.Append(within(event("seen", user("u1"), props(`{"n":1}`)), time.Now()), within(event("seen", user("u2"), email("x@b.co")), time.Now()))
	env.WaitDrained(identity.Name, schemas.TopicIngest)
	env.WaitDrained(contacts.Name, schemas.TopicResolved)
	before := contents(t.Context(), t, db)

	admin, err := stream.OpenAdmin(env.Config, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(admin.Close)
	read := 0
	deps := processors.RebuildDeps{
		Deps: processors.Deps{Codec: env.Codec}, DB: db, Admin: admin, Kafka: env.Config,
		Session: sessionTimeout, Progress: func(n int) { read = n },
	}
	require.ErrorIs(t, processors.Rebuild(t.Context(), contacts.Name, deps), processors.ErrRunning)
	require.ErrorContains(t, processors.Rebuild(t.Context(), "nobody", deps), `no processor "nobody"`)
	stop()
	env.Eventually(func(ctx context.Context) (bool, error) {
		alive, err := admin.Members(ctx, processors.Names()...)
		return len(alive) == 0, err
	}, "the sessions of both processors run out")

	clearTables(t.Context(), t, db)
	require.NotEqual(t, before, contents(t.Context(), t, db))
	require.NoError(t, processors.Rebuild(t.Context(), contacts.Name, deps))
	require.NoError(t, processors.Rebuild(t.Context(), identity.Name, deps))
	require.Equal(t, before, contents(t.Context(), t, db))
	require.Positive(t, read)
}
