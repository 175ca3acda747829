package journeys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas/packed"
)

// stateVersion is the first byte of an encoded state. A new layout has another number, and
// the old ones are read for ever.
const stateVersion = 1

// ErrState says that bytes are no encoded state.
var ErrState = errors.New("journeys: no state of a contact")

// AppendBinary appends the state in its compact, versioned form; the same state gives the
// same bytes. Changes are not in it. It never fails.
func (s *State) AppendBinary(out []byte) ([]byte, error) {
	e := &encoder{out: append(out, stateVersion), clock: s.clock}
	e.collect(s)
	e.int(s.clock)
	e.text(s.person.userID, s.person.email, s.person.anonymousID, s.contact)
	e.count(len(e.words))
	e.text(e.words...)
	e.count(len(s.entries))
	for i := range s.entries {
		e.entry(&s.entries[i])
	}
	e.count(len(s.runs))
	for i := range s.runs {
		e.run(&s.runs[i])
	}
	e.count(len(s.ticks))
	for i := range s.ticks {
		e.word(s.ticks[i].journey)
		e.instant(s.ticks[i].next)
	}
	e.count(len(s.seen))
	for i := range s.seen {
		e.out = binary.BigEndian.AppendUint64(e.out, s.seen[i].memo)
		e.instant(s.seen[i].at)
		e.text(s.seen[i].id, s.seen[i].doc)
	}
	return e.out, nil
}

// MarshalBinary is AppendBinary to nothing.
func (s *State) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// encoder appends what a state is made of. Ids of journeys and names of versions and zones
// stand once, and are named by their numbers.
type encoder struct {
	out   []byte
	clock int64
	words []string
}

func (e *encoder) collect(s *State) {
	e.words = make([]string, 0, 2*len(s.entries)+3*len(s.runs)+len(s.ticks))
	for i := range s.entries {
		e.words = append(e.words, s.entries[i].journey, s.entries[i].version)
	}
	for i := range s.runs {
		e.words = append(e.words, s.runs[i].journey, s.runs[i].version, s.runs[i].zone)
	}
	for i := range s.ticks {
		e.words = append(e.words, s.ticks[i].journey)
	}
	slices.Sort(e.words)
	e.words = slices.Compact(e.words)
}

func (e *encoder) int(n int64) { e.out = binary.AppendVarint(e.out, n) }
func (e *encoder) count(n int) { e.out = binary.AppendUvarint(e.out, uint64(n)) }

// instant is one that may be none, as its distance to the clock, which is short.
func (e *encoder) instant(at int64) {
	if at == 0 {
		e.out = append(e.out, 0)
		return
	}
	e.out = append(e.out, 1)
	e.int(at - e.clock)
}

func (e *encoder) text(list ...string) {
	for _, text := range list {
		e.out = packed.AppendText(e.out, text)
	}
}

func (e *encoder) word(word string) {
	n, _ := slices.BinarySearch(e.words, word)
	e.count(n)
}

func (e *encoder) flags(list ...bool) {
	flags := byte(0)
	for i, set := range list {
		if set {
			flags |= 1 << i
		}
	}
	e.out = append(e.out, flags)
}

func (e *encoder) entry(v *entry) {
	e.word(v.journey)
	e.word(v.version)
	e.flags(v.holdout, v.live, v.skip != "", v.queued != nil, v.queued != nil && v.queued.hops != 0)
	e.int(v.count)
	e.text(v.key, v.run)
	e.instant(v.last)
	e.instant(v.goalUntil)
	if v.skip != "" {
		e.text(v.skip, v.skipped)
		e.instant(v.skipAt)
	}
	if v.queued != nil {
		e.trigger(v.queued)
	}
}

func (e *encoder) trigger(t *trigger) {
	e.text(t.id, t.doc, t.key)
	e.instant(t.at)
	if t.hops != 0 { // as the flags of what it stands in say
		e.count(t.hops)
	}
}

func (e *encoder) run(r *run) {
	e.out = append(e.out, r.id[:]...)
	e.word(r.journey)
	e.word(r.version)
	e.word(r.zone)
	e.flags(r.failed, r.waits, r.last != trigger{}, r.settle != 0, r.asked != asked{}, r.trigger.hops != 0)
	e.text(r.key)
	for _, at := range []int64{r.entered, r.since, r.due, r.next} {
		e.instant(at)
	}
	e.int(r.entry)
	e.count(r.node)
	e.int(r.epoch)
	if r.settle != 0 {
		e.instant(r.settle)
		e.count(r.rule)
	}
	e.trigger(&r.trigger)
	if (r.last != trigger{}) {
		e.trigger(&r.last)
	}
	e.count(len(r.answers))
	for i := range r.answers {
		e.count(r.answers[i].node)
		e.text(r.answers[i].doc)
	}
	e.text(r.open)
	if (r.asked != asked{}) {
		e.text(r.asked.kind, r.asked.input)
	}
	e.count(len(r.wakes))
	e.text(r.wakes...)
	e.count(len(r.journal))
	for i := range r.journal {
		l := &r.journal[i]
		e.text(l.name, l.kind, l.input, l.outcome, l.doc)
	}
}

