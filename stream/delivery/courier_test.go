package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// A bench is one courier with one track, fed by hand, in virtual time.
type courierBench struct {
	t       *testing.T
	courier *courier
	track   *track
	holding *holding
	next    int64
	id      string

	mu      sync.Mutex
	answer  func(d Delivery) Outcome
	took    map[string][]int64 // by key, in order of arrival
	at      map[int64]time.Time
	flying  map[string]bool
	calls   map[string]int
	letters []*schemas.DeadLetter

	topic    schemas.Topic
	receipts []*schemas.Receipt // in the order in which they were appended
	began    time.Time
	lasts    time.Duration // what is asked for may be sent for so long
}

func newCourierBench(t *testing.T, change func(*Config)) *courierBench {
	b := &courierBench{t: t, topic: FeedUnder(t), id: uuid.NewString(), began: time.Now(), lasts: lasting, took: map[string][]int64{}, at: map[int64]time.Time{}, flying: map[string]bool{}, calls: map[string]int{},
		answer: func(Delivery) Outcome { return Outcome{Status: 200} }}
	cfg := Config{Instance: "test", MaxUnflushed: 1 << 30, Window: 1 << 20, WindowBytes: 1 << 30, HeldBytes: 1 << 40}
	if change != nil {
		change(&cfg)
	}
	cfg = cfg.withDefaults()
	metrics, err := newSinkMetrics(nil)
	require.NoError(t, err)
	env := &courierEnv{cfg: cfg, deliverer: b, appender: b, log: zap.NewNop(), metrics: metrics,
		codec: schemas.NewCodec(), flush: newFlusher(cfg, nil, zap.NewNop(), metrics), suspend: func(*storage.Destination, string) {}}
	b.courier, err = newCourier(env, b.destination(1, storage.DestinationActive))
	require.NoError(t, err)
	b.holding = newHolding(storage.Lease{}, time.Now(), 1000*time.Hour)
	b.track = b.courier.newTrack(b.holding, trackKey{}, []*place{{topic: b.topic, cursor: NewCursor(0, nil), end: -1, answers: b.answers()}}, nil)
	b.courier.add(b.track)
	return b
}

func (b *courierBench) destination(revision int64, status storage.DestinationStatus) *storage.Destination {
	types := []string{"*"}
	if b.answers() {
		types = []string{schemas.SubscribeOutbox}
	}
	return &storage.Destination{ID: b.id, Name: "crm", Kind: "webhook", EventTypes: types, Status: status, Revision: revision}
}

func (b *courierBench) Batch(*storage.Destination) (int, int) { return 1, 0 }

func (b *courierBench) Deliver(_ context.Context, d Delivery) Outcome {
	key := string(d.Records[0].Key)
	b.mu.Lock()
	if b.flying[key] {
		b.t.Errorf("two deliveries under way for %s", key)
	}
	b.flying[key] = true
	b.calls[key]++
	answer := b.answer
	b.mu.Unlock()
	out := answer(d)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flying[key] = false
	if out.Verdict == Delivered {
		b.took[key] = append(b.took[key], d.Records[0].Offset)
		b.at[d.Records[0].Offset] = time.Now()
	}
	return out
}

func (b *courierBench) Append(_ context.Context, msgs ...schemas.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range msgs {
		switch m := m.(type) {
		case *schemas.DeadLetter:
			b.letters = append(b.letters, m)
		case *schemas.Signal:
			b.receipts = append(b.receipts, m.Receipt)
		}
	}
	return nil
}

// append puts records on the log, one for each key given, and feeds them.
func (b *courierBench) append(keys ...string) {
	c := &reader.Chunk{From: b.next, To: b.next + int64(len(keys)), Kinds: b.kinds(), Kind: make([]uint16, len(keys))}
	for _, k := range keys {
		c.Records = append(c.Records, b.record(b.next, k))
		b.next++
	}
	b.courier.mu.Lock()
	defer b.courier.mu.Unlock()
	require.True(b.t, b.track.admit(b.track.places[0], c))
	b.courier.enqueue(b.track)
	b.courier.dispatch()
}

