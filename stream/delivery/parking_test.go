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

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/reader"
)

// A parkBench is a courierBench with a real Postgres behind it, in virtual time.
type parkBench struct {
	*courierBench
	db     *storage.DB
	loader *loader
	stop   func()
}

// inVirtualTime runs fn with a bench; time passes only while nobody waits for
// Postgres.
func inVirtualTime(t *testing.T, change func(*Config), fn func(t *testing.T, b *parkBench)) {
	url := storagetest.URL(t)
	synctest.Test(t, func(t *testing.T) {
		db, err := storage.Open(context.Background(), storage.Config{URL: url})
		require.NoError(t, err)
		defer db.Close()
		b := newParkBench(t, db, uuid.NewString(), change)
		defer func() { b.stop() }()
		fn(t, b)
	})
}

func newParkBench(t *testing.T, db *storage.DB, id string, change func(*Config)) *parkBench {
	ctx, cancel := context.WithCancel(context.Background())
	b := &parkBench{courierBench: newCourierBench(t, change), db: db}
	env := b.courier.env
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, 'crm', 'webhook', $2) ON CONFLICT DO NOTHING`, id, b.destination(1, storage.DestinationActive).EventTypes)
	require.NoError(t, err)
	require.NoError(t, db.CreateCursors(ctx, id, []storage.CursorStart{{Topic: string(b.topic)}}))
	by := storage.Holder{Name: "test", InstanceID: "test"} // of every bench, one after the other
	leases, err := db.TakeBackLeases(ctx, by, 10_000*time.Hour)
	require.NoError(t, err)
	if len(leases) == 0 {
		leases, err = db.AcquireLeases(ctx, by, []int32{0}, 10_000*time.Hour)
		require.NoError(t, err)
	}
	b.id = id
	b.courier.id = id
	require.NoError(t, b.courier.update(b.destination(1, storage.DestinationActive)))
	env.flush = newFlusher(env.cfg, db, zap.NewNop(), env.metrics)
	env.flush.appender = b
	b.loader = newLoader(db, zap.NewNop(), func() []*track {
		all := b.holding.list()
		return all[len(all)-1:]
	})
	env.db = db
	env.loader, env.flush.parked = b.loader, b.loader.wake
	b.holding = newHolding(leases[0], time.Now(), 10_000*time.Hour)
	b.begin()
	var tasks sync.WaitGroup
	tasks.Go(func() { env.flush.run(ctx) })
	tasks.Go(func() { b.loader.run(ctx) })
	b.stop = func() {
		cancel()
		<-b.courier.retire(b.track)
		b.courier.workers.Wait()
		tasks.Wait()
	}
	return b
}

// begin starts a track where the cursor in Postgres stands, as a restart does.
func (b *parkBench) begin() {
	if b.track != nil {
		<-b.courier.retire(b.track)
	}
	cursors, err := b.db.DestinationCursors(context.Background(), b.id)
	require.NoError(b.t, err)
	finished, err := UnpackRanges(cursors[0].Position, cursors[0].Finished)
	require.NoError(b.t, err)
	s := &Sinks{db: b.db, env: b.courier.env}
	places := []*place{{topic: b.topic, cursor: NewCursor(cursors[0].Position, finished), end: -1, epoch: cursors[0].Epoch, answers: b.answers()}}
	require.NoError(b.t, s.addTracks(context.Background(), []beginning{{b.courier, b.holding, places, nil}}))
	b.track = b.holding.list()[len(b.holding.list())-1]
}

// parked is what Postgres has parked.
func (b *parkBench) parked() (keys, records int) {
	keys, records, err := b.db.ParkedTotals(context.Background(), b.id)
	require.NoError(b.t, err)
	return keys, records
}

// stored is the position in Postgres.
func (b *parkBench) stored() int64 {
	cursors, err := b.db.DestinationCursors(context.Background(), b.id)
	require.NoError(b.t, err)
	return cursors[0].Position
}

func (b *parkBench) requireIdle() {
	b.t.Helper()
	b.courier.mu.Lock()
	defer b.courier.mu.Unlock()
	require.Zero(b.t, b.track.open+b.track.openBytes+len(b.track.lanes)+b.courier.flying+len(b.courier.later))
	require.Zero(b.t, len(b.track.parking.marks)+len(b.track.parking.ops)+b.track.parking.retrying)
	require.Zero(b.t, b.courier.env.held.Load())
	b.requireReceipts()
}

func failing(key string, until time.Time) func(Delivery) Outcome {
	return func(d Delivery) Outcome {
		letPass(time.Millisecond)
		if string(d.Records[0].Key) == key && time.Now().Before(until) {
			return Outcome{Verdict: Retry, Status: 500, Err: "boom\x00"}
		}
		return Outcome{Status: 200}
	}
}

func TestAKeyThatFailsWhileOthersSucceedWaitsInPostgresAndIsDeliveredInOrder(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		inVirtualTime(t, nil, func(t *testing.T, b *parkBench) {
			b.set(failing("bad", time.Now().Add(10*time.Minute)))
			sent := map[int64]time.Time{}
			for i := range 3000 {
				sent[b.next] = time.Now()
				b.append(fmt.Sprint("good-", i%50))
				if i%10 == 0 {
					b.append("bad")
				}
				letPass(100 * time.Millisecond)
			}
			synctest.Wait()
			require.Equal(t, b.next, b.position(), "the cursor does not wait for the parked key")
			letPass(time.Second)
			synctest.Wait()
			require.Equal(t, b.next, b.stored())
			keys, records := b.parked()
			require.Equal(t, 1, keys)
			require.Equal(t, 300, records)
			calls, _ := b.tried("bad")
			require.Less(t, calls, 20)
			listed, _, err := b.db.ParkedKeys(context.Background(), b.id, storage.ParkedFilter{}, "", 10)
			require.NoError(t, err)
			require.Equal(t, "bad", listed[0].Key)
			require.Equal(t, storage.ParkedFailing, listed[0].Reason)
			require.Equal(t, 500, listed[0].Status)
			require.Equal(t, calls, listed[0].Attempts)
			require.Equal(t, 300, listed[0].Records)
			require.InDelta(t, 300, listed[0].Failing.Seconds(), 200)

			letPass(2 * time.Hour)
			synctest.Wait()
			b.append("bad") // not parked any more
			letPass(time.Second)
			synctest.Wait()
			require.Len(t, b.took["bad"], 301)
			require.IsIncreasing(t, b.took["bad"])
			for offset, at := range sent {
				require.LessOrEqual(t, b.at[offset].Sub(at), 3*time.Millisecond, "offset %d", offset)
			}
			keys, records = b.parked()
			require.Zero(t, keys+records)
			b.requireIdle()
		})
	})
}

func TestACursorIsNeverSavedWithoutWhatIsParkedWhenTheLeaseEndsInTheMiddleOfAFlush(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		flushedOnce := func(c *Config) { c.FlushEvery = time.Hour }
		inVirtualTime(t, flushedOnce, func(t *testing.T, b *parkBench) {
			ctx := context.Background()
			b.set(failing("bad", time.Now().Add(time.Hour)))
			b.append("good")
			letPass(time.Second)
			before := b.next
			for range 600 {
				b.append("bad", "good")
				letPass(100 * time.Millisecond)
			}
			synctest.Wait()
			require.Equal(t, before, b.stored(), "the next flush is an hour away")

			flushed := make(chan error)
			require.NoError(t, b.db.InTx(ctx, func(tx *storage.Tx) error {
				other := storagetest.SQL(tx)
				_, err := other.Exec(ctx, `SELECT FROM cursors FOR UPDATE`)
				require.NoError(t, err)
				go func() { flushed <- b.courier.env.flush.sync(ctx) }()
				for waiting := false; !waiting; {
					require.NoError(t, other.QueryRow(ctx, `
						SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))`).Scan(&waiting))
				}
				b.holding.lost.Store(true)
				return nil
			}))
			require.NoError(t, <-flushed)

			require.Equal(t, b.next, b.stored())
			_, records := b.parked()
			require.Equal(t, 600, records)
		})
	})
}

func TestWhatHasEndedWhereItIsParkedEndsOnceThoughItWasReadBeforeItsRemoval(t *testing.T) {
	t.Run(string(schemas.TopicOutbox), func(t *testing.T) {
		inVirtualTime(t, nil, func(t *testing.T, b *parkBench) {
			ctx := context.Background()
			b.set(failing("bad", time.Now().Add(time.Hour)))
			b.lasts = 10 * time.Minute
			b.append("bad")
			b.lasts = lasting
			b.append("bad", "bad")
			for range 300 {
				b.append("good")
				letPass(100 * time.Millisecond)
			}
			synctest.Wait()
			require.NoError(t, b.courier.update(b.destination(2, storage.DestinationPaused)))
			_, records := b.parked()
			require.Equal(t, 3, records)
			letPass(10 * time.Minute)

			require.True(t, b.track.lookAtParked())
			rows, err := b.db.EndedParked(ctx, []storage.ParkedTrack{b.track.parkedTrack()}, time.Now(), 10)
			require.NoError(t, err)
			require.Len(t, rows, 1)
			b.track.endParked(&rows[0], time.Now())
			require.NoError(t, b.courier.env.flush.sync(ctx))
			b.track.endParked(&rows[0], time.Now())
			b.track.endLook()
			require.NoError(t, b.courier.env.flush.sync(ctx))

			_, records = b.parked()
			require.Equal(t, 2, records)
			expired := 0
			for _, r := range b.receipts {
				if r.Result == schemas.ReceiptExpired {
					expired++
				}
			}
			require.Equal(t, 1, expired)
			require.NoError(t, b.courier.update(b.destination(3, storage.DestinationActive)))
			letPass(3 * time.Hour)
			synctest.Wait()
			require.Len(t, b.took["bad"], 2, "what is left is delivered")
		})
	})
}

func TestAKeyWhoseReceiverAsksToWaitForLongIsParkedAfterTenSecondsOfOthersSuccess(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		inVirtualTime(t, nil, func(t *testing.T, b *parkBench) {
			start := time.Now()
			b.set(func(d Delivery) Outcome {
				if string(d.Records[0].Key) == "bad" && time.Since(start) < time.Hour {
					return Outcome{Verdict: Retry, Status: 429, RetryAfter: time.Hour}
				}
				return Outcome{Status: 200}
			})
			b.append("bad", "bad", "good")
			letPass(5 * time.Second)
			b.append("good")
			keys, _ := b.parked()
			require.Zero(t, keys)
			letPass(6 * time.Second)
			synctest.Wait()
			_, records := b.parked()
			require.Equal(t, 2, records)
			letPass(59 * time.Minute)
			synctest.Wait()
			calls, _ := b.tried("bad")
			require.Equal(t, 1, calls, "the receiver's wish is obeyed")
			letPass(2 * time.Minute)
			synctest.Wait()
			require.Equal(t, []int64{0, 1}, b.took["bad"])
		})
	})
}

func TestAKeyIsNotParkedWhileNoOtherIsAccepted(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		inVirtualTime(t, nil, func(t *testing.T, b *parkBench) {
			b.append("good")
			synctest.Wait()
			b.set(func(Delivery) Outcome { return Outcome{Verdict: Retry, Status: 503} })
			b.append("a", "b")
			letPass(time.Hour)
			synctest.Wait()
			keys, _ := b.parked()
			require.Zero(t, keys)
			b.set(func(Delivery) Outcome { return Outcome{Status: 200} })
			letPass(time.Hour)
			synctest.Wait()
			require.EqualValues(t, 3, b.position())
		})
	})
}

func TestAParkedRecordExpiresAfterTheHorizonAndItsFollowersAfterTheirOwn(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		inVirtualTime(t, func(c *Config) { c.RetryHorizon = 24 * time.Hour }, func(t *testing.T, b *parkBench) {
			tick := func(d time.Duration) {
				for end := time.Now().Add(d); time.Now().Before(end); letPass(10 * time.Minute) {
					b.append("good")
				}
				synctest.Wait()
			}
			b.set(failing("bad", time.Now().Add(10_000*time.Hour)))
			b.append("bad", "good")
			tick(12 * time.Hour)
			b.append("bad")
			keys, _ := b.parked()
			require.Equal(t, 1, keys)

			// Time in which the destination is paused does not count, nor a restart's.
			require.NoError(t, b.courier.update(b.destination(2, storage.DestinationPaused)))
			letPass(100 * time.Hour)
			require.NoError(t, b.courier.update(b.destination(3, storage.DestinationActive)))
			b.begin()
			tick(11 * time.Hour)
			_, letters := b.tried("bad")
			require.Zero(t, letters)
			tick(2 * time.Hour)
			_, letters = b.tried("bad")
			require.Equal(t, 1, letters)
			require.Equal(t, "expired", b.letters[0].Reason)
			require.EqualValues(t, 0, b.letters[0].Offset)
			require.Equal(t, "bad", string(b.letters[0].RecordKey))
			tick(9 * time.Hour)
			_, records := b.parked()
			require.Equal(t, 1, records, "the follower came 12 hours later")
			tick(3 * time.Hour)
			_, letters = b.tried("bad")
			require.Equal(t, 2, letters)
			keys, records = b.parked()
			require.Zero(t, keys+records)
			require.Empty(t, b.took["bad"])
		})
	})
}

func TestParkedKeysCanBeRetriedAndSkipped(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		inVirtualTime(t, nil, func(t *testing.T, b *parkBench) {
			ctx := context.Background()
			b.set(func(d Delivery) Outcome {
				if k := string(d.Records[0].Key); k == "a" || k == "b" {
					return Outcome{Verdict: Retry, Status: 500}
				}
				return Outcome{Status: 200}
			})
			settle := func() { b.loader.wake(); letPass(time.Second); synctest.Wait() }
			for range 400 {
				b.append("a", "b", "good")
				letPass(time.Second)
			}
			keys, records := b.parked()
			require.Equal(t, 2, keys)
			require.Equal(t, 800, records)
			states, first, err := b.db.InspectParkedKey(ctx, b.id, "a", 3)
			require.NoError(t, err)
			require.Len(t, states, 1)
			require.Len(t, first, 3)
			require.EqualValues(t, 0, first[0].Offset)

			before, _ := b.tried("a")
			n, _, err := b.db.WishParked(ctx, storage.RetryParked, b.id, storage.ParkedFilter{Keys: []string{"a"}}, "")
			require.NoError(t, err)
			require.Equal(t, 1, n)
			settle()
			after, _ := b.tried("a")
			require.Equal(t, before+1, after)

			n, _, err = b.db.WishParked(ctx, storage.SkipParked, b.id, storage.ParkedFilter{Keys: []string{"a"}}, "")
			require.NoError(t, err)
			require.Equal(t, 1, n)
			settle()
			require.Len(t, b.letters, 400)
			for i, l := range b.letters {
				require.Equal(t, "skipped", l.Reason)
				require.EqualValues(t, 3*i, l.Offset)
			}
			after, _ = b.tried("a")
			require.Equal(t, before+1, after, "what is skipped is not tried again")
			keys, records = b.parked()
			require.Equal(t, 1, keys)
			require.Equal(t, 400, records)
			b.set(func(Delivery) Outcome { return Outcome{Status: 200} })
			b.append("a")
			n, _, err = b.db.WishParked(ctx, storage.RetryParked, b.id, storage.ParkedFilter{}, "")
			require.NoError(t, err)
			require.Equal(t, 1, n)
			settle()
			require.Len(t, b.took["b"], 400)
			require.IsIncreasing(t, b.took["b"])
			require.Equal(t, []int64{1200}, b.took["a"])
			b.requireIdle()
		})
	})
}

func TestOrderSurvivesParkingSpillingAndRestartsAtAnyMoment(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		for seed := range uint64(2) {
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				inVirtualTime(t, func(c *Config) { c.Concurrency = 16; c.Window = 200; c.ParkedMax = time.Minute }, func(t *testing.T, b *parkBench) {
					var mu sync.Mutex
					rnd := rand.New(rand.NewPCG(seed, 2))
					chance := func(n int) int { mu.Lock(); defer mu.Unlock(); return rnd.IntN(n) }
					var bad sync.Map // keys that fail for now
					b.set(func(d Delivery) Outcome {
						letPass(time.Duration(chance(40)) * time.Millisecond)
						if _, fails := bad.Load(string(d.Records[0].Key)); fails || chance(20) == 0 {
							return Outcome{Verdict: Retry, Status: 503}
						}
						return Outcome{Status: 200}
					})
					want := map[string]int{}
					log := &reader.Chunk{Kinds: b.kinds()}
					for i := range 3000 {
						k := fmt.Sprint("key-", chance(60))
						if chance(3) == 0 {
							k = "hot"
						}
						want[k]++
						r := b.record(int64(i), k)
						r.AppendTime = time.Now()
						log.Records = append(log.Records, r)
						log.Kind = append(log.Kind, 0)
					}
					log.To = 3000
					feed := func() (done bool) {
						b.courier.mu.Lock()
						defer b.courier.mu.Unlock()
						b.track.full = false
						done = b.track.admit(b.track.places[0], log)
						b.courier.enqueue(b.track)
						b.courier.dispatch()
						return done
					}
					for round := 0; !feed() || b.stored() < 3000 || round < 40; round++ {
						if round < 60 {
							bad.Store(fmt.Sprint("key-", chance(60)), true)
							bad.Store("hot", true)
							bad.Delete(fmt.Sprint("key-", chance(60)))
							if chance(2) == 0 {
								bad.Delete("hot")
							}
						} else {
							bad.Clear()
						}
						letPass(time.Duration(chance(8000)) * time.Millisecond)
						if chance(4) == 0 {
							b.begin() // as after a crash: what is not flushed is read again
						}
						require.Less(t, round, 10_000)
					}
					bad.Clear()
					letPass(24 * time.Hour)
					synctest.Wait()
					require.Empty(t, b.letters)
					for k, n := range want {
						first := map[int64]bool{}
						last := int64(-1)
						for _, o := range b.took[k] {
							if !first[o] {
								require.Greater(t, o, last, "key %s", k)
								first[o], last = true, o
							}
						}
						require.Len(t, first, n, "key %s", k)
					}
					keys, records := b.parked()
					require.Zero(t, keys+records)
					b.requireIdle()
				})
			})
		}
	})
}

func TestAHundredThousandParkedKeysTakeLittleMemory(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	id := uuid.NewString()
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, 'crm', 'webhook', '{*}')`, id)
	require.NoError(t, err)
	const n = 100_000
	_, err = storagetest.SQL(db).Exec(ctx, `
		INSERT INTO parked_records (destination_id, partition, record_key, topic, "offset", append_time, record_id, record_type,
			trace_parent, trace_state, value, since_ms)
		SELECT $1, 0, 'key-' || i, 'lifecycle', i, now(), 'r', 'contact.updated', '', '', repeat('x', 500)::bytea, 0
		FROM generate_series(1, $2) AS i`, id, n)
	require.NoError(t, err)
	_, err = storagetest.SQL(db).Exec(ctx, `
		INSERT INTO parked_keys (destination_id, partition, record_key, reason, attempts, next_attempt_at)
		SELECT destination_id, partition, record_key, 'failing', 5, now() - interval '1 minute' FROM parked_records`)
	require.NoError(t, err)
	_, err = storagetest.SQL(db).Exec(ctx, `ANALYZE parked_records, parked_keys`)
	require.NoError(t, err)
	before := heapBytes()
	b := newParkBench(t, db, id, func(c *Config) { c.Concurrency = 16 })
	defer b.stop()
	b.append("unblock") // the log was read beyond all of them
	b.courier.mu.Lock()
	b.track.places[0].advance(n + 1)
	b.courier.mu.Unlock()
	b.set(func(Delivery) Outcome { return Outcome{Status: 200} })
	half := func() bool { _, left, _ := db.ParkedTotals(ctx, id); return left < n*98/100 }
	require.Eventually(t, half, time.Minute, 50*time.Millisecond)
	took := heapBytes() - before
	t.Logf("%d KiB with %d parked keys", took>>10, n)
	require.Less(t, took, int64(24<<20))
	b.courier.mu.Lock()
	require.LessOrEqual(t, b.track.open, loadKeys)
	b.courier.mu.Unlock()
}

