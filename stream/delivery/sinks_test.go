package delivery_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// A receiver is a scripted Deliverer that watches over what delivery promises.
type receiver struct {
	t testing.TB
	// answer judges an attempt; nil delivers all.
	answer func(ctx context.Context, d delivery.Delivery) delivery.Outcome
	batch  int

	mu        sync.Mutex
	inFlight  map[string]bool // destination and key
	delivered map[string][]int64
	first     map[string]map[int64]bool
	attempts  int
	repeats   int
	most      int // in flight at once
	changed   chan struct{}
	released  map[string]int
	forgotten map[string]int
}

func newReceiver(t testing.TB) *receiver {
	return &receiver{t: t, batch: 1, inFlight: map[string]bool{}, delivered: map[string][]int64{},
		first: map[string]map[int64]bool{}, changed: make(chan struct{}, 1), released: map[string]int{}, forgotten: map[string]int{}}
}

func (r *receiver) Batch(*storage.Destination) (int, int) { return r.batch, 1 << 20 }

func (r *receiver) Release(id string) { r.mu.Lock(); defer r.mu.Unlock(); r.released[id]++ }

func (r *receiver) Forget(id string) { r.mu.Lock(); defer r.mu.Unlock(); r.forgotten[id]++ }

func (r *receiver) Deliver(ctx context.Context, d delivery.Delivery) delivery.Outcome {
	keys := map[string]bool{}
	for _, rec := range d.Records {
		keys[d.Destination.Name+" "+string(rec.Key)] = true
	}
	r.mu.Lock()
	r.attempts++
	for k := range keys {
		if r.inFlight[k] {
			r.t.Errorf("two deliveries under way for %s", k)
		}
		r.inFlight[k] = true
	}
	r.most = max(r.most, len(r.inFlight))
	r.mu.Unlock()
	out := delivery.Outcome{Status: 200, Latency: time.Millisecond}
	if r.answer != nil {
		out = r.answer(ctx, d)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range keys {
		delete(r.inFlight, k)
	}
	if out.Verdict == delivery.Delivered {
		for _, rec := range d.Records {
			r.took(d.Destination.Name+" "+string(rec.Key)+" "+string(rec.Topic), rec.Offset)
		}
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
	return out
}

func (r *receiver) took(lane string, offset int64) {
	if r.first[lane] == nil {
		r.first[lane] = map[int64]bool{}
	}
	if r.first[lane][offset] {
		r.repeats++
		return
	}
	r.first[lane][offset] = true
	if seen := r.delivered[lane]; len(seen) > 0 && seen[len(seen)-1] > offset {
		r.t.Errorf("%s: offset %d arrived after %d", lane, offset, seen[len(seen)-1])
	}
	r.delivered[lane] = append(r.delivered[lane], offset)
}

// count is how many different records a destination has accepted.
func (r *receiver) count(destination string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for lane, seen := range r.first {
		if len(lane) > len(destination) && lane[:len(destination)+1] == destination+" " {
			n += len(seen)
		}
	}
	return n
}

// A world is a cluster, a database and the destinations of one test.
type world struct {
	*streamtest.Env
	t     testing.TB
	db    *storage.DB
	store *storage.Destinations
	admin *stream.Admin
	r     *receiver

	url      string                // of the database, when it is this test's alone
	registry prometheus.Registerer // of the next process

	topic schemas.Topic     // that the test is run for
	ids   map[string]string // of destinations, by name
	asked []schemas.Message // what was appended of records that have receipts
}

// answers says whether the test is run for records that have receipts.
func (w *world) answers() bool { return w.topic == schemas.TopicOutbox }

// idOf is the id of the destination of a name, also of one that is made later.
func (w *world) idOf(name string) string {
	if w.ids[name] == "" {
		w.ids[name] = uuid.NewString()
	}
	return w.ids[name]
}

// fact is a record of the topic that the test is run for: a fact, or a call to destination crm.
func (w *world) fact(contact, typ string) schemas.Message {
	if !w.answers() {
		return fact(contact, typ)
	}
	m := call(w.idOf("crm"), contact, time.Now().Add(time.Hour))
	w.asked = append(w.asked, m)
	return m
}

func (w *world) facts(contacts, each int) (msgs []schemas.Message) {
	for range each {
		for c := range contacts {
			msgs = append(msgs, w.fact(fmt.Sprint("contact-", c), schemas.FactContactUpdated))
		}
	}
	return msgs
}

// requireReceipts says that all that was asked for has been accepted, as its first receipt says.
func (w *world) requireReceipts() {
	w.t.Helper()
	if !w.answers() {
		return
	}
	first := w.waitReceipts(w.asked...)
	require.Len(w.t, first, len(w.asked))
	for id, r := range first {
		require.Equal(w.t, schemas.ReceiptAccepted, r.Result, id)
	}
}

func newWorld(t testing.TB, opts ...streamtest.Option) *world {
	t.Helper()
	url := storagetest.URL(t)
	db, err := storage.Open(t.Context(), storage.Config{URL: url, MaxConns: 10})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	w := newWorldOn(t, db, opts...)
	w.url = url
	return w
}

func newWorldOn(t testing.TB, db *storage.DB, opts ...streamtest.Option) *world {
	t.Helper()
	w := &world{Env: streamtest.New(t, opts...), t: t, db: db, r: newReceiver(t), topic: delivery.FeedUnder(t), ids: map[string]string{}}
	box, err := storage.NewBox(make([]byte, 32))
	require.NoError(t, err)
	w.store = storage.NewDestinations(w.db, box)
	w.admin, err = stream.OpenAdmin(w.Config, w.Logger)
	require.NoError(t, err)
	t.Cleanup(w.admin.Close)
	return w
}

// destination makes one with cursors at the log's end, as the API does.
func (w *world) destination(name string, types ...string) *storage.Destination {
	w.t.Helper()
	if w.answers() {
		types = []string{schemas.SubscribeOutbox}
	}
	d := &storage.Destination{ID: w.idOf(name), Name: name, Kind: "webhook", EventTypes: types}
	sub, err := schemas.ParseSubscription(types)
	require.NoError(w.t, err)
	ends, err := w.admin.EndOffsets(w.Context(), sub.Topics()...)
	require.NoError(w.t, err)
	require.NoError(w.t, w.db.InTx(w.Context(), func(tx *storage.Tx) error {
		if err := w.store.Insert(w.Context(), tx, d); err != nil {
			return err
		}
		return tx.CreateCursors(w.Context(), d.ID, ends)
	}))
	return d
}

// status is what the table says of a destination.
func (w *world) status(d *storage.Destination) storage.DestinationStatus {
	w.t.Helper()
	now, err := w.store.Get(w.Context(), d.ID)
	require.NoError(w.t, err)
	return now.Status
}

// process is one running Sinks.
type process struct {
	*delivery.Sinks
	cancel context.CancelFunc
	done   chan error
}

func (w *world) start(name string, change ...func(*delivery.Config)) *process {
	w.t.Helper()
	cfg := delivery.Config{Instance: name, Lease: 3 * time.Second, Renew: 500 * time.Millisecond, Deadline: time.Second,
		Drain: time.Second, SessionTimeout: 2 * time.Second, BackoffBase: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	reg := w.registry
	w.registry = nil
	s, err := delivery.NewSinks(cfg, delivery.Deps{Registerer: reg, Kafka: w.Config, DB: w.db, Appender: w.Log(), Codec: w.Codec, Deliverer: w.r, Destinations: w.store, Log: w.Logger})
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{Sinks: s, cancel: cancel, done: make(chan error, 1)}
	go func() { p.done <- s.Run(ctx) }()
	w.t.Cleanup(p.stop)
	return p
}

// stop stops in good order and waits for the end.
func (p *process) stop() {
	p.cancel()
	if err, ok := <-p.done; ok {
		close(p.done)
		_ = err
	}
}

func (p *process) crash() {
	p.Crash()
	p.stop()
}

func fact(contact, typ string) *schemas.Fact {
	now := time.Now()
	return &schemas.Fact{ID: uuid.Must(uuid.NewV7()).String(), Type: typ, ContactID: contact, OccurredAt: now, CauseID: uuid.NewString(),
		Contact: &schemas.ContactFact{Properties: "{}", FirstSeenAt: now, LastSeenAt: now, CreatedAt: now, UpdatedAt: now}}
}

func facts(contacts, each int) []schemas.Message {
	var msgs []schemas.Message
	for range each {
		for c := range contacts {
			msgs = append(msgs, fact(fmt.Sprint("contact-", c), schemas.FactContactUpdated))
		}
	}
	return msgs
}

func (w *world) waitDelivered(destination string, n int) {
	w.t.Helper()
	w.Eventually(func(context.Context) (bool, error) { return w.r.count(destination) >= n, nil }, "%d records at %s, has %d", n, destination, w.r.count(destination))
	require.Equal(w.t, n, w.r.count(destination))
}

// waitFlushed waits until every cursor of the destination stands at the log's end.
func (w *world) waitFlushed(d *storage.Destination) {
	w.t.Helper()
	w.Eventually(func(ctx context.Context) (bool, error) {
		ends := map[string]map[int32]int64{"lifecycle": w.Ends(schemas.TopicLifecycle), "events": w.Ends(schemas.TopicEvents), "outbox": w.Ends(schemas.TopicOutbox)}
		all, err := w.db.LoadCursors(ctx, slices.Collect(maps.Keys(ends["lifecycle"])))
		for _, c := range all {
			if c.DestinationID == d.ID && c.Position != ends[c.Topic][c.Partition] {
				return false, err
			}
		}
		return err == nil, err
	}, "cursors of %s at the log's end", d.Name)
}

func (w *world) countAttempts(outcome string) int {
	var n int
	require.NoError(w.t, storagetest.SQL(w.db).QueryRow(w.Context(), `SELECT count(*) FROM delivery_attempts WHERE outcome = $1`, outcome).Scan(&n))
	return n
}

func TestRecordsAppendedAfterADestinationWasCreatedReachItInOrderForEachContact(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t)
		w.Append(facts(10, 3)...) // before: not for it
		d := w.destination("crm", "contact.*")
		w.Append(w.facts(20, 5)...)
		w.Append(fact("contact-1", schemas.FactBucketEntered)) // not wanted
		p := w.start("one")
		w.waitDelivered("crm", 100)
		w.Append(w.facts(20, 5)...)
		w.waitDelivered("crm", 200)
		w.waitFlushed(d)
		require.Equal(t, 200, w.countAttempts("delivered"))
		require.Zero(t, p.HeldBytes())
		require.Zero(t, w.r.repeats)
		p.stop()

		w.Append(w.facts(20, 1)...)
		w.start("one")
		w.waitDelivered("crm", 220)
		require.Zero(t, w.r.repeats, "a stop in good order repeats nothing")
	})
}