func TestADestinationWhoseSecretsCannotBeOpenedStandsStillAndTheLogSaysSoOnce(t *testing.T) {
	b := newCourierBench(t, nil)
	core, logs := observer.New(zap.ErrorLevel)
	b.courier.env.log = zap.New(core)
	for revision := int64(2); revision < 4; revision++ {
		dest := b.destination(revision, storage.DestinationActive)
		dest.Unreadable = "sealed under another key"
		require.NoError(t, b.courier.update(dest))
	}
	require.True(t, b.courier.halted)
	require.Equal(t, 1, logs.FilterMessage("delivery.destination_unreadable").Len())

	require.NoError(t, b.courier.update(b.destination(4, storage.DestinationActive)))
	require.False(t, b.courier.halted)
}

func TestAFewOpenRecordsDoNotKeepAllThatWasReadWithThemInMemory(t *testing.T) {
	b := newCourierBench(t, nil)
	release, arrived := make(chan struct{}), make(chan struct{}, 3)
	b.set(func(Delivery) Outcome {
		arrived <- struct{}{}
		<-release
		return Outcome{Status: 200}
	})
	subscribed := b.destination(2, storage.DestinationActive)
	subscribed.EventTypes = []string{schemas.FactContactCreated}
	require.NoError(t, b.courier.update(subscribed))
	read := make([]byte, 1<<20) // as one fetch decompresses it
	c := &reader.Chunk{To: 1024, Kinds: []string{schemas.FactContactUpdated, schemas.FactContactCreated}, Records: make([]stream.Record, 1024), Kind: make([]uint16, 1024)}
	for i := range c.Records {
		r := &c.Records[i]
		r.Topic, r.Offset, r.Type = schemas.TopicLifecycle, int64(i), c.Kinds[0]
		r.Key, r.Value = fmt.Append(nil, "key-", i), read[i<<10:(i+1)<<10]
		if i%500 == 7 {
			r.Type, c.Kind[i] = c.Kinds[1], 1
		}
		c.Bytes += r.Size()
	}
	bytes, records := weak.Make(&read[0]), weak.Make(&c.Records[0])
	b.courier.mu.Lock()
	require.True(t, b.track.admit(b.track.places[0], c))
	b.courier.enqueue(b.track)
	b.courier.dispatch()
	require.Equal(t, 3, b.track.open)
	b.courier.mu.Unlock()
	<-arrived
	runtime.GC()
	require.Nil(t, bytes.Value())
	require.Nil(t, records.Value())
	close(release)
	b.courier.workers.Wait()
	require.Len(t, b.took, 3)
}

func (b *courierBench) position() int64 {
	b.courier.mu.Lock()
	defer b.courier.mu.Unlock()
	return b.track.places[0].cursor.Position()
}

func (b *courierBench) set(answer func(Delivery) Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

// tried is how often a key was attempted, and how many records were given up.
func (b *courierBench) tried(key string) (calls, letters int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls[key], len(b.letters)
}

func TestOrderOfEachContactSurvivesAnyMixtureOfFailures(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		for seed := range uint64(20) {
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newCourierBench(t, func(c *Config) { c.Concurrency = 16 })
					var mu sync.Mutex
					rnd := rand.New(rand.NewPCG(seed, 1))
					b.set(func(Delivery) Outcome {
						mu.Lock()
						n, pause := rnd.IntN(10), time.Duration(rnd.IntN(50))*time.Millisecond
						mu.Unlock()
						letPass(pause)
						switch n {
						case 0, 1:
							return Outcome{Verdict: Retry, Err: "reset"}
						case 2:
							return Outcome{Verdict: Retry, Status: 429, RetryAfter: 3 * time.Second}
						}
						return Outcome{Status: 200}
					})
					want := map[string][]int64{}
					for range 2000 {
						mu.Lock()
						k := fmt.Sprint("key-", rnd.IntN(100)*rnd.IntN(100)/100) // some hot, most not
						mu.Unlock()
						want[k] = append(want[k], b.next)
						b.append(k)
					}
					letPass(24 * time.Hour)
					synctest.Wait()
					require.Equal(t, want, b.took)
					require.Equal(t, b.next, b.position())
					require.Zero(t, b.track.open+b.track.openBytes+len(b.track.lanes)+b.courier.flying+len(b.courier.later))
					require.Zero(t, b.courier.env.held.Load())
				})
			})
		}
	})
}

