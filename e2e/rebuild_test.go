package e2e_test

import (
	"context"
	"strings"
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
	w := newWorld(t, withEnv("KAFKA_SESSION_TIMEOUT=7s"))
	p := w.serve("one")
	c := w.client()
	l := load{name: "kept", subjects: 12, each: 8, senders: 3}
	require.NoError(t, l.run(w.ctx(), c))
	w.verify(l)

	// It is idle: all is processed and published.
	before := w.contactsAndProgress()
	for _, processor := range []string{"contacts", "identity"} {
		_, err := w.tryCLI("processors", "rebuild", processor)
		require.ErrorContains(t, err, "processors are alive")
		require.ErrorContains(t, err, "one-contacts-0")
		require.ErrorContains(t, err, "one-identity-0")
	}
	require.Equal(t, before, w.contactsAndProgress())
	p.stop()
	_, err := w.tryCLI("processors", "rebuild", "contacts")
	require.ErrorContains(t, err, "until its session runs out, 7s after", "it may be back in a moment")

	// A transaction that is silent for a millisecond ends, as one does for 15 s
	// where a whole topic is read between two statements.
	anew := storagetest.URL(t)
	w.useDatabase(anew + "&idle_in_transaction_session_timeout=1")
	w.rebuild()
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
	w.verifyOrder() // of two eras
	p.stop()
}

// rebuild rebuilds both processors as soon as nobody is a member of their groups.
func (w *world) rebuild() {
	w.t.Helper()
	w.eventually("the processors to be rebuilt", func(context.Context) error {
		_, err := w.tryCLI("processors", "rebuild", "contacts")
		if err != nil && !strings.Contains(err.Error(), "until its session runs out") {
			w.t.Fatal(err)
		}
		return err
	})
	w.cli(nil, "processors", "rebuild", "identity")
}

// contactsAndProgress is what a rebuild changes.
func (w *world) contactsAndProgress() string {
	w.t.Helper()
	var text string
	require.NoError(w.t, storagetest.SQL(w.db).QueryRow(w.ctx(), `
		SELECT (SELECT json_agg(c.xmin::text || c.id ORDER BY c.id) FROM contacts c)::text ||
		       (SELECT json_agg(p.xmin::text || p.ranges::text ORDER BY p.processor, p.partition) FROM processor_progress p)::text`).Scan(&text))
	return text
}

// useDatabase gives the processes that start from now on another database.
func (w *world) useDatabase(url string) {
	w.t.Helper()
	w.cfg.Database.URL = url
	w.env = append(w.env, "DATABASE_URL="+url)
	w.look()
}