// UnmarshalBinary reads what AppendBinary wrote, of any version. It refuses anything else
// with [ErrState]. Nothing is the zero state.
func (s *State) UnmarshalBinary(data []byte) error {
	if len(data) == 0 {
		*s = State{}
		return nil
	}
	d := &decoder{Reader: packed.NewReader(data, ErrState)}
	if v := d.Byte(); v != stateVersion {
		return fmt.Errorf("%w: version %d, this program knows %d", ErrState, v, stateVersion)
	}
	read := d.state()
	if len(d.Rest()) > 0 {
		d.Fail("something follows")
	}
	if d.Err() != nil {
		return d.Err()
	}
	*s = read
	return nil
}

type decoder struct {
	*packed.Reader
	clock int64
	words []string
}

func (d *decoder) state() State {
	d.clock = d.Int()
	s := State{clock: d.clock, person: person{d.Text(), d.Text(), d.Text()}, contact: d.Text()}
	words := d.Count(1)
	d.words = make([]string, 0, words)
	for range words {
		d.words = append(d.words, d.Text())
	}
	entries := d.Count(8)
	s.entries = slices.Grow(s.entries, entries)
	for range entries {
		s.entries = append(s.entries, d.entry())
	}
	runs := d.Count(26)
	s.runs = slices.Grow(s.runs, runs)
	for range runs {
		s.runs = append(s.runs, d.run())
	}
	for range d.Count(2) {
		s.ticks = append(s.ticks, tick{d.word(), d.instant()})
	}
	for range d.Count(11) {
		e := seen{}
		if memo := d.Take(8); memo != nil {
			e.memo = binary.BigEndian.Uint64(memo)
		}
		e.at, e.id, e.doc = d.instant(), d.Text(), d.Text()
		s.seen = append(s.seen, e)
	}
	d.check(&s)
	return s
}

// check refuses what is searched by halves and is not in order.
func (d *decoder) check(s *State) {
	ordered := slices.IsSortedFunc(s.entries, func(a, b entry) int { return compareEntries(&a, &b) }) && slices.IsSortedFunc(s.seen, byMemo)
	if !ordered || !slices.IsSorted(d.words) {
		d.Fail("not in order")
	}
}

func (d *decoder) word() string {
	n := d.Uint()
	if n >= uint64(len(d.words)) {
		d.Fail("no word")
		return ""
	}
	return d.words[n]
}

func (d *decoder) instant() int64 {
	switch d.Byte() {
	case 0:
		return 0
	case 1:
		return d.Int() + d.clock
	}
	d.Fail("no instant")
	return 0
}

func (d *decoder) flags(list ...*bool) {
	flags := d.Byte()
	if flags>>len(list) != 0 {
		d.Fail("unknown flags")
	}
	for i, set := range list {
		*set = flags&(1<<i) != 0
	}
}

func (d *decoder) entry() entry {
	e := entry{journey: d.word(), version: d.word()}
	var skipped, queued, led bool
	d.flags(&e.holdout, &e.live, &skipped, &queued, &led)
	e.count, e.key, e.run = d.Int(), d.Text(), d.Text()
	e.last, e.goalUntil = d.instant(), d.instant()
	if skipped {
		e.skip, e.skipped, e.skipAt = d.Text(), d.Text(), d.instant()
	}
	if queued {
		t := d.trigger(led)
		e.queued = &t
	} else if led {
		d.Fail("nothing is queued")
	}
	return e
}

// trigger reads one to which causes led, or none did.
func (d *decoder) trigger(led bool) trigger {
	t := trigger{id: d.Text(), doc: d.Text(), key: d.Text(), at: d.instant()}
	if led {
		if t.hops = d.index(); t.hops == 0 {
			d.Fail("no cause")
		}
	}
	return t
}

func (d *decoder) run() run {
	r := run{}
	if id := d.Take(16); id != nil {
		r.id = uuid.UUID(id)
	}
	r.journey, r.version, r.zone = d.word(), d.word(), d.word()
	var last, settling, begun, led bool
	d.flags(&r.failed, &r.waits, &last, &settling, &begun, &led)
	r.key = d.Text()
	for _, at := range []*int64{&r.entered, &r.since, &r.due, &r.next} {
		*at = d.instant()
	}
	r.entry, r.node, r.epoch = d.Int(), d.index(), d.Int()
	if settling {
		r.settle, r.rule = d.instant(), d.index()
	}
	r.trigger = d.trigger(led)
	if last {
		r.last = d.trigger(false)
	}
	for range d.Count(2) {
		r.answers = append(r.answers, answer{d.index(), d.Text()})
	}
	r.open = d.Text()
	if begun {
		r.asked = asked{d.Text(), d.Text()}
	}
	for range d.Count(1) {
		r.wakes = append(r.wakes, d.Text())
	}
	for range d.Count(5) {
		r.journal = append(r.journal, logged{d.Text(), d.Text(), d.Text(), d.Text(), d.Text()})
	}
	return r
}

// index is a number of a node or rule.
func (d *decoder) index() int {
	n := d.Uint()
	if n > 1<<20 {
		d.Fail("no index")
		return 0
	}
	return int(n)
}