func TestFailuresChangeNeitherOrderNorCompletenessAndDoNotDelayOtherContacts(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.destination("crm", "*", "event.tracked")
		var failures atomic.Int64
		w.r.answer = func(ctx context.Context, d delivery.Delivery) delivery.Outcome {
			switch n := rand.IntN(100); {
			case n < 20:
				failures.Add(1)
				return delivery.Outcome{Verdict: delivery.Retry, Status: 503}
			case n < 25:
				failures.Add(1)
				return delivery.Outcome{Verdict: delivery.Retry, Status: 429, RetryAfter: time.Duration(rand.IntN(20)) * time.Millisecond}
			case n < 30:
				<-time.After(time.Millisecond) // a slow receiver
			}
			return delivery.Outcome{Status: 200}
		}
		release := make(chan struct{})
		inner := w.r.answer
		w.r.answer = func(ctx context.Context, dv delivery.Delivery) delivery.Outcome {
			if string(dv.Records[0].Key) == "contact-0" {
				select {
				case <-release:
				default:
					return delivery.Outcome{Verdict: delivery.Retry, Err: "connection refused"}
				}
			}
			return inner(ctx, dv)
		}
		w.Append(w.facts(50, 20)...)
		// The pause of the parked contact grows while the others are delivered; how
		// long that takes must not decide how long it waits afterwards.
		w.start("one", func(c *delivery.Config) { c.ParkedMax = c.BackoffMax })
		w.waitDelivered("crm", 49*20)
		close(release)
		w.waitDelivered("crm", 50*20)
		w.waitFlushed(d)
		require.NotZero(t, failures.Load())
		require.Zero(t, w.r.repeats)
		w.requireReceipts()
	})
}

