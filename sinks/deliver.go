package sinks

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"go.opentelemetry.io/otel/propagation"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/program"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

const (
	// keptOfAnswer is how much of an answer stands in the delivery log.
	keptOfAnswer = 1 << 10
	// toldOfAnswer is how much of the answer to a call its asker is told.
	toldOfAnswer = 16 << 10
)

// opened is a destination made ready, at one of its revisions.
type opened struct {
	revision  int64
	dest      *storage.Destination
	kind      *Kind
	sink      Sink
	condition *predicate.Filter // on records; nil without one
	program   *program.Program  // nil without filter and transform in jq
	series    *series
	err       error // the settings cannot be used
}

// open makes a destination ready, once for each revision. The pointer is
// compared too: a destination that is only being tested has no revision yet.
func (d *Deliverer) open(dest *storage.Destination) *opened {
	if o := d.isOpen(dest); o != nil {
		return o
	}
	d.opening.Lock() // what one of many attempts opens is not to be closed by the next
	defer d.opening.Unlock()
	if o := d.isOpen(dest); o != nil {
		return o
	}
	o := d.ready(dest)
	o.series = d.metrics.of(dest)
	if before, loaded := d.opened.Swap(dest.ID, o); loaded {
		before.(*opened).close()
	}
	return o
}

func (d *Deliverer) isOpen(dest *storage.Destination) *opened {
	if v, ok := d.opened.Load(dest.ID); ok {
		if o := v.(*opened); o.dest == dest || o.revision == dest.Revision && dest.Revision > 0 {
			return o
		}
	}
	return nil
}

// CheckSettings says whether a destination may and can be delivered to from here, but for
// filter and transform. The error begins with the field and says what to write instead.
func (d *Deliverer) CheckSettings(dest *storage.Destination) error {
	if err := d.enabled(dest.Kind); err != nil {
		return err
	}
	o := d.newOpened(dest)
	if o.err == nil {
		o.close()
	}
	return o.err
}

// CheckOutbox says whether a destination, whose settings are right, can take outbox records.
// The error begins with the field.
func (d *Deliverer) CheckOutbox(dest *storage.Destination) error {
	o := d.newOpened(dest)
	if o.err != nil {
		return o.err
	}
	defer o.close()
	if !o.takesCalls() {
		return fmt.Errorf("eventTypes: %q: %s", schemas.SubscribeOutbox, noCalls(dest.Kind))
	}
	return nil
}

// CheckPrograms has a worker compile filter and transform. The error is a
// [*program.SourceError] when they cannot be used, and another one when that could not be
// found out.
func (d *Deliverer) CheckPrograms(ctx context.Context, dest *storage.Destination) error {
	return d.workers.Check(ctx, programs(dest))
}

// ready checks whether a destination may and can be delivered to from here.
func (d *Deliverer) ready(dest *storage.Destination) *opened {
	if err := d.enabled(dest.Kind); err != nil {
		return &opened{revision: dest.Revision, dest: dest, err: err}
	}
	o := d.newOpened(dest)
	if src := programs(dest); o.err == nil && !src.Empty() {
		o.program = d.workers.Open(dest.Name, src)
	}
	return o
}

// newOpened checks all settings that deliveries depend on, but for filter and
// transform: a worker checks those when they are set.
func (d *Deliverer) newOpened(dest *storage.Destination) *opened {
	o := &opened{revision: dest.Revision, dest: dest}
	if dest.Unreadable != "" {
		o.err = errors.New(dest.Unreadable)
		return o
	}
	kind, err := d.kinds.find(dest.Kind)
	if err != nil {
		o.err = err
		return o
	}
	o.kind = kind
	if o.condition, o.err = d.condition(dest); o.err == nil {
		o.sink, o.err = kind.Open(dest, d.client.Guard())
	}
	return o
}

// Release implements [delivery.Releaser]: what is needed again is opened again.
func (d *Deliverer) Release(destinationID string) { d.close(destinationID) }

// Forget implements [delivery.Releaser].
func (d *Deliverer) Forget(destinationID string) {
	d.close(destinationID)
	d.metrics.forget(destinationID)
}

func (d *Deliverer) close(destinationID string) {
	if o, loaded := d.opened.LoadAndDelete(destinationID); loaded {
		o.(*opened).close()
	}
}

// close releases what a Sender holds, and the worker of filter and transform once it has
// nothing to do. A Sender's attempts in flight end, to be made again with the settings as
// they are now.
func (o *opened) close() {
	if o.program != nil {
		o.program.Close()
	}
	if c, ok := o.sink.(io.Closer); ok {
		_ = c.Close() // nothing follows from it
	}
}

