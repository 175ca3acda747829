package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
)

// person is somebody known by three names, whose records come from three
// senders at once, while the names are linked and the person is deleted.
type person struct {
	n       int
	erased  bool // deleted in the end, for good
	deleted bool // deleted in between, so that events of before may be gone
	rng     *rand.Rand
	sent    map[string]bool // names of the events that were accepted
}

func (p *person) userID() string { return fmt.Sprint("user-", p.n) }
func (p *person) email() string  { return fmt.Sprintf("p%d@example.com", p.n) }
func (p *person) anon() string   { return fmt.Sprint("anon-", p.n) }

// as names the person by one of its names.
func (p *person) as(kind int, into map[string]any) map[string]any {
	switch kind {
	case 0:
		into["userId"] = p.userID()
	case 1:
		into["email"] = p.email()
	case 2:
		into["anonymousId"] = p.anon()
	}
	return into
}

// round sends an event under each name at once, and at times links two names or
// deletes by one.
func (p *person) round(ctx context.Context, c *client, round int) error {
	group, ctx := errgroup.WithContext(ctx)
	for kind := range 3 {
		name := fmt.Sprintf("e%d-%d-%d", p.n, round, kind)
		p.sent[name] = true
		group.Go(func() error {
			return c.sendBatch(ctx, []event{p.event(kind, name, round)})
		})
	}
	change := p.rng.IntN(3)
	kind := p.rng.IntN(3)
	switch {
	case change == 0:
		group.Go(func() error { return p.link(ctx, c, kind, (kind+1)%3) })
	case change == 1 && p.n%2 == 0:
		p.deleted = true
		group.Go(func() error { return p.delete(ctx, c, kind) })
	}
	return group.Wait()
}

func (p *person) event(kind int, name string, round int) event {
	e := event{Name: name, ContactProperties: map[string]any{fmt.Sprint("from", kind): round}, IdempotencyKey: name}
	switch kind {
	case 0:
		e.UserID = p.userID()
	case 1:
		e.Email = p.email()
	case 2:
		e.AnonymousID = p.anon()
	}
	return e
}

// link says that two names are the same person. The person may be deleted at the
// same moment, which is an answer too.
func (p *person) link(ctx context.Context, c *client, one, other int) error {
	return p.answered(ctx, c, http.MethodPut, p.as(other, p.as(one, map[string]any{"properties": map[string]any{"linked": true}})), http.StatusOK, http.StatusConflict)
}

func (p *person) delete(ctx context.Context, c *client, kind int) error {
	return p.answered(ctx, c, http.MethodDelete, p.as(kind, map[string]any{}), http.StatusOK, http.StatusNotFound)
}

// answered sends until there is one of the final answers.
func (p *person) answered(ctx context.Context, c *client, method string, body map[string]any, final ...int) error {
	for {
		status, text, err := c.call(ctx, method, "/v1/contacts", body)
		for _, f := range final {
			if err == nil && status == f {
				return nil
			}
		}
		if ctx.Err() != nil || err == nil && status/100 == 4 {
			return fmt.Errorf("%s %v: %d %s %w", method, body, status, text, err)
		}
	}
}

func TestFaultMergedDeletedAndRecreatedContactsKeepTheirOrderAndTheErasedStayErased(t *testing.T) {
	notShort(t)
	eachSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, shortSession())
		w.serve("a")
		b := w.serve("b")
		w.waitMembers(2)
		c := w.client()
		var people []*person
		for n := range 12 {
			people = append(people, &person{n: n, erased: n%4 == 0, rng: rand.New(rand.NewPCG(rng.Uint64(), 1)), sent: map[string]bool{}})
		}
		const rounds = 8
		group, ctx := errgroup.WithContext(w.ctx())
		for _, p := range people {
			group.Go(func() error {
				for round := 1; round <= rounds; round++ {
					if err := p.round(ctx, c, round); err != nil {
						return err
					}
				}
				return nil
			})
		}
		w.waitAccepted(c, len(people)*rounds)
		w.waitPhase(rng)
		b.kill()
		b.start()
		require.NoError(t, group.Wait())
		b.waitReady()

		group, ctx = errgroup.WithContext(w.ctx())
		for _, p := range people {
			group.Go(func() error { return p.end(ctx, c) })
		}
		require.NoError(t, group.Wait())
		w.waitProcessed()

		w.verifyPeople(people)
		w.verifyHistories()
		w.verifyOrder()
		require.Empty(t, w.read(schemas.TopicDeadLetters))
	})
}

// end deletes for good, under every name, or links all names and says something
// last under each.
func (p *person) end(ctx context.Context, c *client) error {
	if p.erased {
		for kind := range 3 {
			if err := p.delete(ctx, c, kind); err != nil {
				return err
			}
		}
		return nil
	}
	for kind := range 2 {
		if err := p.link(ctx, c, kind, kind+1); err != nil {
			return err
		}
	}
	for kind := range 3 {
		name := fmt.Sprintf("last%d-%d", p.n, kind)
		p.sent[name] = true
		if err := c.sendOne(ctx, p.event(kind, name, 1000)); err != nil {
			return err
		}
	}
	return nil
}

