package processors_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// tryApply makes one batch of records without publishing it.
func (p *pump) tryApply(proc loop.Processor, records []*stream.Record) (*loop.Batch, error) {
	b := loop.NewBatch(p.codec, p.clock, records)
	return b, p.db.InTx(p.ctx, func(tx *storage.Tx) error { return proc.Apply(p.ctx, tx, b) })
}

// A small patch of a large contact makes a fact and a snapshot of all of it: a
// backlog of them must not be held in memory at once.
func TestABacklogOfSmallPatchesToALargeContactIsRefusedBeforeItIsAllInMemory(t *testing.T) {
	p := newPump(t, contacts.Config{})
	large := event("large")
	large.UserID, large.ContactProperties = text("u"), text(`{"filler":"`+strings.Repeat("x", 500_000)+`"}`)
	p.send(large)
	p.drain()
	for i := range 200 {
		small := event("small")
		small.UserID, small.ContactProperties = text("u"), text(fmt.Sprintf(`{"n":%d}`, i))
		p.send(small)
	}
	for i := range p.ingest {
		p.step(p.identity, &p.ingest[i], 1000)
	}
	for i := range p.resolved {
		l := &p.resolved[i]
		if len(l.records)-l.next < 200 {
			continue
		}
		b, err := p.tryApply(p.contacts, l.records[l.next:])
		require.ErrorIs(t, err, loop.ErrBatchTooLarge)
		size := 0
		for _, o := range b.Outputs() {
			size += len(o.Value)
		}
		require.Less(t, size, 65<<20)
		_, err = p.tryApply(p.contacts, l.records[l.next:l.next+50])
		require.NoError(t, err)
		return
	}
	require.Fail(t, "no partition has them all")
}

func TestLargeContactsAreNotAllLoadedAtOnce(t *testing.T) {
	p := newPump(t, contacts.Config{})
	filler := strings.Repeat("x", 500_000)
	send := func(properties string) {
		for i := range 150 {
			in := event("x")
			in.UserID, in.ContactProperties = text(fmt.Sprint("u", i)), text(properties)
			p.send(in)
		}
		for i := range p.ingest {
			p.step(p.identity, &p.ingest[i], 1000)
		}
	}
	send(`{"filler":"` + filler + `"}`)
	var last []*stream.Record
	for i := range p.resolved {
		for l := &p.resolved[i]; l.next < len(l.records); {
			p.step(p.contacts, l, 20)
		}
	}
	send(`{"filler":null}`)
	for i := range p.resolved {
		last = append(last, p.resolved[i].records[p.resolved[i].next:]...)
	}
	require.Len(t, last, 150)
	_, err := p.tryApply(p.contacts, last)
	require.ErrorIs(t, err, storage.ErrTooMuch)
	_, err = p.tryApply(p.contacts, last[:75])
	require.NoError(t, err)
}

func TestAUserIDSentByAllDevicesDoesNotGrowItsContactWithoutEnd(t *testing.T) {
	p := newPump(t, contacts.Config{})
	for i := range schemas.MaxIdentifiers + 5 {
		p.send(event("x", user("everybody"), anon(fmt.Sprint("device-", i))))
	}
	p.drain()
	p.do(event("y", user("everybody"), anon(fmt.Sprint("device-", schemas.MaxIdentifiers+1))))
	c := p.find(schemas.KindExternal, "everybody")
	require.Len(t, c.Identifiers, schemas.MaxIdentifiers+1, "its devices and its user id")
	require.Equal(t, c.ID, p.find(schemas.KindAnonymous, fmt.Sprint("device-", schemas.MaxIdentifiers+3)).ID)
	conflicts := 0
	for _, typ := range p.factTypes() {
		if typ == schemas.FactContactConflict {
			conflicts++
		}
	}
	require.Equal(t, 5, conflicts, "one for each, when it came first")
	require.Empty(t, p.dead)
}

func TestAContactsListsAreBounded(t *testing.T) {
	p := newPump(t, contacts.Config{})
	many := make(map[string]bool)
	for i := range schemas.MaxLists + 5 {
		many[fmt.Sprintf("list-%04d", i)] = true
	}
	in := put(user("u"), email("a@b.co"), lists(many), waits)
	p.do(in)
	require.Equal(t, "lists", p.answer(in).Conflicts[0].Kind)
	preference, err := p.db.Preferences(p.ctx, "a@b.co")
	require.NoError(t, err)
	require.Len(t, preference.Categories, schemas.MaxLists)
	p.do(put(user("u"), email("a@b.co"), lists(map[string]bool{"list-0001": false})))
	preference, err = p.db.Preferences(p.ctx, "a@b.co")
	require.NoError(t, err)
	require.False(t, preference.Categories["list-0001"], "what it has said something about, it can change")
}