// Batch implements [delivery.Deliverer].
func (d *Deliverer) Batch(dest *storage.Destination) (records, bytes int) {
	kind, err := d.kinds.find(dest.Kind)
	if err != nil {
		return 1, 0
	}
	return kind.Records, kind.Bytes
}

// Linger implements [delivery.Lingerer].
func (d *Deliverer) Linger(dest *storage.Destination) time.Duration {
	var cfg batching
	if len(dest.Config) == 0 || json.Unmarshal(dest.Config, &cfg) != nil || cfg.check() != nil {
		return 0
	}
	return time.Duration(cfg.LingerMs) * time.Millisecond
}

// Deliver implements [delivery.Deliverer].
func (d *Deliverer) Deliver(ctx context.Context, del delivery.Delivery) delivery.Outcome {
	ctx, span := startSpan(ctx, &del)
	o := d.open(del.Destination)
	out := d.deliver(ctx, o, del)
	endSpan(span, &out)
	o.series.observe(&del, &out, time.Now())
	d.logOutcome(&del, &out)
	return out
}

func (d *Deliverer) deliver(ctx context.Context, o *opened, del delivery.Delivery) delivery.Outcome {
	if o.err != nil {
		return delivery.Outcome{Verdict: delivery.Refuse, Err: delivery.FailureSettings + ": " + o.err.Error()}
	}
	a := &attempt{Attempt: Attempt{ReplayID: del.ReplayID, Number: del.Attempt}}
	if !d.build(ctx, o, del, a) {
		return failed(context.Cause(ctx), ctx.Err(), 0)
	}
	if a.unable != nil {
		return *a.unable
	}
	out := delivery.Outcome{Verdict: delivery.Skipped}
	if len(a.Payloads) > 0 {
		out = d.attempt(ctx, o, a)
	}
	return merge(out, len(del.Records), a.apart)
}

// build decodes the records, has filter and transform run, and builds the request. What
// is computed here counts towards the CPU limit of backfills; false when ctx ended first.
func (d *Deliverer) build(ctx context.Context, o *opened, del delivery.Delivery, a *attempt) bool {
	if o.program == nil && o.condition == nil {
		return del.CPULimiter.Do(ctx, func() { d.decodeAll(ctx, o, del, a); a.write(o) })
	}
	if !del.CPULimiter.Do(ctx, func() { d.decodeAll(ctx, o, del, a) }) {
		return false
	}
	if a.isCall() {
		return del.CPULimiter.Do(ctx, func() { a.write(o) })
	}
	d.choose(ctx, o, del, a) // may wait for Postgres: outside the CPU limit
	o.shape(ctx, del, a)     // in worker processes, for as long as it takes
	return del.CPULimiter.Do(ctx, func() { a.write(o) })
}

// decodeAll makes payloads of the records.
func (d *Deliverer) decodeAll(ctx context.Context, o *opened, del delivery.Delivery, a *attempt) {
	a.Payloads = make([]*Payload, 0, len(del.Records))
	payload := d.Payload
	if del.ReplayID != "" { // nobody else is there; what others need stays remembered
		payload = d.decode
	}
	began := time.Now()
	for i, r := range del.Records {
		if i%yieldEvery == yieldEvery-1 {
			began = del.CPULimiter.Yield(ctx, began)
		}
		p, err := payload(r)
		switch {
		case errors.Is(err, schemas.ErrRegistryUnavailable):
			a.unable = &delivery.Outcome{Verdict: delivery.Retry, Err: delivery.FailureRegistry + ": " + err.Error()}
			return
		case err != nil:
			a.setApart(i, delivery.Result{Verdict: delivery.Reject, Err: err.Error()})
		case p.Call != nil && !o.takesCalls():
			a.setApart(i, delivery.Result{Verdict: delivery.Reject, Err: noCalls(o.dest.Kind)})
		default:
			a.Payloads = append(a.Payloads, p)
		}
	}
}

// takesCalls says whether outbox records may be sent to the destination.
func (o *opened) takesCalls() bool {
	_, calls := o.sink.(Caller)
	return calls
}

func noCalls(kind string) string {
	return delivery.FailureNoOutbox + ": destinations of kind " + kind + " cannot be called"
}

// isCall says that the attempt is a call: it is one payload, of a kind that delivers one by one.
func (a *Attempt) isCall() bool {
	return len(a.Payloads) == 1 && a.Payloads[0] != nil && a.Payloads[0].Call != nil
}

