package derive

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// deriver is the derived processor on one partition.
type deriver[S any] struct {
	phase    int // 0 before, 1 noted and taking over, 2 reading
	at       map[schemas.Topic]int
	taken    []string
	contacts map[string]*contact[S] // as they were committed
	unsent   []schemas.Message
	silent   map[string]bool // taken over with a row
	filled   int64           // the version for which everybody was passed, in memory
}

// derive takes the next step on a partition.
func (w *World[S]) derive(p int) {
	d := w.derived[p]
	switch {
	case d.phase == 1 && w.pg != nil:
		w.pg.takeOver(p)
	case d.phase == 0: // of all partitions at once: hand-overs go from one to another
		for p, d := range w.derived {
			d.at, d.phase = w.ends(p), 1
		}
	case d.phase == 1:
		w.takeOver(p, d)
	case len(d.unsent) > 0: // killed between apply and publish or not: they are published first
		for _, m := range d.unsent {
			w.emit(m)
		}
		d.unsent = nil
	default:
		w.read(p, d)
	}
}

// emit publishes what the processor says.
func (w *World[S]) emit(m schemas.Message) {
	if w.Play.Published != nil {
		w.Play.Published(m)
	}
	if w.log[m.Topic()] != nil {
		w.Append(m)
	}
}

func (w *World[S]) ends(p int) map[schemas.Topic]int {
	ends := map[schemas.Topic]int{}
	for _, t := range simTopics {
		ends[t] = len(w.log[t][p])
	}
	return ends
}

// TakeOverAnew has everybody taken over with what is kept of him, as processors rebuild does;
// false when the processor has not come so far.
func (w *World[S]) TakeOverAnew() bool {
	for _, d := range w.derived {
		if d.phase < 2 || len(d.unsent) > 0 {
			return false
		}
	}
	clear(w.before)
	for _, d := range w.derived {
		for id, c := range d.contacts {
			w.before[id] = &storage.Derived{ContactID: id, Written: c.row.Written, Epoch: c.row.Epoch, Heard: c.row.Heard}
			if !c.row.Ended {
				w.before[id].State = w.encoded(c.state)
			}
		}
		*d = deriver[S]{at: map[schemas.Topic]int{}, contacts: map[string]*contact[S]{}, silent: map[string]bool{}}
	}
	return true
}

func (w *World[S]) takeOver(p int, d *deriver[S]) {
	for _, id := range w.ids {
		if w.partition(id) != p || slices.Contains(d.taken, id) || w.lazy {
			continue
		}
		if w.draw(4) > 0 { // else killed after the outputs are out and before the commit
			d.taken = append(d.taken, id)
		}
		w.takeOne(d, id)
		return
	}
	d.phase = 2
	if w.notesLate {
		d.at = w.ends(p)
	}
}

// takeOne takes a contact over. Its outputs are out before it is committed.
func (w *World[S]) takeOne(d *deriver[S], id string) {
	t := w.known(id)
	if t == nil {
		return
	}
	b := w.batch(d)
	b.m.beside = map[string]*storage.Beside{id: w.beside(id)}
	c, err := b.m.takeOver(t, &stream.Record{Partition: t.Partition})
	if err != nil {
		w.Fault("take over %s: %v", id, err)
	}
	for _, m := range b.sent {
		w.emit(m)
	}
	if b.sent = nil; c != nil {
		b.contacts[id], b.order = c, append(b.order, id)
		d.silent[id] = !c.row.Ended
	}
	b.commit()
}

func (w *World[S]) beside(id string) *storage.Beside {
	if w.Play.Beside == nil {
		return nil
	}
	return w.Play.Beside(id)
}

// known is what Postgres has of a contact, in one snapshot.
func (w *World[S]) known(id string) *storage.Taken {
	t := &storage.Taken{ContactID: id, Partition: int32(w.partition(id)), Before: w.before[id]}
	owners := []string{id}
	if row := w.rows[id]; row != nil {
		copied := *row
		t.Contact = &copied
		owners = append(owners, row.Merged...)
	} else if survivor, ended := w.marks[id]; ended {
		t.Survivor = survivor
		t.Losers = w.losersOf(id)
		owners = append(owners, t.Losers...)
	} else {
		return nil
	}
	t.Events = w.eventsOf(owners)
	return t
}

