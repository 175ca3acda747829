package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage/storagetest"
)

// The database is lost after a graceful stop. What the processors knew comes back
// from the log, and they go on where they were: the same contacts, their versions
// and facts without a gap or a repeat.
func TestALostDatabaseIsRebuiltFromTheLog(t *testing.T) {
	notShort(t)
	beside(t)
	w := newWorld(t)
	p := w.serve("one")
	c := w.client()
	l := load{name: "kept", subjects: 12, each: 8, senders: 3}
	require.NoError(t, l.run(w.ctx(), c))
	w.verify(l)
	p.stop()

	// A transaction that is silent for a millisecond ends, as one does for 15 s
	// where a whole topic is read between two statements.
	anew := storagetest.URL(t)
	w.useDatabase(anew + "&idle_in_transaction_session_timeout=1")
	w.cli(nil, "processors", "rebuild", "contacts")
	w.cli(nil, "processors", "rebuild", "identity")
	w.useDatabase(anew)

	p.start()
	p.waitReady()
	for seq := l.each + 1; seq <= 2*l.each; seq++ {
		for subject := range l.subjects {
			require.NoError(t, c.sendOne(w.ctx(), l.event(subject, seq)))
		}
	}
	w.waitProcessed()
	users := map[string]int{}
	for subject := range l.subjects {
		users[l.subject(subject)] = 2 * l.each
	}
	contacts := w.verifyEvents(users)
	w.verifyFacts(users, contacts)
	w.verifySnapshots(users, contacts)
	p.stop()
}

// useDatabase gives the processes that start from now on another database.
func (w *world) useDatabase(url string) {
	w.t.Helper()
	w.cfg.Database.URL = url
	w.env = append(w.env, "DATABASE_URL="+url)
	w.look()
}
