package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/sinktest"
)

// shortLease makes another owner of a partition's deliveries wait a short time
// for one that was killed.
func shortLease() worldOption {
	return withEnv("DELIVERY_TIMEOUT=1s", "DELIVERY_LEASE=3s", "DELIVERY_LEASE_RENEWAL=1s")
}

func TestFaultAServingProcessThatIsKilledLosesAndRepeatsNothing(t *testing.T) {
	eachSeed(t, 2, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, shortLease())
		book := newBook()
		w.addReceiver(sinktest.Options{Sequence: bySeq, Script: book.script, Latency: time.Duration(rng.IntN(4)) * time.Millisecond})
		p := w.serve("one")
		l := load{name: "kill", subjects: 24, each: 24, senders: 6}
		c := w.client()
		wait := l.start(w, c)
		const kills = 3
		for k := range kills {
			w.waitAccepted(c, l.events()*(k+1)/(kills+1))
			if rng.IntN(2) == 0 { // let the kill meet deliveries too
				w.waitTaken(w.receiver.Stats().Unique + 1 + rng.IntN(50))
			}
			w.waitPhase(rng)
			p.kill()
			book.killed(w, p)
			p.start()
		}
		wait()
		p.waitReady()
		stats := w.waitDelivered(2 * l.events())
		seen := w.verify(l)
		require.EqualValues(t, 2*l.events(), seen.Numbers, "all is numbered")
		book.requireBounded(t, stats)
		p.stop()
	})
}

// waitAccepted waits until n events were accepted.
func (w *world) waitAccepted(c *client, n int) {
	w.t.Helper()
	w.eventually("events to be accepted", func(context.Context) error {
		if got := c.accepted.Load(); got < int64(n) {
			return fmt.Errorf("%d of %d so far", got, n)
		}
		return nil
	})
}

// waitTaken waits until the receiver has taken n records.
func (w *world) waitTaken(n int) {
	w.t.Helper()
	err := w.receiver.Wait(w.ctx(), func(s sinktest.Stats) bool { return s.Unique >= n })
	if err != nil {
		w.t.Fatal(err)
	}
}

// waitPhase lets a random time pass, so that a kill meets every phase of a batch.
func (w *world) waitPhase(rng *rand.Rand) {
	<-time.After(time.Duration(rng.IntN(60_000)) * time.Microsecond)
}
