package derive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// versioned is a processor whose state says with which version it is filled, and what.
type versioned struct {
	JSON[filledState]
	version *atomic.Int64
	refill  func(s filledState, k *Known) (Result[filledState], error)
	step    func(s filledState) filledState // nil for one that changes nothing
}

type filledState struct {
	Version int64    `json:"version"`
	Events  []string `json:"events"`
}

func (versioned) Name() string      { return simName }
func (versioned) Wants(string) bool { return false }
func (p versioned) At(context.Context, *storage.Tx) (Logic[filledState], error) {
	return p, nil
}
func (p versioned) Version() int64              { return p.version.Load() }
func (versioned) VersionOf(s filledState) int64 { return s.Version }
func (versioned) Names(version int64) []string {
	if version == 0 { // of definitions that all others here have
		return []string{"other", "wanted"}
	}
	return []string{"wanted"}
}
func (versioned) HandOver(s filledState, _ string, _ time.Time) (filledState, []schemas.Message) {
	return s, nil
}

func (p versioned) TakeOver(filledState, *Known, time.Time) (filledState, []Timer) {
	return filledState{Version: p.Version()}, nil
}

func (p versioned) Step(s filledState, _ *Record[filledState], _ time.Time) (Result[filledState], error) {
	if p.step != nil {
		return Result[filledState]{State: p.step(s)}, nil
	}
	return Result[filledState]{State: s, Same: true}, nil
}

func (p versioned) Refill(s filledState, k *Known, _ time.Time) (Result[filledState], error) {
	if p.refill != nil {
		if r, err := p.refill(s, k); err != nil || r.State.Version > 0 {
			return r, err
		}
	}
	s.Version, s.Events = p.Version(), nil
	for _, e := range k.Events {
		s.Events = append(s.Events, e.Name)
	}
	return Result[filledState]{State: s}, nil
}

// fills is a frame on Postgres with some contacts on partition 0, each with an event that is
// wanted and one that is not.
type fills struct {
	t     *testing.T
	db    *storage.DB
	p     versioned
	frame *Frame[filledState]
	ids   []string
}

func newFills(t *testing.T, contacts int) *fills {
	t.Helper()
	f := &fills{t: t, db: storagetest.New(t), p: versioned{version: &atomic.Int64{}}}
	f.p.version.Store(1)
	require.NoError(t, f.db.StartTakeOver(t.Context(), simName, map[int32]storage.Ranges{0: {}, 1: {}}))
	f.ids = store(t, f.db, contacts, func(string) int32 { return 0 })
	f.frame = f.newFrame()
	f.frame.pace = pacing{atOnce: 1, times: 1, beside: 1} // of each of two partitions
	f.inTx(func(tx *storage.Tx) error {
		b := loop.NewBatch(f.frame.codec, time.Now(), nil)
		last, err := f.frame.TakeOver(t.Context(), tx, b, 0, uuid.Nil)
		require.Equal(t, uuid.Nil, last)
		for p := range int32(2) {
			err = errors.Join(err, tx.MoveTakeOver(t.Context(), simName, p, nil, 1))
		}
		return err
	})
	return f
}

// store stores contacts that stand at number 2.
func store(t *testing.T, db *storage.DB, n int, partition func(id string) int32) (ids []string) {
	t.Helper()
	now := time.Unix(1_700_000_000, 0)
	var ch storage.ContactChanges
	var events []storage.StoredEvent
	for i := range n {
		id := fmt.Sprintf("00000000-0000-4000-8000-%012d", i+1)
		ids = append(ids, id)
		ch.Saved = append(ch.Saved, &storage.Contact{ID: id, Partition: partition(id), Properties: "{}", Seq: 2,
			FirstSeenAt: now, LastSeenAt: now, CreatedAt: now, UpdatedAt: now})
		for seq, name := range []string{"wanted", "other"} {
			events = append(events, storage.StoredEvent{ID: schemas.Derive(id, name, 0), ContactID: id, Name: name, Properties: "{}",
				OccurredAt: now, ReceivedAt: now, Seq: int64(seq + 1)})
		}
	}
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		return errors.Join(tx.SaveContacts(t.Context(), &ch, now), tx.StoreEvents(t.Context(), events))
	}))
	return ids
}

func (f *fills) newFrame() *Frame[filledState] {
	frame, err := New(f.p, schemas.NewCodec(), nil)
	require.NoError(f.t, err)
	return frame
}