func TestOneContactThatFailsForTenMinutesDelaysNoOther(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, func(c *Config) { c.Concurrency = 4 })
			start := time.Now()
			b.set(func(d Delivery) Outcome {
				letPass(time.Millisecond)
				if string(d.Records[0].Key) == "bad" && time.Since(start) < 10*time.Minute {
					return Outcome{Verdict: Retry, Status: 500}
				}
				return Outcome{Status: 200}
			})
			sent := map[int64]time.Time{}
			for i := range 6000 {
				sent[b.next] = time.Now()
				b.append(fmt.Sprint("good-", i%50))
				if i%10 == 0 {
					b.append("bad")
				}
				letPass(100 * time.Millisecond)
			}
			letPass(time.Hour)
			synctest.Wait()
			require.Equal(t, b.next, b.position())
			require.Len(t, b.took["bad"], 600)
			for offset, at := range sent {
				require.LessOrEqual(t, b.at[offset].Sub(at), 2*time.Millisecond, "offset %d", offset)
			}
		})
	})
}

func TestARecordThatFailsForTheWholeHorizonExpiresAndTheHorizonStandsStillWhilePaused(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, nil)
			b.set(func(d Delivery) Outcome {
				if string(d.Records[0].Key) == "bad" && d.Records[0].Offset == 0 {
					return Outcome{Verdict: Retry, Status: 503}
				}
				return Outcome{Status: 200}
			})
			b.append("bad", "bad")
			accepts := func(hours int) { // the horizon counts time in which others are accepted
				for range 2 * hours {
					b.append("good")
					letPass(30 * time.Minute)
				}
			}
			accepts(36)
			require.NoError(t, b.courier.update(b.destination(2, storage.DestinationPaused)))
			letPass(1000 * time.Hour)
			synctest.Wait()
			b.holding.renewed(time.Now(), 1000*time.Hour)
			calls, letters := b.tried("bad")
			require.Zero(t, letters)
			require.NoError(t, b.courier.update(b.destination(3, storage.DestinationActive)))
			accepts(35)
			synctest.Wait()
			more, letters := b.tried("bad")
			require.Zero(t, letters)
			require.Greater(t, more, calls)
			accepts(2)
			synctest.Wait()
			require.Len(t, b.letters, 1)
			require.Equal(t, "expired", b.letters[0].Reason)
			require.EqualValues(t, 0, b.letters[0].Offset)
			require.Equal(t, []int64{1}, b.took["bad"])
			require.Equal(t, b.next, b.position())
		})
	})
}

func TestAfterAnOutageOfFourHoursEverythingArrivesInOrder(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, func(c *Config) { c.Concurrency = 8 })
			start := time.Now()
			b.set(func(Delivery) Outcome {
				if time.Since(start) < 4*time.Hour {
					return Outcome{Verdict: Retry, Err: "connection refused"}
				}
				return Outcome{Status: 200}
			})
			for i := range 1000 {
				b.append(fmt.Sprint("key-", i%20))
			}
			letPass(5 * time.Hour)
			synctest.Wait()
			require.Equal(t, b.next, b.position())
			for k, offsets := range b.took {
				require.IsIncreasing(t, offsets, k)
				require.Len(t, offsets, 50, k)
			}
		})
	})
}

