package delivery

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// Deliverer makes attempts. Implemented by package sinks; the lanes decide when
// an attempt is made and what follows from its outcome.
type Deliverer interface {
	// Deliver makes one attempt to deliver the records of d, in order, and judges
	// the answer. It honours ctx's deadline and never returns an error: whatever
	// happened is an Outcome. Safe for concurrent use.
	Deliver(ctx context.Context, d Delivery) Outcome
	// Batch says how many records and bytes one request to the destination may
	// carry; records = 1 for kinds that deliver one by one.
	Batch(dest *storage.Destination) (records, bytes int)
}

// Releaser is what a Deliverer implements that keeps something for a destination. It
// is called when nothing of the destination is under way in this process.
type Releaser interface {
	// Release closes what is open for a destination that this process does not deliver
	// to for now: it is paused, or others own its partitions.
	Release(destinationID string)
	// Forget drops all that is kept for a destination that was deleted.
	Forget(destinationID string)
}

// Delivery is one attempt to be made.
type Delivery struct {
	Destination *storage.Destination
	Records     []*stream.Record // one, or for batching kinds several of one partition
	Attempt     int              // 1 for the first
	ReplayID    string           // set for a backfill
	// CPULimiter is within which the records of a backfill are decoded and its request is
	// built; nil for live deliveries, which are computed at once.
	CPULimiter *reader.CPULimiter
}

// Verdict is what follows from an attempt.
type Verdict int

const (
	// Delivered: a 2xx; finished.
	Delivered Verdict = iota
	// Skipped: the destination's filter or map dropped the record; finished, no request made.
	Skipped
	// Retry: network error, timeout, 408, 425, 429, 5xx.
	Retry
	// Reject: the record's fault (400, 413, 422, transform or config error on
	// this record): dead letter, the lane goes on.
	Reject
	// Refuse: the destination's fault (401, 403, 404, 405, 410, redirect):
	// retried; many in a row suspend the destination.
	Refuse
	// Gone: a 410; suspends the destination at once.
	Gone
	// Split: a batch was rejected as a whole; deliver its records in halves.
	Split
	// Partial: the receiver answered for each record of a batch by itself, and
	// Outcome.Results says what.
	Partial
	// Erased: the record is about somebody who was erased; finished, no request made.
	Erased
	// Expired: it was too late for a record of a topic that answers; finished, no request made.
	Expired
	// Cancelled: whoever asked for a record of a topic that answers took it back; finished, no
	// request made.
	Cancelled
)

// String is the verdict as it stands in logs, metrics and the delivery log.
func (v Verdict) String() string {
	switch v {
	case Delivered:
		return "delivered"
	case Skipped:
		return "skipped"
	case Retry:
		return "retry"
	case Reject:
		return "rejected"
	case Refuse, Gone:
		return "refused"
	case Split:
		return "split"
	case Partial:
		return "partial"
	case Erased:
		return "erased"
	case Expired:
		return "expired"
	case Cancelled:
		return "cancelled"
	}
	return "unknown"
}

// sent says whether a request was made.
func (v Verdict) sent() bool { return v != Skipped && v != Erased && v != Expired && v != Cancelled }

// Outcome is what came of an attempt.
type Outcome struct {
	Verdict    Verdict
	Status     int           // HTTP status, 0 when there was none
	Latency    time.Duration // from the first byte sent to the answer judged
	RetryAfter time.Duration // the receiver's wish, 0 when it expressed none
	// Err is what went wrong, or what a delivery did not carry, for the delivery log and dead letters alone: it may quote
	// the record. It begins with the class of the failure; others are told Class. No secrets.
	Err      string
	Response []byte // at most the first KiB of the body
	// Answer is the first part of the body that the asker of an outbox record is told, and Reason
	// why it was refused without a request; the latter has no words of the receiver's.
	Answer []byte
	Reason string
	// Results is what came of each record, in the order of Delivery.Records, when the
	// verdict is Partial: Delivered, Skipped, Reject, and anything else for Retry. A
	// delivery has them too when it did not carry all of a record.
	Results []Result
}

// Result is what a receiver answered about one record of a batch.
type Result struct {
	Verdict Verdict
	Err     string // as of an Outcome
}

// Lingerer is a Deliverer whose batching destinations may wait a little for more
// records, so that there are fewer requests.
type Lingerer interface {
	Deliverer
	// Linger is how long the first record of a request waits for others; 0 for none.
	Linger(dest *storage.Destination) time.Duration
}

// Failures without an answer: each text of one begins with its class. What follows it
// (an address, a certificate, what a program choked on) stands in the delivery log and in
// dead letters alone.
const (
	FailureTimeout   = "timeout"
	FailureCancelled = "attempt was cancelled"
	FailureDNS       = "dns"
	FailureTLS       = "tls"
	FailureRefused   = "connection refused"
	FailureLost      = "connection lost"
	FailureNetwork   = "network"
	FailureBlocked   = "blocked by the guard on connections"
	FailureSettings  = "settings of the destination"
	FailureRegistry  = "registry"
	FailureNoOutbox  = "takes no such outbox records"
	FailureHeaders   = "headers of the call"
)

var (
	failureClasses = []string{
		FailureTimeout, FailureCancelled, FailureDNS, FailureTLS, FailureRefused, FailureLost, FailureNetwork, FailureBlocked, FailureSettings, FailureRegistry, FailureNoOutbox, FailureHeaders,
		"filter or transform", "filter", "transform", "decode",
	}
	statusClass = regexp.MustCompile(`^HTTP \d{3}\b`)
	kafkaClass  = regexp.MustCompile(`^[A-Z][A-Z_]{5,}\b`)
)

// FailureClass is what may be told of a failure to everyone: never a value of a record, an
// address, or a word of the receiver's, for vendors quote what they were sent. It takes the
// text of an [Outcome] and the status of the answer, 0 without one, or a class.
func FailureClass(text string, status int) string {
	switch {
	case status >= 200 && status <= 299: // a part of the records was refused
		return fmt.Sprintf("HTTP %d: records refused", status)
	case status != 0:
		return fmt.Sprintf("HTTP %d", status)
	case text == "":
		return ""
	}
	isClass := func(class string) bool {
		rest, found := strings.CutPrefix(text, class)
		return found && (rest == "" || rest[0] == ':' || rest[0] == ' ')
	}
	if i := slices.IndexFunc(failureClasses, isClass); i >= 0 {
		return failureClasses[i]
	}
	if class := statusClass.FindString(text); class != "" {
		return class
	}
	if class := kafkaClass.FindString(text); class != "" {
		return class
	}
	return "failed"
}

// Class is the [FailureClass] of an outcome.
func (o *Outcome) Class() string { return FailureClass(o.Err, o.Status) }

// failed says whether the call itself failed: the receiver is away, or as good as.
func (o *Outcome) failed() bool { return o.Verdict == Retry && !o.slowed() }

// slowed says whether the receiver asked to be sent less.
func (o *Outcome) slowed() bool { return o.Verdict == Retry && o.Status == 429 }
