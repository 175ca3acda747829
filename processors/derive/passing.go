package derive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// pacing is how many contacts the steps of fillings that come in one batch pass.
type pacing struct {
	atOnce int // some at a time
	times  int // as often as that with no other records
	beside int // and so often when there are some, or were lately: these wait for it
	lately time.Duration
}

// fillPace holds up live records for some 40 ms. Beside them bench filling takes 28 to 35 s of 36 so,
// with a median of 80 to 113 ms; twice as much at once 23 to 29 s, with 113 to 159 ms.
var fillPace = pacing{atOnce: 500, times: 16, beside: 1, lately: time.Second}

// paceOf is how many contacts are passed at once, and how many times, with a batch of so many
// records.
func (f *Frame[S]) paceOf(now time.Time, records int) (atOnce, times int) {
	if records > 0 {
		f.live.Store(now.UnixNano())
	}
	switch {
	case f.failed.Load():
		return f.pace.atOnce, 1
	case now.Sub(time.Unix(0, f.live.Load())) < f.pace.lately:
		return f.pace.atOnce, f.pace.beside
	}
	return f.pace.atOnce, f.pace.times
}

// noteFailure has the next steps of fillings be small when one failed: the one that is given up
// then passes over few.
func (f *Frame[S]) noteFailure(err error) error {
	f.failed.Store(err != nil)
	return err
}

// passes are the steps of fillings that a batch takes: on all its partitions together, along
// the ids of contacts. So tables are read along an index, and not a look-up for each contact
// on each day's partition of events, which took half of all time. The contacts that come next
// are read, and those before are saved, while others are filled.
type passes[S any] struct {
	w     *work[S]
	tx    *storage.Tx // of the batch
	r     Refills[S]
	steps []*pass
	over  bool // contacts are passed over, for the step failed

	// Of the reader, which is another goroutine while coming is not nil.
	aside      *storage.Tx // nil where there is no connection for it
	end        func()
	partitions []int32
	places     map[int32]uuid.UUID // up to where contacts were read, by partition
	causes     map[int32]*stream.Record
	share      int  // how many partitions there are for each of these
	most       bool // they are so many of all partitions that reading along the ids is worth it
	limit      int  // of contacts of all partitions that are read at once
	times      int  // that is done
	coming     chan chunk[S]

	saving chan error // of the writer, which is another goroutine while it is not nil
}

// pass is the step of a filling on a partition.
type pass struct {
	cause *stream.Record
	fill  storage.Fill
}

// chunk are contacts that are passed together.
type chunk[S any] struct {
	contacts []*contact[S]
	known    map[string]*Known // of those that are behind
	until    uuid.UUID
	last     bool // no others come after them
	err      error
}

// passes are those of signals for the version in use that stand where the filling does. Others
// are of a chain that was left, or came twice. stop must be called.
func (w *work[S]) passes(ctx context.Context, tx *storage.Tx, signals []*incoming) (*passes[S], error) {
	p := &passes[S]{w: w, tx: tx, end: func() {}, places: map[int32]uuid.UUID{}, causes: map[int32]*stream.Record{}}
	var ok bool
	if p.r, ok = w.machine.l.(Refills[S]); !ok || len(signals) == 0 {
		return p, nil
	}
	at := make(map[int32]uuid.UUID)
	for _, in := range signals {
		id, err := uuid.Parse(in.signal.What)
		if err != nil && in.signal.What != "" || in.signal.Epoch != p.r.Version() {
			continue
		}
		n := in.cause.Partition
		if p.causes[n] == nil {
			p.partitions = append(p.partitions, n)
		}
		if p.causes[n] == nil || compareIDs(id, at[n]) > 0 { // the last is where it stands
			at[n], p.causes[n] = id, in.cause
		}
	}
	return p, p.begin(ctx, at)
}

