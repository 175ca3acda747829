package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/reader"
	"github.com/hogstream/hogstream/stream/streamtest/seeds"
)

// eachFaultSeed runs a test with its seeds.
func eachFaultSeed(t *testing.T, few int, run func(t *testing.T, rng *rand.Rand)) {
	t.Helper()
	seeds.Each(t, few, func(t *testing.T, seed uint64) { run(t, rand.New(rand.NewPCG(seed, 11))) })
}

// A prepared log is fed as it grows and as there is room, as a feeder does.
type preparedLog struct {
	b       *parkBench
	records *reader.Chunk
	rate    float64 // records a second
	begun   time.Time
}

func (b *parkBench) prepare(n int, rate float64, key func(i int) string) *preparedLog {
	l := &preparedLog{b: b, rate: rate, begun: time.Now(), records: &reader.Chunk{Kinds: b.kinds(), Kind: make([]uint16, n)}}
	for i := range n {
		r := b.record(int64(i), key(i))
		r.AppendTime = l.begun.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		l.records.Records = append(l.records.Records, r)
	}
	return l
}

// grow lets time pass while the log grows.
func (l *preparedLog) grow(step time.Duration) {
	letPass(step)
	c := l.b.courier
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.b.track.full {
		return
	}
	now := *l.records
	now.To = min(int64(len(l.records.Records)), int64(time.Since(l.begun).Seconds()*l.rate))
	now.Records = l.records.Records[:now.To]
	l.b.track.admit(l.b.track.places[0], &now)
	c.enqueue(l.b.track)
	c.dispatch()
}

// An outage of one or of four hours, in which the receiver is away in one way or
// another and comes back for moments.
func TestFaultAnOutageOfHoursMakesFewCallsAndThenEverythingArrivesInOrder(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		eachFaultSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
			const rate, keys, calm = 10, 50, time.Minute
			lasts := []time.Duration{time.Hour, 4 * time.Hour}[rng.IntN(2)]
			inVirtualTime(t, func(c *Config) { c.Concurrency, c.Window = 16, 400 }, func(t *testing.T, b *parkBench) {
				away := []Outcome{
					{Verdict: Retry, Err: "connection refused"}, {Verdict: Retry, Status: 503},
					{Verdict: Retry, Status: 503, RetryAfter: time.Minute}, {Verdict: Retry, Err: "timeout"},
				}[rng.IntN(4)]
				start, flicker := time.Now(), time.Duration(rng.Int64N(int64(lasts)))
				flickers := rng.IntN(2) == 0
				var calls atomic.Int64
				b.set(func(Delivery) Outcome {
					since := time.Since(start) - calm
					back := flickers && since > flicker && since < flicker+3*time.Second
					if since < 0 || since > lasts || back {
						letPass(5 * time.Millisecond)
						return Outcome{Status: 200}
					}
					calls.Add(1)
					if away.Err == "timeout" {
						letPass(b.courier.env.cfg.Deadline)
					} else {
						letPass(time.Millisecond)
					}
					return away
				})
				n := int((calm + lasts + calm).Seconds() * rate)
				log := b.prepare(n, rate, func(i int) string { return fmt.Sprint("key-", i%keys) })
				opened := time.Duration(0)
				for time.Since(start) < calm+lasts {
					log.grow(time.Second)
					b.courier.mu.Lock()
					if b.courier.circuit.open && opened == 0 {
						opened = time.Since(start) - calm
					}
					b.courier.mu.Unlock()
				}
				made := calls.Load()
				for b.position() < int64(n) {
					log.grow(time.Second)
					require.Less(t, time.Since(start), calm+lasts+time.Hour)
				}
				synctest.Wait()
				t.Logf("away for %s (%+v, flickers: %v): opened after %s, %d calls, %.2f %% of those of before; drained %s after it",
					lasts, away, flickers, opened, made, 100*float64(made)/(rate*lasts.Seconds()), time.Since(start)-calm-lasts)
				require.NotZero(t, opened)
				require.LessOrEqual(t, opened, 10*time.Second)
				require.LessOrEqual(t, float64(made), rate*lasts.Seconds()/100)
				require.Empty(t, b.letters)
				for k, offsets := range b.took {
					require.IsIncreasing(t, offsets, k)
					require.Len(t, offsets, n/keys, k)
				}
				letPass(time.Second)
				synctest.Wait()
				require.EqualValues(t, n, b.stored())
				parked, records := b.parked()
				require.Zero(t, parked+records)
				b.requireIdle()
			})
		})
	})
}