func TestARecordTheReceiverRejectsBecomesADeadLetterAndItsContactGoesOn(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "*")
	w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
		if dv.Records[0].Type == schemas.FactContactDeleted {
			return delivery.Outcome{Verdict: delivery.Reject, Status: 422, Err: "no such\x00field", Response: []byte("no\x00")}
		}
		return delivery.Outcome{Status: 200}
	}
	w.start("one")
	w.Append(fact("c", schemas.FactContactCreated), fact("c", schemas.FactContactDeleted), fact("c", schemas.FactContactUpdated))
	w.waitDelivered("crm", 2)
	w.waitFlushed(d)
	letters := w.WaitRecords(schemas.TopicDeadLetters, 1)
	letter, err := w.Codec.DecodeDeadLetter(letters[0].Value)
	require.NoError(t, err)
	require.Equal(t, "destination:crm", letter.Source)
	require.Equal(t, "rejected", letter.Reason)
	require.Equal(t, schemas.FactContactDeleted, letter.RecordType)
	require.Equal(t, 422, *letter.ResponseCode)
	require.Equal(t, 1, letter.Attempts)
	require.Equal(t, 1, w.countAttempts("rejected"))
}

func TestADestinationThatRefusesEverythingIsSuspendedAtItsPlaceAndGoesOnAfterTheMend(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.destination("crm", "*")
		var mended atomic.Bool
		w.r.answer = func(context.Context, delivery.Delivery) delivery.Outcome {
			if mended.Load() {
				return delivery.Outcome{Status: 200}
			}
			return delivery.Outcome{Verdict: delivery.Refuse, Status: 401}
		}
		w.start("one")
		w.Append(w.facts(30, 2)...)
		w.Eventually(func(context.Context) (bool, error) { return w.status(d) == storage.DestinationSuspended, nil }, "suspension")
		mended.Store(true)
		w.Append(w.facts(30, 1)...)
		require.Zero(t, w.r.count("crm"))
		_, err := w.store.SetStatus(w.Context(), d.ID, storage.DestinationActive, "")
		require.NoError(t, err)
		w.waitDelivered("crm", 90)
		w.waitFlushed(d)
		require.Empty(t, w.ReadAll(schemas.TopicDeadLetters, true))
		w.requireReceipts()
	})
}

