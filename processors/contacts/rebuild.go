package contacts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Clear removes the processor's state, before Restore, and begins a new era: how far the
// numbers of contacts had come cannot be told from their snapshots. Stored events stay
// until FinishRebuild.
func (p *Processor) Clear(ctx context.Context, tx *storage.Tx, now time.Time) error {
	return tx.ClearContacts(ctx, now)
}

// Restore applies records of topic contacts, read from its start, each partition
// in order, in batches of any size. At the topic's end the state is what it was
// at the processor's committed offsets. It publishes nothing. What cannot be
// restored: answers that waited for a merge, and LastSeenAt beyond the last
// change. RestoreMarks gives back the marks of contacts that ended.
func (p *Processor) Restore(ctx context.Context, tx *storage.Tx, records []*stream.Record, now time.Time) error {
	newest := make(map[string]*schemas.Contact, len(records))
	partitions := make(map[string]int32, len(records))
	for _, r := range records {
		if r.Value == nil {
			newest[string(r.Key)] = nil
			continue
		}
		c, err := p.codec.DecodeContact(r.Value)
		if errors.Is(err, schemas.ErrUndecodable) {
			continue // nobody can read it; an older or newer snapshot counts
		}
		if err != nil {
			return fmt.Errorf("decode %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		newest[c.ID], partitions[c.ID] = c, r.Partition
	}
	ch := storage.ContactChanges{Preferences: make(map[string][]schemas.Preference)}
	for id, c := range newest {
		if c == nil {
			ch.Ended = append(ch.Ended, id)
			continue
		}
		row := rowOf(c)
		row.Partition = partitions[id]
		ch.Saved = append(ch.Saved, row)
		if len(c.Preferences) > 0 {
			ch.Preferences[id] = c.Preferences
		}
	}
	return tx.RestoreContacts(ctx, &ch, now)
}

// RestoreMarks applies the merges and deletions on topic resolved, from its start
// to the processor's committed offsets, after Restore: a late record of a contact
// that ended must not bring it back.
func (p *Processor) RestoreMarks(ctx context.Context, tx *storage.Tx, records []*stream.Record, now time.Time) error {
	marks := make(map[string]storage.Mark)
	for _, r := range records {
		if r.Type != schemas.ResolvedMerge && r.Type != schemas.ResolvedInput && r.Type != "" {
			continue // as the header says
		}
		m, err := p.codec.DecodeResolved(r.Value)
		if errors.Is(err, schemas.ErrUndecodable) {
			continue
		}
		if err != nil {
			return fmt.Errorf("decode %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		switch {
		case m.Merge != nil:
			marks[m.ContactID] = storage.Mark{ContactID: m.ContactID, Survivor: m.Merge.Survivor, Partition: r.Partition}
		case m.Input != nil && m.Input.Type == schemas.InputDelete:
			marks[m.ContactID] = storage.Mark{ContactID: m.ContactID, Partition: r.Partition}
		}
	}
	return tx.RestoreMarks(ctx, slices.Collect(maps.Values(marks)), now)
}

// StoresEvents says whether there is anything for RestoreEvents to do.
func (p *Processor) StoresEvents() bool { return p.cfg.Events != EventsNone }

// RestoreEvents stores the events on topic events that are kept in Postgres and are
// missing there, after RestoreMarks.
func (p *Processor) RestoreEvents(ctx context.Context, tx *storage.Tx, records []*stream.Record) error {
	stores, err := p.cfg.stores(ctx, tx)
	if err != nil {
		return err
	}
	var events []storage.StoredEvent
	for _, r := range records {
		e, err := p.codec.DecodeEvent(r.Value)
		if errors.Is(err, schemas.ErrUndecodable) {
			continue
		}
		if err != nil {
			return fmt.Errorf("decode %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		if e.Validate() == nil && stores(e.Name) {
			events = append(events, stored(e))
		}
	}
	return tx.RestoreEvents(ctx, events)
}

// FinishRebuild comes after RestoreEvents. The state from before the rebuild may be a
// backup: of who was deleted since then nothing is left, also when the log has forgotten
// the deletion.
func (p *Processor) FinishRebuild(ctx context.Context, tx *storage.Tx, now time.Time) error {
	return tx.FinishContacts(ctx, now)
}

// rowOf is the inverse of state.snapshot, but for numbers, which begin anew.
func rowOf(c *schemas.Contact) *storage.Contact {
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	return &storage.Contact{
		ID: c.ID, ExternalID: text(c.UserID), Email: text(c.Email), AnonymousID: text(c.AnonymousID),
		Identifiers: c.Identifiers, Merged: c.Merged, Properties: c.Properties, Version: c.Version,
		FirstSeenAt: c.FirstSeenAt, LastSeenAt: c.LastSeenAt, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
	}
}
