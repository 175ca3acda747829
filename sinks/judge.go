package sinks

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hogstream/hogstream/stream/delivery"
)

// JudgeStatus says what an HTTP status means for a delivery.
//
// A status that is in neither list of the design is Refuse: an answer that we
// do not understand must not empty a topic into dead letters, while a
// destination that refuses everything is noticed and suspended at its place.
// 409, 421, 423 and 424 are momentary by their definition, so they are retried.
func JudgeStatus(status int) delivery.Verdict {
	switch {
	case status >= 200 && status <= 299:
		return delivery.Delivered
	case status >= 500:
		return delivery.Retry
	}
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusConflict, http.StatusMisdirectedRequest, http.StatusLocked, http.StatusFailedDependency:
		return delivery.Retry
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return delivery.Reject
	case http.StatusGone:
		return delivery.Gone
	}
	return delivery.Refuse
}

// maxRetryAfter caps what a receiver may ask for in Retry-After.
const maxRetryAfter = time.Hour

// retryAfter reads a Retry-After header, in seconds or as an HTTP date; 0 when
// there is none, it cannot be read, or it lies in the past.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if header == "" {
		return 0
	}
	if seconds, err := strconv.ParseFloat(header, 64); err == nil {
		// Compared as a number first: a huge one would overflow a Duration.
		if !(seconds > 0) {
			return 0
		}
		if seconds >= maxRetryAfter.Seconds() {
			return maxRetryAfter
		}
		return time.Duration(seconds * float64(time.Second))
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
