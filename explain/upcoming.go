package explain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/storage"
)

const (
	// mostUpcoming is of how many contacts at most it is computed what time does to them.
	mostUpcoming   = 50_000
	upcomingAtOnce = 1000
	// mostWakes bounds how often a contact is looked at; each time a thousand instants are
	// handled.
	mostWakes = 100
)

// Upcoming is what time alone will do to the members of buckets.
type Upcoming struct {
	From time.Time `json:"from"`
	// Until is until when: what was asked for, or earlier when more than 50,000 contacts have
	// something due until then. Up to it the numbers are exact: those that will be, if no
	// record comes before and definitions stay.
	Until time.Time `json:"until"`
	Whole bool      `json:"whole" doc:"Until is what was asked for."`
	// Contacts is of how many contacts the timer is due.
	Contacts int                `json:"contacts"`
	Buckets  []UpcomingInBucket `json:"buckets"`
}

// UpcomingInBucket is how often contacts leave and join a bucket by time alone. One that
// leaves and joins again counts in both.
type UpcomingInBucket struct {
	BucketID string    `json:"bucketId"`
	Leaves   int       `json:"leaves"`
	Joins    int       `json:"joins"`
	First    time.Time `json:"first" doc:"When the first does."`
}

// Upcoming computes what time alone will do within a time from now: the processor's pure
// function is run over the states of those whose timers are due, in virtual time and in the
// order of the timers. An empty bucket is all of them.
func (x *Explainer) Upcoming(ctx context.Context, bucketID string, within time.Duration) (*Upcoming, error) {
	if within <= 0 {
		return nil, fmt.Errorf("within is %s: give a time that is to come", within)
	}
	logic, set, err := x.definitions(ctx)
	if err != nil {
		return nil, err
	}
	if bucketID != "" {
		if err := x.requireBucket(ctx, set, bucketID); err != nil {
			return nil, err
		}
	}
	now, err := x.now(ctx)
	if err != nil {
		return nil, err
	}
	f := forecast{logic: logic, bucket: bucketID, until: now.Add(within), whole: true}
	for len(f.due) < mostUpcoming {
		due, err := x.db.TimersUntil(ctx, buckets.Name, f.until, f.last(), upcomingAtOnce)
		if err != nil {
			return nil, err
		}
		if err := x.foresee(ctx, &f, due); err != nil {
			return nil, err
		}
		if len(due) < upcomingAtOnce {
			return f.result(now), nil
		}
	}
	f.until, f.whole = f.last().Due, false
	return f.result(now), nil
}

func (x *Explainer) now(ctx context.Context) (now time.Time, err error) {
	err = x.db.InTx(ctx, func(tx *storage.Tx) error {
		now, err = tx.Clock(ctx)
		return err
	})
	return now.UTC(), err
}

// foresee lets time pass for contacts.
func (x *Explainer) foresee(ctx context.Context, f *forecast, due []storage.Timer) error {
	f.due = append(f.due, due...)
	ids := make([]string, len(due))
	for i, t := range due {
		ids[i] = t.ContactID
	}
	slices.Sort(ids)
	return x.db.InTx(ctx, func(tx *storage.Tx) error {
		found, err := tx.LoadDerived(ctx, buckets.Name, slices.Compact(ids))
		if err != nil {
			return err
		}
		for id, row := range found.Contacts {
			s, err := buckets.DecodeState(row.State)
			if err == nil {
				err = f.pass(id, s)
			}
			if err != nil {
				return fmt.Errorf("contact %s: %w", id, err)
			}
		}
		return nil
	})
}

// forecast is what was found so far.
type forecast struct {
	logic  *buckets.Logic
	bucket string
	until  time.Time
	whole  bool
	due    []storage.Timer
	turns  []buckets.Transition
}

func (f *forecast) last() storage.Timer {
	if len(f.due) == 0 {
		return storage.Timer{}
	}
	return f.due[len(f.due)-1]
}

// pass steps the timer of a contact as of the end: what is due until then is handled as of
// when it is due.
func (f *forecast) pass(contact string, s buckets.State) error {
	for range mostWakes {
		result, err := f.logic.Step(s, &derive.Record[buckets.State]{ContactID: contact, OccurredAt: f.until, Timer: &derive.Timer{Due: f.until}}, f.until)
		if err != nil {
			return err
		}
		s = result.State
		if len(result.Timers) == 0 || result.Timers[0].Due.After(f.until) {
			f.turns = append(f.turns, s.Transitions()...)
			return nil
		}
	}
	return errors.New("time turns it all too often")
}

// result counts by bucket, the most leaves first.
func (f *forecast) result(now time.Time) *Upcoming {
	by := map[string]*UpcomingInBucket{}
	for i := range f.turns {
		t := &f.turns[i]
		if t.Kept || t.At.After(f.until) || f.bucket != "" && f.bucket != t.BucketID {
			continue
		}
		b := by[t.BucketID]
		if b == nil {
			b = &UpcomingInBucket{BucketID: t.BucketID, First: t.At}
			by[t.BucketID] = b
		}
		if t.At.Before(b.First) {
			b.First = t.At
		}
		if t.Entered {
			b.Joins++
		} else {
			b.Leaves++
		}
	}
	out := &Upcoming{From: now, Until: f.until, Whole: f.whole, Contacts: len(f.due), Buckets: []UpcomingInBucket{}}
	for _, b := range by {
		out.Buckets = append(out.Buckets, *b)
	}
	slices.SortFunc(out.Buckets, func(a, b UpcomingInBucket) int {
		return cmp.Or(cmp.Compare(b.Leaves, a.Leaves), cmp.Compare(b.Joins, a.Joins), cmp.Compare(a.BucketID, b.BucketID))
	})
	return out
}