func TestOneContactThatIsRefusedDoesNotSuspendItsDestinationAndA410DoesAtOnce(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.destination("crm", "*")
		var gone, refused atomic.Int64
		w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
			switch string(dv.Records[0].Key) {
			case "gone":
				gone.Add(1)
				return delivery.Outcome{Verdict: delivery.Gone, Status: 410}
			case "refused":
				refused.Add(1)
				return delivery.Outcome{Verdict: delivery.Refuse, Status: 404}
			}
			return delivery.Outcome{Status: 200}
		}
		w.start("one")
		w.Append(w.fact("refused", schemas.FactContactCreated))
		w.Eventually(func(context.Context) (bool, error) { return refused.Load() > 30, nil }, "many refusals")
		require.Equal(t, storage.DestinationActive, w.status(d))
		w.Append(w.fact("gone", schemas.FactContactCreated))
		w.Eventually(func(context.Context) (bool, error) { return w.status(d) == storage.DestinationSuspended, nil }, "suspension")
		require.EqualValues(t, 1, gone.Load())
	})
}

func TestAPausedDestinationStandsStillAndARewindSendsAgainFromItsTarget(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "*")
	w.start("one")
	w.Append(facts(10, 4)...)
	w.waitDelivered("crm", 40)
	_, err := w.store.SetStatus(w.Context(), d.ID, storage.DestinationPaused, "")
	require.NoError(t, err)
	w.waitFlushed(d)

	starts, err := w.admin.StartOffsets(w.Context(), schemas.TopicLifecycle)
	require.NoError(t, err)
	require.NoError(t, w.admin.Rewind(w.Context(), w.db, d.ID, starts))
	_, err = w.store.SetStatus(w.Context(), d.ID, storage.DestinationActive, "")
	require.NoError(t, err)
	repeats := func() int { w.r.mu.Lock(); defer w.r.mu.Unlock(); return w.r.repeats }
	w.Eventually(func(context.Context) (bool, error) { return repeats() == 40, nil }, "all of it again")
	w.waitFlushed(d)

	// While it runs.
	require.NoError(t, w.admin.Rewind(w.Context(), w.db, d.ID, starts))
	w.Eventually(func(context.Context) (bool, error) { return repeats() == 80, nil }, "all of it a third time")
	w.waitFlushed(d)
}