func (w *World[S]) eventsOf(owners []string) (events []storage.StoredEvent) {
	for _, e := range w.stored {
		if slices.Contains(owners, e.ContactID) {
			events = append(events, e)
		}
	}
	return events
}

// losersOf follows the marks that lead to a contact.
func (w *World[S]) losersOf(id string) (losers []string) {
	for _, loser := range w.ids {
		if survivor := w.marks[loser]; survivor == id {
			losers = append(append(losers, loser), w.losersOf(loser)...)
		}
	}
	return losers
}

// read applies a batch: some records of each topic. Now and then it is killed before the
// commit, and what comes next is another batch.
func (w *World[S]) read(p int, d *deriver[S]) {
	var records []*stream.Record
	at := maps.Clone(d.at)
	for _, t := range simTopics {
		rest := w.log[t][p][d.at[t]:]
		n := min(w.draw(4), len(rest))
		at[t] += n
		records = append(records, rest[:n]...)
	}
	if w.pg != nil {
		d.at = at
		w.pg.apply(p, records)
		return
	}
	b := w.batch(d)
	for _, r := range records {
		in, err := decode(w.codec, r)
		if err != nil {
			w.Fault("decode: %v", err)
			return
		}
		if in.signal == nil || in.signal.For == w.Play.Processor.Name() {
			in.fresh = true
			b.handle(in)
		}
	}
	if w.draw(8) == 0 {
		return
	}
	d.at = at
	b.commit()
}

// batch is one in hand, on copies of the contacts.
type batch[S any] struct {
	w        *World[S]
	d        *deriver[S]
	m        *machine[S]
	contacts map[string]*contact[S]
	order    []string
	sent     []schemas.Message
	calls    []Call[S]
}

func (w *World[S]) batch(d *deriver[S]) *batch[S] {
	b := &batch[S]{w: w, d: d, contacts: map[string]*contact[S]{}}
	b.m = &machine[S]{p: w.Play.Processor, codec: w.codec, out: b, now: w.Now().Add(w.skew), off: w.off}
	b.m.l = w.Play.Logic(w.version)
	l := heard[S]{b.m.l, b}
	if r, ok := b.m.l.(Refills[S]); ok {
		b.m.l = refilling[S]{l, r}
	} else {
		b.m.l = l
	}
	return b
}

// of is a contact as it is loaded.
func (b *batch[S]) of(id string) *contact[S] {
	c := b.contacts[id]
	if c != nil {
		return c
	}
	c = &contact[S]{row: storage.Derived{ContactID: id, Partition: int32(b.w.partition(id))}}
	if kept := b.d.contacts[id]; kept != nil {
		c.row, c.exists = kept.row, true
		c.row.Took, c.row.Heard = slices.Clone(kept.row.Took), maps.Clone(kept.row.Heard)
		c.loaded = b.w.encoded(kept.state)
		c.state = b.w.decoded(c.loaded)
		c.timers, c.stored = slices.Clone(kept.timers), slices.Clone(kept.timers)
		for _, in := range kept.held {
			waiting := *in
			waiting.fresh = false
			c.held = append(c.held, &waiting)
		}
	}
	b.contacts[id], b.order = c, append(b.order, id)
	return c
}

func (w *World[S]) encoded(s S) []byte {
	text, err := w.Play.Processor.Encode(s)
	if err != nil {
		w.Fault("encode a state: %v", err)
	}
	return text
}

func (w *World[S]) decoded(text []byte) S {
	s, err := decodeState(w.Play.Processor, text)
	if err != nil {
		w.Fault("decode a state: %v", err)
	}
	return s
}

