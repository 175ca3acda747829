// Package explain answers why somebody is in a bucket or not, and begins a journey or not,
// what a record caused and came of, and what time alone will do.
//
// What it promises:
//   - It changes nothing and waits for nobody: it reads what processor buckets keeps, with
//     the processor's own pure functions. So the answer is that of the processor.
//   - What it looks up on the log is bounded. What is not found within the bounds is left
//     out, or told as not known.
package explain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Errors of who asks for what is not there.
var (
	ErrNoContact = errors.New("no contact has this user id, anonymous id or contact id, or it was erased")
	ErrNoBucket  = errors.New("no bucket of this id is defined, and none ever had members")
)

// Explainer answers questions about contacts, buckets and records. It is safe for concurrent
// use.
type Explainer struct {
	db    *storage.DB
	admin *stream.Admin
	codec *schemas.Codec
	opts  buckets.Options // as processor buckets has them

	mu    sync.Mutex
	logic *buckets.Logic // of the version that was in use last
}

// New makes an Explainer, with the limits and the time zone that processor buckets has; a nil
// zone is UTC. Without an admin nothing is looked up on the log.
func New(db *storage.DB, admin *stream.Admin, codec *schemas.Codec, limits predicate.Limits, zone *time.Location) *Explainer {
	return &Explainer{db: db, admin: admin, codec: codec, opts: buckets.Options{Limits: limits, Zone: zone}}
}

// Answer says why a contact is a member of a bucket, or why it is not. Its JSON is stable:
// fields are only ever added.
type Answer struct {
	BucketID string `json:"bucketId"`
	// UserID is the contact's user id, else its anonymous id, else ContactID.
	UserID    string    `json:"userId"`
	ContactID string    `json:"contactId"`
	Member    bool      `json:"member"`
	At        time.Time `json:"at" doc:"As of when, in the time of the processor."`
	// Reasons are what decides, the one that does first; those after it are told beside it.
	Reasons []Reason `json:"reasons"`
	// Criteria are the condition, each part with its answer; nil of a manual bucket, and
	// where the first reason says why it cannot be asked.
	Criteria *predicate.Explanation `json:"criteria,omitempty"`
	// Next is when time alone may change the membership; zero is never.
	Next time.Time `json:"next,omitzero"`
	// Membership is the present one, or the last; nil when there was none.
	Membership *Membership `json:"membership,omitempty"`
	// Transition is what was asked about, instead of now: Criteria are as they were then.
	Transition *Transition `json:"transition,omitempty"`
	// Transitions are the newest joins and leaves, the newest first.
	Transitions []Transition `json:"transitions"`
}

// Reason is one reason of an Answer.
type Reason struct {
	Code  string    `json:"code" enum:"criteria,manual,notPutIn,takenOut,minDwell,maxDwell,reconcileJoins,due,disabled,failing,filling,unseen,undefined,merged,stays,entryLimit"`
	Text  string    `json:"text"`
	Until time.Time `json:"until,omitzero" doc:"When it ends by itself."`
}

// Membership is a join of a contact to a bucket, and the leave that ended it.
type Membership struct {
	Epoch     int64     `json:"entryCount" doc:"1 for the first join of the contact."`
	EnteredAt time.Time `json:"enteredAt"`
	Source    string    `json:"source" doc:"Of the join: event, reconcile, backfill or manual."`
	LeftAt    time.Time `json:"leftAt,omitzero"`
	Reason    string    `json:"reason,omitempty" doc:"Of the leave: criteria, maxDwell, manual or merged."`
}

// mostMemberships is of how many joins to buckets the times are known.
const mostMemberships = 1000

// subject is a contact, as far as processor buckets has come with it.
type subject struct {
	contact *storage.Contact
	row     storage.Derived
	state   buckets.State
	joins   []storage.BucketMember // to any bucket, those to which it belongs first
	now     time.Time              // Postgres's clock
}