func TestAnAttemptStartsOnlyIfItsDeadlineEndsWithinTheLease(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, func(c *Config) { c.Lease, c.Deadline = 30*time.Second, 15*time.Second })
			b.holding.renewed(time.Now(), 30*time.Second)
			b.append("early")
			letPass(15 * time.Second)
			b.append("late", "later")
			synctest.Wait()
			require.Equal(t, map[string]int{"early": 1}, b.calls)
			b.holding.renewed(time.Now(), 30*time.Second)
			b.courier.release(b.track)
			synctest.Wait()
			require.EqualValues(t, 3, b.position())

			// A retry that falls due after the lease waits for it too.
			b.set(func(Delivery) Outcome { return Outcome{Verdict: Retry, RetryAfter: time.Minute} })
			b.append("retried")
			letPass(2 * time.Minute)
			synctest.Wait()
			calls, _ := b.tried("retried")
			require.Equal(t, 1, calls)
			b.set(func(Delivery) Outcome { return Outcome{Status: 200} })
			b.holding.renewed(time.Now(), 30*time.Second)
			b.courier.release(b.track)
			synctest.Wait()
			require.EqualValues(t, 4, b.position())
		})
	})
}

func TestARecordWhoseDeliveryPanicsBecomesADeadLetter(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, nil)
			core, logs := observer.New(zap.ErrorLevel)
			b.courier.env.log = zap.New(core)
			b.set(func(d Delivery) Outcome {
				if d.Records[0].Offset == 1 {
					b.mu.Lock()
					b.flying["a"] = false
					b.mu.Unlock()
					panic("ada@example.com")
				}
				return Outcome{Status: 200}
			})
			b.append("a", "a", "a")
			synctest.Wait()
			require.Equal(t, []int64{0, 2}, b.took["a"])
			require.Equal(t, []int64{1}, b.rejected())
			if !b.answers() { // a receipt has no words of others
				require.Equal(t, "panic: a value of type string", b.letters[0].Error)
			}
			require.Equal(t, 1, logs.FilterMessage("delivery.panicked").Len())
			require.NotContains(t, fmt.Sprint(logs.All()), "ada@", "what a program panics with may be a value of a record")
			require.EqualValues(t, 3, b.position())
		})
	})
}

func TestBackoffGrowsToItsLimitAndObeysTheReceiver(t *testing.T) {
	const base, limit = time.Second, time.Minute
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: limit, 40: limit, 1 << 40: limit} {
		require.Equal(t, want/2, backoff(n, base, limit, 0.5, 0), "n = %d", n)
	}
	require.Equal(t, 10*time.Minute, backoff(1, base, limit, 0.9, 10*time.Minute))
	require.Zero(t, backoff(3, base, limit, 0, 0), "full jitter reaches down to nothing")
}

// letPass lets virtual time pass: within a synctest bubble the clock jumps, and
// everything else has come to rest by then.
func letPass(d time.Duration) { <-time.After(d) }

// TestABackfillStopsBeforeLiveDeliveriesDoWhenPostgresIsSlow: what was delivered and
// is not written yet is bounded for both together; the second half is for live.
func TestABackfillStopsBeforeLiveDeliveriesDoWhenPostgresIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newCourierBench(t, func(c *Config) { c.Concurrency, c.MaxUnflushed = 1, 20 })
		live := b.track
		replayed, err := newBackfill(storage.Replay{ID: "again"})
		require.NoError(t, err)
		b.track = b.courier.newTrack(b.holding, trackKey{replay: "again"}, []*place{{topic: schemas.TopicLifecycle, cursor: NewCursor(0, nil), end: 1000}}, replayed)
		b.courier.add(b.track)

		for i := range 20 {
			b.append(fmt.Sprint("again-", i))
		}
		synctest.Wait()
		require.Equal(t, int64(10), b.courier.env.flush.pending.Load(), "the backfill, up to half of what may wait")

		b.track = live
		for i := range 20 {
			b.append(fmt.Sprint("live-", i))
		}
		synctest.Wait()
		require.Equal(t, int64(20), b.courier.env.flush.pending.Load(), "live, up to all of it")
	})
}
