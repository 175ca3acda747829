package predicate

// Conditions on events look at legs. An event at t is in a window of length w up to and
// including t + w, and leaves it one microsecond later.

// countNode holds while the number of events is within bounds. The k-th newest event
// says all: there are k in the window as long as it is.
type countNode struct {
	leg    uint64
	within int64 // 0: for ever
	bounds bounds
}

func (n *countNode) eval(v view) verdict {
	entries := v.state.entries(n.leg)
	count := len(entries)
	if n.within != 0 {
		for count = min(count, n.bounds.needs()); count > 0 && entries[count-1].at < v.now-n.within; {
			count--
		}
	}
	out := verdict{n.bounds.low <= count && count <= n.bounds.high, never}
	turns := n.bounds.low // fewer than low are left when the low-th newest leaves
	if count > n.bounds.high {
		turns = n.bounds.high + 1
	}
	if n.within != 0 && turns > 0 && turns <= count {
		out.next = entries[turns-1].at + n.within + 1
	}
	return out
}

// needs is how many of the newest events decide.
func (b bounds) needs() int {
	if b.high == noBound {
		return max(b.low, 0)
	}
	return max(b.low, b.high+1, 0)
}

// totalNode compares the sum of a property. Within a window it turns when the first event
// leaves that makes a difference to the answer.
type totalNode struct {
	leg      uint64
	within   int64
	operator string
	want     int64
	newest   int // within a window, of so many events
}

func (n *totalNode) eval(v view) verdict {
	l := v.state.find(n.leg)
	if l == nil {
		return verdict{compareAmounts(n.operator, 0, n.want), never}
	}
	if n.within == 0 {
		return verdict{compareAmounts(n.operator, l.total, n.want), never}
	}
	entries := l.entries[:min(n.newest, len(l.entries))]
	for len(entries) > 0 && entries[len(entries)-1].at < v.now-n.within {
		entries = entries[:len(entries)-1]
	}
	return n.windowed(entries)
}

// windowed goes from the newest event to the oldest in the window, and remembers the most
// that may be left when the answer is yes, and when it is no.
func (n *totalNode) windowed(entries []entry) verdict {
	yes, no, total := -1, -1, int64(0)
	for i := range entries {
		if i == 0 || entries[i].at != entries[i-1].at {
			if compareAmounts(n.operator, total, n.want) {
				yes = i
			} else {
				no = i
			}
		}
		total = addAmounts(total, entries[i].amount)
	}
	out := verdict{compareAmounts(n.operator, total, n.want), never}
	left := yes
	if out.holds {
		left = no
	}
	if left >= 0 {
		out.next = entries[left].at + n.within + 1
	}
	return out
}

// newestValue is a property of the newest event of a leg.
type newestValue uint64

func (n newestValue) raw(v view) string {
	if l := v.state.find(uint64(n)); l != nil {
		return l.raw
	}
	return ""
}

// recentNode holds while the newest event is in a window.
type recentNode struct {
	leg    uint64
	within int64
}

func (n *recentNode) eval(v view) verdict {
	entries := v.state.entries(n.leg)
	if len(entries) == 0 {
		return verdict{false, never}
	}
	return window(span{always, entries[0].at + n.within + 1}, v.now)
}

// eventSeen is when the one event of a leg happened.
type eventSeen uint64

func (n eventSeen) moment(v view) (Moment, bool) {
	entries := v.state.entries(uint64(n))
	if len(entries) == 0 {
		return Moment{}, false
	}
	return Moment{at: entries[0].at}, true
}

// sequenceNode looks for a first event that another followed, or did not. Later is
// strictly later, by at most gap.
type sequenceNode struct {
	leg      uint64
	then     uint64
	gap      int64 // 0: any
	lookback int64 // 0: for ever
	missing  bool  // not_followed
	newest   int   // only so many of the newest first events
}

func (n *sequenceNode) eval(v view) verdict {
	firsts := v.state.entries(n.leg)
	out := verdict{false, never}
	for i := range firsts[:min(n.newest, len(firsts))] {
		first := &firsts[i]
		if n.followed(first) != n.missing {
			out = either(out, window(n.span(first.at), v.now))
		}
	}
	return out
}

// followed says whether the other event came in time.
func (n *sequenceNode) followed(first *entry) bool {
	return first.amount != never && (n.gap == 0 || first.amount <= first.at+n.gap)
}

// span is when a first event counts.
func (n *sequenceNode) span(at int64) span {
	out := span{always, never}
	if n.missing {
		out.from = at + n.gap + 1
	}
	if n.lookback != 0 {
		out.until = at + n.lookback + 1
	}
	return out
}