func (f *fills) inTx(fn func(tx *storage.Tx) error) {
	f.t.Helper()
	require.NoError(f.t, f.db.InBatch(f.t.Context(), fn))
}

// apply applies a signal that asks for a step, and returns the one that asks for the next.
func (f *fills) apply(version int64, after string) (next *schemas.Signal) {
	f.t.Helper()
	return f.batch(f.frame.Apply, &schemas.Signal{ID: "s", Type: schemas.SignalFill, For: simName, ContactID: f.ids[0], Epoch: version, What: after})
}

func (f *fills) batch(fn func(context.Context, *storage.Tx, *loop.Batch) error, messages ...schemas.Message) (next *schemas.Signal) {
	f.t.Helper()
	f.inTx(func(tx *storage.Tx) error {
		next = nil
		var records []*stream.Record
		for i, m := range messages {
			value, err := f.frame.codec.Encode(m)
			require.NoError(f.t, err)
			records = append(records, &stream.Record{Topic: m.Topic(), Key: []byte(m.Key()), Value: value, Type: m.Meta().Type, ID: m.Meta().ID, Seq: m.Meta().Seq, Offset: int64(i)})
		}
		b := loop.NewBatch(f.frame.codec, time.Now(), records)
		if err := fn(f.t.Context(), tx, b); err != nil {
			return err
		}
		for _, o := range b.Outputs() {
			require.Nil(f.t, next, "one step asks for one")
			s, err := f.frame.codec.DecodeSignal(o.Value)
			require.NoError(f.t, err)
			next = s
		}
		return nil
	})
	return next
}

func (f *fills) versions() (all []int64) {
	f.t.Helper()
	f.inTx(func(tx *storage.Tx) error {
		states, err := f.frame.States(f.t.Context(), tx, f.ids)
		for _, id := range f.ids {
			all = append(all, states[id].Version)
		}
		return err
	})
	return all
}

func (f *fills) progress() storage.FillProgress {
	f.t.Helper()
	p, err := f.db.FillProgress(f.t.Context(), simName, f.p.Version())
	require.NoError(f.t, err)
	return p
}

func TestAFillingPassesEverybodyStepByStepAndReadsOnlyTheEventsItWants(t *testing.T) {
	f := newFills(t, 5)
	require.True(t, f.progress().Done, "who is taken over is filled")
	f.p.version.Store(2)
	require.False(t, f.progress().Done)
	next := f.apply(2, "")
	require.Equal(t, f.ids[1], next.What)
	require.Equal(t, int64(2), next.Epoch)
	require.Equal(t, []int64{2, 2, 1, 1, 1}, f.versions())
	require.Equal(t, storage.FillProgress{Passed: 2, Total: 5, Filled: 1}, f.progress())
	next = f.apply(2, next.What)
	require.Nil(t, f.apply(2, next.What), "it is through")
	require.Equal(t, []int64{2, 2, 2, 2, 2}, f.versions())
	require.Equal(t, storage.FillProgress{Passed: 5, Total: 5, Done: true, Filled: 2}, f.progress())
	f.inTx(func(tx *storage.Tx) error {
		states, err := f.frame.States(t.Context(), tx, f.ids[:1])
		require.Equal(t, []string{"wanted"}, states[f.ids[0]].Events)
		return err
	})
}

func TestASignalOfAStaleChainDoesNothing(t *testing.T) {
	f := newFills(t, 5)
	f.p.version.Store(2)
	next := f.apply(2, "")
	before := f.progress()
	for _, stale := range []struct {
		version int64
		after   string
	}{{2, ""}, {1, ""}, {3, ""}, {1, next.What}, {2, f.ids[0]}, {2, f.ids[4]}, {2, "garbage"}} {
		require.Nil(t, f.apply(stale.version, stale.after), stale)
		require.Equal(t, before, f.progress(), stale)
	}
	same := *next
	require.NotNil(t, f.batch(f.frame.Apply, next, &same), "twice in a batch is once")
	require.Equal(t, int64(4), f.progress().Passed)
	f.p.version.Store(3)
	require.Nil(t, f.apply(2, f.ids[3]), "another version came in between")
	require.Equal(t, f.ids[1], f.apply(3, "").What, "and begins anew")
}

