package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Rebuild makes identities and identifiers anew from what processor contacts
// knows, which is the state at its committed offsets; call Restore with what
// topic resolved holds beyond them, and then FinishRebuild. When the whole database was lost, contacts
// is rebuilt first. What cannot be restored: idempotency keys, so a key sent
// before the loss is taken as new, and identifiers beyond the schemas.MaxIdentifiers
// of a kind that a contact shows.
func (p *Processor) Rebuild(ctx context.Context, tx *storage.Tx, now time.Time) error {
	return tx.RestoreIdentities(ctx, now)
}

// FinishRebuild comes after the last Restore. Contacts may be ahead with one
// partition and behind with another: then two of them name an identifier, the one
// that was deleted and the one that has it since, and the deletion took it away.
func (p *Processor) FinishRebuild(ctx context.Context, tx *storage.Tx, now time.Time) error {
	return tx.ReclaimIdentifiers(ctx, now)
}

// Restore applies links, merges and deletions that stand on topic resolved. Call
// it with all partitions in the order of append times, in batches of any size;
// it publishes nothing. Records that
// cannot be decoded are passed over: they are dead letters.
func (p *Processor) Restore(ctx context.Context, tx *storage.Tx, records []*stream.Record, now time.Time) error {
	type step struct {
		*schemas.Resolved
		place storage.Place
	}
	var steps []step
	var ids []schemas.Identifier
	var contacts []string
	for _, r := range records {
		m, err := p.codec.DecodeResolved(r.Value)
		if errors.Is(err, schemas.ErrUndecodable) {
			continue
		}
		if err != nil {
			return fmt.Errorf("decode %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		// The deletion's own place on topic ingest is not known any more. Its
		// append time here is a little later, which errs on erasure's side.
		steps = append(steps, step{m, storage.Place{Partition: -1, AppendTime: r.AppendTime}})
		ids = append(ids, m.Linked...)
		contacts = append(contacts, m.ContactID)
		if m.Merge != nil {
			contacts = append(contacts, m.Merge.Survivor)
		}
		if a := m.Absorb; a != nil {
			contacts = append(contacts, a.Loser)
			if a.State != nil {
				ids = append(ids, a.State.Identifiers...)
			}
			if a.Record != nil {
				ids = append(ids, a.Record.Linked...)
			}
		}
	}
	found, err := tx.LoadIdentities(ctx, ids, contacts, now)
	if err != nil {
		return err
	}
	v := newView(found, nil)
	slices.SortStableFunc(steps, func(a, b step) int { return a.place.AppendTime.Compare(b.place.AppendTime) })
	for _, s := range steps {
		v.restore(s.Resolved, s.place)
	}
	return v.save(ctx, tx, now)
}

func (v *view) restore(m *schemas.Resolved, at storage.Place) {
	c := v.known(m.ContactID, m.OccurredAt)
	switch {
	case c == nil:
		if m.Absorb != nil {
			v.endWith(v.known(m.Absorb.Loser, m.OccurredAt), at)
		}
	case m.Type == schemas.ResolvedMerge && m.Merge != nil:
		survivor := v.known(m.Merge.Survivor, m.OccurredAt)
		switch {
		case survivor == nil:
			v.endWith(c, at)
		case survivor != c:
			v.merge(c, survivor)
		}
	case m.Absorb != nil:
		v.restoreAbsorb(c, m.Absorb)
	case m.Input == nil || m.Type != schemas.ResolvedInput:
	case m.Input.Type == schemas.InputDelete:
		v.erase(c, at)
	default:
		v.relink(c, m.Linked, m.Input.ReceivedAt)
		if m.Created && m.Input.ReceivedAt.Before(c.FirstSeenAt) {
			v.touch(c)
			c.FirstSeenAt, c.changed = m.Input.ReceivedAt, true
		}
	}
}

// endWith ends a contact that was merged into one whose deletion, decided later,
// is known already: contacts had read it from another partition.
func (v *view) endWith(c *contact, at storage.Place) {
	if c != nil {
		v.erase(c, at)
	}
}

// restoreAbsorb is for a merge that contacts has half done: the loser's row is
// gone, and what it was known by stands only here.
func (v *view) restoreAbsorb(c *contact, a *schemas.Absorb) {
	if loser := v.known(a.Loser, c.FirstSeenAt); loser != nil && loser != c {
		v.merge(loser, c)
	}
	if a.State != nil {
		v.relink(c, a.State.Identifiers, a.State.LastSeenAt)
	}
	if a.Record != nil {
		v.relink(c, a.Record.Linked, a.Record.Input.ReceivedAt)
	}
}

// known returns the live contact of an id, made when it was never heard of.
func (v *view) known(id string, at time.Time) *contact {
	c := v.contacts[id]
	if c == nil {
		c = v.create(id, at)
	}
	return v.live(c)
}

// relink attaches what a record says a contact is known by. An identifier that
// belongs to somebody who came after the record, or whose own record of it is later,
// was given to them later, after a deletion that is still to come here: members append
// what they decided in any order.
func (v *view) relink(c *contact, ids []schemas.Identifier, at time.Time) {
	for _, id := range ids {
		owner := v.find(id)
		if owner != nil && owner != c && (owner.FirstSeenAt.After(at) || v.linked[id].After(at)) {
			continue
		}
		if v.linked == nil {
			v.linked = make(map[schemas.Identifier]time.Time)
		}
		if v.linked[id].Before(at) {
			v.linked[id] = at
		}
		if owner == c {
			continue
		}
		if v.owner[id] != nil && !v.attached[id] {
			v.taken = append(v.taken, id)
		}
		if owner != nil {
			owner.ids = slices.DeleteFunc(owner.ids, func(other schemas.Identifier) bool { return other == id })
		}
		v.attach(c, id)
	}
}
