package delivery

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/stream/reader"
)

func TestInAnOutageOfAnHourTheCircuitOpensWithinTenSecondsProbesRarelyAndThenDrainsInOrder(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, func(c *Config) { c.Concurrency = 16; c.Window = 400 })
			start := time.Now()
			var calls, late atomic.Int64
			const calm = time.Minute
			b.set(func(Delivery) Outcome {
				switch since := time.Since(start) - calm; {
				case since < 0 || since > time.Hour:
					letPass(5 * time.Millisecond)
					return Outcome{Status: 200}
				case since > 10*time.Second:
					late.Add(1)
				}
				calls.Add(1)
				return Outcome{Verdict: Retry, Err: "connection refused"}
			})
			const rate = 20
			log := &reader.Chunk{Kinds: b.kinds()}
			for i := range int64(rate * 4000) {
				log.Records = append(log.Records, b.record(i, fmt.Sprint("key-", i%100)))
				log.Kind = append(log.Kind, 0)
			}
			feed := func() {
				b.courier.mu.Lock()
				defer b.courier.mu.Unlock()
				if !b.track.full {
					log.To = min(int64(len(log.Records)), int64(time.Since(start).Seconds()*rate))
					now := *log
					now.Records = log.Records[:log.To]
					b.track.admit(b.track.places[0], &now)
					b.courier.enqueue(b.track)
					b.courier.dispatch()
				}
			}
			opened := time.Time{}
			most := 0
			for time.Since(start) < calm+time.Hour {
				feed()
				letPass(time.Second / rate)
				b.courier.mu.Lock()
				if b.courier.circuit.open {
					if opened.IsZero() {
						opened = time.Now()
					}
					most = max(most, b.track.open)
				}
				b.courier.mu.Unlock()
			}
			require.LessOrEqual(t, opened.Sub(start)-calm, 10*time.Second)
			require.LessOrEqual(t, most, 200, "Kafka is the buffer")
			require.LessOrEqual(t, calls.Load(), int64(rate*3600/100))
			require.LessOrEqual(t, late.Load(), int64(80), "after the first seconds")
			b.courier.mu.Lock()
			require.Less(t, b.courier.openTime(time.Now()), calm+10*time.Second, "the retry horizon stands still")
			b.courier.mu.Unlock()
			for b.position() < int64(len(log.Records)) {
				feed()
				letPass(time.Second / rate)
				require.Less(t, time.Since(start), 3*time.Hour)
			}
			synctest.Wait()
			require.Less(t, time.Since(start), 4030*time.Second, "it caught up by itself")
			for k, offsets := range b.took {
				require.IsIncreasing(t, offsets, k)
				require.Len(t, offsets, len(log.Records)/100, k)
			}
			require.Empty(t, b.letters)
		})
	})
}

func TestAFewContactsThatFailDoNotOpenTheCircuit(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, nil)
			b.set(func(d Delivery) Outcome {
				if string(d.Records[0].Key) != "good" {
					return Outcome{Verdict: Retry, Status: 500}
				}
				return Outcome{Status: 200}
			})
			b.append("a", "b", "c", "d")
			for range 600 {
				letPass(100 * time.Millisecond)
				at := b.next
				b.append("good")
				synctest.Wait()
				require.Contains(t, b.at, at)
			}
		})
	})
}

// It would open only after the deadline of the first requests otherwise, and with
// few requests in flight never.
func TestTheCircuitOfADestinationThatHangsOpensWithinTenSeconds(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			limit int
			every time.Duration
		}{"many in flight": {64, 10 * time.Millisecond}, "few records": {64, 500 * time.Millisecond}, "four in flight": {4, 10 * time.Millisecond}} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newCourierBench(t, func(cfg *Config) { cfg.Concurrency = c.limit })
					hangs := atomic.Bool{}
					b.set(func(Delivery) Outcome {
						if hangs.Load() {
							letPass(15 * time.Second)
							return Outcome{Verdict: Retry, Err: "timeout"}
						}
						letPass(time.Millisecond)
						return Outcome{Status: 200}
					})
					i := 0
					trickle := func(d time.Duration) {
						for start := time.Now(); time.Since(start) < d; i++ {
							b.append(fmt.Sprint("key-", i%500))
							letPass(c.every)
						}
					}
					open := func() bool {
						b.courier.mu.Lock()
						defer b.courier.mu.Unlock()
						return b.courier.circuit.open
					}
					trickle(time.Minute)
					require.False(t, open())
					hangs.Store(true)
					trickle(10 * time.Second)
					require.True(t, open())
					hangs.Store(false)
					letPass(5 * time.Minute)
					synctest.Wait()
					require.False(t, open())
					require.Equal(t, b.next, b.position(), "it drains by itself")
					for k, offsets := range b.took {
						require.IsIncreasing(t, offsets, k)
					}
				})
			})
		}
	})
}

func TestASlowDestinationThatAnswersKeepsItsCircuitClosed(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, func(cfg *Config) { cfg.Concurrency = 16 })
			b.set(func(Delivery) Outcome {
				letPass(12 * time.Second)
				return Outcome{Status: 200}
			})
			for i := range 600 {
				b.append(fmt.Sprint("key-", i))
				letPass(900 * time.Millisecond)
				b.courier.mu.Lock()
				open := b.courier.circuit.open
				b.courier.mu.Unlock()
				if i > 30 {
					require.False(t, open, i)
				}
			}
			letPass(time.Minute)
		})
	})
}

func TestNothingIsGivenUpWhileADestinationWithFewContactsAcceptsNothing(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		for name, refusal := range map[string]Outcome{
			"429 to everything": {Verdict: Retry, Status: 429}, "403 to everything": {Verdict: Refuse, Status: 403},
			"away": {Verdict: Retry, Err: "connection refused"},
		} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newCourierBench(t, nil)
					b.append("a", "b", "c")
					letPass(time.Hour)
					b.set(func(Delivery) Outcome { return refusal })
					b.append("a", "b", "c")
					letPass(7 * 24 * time.Hour)
					require.Empty(t, b.letters)
					b.set(func(d Delivery) Outcome { return Outcome{Status: 200} })
					letPass(time.Hour)
					synctest.Wait()
					require.Empty(t, b.letters)
					require.Equal(t, b.next, b.position())
				})
			})
		}
	})
}

func TestARecordThatFailsForItsOwnSakeIsGivenUpAlsoWhereLittleIsDelivered(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, nil)
			b.set(func(d Delivery) Outcome {
				if string(d.Records[0].Key) == "bad" {
					return Outcome{Verdict: Retry, Status: 500}
				}
				return Outcome{Status: 200}
			})
			b.append("bad")
			start := time.Now()
			for time.Since(start) < 100*time.Hour {
				if _, letters := b.tried("bad"); letters > 0 {
					break
				}
				b.append("good")
				letPass(40 * time.Minute)
			}
			synctest.Wait()
			require.Len(t, b.letters, 1)
			require.Equal(t, "expired", b.letters[0].Reason)
			require.Greater(t, time.Since(start), 71*time.Hour)
			require.Less(t, time.Since(start), 80*time.Hour)
		})
	})
}
