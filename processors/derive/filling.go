package derive

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// FillVersion is the version of the definitions in use with which states are filled; 0 for
// a processor whose definitions never change, or when there are none.
func (f *Frame[S]) FillVersion(ctx context.Context, tx *storage.Tx) (int64, error) {
	logic, err := f.p.At(ctx, tx)
	if err != nil {
		return 0, err
	}
	if r, ok := logic.(Refills[S]); ok {
		return r.Version(), nil
	}
	return 0, nil
}

// fillSignal asks for the next step of a filling, keyed by some contact of the partition.
func fillSignal(processor, contact string, fill *storage.Fill) *schemas.Signal {
	what := ""
	if fill.After != uuid.Nil {
		what = fill.After.String()
	}
	return &schemas.Signal{
		ID:   schemas.Derive(contact, "fill:"+processor+":"+what, int(fill.Version)),
		Type: schemas.SignalFill, For: processor, ContactID: contact, Epoch: fill.Version, What: what,
	}
}

// fill fills those contacts of the batch that are behind and stand where Postgres has
// them; fillAgain does so after the records. In between Postgres was not read again for
// those that were behind before: what it had then may be reached now.
func (w *work[S]) fill(ctx context.Context, tx *storage.Tx) error {
	r, ok := w.machine.l.(Refills[S])
	if !ok {
		return nil
	}
	var behind []*contact[S]
	for _, c := range w.order {
		if !c.looked && isBehind(r, c) {
			behind = append(behind, c)
		}
	}
	if len(behind) == 0 {
		return nil
	}
	rows, versions, ids := make([]*storage.Derived, len(behind)), make([]int64, len(behind)), make([]string, len(behind))
	for i, c := range behind {
		rows[i], versions[i], ids[i], c.looked = &c.row, r.VersionOf(c.state), c.row.ContactID, true
	}
	if looksBeside(w.machine.l) {
		var err error
		if w.machine.beside, err = tx.BesideContacts(ctx, ids); err != nil {
			return err
		}
	}
	from := slices.Min(versions)
	return tx.KnownContacts(ctx, rows, namesFor(r, versions), func(t *storage.Taken) error {
		c := w.contacts[t.ContactID]
		c.from = from
		t.Contact.Partition = c.row.Partition
		c.ahead = &Known{Contact: t.Contact, Events: t.Events, Beside: w.machine.beside[t.ContactID]}
		err := w.machine.refill(c)
		if !c.inBatch { // nothing comes that it could be kept for
			c.ahead = nil
		}
		return err
	})
}

// fillAgain also fills those who are behind because they took in one who is.
func (w *work[S]) fillAgain(ctx context.Context, tx *storage.Tx) error {
	for _, c := range w.order {
		if err := w.machine.refill(c); err != nil {
			return err
		}
	}
	return w.fill(ctx, tx)
}

// namesFor are the events that are needed to fill states of versions, each once.
func namesFor[S any](r Refills[S], versions []int64) []string {
	var names []string
	slices.Sort(versions)
	for _, v := range slices.Compact(versions) {
		names = append(names, r.Names(v)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// isBehind says that the state of a contact is not filled with the definitions in use.
func isBehind[S any](r Refills[S], c *contact[S]) bool {
	return c.known() && !c.row.Ended && r.VersionOf(c.state) < r.Version()
}

// refill fills a contact, if what Postgres knows of it is as of the record that was stepped
// last.
func (m *machine[S]) refill(c *contact[S]) error {
	r, ok := m.l.(Refills[S])
	if !ok || c.ahead == nil || !isBehind(r, c) {
		return nil
	}
	if r.VersionOf(c.state) < c.from {
		// It took in one who is further behind. The events that are needed for that were not read.
		c.ahead, c.looked = nil, false
		return nil
	}
	k := c.ahead
	if at := k.Contact; (at.Seq != c.row.Seq || at.Era != c.row.Era) && !m.off.has(ruleEqual) {
		return nil
	}
	c.ahead = nil
	before, err := m.before(c, 0)
	if err != nil {
		return err
	}
	result, err := guarded(before.known, func() (Result[S], error) { return r.Refill(c.state, k, m.now) })
	if err != nil { // it stays behind, and counts as that
		m.unfilled++
		m.why = fmt.Errorf("contact %s: %w", c.row.ContactID, err)
		return m.restore(c, &before)
	}
	m.filled++
	id := schemas.Derive(c.row.ContactID, fmt.Sprintf("fill:%s:%d", m.p.Name(), r.Version()), int(c.row.Seq))
	return m.accept(c, id, c.cause, &result, result.led(0), m.now)
}

// noteTakeOver notes that contacts are filled as they are taken over: when the definitions
// have not changed meanwhile, nobody has to be filled afterwards.
func (w *work[S]) noteTakeOver(ctx context.Context, tx *storage.Tx, partition int32, first, last bool) error {
	r, ok := w.machine.l.(Refills[S])
	if !ok {
		return nil
	}
	fill := storage.Fill{Partition: partition, Version: r.Version()}
	if !first {
		found, _, err := tx.Fills(ctx, w.f.p.Name(), 0, []int32{partition})
		if err != nil {
			return err
		}
		fill = found[partition]
	}
	fill.Passed += int64(len(w.order))
	fill.Total = fill.Passed
	fill.Done = last && fill.Version == r.Version()
	w.moved = append(w.moved, fill)
	return nil
}
