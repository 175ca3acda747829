package identity

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// view is what is known of everybody whom a batch names, and what the batch has
// decided about them so far.
type view struct {
	owner      map[schemas.Identifier]*contact
	contacts   map[string]*contact
	since      time.Time // the earliest append time of the batch; erasures are known from then on
	erased     map[schemas.Identifier]storage.Place
	duplicates map[string]string // the inputs that have their keys, by input id

	attached map[schemas.Identifier]bool // identifiers that have no row of a live contact yet
	forgot   map[schemas.Identifier]storage.Place
	taken    []schemas.Identifier             // from another contact, by a rebuild
	linked   map[schemas.Identifier]time.Time // when its owner was given it, as far as a rebuild has read
	touched  []*contact                       // each once, in the order of the first change
}

// contact is an identity as the batch sees it.
type contact struct {
	storage.Identity
	was  *storage.Identity // the row as it was read; nil for one made in this batch
	ids  []schemas.Identifier
	root *contact // the survivor when it was merged in this batch
	// deletion is where it was deleted in this batch.
	deletion *storage.Place
	touched  bool // to be locked, if it was there before
	changed  bool // its row differs
}

func newView(found *storage.Identities, duplicates map[string]string) *view {
	v := &view{
		owner:      make(map[schemas.Identifier]*contact, len(found.Owner)),
		contacts:   make(map[string]*contact, len(found.ByContact)),
		duplicates: duplicates,
	}
	for id, row := range found.ByContact {
		v.contacts[id] = &contact{Identity: *row, was: row}
	}
	for id, contactID := range found.Owner {
		c := v.contacts[contactID]
		v.owner[id] = c
		c.ids = append(c.ids, id)
	}
	return v
}

// live follows merges; nil when the contact is deleted or there is none.
func (v *view) live(c *contact) *contact {
	for c != nil {
		switch {
		case c.Deleted:
			return nil
		case c.root != nil:
			c = c.root
		case c.MergedInto != "":
			c = v.contacts[c.MergedInto]
		default:
			return c
		}
	}
	return nil
}

// find returns the live contact that an identifier belongs to, or nil.
func (v *view) find(id schemas.Identifier) *contact { return v.live(v.owner[id]) }

// erasedAfter says whether an identifier was erased after an input was appended.
// Within a partition the offset decides. Between partitions it is the append
// time, and within the same millisecond the erasure wins.
func (v *view) erasedAfter(id schemas.Identifier, at storage.Place) bool {
	e, ok := v.erased[id]
	switch {
	case !ok:
		return false
	case e.Partition == at.Partition:
		return at.Offset < e.Offset
	}
	return !e.AppendTime.Before(at.AppendTime)
}

func (v *view) touch(c *contact) {
	if !c.touched {
		c.touched = true
		v.touched = append(v.touched, c)
	}
}

func (v *view) create(id string, firstSeen time.Time) *contact {
	c := &contact{Identity: storage.Identity{ContactID: id, FirstSeenAt: firstSeen}, changed: true}
	v.contacts[id] = c
	v.touch(c)
	return c
}

// attach gives an identifier that nobody owns to a contact. The first of its
// kind becomes the primary one.
func (v *view) attach(c *contact, id schemas.Identifier) {
	v.touch(c)
	v.owner[id] = c
	c.ids = append(c.ids, id)
	if v.attached == nil {
		v.attached = make(map[schemas.Identifier]bool)
	}
	v.attached[id] = true
	if primary := c.primary(id.Kind); *primary == "" {
		*primary = id.Value
		c.changed = true
	}
}

func (c *contact) primary(kind string) *string {
	switch kind {
	case schemas.KindExternal:
		return &c.ExternalID
	case schemas.KindEmail:
		return &c.Email
	default:
		return &c.AnonymousID
	}
}

// merge makes a loser part of a survivor.
func (v *view) merge(loser, survivor *contact) {
	v.touch(loser)
	v.touch(survivor)
	for _, kind := range []string{schemas.KindExternal, schemas.KindEmail, schemas.KindAnonymous} {
		mine, theirs := survivor.primary(kind), loser.primary(kind)
		if *mine == "" {
			*mine = *theirs
		}
		*theirs = ""
	}
	if loser.FirstSeenAt.Before(survivor.FirstSeenAt) {
		survivor.FirstSeenAt = loser.FirstSeenAt
	}
	survivor.ids = append(survivor.ids, loser.ids...)
	loser.root, loser.ids = survivor, nil
	loser.changed, survivor.changed = true, true
}

// erase deletes a contact and all its identifiers.
func (v *view) erase(c *contact, at storage.Place) {
	v.touch(c)
	for _, id := range c.ids {
		v.forget(id, at)
	}
	c.ids = nil
	c.ExternalID, c.Email, c.AnonymousID = "", "", ""
	c.Deleted, c.deletion, c.changed = true, &at, true
}

// forget keeps an identifier from coming back with an input appended earlier.
// Of two deletions, the one appended last counts, in whatever order they come.
func (v *view) forget(id schemas.Identifier, at storage.Place) {
	if v.erased == nil {
		v.erased = make(map[schemas.Identifier]storage.Place)
	}
	if v.forgot == nil {
		v.forgot = make(map[schemas.Identifier]storage.Place)
	}
	if old, ok := v.erased[id]; ok && at.AppendTime.Before(old.AppendTime) {
		return
	}
	v.erased[id], v.forgot[id] = at, at
}

// end follows the merges of this batch to the contact that it ended as.
func (c *contact) end() *contact {
	for c.root != nil {
		c = c.root
	}
	return c
}

// save locks what existed and is changed, and writes the batch's decisions.
func (v *view) save(ctx context.Context, tx *storage.Tx, now time.Time) error {
	if len(v.touched) == 0 && len(v.forgot) == 0 {
		return nil
	}
	ch := storage.IdentityChanges{
		Merged: make(map[string]string), Deleted: make(map[string]storage.Place),
		Erased: v.forgot, Taken: v.taken, Since: v.since, KnownErased: v.erased, Attached: make(map[schemas.Identifier]string, len(v.attached)),
	}
	var locked []storage.Identity
	for _, c := range v.touched {
		if c.was != nil {
			locked = append(locked, *c.was)
		}
		end := c.end()
		switch {
		case end.deletion != nil:
			ch.Deleted[c.ContactID] = *end.deletion
			c.Deleted = true
		case c.root != nil:
			ch.Merged[c.ContactID] = end.ContactID
		}
		if c.root != nil {
			c.MergedInto = end.ContactID
		}
		if c.changed {
			ch.Saved = append(ch.Saved, c.Identity)
		}
	}
	for id := range v.attached {
		if c := v.live(v.owner[id]); c != nil {
			ch.Attached[id] = c.ContactID
		}
	}
	for id := range v.forgot {
		if v.owner[id] == nil || v.attached[id] && !slices.Contains(v.taken, id) {
			ch.Forgotten = append(ch.Forgotten, id)
		}
	}
	if err := tx.LockIdentities(ctx, locked); err != nil {
		return err
	}
	if err := tx.SaveIdentities(ctx, &ch, now); err != nil {
		return fmt.Errorf("save what %d identities became: %w", len(v.touched), err)
	}
	return nil
}
