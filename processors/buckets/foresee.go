package buckets

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/storage"
)

// Foresight says who would enter and leave if a plan were applied: with the function that a
// filling runs, on the contacts' states and stored events, at one instant. It writes nothing.
type Foresight struct {
	DB      *storage.DB
	Options Options
	// Workers look at contacts at once, with a connection each.
	Workers int
	// Until is when it stops with what it has; zero is never.
	Until time.Time
	// Sample is how many contacts are named of those that enter a bucket, and of those that leave.
	Sample int
	// Each is given everybody who would enter or leave, in no order and one at a time; nil for
	// nobody. After an error it is not called again, and the error is returned.
	Each func(definition.Move) error
	// Passed is told how many contacts of how many were looked at; by several goroutines at
	// once. May be nil.
	Passed func(contacts, total int64)
}

// Foresee looks at everybody, if there is a bucket whose members may change.
func (f *Foresight) Foresee(ctx context.Context, p *definition.Plan) (*definition.Forecast, error) {
	out := &definition.Forecast{Whole: true, Effects: p.Effects()}
	var err error
	if out.Total, err = f.DB.CountContacts(ctx); err != nil {
		return nil, err
	}
	if out.At.Time, err = f.DB.Clock(ctx); err != nil || len(out.Effects) == 0 {
		return out, err
	}
	counts, err := f.DB.BucketCounts(ctx)
	if err != nil {
		return nil, err
	}
	if out.Filling, err = f.filling(ctx, p.InUse.Version); err != nil {
		return nil, err
	}
	t := &teller{f: f, of: map[string]*definition.Effect{}}
	for i := range out.Effects {
		e := &out.Effects[i]
		e.Members = counts[e.Bucket].Active
		t.of[e.Bucket] = e
	}
	run := &derive.Foresight[State]{
		DB: f.DB, Processor: &processor{}, Logic: Compile(p.Next, f.Options), Workers: f.Workers, Seen: t.see,
	}
	if f.Passed != nil {
		run.Passed = func(n int64) { f.Passed(n, out.Total) }
	}
	ctx, t.stop = context.WithCancelCause(ctx)
	defer t.stop(nil)
	seen, err := run.Run(ctx, f.Until)
	if t.err != nil {
		return nil, t.err
	}
	out.At.Time, out.Contacts, out.Waiting, out.Failed, out.Whole = seen.At, seen.Passed, seen.Waiting, seen.Failed, seen.Whole
	return out, err
}

// filling is how far the set in use is filled; nil when that is done, or there is none.
func (f *Foresight) filling(ctx context.Context, version int64) (*definition.Filling, error) {
	fill, err := f.DB.FillProgress(ctx, Name, version)
	if err != nil || version == 0 || fill.Done {
		return nil, err
	}
	return &definition.Filling{Passed: fill.Passed, Total: fill.Total}, nil
}

// teller sums who enters and leaves.
type teller struct {
	f    *Foresight
	stop context.CancelCauseFunc

	mu  sync.Mutex
	of  map[string]*definition.Effect // by bucket
	err error                         // of Each
}

// see is called by several workers.
func (t *teller) see(c *storage.Contact, r derive.Result[State]) {
	transitions := r.State.Transitions()
	if len(transitions) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range transitions {
		t.count(c, transitions, i)
	}
}

// count counts a transition that is told, and the contact with the last one of a bucket:
// entering and leaving alternate, so it has moved when the first is of the same kind.
func (t *teller) count(c *storage.Contact, all []Transition, i int) {
	last := &all[i]
	e := t.of[last.BucketID]
	if e == nil || last.Kept {
		return
	}
	if last.Told {
		e.Told++
	}
	same := func(other Transition) bool { return other.BucketID == last.BucketID && !other.Kept }
	first := all[slices.IndexFunc(all, same)]
	if first.Entered != last.Entered || slices.ContainsFunc(all[i+1:], same) {
		return
	}
	move := definition.Move{
		Bucket: last.BucketID, Move: definition.Leaves, ContactID: c.ID, UserID: cmp.Or(c.ExternalID, c.AnonymousID, c.ID), Email: c.Email,
	}
	n, sample := &e.Leave, &e.Leaving
	if last.Entered {
		move.Move, n, sample = definition.Enters, &e.Enter, &e.Entering
	}
	*n++
	*sample = t.f.sampled(*sample, move)
	t.tell(move)
}

// sampled keeps those with the lowest ids, so that the same plan names the same contacts.
func (f *Foresight) sampled(list []definition.Move, m definition.Move) []definition.Move {
	at, _ := slices.BinarySearchFunc(list, m, func(a, b definition.Move) int { return cmp.Compare(a.ContactID, b.ContactID) })
	if at >= f.Sample {
		return list
	}
	list = slices.Insert(list, at, m)
	return list[:min(len(list), f.Sample)]
}

func (t *teller) tell(m definition.Move) {
	if t.f.Each == nil || t.err != nil {
		return
	}
	if t.err = t.f.Each(m); t.err != nil {
		t.stop(t.err)
	}
}
