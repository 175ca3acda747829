package derive

import (
	"cmp"
	"slices"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// contact is a contact as a batch sees it.
type contact[S any] struct {
	row    storage.Derived
	state  S
	last   S // of one that was merged away just now
	held   []*incoming
	timers []storage.Timer

	cause   *stream.Record  // why it is in the batch
	inBatch bool            // there are records of it
	looked  bool            // what Postgres knows of it was read, for it was behind
	ahead   *Known          // that, while the contact has not come so far
	from    int64           // the version of states for which that is enough, and of later ones
	loaded  []byte          // the state that stands in Postgres
	stored  []storage.Timer // the timers that do
	dropped []*incoming     // of held, rows that are to be removed
	forget  []string        // contacts of which nothing may be left
	exists  bool            // it has a row
	touched bool            // row or timers are to be written
	whole   bool            // more of the row than state and numbers is
	stepped bool            // the state is to be written
}

// known says that there is such a contact: records of it have come, or it was taken over.
func (c *contact[S]) known() bool { return c.exists || c.row.Seq > 0 }

// at compares a place with the last number applied: behind it (-1), the next one (0) or
// further on (1). A contact begins with number 1, in whatever era.
func at(row *storage.Derived, seq, era int64) int {
	switch {
	case row.Seq == 0 && seq == 1 && era >= row.Era, era == row.Era && seq == row.Seq+1:
		return 0
	case era < row.Era, era == row.Era && seq <= row.Seq:
		return -1
	}
	return 1
}

// isOfFormerEra says that the contact stands in an era before that of the record. A
// rebuild of contacts has everybody taken over anew, so it did not know this processor.
func (c *contact[S]) isOfFormerEra(in *incoming) bool {
	return in.kind() == numbered && c.row.Seq > 0 && !c.row.Ended && in.era > c.row.Era
}

// hold keeps a record until it may be applied, unless it was before, or waits already.
// It says whether it was kept.
func (c *contact[S]) hold(in *incoming, off rule) bool {
	switch in.kind() {
	case numbered:
		if at(&c.row, in.seq, in.era) < 0 && !off.has(ruleHold) {
			return false
		}
	case derived:
		if in.fact.WriterSeq <= c.row.Heard[writer(in.fact, c.row.ContactID)] {
			return false
		}
	case handover:
		if slices.Contains(c.row.Took, in.loser()) && !off.has(ruleOnce) {
			return false
		}
	case receipt, direct:
	default:
		return false
	}
	if slices.ContainsFunc(c.held, func(h *incoming) bool { return same(h, in) }) {
		return false
	}
	i, _ := slices.BinarySearchFunc(c.held, in, byPlace)
	c.held = slices.Insert(c.held, i, in)
	return true
}

// same says that two records that wait are one.
func same(a, b *incoming) bool {
	switch {
	case a.kind() != b.kind():
		return false
	case a.kind() == numbered:
		return a.seq == b.seq && a.era == b.era
	case a.kind() == handover:
		return a.loser() == b.loser()
	}
	return a.id == b.id
}

// byPlace sorts the records that wait: numbered ones by number, then derived facts by what
// they wait for and as they were written.
func byPlace(a, b *incoming) int {
	c := cmp.Or(cmp.Compare(a.kind(), b.kind()), cmp.Compare(a.era, b.era), cmp.Compare(a.seq, b.seq))
	if c != 0 || a.kind() != derived {
		return c
	}
	return cmp.Or(cmp.Compare(a.fact.CauseSeq, b.fact.CauseSeq), cmp.Compare(a.fact.WriterSeq, b.fact.WriterSeq))
}

// ready is the record that may be applied now; nil when all have to wait.
func (c *contact[S]) ready(off rule) *incoming {
	for _, in := range c.held {
		switch in.kind() {
		case numbered:
			if off.has(ruleHold) || at(&c.row, in.seq, in.era) == 0 && (c.mayMerge(in) || off.has(ruleWait)) {
				return in
			}
		case derived:
			if in.era < c.row.Era || in.fact.CauseSeq <= c.row.Seq {
				return in
			}
		case receipt:
			if !slices.ContainsFunc(c.held, func(h *incoming) bool { return h.kind() == handover }) {
				return in
			}
		case direct:
			return in
		}
	}
	return nil
}

// mayMerge says that the record is no contact.merged, or that the loser's hand-over is here.
func (c *contact[S]) mayMerge(in *incoming) bool {
	loser := in.merges()
	return loser == "" || slices.Contains(c.row.Took, loser) || c.handoverOf(loser) != nil
}

func (c *contact[S]) handoverOf(loser string) *incoming {
	i := slices.IndexFunc(c.held, func(h *incoming) bool { return h.loser() == loser })
	if i < 0 {
		return nil
	}
	return c.held[i]
}

// release takes a record out of those that wait.
func (c *contact[S]) release(in *incoming) {
	c.held = slices.DeleteFunc(c.held, func(h *incoming) bool { return h == in })
	if !in.fresh {
		c.dropped = append(c.dropped, in)
	}
}

// complete says that everything was applied of a contact that was merged away.
func (c *contact[S]) complete() bool {
	r := &c.row
	return r.Last == 0 || r.Era > r.LastEra || r.Era == r.LastEra && r.Seq >= r.Last
}

// took notes whose state was taken in. What waits of them came twice.
func (c *contact[S]) took(losers ...string) {
	c.row.Took, c.whole = append(slices.Clip(c.row.Took), losers...), true
	for _, loser := range losers {
		if in := c.handoverOf(loser); in != nil {
			c.release(in)
		}
	}
}

// end leaves a mark of the contact and nothing else.
func (c *contact[S]) end(survivor string) {
	for len(c.held) > 0 {
		c.release(c.held[0])
	}
	var nothing S
	c.state, c.timers = nothing, nil
	c.row.Ended, c.row.Survivor, c.row.Took = true, survivor, nil
	c.touched, c.whole, c.stepped = true, true, true
}
