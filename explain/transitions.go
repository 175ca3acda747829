package explain

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// ErrNoTransition says that the contact has no such join or leave.
var ErrNoTransition = errors.New("no such transition: give the number of a membership (2 is its join, 2/left its leave), or the id of a bucket.entered or bucket.left of this contact and bucket")

const (
	// shownMemberships is of how many memberships the transitions are shown: of as many it
	// is kept why.
	shownMemberships = 8
	// mostTransitions is among how many memberships one is looked for.
	mostTransitions = 10_000
)

// Transition is a join of a contact to a bucket, or a leave.
type Transition struct {
	// Name is what it is asked for by: 2 is the join of the second membership, 2/left its
	// leave.
	Name   string    `json:"name"`
	Is     string    `json:"is" enum:"entered,left"`
	At     time.Time `json:"at"`
	Source string    `json:"source,omitempty" doc:"Of a join: event, reconcile, backfill or manual."`
	Reason string    `json:"reason,omitempty" doc:"Of a leave: criteria, maxDwell, manual or merged."`
	// Fact is the id of the bucket.entered or bucket.left that tells of it; whether one does is
	// Told, nil when that is not kept.
	Fact string `json:"fact"`
	Told *bool  `json:"told,omitempty"`
	// Cause is the record that led to it; nil when a bucket was filled, a contact was merged
	// away, or it is not kept.
	Cause *Cause `json:"cause,omitempty"`

	kept *buckets.Kept
}

// Cause is the record that led to a transition.
type Cause struct {
	ID    string           `json:"id"`
	Place *predicate.Place `json:"place,omitempty"`
}

// WhyAt is Why as of a join or a leave, by its Name or by the id of the fact that tells of it:
// the criteria as they were. Errors are those of Why, and ErrNoTransition.
func (x *Explainer) WhyAt(ctx context.Context, bucketID, userID, transition string) (*Answer, error) {
	_, set, err := x.definitions(ctx)
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
	whys, err := x.db.BucketWhys(ctx, bucketID, s.contact.ID, mostTransitions)
	if err != nil {
		return nil, err
	}
	all, err := transitions(bucketID, s.contact.ID, whys)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(t Transition) bool { return t.Name == transition || strings.EqualFold(t.Fact, transition) })
	if i < 0 {
		return nil, ErrNoTransition
	}
	return x.answerAt(ctx, s, bucketID, all, i)
}

func (x *Explainer) answerAt(ctx context.Context, s *subject, bucketID string, all []Transition, i int) (*Answer, error) {
	t := &all[i]
	out := &Answer{
		BucketID: bucketID, UserID: s.userID(), ContactID: s.contact.ID, Member: t.Is == "entered", At: t.At,
		Reasons: []Reason{{Code: t.code(), Text: t.words()}}, Transition: t, Transitions: all[:min(len(all), 2*shownMemberships)],
	}
	if t.kept == nil {
		return out, nil
	}
	set, err := definition.Version(ctx, x.db, t.kept.Version)
	if errors.Is(err, definition.ErrNoVersion) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	if out.Criteria, err = t.kept.Explain(set.Find(bucketID), t.At); err != nil {
		return nil, err
	}
	p := &past{x: x, contact: s.contact.ID, hints: map[string]hint{}}
	p.openLog(ctx)
	p.knowCauses(all)
	p.showPlaces(ctx, out.Criteria)
	return out, nil
}

// transitions are the joins and leaves of memberships, the newest first.
func transitions(bucketID, contact string, whys []storage.BucketWhy) ([]Transition, error) {
	out := []Transition{}
	for i := range whys {
		w := &whys[i]
		name := strconv.FormatInt(w.Epoch, 10)
		fact := func(typ string) string { return factID(contact, typ, bucketID, w.Epoch) }
		pair := []Transition{{Name: name, Is: "entered", At: w.EnteredAt, Source: w.Source, Fact: fact(schemas.FactBucketEntered)}}
		kept := [][]byte{w.Entered}
		if !w.LeftAt.IsZero() {
			left := Transition{Name: name + "/left", Is: "left", At: w.LeftAt, Reason: w.Reason, Fact: fact(schemas.FactBucketLeft)}
			pair, kept = []Transition{left, pair[0]}, [][]byte{w.Left, w.Entered}
		}
		for i := range pair {
			if err := pair[i].read(kept[i]); err != nil {
				return nil, err
			}
		}
		out = append(out, pair...)
	}
	return out, nil
}

// factID is the id of a fact on a membership, as processor buckets derives it.
func factID(contact, typ, bucketID string, epoch int64) string {
	return schemas.Derive(contact, typ+":"+url.QueryEscape(bucketID), int(epoch))
}

// read takes what is kept of the transition.
func (t *Transition) read(kept []byte) error {
	if kept == nil {
		return nil
	}
	k, err := buckets.DecodeKept(kept)
	if err != nil {
		return fmt.Errorf("transition %s: %w", t.Name, err)
	}
	t.kept, t.Told = &k, &k.Told
	if k.Cause != "" {
		t.Cause = &Cause{ID: k.Cause}
		if k.Place != (derive.Place{}) {
			t.Cause.Place = &predicate.Place{Topic: string(k.Place.Topic), Partition: k.Place.Partition, Offset: k.Place.Offset, AppendedAt: k.Place.AppendedAt}
		}
	}
	return nil
}

// knowCauses notes where the records stand that led to transitions, which are not looked for
// then.
func (p *past) knowCauses(all []Transition) {
	for i := range all {
		if c := all[i].Cause; c != nil && c.Place != nil && c.Place.Topic != string(schemas.TopicSignals) {
			p.hints[c.ID] = hint{place: c.Place}
		}
	}
}

// code is why a transition was.
func (t *Transition) code() string {
	switch {
	case t.Reason == buckets.BecauseMaxDwell:
		return buckets.BecauseMaxDwell
	case t.Reason == "manual":
		return buckets.BecauseTakenOut
	case t.Reason == "merged":
		return t.Reason
	case t.Source == "manual":
		return buckets.BecauseManual
	}
	return buckets.BecauseCriteria
}

func (t *Transition) words() string {
	if t.Is == "left" {
		return map[string]string{
			"criteria": "it left because it did not satisfy the criteria", "maxDwell": "maxDwell took it out",
			"manual": "somebody took it out, or its time was over", "merged": "it was merged into another contact",
		}[t.Reason]
	}
	return map[string]string{
		"event": "a record made it join", "reconcile": "time alone made it join", "backfill": "it joined when the bucket was filled", "manual": "somebody put it in",
	}[t.Source]
}
