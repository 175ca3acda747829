package sinks

import (
	"context"
	"errors"
	"time"

	"github.com/hogstream/hogstream/program"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// Trial is a payload made ready for a destination outside its lanes, to be looked at or
// sent once. It is not safe for concurrent use; whoever has it calls Close.
type Trial struct {
	// Request is what would be sent, nil when nothing is.
	Request *transport.Request
	// Body is that of the request before it was compressed.
	Body []byte
	// Outcome says why nothing is sent: Skipped by filter or transform, Reject for the
	// payload's fault, Refuse for that of the settings.
	Outcome delivery.Outcome

	deliverer *Deliverer
	opened    *opened
	attempt   *attempt
}

// Try makes a payload ready as it would be sent now, and sends nothing. With shaped, the
// destination's filter and transform apply to it; with test, its request is marked as one.
func (d *Deliverer) Try(ctx context.Context, dest *storage.Destination, p *Payload, shaped, test bool) *Trial {
	t := &Trial{deliverer: d, opened: d.ready(dest)}
	if t.opened.err != nil {
		t.Outcome = delivery.Outcome{Verdict: delivery.Refuse, Err: t.opened.err.Error()}
		return t
	}
	if shaped {
		out, err := d.shapeOne(ctx, t.opened, p)
		var source *program.SourceError
		switch {
		case errors.As(err, &source):
			t.Outcome = delivery.Outcome{Verdict: delivery.Refuse, Err: err.Error()}
			return t
		case err != nil:
			t.Outcome = delivery.Outcome{Verdict: delivery.Reject, Err: err.Error()}
			return t
		case out == nil:
			t.Outcome = delivery.Outcome{Verdict: delivery.Skipped, Err: "the filter or the transform of the destination leaves it out"}
			return t
		}
		p = out
	}
	t.build(ctx, p, test)
	return t
}

// build makes the request, also for a Sender, whose Build serves to be looked at.
func (t *Trial) build(ctx context.Context, p *Payload, test bool) {
	a := &attempt{Attempt: Attempt{Now: time.Now(), Payloads: []*Payload{p}, Test: test}}
	req, err := t.opened.sink.Build(&a.Attempt)
	if err != nil {
		t.Outcome = delivery.Outcome{Verdict: delivery.Reject, Err: err.Error()}
		return
	}
	t.deliverer.complete(ctx, req, &a.Attempt)
	t.Request, t.Body = req, req.Body
	req.Compress()
	a.request, t.attempt = req, a
}

// Send makes the attempt, or returns Outcome when there is nothing to send.
func (t *Trial) Send(ctx context.Context) delivery.Outcome {
	if t.attempt == nil {
		return t.Outcome
	}
	return t.deliverer.attempt(ctx, t.opened, t.attempt)
}

// Close releases what the trial holds.
func (t *Trial) Close() {
	if t.opened != nil {
		t.opened.close()
	}
}