func (b *batch[S]) handle(in *incoming) {
	id := string(in.cause.Key)
	if b.w.lazy && in.seq > 1 && b.contacts[id] == nil && b.d.contacts[id] == nil {
		b.w.takeOne(b.d, id)
	}
	c := b.of(id)
	b.refill(c)
	if err := b.m.handle(c, in); err != nil {
		b.w.Fault("handle: %v", err)
	}
	b.refill(c)
}

// refill fills a contact that is behind, if it stands where Postgres has it.
func (b *batch[S]) refill(c *contact[S]) {
	t := b.w.known(c.row.ContactID)
	if t == nil || t.Contact == nil || c.row.Ended {
		return
	}
	c.ahead = &Known{Contact: t.Contact, Events: b.w.eventsOf(slices.Concat([]string{c.row.ContactID}, t.Contact.Merged, c.row.Took)), Beside: b.w.beside(c.row.ContactID)}
	if err := b.m.refill(c); err != nil {
		b.w.Fault("fill: %v", err)
	}
	c.ahead = nil
}

// commit saves what was changed. What a state forgets when it is encoded is forgotten.
func (b *batch[S]) commit() {
	var saved []Change[S]
	for _, id := range b.order {
		c := b.contacts[id]
		saved = append(saved, c.changes()...)
		kept := &contact[S]{row: c.row, timers: c.timers, held: c.held}
		switch {
		case c.row.Ended:
		case c.stepped:
			kept.state = b.w.decoded(b.w.encoded(c.state))
		default:
			kept.state = b.w.decoded(c.loaded)
		}
		if c.exists || c.touched || c.stepped || len(c.held) > 0 {
			b.d.contacts[id] = kept
		}
	}
	b.d.unsent = b.sent
	if b.w.Play.Committed != nil {
		b.w.Play.Committed(b.calls, saved)
	}
}

// Emit implements outlet.
func (b *batch[S]) Emit(_ *stream.Record, m schemas.Message) error {
	b.sent = append(b.sent, m)
	return nil
}

// DeadLetter implements outlet.
func (b *batch[S]) DeadLetter(r *stream.Record, _, reason string, failure error) error {
	b.w.Fault("dead letter of %s %s: %s: %v", r.Type, r.ID, reason, failure)
	return nil
}

// heard is a logic of which it is noted what it is asked.
type heard[S any] struct {
	Logic[S]
	b *batch[S]
}

func (h heard[S]) note(c Call[S], now time.Time) {
	c.Now, c.Version = now, h.b.w.version
	h.b.calls = append(h.b.calls, c)
}

// Step implements Logic.
func (h heard[S]) Step(s S, r *Record[S], now time.Time) (Result[S], error) {
	h.note(Call[S]{Contact: r.ContactID, Record: r}, now)
	return h.Logic.Step(s, r, now)
}

// HandOver implements Logic.
func (h heard[S]) HandOver(s S, contact string, now time.Time) (S, []schemas.Message) {
	h.note(Call[S]{Contact: contact}, now)
	return h.Logic.HandOver(s, contact, now)
}

// TakeOver implements Logic.
func (h heard[S]) TakeOver(before S, k *Known, now time.Time) (S, []Timer) {
	c := Call[S]{Known: k, Taken: true}
	for id := range h.b.m.beside {
		kept := h.b.w.before[id]
		c.Contact, c.Anew = id, kept != nil && kept.State != nil
	}
	h.note(c, now)
	return h.Logic.TakeOver(before, k, now)
}

// refilling is one whose definitions change.
type refilling[S any] struct {
	heard[S]
	r Refills[S]
}

// Version implements Refills.
func (l refilling[S]) Version() int64 { return l.r.Version() }

// VersionOf implements Refills.
func (l refilling[S]) VersionOf(s S) int64 { return l.r.VersionOf(s) }

// Names implements Refills.
func (l refilling[S]) Names(version int64) []string { return l.r.Names(version) }

// Refill implements Refills.
func (l refilling[S]) Refill(s S, k *Known, now time.Time) (Result[S], error) {
	l.note(Call[S]{Contact: k.Contact.ID, Known: k}, now)
	return l.r.Refill(s, k, now)
}

