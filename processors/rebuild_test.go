package processors_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
)

// A rebuild, at any moment, gives what was there; contacts may lag behind
// identity, and records of a merge may be on their way. Who was given an
// identifier last is told by times, so no two inputs have the same here.
func TestARebuildGivesTheStateBack(t *testing.T) {
	db := storagetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		clearTables(t.Context(), rt, db)
		p := newPumpOn(t.Context(), rt, db, contacts.Config{})
		m := newModel()
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			randomStep(rt, p, m)
		}
		before := contents(t.Context(), rt, db)
		_, err := storagetest.SQL(db).Exec(t.Context(), "DELETE FROM events WHERE hashtext(id::text) % 3 = $1", rapid.IntRange(-2, 2).Draw(rt, "lost events"))
		require.NoError(rt, err)
		rebuild(rt, p, 3)
		require.Equal(rt, before, contents(t.Context(), rt, db))
		for p.busy() {
			stepIdentity(rt, p, m)
			stepContacts(rt, p)
		}
	})
}

func clearTables(ctx context.Context, rt require.TestingT, db *storage.DB) {
	for _, table := range []string{
		"identities", "identifiers", "erased_identifiers", "idempotency_keys", "contacts",
		"contact_marks", "email_preferences", "events", "answers", "pending_answers", "contact_eras", "contact_inputs",
	} {
		_, err := storagetest.SQL(db).Exec(ctx, "DELETE FROM "+table)
		require.NoError(rt, err)
	}
}

// A device changes hands after a deletion, and what three members decided about it
// stands on the log the last one first.
func TestARebuildKeepsADeviceWithWhoHasItLast(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(event("x", email("e@b.co"), anon("own")))
	p.late = true
	last := event("x", email("e@b.co"), anon("shared"))
	first, gone := event("x", anon("shared")), remove()
	pick := func(field **string, not ...*schemas.Input) {
		for n, taken := 0, true; taken; n++ {
			*field = text(fmt.Sprint("other", n))
			taken = slices.ContainsFunc(not, func(in *schemas.Input) bool {
				return partitionOf(in.Key()) == partitionOf("u:"+**field) || partitionOf(in.Key()) == partitionOf("e:"+**field)
			})
		}
	}
	pick(&first.UserID, last)
	pick(&gone.Email, last, first)
	first.Email = gone.Email
	for _, in := range []*schemas.Input{first, gone, last} {
		p.send(in)
		p.step(p.identity, &p.ingest[partitionOf(in.Key())], 1)
	}
	for _, in := range []*schemas.Input{last, first, gone} {
		p.release(&p.ingest[partitionOf(in.Key())])
	}
	before := contents(t.Context(), t, p.db)
	rebuild(t, p, 1000)
	require.Equal(t, before, contents(t.Context(), t, p.db))
	require.Equal(t, 1, p.count("identifiers", "value = 'shared'"))
}

// A backup knows people who were deleted since it was made, and the log may have
// forgotten the deletion by now: tombstones go, and topic resolved is short. Whoever
// merged into somebody who lives keeps their events.
func TestARebuildOfABackupErasesWhoWasDeletedSinceThen(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(event("hers", user("ada")), event("also hers", email("ada@b.co")), put(user("ada"), email("ada@b.co")),
		event("his", user("bob")), event("also his", anon("phone")), put(user("bob"), anon("phone")))
	ada := p.find(schemas.KindExternal, "ada").ID
	tables := []string{"contacts", "contact_marks", "identities", "identifiers", "events"}
	sql := func(format string) {
		for _, table := range tables {
			_, err := storagetest.SQL(p.db).Exec(p.ctx, fmt.Sprintf(format, table))
			require.NoError(t, err)
		}
	}
	sql("CREATE TABLE backup_%[1]s AS SELECT * FROM %[1]s")
	p.do(remove(user("ada")), put(user("carol")))
	sql("DELETE FROM %[1]s")
	sql("INSERT INTO %[1]s SELECT * FROM backup_%[1]s")
	require.NotNil(t, p.find(schemas.KindExternal, "ada"))

	p.history = slices.DeleteFunc(p.history, func(s snapshot) bool { return s.key == ada })
	for i := range p.resolved {
		p.resolved[i] = lane{}
	}
	rebuild(t, p, 1000)
	require.Nil(t, p.find(schemas.KindExternal, "ada"))
	require.Nil(t, p.find(schemas.KindEmail, "ada@b.co"))
	require.NotNil(t, p.find(schemas.KindExternal, "carol"))
	require.NotNil(t, p.find(schemas.KindAnonymous, "phone"))
	require.Zero(t, p.count("events", "name LIKE '%hers'"), "her events, and those of whom she was before")
	require.Equal(t, 2, p.count("events", "name LIKE '%his'"))
	require.Equal(t, 1, p.count("contact_marks", "contact_id = $1 AND survivor IS NULL", ada), "a late record does not bring her back")
}