// begin looks which fillings stand where they are asked to go on.
func (p *passes[S]) begin(ctx context.Context, at map[int32]uuid.UUID) error {
	if len(at) == 0 {
		return nil
	}
	fills, all, err := p.tx.Fills(ctx, p.w.f.p.Name(), p.r.Version(), p.partitions)
	if err != nil {
		return err
	}
	asked := p.partitions
	p.partitions = nil
	for _, n := range asked {
		if f := fills[n]; f.Version == p.r.Version() && f.After == at[n] && !f.Done {
			p.steps = append(p.steps, &pass{cause: p.causes[n], fill: f})
			p.partitions, p.places[n] = append(p.partitions, n), f.After
		}
	}
	p.share, p.most = max(1, all)/max(1, len(p.partitions)), 4*len(p.partitions) >= all
	return nil
}

// start begins to read, for so many contacts at once and so many times.
func (p *passes[S]) start(ctx context.Context, limit, times int) {
	p.limit, p.times = limit*p.share, times
	if len(p.steps) == 0 || times == 0 {
		return
	}
	if p.aside, p.end = p.tx.Aside(ctx); p.aside != nil {
		p.ahead(ctx)
	}
}

// ahead reads the next contacts beside what goes on.
func (p *passes[S]) ahead(ctx context.Context) {
	coming := make(chan chunk[S], 1)
	p.coming = coming
	go func() { coming <- p.read(ctx, p.aside) }()
}

// stop ends what is done beside.
func (p *passes[S]) stop() {
	if p.coming != nil {
		<-p.coming
	}
	_ = p.saved() // it was asked for, or another error is returned
	p.end()
}

// run passes contacts.
func (p *passes[S]) run(ctx context.Context) error {
	for len(p.steps) > 0 && p.times > 0 {
		c, err := p.next(ctx)
		if err == nil {
			err = p.take(&c)
		}
		if err = errors.Join(err, p.saved()); err != nil {
			return err
		}
		if p.times > 0 {
			p.save(ctx)
		}
	}
	return nil
}

// next is what was read, and has what follows it read.
func (p *passes[S]) next(ctx context.Context) (c chunk[S], err error) {
	if p.times--; p.aside == nil {
		if err := p.saved(); err != nil {
			return c, err
		}
		c = p.read(ctx, p.tx)
	} else if c, err = p.await(ctx); err != nil {
		return c, err
	}
	if c.last || c.err != nil {
		p.times = 0
	}
	if p.aside != nil && p.times > 0 {
		p.ahead(ctx)
	}
	return c, c.err
}

// await waits for what is read aside. A transaction that is silent for long is taken for one
// whose process stands still.
func (p *passes[S]) await(ctx context.Context) (c chunk[S], err error) {
	sign := time.NewTicker(signOfLife)
	defer sign.Stop()
	for {
		select {
		case c := <-p.coming:
			p.coming = nil
			return c, nil
		case <-sign.C:
			if err := p.saved(); err != nil {
				return c, err
			}
			if _, err := p.tx.Clock(ctx); err != nil {
				return c, err
			}
		}
	}
}

const signOfLife = 3 * time.Second

// save saves beside what goes on, which leaves the transaction alone until saved returns.
func (p *passes[S]) save(ctx context.Context) {
	saving, all := make(chan error, 1), p.w.changed()
	p.saving = saving
	go func() {
		saving <- noPanic(func() error { return errors.Join(p.w.save(ctx, p.tx, all), p.tx.Flush(ctx)) })
	}()
}

// saved waits for what is saved beside.
func (p *passes[S]) saved() error {
	if p.saving == nil {
		return nil
	}
	err := <-p.saving
	p.saving = nil
	return err
}

// noPanic makes an error of a panic, as the loop does of one in an apply.
func noPanic(do func() error) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("panic: %s", schemas.PanicText(fault))
		}
	}()
	return do()
}

// read reads the next contacts, and of those that are behind what is known: fewer when that
// is too much at once.
func (p *passes[S]) read(ctx context.Context, tx *storage.Tx) (c chunk[S]) {
	c.err = noPanic(func() error { return p.readInto(ctx, tx, &c) })
	return c
}

