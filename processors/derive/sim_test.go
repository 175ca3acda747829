package derive

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// world is everything around the frame, as small as it can be: contacts that numbers what
// it says (apply in Postgres, then publish, a batch at a time for a partition), the log,
// a ticker, another writer of facts, and a derived processor that begins at any moment.
// What happens next, draw says: a number below n.
type world struct {
	draw  func(n int) int
	codec *schemas.Codec
	off   rule
	// notesLate notes the ends after the take-over, lazy takes a contact over when its
	// first record comes: the two rules that are the driver's.
	notesLate, lazy bool

	ids       []string
	rows      map[string]*storage.Contact
	marks     map[string]string // survivor, empty of an erased one
	stored    []storage.StoredEvent
	resolved  [simPartitions][]resolved
	unsent    [simPartitions][]send
	log       map[schemas.Topic]*[simPartitions][]*stream.Record
	written   map[string]int64 // by the other writer, of each contact
	factsSeen map[string]string

	derived [simPartitions]*deriver
	pg      *postgres // nil when all is in memory
	version int64     // of the definitions in use
	count   int
	trouble string
}

const (
	simPartitions = 2
	simVersions   = 3 // at most, but for one that comes when all has happened
)

var simTopics = []schemas.Topic{schemas.TopicEvents, schemas.TopicLifecycle, schemas.TopicSignals}

// resolved is a record of the topic that contacts reads.
type resolved struct {
	contact string
	do      string // event, merge, delete, absorb
	event   string
	other   string // survivor of a merge, loser of an absorb
	merged  []string
}

// send is an output that is applied and not published.
type send struct {
	message schemas.Message
	onward  *resolved
}

// deriver is the derived processor on one partition.
type deriver struct {
	phase    int // 0 before, 1 noted and taking over, 2 reading
	at       map[schemas.Topic]int
	taken    []string
	contacts map[string]*contact[tally]
	unsent   []schemas.Message
	silent   map[string]bool // taken over with a row
	filled   int64           // the version for which everybody was passed, in memory
}

func newWorld(draw func(n int) int) *world {
	w := &world{
		draw: draw, codec: schemas.NewCodec(), rows: map[string]*storage.Contact{}, marks: map[string]string{},
		log: map[schemas.Topic]*[simPartitions][]*stream.Record{}, written: map[string]int64{}, factsSeen: map[string]string{},
	}
	for i := range 4 {
		w.ids = append(w.ids, fmt.Sprintf("00000000-0000-4000-8000-00000000000%d", i))
	}
	for _, t := range simTopics {
		w.log[t] = &[simPartitions][]*stream.Record{}
	}
	for p := range w.derived {
		w.derived[p] = &deriver{at: map[schemas.Topic]int{}, contacts: map[string]*contact[tally]{}, silent: map[string]bool{}}
	}
	return w
}

func (w *world) partition(id string) int {
	n, _ := strconv.Atoi(id[len(id)-1:])
	return n % simPartitions
}

func (w *world) fault(format string, args ...any) {
	if w.trouble == "" {
		w.trouble = fmt.Sprintf(format, args...)
	}
}

func (w *world) newID() string {
	w.count++
	return fmt.Sprintf("00000000-0000-7000-8000-%012d", w.count)
}

func (w *world) now() time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(w.count) * time.Second)
}

// run takes steps until everything has come to rest, and says what is wrong.
func (w *world) run(steps int) string {
	begin := w.draw(steps) // when the derived processor is there for the first time
	for step := range steps {
		switch w.draw(11) {
		case 0, 1:
			w.input()
		case 2:
			w.say(w.draw(simPartitions))
		case 3:
			w.publish(w.draw(simPartitions))
		case 4:
			w.otherWriter()
		case 5:
			w.tick(w.draw(2) == 0)
		case 6:
			w.version = min(w.version+1, simVersions)
		case 7:
			w.pass(w.draw(simPartitions))
		default:
			if step >= begin {
				w.derive(w.draw(simPartitions))
			}
		}
	}
	w.version += int64(w.draw(2))
	w.draw = func(n int) int { return n - 1 } // everything, and no kills
	for w.trouble == "" && w.rest() {
	}
	if w.trouble == "" {
		w.judge()
	}
	return w.trouble
}

