package main

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/examples/shop"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schemas"
)

// rehearsal is the clickstream in virtual time, through the shop's buckets and journeys: by
// the time of the clicks, with what time alone does in between.
type rehearsal struct {
	set      *definition.Set
	programs *journeys.Logic
	buckets  *derive.Rehearsal[buckets.State]
	journeys *derive.Rehearsal[journeys.State]

	users map[string]string // by contact
	moved []transition
	news  []news // for journeys
	mails []*schemas.EmailRequest
	lost  []schemas.Message // what journeys ask for that nobody here does
}

// news is a fact on a bucket, and when it was told.
type news struct {
	fact *schemas.Fact
	at   time.Time
}

// transition is one visitor entering or leaving a bucket.
type transition struct {
	bucket, userID, what string
	at                   time.Time
}

// rehearseShop runs the clickstream up to its last click.
func rehearseShop(events []shop.Event) (*rehearsal, error) {
	r, err := newRehearsal()
	if err != nil {
		return nil, err
	}
	for i, visit := range visitsOf(events) {
		if err := r.click(i, &events[i], visit); err != nil {
			return nil, fmt.Errorf("click %d of visitor %s: %w", i+1, events[i].UserID, err)
		}
	}
	if len(events) > 0 {
		err = r.until(events[len(events)-1].Time)
	}
	if len(r.lost) > 0 {
		return nil, fmt.Errorf("the shop's journeys ask for %T, which a rehearsal does not do", r.lost[0])
	}
	return r, err
}

func newRehearsal() (*rehearsal, error) {
	opts := definition.Options{Limits: predicate.DefaultLimits()}
	files, err := definition.LoadFS(shop.Definitions(), "definitions", opts)
	if err != nil {
		return nil, err
	}
	set := definition.Next(&definition.Set{}, files, opts)
	r := &rehearsal{set: set, programs: journeys.Compile(set, nil, journeys.Options{Limits: opts.Limits}), users: map[string]string{}}
	r.buckets = derive.NewRehearsal(buckets.Compile(set, buckets.Options{Limits: opts.Limits}), r.bucketsSay)
	r.journeys = derive.NewRehearsal(r.programs, r.journeysSay)
	return r, nil
}

func (r *rehearsal) bucketsSay(m schemas.Message, at time.Time) {
	if f, ok := m.(*schemas.Fact); ok && f.Bucket != nil {
		r.moved = append(r.moved, transition{f.Bucket.BucketID, r.users[f.ContactID], f.Bucket.Transition, f.OccurredAt})
		r.news = append(r.news, news{f, at})
	}
}

func (r *rehearsal) journeysSay(m schemas.Message, _ time.Time) {
	switch m := m.(type) {
	case *schemas.Fact: // the states hold what they say
	case *schemas.EmailRequest:
		r.mails = append(r.mails, m)
	default:
		r.lost = append(r.lost, m)
	}
}

// click handles what is due before a click, and the click. Journeys see it before they hear
// what buckets make of it, as they do on the log.
func (r *rehearsal) click(n int, click *shop.Event, visit int) error {
	if err := r.pass(click.Time.Add(-time.Microsecond)); err != nil {
		return err
	}
	contact := contactOf(click.UserID)
	r.users[contact] = click.UserID
	event := &schemas.Event{
		ID: schemas.Derive(contact, "click", n), ContactID: contact, Name: click.Name, UserID: &click.UserID, Properties: fmt.Sprintf(`{%q:%d}`, visitProperty, visit),
		OccurredAt: click.Time, ReceivedAt: click.Time,
	}
	forJourneys := &derive.Record[journeys.State]{ID: event.ID, ContactID: contact, OccurredAt: click.Time, Event: event}
	if err := r.journeys.Step(forJourneys, click.Time); err != nil {
		return err
	}
	forBuckets := &derive.Record[buckets.State]{ID: event.ID, ContactID: contact, OccurredAt: click.Time, Event: event}
	if err := r.buckets.Step(forBuckets, click.Time); err != nil {
		return err
	}
	return r.hear()
}

// contactOf is the contact of a visitor.
func contactOf(userID string) string { return schemas.Derive(uuid.Nil.String(), "visitor:"+userID, 0) }

// until lets time pass.
func (r *rehearsal) until(at time.Time) error {
	if err := r.pass(at); err != nil {
		return err
	}
	return r.journeys.Until(at)
}

// pass lets time pass for buckets, and journeys hear of what it does.
func (r *rehearsal) pass(until time.Time) error {
	if err := r.buckets.Until(until); err != nil {
		return err
	}
	return r.hear()
}

// hear tells journeys what buckets said, each when it was said.
func (r *rehearsal) hear() error {
	for _, n := range r.news {
		record := &derive.Record[journeys.State]{ID: n.fact.ID, ContactID: n.fact.ContactID, OccurredAt: n.fact.OccurredAt, Fact: n.fact}
		if err := r.journeys.Step(record, n.at); err != nil {
			return err
		}
	}
	r.news = r.news[:0]
	return nil
}

// visitProperty says which visit of its visitor a click belongs to.
const visitProperty = "$session_id"

// visitGap is how long nothing happens between two visits, at least.
const visitGap = 30 * time.Minute

// visitsOf numbers the visits of each visitor, from 1: which one each click belongs to.
func visitsOf(events []shop.Event) []int {
	type visitor struct {
		visits int
		last   time.Time
	}
	visitors := map[string]visitor{}
	out := make([]int, len(events))
	for i, e := range events {
		v := visitors[e.UserID]
		if v.visits == 0 || e.Time.Sub(v.last) >= visitGap {
			v.visits++
		}
		v.last = e.Time
		visitors[e.UserID], out[i] = v, v.visits
	}
	return out
}
