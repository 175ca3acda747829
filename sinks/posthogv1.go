package sinks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/stream/delivery"
)

// PostHog's newer protocol, config.api v1: it says for each event what became of it,
// so a batch is settled event by event. A self-hosted PostHog may not have it yet.
const (
	posthogV1Path   = "/i/v1/analytics/events"
	posthogV1Answer = 256 << 10 // some hundred bytes for each of 500 events
)

// posthogV1 speaks the newer protocol; its events are those of the older one.
type posthogV1 struct{ *posthog }

// Build implements [Sink].
func (s posthogV1) Build(a *Attempt) (*transport.Request, error) {
	o := begin(make([]byte, 0, 256+1024*len(a.Payloads)))
	o.time("created_at", a.Now)
	header := http.Header{
		"Content-Type":              {"application/json"},
		"Authorization":             {"Bearer " + s.cfg.APIKey},
		"Posthog-Sdk-Info":          {"hogstream/1"},
		"Posthog-Attempt":           {strconv.Itoa(max(a.Number, 1))},
		"Posthog-Request-Id":        {uuid.Must(uuid.NewV7()).String()},
		"Posthog-Request-Timestamp": {a.Now.UTC().Format("2006-01-02T15:04:05.000Z")},
	}
	req := &transport.Request{URL: s.url, Header: header, Gzip: s.cfg.Gzip}
	return req, s.batch(o, a, req)
}

// Judge implements [Sink].
func (s posthogV1) Judge(_ *Attempt, ans *transport.Answer) (delivery.Verdict, string) {
	verdict := JudgeStatus(ans.Status)
	if verdict == delivery.Delivered {
		verdict = delivery.Partial
	}
	return verdict, ""
}

// overQuota says whether an event was dropped for the project's sake, not its own: a
// quota that is used up must not empty a topic into dead letters.
func overQuota(details string) bool {
	details = strings.ToLower(details)
	return strings.Contains(details, "quota") || strings.Contains(details, "billing") || strings.Contains(details, "limited")
}

// JudgeItems implements [ItemJudge]. A record is delivered when all its events are. An
// event that the answer does not mention is sent again: PostHog knows it by its uuid.
func (s posthogV1) JudgeItems(a *Attempt, ans *transport.Answer) []delivery.Result {
	var said posthogSaid
	unread := json.Unmarshal(ans.Body, &said)
	results := make([]delivery.Result, len(a.Payloads))
	for i, p := range a.Payloads {
		if unread != nil {
			results[i] = delivery.Result{Verdict: delivery.Retry, Err: "PostHog's answer cannot be read: does this host have config.api v1?"}
			continue
		}
		results[i] = said.of(p.ID)
		for _, l := range posthogLinks(p) {
			results[i] = worse(results[i], said.of(l.id))
		}
	}
	return results
}

// posthogSaid is the answer of the newer protocol.
type posthogSaid struct {
	Results map[string]struct {
		Result  string `json:"result"`
		Details string `json:"details"`
	} `json:"results"`
}

// of is what the answer means for an event.
func (said *posthogSaid) of(id string) delivery.Result {
	r, mentioned := said.Results[id]
	switch {
	case !mentioned:
		return delivery.Result{Verdict: delivery.Retry, Err: "PostHog's answer does not mention the event"}
	case r.Result == "ok", r.Result == "warning":
		return delivery.Result{}
	case r.Result == "drop" && overQuota(r.Details):
		return delivery.Result{Verdict: delivery.Retry, Err: transport.CleanText(fmt.Sprintf("PostHog drops events: %.500s", r.Details))}
	case r.Result == "drop":
		return delivery.Result{Verdict: delivery.Reject, Err: transport.CleanText(fmt.Sprintf("PostHog drops the event: %.500s", r.Details))}
	}
	return delivery.Result{Verdict: delivery.Retry, Err: transport.CleanText(fmt.Sprintf("PostHog asks for the event again: %.500s", r.Details))}
}

// worse is the one of two results that counts for both. What is to be sent again comes
// before what is rejected: a dead letter would keep the rest from being sent.
func worse(a, b delivery.Result) delivery.Result {
	if a.Verdict == delivery.Retry || b.Verdict == delivery.Delivered {
		return a
	}
	if b.Verdict == delivery.Retry || a.Verdict == delivery.Delivered {
		return b
	}
	return a
}
