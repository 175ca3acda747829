package delivery

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A receiver says to one contact that it shall wait for an hour, and then fails for a
// minute. What it said to that one must not keep the circuit open for all the others.
func TestOneContactThatIsToWaitForLongDoesNotKeepTheCircuitFromProbing(t *testing.T) {
	OnEveryFeed(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newCourierBench(t, nil)
			b.courier.env.loader = newLoader(nil, nil, nil) // keys may be parked
			start := time.Now()
			const outage = 15 * time.Minute
			b.set(func(d Delivery) Outcome {
				letPass(time.Millisecond)
				switch {
				case time.Since(start) > outage:
					return Outcome{Status: 200}
				case string(d.Records[0].Key) == "asked":
					return Outcome{Verdict: Retry, Status: 503, RetryAfter: time.Hour}
				}
				return Outcome{Verdict: Retry, Status: 500}
			})
			keys := []string{"asked"}
			for i := range 5 {
				keys = append(keys, fmt.Sprint("key-", i))
			}
			b.append(keys...)
			for time.Since(start) < outage+10*time.Minute {
				letPass(time.Second)
				// It is looked at now and then, as reconcile does.
				if int(time.Since(start).Seconds())%10 == 0 {
					require.NoError(t, b.courier.update(b.destination(1, "active")))
				}
			}
			synctest.Wait()
			b.mu.Lock()
			defer b.mu.Unlock()
			require.Len(t, b.at, 5, "all but the one that is to wait")
			b.courier.mu.Lock()
			defer b.courier.mu.Unlock()
			require.True(t, b.track.isParked([]byte("asked")), "it has failed for long while others succeed")
		})
	})
}