func TestWhoIsAheadInPostgresIsFilledWithTheRecordThatBringsHimThere(t *testing.T) {
	f := newFills(t, 1)
	f.p.version.Store(2)
	_, err := storagetest.SQL(f.db).Exec(t.Context(), `UPDATE contacts SET seq = 4`)
	require.NoError(t, err)
	require.Nil(t, f.apply(2, ""))
	require.Equal(t, storage.FillProgress{Passed: 1, Total: 1, Behind: 1, Done: true, Filled: 2}, f.progress())
	f.batch(f.frame.Apply, event("wanted", 3, 0))
	require.Equal(t, []int64{1}, f.versions())
	f.batch(f.frame.Apply, event("wanted", 4, 0))
	require.Equal(t, []int64{2}, f.versions())
}

func TestWhoTookInOneFurtherBehindIsFilledWithTheEventsThatThatOneLacks(t *testing.T) {
	f := newFills(t, 1)
	f.p.version.Store(2)
	f.p.step = func(s filledState) filledState { s.Version = 0; return s }
	f.frame = f.newFrame()
	_, err := storagetest.SQL(f.db).Exec(t.Context(), `UPDATE contacts SET seq = 3`)
	require.NoError(t, err)
	f.batch(f.frame.Apply, event("wanted", 3, 0)) // before it, what version 1 lacks is read
	require.Equal(t, []int64{2}, f.versions())
	f.inTx(func(tx *storage.Tx) error {
		states, err := f.frame.States(t.Context(), tx, f.ids)
		require.ElementsMatch(t, []string{"other", "wanted"}, states[f.ids[0]].Events)
		return err
	})
}

func TestAContactThatCannotBeFilledStaysBehindAndHoldsUpNobody(t *testing.T) {
	f := newFills(t, 5)
	f.p.version.Store(2)
	f.p.refill = func(s filledState, k *Known) (Result[filledState], error) {
		switch k.Contact.ID {
		case f.ids[1]:
			return Result[filledState]{}, errors.New("cannot be filled")
		case f.ids[2]:
			panic("broken")
		}
		return Result[filledState]{}, nil
	}
	f.frame = f.newFrame()
	core, logged := observer.New(zap.WarnLevel)
	require.Nil(t, f.batch(func(ctx context.Context, tx *storage.Tx, b *loop.Batch) error {
		b.Log = zap.New(core)
		return f.frame.Apply(ctx, tx, b)
	}, &schemas.Signal{ID: "fill", Type: schemas.SignalFill, For: simName, ContactID: f.ids[0], Epoch: 2}))
	require.Equal(t, []int64{2, 1, 1, 2, 2}, f.versions())
	require.Equal(t, int64(2), f.progress().Behind)
	said := logged.FilterMessage("derive.unfilled").All()
	require.Len(t, said, 1)
	require.Equal(t, map[string]any{"contacts": int64(2), "last": "contact " + f.ids[2] + ": panic: a value of type string"}, said[0].ContextMap())
}

func TestAStepOfAFillingThatIsGivenUpIsPassedOver(t *testing.T) {
	f := newFills(t, 5)
	f.p.version.Store(2)
	next := f.batch(func(ctx context.Context, tx *storage.Tx, b *loop.Batch) error {
		return f.frame.GaveUp(ctx, tx, b, b.Records[0])
	}, &schemas.Signal{ID: "s", Type: schemas.SignalFill, For: simName, ContactID: f.ids[0], Epoch: 2})
	require.Equal(t, f.ids[1], next.What)
	require.Equal(t, storage.FillProgress{Passed: 2, Total: 5, Behind: 2, Filled: 1}, f.progress())
	require.Equal(t, []int64{1, 1, 1, 1, 1}, f.versions())
}

func TestAStepOfAFillingThatIsTooMuchAtOnceIsMadeSmaller(t *testing.T) {
	f := newFills(t, 20)
	f.frame.pace.atOnce = 30
	f.p.version.Store(2)
	_, err := storagetest.SQL(f.db).Exec(t.Context(), `UPDATE derived_contacts SET state = convert_to('{"version":1,"events":["' || repeat('x', 4 << 20) || '"]}', 'UTF8')`)
	require.NoError(t, err)
	next := f.apply(2, "")
	require.NotNil(t, next, "not everybody at once")
	passed := f.progress().Passed
	require.Positive(t, passed)
	require.Less(t, passed, int64(20))
	require.Equal(t, passed, int64(strings.Count(fmt.Sprint(f.versions()), "2")))
}