// setApart notes what comes of a record that no request is made for.
func (at *attempt) setApart(record int, r delivery.Result) {
	if at.apart == nil {
		at.apart = map[int]delivery.Result{}
	}
	at.apart[record] = r
}

// write makes the request of the payloads; a Sender has none.
func (at *attempt) write(o *opened) {
	at.Now = time.Now()
	if _, sends := o.sink.(Sender); sends || at.unable != nil || len(at.Payloads) == 0 {
		return
	}
	if at.request, at.err = o.sink.Build(&at.Attempt); at.err == nil {
		at.request.Compress()
	}
}

// yieldEvery is how many records are decoded between two calls of Yield.
const yieldEvery = 16

// attempt is an Attempt with what became of its records so far.
type attempt struct {
	Attempt
	// What is built: a request or why there is none, nothing for a Sender.
	request *transport.Request
	err     error
	apart   map[int]delivery.Result // of records that no request is made for
	unable  *delivery.Outcome       // when the records could not all be read
}

// attempt makes one request within its deadline and says what comes of it.
func (d *Deliverer) attempt(ctx context.Context, o *opened, at *attempt) delivery.Outcome {
	got := d.send(ctx, o, at)
	for i, note := range got.notes {
		d.log.Warn("sinks.left_out", zap.String("destination", o.dest.Name), zap.String("destination_id", o.dest.ID),
			zap.String("record_id", at.Payloads[i].ID), zap.String("what", note))
	}
	return outcomeOf(o.sink, &at.Attempt, &got)
}

// A reply is what came of an attempt: an answer, why there is none, or what a Sender
// says.
type reply struct {
	answer  *transport.Answer
	unbuilt error             // why there was no request
	failure error             // why there was no answer
	notes   map[int]string    // what of the payloads the request did not carry
	ended   error             // of the attempt's context by then; nil when it had not ended
	told    *delivery.Outcome // by a Sender
	at      time.Time
	latency time.Duration
}

// send makes one request within its deadline.
func (d *Deliverer) send(ctx context.Context, o *opened, at *attempt) reply {
	ctx, done := context.WithTimeout(ctx, d.cfg.Timeout)
	defer done()
	if sender, ok := o.sink.(Sender); ok {
		out := sender.Send(ctx, &at.Attempt)
		return reply{told: &out}
	}
	if at.err != nil {
		return reply{unbuilt: at.err}
	}
	d.complete(ctx, at.request, &at.Attempt)
	start := time.Now()
	kept := max(o.kind.Answer, keptOfAnswer)
	if at.isCall() {
		kept = max(kept, toldOfAnswer)
	}
	ans, err := d.client.Send(ctx, at.request, kept)
	now := time.Now()
	return reply{answer: ans, failure: err, notes: at.request.Notes, ended: ctx.Err(), at: now, latency: now.Sub(start)}
}

// outcomeOf is the outcome of an attempt. It decides by its arguments alone.
func outcomeOf(sink Sink, a *Attempt, r *reply) delivery.Outcome {
	var out delivery.Outcome
	switch {
	case r.told != nil:
		out = *r.told
	case r.unbuilt != nil:
		out = delivery.Outcome{Verdict: delivery.Reject, Err: r.unbuilt.Error()}
	case r.failure != nil:
		return failed(r.failure, r.ended, r.latency)
	default:
		out = judged(sink, a, r)
	}
	return splitBatch(a, itemized(a, out))
}

// judged is the outcome of an attempt with an answer.
func judged(sink Sink, a *Attempt, r *reply) delivery.Outcome {
	ans := r.answer
	verdict, reason := sink.Judge(a, ans)
	out := delivery.Outcome{Verdict: verdict, Status: ans.Status, Latency: r.latency, Response: excerpt(ans.Body, keptOfAnswer)}
	if a.isCall() {
		out.Answer = excerpt(ans.Body, toldOfAnswer)
	}
	if verdict == delivery.Delivered {
		return noted(out, len(a.Payloads), r.notes)
	}
	if verdict == delivery.Retry || verdict == delivery.Partial {
		out.RetryAfter = retryAfter(ans.Header.Get("Retry-After"), r.at)
	}
	if items, ok := sink.(ItemJudge); ok && verdict == delivery.Partial {
		out.Results = items.JudgeItems(a, ans)
		note(out.Results, r.notes)
		return out
	}
	if out.Err = reason; reason == "" {
		out.Err = fmt.Sprintf("HTTP %d", ans.Status)
	}
	return out
}

