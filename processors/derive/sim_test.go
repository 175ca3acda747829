package derive

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Play is what a simulation is about: a processor, what happens to its contacts, and what
// becomes of what it says.
type Play[S any] struct {
	Processor Processor[S]
	// Logic is that of a version of the definitions.
	Logic func(version int64) Logic[S]
	// Inputs says how seldom a contact is merged (2 of so many inputs) and erased (1).
	Inputs int
	// Event fills in the name and the properties of an event.
	Event func(e *schemas.Event)
	// Update is the properties of a contact that are other ones now; nil for none that change.
	Update func() string
	// Fact is what another writer says of a contact.
	Fact func(contact string) *schemas.Fact
	// Beside is what Postgres knows of a contact beside its row; nil for nothing.
	Beside func(contact string) *storage.Beside
	// Committed is told of each batch what the logic was asked in it, and what is saved.
	Committed func(calls []Call[S], saved []Change[S])
	// Published is told what the processor publishes.
	Published func(m schemas.Message)
	// Virtual says that time passes only as World.Pass has it, and that no timer is told before
	// it is due.
	Virtual bool
	// Acts are what else may happen.
	Acts []func()
	// Judge says with World.Fault what is wrong when all has come to rest.
	Judge func()
}

// Call is a question to the logic: a step when there is a Record, the end of a contact when
// there is nothing, else a take-over or a filling.
type Call[S any] struct {
	Contact string
	Record  *Record[S]
	Known   *Known
	Taken   bool // by a take-over
	Anew    bool // with what was kept before
	Version int64
	Now     time.Time
}

// World is everything around the frame, as small as it can be: contacts that numbers what
// it says (apply in Postgres, then publish, a batch at a time for a partition), the log,
// a ticker, another writer of facts, and a derived processor that begins at any moment.
// What happens next, draw says: a number below n.
type World[S any] struct {
	Play  *Play[S]
	draw  func(n int) int
	codec *schemas.Codec
	off   rule
	// notesLate notes the ends after the take-over, lazy takes a contact over when its
	// first record comes: the two rules that are the driver's.
	notesLate, lazy bool

	ids       []string
	rows      map[string]*storage.Contact
	marks     map[string]string // survivor, empty of an erased one
	last      map[string]int64  // the number of the last record of one that ended
	stored    []storage.StoredEvent
	resolved  [simPartitions][]resolved
	unsent    [simPartitions][]send
	log       map[schemas.Topic]*[simPartitions][]*stream.Record
	written   map[string]int64 // by the other writer, of each contact
	factsSeen map[string]string

	derived [simPartitions]*deriver[S]
	before  map[string]*storage.Derived // what was kept of contacts that are taken over anew
	pg      *postgres                   // nil when all is in memory
	version int64                       // of the definitions in use
	count   int
	passed  time.Duration
	skew    time.Duration // of the clock of the processor
	trouble string
}

const (
	simPartitions = 2
	simVersions   = 3 // at most, but for one that comes when all has happened
	simRest       = 20 * 24 * time.Hour
)

var simTopics = []schemas.Topic{schemas.TopicEvents, schemas.TopicLifecycle, schemas.TopicSignals}

// resolved is a record of the topic that contacts reads.
type resolved struct {
	contact    string
	do         string // event, update, merge, delete, absorb
	event      *schemas.Event
	properties string
	received   time.Time
	other      string // survivor of a merge, loser of an absorb
	merged     []string
}

// send is an output that is applied and not published.
type send struct {
	message schemas.Message
	onward  *resolved
}

// NewWorld is a world in which nothing has happened.
func NewWorld[S any](play *Play[S], draw func(n int) int) *World[S] {
	w := &World[S]{
		Play: play, draw: draw, codec: schemas.NewCodec(), rows: map[string]*storage.Contact{}, marks: map[string]string{}, last: map[string]int64{},
		log: map[schemas.Topic]*[simPartitions][]*stream.Record{}, written: map[string]int64{}, factsSeen: map[string]string{},
		before: map[string]*storage.Derived{},
	}
	for i := range 4 {
		w.ids = append(w.ids, fmt.Sprintf("00000000-0000-4000-8000-00000000000%d", i))
	}
	for _, t := range simTopics {
		w.log[t] = &[simPartitions][]*stream.Record{}
	}
	for p := range w.derived {
		w.derived[p] = &deriver[S]{at: map[schemas.Topic]int{}, contacts: map[string]*contact[S]{}, silent: map[string]bool{}}
	}
	return w
}

func (w *World[S]) partition(id string) int {
	n, _ := strconv.Atoi(id[len(id)-1:])
	return n % simPartitions
}

// Fault says what is wrong; the first counts.
func (w *World[S]) Fault(format string, args ...any) {
	if w.trouble == "" {
		w.trouble = fmt.Sprintf(format, args...)
	}
}