// verifyPeople checks that nobody's events are lost or repeated, that who was
// erased is nowhere, and that the others are one contact each.
func (w *world) verifyPeople(people []*person) {
	t := w.t
	t.Helper()
	stands := map[string]int{}
	for _, r := range w.read(schemas.TopicEvents) {
		e, err := w.codec.DecodeEvent(r.Value)
		require.NoError(t, err)
		stands[e.Name]++
	}
	for _, p := range people {
		for name := range p.sent {
			if p.deleted || p.erased {
				require.LessOrEqual(t, stands[name], 1, "event %s", name)
			} else {
				require.Equal(t, 1, stands[name], "event %s", name)
			}
		}
		names := []schemas.Identifier{{Kind: schemas.KindExternal, Value: p.userID()}, {Kind: schemas.KindEmail, Value: p.email()}, {Kind: schemas.KindAnonymous, Value: p.anon()}}
		found, err := w.db.FindContacts(w.ctx(), names)
		require.NoError(t, err)
		var identifiers int
		require.NoError(t, storagetest.SQL(w.db).QueryRow(w.ctx(), `SELECT count(*) FROM identifiers WHERE value = ANY($1)`,
			[]string{p.userID(), p.email(), p.anon()}).Scan(&identifiers))
		if p.erased {
			require.Empty(t, found, "person %d was erased", p.n)
			require.Zero(t, identifiers, "identifiers of person %d, who was erased", p.n)
			continue
		}
		require.Len(t, found, 1, "person %d", p.n)
		require.Equal(t, 3, identifiers, "identifiers of person %d", p.n)
		var last map[string]any
		require.NoError(t, json.Unmarshal([]byte(found[0].Properties), &last))
		for kind := range 3 {
			require.EqualValues(t, 1000, last[fmt.Sprint("from", kind)], "what person %d said last under name %d", p.n, kind)
		}
	}
}

// verifyHistories reads what each contact went through: snapshots and facts are
// in order, nothing follows an end, and the newest snapshot is what Postgres has.
func (w *world) verifyHistories() {
	t := w.t
	t.Helper()
	newest := map[string]*stream.Record{}
	versions := map[string]int64{}
	for _, r := range w.read(schemas.TopicContacts) {
		id := string(r.Key)
		if before := newest[id]; before != nil {
			require.NotNil(t, before.Value, "contact %s has a record after its tombstone", id)
			require.Equal(t, before.Partition, r.Partition)
		}
		newest[id] = r
		if r.Value == nil {
			continue
		}
		c, err := w.codec.DecodeContact(r.Value)
		require.NoError(t, err)
		require.Greater(t, c.Version, versions[id], "version of a snapshot of %s", id)
		versions[id] = c.Version
	}
	for id, r := range newest {
		var version int64
		var properties string
		err := storagetest.SQL(w.db).QueryRow(w.ctx(), `SELECT version, properties::text FROM contacts WHERE id = $1`, id).Scan(&version, &properties)
		if r.Value == nil {
			require.True(t, storage.IsNotFound(err), "contact %s has ended and stands in Postgres (%v)", id, err)
			continue
		}
		require.NoError(t, err, "contact %s", id)
		c, err := w.codec.DecodeContact(r.Value)
		require.NoError(t, err)
		require.Equal(t, version, c.Version, "newest snapshot of %s", id)
		require.JSONEq(t, properties, c.Properties)
	}
	w.verifyFactHistories(newest)
}

func (w *world) verifyFactHistories(newest map[string]*stream.Record) {
	t := w.t
	t.Helper()
	last := map[string]string{}
	version := map[string]int64{}
	merged := map[string]string{}
	ids := map[string]bool{}
	for _, r := range w.read(schemas.TopicLifecycle) {
		f, err := w.codec.DecodeFact(r.Value)
		require.NoError(t, err)
		require.False(t, ids[f.ID], "fact %s %s stands twice", f.Type, f.ID)
		ids[f.ID] = true
		require.NotEqual(t, schemas.FactContactDeleted, last[f.ContactID], "%s of %s after its deletion", f.Type, f.ContactID)
		if f.Type == schemas.FactContactCreated {
			require.NotContains(t, []string{schemas.FactContactCreated, schemas.FactContactUpdated}, last[f.ContactID], "contact %s was created twice", f.ContactID)
		}
		if f.Contact != nil {
			require.Greater(t, f.Contact.Version, version[f.ContactID], "version in %s of %s", f.Type, f.ContactID)
			version[f.ContactID] = f.Contact.Version
		}
		if f.Merged != nil {
			require.Empty(t, merged[f.Merged.LoserID], "contact %s was merged twice", f.Merged.LoserID)
			merged[f.Merged.LoserID] = f.ContactID
		}
		last[f.ContactID] = f.Type
	}
	for loser := range merged {
		if r := newest[loser]; r != nil {
			require.Nil(t, r.Value, "contact %s was merged away and has a snapshot", loser)
		}
	}
	t.Logf("%d contacts, %d merged, %d facts", len(newest), len(merged), len(ids))
}
