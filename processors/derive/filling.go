package derive

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// How many contacts the steps of fillings that come in one batch pass together: few when
// there are other records, which wait for it.
const (
	filledAlone  = 2000
	filledBeside = 200
)

// pass is the step of a filling that a batch takes on a partition.
type pass struct {
	cause *stream.Record
	next  storage.NextFill
}

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

// passes are the steps that a batch takes: of signals for the version in use that stand
// where the filling does. Others are of a chain that was left, or came twice.
func (w *work[S]) passes(ctx context.Context, tx *storage.Tx, signals []*incoming) error {
	r, ok := w.machine.l.(Refills[S])
	if !ok {
		return nil
	}
	at, causes := make(map[int32]uuid.UUID), make(map[int32]*stream.Record)
	for _, in := range signals {
		id, err := uuid.Parse(in.signal.What)
		if err != nil && in.signal.What != "" || in.signal.Epoch != r.Version() {
			continue
		}
		if p := in.cause.Partition; causes[p] == nil || id.String() > at[p].String() { // the last is where it stands
			at[p], causes[p] = id, in.cause
		}
	}
	if len(at) == 0 {
		return nil
	}
	w.limit = max(1, w.limit/len(at))
	found, err := tx.NextFills(ctx, w.f.p.Name(), r.Version(), at, w.limit)
	if err != nil {
		return err
	}
	for p, next := range found {
		if next.Contacts == nil {
			continue
		}
		for _, id := range next.Contacts {
			w.add(id, causes[p])
		}
		w.fills = append(w.fills, pass{cause: causes[p], next: next})
	}
	return nil
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
	return tx.KnownContacts(ctx, rows, namesFor(r, versions), func(t *storage.Taken) error {
		c := w.contacts[t.ContactID]
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
	return m.accept(c, id, c.cause, &result, 0, m.now)
}

// moveOn says where the fillings stand after the batch, and asks for their next steps.
func (w *work[S]) moveOn() error {
	for _, p := range w.fills {
		fill := &p.next.Fill
		fill.Passed += int64(len(p.next.Contacts))
		for _, id := range p.next.Contacts {
			if isBehind(w.machine.l.(Refills[S]), w.contacts[id]) {
				fill.Behind++
			}
		}
		if fill.Done = len(p.next.Contacts) < w.limit; !fill.Done {
			last := p.next.Contacts[len(p.next.Contacts)-1]
			after, err := uuid.Parse(last)
			if err != nil {
				return fmt.Errorf("fill after contact %q: %w", last, err)
			}
			fill.After = after
			signal := fillSignal(w.f.p.Name(), last, fill)
			signal.OccurredAt = w.machine.now
			if err := w.machine.out.Emit(p.cause, signal); err != nil {
				return err
			}
		}
		w.moved = append(w.moved, *fill)
	}
	return nil
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
		found, err := tx.NextFills(ctx, w.f.p.Name(), 0, map[int32]uuid.UUID{partition: uuid.Nil}, 0)
		if err != nil {
			return err
		}
		fill = found[partition].Fill
	}
	fill.Passed += int64(len(w.order))
	fill.Total = fill.Passed
	fill.Done = last && fill.Version == r.Version()
	w.moved = append(w.moved, fill)
	return nil
}