// The contacts of both partitions are passed along their ids, whichever is behind.
func TestFillingsThatStandAtDifferentPlacesMeetAndPassEverybodyOnce(t *testing.T) {
	f := newFills(t, 0)
	f.ids = store(t, f.db, 20, func(id string) int32 { return int32(id[len(id)-1]) % 2 })
	for p := range int32(2) {
		f.inTx(func(tx *storage.Tx) error {
			_, err := f.frame.TakeOver(t.Context(), tx, loop.NewBatch(f.frame.codec, time.Now(), nil), p, uuid.Nil)
			return err
		})
	}
	f.p.version.Store(2)
	f.frame.pace = pacing{atOnce: 3, times: 2}
	signal := func(p int32, after string) *stream.Record {
		s := &schemas.Signal{ID: "s", Type: schemas.SignalFill, For: simName, ContactID: f.ids[(p+1)%2], Epoch: 2, What: after}
		value, err := f.frame.codec.Encode(s)
		require.NoError(t, err)
		return &stream.Record{Topic: s.Topic(), Partition: p, Key: []byte(s.ContactID), Value: value}
	}
	step := func(records ...*stream.Record) (next []*stream.Record) {
		f.inTx(func(tx *storage.Tx) error {
			b := loop.NewBatch(f.frame.codec, time.Now(), records)
			err := f.frame.Apply(t.Context(), tx, b)
			for _, o := range b.Outputs() {
				s, err := f.frame.codec.DecodeSignal(o.Value)
				require.NoError(t, err)
				next = append(next, signal(o.Cause.Partition, s.What))
			}
			return err
		})
		return next
	}
	ahead := step(signal(1, ""))
	require.Len(t, ahead, 1)
	require.Equal(t, 6, strings.Count(fmt.Sprint(f.versions()), "2"), "twice three of each of two partitions, one of which is passed")
	next := append(ahead, signal(0, ""))
	for steps := 0; len(next) > 0; steps++ {
		require.Less(t, steps, 10)
		next = step(next...)
	}
	require.Equal(t, 20, strings.Count(fmt.Sprint(f.versions()), "2"))
	require.Equal(t, storage.FillProgress{Passed: 20, Total: 20, Done: true, Filled: 2}, f.progress())
}

func TestAFillingNeedsNoSecondConnection(t *testing.T) {
	f := newFills(t, 5)
	one, err := storage.Open(t.Context(), storage.Config{URL: f.db.URL(), MaxConns: 1})
	require.NoError(t, err)
	t.Cleanup(one.Close)
	f.db = one
	f.frame.pace.times = 8
	f.p.version.Store(2)
	require.Nil(t, f.apply(2, ""), "it is through")
	require.Equal(t, []int64{2, 2, 2, 2, 2}, f.versions())
}

func TestAfterAStepOfAFillingThatFailedTheNextOneIsSmallSoThatFewArePassedOver(t *testing.T) {
	f := newFills(t, 7)
	f.frame.pace.times = 8
	f.p.version.Store(2)
	_, err := storagetest.SQL(f.db).Exec(t.Context(), `UPDATE derived_contacts SET state = '{' WHERE contact_id = $1::text::uuid`, f.ids[4])
	require.NoError(t, err)
	signal := &schemas.Signal{ID: "s", Type: schemas.SignalFill, For: simName, ContactID: f.ids[0], Epoch: 2}
	fails := func() {
		require.ErrorContains(t, f.db.InBatch(t.Context(), func(tx *storage.Tx) error {
			value, err := f.frame.codec.Encode(signal)
			require.NoError(t, err)
			return f.frame.Apply(t.Context(), tx, loop.NewBatch(f.frame.codec, time.Now(), []*stream.Record{{Topic: signal.Topic(), Key: []byte(signal.Key()), Value: value}}))
		}), "state of contact "+f.ids[4])
	}
	fails()
	signal = f.apply(2, "")
	require.Equal(t, f.ids[1], signal.What, "of eight times two contacts two are passed")
	for signal.What != f.ids[3] { // it is quick again meanwhile
		fails()
		signal = f.apply(2, signal.What)
	}
	fails()
	signal = f.batch(func(ctx context.Context, tx *storage.Tx, b *loop.Batch) error {
		return f.frame.GaveUp(ctx, tx, b, b.Records[0])
	}, signal)
	require.Equal(t, f.ids[5], signal.What)
	require.Nil(t, f.apply(2, signal.What))
	require.Equal(t, storage.FillProgress{Passed: 7, Total: 7, Behind: 2, Done: true, Filled: 2}, f.progress())
}