// rest does what is left to do; false when nothing was.
func (w *world) rest() (busy bool) {
	for p := range simPartitions {
		busy = busy || len(w.resolved[p]) > 0 || len(w.unsent[p]) > 0 || w.derived[p].phase < 2 || w.behind(p)
		w.say(p)
		w.publish(p)
		w.derive(p)
		busy = w.pass(p) || busy
	}
	return w.tick(true) || busy
}

func (w *world) behind(p int) bool {
	d := w.derived[p]
	if len(d.unsent) > 0 {
		return true
	}
	return slices.ContainsFunc(simTopics, func(t schemas.Topic) bool { return d.at[t] < len(w.log[t][p]) })
}

// --- contacts, and identity before it ---

func (w *world) input() {
	id := w.ids[w.draw(len(w.ids))]
	p := w.partition(id)
	switch w.draw(8) {
	case 0:
		w.resolved[p] = append(w.resolved[p], resolved{contact: id, do: "delete"})
	case 1, 2:
		other := w.ids[w.draw(len(w.ids))]
		if w.alive(id) && w.alive(other) && id != other {
			w.resolved[p] = append(w.resolved[p], resolved{contact: id, do: "merge", other: other})
		}
	default:
		w.resolved[p] = append(w.resolved[p], resolved{contact: id, do: "event", event: w.newID()})
	}
}

// alive says that identity has neither merged nor erased it.
func (w *world) alive(id string) bool {
	if _, ended := w.marks[id]; ended {
		return false
	}
	return !slices.ContainsFunc(w.resolved[w.partition(id)], func(r resolved) bool {
		return r.contact == id && (r.do == "merge" || r.do == "delete")
	})
}

// say applies the next record of topic resolved, as contacts does.
func (w *world) say(p int) {
	if len(w.resolved[p]) == 0 || len(w.unsent[p]) > 0 {
		return
	}
	r := w.resolved[p][0]
	w.resolved[p] = w.resolved[p][1:]
	if w.pg != nil {
		defer w.pg.sync()
	}
	survivor, ended := w.marks[r.contact]
	switch {
	case ended && survivor == "":
		if r.do == "absorb" {
			w.forget(append(r.merged, r.other))
		}
	case ended:
		if r.do == "event" || r.do == "absorb" {
			r.contact = survivor
			w.unsent[p] = append(w.unsent[p], send{onward: &r})
		}
	case r.do == "event":
		w.event(p, r)
	case r.do == "absorb":
		w.absorb(p, r)
	case r.do == "merge":
		w.end(p, r.contact, r.other, func(last int64) *schemas.Signal {
			return &schemas.Signal{Type: schemas.SignalMerged, Merged: &schemas.MergedSignal{Survivor: r.other, Seq: last}}
		})
	case r.do == "delete":
		if row := w.rows[r.contact]; row != nil {
			w.fact(p, row, schemas.FactContactDeleted, func(f *schemas.Fact) { f.Deleted = &schemas.ContactDeleted{} })
			w.forget(append(row.Merged, r.contact))
		}
		w.end(p, r.contact, "", func(last int64) *schemas.Signal {
			return &schemas.Signal{Type: schemas.SignalDeleted, Deleted: &schemas.DeletedSignal{Seq: last}}
		})
	}
}

func (w *world) row(p int, id string) *storage.Contact {
	row := w.rows[id]
	if row == nil {
		row = &storage.Contact{ID: id, Partition: int32(p)}
		w.rows[id] = row
		w.fact(p, row, schemas.FactContactCreated, func(f *schemas.Fact) { f.Contact = &schemas.ContactFact{Properties: "{}"} })
	}
	return row
}

func (w *world) fact(p int, row *storage.Contact, typ string, fill func(*schemas.Fact)) {
	row.Seq++
	f := &schemas.Fact{ID: w.newID(), Type: typ, ContactID: row.ID, OccurredAt: w.now(), Seq: row.Seq}
	fill(f)
	w.unsent[p] = append(w.unsent[p], send{message: f})
}

func (w *world) event(p int, r resolved) {
	row := w.row(p, r.contact)
	row.Seq++
	w.stored = append(w.stored, storage.StoredEvent{ID: r.event, ContactID: row.ID, Name: w.name(), Seq: row.Seq, OccurredAt: w.now()})
	w.unsent[p] = append(w.unsent[p], send{message: &schemas.Event{ID: r.event, ContactID: row.ID, Name: w.name(), Properties: "{}", OccurredAt: w.now(), Seq: row.Seq}})
}