// NewID is an id that nothing has.
func (w *World[S]) NewID() string {
	w.count++
	return fmt.Sprintf("00000000-0000-7000-8000-%012d", w.count)
}

// Now is what time it is in the world, to the second: nothing comes at one instant.
func (w *World[S]) Now() time.Time {
	return time.Unix(1_700_000_000, 0).UTC().Add(w.passed).Add(time.Duration(w.count) * time.Second)
}

// Pass lets time pass.
func (w *World[S]) Pass(d time.Duration) { w.passed += d }

// SetClock has the clock of the processor be wrong by so much.
func (w *World[S]) SetClock(skew time.Duration) { w.skew = skew }

// Run takes steps until everything has come to rest, and says what is wrong.
func (w *World[S]) Run(steps int) string {
	begin := w.draw(steps) // when the derived processor is there for the first time
	for step := range steps {
		switch n := w.draw(11 + len(w.Play.Acts)); n {
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
		case 8, 9, 10:
			if step >= begin {
				w.derive(w.draw(simPartitions))
			}
		default:
			w.Play.Acts[n-11]()
		}
	}
	w.version += int64(w.draw(2))
	w.skew = 0
	w.draw = func(n int) int { return n - 1 } // everything, and no kills
	for end := w.Now().Add(simRest); w.trouble == "" && w.rest(end); {
	}
	if w.judge(); w.trouble == "" {
		w.Play.Judge()
	}
	return w.trouble
}

// rest does what is left to do; false when nothing was.
func (w *World[S]) rest(end time.Time) (busy bool) {
	for p := range simPartitions {
		busy = busy || len(w.resolved[p]) > 0 || len(w.unsent[p]) > 0 || w.derived[p].phase < 2 || w.behind(p)
		w.say(p)
		w.publish(p)
		w.derive(p)
		busy = w.pass(p) || busy
	}
	busy = w.tick(true) || busy
	if !busy && w.Play.Virtual && w.Now().Before(end) {
		w.Pass(12 * time.Hour)
		return true
	}
	return busy
}

func (w *World[S]) behind(p int) bool {
	d := w.derived[p]
	if len(d.unsent) > 0 {
		return true
	}
	return slices.ContainsFunc(simTopics, func(t schemas.Topic) bool { return d.at[t] < len(w.log[t][p]) })
}

// --- contacts, and identity before it ---

func (w *World[S]) input() {
	id := w.ids[w.draw(len(w.ids))]
	p := w.partition(id)
	switch w.draw(w.Play.Inputs) {
	case 0:
		w.resolved[p] = append(w.resolved[p], resolved{contact: id, do: "delete"})
	case 1, 2:
		other := w.ids[w.draw(len(w.ids))]
		if w.alive(id) && w.alive(other) && id != other {
			w.resolved[p] = append(w.resolved[p], resolved{contact: id, do: "merge", other: other})
		}
	case 3:
		if w.Play.Update != nil {
			w.Give(&schemas.Input{Type: schemas.InputContact, ContactID: &id, ContactProperties: new(w.Play.Update())})
			return
		}
		fallthrough
	default:
		e := &schemas.Event{ID: w.NewID(), Properties: "{}"}
		e.OccurredAt, e.ReceivedAt = w.Now(), w.Now()
		w.Play.Event(e)
		w.resolved[p] = append(w.resolved[p], resolved{contact: id, do: "event", event: e, received: e.ReceivedAt})
	}
}

// Give is an input about a contact: an event, or the properties that it has from now on.
func (w *World[S]) Give(in *schemas.Input) {
	r := resolved{contact: *in.ContactID, do: "update", received: w.Now()}
	if in.Type == schemas.InputEvent {
		r.do, r.event = "event", &schemas.Event{ID: in.ID, Name: *in.Event, Properties: *in.EventProperties, OccurredAt: in.OccurredAt, ReceivedAt: r.received, Hops: in.Hops}
	} else {
		r.properties = *in.ContactProperties
	}
	p := w.partition(r.contact)
	w.resolved[p] = append(w.resolved[p], r)
}

// alive says that identity has neither merged nor erased it.
func (w *World[S]) alive(id string) bool {
	if _, ended := w.marks[id]; ended {
		return false
	}
	return !slices.ContainsFunc(w.resolved[w.partition(id)], func(r resolved) bool {
		return r.contact == id && (r.do == "merge" || r.do == "delete")
	})
}

