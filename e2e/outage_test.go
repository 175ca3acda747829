package e2e_test

import (
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/sinktest"
)

// outage is how long something is away: as long as promised in `make faults`,
// else just long enough to be noticed.
func outage(promised time.Duration) time.Duration {
	if thorough() {
		return promised
	}
	return 2 * time.Second
}

// passes lets the time of an outage go by.
func passes(d time.Duration) { <-time.After(d) }

// survives runs a load through what break does in its middle, and checks that
// everything came through without help.
func (w *world) survives(disturb func(c *client)) sinktest.Stats {
	w.t.Helper()
	w.addReceiver(sinktest.Options{Sequence: bySeq})
	w.serve("one")
	l := load{name: "outage", subjects: 18, each: 18, senders: 6}
	c := w.client()
	wait := l.start(w, c)
	w.waitAccepted(c, l.events()/4)
	disturb(c)
	wait()
	stats := w.waitDelivered(2 * l.events())
	w.verify(l)
	return stats
}

func TestFaultPostgresGoesAwayAndComesBack(t *testing.T) {
	notShort(t)
	eachLongSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, ownPostgres(), shortLease())
		w.survives(func(*client) {
			w.waitPhase(rng)
			switch rng.IntN(3) {
			case 0:
				t.Log("Postgres is stopped")
				w.postgres.Stop()
				passes(outage(30 * time.Second))
				w.postgres.Start()
			case 1:
				t.Log("Postgres crashes")
				w.postgres.Crash()
				passes(outage(30 * time.Second))
				w.postgres.Start()
			case 2:
				t.Log("Postgres hangs")
				w.postgres.Pause()
				passes(outage(30 * time.Second))
				w.postgres.Resume()
			}
		})
	})
}

func TestFaultTheBrokerGoesAwayAndComesBack(t *testing.T) {
	notShort(t)
	eachLongSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, shortLease())
		w.survives(func(*client) {
			w.waitPhase(rng)
			w.stopBroker()
			passes(outage(30 * time.Second))
			w.startBroker()
		})
	})
}

func TestFaultTheRegistryIsDownAtTheStart(t *testing.T) {
	notShort(t)
	beside(t)
	w := newWorld(t)
	addr := freeAddr(t)
	p := w.newProcess("one", []string{"serve"}, "SCHEMA_REGISTRY_URL=http://"+addr+path(t, w.cfg.Registry.URL))
	w.startsLater(p, func() { serveProxy(t, addr, w.cfg.Registry.URL) })
}

func TestFaultTheBrokerIsDownAtTheStart(t *testing.T) {
	notShort(t)
	beside(t)
	w := newWorld(t)
	w.stopBroker()
	w.startsLater(w.newProcess("one", []string{"serve"}), w.startBroker)
}

// startsLater starts a process that lacks something until mend is called: it waits
// for it, and serves then.
func (w *world) startsLater(p *process, mend func()) {
	w.t.Helper()
	p.start()
	passes(outage(10 * time.Second))
	select {
	case <-p.ended():
		w.t.Fatalf("it gave up:\n%s", p.tail(20))
	default:
	}
	mend()
	p.waitReady()
	l := load{name: "later", subjects: 3, each: 3, senders: 3}
	require.NoError(w.t, l.run(w.ctx(), w.client()))
	w.verify(l)
	p.stop()
}

func path(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	return u.Path
}

// serveProxy listens on addr and passes everything on to the host of to.
func serveProxy(t *testing.T, addr, to string) {
	t.Helper()
	u, err := url.Parse(to)
	require.NoError(t, err)
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: u.Scheme, Host: u.Host})}
	go server.Serve(l) //nolint:errcheck // ends with the test
	t.Cleanup(func() { server.Close() })
}

func TestFaultTheReceiverGoesAwayAndComesBack(t *testing.T) {
	notShort(t)
	eachLongSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t)
		stats := w.survives(func(*client) {
			w.waitPhase(rng)
			var n atomic.Int64
			w.receiver.SetScript(func(*sinktest.Message) sinktest.Answer {
				if n.Add(1)%2 == 0 {
					return sinktest.Answer{Reset: true}
				}
				return sinktest.Answer{Status: http.StatusServiceUnavailable}
			})
			passes(outage(60 * time.Second))
			w.receiver.SetScript(nil)
		})
		require.Zero(t, stats.Duplicates, "a receiver that was away is sent nothing twice")
	})
}