// name is that of the event that comes now: each definition counts those of one name.
func (w *world) name() string { return nameOf(int64(w.count)) }

func nameOf(definition int64) string { return fmt.Sprintf("e%d", definition%simVersions) }

func (w *world) absorb(p int, r resolved) {
	if row := w.rows[r.contact]; row != nil && slices.Contains(row.Merged, r.other) {
		return
	}
	row := w.row(p, r.contact)
	row.Merged = append(append(slices.Clone(row.Merged), r.other), r.merged...)
	w.fact(p, row, schemas.FactContactMerged, func(f *schemas.Fact) {
		f.Merged = &schemas.ContactMerged{LoserID: r.other, Properties: "{}"}
	})
}

func (w *world) end(p int, id, survivor string, signal func(last int64) *schemas.Signal) {
	var last int64
	var merged []string
	if row := w.rows[id]; row != nil {
		last, merged = row.Seq, row.Merged
	}
	s := signal(last)
	s.ID, s.For, s.ContactID, s.OccurredAt = w.newID(), simName, id, w.now()
	w.unsent[p] = append(w.unsent[p], send{message: s})
	if survivor != "" {
		w.unsent[p] = append(w.unsent[p], send{onward: &resolved{contact: survivor, do: "absorb", other: id, merged: merged}})
	}
	delete(w.rows, id)
	w.marks[id] = survivor
}

func (w *world) forget(ids []string) {
	w.stored = slices.DeleteFunc(w.stored, func(e storage.StoredEvent) bool { return slices.Contains(ids, e.ContactID) })
}

// publish puts what a partition's owner applied on the log, in one transaction.
func (w *world) publish(p int) {
	for _, s := range w.unsent[p] {
		if s.onward != nil {
			to := w.partition(s.onward.contact)
			w.resolved[to] = append(w.resolved[to], *s.onward)
			continue
		}
		w.append(s.message)
	}
	w.unsent[p] = nil
}

func (w *world) append(m schemas.Message) {
	value, err := w.codec.Encode(m)
	if err != nil {
		w.fault("encode: %v", err)
	}
	meta, p := m.Meta(), w.partition(m.Key())
	l := &w.log[m.Topic()][p]
	*l = append(*l, &stream.Record{
		Topic: m.Topic(), Partition: int32(p), Offset: int64(len(*l)), Key: []byte(m.Key()), Value: value,
		ID: meta.ID, Type: meta.Type, OccurredAt: meta.OccurredAt, Seq: meta.Seq, Era: meta.Era,
	})
}

// otherWriter says something of a contact, as of its present number; now and then twice.
func (w *world) otherWriter() {
	id := w.ids[w.draw(len(w.ids))]
	row := w.rows[id]
	if row == nil {
		return
	}
	w.written[id]++
	f := &schemas.Fact{ID: w.newID(), Type: schemas.FactJourneyCompleted, ContactID: id, OccurredAt: w.now(),
		CauseSeq: row.Seq, WriterSeq: w.written[id], Journey: &schemas.JourneyFact{}}
	if w.derived[w.partition(id)].phase == 2 {
		w.factsSeen[f.ID] = id
	}
	for range 1 + w.draw(2) {
		w.append(f)
	}
}

// --- the derived processor ---

// derive takes the next step on a partition.
func (w *world) derive(p int) {
	d := w.derived[p]
	switch {
	case d.phase == 1 && w.pg != nil:
		w.pg.takeOver(p, d)
	case d.phase == 0: // of all partitions at once: hand-overs go from one to another
		for p, d := range w.derived {
			d.at, d.phase = w.ends(p), 1
		}
	case d.phase == 1:
		w.takeOver(p, d)
	case len(d.unsent) > 0: // killed between apply and publish or not: they are published first
		for _, m := range d.unsent {
			w.append(m)
		}
		d.unsent = nil
	default:
		w.read(p, d)
	}
}

func (w *world) ends(p int) map[schemas.Topic]int {
	ends := map[schemas.Topic]int{}
	for _, t := range simTopics {
		ends[t] = len(w.log[t][p])
	}
	return ends
}

