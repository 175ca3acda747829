package stream

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAKeyThatFailsForTenMinutesDoesNotDelayTheOthersOfItsPartition: attempts of
// the failing key take long, as those do that end in a timeout, and it goes on
// getting records; the other keys of the partition are as fast as without it.
func TestAKeyThatFailsForTenMinutesDoesNotDelayTheOthersOfItsPartition(t *testing.T) {
	const rate, lasts = 20, 10 * time.Minute
	change := func(c *SinksConfig) {
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
}
