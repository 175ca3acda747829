package sinks

import (
	"context"
	"errors"

	"github.com/hogstream/hogstream/program"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// slowTries is how many attempts may end because filter or transform were broken off
// before the record is to blame.
const slowTries = 3

// errNoTurn is why filter and transform were not run within an attempt: others of the
// destination's records took the worker's time.
var errNoTurn = errors.New("filter or transform: had no turn within the time of the attempt")

// programs are the filter and the transform of a destination.
func programs(dest *storage.Destination) program.Source {
	return program.Source{Filter: dest.Filter, Transform: dest.Transform}
}

// shape filters and transforms the payloads of an attempt. Those that are not to be sent
// are set apart.
func (o *opened) shape(ctx context.Context, del delivery.Delivery, a *attempt) {
	if o.program == nil || a.unable != nil || len(a.Payloads) == 0 {
		return
	}
	results, err := o.program.Run(ctx, envelopes(a.Payloads))
	if err != nil {
		out := notRun(err, ctx.Err(), len(del.Records))
		a.unable = &out
		return
	}
	kept, n := a.Payloads[:0], 0
	for i := range del.Records {
		if _, is := a.apart[i]; is {
			continue
		}
		p, r := a.Payloads[n], results[n]
		n++
		switch {
		case errors.Is(r.Err, program.ErrSlow) && (len(del.Records) > 1 || del.Attempt <= slowTries):
			out := brokenOff(r.Err, len(del.Records))
			a.unable = &out
			return
		case r.Err != nil:
			a.setApart(i, delivery.Result{Verdict: delivery.Reject, Err: transport.CleanText(r.Err.Error())})
		case !r.Keep:
			a.setApart(i, delivery.Result{Verdict: delivery.Skipped})
		default:
			kept = append(kept, reshaped(p, r.Shaped))
		}
	}
	a.Payloads = kept
}

// shapeOne is choose and shape for a payload that is tried; nil says that it is not to be sent.
func (d *Deliverer) shapeOne(ctx context.Context, o *opened, p *Payload) (*Payload, error) {
	if o.condition != nil {
		choices, err := d.chosen(ctx, o.condition, []*Payload{p})
		if err != nil {
			return nil, err
		}
		if c := choices[0]; !c.takes {
			return nil, c.err
		}
	}
	if o.program == nil {
		return p, nil
	}
	results, err := o.program.Run(ctx, envelopes([]*Payload{p}))
	if err != nil {
		return nil, err
	}
	if r := results[0]; r.Err != nil || !r.Keep {
		return nil, r.Err
	}
	return reshaped(p, results[0].Shaped), nil
}

func envelopes(payloads []*Payload) [][]byte {
	documents := make([][]byte, len(payloads))
	for i, p := range payloads {
		documents[i] = p.Envelope
	}
	return documents
}

// notRun is the outcome when filter and transform were not run for any record.
func notRun(err, ended error, records int) delivery.Outcome {
	var source *program.SourceError
	switch {
	case errors.As(err, &source):
		return delivery.Outcome{Verdict: delivery.Refuse, Err: "settings of the destination: " + transport.CleanText(err.Error())}
	case ended != nil && !errors.Is(ended, context.DeadlineExceeded):
		return failed(ended, ended, 0)
	case ended != nil:
		return brokenOff(errNoTurn, records)
	}
	return delivery.Outcome{Verdict: delivery.Retry, Err: transport.CleanText(err.Error())}
}

// brokenOff is the outcome when filter or transform took too long, which need not be a
// record's fault. In a batch, halves find out whether it was one record or all of them.
func brokenOff(err error, records int) delivery.Outcome {
	if records > 1 {
		return delivery.Outcome{Verdict: delivery.Split, Err: transport.CleanText(err.Error())}
	}
	return delivery.Outcome{Verdict: delivery.Retry, Err: transport.CleanText(err.Error())}
}

// reshaped is a payload with the envelope that a transform made, if there is one. Kinds
// that do not send the envelope itself take type and data from it.
func reshaped(p *Payload, s *program.Shaped) *Payload {
	if s == nil {
		return p
	}
	shaped := *p
	shaped.Envelope, shaped.Data, shaped.traits, shaped.Transformed = s.Envelope, s.Data, s.Properties, true
	if s.Type != "" {
		shaped.Type = s.Type
	}
	return &shaped
}