func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestWhatADestinationNoLongerSubscribesToIsSkippedThoughItIsQueuedOrParked(t *testing.T) {
	inVirtualTime(t, func(c *Config) { c.Concurrency = 1 }, func(t *testing.T, b *parkBench) {
		b.set(failing("bad", time.Now().Add(1000*time.Hour)))
		b.append("bad", "bad")
		for range 300 {
			b.append("good")
			letPass(100 * time.Millisecond)
		}
		letPass(time.Second)
		synctest.Wait()
		keys, records := b.parked()
		require.Equal(t, []int{1, 2}, []int{keys, records})
		slow := make(chan struct{})
		b.set(func(Delivery) Outcome {
			<-slow
			return Outcome{Status: 200}
		})
		b.append("one", "two", "three") // one is under way, the others are queued
		narrowed := b.destination(2, storage.DestinationActive)
		narrowed.EventTypes = []string{schemas.FactContactCreated}
		require.NoError(t, b.courier.update(narrowed))
		close(slow)
		letPass(2 * time.Hour)
		synctest.Wait()
		require.Equal(t, b.next, b.position())
		keys, records = b.parked()
		require.Zero(t, keys+records)
		require.Empty(t, b.took["bad"])
		require.Len(t, b.took["one"], 1)
		require.Empty(t, append(b.took["two"], b.took["three"]...))
		require.Empty(t, b.letters)
		var skipped int
		require.NoError(t, storagetest.SQL(b.db).QueryRow(context.Background(), `SELECT count(*) FROM delivery_attempts WHERE outcome = 'skipped'`).Scan(&skipped))
		require.Equal(t, 4, skipped)
		b.requireIdle()
	})
}