func (w *world) takeOver(p int, d *deriver) {
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
func (w *world) takeOne(d *deriver, id string) {
	t := w.known(id)
	if t == nil {
		return
	}
	out := &sink{w: w}
	c, err := w.machine(out).takeOver(t, &stream.Record{Partition: t.Partition})
	if err != nil {
		w.fault("take over %s: %v", id, err)
	}
	for _, m := range out.sent {
		w.append(m)
	}
	if c != nil {
		d.contacts[id], d.silent[id] = c, !c.row.Ended
	}
}

// known is what Postgres has of a contact, in one snapshot.
func (w *world) known(id string) *storage.Taken {
	t := &storage.Taken{ContactID: id, Partition: int32(w.partition(id))}
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

func (w *world) eventsOf(owners []string) (events []storage.StoredEvent) {
	for _, e := range w.stored {
		if slices.Contains(owners, e.ContactID) {
			events = append(events, e)
		}
	}
	return events
}

// losersOf follows the marks that lead to a contact.
func (w *world) losersOf(id string) (losers []string) {
	for _, loser := range w.ids {
		if survivor := w.marks[loser]; survivor == id {
			losers = append(append(losers, loser), w.losersOf(loser)...)
		}
	}
	return losers
}

// read applies a batch: some records of each topic.
func (w *world) read(p int, d *deriver) {
	var batch []*incoming
	var records []*stream.Record
	for _, t := range simTopics {
		rest := w.log[t][p][d.at[t]:]
		n := min(w.draw(4), len(rest))
		d.at[t] += n
		records = append(records, rest[:n]...)
		for _, r := range rest[:n] {
			in, err := decode(w.codec, r)
			if err != nil {
				w.fault("decode: %v", err)
				return
			}
			if in.signal == nil || in.signal.For == simName {
				batch = append(batch, in)
			}
		}
	}
	if w.pg != nil {
		w.pg.apply(p, d, records)
		return
	}
	out := &sink{w: w}
	for _, in := range batch {
		w.handle(d, string(in.cause.Key), in, out)
	}
	d.unsent = out.sent
}

func (w *world) handle(d *deriver, id string, in *incoming, out *sink) {
	c := d.contacts[id]
	if c == nil {
		if w.lazy && in.seq > 1 {
			w.takeOne(d, id)
		}
		if c = d.contacts[id]; c == nil {
			c = &contact[tally]{row: storage.Derived{ContactID: id, Partition: in.cause.Partition}}
			d.contacts[id] = c
		}
	}
	m := w.machine(out)
	w.refill(m, c)
	if err := m.handle(c, in); err != nil {
		w.fault("handle: %v", err)
	}
	w.refill(m, c)
}

// refill fills a contact that is behind, if it stands where Postgres has it.
func (w *world) refill(m *machine[tally], c *contact[tally]) {
	t := w.known(c.row.ContactID)
	if t == nil || t.Contact == nil || c.row.Ended {
		return
	}
	c.ahead = &Known{Contact: t.Contact, Events: w.eventsOf(slices.Concat([]string{c.row.ContactID}, t.Contact.Merged, c.row.Took))}
	if err := m.refill(c); err != nil {
		w.fault("fill: %v", err)
	}
	c.ahead = nil
}

// pass fills everybody of a partition, once for a version; true when it did. Who is not
// where Postgres has him is left to his next record.
func (w *world) pass(p int) bool {
	d := w.derived[p]
	if w.pg != nil {
		return w.pg.kick()
	}
	if d.phase < 2 || len(d.unsent) > 0 || d.filled == w.version {
		return false
	}
	d.filled = w.version
	out := &sink{w: w}
	for _, id := range slices.Sorted(maps.Keys(d.contacts)) {
		w.refill(w.machine(out), d.contacts[id])
	}
	d.unsent = out.sent
	return true
}

func (w *world) machine(out outlet) *machine[tally] {
	t := tallier{off: w.off, fault: w.fault, versions: w.inUse, version: w.version}
	return &machine[tally]{p: t, l: t, codec: w.codec, out: out, now: w.now(), off: w.off}
}

// tick sends timers, stale ones too; false when there were none.
func (w *world) tick(all bool) (sent bool) {
	for _, d := range w.derived {
		if len(d.unsent) > 0 {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(d.contacts)) {
			for _, t := range d.contacts[id].timers {
				if !all && w.draw(3) > 0 {
					continue
				}
				sent = true
				w.append(&schemas.Signal{ID: schemas.Derive(id, simName, int(t.Epoch)), Type: schemas.SignalTimer, For: simName,
					ContactID: id, OccurredAt: t.Due, What: t.What, Epoch: t.Epoch})
			}
		}
	}
	return sent
}

// sink collects what a batch says.
type sink struct {
	w    *world
	sent []schemas.Message
}

func (s *sink) Emit(_ *stream.Record, m schemas.Message) error {
	s.sent = append(s.sent, m)
	return nil
}

func (s *sink) DeadLetter(r *stream.Record, _, reason string, failure error) error {
	s.w.fault("dead letter of %s %s: %s: %v", r.Type, r.ID, reason, failure)
	return nil
}

// --- what must hold ---

func (w *world) judge() {
	for _, id := range w.ids {
		d := w.derived[w.partition(id)]
		c, row := d.contacts[id], w.rows[id]
		switch {
		case row == nil && c == nil:
		case row == nil:
			if _, ended := w.marks[id]; ended && (!c.row.Ended || len(c.state.Events)+len(c.held)+len(c.timers) > 0) {
				w.fault("%s ended, and this is left of it: %+v, state %+v, %d wait", id, c.row, c.state, len(c.held))
			}
		case c == nil:
			w.fault("%s has no state", id)
		default:
			w.judgeLiving(id, row, c, d.silent[id])
		}
	}
}

func (w *world) judgeLiving(id string, row *storage.Contact, c *contact[tally], silent bool) {
	if len(c.held) > 0 {
		w.fault("%s: %d records wait for ever at %d, the first is %+v", id, len(c.held), c.row.Seq, c.held[0])
	}
	var want []string
	for _, e := range w.stored {
		if e.ContactID == id || slices.Contains(row.Merged, e.ContactID) {
			want = append(want, e.ID)
		}
	}
	slices.Sort(want)
	if got := slices.Sorted(slices.Values(c.state.Events)); !slices.Equal(got, want) {
		w.fault("%s counts %v instead of %v", id, got, want)
	}
	w.judgeDefinitions(id, row, c)
	if c.row.Seq != row.Seq {
		w.fault("%s stands at %d, its last record is %d", id, c.row.Seq, row.Seq)
	}
	for i, seq := range c.state.Told {
		if i > 0 && seq != c.state.Told[i-1]+1 || i == 0 && !silent && seq != 1 {
			w.fault("%s was told %v", id, c.state.Told)
		}
	}
	for fact, of := range w.factsSeen {
		n := 0
		for _, f := range c.state.Facts {
			if f == fact {
				n++
			}
		}
		if of == id && n != 1 || n > 1 {
			w.fault("%s has fact %s of %s %d times", id, fact, of, n)
		}
	}
	if !c.state.Due.IsZero() {
		w.fault("%s: its timer was never told", id)
	}
}

// judgeDefinitions compares what definitions count with the whole history.
func (w *world) judgeDefinitions(id string, row *storage.Contact, c *contact[tally]) {
	if c.state.Version != w.version {
		w.fault("%s is filled with version %d of %d", id, c.state.Version, w.version)
	}
	for d := int64(1); d <= w.version; d++ {
		var want []string
		for _, e := range w.stored {
			if e.Name == nameOf(d) && (e.ContactID == id || slices.Contains(row.Merged, e.ContactID)) {
				want = append(want, e.ID)
			}
		}
		slices.Sort(want)
		if got := slices.Sorted(slices.Values(c.state.Counted[d])); !slices.Equal(got, want) {
			w.fault("definition %d of %s counts %v instead of %v", d, id, got, want)
		}
	}
}

func (w *world) inUse() int64 { return w.version }

// --- the processor ---

const simName = "tally"

// tally is the state of a contact in the tests: what it was told.
type tally struct {
	Events []string  `json:"events"`
	Facts  []string  `json:"facts"`
	Told   []int64   `json:"told"`
	Due    time.Time `json:"due"`
	// Version is that of the definitions it is filled with, Counted what each of them counts.
	Version int64              `json:"version"`
	Counted map[int64][]string `json:"counted"`
}

type tallier struct {
	JSON[tally]
	off      rule
	fault    func(string, ...any)
	versions func() int64 // in use now
	version  int64        // as of a batch
}

func (tallier) Name() string      { return simName }
func (tallier) Wants(string) bool { return true }

func (t tallier) At(context.Context, *storage.Tx) (Logic[tally], error) {
	t.version = t.versions()
	return t, nil
}

func (t tallier) Version() int64        { return t.version }
func (tallier) VersionOf(s tally) int64 { return s.Version }

func (t tallier) Names(version int64) (names []string) {
	for d := version + 1; d <= t.version; d++ {
		names = append(names, nameOf(d))
	}
	return names
}

// Refill counts for the definitions that came since.
func (t tallier) Refill(s tally, k *Known, _ time.Time) (Result[tally], error) {
	return Result[tally]{State: t.count(s, k), Timers: s.timers()}, nil
}

func (t tallier) count(s tally, k *Known) tally {
	counted := maps.Clone(s.Counted)
	if counted == nil {
		counted = map[int64][]string{}
	}
	for d := s.Version + 1; d <= t.version; d++ {
		counted[d] = nil
		for _, e := range k.Events {
			if e.Name == nameOf(d) {
				counted[d] = append(counted[d], e.ID)
			}
		}
	}
	s.Version, s.Counted = t.version, counted
	return s
}

// takeIn brings two states to the older of their versions.
func (s tally) takeIn(loser tally) tally {
	if len(loser.Told)+len(loser.Events) == 0 && loser.Version == 0 {
		return s // nothing was ever known of it
	}
	s.Version = min(s.Version, loser.Version)
	counted := map[int64][]string{}
	for d := int64(1); d <= s.Version; d++ {
		counted[d] = slices.Concat(s.Counted[d], loser.Counted[d])
	}
	s.Counted = counted
	return s
}

func (tallier) HandOver(s tally, _ string, _ time.Time) (tally, []schemas.Message) { return s, nil }

func (t tallier) TakeOver(_ tally, k *Known, _ time.Time) (tally, []Timer) {
	s := t.count(tally{}, k)
	for _, e := range k.Events {
		s.Events = append(s.Events, e.ID)
	}
	return s, s.timers()
}

func (s tally) timers() []Timer {
	if s.Due.IsZero() {
		return nil
	}
	return []Timer{{What: "quiet", Due: s.Due}}
}

func (t tallier) Step(s tally, r *Record[tally], now time.Time) (Result[tally], error) {
	if r.Seq == 1 && len(s.Told) == 0 && s.Version == 0 { // it is new
		s.Version = t.version
	}
	switch {
	case r.Event != nil:
		counted := maps.Clone(s.Counted)
		for d := int64(1); d <= s.Version; d++ {
			if r.Event.Name == nameOf(d) {
				if counted == nil {
					counted = map[int64][]string{}
				}
				counted[d] = append(slices.Clone(counted[d]), r.Event.ID)
			}
		}
		s.Counted = counted
		s.Events = append(slices.Clone(s.Events), r.Event.ID)
		s.Due = now.Add(time.Hour)
	case r.Timer != nil:
		if !r.Timer.Due.Equal(s.Due) {
			t.fault("%s is told %s, and waits for %s", r.ContactID, r.Timer.Due, s.Due)
		}
		if now.Before(s.Due) {
			t.fault("%s is told at %s that %s is due", r.ContactID, now, s.Due)
		}
		s.Due = time.Time{}
	case r.Fact.WriterSeq > 0:
		if r.Fact.ContactID == r.ContactID && r.Fact.CauseSeq > r.Seq {
			t.fault("%s is told of %d at %d", r.ContactID, r.Fact.CauseSeq, r.Seq)
		}
		s.Facts = append(slices.Clone(s.Facts), r.Fact.ID)
	case r.Loser != nil:
		s = s.takeIn(r.Loser.State)
		s.Events = append(slices.Clone(s.Events), r.Loser.State.Events...)
		s.Facts = append(slices.Clone(s.Facts), r.Loser.State.Facts...)
	}
	if r.Timer == nil && (r.Fact == nil || r.Fact.WriterSeq == 0) {
		s.Told = append(slices.Clone(s.Told), r.Seq)
	}
	return Result[tally]{State: s, Timers: s.timers()}, nil
}