// pass fills everybody of a partition, once for a version; true when it did. Who is not
// where Postgres has him is left to his next record.
func (w *World[S]) pass(p int) bool {
	d := w.derived[p]
	if w.pg != nil {
		return w.pg.kick()
	}
	if d.phase < 2 || len(d.unsent) > 0 || d.filled == w.version {
		return false
	}
	d.filled = w.version
	b := w.batch(d)
	for _, id := range slices.Sorted(maps.Keys(d.contacts)) {
		b.refill(b.of(id))
	}
	b.commit()
	return true
}

// tick sends timers, stale ones too; false when there were none.
func (w *World[S]) tick(all bool) (sent bool) {
	for _, d := range w.derived {
		if len(d.unsent) > 0 {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(d.contacts)) {
			for _, t := range d.contacts[id].timers {
				if !all && w.draw(3) > 0 || w.Play.Virtual && t.Due.After(w.Now()) {
					continue
				}
				sent = true
				w.Append(&schemas.Signal{ID: schemas.Derive(id, w.Play.Processor.Name(), int(t.Epoch)), Type: schemas.SignalTimer, For: w.Play.Processor.Name(),
					ContactID: id, OccurredAt: t.Due, What: t.What, Epoch: t.Epoch})
			}
		}
	}
	return sent
}

// --- what a test of a processor looks at ---

// ProcessorOf is the processor in a frame.
func ProcessorOf[S any](f *Frame[S]) Processor[S] { return f.p }

// Off switches rules off, by the names that they have in Rules.
func (w *World[S]) Off(rules ...string) {
	for _, name := range rules {
		switch name {
		case "notes":
			w.notesLate = true
		case "take over":
			w.lazy = true
		default:
			w.off |= Rules[name]
		}
	}
}

// Rules are those of the order of a contact that can be switched off; the last two are the
// driver's.
var Rules = map[string]rule{
	"hold": ruleHold, "marks": ruleMarks, "mark hand": ruleMarkHand, "last": ruleLast, "wait": ruleWait, "own mark": ruleOwnMark,
	"once": ruleOnce, "equal": ruleEqual, "notes": 0, "take over": 0,
}

// IDs are the contacts that there may be.
func (w *World[S]) IDs() []string { return w.ids }

// Known is what contacts knows of a contact: its row, or whom it was merged into; neither of
// one that was erased.
func (w *World[S]) Known(id string) (row *storage.Contact, survivor string, ended bool) {
	survivor, ended = w.marks[id]
	return w.rows[id], survivor, ended
}

// Last is the number of the last record of a contact.
func (w *World[S]) Last(id string) int64 {
	if row := w.rows[id]; row != nil {
		return row.Seq
	}
	return w.last[id]
}

// State is what the processor keeps of a contact.
func (w *World[S]) State(id string) (s S, kept bool) {
	c := w.derived[w.partition(id)].contacts[id]
	if c == nil {
		return s, false
	}
	return c.state, true
}

// judge says what is wrong with any processor's contacts, once all has come to rest.
func (w *World[S]) judge() {
	var nothing S
	for _, id := range w.ids {
		c, row := w.derived[w.partition(id)].contacts[id], w.rows[id]
		_, ended := w.marks[id]
		switch {
		case row == nil && !ended, row == nil && c == nil:
		case c == nil:
			w.Fault("%s has no state", id)
		case row == nil && (!c.row.Ended || !bytes.Equal(w.encoded(c.state), w.encoded(nothing)) || len(c.held)+len(c.timers) > 0):
			w.Fault("%s ended, and this is left of it: %+v, state %+v, %d wait", id, c.row, c.state, len(c.held))
		case row == nil:
		case len(c.held) > 0:
			w.Fault("%s: %d records wait for ever at %d, the first is %+v", id, len(c.held), c.row.Seq, c.held[0])
		case c.row.Seq != row.Seq:
			w.Fault("%s stands at %d, its last record is %d", id, c.row.Seq, row.Seq)
		}
	}
}
