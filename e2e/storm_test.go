package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage/storagetest"
)

const (
	stormKills      = 4 // a seed
	stormRebalances = 2
)

// Processes that play the sinks alone are killed, join, leave, and lose their
// connections to Postgres, while records come all the time.
func TestFaultKillsAndRebalancesUnderLoadLoseNothingAndRepeatOnlyWhatTheyMet(t *testing.T) {
	notShort(t)
	eachSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, shortLease(), shortSession(), withEnv("HOGSTREAM_ROLES=sinks"))
		// Tests beside this one have connections to the same server.
		fleetName := fmt.Sprintf("storm-%08x", rand.Uint32())
		w.env = append(w.env, "DATABASE_URL="+w.cfg.Database.URL+"&application_name="+fleetName)
		l := w.addLedger(time.Duration(1+rng.IntN(8)) * time.Millisecond)
		a := w.appender(l, 60)
		fleet := []*process{w.serveSinks("a"), w.serveSinks("b")}
		third := w.newProcess("c", []string{"serve"})
		running := 2
		w.waitSinks(running)
		stop := a.keepUp(2, 100*time.Millisecond)

		var log []string
		events := make([]string, 0, stormKills+stormRebalances+1)
		for range stormKills {
			events = append(events, "kill")
		}
		for range stormRebalances {
			events = append(events, "rebalance")
		}
		events = append(events, "cut")
		rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		for _, what := range events {
			_, taken, _ := l.counts()
			l.waitTaken(w, taken+1+rng.IntN(300))
			w.waitPhase(rng)
			log = append(log, fmt.Sprint(what, " at ", time.Now().Format("15:04:05.000")))
			switch what {
			case "kill":
				p := fleet[rng.IntN(len(fleet))]
				l.kill(w, p, p.kill)
				// kfake keeps a member for ever that is killed while it waits for
				// the answer to a join. Nobody does before the first restart.
				if takenOver := rng.IntN(3) == 0; takenOver && (l.kills == 1 || realKafka()) {
					w.waitSinks(running - 1) // others take all over
				}
				p.start()
				if rng.IntN(2) == 0 { // else it may be killed before it has begun
					w.waitSinks(running)
				}
			case "rebalance":
				if running == 2 {
					third.start()
					running = 3
				} else {
					third.stop()
					running = 2
				}
				w.waitSinks(running)
			case "cut":
				cut, err := storagetest.SQL(w.db).Exec(w.ctx(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1`, fleetName)
				require.NoError(t, err)
				log = append(log, fmt.Sprintf("of %d connections", cut.RowsAffected()))
			}
		}
		t.Log(log)
		stop()
		l.waitTaken(w, len(l.records))
		w.waitSettled()
		l.requireKept(t, w)
		require.Empty(t, w.read(schemas.TopicDeadLetters))
	})
}

// serveSinks starts a process that has no API and so is never ready to take
// events; waitSinks tells when it has joined the others.
func (w *world) serveSinks(name string) *process {
	w.t.Helper()
	p := w.newProcess(name, []string{"serve"})
	p.start()
	return p
}

// owned are the partitions whose lease a process has, and until when.
func (w *world) owned(p *process) map[int32]time.Time {
	w.t.Helper()
	rows, err := storagetest.SQL(w.db).Query(w.ctx(), `SELECT partition, expires_at FROM leases WHERE holder = $1 AND expires_at > clock_timestamp()`, p.name)
	require.NoError(w.t, err)
	defer rows.Close()
	owned := map[int32]time.Time{}
	for rows.Next() {
		var n int32
		var until time.Time
		require.NoError(w.t, rows.Scan(&n, &until))
		owned[n] = until
	}
	require.NoError(w.t, rows.Err())
	return owned
}

// lastWords is when nothing of a process that was just killed arrives any more at
// the latest: after a second, and not after its lease has run out, for then somebody
// else may be sending.
func lastWords(lease time.Time) time.Time {
	if soon := time.Now().Add(time.Second); soon.Before(lease) {
		return soon
	}
	return lease
}

// waitSinks waits until so many processes share the partitions and are at rest.
func (w *world) waitSinks(n int) {
	w.t.Helper()
	w.waitGroups(n, "sinks")
}

// waitSettled waits until the cursors in Postgres stand at the end of the log.
func (w *world) waitSettled() {
	w.t.Helper()
	w.eventually("the cursors to reach the end", func(ctx context.Context) error {
		ends, err := w.admin.EndOffsets(ctx, schemas.TopicEvents)
		if err != nil {
			return err
		}
		for _, end := range ends {
			var at int64
			err := storagetest.SQL(w.db).QueryRow(ctx, `SELECT position FROM cursors WHERE topic = $1 AND partition = $2`, end.Topic, end.Partition).Scan(&at)
			if err != nil {
				return err
			}
			if at != end.Offset {
				return fmt.Errorf("%s/%d is at %d of %d", end.Topic, end.Partition, at, end.Offset)
			}
		}
		return nil
	})
}

// An instance is stopped for longer than its lease; all it had in hand is taken
// over and delivered. When it wakes up, it may end what it had begun to send, and
// begins nothing.
func TestFaultAnInstanceStoppedForLongerThanItsLeaseSendsNothingNewWhenItWakes(t *testing.T) {
	notShort(t)
	eachLongSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		opts := []worldOption{withEnv("HOGSTREAM_ROLES=sinks")}
		if !thorough() { // else with the times that are the default, and 40 s
			opts = append(opts, shortLease(), shortSession())
		}
		w := newWorld(t, opts...)
		l := w.addLedger(time.Duration(1+rng.IntN(8)) * time.Millisecond)
		a := w.appender(l, 60)
		one, _ := w.serveSinks("a"), w.serveSinks("b")
		w.waitSinks(2)
		stop := a.keepUp(2, 100*time.Millisecond)
		l.waitTaken(w, 200+rng.IntN(500))
		w.waitPhase(rng)
		stopped := time.Now()
		l.kill(w, one, one.freeze) // of what it has in hand it is as if it were dead
		if thorough() {
			passes(40 * time.Second)
		}
		w.waitSinks(1)
		stop()
		w.eventually("the other to deliver all", func(context.Context) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.taken < len(l.records) {
				return fmt.Errorf("%d of %d", l.taken, len(l.records))
			}
			return nil
		})
		w.waitSettled()
		before, _, _ := l.counts()
		one.signal(syscall.SIGCONT)
		t.Logf("it was stopped for %s", time.Since(stopped).Round(time.Second))
		w.waitSinks(2) // it came back by itself
		require.NoError(t, a.append(w.ctx(), 3))
		l.waitTaken(w, len(l.records))
		w.waitSettled()
		after, _, _ := l.counts()
		require.Equal(t, 3*len(a.seq), after-before, "requests after it woke up: only those of new records")
		l.requireKept(t, w)
	})
}
