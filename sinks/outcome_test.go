package sinks

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/stream/delivery"
)

// byStatus judges by status alone, and each record of a 207 by itself.
type byStatus struct{ items []delivery.Result }

func (byStatus) Build(*Attempt) (*transport.Request, error) { return nil, errors.ErrUnsupported }

func (byStatus) Judge(_ *Attempt, ans *transport.Answer) (delivery.Verdict, string) {
	if ans.Status == http.StatusMultiStatus {
		return delivery.Partial, ""
	}
	return JudgeStatus(ans.Status), ""
}

func (s byStatus) JudgeItems(*Attempt, *transport.Answer) []delivery.Result { return s.items }

func TestWhatComesOfAnAttemptFollowsFromItsReplyAlone(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	status := func(code int, retryAfter string) reply {
		return reply{answer: &transport.Answer{Status: code, Header: http.Header{"Retry-After": {retryAfter}}}, at: at, latency: time.Millisecond}
	}
	fails := func(err, ended error) reply { return reply{failure: err, ended: ended, latency: 2 * time.Second} }
	told := delivery.Outcome{Verdict: delivery.Partial, Results: []delivery.Result{{Verdict: delivery.Delivered}}}
	unmentioned := delivery.Result{Verdict: delivery.Retry, Err: "the answer does not mention the record"}
	for says, row := range map[string]struct {
		reply   reply
		records int
		items   []delivery.Result
		want    delivery.Outcome
	}{
		"2xx":                    {status(204, ""), 1, nil, delivery.Outcome{Status: 204, Latency: time.Millisecond}},
		"503 asks for 5 s":       {status(503, "5"), 1, nil, delivery.Outcome{Verdict: delivery.Retry, Status: 503, Latency: time.Millisecond, RetryAfter: 5 * time.Second, Err: "HTTP 503"}},
		"429 names a date":       {status(429, at.Add(time.Minute).Format(http.TimeFormat)), 1, nil, delivery.Outcome{Verdict: delivery.Retry, Status: 429, Latency: time.Millisecond, RetryAfter: time.Minute, Err: "HTTP 429"}},
		"no longer than allowed": {status(503, "999999"), 1, nil, delivery.Outcome{Verdict: delivery.Retry, Status: 503, Latency: time.Millisecond, RetryAfter: time.Hour, Err: "HTTP 503"}},
		"422 of one":             {status(422, "9"), 1, nil, delivery.Outcome{Verdict: delivery.Reject, Status: 422, Latency: time.Millisecond, Err: "HTTP 422"}},
		"413 of a batch":         {status(413, ""), 2, nil, delivery.Outcome{Verdict: delivery.Split, Status: 413, Latency: time.Millisecond, Err: "HTTP 413"}},
		"403":                    {status(403, ""), 2, nil, delivery.Outcome{Verdict: delivery.Refuse, Status: 403, Latency: time.Millisecond, Err: "HTTP 403"}},
		"410":                    {status(410, ""), 1, nil, delivery.Outcome{Verdict: delivery.Gone, Status: 410, Latency: time.Millisecond, Err: "HTTP 410"}},
		"a redirect":             {status(302, ""), 1, nil, delivery.Outcome{Verdict: delivery.Refuse, Status: 302, Latency: time.Millisecond, Err: "HTTP 302"}},
		"each record by itself": {status(207, ""), 2, []delivery.Result{{Verdict: delivery.Reject, Err: "bad"}}, delivery.Outcome{Verdict: delivery.Partial, Status: 207, Latency: time.Millisecond,
			Err: "bad", Results: []delivery.Result{{Verdict: delivery.Reject, Err: "bad"}, unmentioned}}},
		"a Sender tells of one of two": {reply{told: &told}, 2, nil, delivery.Outcome{Verdict: delivery.Partial, Err: unmentioned.Err, Results: []delivery.Result{{}, unmentioned}}},
		"no request can be built":      {reply{unbuilt: errors.New("too large")}, 1, nil, delivery.Outcome{Verdict: delivery.Reject, Err: "too large"}},
		"nor one of a batch":           {reply{unbuilt: errors.New("too large")}, 2, nil, delivery.Outcome{Verdict: delivery.Split, Err: "too large"}},
		"its time is over":             {fails(errors.New("read: i/o timeout"), context.DeadlineExceeded), 1, nil, delivery.Outcome{Verdict: delivery.Retry, Latency: 2 * time.Second, Err: "timeout after 2s"}},
		"it is cut off":                {fails(errors.New("closed"), context.Canceled), 1, nil, delivery.Outcome{Verdict: delivery.Retry, Latency: 2 * time.Second, Err: delivery.FailureCancelled}},
		"the connection fails":         {fails(errors.New("no route"), nil), 1, nil, delivery.Outcome{Verdict: delivery.Retry, Latency: 2 * time.Second, Err: "network: no route"}},
		"the guard refuses":            {fails(&transport.BlockedError{Reason: "a private network"}, nil), 1, nil, delivery.Outcome{Verdict: delivery.Refuse, Latency: 2 * time.Second, Err: delivery.FailureBlocked + ": a private network"}},
	} {
		t.Run(says, func(t *testing.T) {
			a := &Attempt{Payloads: make([]*Payload, row.records)}
			require.Equal(t, row.want, outcomeOf(byStatus{row.items}, a, &row.reply))
		})
	}
}