func TestWhatWaitsForARecordThatIsGivenUpGoesOnAtOnce(t *testing.T) {
	db := storagetest.New(t)
	frame, err := New(stepper{step: names}, schemas.NewCodec(), nil)
	require.NoError(t, err)
	f := &fills{t: t, db: db}
	record := func(e *schemas.Event) *stream.Record {
		value, err := frame.codec.Encode(e)
		require.NoError(t, err)
		return &stream.Record{Topic: e.Topic(), Key: []byte(e.Key()), Value: value, ID: e.ID, Seq: e.Seq, Offset: e.Seq}
	}
	f.inTx(func(tx *storage.Tx) error {
		return frame.Apply(t.Context(), tx, loop.NewBatch(frame.codec, time.Now(), []*stream.Record{record(event("second", 2, 0))}))
	})
	f.inTx(func(tx *storage.Tx) error {
		first := record(event("first", 1, 0))
		return frame.GaveUp(t.Context(), tx, loop.NewBatch(frame.codec, time.Now(), []*stream.Record{first}), first)
	})
	f.inTx(func(tx *storage.Tx) error {
		states, err := frame.States(t.Context(), tx, []string{someone})
		require.Equal(t, []string{"second"}, states[someone])
		found, err2 := tx.LoadDerived(t.Context(), simName, []string{someone})
		require.Equal(t, int64(2), found.Contacts[someone].Seq)
		require.Empty(t, found.Held)
		return errors.Join(err, err2)
	})
}

// It goes by itself from the notification to the last contact, on two partitions, and
// without anybody who asks.
func TestANewVersionIsFilledThroughTheLogWhenItIsTold(t *testing.T) {
	env, db := streamtest.New(t, streamtest.Partitions(2)), storagetest.New(t)
	p := versioned{version: &atomic.Int64{}}
	p.version.Store(1)
	ids := store(t, db, 30, env.PartitionOf)
	frame, err := New(p, env.Codec, nil)
	require.NoError(t, err)
	frame.pace = pacing{atOnce: 2, times: 3, beside: 2, lately: time.Millisecond}
	cfg := env.Config
	cfg.Instance = "a"
	l, err := loop.New(loop.Config{Kafka: cfg, DB: db, Encoder: env.Codec, Processor: frame, Logger: zaptest.NewLogger(t)})
	require.NoError(t, err)
	figures := prometheus.NewRegistry()
	kicker, err := NewKicker(KickerConfig{DB: db, Log: env.Log(), Processors: []Filling{frame}, Registerer: figures})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for _, run := range []func(context.Context) error{l.Run, kicker.Run} {
		go func() { ended <- run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, <-ended)
	})
	filled := func(version int64) func(ctx context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			done, err := db.FillProgress(ctx, simName, version)
			return done.Done, err
		}
	}
	env.Eventually(filled(1), "everybody is taken over")
	p.version.Store(2)
	notify := func() {
		require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.Notify(t.Context(), storage.ChannelDefinitions, "2") }))
	}
	notify()
	env.Eventually(filled(2), "everybody is filled")
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		states, err := frame.States(t.Context(), tx, ids)
		for _, id := range ids {
			require.Equal(t, filledState{Version: 2, Events: []string{"wanted"}}, states[id])
		}
		return err
	}))
	notify()
	env.Eventually(func(context.Context) (bool, error) {
		families, err := figures.Gather()
		return len(families) == 1 && families[0].GetMetric()[0].GetGauge().GetValue() == 1, err
	}, "the figure says so")
}