func (p *passes[S]) readInto(ctx context.Context, tx *storage.Tx, c *chunk[S]) error {
	after := p.lowest()
	found, err := p.load(ctx, tx, c, after)
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(found.Contacts)) {
		n := found.Contacts[id].Partition
		if id <= p.places[n].String() {
			continue
		}
		one := &contact[S]{row: storage.Derived{ContactID: id, Partition: n}, cause: p.causes[n]}
		if !p.over {
			if err := p.w.f.adopt(one, found); err != nil {
				return err
			}
		}
		c.contacts = append(c.contacts, one)
	}
	for n, place := range p.places {
		if compareIDs(place, c.until) < 0 {
			p.places[n] = c.until
		}
	}
	return p.know(ctx, tx, c, after)
}

// load reads where the processor stands with the next contacts: with fewer when that is too
// much at once.
func (p *passes[S]) load(ctx context.Context, tx *storage.Tx, c *chunk[S], after uuid.UUID) (*storage.DerivedStates, error) {
	for {
		until, whole, err := tx.DerivedRange(ctx, p.w.f.p.Name(), after, p.limit)
		if err != nil {
			return nil, err
		}
		c.until, c.last = until, !whole
		found, err := tx.DerivedBetween(ctx, p.w.f.p.Name(), after, until, p.partitions, p.limit)
		if !errors.Is(err, storage.ErrTooMuch) || p.limit == 1 {
			return found, err
		}
		p.limit = max(1, p.limit/2)
	}
}

// lowest is the place from which on contacts have to be read.
func (p *passes[S]) lowest() uuid.UUID {
	low := uuid.Max
	for _, place := range p.places {
		if compareIDs(place, low) < 0 {
			low = place
		}
	}
	return low
}

// know reads what is known of those that are behind.
func (p *passes[S]) know(ctx context.Context, tx *storage.Tx, c *chunk[S], after uuid.UUID) error {
	var behind []*storage.Derived
	var versions []int64
	for _, one := range c.contacts {
		if !p.over && isBehind(p.r, one) {
			behind, versions = append(behind, &one.row), append(versions, p.r.VersionOf(one.state))
		}
	}
	if len(behind) == 0 {
		return nil
	}
	c.known = make(map[string]*Known, len(behind))
	keep := func(t *storage.Taken) error {
		c.known[t.ContactID] = &Known{Contact: t.Contact, Events: t.Events}
		return nil
	}
	names := namesFor(p.r, versions)
	if p.most && 2*len(behind) >= len(c.contacts) {
		return tx.KnownBetween(ctx, after.String(), c.until.String(), p.partitions, behind, names, keep)
	}
	return tx.KnownContacts(ctx, behind, names, keep)
}

// take fills contacts that were read. Those of which there are records in the batch were filled
// with these, if they could be.
func (p *passes[S]) take(c *chunk[S]) error {
	of := make(map[int32]*storage.Fill, len(p.steps))
	for _, s := range p.steps {
		of[s.fill.Partition] = &s.fill
	}
	for _, one := range c.contacts {
		if own := p.w.contacts[one.row.ContactID]; own != nil {
			one = own
		} else if known := c.known[one.row.ContactID]; known != nil {
			known.Contact.Partition = one.row.Partition
			one.ahead = known
			if err := p.w.machine.refill(one); err != nil {
				return err
			}
			one.ahead = nil
			p.w.order = append(p.w.order, one)
		}
		fill := of[one.row.Partition]
		if fill.Passed++; p.over || isBehind(p.r, one) {
			fill.Behind++
		}
	}
	for _, fill := range of {
		if fill.Done = c.last; compareIDs(fill.After, c.until) < 0 {
			fill.After = c.until
		}
	}
	return nil
}

// moveOn says where the fillings stand after the batch, and asks for their next steps.
func (p *passes[S]) moveOn() error {
	for _, s := range p.steps {
		p.w.moved = append(p.w.moved, s.fill)
		if s.fill.Done {
			continue
		}
		signal := fillSignal(p.w.f.p.Name(), string(s.cause.Key), &s.fill)
		signal.OccurredAt = p.w.machine.now
		if err := p.w.machine.out.Emit(s.cause, signal); err != nil {
			return err
		}
	}
	return nil
}

// compareIDs is the order of ids in Postgres.
func compareIDs(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }
