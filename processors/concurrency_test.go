package processors_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/loop"
)

// Members of the group identity resolve subjects of the same few people at once.
// Which one wins is open; that everybody ends up in one place is not.
func TestMembersThatResolveTheSamePeopleAtOnceAgree(t *testing.T) {
	db := storagetest.New(t)
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			p := newPumpOn(t.Context(), t, db, contacts.Config{})
			rnd := rand.New(rand.NewPCG(seed, 1))
			run := fmt.Sprint(seed)
			for range 300 {
				p.send(randomEvent(rnd, run))
			}
			resolveAtOnce(t, p)
			p.drain()
			requireOnePlace(t, p)
		})
	}
}

func randomEvent(rnd *rand.Rand, run string) *schemas.Input {
	in := event("x")
	in.ContactProperties = text(`{"n":1}`)
	for in.UserID == nil && in.Email == nil && in.AnonymousID == nil {
		for i, field := range []**string{&in.UserID, &in.Email, &in.AnonymousID} {
			if rnd.IntN(2) == 0 {
				*field = text(fmt.Sprintf("%d-%d-%s@b.co", i, rnd.IntN(8), run))
			}
		}
	}
	return in
}

// resolveAtOnce lets one goroutine a partition apply batches until all is read.
func resolveAtOnce(t *testing.T, p *pump) {
	var mu sync.Mutex
	var group sync.WaitGroup
	for i := range p.ingest {
		l := &p.ingest[i]
		group.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 2))
			for l.next < len(l.records) {
				end := min(l.next+1+rnd.IntN(10), len(l.records))
				b := loop.NewBatch(p.codec, p.clock, l.records[l.next:end])
				err := p.db.InTx(p.ctx, func(tx *storage.Tx) error { return p.identity.Apply(p.ctx, tx, b) })
				if storage.IsRetryable(err) {
					continue
				}
				if err != nil {
					t.Errorf("apply: %v", err)
					return
				}
				mu.Lock()
				for _, o := range b.Outputs() {
					p.publish(o)
				}
				mu.Unlock()
				l.next = end
			}
		})
	}
	group.Wait()
}

// With deletions among them, nobody is known by a name who was sent under it only
// before its erasure.
func TestMembersThatResolveAndDeleteTheSamePeopleAtOnceKeepTheErasedAway(t *testing.T) {
	db := storagetest.New(t)
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			p := newPumpOn(t.Context(), t, db, contacts.Config{})
			rnd := rand.New(rand.NewPCG(seed, 3))
			run := fmt.Sprint("erased", seed)
			for range 300 {
				in := randomEvent(rnd, run)
				if rnd.IntN(3) == 0 {
					in.Type, in.Event, in.ContactProperties, in.AnonymousID = schemas.InputDelete, nil, nil, nil
				}
				if in.Key() != "" {
					p.send(in)
				}
			}
			resolveAtOnce(t, p)
			p.drain()
			requireErasedAway(t, p)
		})
	}
}

func requireErasedAway(t *testing.T, p *pump) {
	t.Helper()
	sent := map[schemas.Identifier]time.Time{} // when last, but by a deletion
	for _, in := range p.sent {
		for _, id := range identifiersOf(in) {
			if in.Type != schemas.InputDelete {
				sent[id] = in.ReceivedAt
			} else if _, before := sent[id]; !before {
				sent[id] = time.Time{}
			}
		}
	}
	var erased map[schemas.Identifier]storage.Place
	require.NoError(t, p.db.InTx(p.ctx, func(tx *storage.Tx) (err error) {
		erased, err = tx.ErasedIdentifiers(p.ctx, slices.Collect(maps.Keys(sent)), time.Time{})
		return err
	}))
	require.NotEmpty(t, erased)
	for id, place := range erased {
		if !sent[id].After(place.AppendTime) {
			require.Nil(t, p.find(id.Kind, id.Value), "%v was erased after it was sent last", id)
		}
	}
}

func requireOnePlace(t *testing.T, p *pump) {
	t.Helper()
	require.Empty(t, p.dead)
	owner := map[string]*storage.Contact{} // by any id of a contact, merged ones included
	for id, s := range p.snapshots {
		if s == nil {
			continue
		}
		c, err := p.db.GetContact(p.ctx, id)
		require.NoError(t, err)
		for _, id := range append([]string{c.ID}, c.Merged...) {
			require.Nil(t, owner[id], "contact %s in two places", id)
			owner[id] = c
		}
		require.Equal(t, len(c.Identifiers), p.count("identifiers", "contact_id = $1::text::uuid", c.ID))
		userIDs := 0
		for _, id := range c.Identifiers {
			require.Equal(t, c.ID, p.find(id.Kind, id.Value).ID)
			if id.Kind == schemas.KindExternal {
				userIDs++
			}
		}
		require.LessOrEqual(t, userIDs, 1)
	}
	seen := map[string]bool{}
	for _, e := range p.events {
		require.False(t, seen[e.ID])
		seen[e.ID] = true
		require.NotNil(t, owner[e.ContactID])
	}
	require.Len(t, seen, len(p.sent), "every event once")
}

// A deletion and an input that was appended before it, which names somebody whom
// nobody knows yet, are decided at once by two members: either the deletion finds the
// person, or the input finds the deletion.
func TestADeletionDecidedBesideAnEarlierInputOfAStrangerWinsAllTheSame(t *testing.T) {
	for name, deletionFirst := range map[string]bool{"the deletion commits first": true, "the input commits first": false} {
		t.Run(name, func(t *testing.T) {
			p := newPump(t, contacts.Config{})
			in, del := p.send(event("x", user("U"), email("g@b.co"))), p.send(remove(email("g@b.co"), waits))
			require.NotEqual(t, partitionOf(in.Key()), partitionOf(del.Key()))
			first, second := &p.ingest[partitionOf(del.Key())], &p.ingest[partitionOf(in.Key())]
			if !deletionFirst {
				first, second = second, first
			}
			b := loop.NewBatch(p.codec, p.clock, first.records)
			again := make(chan struct{})
			err := p.db.InTx(p.ctx, func(tx *storage.Tx) error {
				if err := p.identity.Apply(p.ctx, tx, b); err != nil {
					return err
				}
				go func() {
					defer close(again)
					p.step(p.identity, second, 1)
				}()
				for !somebodyWaits(t, p.db) {
					select {
					case <-again:
						return nil
					default:
					}
				}
				return nil
			})
			<-again
			require.NoError(t, err)
			for _, o := range b.Outputs() {
				p.publish(o)
			}
			first.next = len(first.records)
			p.drain()
			require.Nil(t, p.find(schemas.KindExternal, "U"))
			require.Nil(t, p.find(schemas.KindEmail, "g@b.co"))
			require.Zero(t, p.count("contacts", "true"))
		})
	}
}

// somebodyWaits says that a transaction of this schema waits for another.
func somebodyWaits(t *testing.T, db *storage.DB) (waiting bool) {
	t.Helper()
	require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `
		SELECT EXISTS (SELECT FROM pg_stat_activity AS a JOIN pg_locks AS l ON l.pid = a.pid
		               JOIN pg_locks AS held ON held.pid = a.pid AND held.relation = 'identifiers'::regclass
		               WHERE NOT l.granted)`).Scan(&waiting))
	return waiting
}
