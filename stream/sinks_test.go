package stream_test

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
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// A receiver is a scripted Deliverer that watches over what delivery promises.
type receiver struct {
	t testing.TB
	// answer judges an attempt; nil delivers all.
	answer func(ctx context.Context, d stream.Delivery) stream.Outcome
	batch  int

	mu        sync.Mutex
	inFlight  map[string]bool // destination and key
	delivered map[string][]int64
	first     map[string]map[int64]bool
	attempts  int
	repeats   int
	most      int // in flight at once
	changed   chan struct{}
}

func newReceiver(t testing.TB) *receiver {
	return &receiver{t: t, batch: 1, inFlight: map[string]bool{}, delivered: map[string][]int64{},
		first: map[string]map[int64]bool{}, changed: make(chan struct{}, 1)}
}

func (r *receiver) Batch(*storage.Destination) (int, int) { return r.batch, 1 << 20 }

func (r *receiver) Deliver(ctx context.Context, d stream.Delivery) stream.Outcome {
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
	out := stream.Outcome{Status: 200, Latency: time.Millisecond}
	if r.answer != nil {
		out = r.answer(ctx, d)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range keys {
		delete(r.inFlight, k)
	}
	if out.Verdict == stream.Delivered {
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
	t  testing.TB
	db *storage.DB
	r  *receiver

	mu           sync.Mutex
	destinations map[string]*storage.Destination
}

func newWorld(t testing.TB, opts ...streamtest.Option) *world {
	return &world{Env: streamtest.New(t, opts...), t: t, db: storagetest.New(t), r: newReceiver(t), destinations: map[string]*storage.Destination{}}
}

// destination makes one with cursors at the log's end, as the API does.
func (w *world) destination(name string, types ...string) *storage.Destination {
	w.t.Helper()
	d := &storage.Destination{ID: uuid.NewString(), Name: name, Kind: "webhook", EventTypes: types,
		Status: storage.DestinationActive, Revision: 1}
	_, err := w.db.Exec(w.Context(), `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, $2, $3, $4)`, d.ID, d.Name, d.Kind, types)
	require.NoError(w.t, err)
	sub, err := schemas.ParseSubscription(types)
	require.NoError(w.t, err)
	var starts []storage.CursorStart
	for _, topic := range sub.Topics() {
		for p, end := range w.Ends(topic) {
			starts = append(starts, storage.CursorStart{Topic: string(topic), Partition: p, Offset: end})
		}
	}
	require.NoError(w.t, storage.CreateCursors(w.Context(), w.db, d.ID, starts))
	w.set(d)
	return d
}

// set adds or changes a destination and tells every instance.
func (w *world) set(d *storage.Destination) {
	w.mu.Lock()
	w.destinations[d.ID] = d
	w.mu.Unlock()
	require.NoError(w.t, storage.Notify(w.Context(), w.db, storage.ChannelDestinations, d.ID))
}

// load gives the destinations with the status that the table has.
func (w *world) load(ctx context.Context) ([]*storage.Destination, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*storage.Destination
	for _, d := range w.destinations {
		c := *d
		var status string
		var revision int64
		if err := w.db.QueryRow(ctx, `SELECT status, status_reason, revision FROM destinations WHERE id = $1`, d.ID).Scan(&status, &c.StatusReason, &revision); err != nil {
			return nil, err
		}
		c.Status, c.Revision = storage.DestinationStatus(status), revision
		all = append(all, &c)
	}
	return all, nil
}

// process is one running Sinks.
type process struct {
	*stream.Sinks
	cancel context.CancelFunc
	done   chan error
}

func (w *world) start(name string, change ...func(*stream.SinksConfig)) *process {
	w.t.Helper()
	cfg := stream.SinksConfig{Instance: name, Lease: 3 * time.Second, Renew: 500 * time.Millisecond, Deadline: time.Second,
		Drain: time.Second, SessionTimeout: 2 * time.Second, BackoffBase: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	s, err := stream.NewSinks(cfg, stream.SinksDeps{Kafka: w.Config, DB: w.db, Appender: w.Log(), Deliverer: w.r, Destinations: w.load, Log: w.Logger})
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
		ends := map[string]map[int32]int64{"lifecycle": w.Ends(schemas.TopicLifecycle), "events": w.Ends(schemas.TopicEvents)}
		all, err := storage.LoadCursors(ctx, w.db, slices.Collect(maps.Keys(ends["lifecycle"])))
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
	require.NoError(w.t, w.db.QueryRow(w.Context(), `SELECT count(*) FROM delivery_attempts WHERE outcome = $1`, outcome).Scan(&n))
	return n
}

func TestRecordsAppendedAfterADestinationWasCreatedReachItInOrderForEachContact(t *testing.T) {
	w := newWorld(t)
	w.Append(facts(10, 3)...) // before: not for it
	d := w.destination("crm", "contact.*")
	w.Append(facts(20, 5)...)
	w.Append(fact("contact-1", schemas.FactBucketEntered)) // not wanted
	p := w.start("one")
	w.waitDelivered("crm", 100)
	w.Append(facts(20, 5)...)
	w.waitDelivered("crm", 200)
	w.waitFlushed(d)
	require.Equal(t, 200, w.countAttempts("delivered"))
	require.Zero(t, p.HeldBytes())
	require.Zero(t, w.r.repeats)
	p.stop()

	w.Append(facts(20, 1)...)
	w.start("one")
	w.waitDelivered("crm", 220)
	require.Zero(t, w.r.repeats, "a stop in good order repeats nothing")
}

func TestFailuresChangeNeitherOrderNorCompletenessAndDoNotDelayOtherContacts(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "*", "event.tracked")
	var failures atomic.Int64
	w.r.answer = func(ctx context.Context, d stream.Delivery) stream.Outcome {
		switch n := rand.IntN(100); {
		case n < 20:
			failures.Add(1)
			return stream.Outcome{Verdict: stream.Retry, Status: 503}
		case n < 25:
			failures.Add(1)
			return stream.Outcome{Verdict: stream.Retry, Status: 429, RetryAfter: time.Duration(rand.IntN(20)) * time.Millisecond}
		case n < 30:
			time.Sleep(time.Millisecond) // a slow receiver
		}
		return stream.Outcome{Status: 200}
	}
	release := make(chan struct{})
	inner := w.r.answer
	w.r.answer = func(ctx context.Context, dv stream.Delivery) stream.Outcome {
		if string(dv.Records[0].Key) == "contact-0" {
			select {
			case <-release:
			default:
				return stream.Outcome{Verdict: stream.Retry, Err: "connection refused"}
			}
		}
		return inner(ctx, dv)
	}
	w.Append(facts(50, 20)...)
	w.start("one")
	w.waitDelivered("crm", 49*20)
	close(release)
	w.waitDelivered("crm", 50*20)
	w.waitFlushed(d)
	require.NotZero(t, failures.Load())
	require.Zero(t, w.r.repeats)
}
