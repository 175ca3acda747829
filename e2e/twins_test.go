package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/sinks/sinktest"
)

// shortSession makes the groups give up on a silent member soon. A real broker
// allows no less than 6 s.
func shortSession() worldOption {
	if realKafka() {
		return withEnv("KAFKA_SESSION_TIMEOUT=6s")
	}
	return withEnv("KAFKA_SESSION_TIMEOUT=2s")
}

func TestFaultOneOfTwoInstancesIsKilledAndComesBack(t *testing.T) {
	notShort(t)
	eachSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, shortLease(), shortSession())
		book := newBook()
		w.addReceiver(sinktest.Options{Sequence: bySeq, Script: book.script})
		a, b := w.serve("a"), w.serve("b")
		w.waitMembers(2)
		l := load{name: "twins", subjects: 24, each: 24, senders: 6}
		c := w.client()
		wait := l.start(w, c)
		for k, p := range []*process{a, b} {
			w.waitAccepted(c, l.events()*(2*k+1)/5)
			w.waitPhase(rng)
			p.kill()
			book.killed(w, p)
			// The second may be joining again after the first's restart, and kfake keeps
			// a member for ever that is killed while it waits for the answer to a join.
			if takenOver := rng.IntN(2) == 0; takenOver && (k == 0 || realKafka()) {
				w.waitMembers(1) // the other takes all over
			}
			p.start()
			w.waitMembers(2)
		}
		wait()
		stats := w.waitDelivered(2 * l.events())
		w.verify(l)
		book.requireBounded(t, stats)
		a.stop()
		b.stop()
	})
}

func TestFaultAStaleInstanceThatWakesUpChangesAndSendsNothing(t *testing.T) {
	notShort(t)
	eachLongSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		var opts []worldOption
		if !thorough() { // else with the times that are the default
			opts = append(opts, shortLease(), shortSession())
		}
		w := newWorld(t, opts...)
		book := newBook()
		w.addReceiver(sinktest.Options{Sequence: bySeq, Script: book.script})
		a, b := w.serve("a"), w.serve("b")
		w.waitMembers(2)
		l := load{name: "stale", subjects: 24, each: 24, senders: 6}
		c := w.client()
		c.http.Timeout = 3 * time.Second
		wait := l.start(w, c)
		w.waitAccepted(c, l.events()/5)
		w.waitPhase(rng)
		c.away.Store(a) // a frozen process takes connections and does not answer
		a.freeze()
		book.killed(w, a)
		if thorough() {
			passes(40 * time.Second)
		}
		w.waitMembers(1)
		w.waitAccepted(c, l.events()/2)
		a.signal(syscall.SIGCONT)
		c.away.Store(nil)
		wait()
		w.waitMembers(2) // it came back by itself
		stats := w.waitDelivered(2 * l.events())
		w.verify(l)
		book.requireBounded(t, stats)
		a.stop()
		b.stop()
	})
}

// waitMembers waits until every group has so many members and is at rest.
func (w *world) waitMembers(n int) {
	w.t.Helper()
	w.waitGroups(n, "identity", "contacts", "sinks")
}

// waitGroups waits until each of these groups has so many members and is at rest.
func (w *world) waitGroups(n int, names ...string) {
	w.t.Helper()
	cl, err := w.cfg.StreamConfig().NewClient("test", nil)
	require.NoError(w.t, err)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	w.eventually(fmt.Sprintf("%d members of %v", n, names), func(ctx context.Context) error {
		for _, name := range names {
			groups, err := adm.DescribeGroups(ctx, w.cfg.StreamConfig().Group(name))
			if err != nil {
				return err
			}
			for _, g := range groups {
				if g.Err != nil {
					return g.Err
				}
				if len(g.Members) != n || g.State != "Stable" {
					return fmt.Errorf("group %s has %d members and is %s", g.Group, len(g.Members), g.State)
				}
			}
		}
		return nil
	})
}
