package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// A batchVendor takes batches and answers for each record by itself.
type batchVendor struct {
	t      *testing.T
	answer func(r *stream.Record) Result // called with mu held
	mu     sync.Mutex
	flying map[string]bool
	heard  map[string][]int64 // by key, what it took, in order
	calls  int
	sizes  []int
}

func (v *batchVendor) Batch(*storage.Destination) (int, int) { return 50, 1 << 20 }

func (v *batchVendor) Deliver(_ context.Context, d Delivery) Outcome {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls++
	v.sizes = append(v.sizes, len(d.Records))
	last := map[string]int64{}
	for _, r := range d.Records {
		k := string(r.Key)
		if at, twice := last[k]; v.flying[k] || twice && at >= r.Offset {
			v.t.Errorf("%s: two deliveries under way, or a batch out of order", k)
		}
		last[k] = r.Offset
	}
	for k := range last {
		v.flying[k] = true
	}
	v.mu.Unlock()
	letPass(time.Millisecond)
	v.mu.Lock()
	out := Outcome{Verdict: Partial, Status: 200}
	for _, r := range d.Records {
		result := v.answer(r)
		if result.Verdict == Delivered {
			v.heard[string(r.Key)] = append(v.heard[string(r.Key)], r.Offset)
		}
		out.Results = append(out.Results, result)
	}
	for k := range last {
		delete(v.flying, k)
	}
	return out
}

func newBatchVendor(t *testing.T, b *courierBench) *batchVendor {
	v := &batchVendor{t: t, flying: map[string]bool{}, heard: map[string][]int64{}}
	b.courier.env.deliverer = v
	require.NoError(t, b.courier.update(b.destination(2, storage.DestinationActive)))
	return v
}

// requirePrefixes checks that of no contact a later record counts as finished before
// an earlier one that is not given up.
func (b *courierBench) requirePrefixes(sent map[string][]int64, givenUp map[int64]bool) {
	b.t.Helper()
	b.courier.mu.Lock()
	defer b.courier.mu.Unlock()
	cursor := b.track.places[0].cursor
	ranges := append([]int64{0, cursor.Position()}, cursor.Finished(nil)...)
	finished := func(offset int64) bool {
		for i := 0; i < len(ranges); i += 2 {
			if ranges[i] <= offset && offset < ranges[i+1] {
				return true
			}
		}
		return false
	}
	for k, all := range sent {
		offsets := slices.DeleteFunc(slices.Clone(all), func(o int64) bool { return givenUp[o] })
		for i := 1; i < len(offsets); i++ {
			if finished(offsets[i]) && !finished(offsets[i-1]) {
				b.t.Fatalf("%s: offset %d is finished before %d", k, offsets[i], offsets[i-1])
			}
		}
	}
}

func TestEachRecordOfABatchIsSettledByWhatTheReceiverSaysOfIt(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, func(c *Config) { c.BatchConcurrency = 1 })
			v := newBatchVendor(t, b)
			tries := map[int64]int{}
			v.answer = func(r *stream.Record) Result {
				tries[r.Offset]++
				switch {
				case string(r.Key) == "bad":
					return Result{Verdict: Reject, Err: "no such property"}
				case string(r.Key) == "later" && tries[r.Offset] == 1:
					return Result{Verdict: Retry, Err: "try again"}
				}
				return Result{}
			}
			b.append("good", "bad", "later", "good", "other")
			letPass(time.Minute)
			synctest.Wait()
			require.Equal(t, b.next, b.position())
			require.Equal(t, []int{5, 1}, v.sizes)
			require.Equal(t, map[int64]int{0: 1, 1: 1, 2: 2, 3: 1, 4: 1}, tries)
			require.Equal(t, []int64{1}, b.rejected())
			if !b.answers() { // a receipt has no words of others
				require.Equal(t, "no such property", b.letters[0].Error)
			}
		})
	})
}

func TestABatchInPartSentAgainKeepsTheOrderOfEachContact(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		for seed := range uint64(20) {
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newCourierBench(t, func(c *Config) { c.BatchConcurrency = 3 })
					v := newBatchVendor(t, b)
					rnd := rand.New(rand.NewPCG(seed, 2))
					poison := map[int64]bool{}
					v.answer = func(r *stream.Record) Result {
						switch n := rnd.IntN(10); {
						case poison[r.Offset]:
							return Result{Verdict: Reject, Err: "poison"}
						case n < 2:
							return Result{Verdict: Retry, Err: "again"}
						}
						return Result{}
					}
					sent := map[string][]int64{}
					for range 300 {
						var keys []string
						v.mu.Lock()
						for range 1 + rnd.IntN(10) {
							k := fmt.Sprint("key-", rnd.IntN(40))
							at := b.next + int64(len(keys))
							poison[at] = rnd.IntN(50) == 0
							sent[k] = append(sent[k], at)
							keys = append(keys, k)
						}
						v.mu.Unlock()
						b.append(keys...)
						letPass(time.Millisecond)
						b.requirePrefixes(sent, poison)
					}
					letPass(24 * time.Hour)
					synctest.Wait()
					require.Equal(t, b.next, b.position())
					require.Zero(t, b.track.open+b.track.openBytes+len(b.track.lanes)+b.courier.flying+len(b.courier.later))
					rejected := b.rejected()
					for k, offsets := range sent {
						lastHeard := -1
						for _, o := range offsets {
							at := slices.Index(v.heard[k], o)
							for i := at + 1; i < len(v.heard[k]); i++ {
								if v.heard[k][i] == o {
									at = i
								}
							}
							if poison[o] {
								require.Contains(t, rejected, o)
								continue
							}
							require.Greater(t, at, lastHeard, "%s: %d is heard last after what came before it: %v", k, o, v.heard[k])
							lastHeard = at
						}
					}
					slices.Sort(rejected)
					require.Len(t, slices.Compact(slices.Clone(rejected)), len(rejected), "each once")
				})
			})
		}
	})
}

// answers is a Deliverer of batches that answers as it is told.
type answers func(d Delivery) Outcome

func (a answers) Batch(*storage.Destination) (int, int)         { return 500, 1 << 20 }
func (a answers) Deliver(_ context.Context, d Delivery) Outcome { return a(d) }

func TestAHalvedBatchHasNotFailedForIt(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, nil)
			attempts := []int{}
			b.courier.env.deliverer = answers(func(d Delivery) Outcome {
				letPass(time.Millisecond)
				alone := string(d.Records[0].Key) == "key-300" && len(d.Records) == 1
				switch {
				case alone && len(attempts) < 2:
					attempts = append(attempts, d.Attempt)
					return Outcome{Verdict: Retry, Status: 503}
				case !alone && slices.ContainsFunc(d.Records, func(r *stream.Record) bool { return string(r.Key) == "key-300" }):
					return Outcome{Verdict: Split, Status: 413}
				}
				return Outcome{Status: 200}
			})
			require.NoError(t, b.courier.update(b.destination(2, storage.DestinationActive)))
			keys := make([]string, 500)
			for i := range keys {
				keys[i] = fmt.Sprint("key-", i)
			}
			b.append(keys...)
			letPass(time.Minute)
			synctest.Wait()
			require.Equal(t, []int{1, 2}, attempts)
			require.Equal(t, b.next, b.position())
		})
	})
}
