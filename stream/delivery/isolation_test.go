package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// TestAKeyThatFailsForTenMinutesDoesNotDelayTheOthersOfItsPartition: attempts of
// the failing key take long, as those do that end in a timeout, and it goes on
// getting records; the other keys of the partition are as fast as without it.
func TestAKeyThatFailsForTenMinutesDoesNotDelayTheOthersOfItsPartition(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		const rate, lasts = 20, 10 * time.Minute
		change := func(c *Config) {
			c.Concurrency, c.FlushEvery = 16, time.Second
		}
		inVirtualTime(t, change, func(t *testing.T, b *parkBench) {
			rnd := rand.New(rand.NewPCG(1, 2))
			others := func(alsoBad bool) (p99 time.Duration) {
				sent := map[int64]time.Time{}
				for i := range rate * int(lasts/time.Second) {
					sent[b.next] = time.Now()
					b.append(fmt.Sprint("good-", rnd.IntN(200)))
					if alsoBad && i%rate == 0 {
						b.append("bad")
					}
					letPass(time.Second / rate)
				}
				letPass(time.Second)
				synctest.Wait()
				var took []time.Duration
				b.mu.Lock()
				defer b.mu.Unlock()
				for offset, at := range sent {
					arrived, ok := b.at[offset]
					require.True(t, ok, "offset %d", offset)
					took = append(took, arrived.Sub(at))
				}
				slices.Sort(took)
				return took[len(took)*99/100]
			}
			answer := func(d Delivery) Outcome {
				if string(d.Records[0].Key) == "bad" {
					letPass(10 * time.Second)
					return Outcome{Verdict: Retry, Err: "timeout"}
				}
				letPass(time.Duration(5+d.Records[0].Offset%16) * time.Millisecond)
				return Outcome{Status: 200}
			}
			b.set(answer)
			without := others(false)
			with := others(true)
			t.Logf("p99 of the others: %s without, %s with a key that fails", without, with)
			require.LessOrEqual(t, with, without*110/100)
			keys, records := b.parked()
			require.Equal(t, 1, keys)
			require.GreaterOrEqual(t, records, int(lasts/time.Second)*9/10)
			calls, _ := b.tried("bad")
			require.Less(t, calls, 20)
		})
	})
}

// oneByOne is a Deliverer that answers as it is told.
type oneByOne func(d Delivery) Outcome

func (o oneByOne) Batch(*storage.Destination) (int, int)         { return 1, 0 }
func (o oneByOne) Deliver(_ context.Context, d Delivery) Outcome { return o(d) }

func TestDestinationsThatAreStuckWithABacklogOfLargeRecordsLeaveAnotherItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions, records = 4, 500
		b := newCourierBench(t, func(c *Config) { c.Window, c.WindowBytes, c.HeldBytes = 2048, 8<<20, 128<<20 })
		env, release := b.courier.env, make(chan struct{})
		free := sync.OnceFunc(func() { close(release) })
		defer free()
		var delivered atomic.Int64
		env.deliverer = oneByOne(func(d Delivery) Outcome {
			if d.Destination.Name != "works" {
				<-release
				return Outcome{Status: 200}
			}
			letPass(100 * time.Millisecond)
			delivered.Add(1)
			return Outcome{Status: 200}
		})
		value, logs := make([]byte, 64<<10), [partitions]*reader.Chunk{}
		for p := range logs {
			c := &reader.Chunk{To: records, Kinds: []string{schemas.FactContactUpdated}, Kind: make([]uint16, records)}
			for i := range int64(records) {
				c.Records = append(c.Records, stream.Record{Topic: schemas.TopicLifecycle, Partition: int32(p), Offset: i,
					Key: fmt.Append(nil, p, "-", i), Value: value, Type: schemas.FactContactUpdated})
				c.Bytes += c.Records[i].Size()
			}
			logs[p] = c
		}
		begin := func(name string) (c *courier, feed func()) {
			dest := b.destination(1, storage.DestinationActive)
			dest.ID, dest.Name = name, name
			c, err := newCourier(env, dest)
			require.NoError(t, err)
			var tracks [partitions]*track
			for p := range tracks {
				places := []*place{{topic: schemas.TopicLifecycle, cursor: NewCursor(0, nil), end: -1}}
				tracks[p] = c.newTrack(newHolding(storage.Lease{Partition: int32(p)}, time.Now(), 1000*time.Hour), trackKey{partition: int32(p)}, places, nil)
				c.add(tracks[p])
			}
			return c, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				for p, track := range tracks {
					if !track.full {
						track.admit(track.places[0], logs[p])
						c.enqueue(track)
					}
				}
				c.dispatch()
			}
		}
		var stuck []*courier
		for i := range 4 {
			c, feed := begin(fmt.Sprint("stuck-", i))
			feed()
			stuck = append(stuck, c)
		}
		letPass(time.Second)
		works, feed := begin("works")
		start := time.Now()
		for delivered.Load() < partitions*records {
			feed()
			letPass(10 * time.Millisecond)
			require.Less(t, time.Since(start), 5*time.Second, "64 at once take 3.2 s; %d are delivered", delivered.Load())
		}
		require.LessOrEqual(t, env.held.Load(), env.cfg.HeldBytes)
		free()
		for _, c := range append(stuck, works) {
			c.mu.Lock()
			c.halt(true)
			c.mu.Unlock()
			c.workers.Wait()
		}
	})
}
