package delivery

import (
	"cmp"
	"slices"
)

// A batch that the receiver answered for record by record is settled so: what was
// taken or left out is finished, what was rejected becomes dead letters, and the
// rest is sent again. Of one contact everything behind a record that is sent again
// is sent again with it, also what the receiver has taken: otherwise it would hear
// the newer word first and the older one last, and the cursor would call the newer
// one delivered before the older one. What it has taken already it knows by its id.

// settleEach draws the consequences of a Partial outcome. The mutex is held.
func (c *courier) settleEach(f *flight, out Outcome) {
	done, dead, reason := c.divide(f, out)
	if slices.ContainsFunc(out.Results, func(r Result) bool { return r.Verdict == Delivered }) {
		c.accepted()
	}
	f.track.finish(done)
	c.freeFlight(done)
	next := func() {}
	if then := f.then; len(f.items) > 0 {
		again := out
		again.Verdict, again.Results, again.Err = Retry, nil, reason
		next = func() { c.retry(f, again) }
	} else {
		if then != nil {
			next = func() { c.again.push(then) }
		}
		c.freeFlight(f)
	}
	if len(dead.items) == 0 {
		c.freeFlight(dead)
		next()
		return
	}
	// One after the other: both may hold records of one lane.
	dead.after = next
}

// divide takes out of a flight what is finished and what was rejected, and buries
// the latter. What is to be sent again stays in it, for the reason returned.
func (c *courier) divide(f *flight, out Outcome) (done, dead *flight, reason string) {
	t := f.track
	done, dead = c.newFlight(t), c.newFlight(t)
	dead.tries = f.tries
	rejected := Outcome{Status: out.Status, Response: out.Response}
	waits := map[*lane]bool{}
	items, records := f.items[:0], f.records[:0]
	for i, it := range f.items {
		result := out.Results[i]
		switch {
		case result.Verdict == Reject && !waits[it.lane]:
			dead.items, dead.records = append(dead.items, it), append(dead.records, f.records[i])
			rejected.Results = append(rejected.Results, result)
		case (result.Verdict == Delivered || result.Verdict == Skipped) && !waits[it.lane]:
			done.items, done.records = append(done.items, it), append(done.records, f.records[i])
		default:
			if reason == "" {
				reason = cmp.Or(result.Err, out.Err)
			}
			waits[it.lane] = true
			items, records = append(items, it), append(records, f.records[i])
		}
	}
	clear(f.items[len(items):])
	clear(f.records[len(records):])
	f.items, f.records = items, records
	if len(dead.items) > 0 && !t.retired {
		c.bury(dead, "rejected", rejected)
	}
	return done, dead, reason
}
