package sinks

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// condition makes the condition on records of a destination ready, nil without one. The
// error begins with the field.
func (d *Deliverer) condition(dest *storage.Destination) (*predicate.Filter, error) {
	if dest.Selector == "" {
		return nil, nil //nolint:nilnil // no condition is no error
	}
	s, err := predicate.ParseSelectorJSON("", []byte(dest.Selector))
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	f, err := predicate.CompileFilter(s, predicate.FilterOptions{Zone: d.cfg.Zone})
	switch {
	case err != nil:
		return nil, fmt.Errorf("filter: %w", err)
	case dest.Filter != "":
		return nil, errors.New("filter: is both jq and a condition: use one of them")
	case len(f.Buckets()) > 0 && d.cfg.Memberships == nil:
		return nil, errors.New("filter: asks for members of a bucket, which nobody can look up here: leave bucket and notBucket out")
	}
	return f, nil
}

// members are the buckets of a contact.
type members []string

// Has implements predicate.Members.
func (m members) Has(id string) bool { return slices.Contains(m, id) }

// asking notes that somebody asked for a membership.
type asking struct{ asked bool }

// Has implements predicate.Members.
func (a *asking) Has(string) bool {
	a.asked = true
	return false
}

// choose sets apart the payloads that the destination's condition does not take.
func (d *Deliverer) choose(ctx context.Context, o *opened, del delivery.Delivery, a *attempt) {
	if o.condition == nil || a.unable != nil {
		return
	}
	choices, err := d.chosen(ctx, o.condition, a.Payloads)
	if err != nil {
		a.unable = &delivery.Outcome{Verdict: delivery.Retry, Err: "filter: " + transport.CleanText(err.Error())}
		return
	}
	kept, n := a.Payloads[:0], 0
	for i := range del.Records {
		if _, is := a.apart[i]; is {
			continue
		}
		switch c := choices[n]; {
		case c.err != nil:
			a.setApart(i, delivery.Result{Verdict: delivery.Reject, Err: "filter: " + c.err.Error()})
		case !c.takes:
			a.setApart(i, delivery.Result{Verdict: delivery.Skipped})
		default:
			kept = append(kept, a.Payloads[n])
		}
		n++
	}
	a.Payloads = kept
}

// A choice is whether a condition takes a payload; err is the payload's fault.
type choice struct {
	takes bool
	err   error
}

// chosen chooses among payloads. Of those whose events and properties it takes, memberships
// are looked up, in one go; the error is that of looking up.
func (d *Deliverer) chosen(ctx context.Context, f *predicate.Filter, payloads []*Payload) ([]choice, error) {
	choices := make([]choice, len(payloads))
	var contacts []string
	var open []int
	for i, p := range payloads {
		var ask asking
		if choices[i] = choose(f, p, &ask); ask.asked {
			open, contacts = append(open, i), append(contacts, p.Person.ContactID)
		}
	}
	if len(open) == 0 {
		return choices, nil
	}
	of, err := d.lookUps.of(ctx, contacts, f.Buckets())
	if err != nil {
		return nil, err
	}
	for _, i := range open {
		choices[i] = choose(f, payloads[i], members(of[payloads[i].Person.ContactID]))
	}
	return choices, nil
}

// choose says whether a condition takes a payload. A test is nobody's record, and passes.
func choose(f *predicate.Filter, p *Payload, m predicate.Members) choice {
	var r predicate.Record
	var err error
	switch {
	case p.Event != nil:
		r, err = predicate.FromEvent(p.Event)
	case p.Fact != nil:
		r, err = predicate.FromFact(p.Fact)
	default:
		return choice{takes: true}
	}
	return choice{err == nil && f.Match(&r, m), err}
}
