package definition

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Targets is where destinations are looked up: a *storage.Tx or a *storage.DB.
type Targets interface {
	CallTargets(ctx context.Context, names []string) ([]storage.CallTarget, error)
}

// Unasked is an enabled enrichment or journey that asks a destination which cannot be asked.
type Unasked struct {
	Ref         Ref
	Destination string
	Why         string
}

// String is what a person reads.
func (u Unasked) String() string {
	return fmt.Sprintf("%s %s asks destination %s, which %s", u.Ref.Kind, u.Ref.ID, u.Destination, u.Why)
}

// Unasked are those of the set whose destinations are not there, or take no outbox records,
// by kind and id: what they ask for fails.
func (s *Set) Unasked(ctx context.Context, from Targets) ([]Unasked, error) {
	asks := s.asksDestinations()
	var names []string
	for _, a := range asks {
		names = append(names, a.Destination)
	}
	if len(names) == 0 {
		return nil, nil
	}
	slices.Sort(names)
	targets, err := from.CallTargets(ctx, slices.Compact(names))
	if err != nil {
		return nil, err
	}
	takes := map[string]bool{}
	for _, t := range targets {
		sub, err := schemas.ParseSubscription(t.EventTypes)
		takes[t.Name] = err == nil && sub.WantsOutbox()
	}
	var out []Unasked
	for _, a := range asks {
		takes, there := takes[a.Destination]
		switch {
		case takes:
			continue
		case there:
			a.Why = "does not take outbox: name it in its event types"
		default:
			a.Why = "is not there: add it with outbox among its event types"
		}
		out = append(out, a)
	}
	return out, nil
}

// asksDestinations are the destinations that enabled definitions ask by name.
func (s *Set) asksDestinations() (out []Unasked) {
	for _, e := range s.Enrichments {
		if e.Enabled {
			out = append(out, Unasked{Ref: e.Ref(), Destination: e.Destination})
		}
	}
	for _, j := range s.AllJourneys() {
		out = append(out, asksOf(j.Journey)...)
	}
	return out
}

// asksOf are the destinations that a journey asks. One that is named by its id is known to
// whoever wrote it down.
func asksOf(j Journey) (out []Unasked) {
	if !j.Enabled {
		return nil
	}
	p, err := journeys.Compile(j.Journey, journeys.Options{})
	if err != nil {
		return nil // it was checked
	}
	for _, name := range p.Destinations() {
		if uuid.Validate(name) != nil {
			out = append(out, Unasked{Ref: j.Ref(), Destination: name})
		}
	}
	return out
}