// noted is a delivery with what the records of it did not carry.
func noted(out delivery.Outcome, records int, notes map[int]string) delivery.Outcome {
	switch {
	case len(notes) == 0:
	case records == 1:
		out.Err = notes[0]
	default:
		out.Results = make([]delivery.Result, records) // Delivered
		note(out.Results, notes)
	}
	return out
}

// note adds to what was delivered what it did not carry.
func note(results []delivery.Result, notes map[int]string) {
	for i, text := range notes {
		if i < len(results) && results[i].Verdict == delivery.Delivered {
			results[i].Err = text
		}
	}
}

// splitBatch turns the rejection of several records into their division.
func splitBatch(a *Attempt, out delivery.Outcome) delivery.Outcome {
	if out.Verdict == delivery.Reject && len(a.Payloads) > 1 {
		out.Verdict = delivery.Split
	}
	return out
}

// complete adds the headers that requests of all kinds have.
func (d *Deliverer) complete(ctx context.Context, req *transport.Request, a *Attempt) {
	req.Header["User-Agent"] = d.agent
	if a.ReplayID != "" {
		req.Header["Hogstream-Replay"] = []string{a.ReplayID}
	}
	if a.Test {
		req.Header["Hogstream-Test"] = []string{"true"}
	}
	propagate(ctx, propagation.HeaderCarrier(req.Header))
}

// failed is the outcome of an attempt without an answer, whose context has ended so, if
// it has.
func failed(err, ended error, latency time.Duration) delivery.Outcome {
	out := delivery.Outcome{Verdict: delivery.Retry, Latency: latency}
	var blocked *transport.BlockedError
	var netErr net.Error
	switch {
	case errors.As(err, &blocked):
		out.Verdict, out.Err = delivery.Refuse, delivery.FailureBlocked+": "+blocked.Reason
	case ended != nil && !errors.Is(ended, context.DeadlineExceeded):
		out.Err = delivery.FailureCancelled // whatever that has made of the connection
	case ended != nil, errors.As(err, &netErr) && netErr.Timeout():
		out.Err = fmt.Sprintf(delivery.FailureTimeout+" after %s", latency.Round(time.Millisecond))
	default:
		out.Err = networkFailure(err)
	}
	return out
}

// networkFailure is the text of a failure without an answer: its class and what it was.
func networkFailure(err error) string {
	class, text := delivery.FailureNetwork, transport.CleanText(err.Error())
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.As(err, &dns):
		class = delivery.FailureDNS
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert), strings.HasPrefix(text, "tls: "), strings.Contains(text, "remote error: tls"):
		class = delivery.FailureTLS
	case errors.Is(err, syscall.ECONNREFUSED):
		class = delivery.FailureRefused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		class = delivery.FailureLost
	}
	return class + ": " + strings.TrimPrefix(text, class+": ")
}

// errorClass is what of a failure stands in the log.
func errorClass(out *delivery.Outcome) string {
	if out.Verdict == delivery.Delivered || out.Verdict == delivery.Skipped {
		return ""
	}
	return out.Class()
}

// excerpt is the first part of an answer.
func excerpt(body []byte, most int) []byte {
	if len(body) <= most {
		return body
	}
	return transport.TrimPartialRune(body[:most])
}

// logOutcome writes one wide line. A success is ordinary and stands in the
// delivery log, so it is logged for debugging only, unless the operator wants all.
func (d *Deliverer) logOutcome(del *delivery.Delivery, out *delivery.Outcome) {
	level := zap.InfoLevel
	if d.cfg.Lines != "all" && (out.Verdict == delivery.Delivered || out.Verdict == delivery.Skipped) {
		level = zap.DebugLevel
	}
	if d.cfg.Lines == "off" {
		return
	}
	entry := d.log.Check(level, "delivery.attempted")
	if entry == nil {
		return
	}
	first := del.Records[0]
	entry.Write(
		zap.String("destination", del.Destination.Name), zap.String("destination_id", del.Destination.ID),
		zap.String("kind", del.Destination.Kind), zap.String("verdict", out.Verdict.String()),
		zap.Int("status", out.Status), zap.Duration("latency", out.Latency), zap.Int("attempt", del.Attempt),
		zap.String("record_id", first.ID), zap.String("type", first.Type), zap.ByteString("key", first.Key),
		zap.String("topic", string(first.Topic)), zap.Int32("partition", first.Partition), zap.Int64("offset", first.Offset),
		zap.Int("records", len(del.Records)), zap.String("replay_id", del.ReplayID),
		zap.Duration("retry_after", out.RetryAfter), zap.String("error", errorClass(out)),
	)
}
