package sinks

import (
	"github.com/hogstream/hogstream/stream/delivery"
)

// merge makes one outcome of what came of a request and of the records that it did
// not carry, since a filter left them out or they cannot be sent.
//
// When nothing came of the request, that is the outcome for all of them: those
// apart are found again with the next attempt. A request rejected as a whole is
// divided together with them.
func merge(out delivery.Outcome, records int, apart map[int]delivery.Result) delivery.Outcome {
	switch out.Verdict {
	case delivery.Delivered, delivery.Skipped, delivery.Partial:
	case delivery.Reject:
		if len(apart) > 0 {
			out.Verdict = delivery.Split
		}
		return out
	default:
		return out
	}
	if len(apart) == 0 && out.Verdict != delivery.Partial {
		return out
	}
	carried := out.Results
	out.Results = make([]delivery.Result, records)
	next := 0
	for i := range out.Results {
		result, is := apart[i]
		switch {
		case is:
		case len(carried) > 0:
			result = carried[next]
			next++
		default:
			result = delivery.Result{Verdict: out.Verdict, Err: out.Err}
		}
		out.Results[i] = result
	}
	return sum(out)
}

// itemized makes sure that a Partial outcome has a result for each payload.
func itemized(a *Attempt, out delivery.Outcome) delivery.Outcome {
	if out.Verdict != delivery.Partial {
		return out
	}
	for len(out.Results) < len(a.Payloads) {
		out.Results = append(out.Results, delivery.Result{Verdict: delivery.Retry, Err: "the answer does not mention the record"})
	}
	out.Results = out.Results[:len(a.Payloads)]
	return sum(out)
}

// sum gives a Partial outcome the verdict that all of its results share.
func sum(out delivery.Outcome) delivery.Outcome {
	count := map[delivery.Verdict]int{}
	notes := false
	for _, r := range out.Results {
		count[r.Verdict]++
		notes = notes || r.Verdict == delivery.Delivered && r.Err != ""
		if out.Err == "" && r.Verdict != delivery.Delivered {
			out.Err = r.Err
		}
	}
	all := len(out.Results)
	switch {
	case count[delivery.Skipped] == all:
		out.Verdict = delivery.Skipped
	case count[delivery.Delivered] == all:
		out.Verdict = delivery.Delivered
		if notes && all == 1 {
			out.Err = out.Results[0].Err
		} else if notes {
			return out
		}
	case count[delivery.Retry] == all:
		out.Verdict = delivery.Retry
	case count[delivery.Reject] == 1 && all == 1:
		out.Verdict = delivery.Reject
	default:
		out.Verdict = delivery.Partial
		return out
	}
	out.Results = nil
	return out
}
