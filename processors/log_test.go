package processors_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/processors"
	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// sessionTimeout is how long a processor that stopped counts as alive here.
const sessionTimeout = 2 * time.Second

// startProcessors runs every processor of the table on a log, until stop is called or
// the test ends.
func startProcessors(t testing.TB, env *streamtest.Env, db *storage.DB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, len(processors.All()))
	for _, line := range processors.All() {
		p, err := line.New(processors.Deps{Codec: env.Codec})
		require.NoError(t, err)
		cfg := loop.Config{Kafka: env.Config, DB: db, Encoder: env.Codec, Processor: p, Logger: env.Logger, SessionTimeout: sessionTimeout}
		cfg.Kafka.Instance = "test"
		l, err := loop.New(cfg)
		require.NoError(t, err)
		go func() { done <- l.Run(ctx) }()
	}
	stop = sync.OnceFunc(func() {
		cancel()
		for range processors.All() {
			require.NoError(t, <-done)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestInputsOnTheLogBecomeContactsFactsAndAnswers(t *testing.T) {
	env, db := streamtest.New(t), storagetest.New(t)
	startProcessors(t, env, db)
	ctx, cancel := context.WithCancel(t.Context())
	answers := storage.NewAnswers(db)
	done := make(chan error, 1)
	go func() { done <- answers.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})

	now := time.Now()
	var inputs []schemas.Message
	for i := range 200 {
		in := event("page viewed", user(fmt.Sprint("u", i%20)), props(fmt.Sprintf(`{"n":%d}`, i)))
		in.ID, in.ReceivedAt, in.OccurredAt = uuid.Must(uuid.NewV7()).String(), now, now
		inputs = append(inputs, in)
	}
	inputs = append(inputs, within(event("seen", email("x@b.co"), props(`{"mail":true}`)), now))
	env.Append(inputs...)

	merge := within(put(user("u1"), email("x@b.co"), waits), now)
	env.WaitDrained(identity.Name, schemas.TopicIngest)
	w := answers.Register(merge.ID)
	defer w.Close()
	env.Append(merge)
	deadline, stop := context.WithTimeout(ctx, streamtest.Patience)
	defer stop()
	answer, err := w.Wait(deadline)
	require.NoError(t, err)
	require.Contains(t, string(answer), `"merged":[`)
	found, err := db.FindContacts(ctx, []schemas.Identifier{{Kind: schemas.KindEmail, Value: "x@b.co"}})
	require.NoError(t, err)
	require.Equal(t, "u1", found[0].ExternalID, "a find right after the answer sees the merge")
	require.JSONEq(t, `{"n":181,"mail":true}`, found[0].Properties)

	require.Len(t, env.WaitRecords(schemas.TopicEvents, 201), 201)
	// 21 created, 180 updated, the merge and the link that it came with.
	types := map[string]int{}
	for _, r := range env.WaitRecords(schemas.TopicLifecycle, 203) {
		types[r.Type]++
	}
	require.Equal(t, 21, types[schemas.FactContactCreated])
	require.Equal(t, 1, types[schemas.FactContactMerged])
}

func within(in *schemas.Input, at time.Time) *schemas.Input {
	in.ID, in.ReceivedAt, in.OccurredAt = uuid.Must(uuid.NewV7()).String(), at, at
	return in
}

// BenchmarkFromIngestToContacts is the figure of both processors together with
// their loops, kfake and Postgres: 50,000 contacts, one property changed by each
// event, three outputs each, every event stored.
func BenchmarkFromIngestToContacts(b *testing.B) {
	const events = 40_000
	env, db := streamtest.New(b, streamtest.Partitions(12)), storagetest.New(b)
	crowd(b, db, benchContacts)
	rnd := rand.New(rand.NewPCG(1, 1))
	startProcessors(b, env, db)
	for b.Loop() {
		b.StopTimer()
		inputs := messages(visits(rnd, events, benchContacts, 0))
		b.StartTimer()
		started, used := time.Now(), cpu()
		env.Append(inputs...)
		env.WaitDrained(identity.Name, schemas.TopicIngest)
		env.WaitDrained(contacts.Name, schemas.TopicResolved)
		b.ReportMetric(events/time.Since(started).Seconds(), "events/s")
		b.ReportMetric(float64((cpu()-used).Microseconds())/events, "cpu-µs/event")
	}
}