// say applies the next record of topic resolved, as contacts does.
func (w *World[S]) say(p int) {
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
		if r.do != "merge" && r.do != "delete" {
			r.contact = survivor
			w.unsent[p] = append(w.unsent[p], send{onward: &r})
		}
	case r.do == "event":
		w.event(p, r)
	case r.do == "update":
		row := w.row(p, r.contact)
		row.Properties, row.UpdatedAt = r.properties, r.received
		w.fact(p, row, schemas.FactContactUpdated, func(f *schemas.Fact) { f.Contact = contactFact(row) })
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

func contactFact(row *storage.Contact) *schemas.ContactFact {
	return &schemas.ContactFact{Properties: row.Properties, FirstSeenAt: row.UpdatedAt, LastSeenAt: row.UpdatedAt, CreatedAt: row.UpdatedAt, UpdatedAt: row.UpdatedAt}
}

func (w *World[S]) row(p int, id string) *storage.Contact {
	row := w.rows[id]
	if row == nil {
		row = &storage.Contact{ID: id, Partition: int32(p), Properties: "{}", UpdatedAt: w.Now()}
		w.rows[id] = row
		w.fact(p, row, schemas.FactContactCreated, func(f *schemas.Fact) { f.Contact = contactFact(row) })
	}
	return row
}

func (w *World[S]) fact(p int, row *storage.Contact, typ string, fill func(*schemas.Fact)) {
	row.Seq++
	f := &schemas.Fact{ID: w.NewID(), Type: typ, ContactID: row.ID, OccurredAt: w.Now(), Seq: row.Seq}
	fill(f)
	w.unsent[p] = append(w.unsent[p], send{message: f})
}

func (w *World[S]) event(p int, r resolved) {
	row := w.row(p, r.contact)
	row.Seq++
	e := *r.event
	e.ContactID, e.Seq = row.ID, row.Seq
	w.stored = append(w.stored, storage.StoredEvent{ID: e.ID, ContactID: row.ID, Name: e.Name, Properties: e.Properties, Seq: row.Seq, OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt})
	w.unsent[p] = append(w.unsent[p], send{message: &e})
}

func (w *World[S]) absorb(p int, r resolved) {
	if row := w.rows[r.contact]; row != nil && slices.Contains(row.Merged, r.other) {
		return
	}
	row := w.row(p, r.contact)
	row.Merged = append(append(slices.Clone(row.Merged), r.other), r.merged...)
	w.fact(p, row, schemas.FactContactMerged, func(f *schemas.Fact) {
		f.Merged = &schemas.ContactMerged{LoserID: r.other, Properties: row.Properties}
	})
}

func (w *World[S]) end(p int, id, survivor string, signal func(last int64) *schemas.Signal) {
	var last int64
	var merged []string
	if row := w.rows[id]; row != nil {
		last, merged = row.Seq, row.Merged
	}
	s := signal(last)
	s.ID, s.For, s.ContactID, s.OccurredAt = w.NewID(), w.Play.Processor.Name(), id, w.Now()
	w.unsent[p] = append(w.unsent[p], send{message: s})
	if survivor != "" {
		w.unsent[p] = append(w.unsent[p], send{onward: &resolved{contact: survivor, do: "absorb", other: id, merged: merged}})
	}
	delete(w.rows, id)
	w.marks[id], w.last[id] = survivor, last
}

func (w *World[S]) forget(ids []string) {
	w.stored = slices.DeleteFunc(w.stored, func(e storage.StoredEvent) bool { return slices.Contains(ids, e.ContactID) })
}

// publish puts what a partition's owner applied on the log, in one transaction.
func (w *World[S]) publish(p int) {
	for _, s := range w.unsent[p] {
		if s.onward != nil {
			to := w.partition(s.onward.contact)
			w.resolved[to] = append(w.resolved[to], *s.onward)
			continue
		}
		w.Append(s.message)
	}
	w.unsent[p] = nil
}

// Append puts a message on the log.
func (w *World[S]) Append(m schemas.Message) {
	value, err := w.codec.Encode(m)
	if err != nil {
		w.Fault("encode: %v", err)
	}
	meta, p := m.Meta(), w.partition(m.Key())
	l := &w.log[m.Topic()][p]
	*l = append(*l, &stream.Record{
		Topic: m.Topic(), Partition: int32(p), Offset: int64(len(*l)), Key: []byte(m.Key()), Value: value,
		ID: meta.ID, Type: meta.Type, OccurredAt: meta.OccurredAt, AppendTime: w.Now(), Seq: meta.Seq, Era: meta.Era,
	})
}

// otherWriter says something of a contact, as of its present number; now and then twice.
func (w *World[S]) otherWriter() {
	id := w.ids[w.draw(len(w.ids))]
	row := w.rows[id]
	if row == nil {
		return
	}
	w.written[id]++
	f := w.Play.Fact(id)
	f.ID, f.ContactID, f.OccurredAt, f.CauseSeq, f.WriterSeq = w.NewID(), id, w.Now(), row.Seq, w.written[id]
	if w.derived[w.partition(id)].phase == 2 {
		w.factsSeen[f.ID] = id
	}
	for range 1 + w.draw(2) {
		w.Append(f)
	}
}
