package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// The database is lost by a crash and restored from an older dump, by the commands of
// docs/restore.md. The log went on after the dump: with events, a merge and a deletion.
func TestARestoredBackupEndsInTheStateOfTheLog(t *testing.T) {
	notShort(t)
	beside(t)
	w := newWorld(t, ownPostgres(), shortLease(), shortSession())
	tools := w.postgresTools()
	w.addReceiver(sinktest.Options{})
	p := w.serve("one")
	c := w.client()
	l := load{name: "kept", subjects: 8, each: 6, senders: 2}
	require.NoError(t, l.run(w.ctx(), c))
	send := func(events ...event) {
		t.Helper()
		for _, e := range events {
			require.NoError(t, c.sendOne(w.ctx(), e))
		}
	}
	send(event{Name: "hers", UserID: "ada", Email: "ada@b.co"}, event{Name: "browsing", AnonymousID: "phone"})
	var key struct{ ID, Key string }
	w.cli(&key, "keys", "create", "left", "--scope", "ingest")
	w.waitDelivered(w.delivered())
	dump := filepath.Join(w.dir, "hogstream.dump")
	tools.run("pg_dump", "--format=custom", "--no-owner", "--file="+dump, w.cfg.Database.URL)

	for seq := l.each + 1; seq <= 2*l.each; seq++ {
		for subject := range l.subjects {
			send(l.event(subject, seq))
		}
	}
	send(event{Name: "bought", UserID: "bob", AnonymousID: "phone"})
	ada := w.contact("ada").ID
	_, err := c.insist(w.ctx(), http.MethodDelete, "/v1/contacts", map[string]any{"userId": "ada"}, nil)
	require.NoError(t, err)
	w.cli(nil, "keys", "revoke", key.ID)
	w.waitProcessed()
	w.waitTaken(w.delivered())
	p.kill()

	w.restore(tools, dump)
	require.Equal(t, 1, w.stored("external_id = 'ada'"), "the dump knows her")

	// Without a rebuild nothing goes on: the group's offsets are ahead of the database.
	p.start()
	w.eventually("the partitions to stop", func(context.Context) error {
		if text := p.tail(10_000); !strings.Contains(text, "processor.partition_stopped") {
			return errors.New("none has")
		}
		return nil
	})
	p.kill()
	w.rebuild()
	p.start()
	p.waitReady()

	for subject := range l.subjects {
		send(l.event(subject, 2*l.each+1))
	}
	send(event{Name: "bought", UserID: "bob"}, event{Name: "back", Email: "ada@b.co"})
	w.waitProcessed()
	w.requireDenseVersions()
	w.verifyOrder()
	for subject := range l.subjects {
		require.EqualValues(t, 2*l.each+1, w.contact(l.subject(subject)).Properties["seq"])
	}
	bob := w.contact("bob")
	require.Equal(t, "phone", bob.AnonymousID, "the merge after the dump")
	require.Zero(t, w.stored("external_id = 'ada'"))
	var left int
	require.NoError(t, storagetest.SQL(w.db).QueryRow(w.ctx(), `SELECT count(*) FROM events WHERE contact_id = $1`, ada).Scan(&left))
	require.Zero(t, left, "the deletion after the dump wins over what the dump brings back")
	require.Equal(t, 1, w.stored("email = 'ada@b.co' AND id <> '"+ada+"'"), "a new contact")
	w.waitTaken(w.delivered())
	require.Zero(t, w.receiver.Stats().BadSignatures, "secrets are restored")
	require.Empty(t, w.read(schemas.TopicDeadLetters))

	// What the page says about keys.
	_, err = w.tryCLI("events", "send", "keyed", "--user-id", "bob", "--key", key.Key)
	require.NoError(t, err, "a key that was revoked after the dump works again")
	w.stopsWhenRevoked(key.ID, key.Key)
	p.stop()
}

// delivered is how many records there are for a destination of everything.
func (w *world) delivered() int {
	w.t.Helper()
	w.waitProcessed()
	return len(w.read(schemas.TopicEvents)) + len(w.read(schemas.TopicLifecycle))
}

type foundContact struct {
	ID, ExternalID, AnonymousID, Email string
	Properties                         map[string]any
}

// contact finds the contact of a user id.
func (w *world) contact(user string) foundContact {
	w.t.Helper()
	var found []foundContact
	w.cli(&found, "contacts", "get", user)
	require.Len(w.t, found, 1, user)
	return found[0]
}

// stored counts contacts in Postgres.
func (w *world) stored(where string) (n int) {
	w.t.Helper()
	require.NoError(w.t, storagetest.SQL(w.db).QueryRow(w.ctx(), `SELECT count(*) FROM contacts WHERE `+where).Scan(&n))
	return n
}

// requireDenseVersions says that the facts of each contact have the versions 1, 2, 3…
// once each, in their order.
func (w *world) requireDenseVersions() {
	w.t.Helper()
	last := map[string]int64{}
	for _, r := range w.read(schemas.TopicLifecycle) {
		f, err := w.codec.DecodeFact(r.Value)
		require.NoError(w.t, err)
		if f.Contact == nil {
			continue
		}
		require.Equal(w.t, last[f.ContactID]+1, f.Contact.Version, "%s of %s", f.Type, f.ContactID)
		last[f.ContactID]++
	}
}

// restore loses the database and restores a dump into one of another name, as the page
// says.
func (w *world) restore(tools postgresTools, dump string) {
	w.t.Helper()
	old, err := url.Parse(w.cfg.Database.URL)
	require.NoError(w.t, err)
	fresh := *old
	fresh.Path = "/restored"
	tools.run("psql", "--command=CREATE DATABASE restored", old.String())
	tools.run("psql", "--command=DROP SCHEMA public CASCADE", old.String())
	tools.run("pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", "--dbname="+fresh.String(), dump)
	w.useDatabase(fresh.String())
	w.cli(nil, "migrate")
}

// postgresTools runs the tools that came with the server.
type postgresTools struct {
	w   *world
	dir string
}

func (w *world) postgresTools() postgresTools {
	w.t.Helper()
	var dir string
	require.NoError(w.t, storagetest.SQL(w.db).QueryRow(w.ctx(), `SELECT setting FROM pg_config WHERE name = 'BINDIR'`).Scan(&dir))
	for _, name := range []string{"pg_dump", "pg_restore", "psql"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			w.t.Skipf("the server came without %s: install Postgres with its client programs", name)
		}
	}
	return postgresTools{w, dir}
}

func (p postgresTools) run(name string, args ...string) {
	p.w.t.Helper()
	said, err := exec.CommandContext(p.w.ctx(), filepath.Join(p.dir, name), args...).CombinedOutput()
	require.NoError(p.w.t, err, "%s", fmt.Sprintf("%s: %s", name, said))
}
