package sinks

import "github.com/hogstream/hogstream/stream"

// merge makes one outcome of what came of a request and of the records that it did
// not carry, since a filter left them out or they cannot be sent.
//
// When nothing came of the request, that is the outcome for all of them: those
// apart are found again with the next attempt. A request rejected as a whole is
// divided together with them.
func merge(out stream.Outcome, records int, apart map[int]stream.Result) stream.Outcome {
	switch out.Verdict {
	case stream.Delivered, stream.Skipped, stream.Partial:
	case stream.Reject:
		if len(apart) > 0 {
			out.Verdict = stream.Split
		}
		return out
	default:
		return out
	}
	if len(apart) == 0 && out.Verdict != stream.Partial {
		return out
	}
	carried := out.Results
	out.Results = make([]stream.Result, records)
	next := 0
	for i := range out.Results {
		result, is := apart[i]
		switch {
		case is:
		case out.Verdict == stream.Partial:
			result = carried[next]
			next++
		default:
			result = stream.Result{Verdict: out.Verdict}
		}
		out.Results[i] = result
	}
	return sum(out)
}

// itemized makes sure that a Partial outcome has a result for each payload.
func itemized(a *Attempt, out stream.Outcome) stream.Outcome {
	if out.Verdict != stream.Partial {
		return out
	}
	for len(out.Results) < len(a.Payloads) {
		out.Results = append(out.Results, stream.Result{Verdict: stream.Retry, Err: "the answer does not mention the record"})
	}
	out.Results = out.Results[:len(a.Payloads)]
	return sum(out)
}

// sum gives a Partial outcome the verdict that all of its results share.
func sum(out stream.Outcome) stream.Outcome {
	count := map[stream.Verdict]int{}
	for _, r := range out.Results {
		count[r.Verdict]++
		if out.Err == "" {
			out.Err = r.Err
		}
	}
	all := len(out.Results)
	switch {
	case count[stream.Skipped] == all:
		out.Verdict = stream.Skipped
	case count[stream.Delivered] == all:
		out.Verdict = stream.Delivered
	case count[stream.Retry] == all:
		out.Verdict = stream.Retry
	case count[stream.Reject] == 1 && all == 1:
		out.Verdict = stream.Reject
	default:
		out.Verdict = stream.Partial
		return out
	}
	out.Results = nil
	return out
}
