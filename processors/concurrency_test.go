package processors_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
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
	for in.Key() == "" {
		for i, field := range []**string{&in.UserID, &in.Email, &in.AnonymousID} {
			if rnd.IntN(2) == 0 {
				*field = text(fmt.Sprintf("%d-%d-%s", i, rnd.IntN(8), run))
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
				b := stream.NewBatch(p.codec, p.clock, l.records[l.next:end])
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