func TestAFillingThatDoesNotMoveIsAskedForAgain(t *testing.T) {
	f := newFills(t, 5)
	f.p.version.Store(2)
	next := f.apply(2, "")
	var asked []*schemas.Signal
	kicker, err := NewKicker(KickerConfig{DB: f.db, Log: appender(func(m schemas.Message) { asked = append(asked, m.(*schemas.Signal)) }), Processors: []Filling{f.frame}})
	require.NoError(t, err)
	require.NoError(t, kicker.look(t.Context(), f.frame))
	require.Empty(t, asked, "it has just moved")
	_, err = storagetest.SQL(f.db).Exec(t.Context(), `UPDATE derived_fills SET updated_at = now() - interval '31 seconds'`)
	require.NoError(t, err)
	require.NoError(t, kicker.look(t.Context(), f.frame))
	require.Len(t, asked, 1, "a partition without contacts is through")
	require.Equal(t, next.What, asked[0].What)
	require.Equal(t, next.Epoch, asked[0].Epoch)
}

func TestWhoComesToAnEmptyPartitionAfterAChangeIsNotTakenForSomebodyWhoWaits(t *testing.T) {
	f := newFills(t, 0)
	_, err := storagetest.SQL(f.db).Exec(t.Context(), `INSERT INTO processor_progress (processor, partition, ranges, published) VALUES ($1, 0, '{}', true)
		ON CONFLICT DO NOTHING`, simName)
	require.NoError(t, err)
	f.p.version.Store(2)
	kicker, err := NewKicker(KickerConfig{DB: f.db, Log: appender(func(schemas.Message) {}), Processors: []Filling{f.frame}})
	require.NoError(t, err)
	require.NoError(t, kicker.look(t.Context(), f.frame))
	_, err = storagetest.SQL(f.db).Exec(t.Context(), `INSERT INTO derived_contacts (processor, contact_id, partition, seq, era, written, epoch, took, heard, last_seq, last_era)
		VALUES ($1, gen_random_uuid(), 0, 1, 0, 0, 0, '{}', '{}', 0, 0)`, simName)
	require.NoError(t, err)
	progress, err := f.db.FillProgress(t.Context(), simName, 2)
	require.NoError(t, err)
	require.True(t, progress.Done)
	require.EqualValues(t, 2, progress.Filled)
}

type appender func(schemas.Message)

func (a appender) Append(_ context.Context, msgs ...schemas.Message) error {
	for _, m := range msgs {
		a(m)
	}
	return nil
}

func TestACommandIsForContactsThatAreThere(t *testing.T) {
	var got []Command
	b := newBench(t, func(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
		if r.Command != nil {
			got = append(got, *r.Command)
			if r.Command.What == "bad" {
				return Result[[]string]{}, errors.New("cannot be done")
			}
			return Result[[]string]{State: s, Outputs: []schemas.Message{&schemas.Fact{Type: schemas.FactBucketEntered}}}, nil
		}
		return names(s, r, now)
	})
	do := func(what string) {
		text := `{"bucket":"vip"}`
		b.handle(&schemas.Signal{ID: uuid.NewString(), Type: schemas.SignalCommand, For: simName, ContactID: someone, What: what, State: &text})
	}
	do("member")
	require.Empty(t, got, "nobody is known yet")
	b.handle(event("one", 1, 0))
	do("member")
	require.Equal(t, []Command{{What: "member", JSON: `{"bucket":"vip"}`}}, got)
	require.Equal(t, int64(1), b.sent[0].(*schemas.Fact).CauseSeq)
	do("bad")
	require.Equal(t, []string{"failed: cannot be done"}, b.letters)
	got, b.sent = nil, nil

	const survivor = "00000000-0000-4000-8000-000000000002"
	b.handle(&schemas.Signal{ID: "m", Type: schemas.SignalMerged, For: simName, ContactID: someone, Merged: &schemas.MergedSignal{Survivor: survivor, Seq: 1}})
	b.sent = nil
	do("member")
	require.Empty(t, got)
	onward := b.sent[0].(*schemas.Signal)
	require.Equal(t, survivor, onward.ContactID, "it follows the contact")
	require.Equal(t, schemas.SignalCommand, onward.Type)

	erased := newBench(t, names)
	erased.handle(event("one", 1, 0))
	erased.handle(&schemas.Signal{ID: "d", Type: schemas.SignalDeleted, For: simName, ContactID: someone, Deleted: &schemas.DeletedSignal{Seq: 1}})
	erased.handle(&schemas.Signal{ID: "c", Type: schemas.SignalCommand, For: simName, ContactID: someone, What: "member"})
	require.Empty(t, erased.sent)
	require.Empty(t, erased.c.state)
}

// farewell says something last.
type farewell struct{ stepper }

