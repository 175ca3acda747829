package console

import (
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/replay"
	"github.com/hogstream/hogstream/web"
)

// failureFor is the text of a failed delivery as the sender of a request may see it.
// What failed without an answer tells of our network (addresses, names, certificates) and
// is for keys that may see it; others are told its class.
func (c *console) failureFor(r *web.Request, text *string, status *int) *string {
	if text == nil || status != nil && *status != 0 || r.Exchange.Caller.Holds(storage.ScopeFullAdmin) {
		return text
	}
	class := delivery.FailureClass(*text, 0)
	return &class
}

// hideFailures does so in the rows of the delivery log.
func (c *console) hideFailures(r *web.Request, page attemptPage) attemptPage {
	for i := range page.Deliveries {
		d := &page.Deliveries[i]
		d.Error = c.failureFor(r, d.Error, d.Status)
	}
	return page
}

// letterFor is a dead letter as the sender of a request may see it.
func (c *console) letterFor(r *web.Request, l *replay.Letter, whole bool) letterJSON {
	out := letterOf(l, whole)
	if l.DestinationID != nil {
		out.Error = *c.failureFor(r, &out.Error, l.ResponseCode)
	}
	return out
}
