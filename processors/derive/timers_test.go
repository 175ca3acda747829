package derive

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
	"github.com/hogstream/hogstream/stream/timers"
)

// quiet tells of a contact that did nothing for a while.
func quiet(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
	if r.Timer != nil {
		return Result[[]string]{Outputs: []schemas.Message{&schemas.Fact{Type: schemas.FactBucketEntered, Bucket: &schemas.BucketTransition{BucketID: "quiet"}}}}, nil
	}
	return Result[[]string]{State: s, Timers: []Timer{{What: "quiet", Due: now.Add(300 * time.Millisecond)}}}, nil
}

func TestATimerGoesThroughPostgresAndTheLogToItsStepWithinASecond(t *testing.T) {
	env, db := streamtest.New(t, streamtest.Partitions(1)), storagetest.New(t)
	frame, err := New(stepper{step: quiet}, env.Codec, nil)
	require.NoError(t, err)
	cfg := env.Config
	cfg.Instance = "a"
	l, err := loop.New(loop.Config{Kafka: cfg, DB: db, Encoder: env.Codec, Processor: frame, Logger: zaptest.NewLogger(t)})
	require.NoError(t, err)
	ticker, err := timers.New(timers.Config{DB: db, Log: env.Log(), Behind: func(context.Context, time.Time) (string, error) { return "", nil }})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for _, run := range []func(context.Context) error{l.Run, ticker.Run} {
		go func() { ended <- run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, <-ended)
	})
	env.Eventually(func(ctx context.Context) (bool, error) {
		rows, err := db.LoadProgress(ctx, simName, nil)
		return len(rows) == 1 && rows[0].TakingOver == nil, err
	}, "it is taken over")
	e := event("page.viewed", 1, 0)
	e.OccurredAt, e.ReceivedAt = time.Now(), time.Now()
	env.Append(e)
	r := env.WaitRecords(schemas.TopicLifecycle, 1)[0]
	f, err := env.Codec.DecodeFact(r.Value)
	require.NoError(t, err)
	require.Equal(t, schemas.FactBucketEntered, f.Type)
	require.Equal(t, int64(1), f.CauseSeq)
	require.Equal(t, int64(1), f.WriterSeq)
	require.Less(t, r.AppendTime.Sub(f.OccurredAt), time.Second, "f occurred when the timer was stepped")
	var left int
	require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `SELECT count(*) FROM timers`).Scan(&left))
	require.Zero(t, left)
}