func (farewell) HandOver(s []string, _ string, _ time.Time) ([]string, []schemas.Message) {
	return append(slices.Clone(s), "left"), []schemas.Message{&schemas.Fact{Type: schemas.FactBucketLeft}}
}

func TestWhoIsMergedAwaySaysItsLastInItsOwnNameAndIsSavedOnceMore(t *testing.T) {
	b := newBench(t, names)
	b.m.l = farewell{stepper{step: names}}
	b.handle(event("one", 1, 0))
	b.c.stepped = false // another batch
	b.handle(&schemas.Signal{ID: "m", Type: schemas.SignalMerged, For: simName, ContactID: someone, Merged: &schemas.MergedSignal{Survivor: "b", Seq: 1}})
	fact := b.sent[0].(*schemas.Fact)
	require.Equal(t, []any{someone, int64(1), int64(1), 1}, []any{fact.ContactID, fact.CauseSeq, fact.WriterSeq, fact.Hops})
	require.Equal(t, schemas.SignalHandover, b.sent[1].(*schemas.Signal).Type)
	require.Equal(t, []Change[[]string]{{ContactID: someone, State: []string{"one", "left"}, Survivor: "b"}}, b.c.changes())

	taken, err := b.m.takeOver(&storage.Taken{ContactID: someone, Survivor: "b"}, &stream.Record{})
	require.NoError(t, err)
	require.True(t, taken.row.Ended)
	require.Len(t, b.sent, 3, "who was taken over as merged away has nothing to say")
}

func TestAnErasureForgetsWhoWasTakenInAlsoWhenTheyComeLater(t *testing.T) {
	b := newBench(t, names)
	b.handle(event("one", 1, 0))
	b.c.row.Took, b.c.stepped = []string{"a"}, false
	b.handle(&schemas.Signal{ID: "d", Type: schemas.SignalDeleted, For: simName, ContactID: someone, Deleted: &schemas.DeletedSignal{Seq: 1}})
	late := `{"loser":"b","took":["c"],"state":null}`
	b.handle(&schemas.Signal{ID: "h", Type: schemas.SignalHandover, For: simName, ContactID: someone, State: &late})
	var gone []string
	for _, c := range b.c.changes() {
		require.True(t, c.Forget)
		gone = append(gone, c.ContactID)
	}
	require.Equal(t, []string{someone, "a", "b", "c"}, gone)
}

// A step may change the state that it is given; what panics halfway has changed half of it.
func TestAPanicLeavesTheStateAsItWasOrFailsTheBatch(t *testing.T) {
	step := func(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
		if r.Event.Name == "bad" {
			s[0] = "half changed"
			panic("broken")
		}
		return names(s, r, now)
	}
	alone := newBench(t, step)
	alone.handle(event("one", 1, 0))
	alone.handle(event("bad", 2, 0))
	require.Equal(t, []string{"one"}, alone.c.state)
	require.Len(t, alone.letters, 1)

	several := newBench(t, step)
	several.m.alone = false
	several.handle(event("one", 1, 0))
	require.Panics(t, func() { several.handle(event("bad", 2, 0)) }, "the loop brings the record alone")
	loaded := newBench(t, step)
	loaded.m.alone = false
	loaded.c.row.Seq, loaded.c.loaded, loaded.c.state = 1, []byte(`["one"]`), []string{"one"}
	loaded.handle(event("bad", 2, 0))
	require.Equal(t, []string{"one"}, loaded.c.state, "what was loaded can be had again")
}

// noting has in its state what is for Save alone, and is not encoded.
type noting struct{ stepper }

func (n noting) Encode(s []string) ([]byte, error) {
	return n.stepper.Encode(slices.DeleteFunc(slices.Clone(s), func(text string) bool { return text == "note" }))
}

func (noting) Clone(s []string) ([]string, error) { return slices.Clone(s), nil }

func TestAStepThatFailsTakesNothingFromWhatStepsBeforeItHadToSave(t *testing.T) {
	b := newBench(t, func(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
		if r.Event.Name == "bad" {
			s[0] = "half changed"
			panic("broken")
		}
		return names(append(slices.Clone(s), "note"), r, now)
	})
	b.m.p = noting{stepper{}}
	b.handle(event("one", 1, 0))
	b.handle(event("bad", 2, 0))
	require.Equal(t, []string{"note", "one"}, b.c.state)
	require.Len(t, b.letters, 1)
}