// contents is what identity and contacts know, as text. What a rebuild cannot
// give back is left out: when somebody was seen last, and where the identity of
// an ended contact came from.
func contents(ctx context.Context, rt require.TestingT, db *storage.DB) []string {
	var all []string
	for name, sql := range map[string]string{
		"identifiers": `SELECT coalesce(array_agg(format('%s %s %s', kind, value, contact_id) ORDER BY kind, value), '{}') FROM identifiers`,
		"live":        `SELECT coalesce(array_agg(format('%s %s', contact_id, external_id) ORDER BY 1), '{}') FROM identities WHERE merged_into IS NULL AND deleted_at IS NULL`,
		"merged":      `SELECT coalesce(array_agg(format('%s %s', contact_id, merged_into) ORDER BY contact_id), '{}') FROM identities WHERE merged_into IS NOT NULL AND deleted_at IS NULL`,
		"deleted":     `SELECT coalesce(array_agg(contact_id::text ORDER BY contact_id), '{}') FROM identities WHERE deleted_at IS NOT NULL`,
		"contacts": `SELECT coalesce(array_agg(format('%s %s %s %s %s %s %s %s', id, external_id, email, anonymous_id, identifiers, merged, properties, version) ORDER BY id), '{}')
		             FROM contacts`,
		"marks": `SELECT coalesce(array_agg(format('%s %s', contact_id, survivor) ORDER BY contact_id), '{}') FROM contact_marks`,
		// Those of losers whose survivor was deleted go when the survivor is told of them, or with the rebuild.
		"events": `WITH RECURSIVE gone AS (
		               SELECT contact_id FROM contact_marks WHERE survivor IS NULL
		               UNION SELECT m.contact_id FROM contact_marks AS m JOIN gone AS g ON m.survivor = g.contact_id)
		           SELECT coalesce(array_agg(format('%s %s %s %s %s %s', id, contact_id, name, properties, seq, era) ORDER BY id), '{}')
		           FROM events WHERE contact_id NOT IN (SELECT contact_id FROM gone)`,
		"preferences": `SELECT coalesce(array_agg(format('%s %s %s', contact_id, email, categories) ORDER BY contact_id, email), '{}') FROM email_preferences`,
	} {
		var rows []string
		require.NoError(rt, storagetest.SQL(db).QueryRow(ctx, sql).Scan(&rows))
		for _, row := range rows {
			all = append(all, name+": "+row)
		}
	}
	slices.Sort(all)
	return all
}

func rebuild(rt require.TestingT, p *pump, batch int) {
	var snapshots, consumed, beyond []*stream.Record
	for i, s := range p.history {
		r := &stream.Record{Topic: schemas.TopicContacts, Partition: partitionOf(s.key), Key: []byte(s.key), Offset: int64(i)}
		if s.value != nil {
			value, err := p.codec.Encode(s.value)
			require.NoError(rt, err)
			r.Value = value
		}
		snapshots = append(snapshots, r)
	}
	var events []*stream.Record
	for i, e := range p.events {
		value, err := p.codec.Encode(e)
		require.NoError(rt, err)
		events = append(events, &stream.Record{Topic: schemas.TopicEvents, Offset: int64(i), Value: value})
	}
	for i := range p.resolved {
		consumed = append(consumed, p.resolved[i].records[:p.resolved[i].next]...)
		beyond = append(beyond, p.resolved[i].records[p.resolved[i].next:]...)
	}
	// In the order in which they were appended.
	slices.SortStableFunc(beyond, func(a, b *stream.Record) int {
		return slices.Index(p.resolvedLog, a) - slices.Index(p.resolvedLog, b)
	})
	_, err := storagetest.SQL(p.db).Exec(p.ctx, "DELETE FROM identifiers")
	require.NoError(rt, err)
	require.NoError(rt, p.db.InTx(p.ctx, func(tx *storage.Tx) error {
		if err := p.contacts.Clear(p.ctx, tx, p.clock); err != nil {
			return err
		}
		for batch := range slices.Chunk(snapshots, 7) {
			if err := p.contacts.Restore(p.ctx, tx, batch, p.clock); err != nil {
				return fmt.Errorf("restore contacts: %w", err)
			}
		}
		if err := p.contacts.RestoreMarks(p.ctx, tx, consumed, p.clock); err != nil {
			return err
		}
		for batch := range slices.Chunk(events, 7) {
			if err := p.contacts.RestoreEvents(p.ctx, tx, batch); err != nil {
				return fmt.Errorf("restore events: %w", err)
			}
		}
		if err := p.contacts.FinishRebuild(p.ctx, tx, p.clock); err != nil {
			return err
		}
		if err := p.identity.Rebuild(p.ctx, tx, p.clock); err != nil {
			return err
		}
		for batch := range slices.Chunk(beyond, batch) {
			if err := p.identity.Restore(p.ctx, tx, batch, p.clock); err != nil {
				return fmt.Errorf("restore identity: %w", err)
			}
		}
		return p.identity.FinishRebuild(p.ctx, tx, p.clock)
	}))
}