func TestWhatIsKeptForADestinationIsReleasedWhenNothingOfItIsUnderWay(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "*")
	hangs, arrived := make(chan struct{}), make(chan struct{}, 1)
	w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
		if string(dv.Records[0].Key) == "last" {
			arrived <- struct{}{}
			<-hangs
		}
		return delivery.Outcome{Status: 200}
	}
	kept := func() (released, forgotten int) {
		w.r.mu.Lock()
		defer w.r.mu.Unlock()
		return w.r.released[d.ID], w.r.forgotten[d.ID]
	}
	w.start("one", func(c *delivery.Config) { c.Deadline = 2 * time.Second })
	w.Append(facts(10, 1)...)
	w.waitDelivered("crm", 10)
	_, err := w.store.SetStatus(w.Context(), d.ID, storage.DestinationPaused, "")
	require.NoError(t, err)
	w.Eventually(func(context.Context) (bool, error) { n, _ := kept(); return n == 1, nil }, "released while it is paused")
	_, err = w.store.SetStatus(w.Context(), d.ID, storage.DestinationActive, "")
	require.NoError(t, err)
	w.Append(fact("last", schemas.FactContactUpdated))
	<-arrived
	_, err = w.store.Delete(w.Context(), d.ID)
	require.NoError(t, err)
	other := w.destination("other", "*")
	w.Append(facts(10, 1)...)
	w.waitDelivered("other", 10)
	w.waitFlushed(other)
	_, forgotten := kept()
	require.Zero(t, forgotten, "its attempt would put it back")
	close(hangs)
	w.Eventually(func(context.Context) (bool, error) { _, n := kept(); return n == 1, nil }, "forgotten")
}

func TestBatchesCarryRecordsInOrderAndARejectedBatchIsHalvedToTheRecordAtFault(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(1))
	w.r.batch = 16
	d := w.destination("crm", "*")
	largest := atomic.Int64{}
	w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
		largest.Store(max(largest.Load(), int64(len(dv.Records))))
		for _, r := range dv.Records {
			if r.Type == schemas.FactContactDeleted {
				return delivery.Outcome{Verdict: delivery.Split, Status: 400}
			}
		}
		return delivery.Outcome{Status: 200}
	}
	w.Append(append(facts(10, 5), append([]schemas.Message{fact("contact-3", schemas.FactContactDeleted)}, facts(10, 5)...)...)...)
	w.start("one")
	w.waitDelivered("crm", 100)
	w.waitFlushed(d)
	require.Len(t, w.WaitRecords(schemas.TopicDeadLetters, 1), 1)
	require.EqualValues(t, 16, largest.Load())
}

func TestWhatIsReadAndNotFinishedIsBounded(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t, streamtest.Partitions(1))
		d := w.destination("crm", "*")
		block := make(chan struct{})
		w.r.answer = func(context.Context, delivery.Delivery) delivery.Outcome {
			<-block
			return delivery.Outcome{Status: 200}
		}
		w.Append(w.facts(100, 10)...)
		p := w.start("one", func(c *delivery.Config) { c.Window = 50; c.Concurrency = 8; c.Deadline = 2 * time.Second })
		w.Eventually(func(context.Context) (bool, error) {
			w.r.mu.Lock()
			defer w.r.mu.Unlock()
			return w.r.attempts == 8, nil
		}, "8 in flight")
		require.LessOrEqual(t, p.HeldBytes(), int64(50*(256+400)))
		close(block)
		w.waitDelivered("crm", 1000)
		w.waitFlushed(d)
		require.LessOrEqual(t, w.r.most, 8)
		w.requireReceipts()
	})
}