// A span in which the destination is not delivered to.
type span struct {
	from, to time.Duration
	paused   bool // else its receiver is away
}

// One contact fails for less than the horizon, or for more, in time in which others
// are accepted; pauses and outages in between do not count.
func TestFaultAContactThatFailsForDaysIsDeliveredInOrderOrExpiresByOpenTimeAlone(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		eachFaultSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
			beyond := rng.IntN(2) == 0
			fails := 60*time.Hour + time.Duration(rng.Int64N(int64(11*time.Hour))) // of open time
			if beyond {
				fails = 90 * time.Hour
			}
			closed := []span{
				{from: 5 * time.Hour, to: 9 * time.Hour}, // an outage of 4 h
				{from: 20 * time.Hour, to: 20*time.Hour + time.Duration(1+rng.Int64N(100))*time.Hour, paused: true},
			}
			inVirtualTime(t, nil, func(t *testing.T, b *parkBench) {
				var mu sync.Mutex
				away, failing := false, true
				b.set(func(d Delivery) Outcome {
					letPass(time.Millisecond)
					mu.Lock()
					defer mu.Unlock()
					if away || failing && string(d.Records[0].Key) == "bad" {
						return Outcome{Verdict: Retry, Status: 503}
					}
					return Outcome{Status: 200}
				})
				set := func(what *bool, to bool) { mu.Lock(); *what = to; mu.Unlock() }
				revision, i, bad := int64(1), 0, 0
				var open, last time.Duration // open time in all, and when the last record of bad came
				start := time.Now()
				const step = 30 * time.Minute
				tick := func() {
					for range 12 {
						b.append(fmt.Sprint("good-", i%40))
						i++
					}
					letPass(step)
					synctest.Wait()
				}
				for open < fails {
					if open >= last && bad < 4 { // followers, each with a horizon of its own
						b.append("bad")
						bad, last = bad+1, last+5*time.Hour
					}
					tick()
					open += step
					if len(closed) == 0 || time.Since(start) < closed[0].from {
						continue
					}
					s := closed[0]
					closed = closed[1:]
					if s.paused {
						revision++
						require.NoError(t, b.courier.update(b.destination(revision, storage.DestinationPaused)))
					} else {
						set(&away, true)
					}
					for end := time.Now().Add(s.to - s.from); time.Now().Before(end); {
						tick()
					}
					if s.paused {
						revision++
						require.NoError(t, b.courier.update(b.destination(revision, storage.DestinationActive)))
					} else {
						set(&away, false)
					}
				}
				set(&failing, false)
				for range 8 {
					tick()
				}
				b.append("bad")
				tick()
				t.Logf("failed for %s of open time, %s in all: %d of %d given up", open, time.Since(start).Round(time.Minute), len(b.letters), bad)
				require.IsIncreasing(t, b.took["bad"])
				require.Len(t, b.took["bad"], bad+1-len(b.letters))
				for n, l := range b.letters {
					require.Equal(t, "expired", l.Reason)
					require.Equal(t, "bad", string(l.RecordKey))
					if n > 0 {
						require.Greater(t, l.Offset, b.letters[n-1].Offset)
					}
				}
				if beyond {
					require.Len(t, b.letters, bad, "each after its own 72 h")
				} else {
					require.Empty(t, b.letters)
				}
				keys, records := b.parked()
				require.Zero(t, keys+records)
				letPass(time.Second)
				synctest.Wait()
				require.Equal(t, b.next, b.stored())
				b.requireIdle()
			})
		})
	})
}

// A process that is stopped between looking at its lease and sending, and wakes up
// when the lease is somebody else's, sends nothing.
func TestAnAttemptThatAProcessWasStoppedBeforeIsOverWhenItWakes(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, nil)
			var left error
			b.courier.env.deliverer = deliverFunc(func(ctx context.Context, _ Delivery) Outcome {
				left = ctx.Err()
				return Outcome{Verdict: Retry}
			})
			f := b.courier.newFlight(b.track)
			f.dest, f.sentAt = b.destination(1, storage.DestinationActive), time.Now()
			b.courier.attempt(f)
			require.NoError(t, left)
			letPass(b.courier.env.cfg.Deadline) // the process is stopped here
			b.courier.attempt(f)
			require.ErrorIs(t, left, context.DeadlineExceeded)
		})
	})
}

type deliverFunc func(context.Context, Delivery) Outcome

func (f deliverFunc) Batch(*storage.Destination) (int, int)           { return 1, 0 }
func (f deliverFunc) Deliver(ctx context.Context, d Delivery) Outcome { return f(ctx, d) }
