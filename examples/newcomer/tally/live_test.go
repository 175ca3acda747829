package tally

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// live is a derived processor in its loop, on a broker and a database.
type live struct {
	*streamtest.Env
	t  *testing.T
	db *storage.DB
}

func newLive(t *testing.T, partitions int32) *live {
	return &live{Env: streamtest.New(t, streamtest.Partitions(partitions)), t: t, db: storagetest.New(t)}
}

// instance is one that runs the processor.
type instance struct {
	*live
	loop    *loop.Loop
	figures *prometheus.Registry
	cancel  context.CancelFunc
	ended   chan error
}

func (l *live) start(opts ...func(*loop.Config)) *instance {
	l.t.Helper()
	r := &instance{live: l, figures: prometheus.NewRegistry(), ended: make(chan error, 1)}
	p, err := New(l.Codec, r.figures)
	require.NoError(l.t, err)
	cfg := loop.Config{Kafka: l.Config, DB: l.db, Encoder: l.Codec, Processor: p, Logger: zaptest.NewLogger(l.t)}
	cfg.Kafka.Instance = "a"
	for _, o := range opts {
		o(&cfg)
	}
	running, err := loop.New(cfg)
	require.NoError(l.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r.loop, r.cancel = running, cancel
	go func() { r.ended <- running.Run(ctx) }()
	l.t.Cleanup(r.stop)
	return r
}

func (r *instance) stop() {
	r.t.Helper()
	r.cancel()
	select {
	case err := <-r.ended:
		r.ended <- nil
		require.NoError(r.t, err)
	case <-time.After(streamtest.Patience):
		require.FailNow(r.t, "the processor does not end")
	}
}

// held is how many records had to wait as rows.
func (r *instance) held() float64 { return r.figure("held") }

// figure is how many records, or contacts, had an outcome.
func (r *instance) figure(outcome string) float64 {
	r.t.Helper()
	families, err := r.figures.Gather()
	require.NoError(r.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, label := range m.GetLabel() {
				if f.GetName() == "hogstream_derive_records_total" && label.GetValue() == outcome {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	return 0
}

func (l *live) awaitTakenOver(partitions int) {
	l.t.Helper()
	l.Eventually(func(ctx context.Context) (bool, error) {
		rows, err := l.db.LoadProgress(ctx, Name, nil)
		through := len(rows) == partitions
		for _, row := range rows {
			through = through && row.TakingOver == nil
		}
		return through, err
	}, "all partitions are taken over")
}

func (l *live) awaitCounts(contacts []string, want ...int) {
	l.t.Helper()
	l.Eventually(func(ctx context.Context) (bool, error) {
		found, err := states(ctx, l.db, contacts...)
		counts := make([]int, len(contacts))
		for i, id := range contacts {
			counts[i] = found[id].Events
		}
		return slices.Equal(counts, want), err
	}, "%v events", want)
}

func contactID(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// Each event comes behind a change of its contact. Records of one topic are much larger
// than those of the other, so a fetch brings a piece of the one and all of the other.
func TestTopicsThatAreReadFarApartHaveHardlyAnythingWait(t *testing.T) {
	for name, factSize := range map[string]int{"events behind lifecycle": 0, "lifecycle behind events": 10_000} {
		t.Run(name, func(t *testing.T) {
			const people, each = 200, 4
			l := newLive(t, 2)
			first := l.start()
			l.awaitTakenOver(2)
			first.stop()

			contacts, want := make([]string, people), make([]int, people)
			long := strings.Repeat("x", 10_000)
			for i := range contacts {
				contacts[i], want[i] = contactID(i), each
			}
			for n := range int64(each) {
				facts, events := make([]schemas.Message, people), make([]schemas.Message, people)
				for i, id := range contacts {
					f, e := fact(id, schemas.FactContactUpdated, 2*n+1), event(id, 2*n+2)
					f.Contact.Properties, e.Properties = long[:factSize], long[factSize:]
					facts[i], events[i] = f, e
				}
				l.Append(facts...)
				l.Append(events...)
			}
			r := l.start(func(c *loop.Config) { c.MaxBatchRecords = 100 })
			l.awaitCounts(contacts, want...)
			r.stop()
			t.Logf("%v of %d records were rows", r.held(), 2*people*each)
			require.LessOrEqual(t, r.held(), float64(people*each/2), "of %d records, of which half would wait: those that were appended at about the same time", 2*people*each)
		})
	}
}

// contactsWrite notes that processor contacts writes this format on these partitions.
func (l *live) contactsWrite(format int32, partitions ...int32) {
	l.t.Helper()
	_, err := storagetest.SQL(l.db).Exec(l.t.Context(), `
		INSERT INTO processor_progress (processor, partition, ranges, published, format) SELECT $1, p, '{}', true, $2 FROM unnest($3::integer[]) AS p
		ON CONFLICT (processor, partition) DO UPDATE SET format = $2, declared = $2`, storage.Numbering, format, partitions)
	require.NoError(l.t, err)
}

func (l *live) list() []loop.ProcessorPartition {
	l.t.Helper()
	all, err := loop.ListProcessor(l.t.Context(), l.admin(), l.db, Name)
	require.NoError(l.t, err)
	return all
}

// In the middle of an upgrade an older release says things without numbers, which nobody
// who goes by numbers would count.
func TestATakeOverWaitsUntilContactsNumbersItsRecordsEverywhere(t *testing.T) {
	l := newLive(t, 2)
	l.contactsWrite(1, 0)
	l.contactsWrite(storage.NumberingFormat, 1)
	id := contactOn(l.Env, 0)
	r := l.start()
	l.Eventually(func(context.Context) (bool, error) {
		all := l.list()
		return len(all) == 2 && all[0].TakingOver && strings.Contains(all[0].Waits, "does not number its records yet on partitions [0]"), nil
	}, "it says what it waits for")
	require.NoError(t, r.loop.Ready(), "a process that waits does not hold up an upgrade")
	require.Empty(t, r.loop.Stopped())

	l.Append(event(id, 0)) // by the older release, behind the noted end
	store(t, l.Env, l.db, &storage.Contact{ID: id}, event(id, 0))
	l.contactsWrite(storage.NumberingFormat, 0)
	l.awaitTakenOver(2)
	l.Append(event(id, 1))
	l.awaitCounts([]string{id}, 2)
	for _, p := range l.list() {
		require.False(t, p.TakingOver)
		require.Empty(t, p.Waits)
	}
}

// In a new deployment processors begin side by side. Who comes after the ends were noted and
// before the take-over is new all the same, and what happens to him is told.
func TestWhoComesAfterTheEndsOfANewDeploymentWereNotedIsNotTakenOver(t *testing.T) {
	for name, c := range map[string]struct {
		known bool // somebody, when the ends are noted
		taken float64
		want  []int // events of both
	}{
		"nobody was known":   {false, 0, []int{0, 2}},
		"somebody was known": {true, 2, []int{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLive(t, 1)
			first, second := contactID(1), contactID(2)
			if c.known {
				l.Append(event(first, 1))
				store(t, l.Env, l.db, &storage.Contact{ID: first, Seq: 1}, event(first, 1))
			}
			l.noteBeginning()
			l.noteBeginning() // another process, which changes nothing
			l.Append(event(second, 1), event(second, 2))
			store(t, l.Env, l.db, &storage.Contact{ID: second, Seq: 2}, event(second, 1), event(second, 2))
			r := l.start()
			l.awaitTakenOver(1)
			l.awaitCounts([]string{first, second}, c.want...)
			r.stop()
			require.InDelta(t, c.taken, r.figure("taken_over"), 0)
		})
	}
}

func TestATakeOverWaitsForThePartitionsOfContactsFromBefore(t *testing.T) {
	l := newLive(t, 1)
	id := contactOn(l.Env, 0)
	store(t, l.Env, l.db, &storage.Contact{ID: id, Seq: 1}, event(id, 1))
	_, err := storagetest.SQL(l.db).Exec(t.Context(), `UPDATE contacts SET partition = NULL`)
	require.NoError(t, err)
	l.start()
	l.Eventually(func(context.Context) (bool, error) {
		all := l.list()
		return len(all) == 1 && strings.Contains(all[0].Waits, "being filled in"), nil
	}, "it says what it waits for")
	_, err = l.db.PlaceContacts(t.Context(), l.PartitionOf, 10)
	require.NoError(t, err)
	l.awaitCounts([]string{id}, 1)
}

// A rebuild of contacts by a command that does not know the processor begins an era in
// which its numbers mean nothing.
func TestAProcessorWhoseEraIsOverStopsAndSaysByWhichCommandItGoesOn(t *testing.T) {
	l := newLive(t, 1)
	id := contactOn(l.Env, 0)
	r := l.start()
	l.awaitTakenOver(1)
	l.Append(event(id, 1), event(id, 2))
	l.awaitCounts([]string{id}, 2)

	_, err := storagetest.SQL(l.db).Exec(t.Context(), `INSERT INTO contact_eras VALUES (5, now())`)
	require.NoError(t, err)
	later := event(id, 1)
	later.Era = 5
	l.Append(later)
	stopped := func(r *instance) {
		l.Eventually(func(context.Context) (bool, error) { return len(r.loop.Stopped()) == 1, nil }, "it stops")
		require.Contains(t, r.loop.Stopped()[0].Reason, "`hogstream processors rebuild tally`")
	}
	stopped(r)
	require.Contains(t, l.list()[0].Waits, "`hogstream processors rebuild tally`")
	r.stop()
	r = l.start()
	stopped(r)
	r.stop()

	store(t, l.Env, l.db, &storage.Contact{ID: id, Seq: 1, Era: 5}, event(id, 1), event(id, 2), event(id, 3))
	l.takeOverAnew()
	l.start()
	l.awaitCounts([]string{id}, 3)
}

// takeOverAnew is what the command does.
func (l *live) takeOverAnew() {
	l.t.Helper()
	p, err := New(l.Codec, nil)
	require.NoError(l.t, err)
	admin := l.admin()
	ends, err := loop.NoteEnds(l.t.Context(), admin.Client, l.Config, p.Topics())
	require.NoError(l.t, err)
	require.NoError(l.t, l.db.InTx(l.t.Context(), func(tx *storage.Tx) error {
		if err := p.Clear(l.t.Context(), tx); err != nil {
			return err
		}
		return tx.TakeOverAnew(l.t.Context(), Name, ends, 1)
	}))
}

// noteBeginning is what a process does before its processors start.
func (l *live) noteBeginning() {
	l.t.Helper()
	require.NoError(l.t, loop.NoteBeginning(l.t.Context(), l.admin(), l.db, Name, derive.Topics()))
}

func (l *live) admin() *stream.Admin {
	l.t.Helper()
	admin, err := stream.OpenAdmin(l.Config, zaptest.NewLogger(l.t))
	require.NoError(l.t, err)
	l.t.Cleanup(admin.Close)
	return admin
}
