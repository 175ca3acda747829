package enrich

import (
	"net/url"
	"strings"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/packed"
)

// longestAnswer is how much of an answer a receipt has: one as long as that was cut.
const longestAnswer = 16 << 10

// hear takes the receipt of a call.
func (l *Logic) hear(s State, r *derive.Record[State], now time.Time) derive.Result[State] {
	w := l.work(s, r.ContactID, now)
	w.begin(w.now)
	en := w.s.askedBy(r.Receipt.OutboxID)
	if en == nil || !w.s.asks.Take(r.Receipt) {
		if w.fresh {
			return derive.Result[State]{State: s, Same: true}
		}
		return w.result()
	}
	w.changed = true
	var e *definition.EnrichmentInUse
	if i := w.d.find(en.enrichment); i >= 0 {
		e = w.d.list[i]
	}
	w.caused = true
	w.receive(e, en, r.Receipt)
	return w.result()
}

// receive says what follows from a receipt. e is nil when the enrichment is not in use, or
// another by now: what it asked for is not used.
func (w *work) receive(e *definition.EnrichmentInUse, en *entry, r *schemas.Receipt) {
	// What was given up was not waited for any more: it may be about what was.
	drop := en.drop || e == nil || !en.holds || r.Final && w.hash(e) != en.sent
	en.drop = false
	if !r.Final { // else something else may be due by now
		en.due, en.why = 0, whyNone
	}
	accepted := r.Result == schemas.ReceiptAccepted
	switch {
	case r.Final && (!accepted || drop):
	case drop && accepted:
		w.ended(en, outcomeUnused, "")
		w.askAgain(e, en)
	case drop, r.Result == schemas.ReceiptCancelled, r.Result == schemas.ReceiptErased:
		w.ended(en, outcomeCancelled, "")
		w.askAgain(e, en)
	case accepted:
		w.answer(e, en, text(r.Body))
	default:
		w.fail(e, en, outcomeOf(r.Result), r.Reason)
	}
}

// askAgain asks for what is true now, where what was asked is not true any more.
func (w *work) askAgain(e *definition.EnrichmentInUse, en *entry) {
	if e != nil && en.holds {
		en.failures = 0
		w.ask(e, en, whyAgain)
	}
}

func outcomeOf(result string) string {
	switch result {
	case schemas.ReceiptGivenUp:
		return outcomeGivenUp
	case schemas.ReceiptExpired:
		return outcomeExpired
	}
	return outcomeRefused
}

// answer patches the contact with what the enrichment makes of an answer.
func (w *work) answer(e *definition.EnrichmentInUse, en *entry, body string) {
	patch := ""
	if strings.TrimSpace(body) != "" {
		var err error
		if patch, err = w.l.opts.Map(e.ID, e.Map, body); err != nil {
			detail := err.Error()
			if len(body) >= longestAnswer {
				detail = "the answer is longer than 16 KiB, of which the rest is not kept"
			}
			w.fail(e, en, outcomeMapping, detail)
			return
		}
	}
	en.failures, en.settled, en.due, en.why = 0, w.now, 0, whyNone
	if patch == "" || patch == "{}" {
		w.ended(en, outcomeEmpty, "")
	} else {
		w.ended(en, outcomePatched, "")
		w.out = append(w.out, w.patch(e, en, patch))
	}
	w.schedule(e, en)
}

// patch is the input that changes the contact, as one that somebody sends.
func (w *work) patch(e *definition.EnrichmentInUse, en *entry, properties string) *schemas.Input {
	key, scope, contact := en.ask, "enrich:"+url.QueryEscape(e.ID), w.contact
	if len(scope) > maxScope {
		scope = scope[:maxScope]
	}
	return &schemas.Input{
		ID: schemas.Derive(en.ask, "enrich.patch", 0), Type: schemas.InputContact, Source: scope,
		ReceivedAt: packed.Instant(w.now), OccurredAt: packed.Instant(w.now), ContactID: &contact, ContactProperties: &properties,
		IdempotencyKey: &key, Scope: &scope,
	}
}

// maxScope is the longest source and scope of an input.
const maxScope = 255