// Why says why somebody, by user id, anonymous id or contact id, is in a bucket now, or is
// not. Errors are ErrNoContact and ErrNoBucket.
func (x *Explainer) Why(ctx context.Context, bucketID, userID string) (*Answer, error) {
	logic, set, err := x.definitions(ctx)
	if err != nil {
		return nil, err
	}
	s, err := x.subject(ctx, userID)
	if err != nil {
		return nil, err
	}
	if err := x.requireBucket(ctx, set, bucketID); err != nil {
		return nil, err
	}
	e := logic.Explain(s.state, bucketID, s.now)
	past, err := x.past(ctx, s, logic.Looks(s.state, bucketID))
	if err != nil {
		return nil, err
	}
	logic.Replay(s.state, bucketID, &e, past.history)
	out := s.answer(bucketID, set, &e)
	whys, err := x.db.BucketWhys(ctx, bucketID, s.contact.ID, shownMemberships)
	if err != nil {
		return nil, err
	}
	if out.Transitions, err = transitions(bucketID, s.contact.ID, whys); err != nil {
		return nil, err
	}
	past.knowCauses(out.Transitions)
	past.showPlaces(ctx, out.Criteria)
	return out, nil
}

// definitions are those in use, compiled when their version is another than before.
func (x *Explainer) definitions(ctx context.Context) (*buckets.Logic, *definition.Set, error) {
	set, err := definition.Current(ctx, x.db)
	if err != nil {
		return nil, nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.logic == nil || x.logic.Version() != set.Version {
		x.logic = buckets.Compile(set, x.opts)
	}
	return x.logic, set, nil
}

// subject reads what is kept of a contact.
func (x *Explainer) subject(ctx context.Context, userID string) (*subject, error) {
	contact, err := x.db.ContactNamed(ctx, userID, schemas.KindExternal, schemas.KindAnonymous)
	switch {
	case err != nil:
		return nil, err
	case contact == nil:
		return nil, ErrNoContact
	}
	s := &subject{contact: contact}
	err = x.db.InTx(ctx, func(tx *storage.Tx) error {
		found, err := tx.LoadDerived(ctx, buckets.Name, []string{contact.ID})
		if err != nil {
			return err
		}
		s.now = found.Now
		if row := found.Contacts[contact.ID]; row != nil {
			s.row = *row
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if s.state, err = buckets.DecodeState(s.row.State); err != nil {
		return nil, fmt.Errorf("contact %s: %w", contact.ID, err)
	}
	s.joins, err = x.db.BucketMemberships(ctx, contact.ID, mostMemberships)
	return s, err
}

// requireBucket is ErrNoBucket for one of which nothing is known at all.
func (x *Explainer) requireBucket(ctx context.Context, set *definition.Set, id string) error {
	if set.Find(id) != nil {
		return nil
	}
	counts, err := x.db.BucketCountsOf(ctx, id)
	switch {
	case err != nil:
		return err
	case counts.Entered > 0:
		return nil
	}
	if f := set.FailingOf(definition.BucketRef(id)); f != nil {
		return fmt.Errorf("%w: its definition was never good: %s", ErrNoBucket, f.Faults)
	}
	return ErrNoBucket
}

func (s *subject) answer(bucketID string, set *definition.Set, e *buckets.Explanation) *Answer {
	out := &Answer{
		BucketID: bucketID, UserID: s.userID(), ContactID: s.contact.ID, Member: e.Member, At: e.At, Criteria: e.Criteria, Next: e.Next,
	}
	for i := range s.joins { // the newest comes first
		if m := &s.joins[i]; m.BucketID == bucketID && (out.Membership == nil || m.Epoch > out.Membership.Epoch) {
			out.Membership = &Membership{m.Epoch, m.EnteredAt, m.Source, m.LeftAt, m.Reason}
		}
	}
	for _, r := range e.Reasons {
		out.Reasons = append(out.Reasons, Reason{Code: r.Code, Text: words(set.Find(bucketID), out, r), Until: r.Until})
	}
	return out
}

func (s *subject) userID() string {
	for _, id := range []string{s.contact.ExternalID, s.contact.AnonymousID} {
		if id != "" {
			return id
		}
	}
	return s.contact.ID
}
