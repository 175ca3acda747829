package buckets

import (
	"time"

	"github.com/hogstream/hogstream/predicate"
)

// Criteria says what the criteria of a bucket come to for a contact at an instant, and why;
// nil of a bucket that has none, or that is not evaluated.
func (l *Logic) Criteria(s State, bucketID string, now time.Time) *predicate.Explanation {
	d := l.since(s.version)
	if !s.known {
		d = l.whole()
	}
	number := d.set.Index(bucketID)
	if number < 0 {
		return nil
	}
	e := d.set.Explain(number, &s.facts, &s, now)
	return &e
}
