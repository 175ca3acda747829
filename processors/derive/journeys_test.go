package derive_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/definition"
	machine "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/journeys/journeystest"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// journeying is a simulation of processor journeys, judged by what a reader of the same
// journeys makes of the records that it was given.
type journeying struct {
	*derive.World[journeys.State]
	d *journeystest.Drawing

	sets    []defined
	members map[string]map[string]int64 // by the other writer
	asked   []*schemas.Outbox
	ids     map[string]string // of what was published, and what it is

	naive   map[string]*journeystest.Naive
	told    map[string][]string // what a reader says, by contact
	story   map[string][]string // what the facts on lifecycle say
	saved   map[string][]string // what is saved of runs
	trace   []string
	changes []machine.Change
	where   map[string]string // the contact of each run that goes on
	erased  map[string]bool
	away    map[string]bool  // taken over as one that was merged away
	seq     map[string]int64 // the number of the last record that was stepped
}

// defined is a version of the definitions.
type defined struct {
	logic *journeys.Logic
	read  []journeystest.Defined
	kept  []storage.JourneyVersion
}

func newJourneying(t require.TestingT, draw func(n int) int) *journeying {
	frame, err := journeys.New(journeys.Options{}, schemas.NewCodec(), nil)
	require.NoError(t, err)
	w := &journeying{
		d:       &journeystest.Drawing{Draw: func(_ string, n int) int { return draw(n) }},
		members: map[string]map[string]int64{}, ids: map[string]string{}, naive: map[string]*journeystest.Naive{},
		told: map[string][]string{}, story: map[string][]string{}, saved: map[string][]string{}, where: map[string]string{}, erased: map[string]bool{}, away: map[string]bool{}, seq: map[string]int64{},
	}
	w.World = derive.NewWorld(&derive.Play[journeys.State]{
		Processor: derive.ProcessorOf(frame),
		Logic:     func(version int64) derive.Logic[journeys.State] { return w.define(version).logic },
		Inputs:    16, Virtual: true,
		Event: w.event, Update: w.properties, Fact: w.transition, Beside: w.beside,
		Committed: w.committed, Published: w.published, Judge: w.judge,
		Acts: []func(){w.pass, w.pass, w.answer, w.jump, w.anew},
	}, draw)
	return w
}

// --- what is defined, and what happens ---

// define is a version of the definitions, drawn when it is asked for first.
func (w *journeying) define(version int64) *defined {
	for int64(len(w.sets)) <= version {
		next := defined{}
		if len(w.sets) > 0 {
			last := w.sets[len(w.sets)-1]
			next.kept = last.kept
			for i := range 2 {
				next.read = append(next.read, w.redraw(last.read, i, int64(len(w.sets)))...)
			}
		}
		w.compile(&next, int64(len(w.sets)))
		w.sets = append(w.sets, next)
	}
	return &w.sets[version]
}

// redraw draws what becomes of a journey: nothing, it is another one, its head is, or it is
// removed.
func (w *journeying) redraw(before []journeystest.Defined, i int, version int64) []journeystest.Defined {
	at := slices.IndexFunc(before, func(d journeystest.Defined) bool { return d.Journey["id"] == fmt.Sprintf("j%d", i) })
	drawn := journeystest.Defined{Journey: plain(w.d.Journey(i)), Revision: version}
	drawn.Journey["onChange"] = w.d.Of("on change", "finish", "exit")
	what := w.d.Draw("becomes", 6)
	switch {
	case at < 0 || what == 0:
		return []journeystest.Defined{drawn}
	case what == 1:
		return nil
	case what == 2:
		head := maps.Clone(before[at].Journey)
		for _, field := range []string{"entryLimit", "entryPeriod", "live", "goal", "holdout", "onChange"} {
			delete(head, field)
			if value, there := drawn.Journey[field]; there {
				head[field] = value
			}
		}
		return []journeystest.Defined{{Journey: head, Revision: version}}
	}
	return []journeystest.Defined{before[at]}
}

// plain is what is read again of what is written.
func plain(o journeystest.Object) (out journeystest.Object) {
	text, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		panic(err)
	}
	return out
}

func (w *journeying) compile(d *defined, version int64) {
	set := definition.Set{Version: version, Buckets: []definition.BucketInUse{{Bucket: definition.Bucket{ID: "vip", Name: "vip", Enabled: true}}}}
	for _, drawn := range d.read {
		text, err := json.Marshal(drawn.Journey)
		if err != nil {
			w.Fault("write a journey: %v", err)
		}
		def, err := machine.ParseYAML("drawn.yaml", text)
		if err != nil {
			w.Fault("read a journey: %v\n%s", err, text)
			return
		}
		set.Journeys = append(set.Journeys, definition.JourneyInUse{Journey: definition.Journey{Journey: def}, InUse: definition.InUse{Revision: drawn.Revision, Declared: true}})
	}
	for _, v := range journeys.Versions(&set) {
		d.kept = slices.DeleteFunc(slices.Clone(d.kept), func(k storage.JourneyVersion) bool { return k.JourneyID == v.JourneyID && k.Version == v.Version })
		d.kept = append(d.kept, v)
	}
	d.logic = journeys.Compile(&set, d.kept, journeys.Options{Limits: predicate.DefaultLimits()})
	if failing := d.logic.Failing(); len(failing) > 0 {
		w.Fault("compile: %v", failing)
	}
}

func (w *journeying) event(e *schemas.Event) {
	e.Name = w.d.Of("event", "a", "b", "c")
	if !w.d.One("no k", 6) {
		e.Properties = fmt.Sprintf(`{"k":%q}`, w.d.Of("k", "x", "y"))
	}
	if w.d.One("dated back", 5) {
		e.OccurredAt = e.OccurredAt.Add(-time.Duration(1+w.d.Draw("minutes", 300)) * time.Minute)
	}
}

func (w *journeying) properties() string {
	props := journeystest.Object{"plan": w.d.Of("plan", "free", "pro"), "k": w.d.Of("k", "x", "y")}
	if !w.d.One("no date", 3) {
		props["date"] = w.Now().Add(time.Duration(w.d.Draw("hours", 72)-12) * time.Hour).Format(w.d.Of("as", time.RFC3339, time.DateOnly))
	}
	text, err := json.Marshal(props)
	if err != nil {
		w.Fault("write properties: %v", err)
	}
	return string(text)
}

// transition is what processor buckets says: the contact enters or leaves a bucket.
func (w *journeying) transition(contact string) *schemas.Fact {
	of := w.members[contact]
	if of == nil {
		of = map[string]int64{}
		w.members[contact] = of
	}
	of["entries"]++
	if of["vip"] != 0 {
		b := &schemas.BucketTransition{BucketID: "vip", BucketName: "vip", Transition: "left", EntryCount: of["vip"], Source: "event"}
		delete(of, "vip")
		return &schemas.Fact{Type: schemas.FactBucketLeft, Bucket: b}
	}
	of["vip"] = of["entries"]
	return &schemas.Fact{Type: schemas.FactBucketEntered, Bucket: &schemas.BucketTransition{BucketID: "vip", BucketName: "vip", Transition: "entered", EntryCount: of["vip"], Source: "event"}}
}

func (w *journeying) beside(contact string) *storage.Beside {
	epoch := w.members[contact]["vip"]
	if epoch == 0 {
		return nil
	}
	return &storage.Beside{Buckets: map[string]int64{"vip": epoch}}
}

func (w *journeying) pass() { w.Pass(time.Duration(w.d.Draw("minutes", 240)) * time.Minute) }

// answer is what comes of a call, now and then twice.
func (w *journeying) answer() {
	if len(w.asked) == 0 {
		return
	}
	o := w.asked[w.d.Draw("which", len(w.asked))]
	r := schemas.Receipt{Result: w.d.Of("result", schemas.ReceiptAccepted, schemas.ReceiptGivenUp), Reason: "because"}
	for range 1 + w.d.Draw("twice", 2) {
		w.Append(schemas.ReceiptOf(o, r, w.Now()))
	}
}

// jump sets the clock of the processor back, and then forward again.
func (w *journeying) jump() { w.SetClock(-time.Duration(w.d.Draw("skew", 4)) * 20 * time.Minute) }

// anew is a take-over of everybody, which is seldom.
func (w *journeying) anew() {
	if w.d.One("anew", 4) && w.TakeOverAnew() {
		clear(w.away)
	}
}

// published takes what leaves: what is about the contact comes back.
func (w *journeying) published(m schemas.Message) {
	if s, is := m.(*schemas.Signal); is && s.Type == schemas.SignalHandover {
		return // it may come twice
	}
	w.once(m)
	switch m := m.(type) {
	case *schemas.Fact:
		w.story[m.ContactID] = append(w.story[m.ContactID], toldBy(m).String())
	case *schemas.Outbox:
		w.asked = append(w.asked, m)
	case *schemas.Input:
		w.Give(m)
	}
}

// once notes an id that was published, which nothing else may have.
func (w *journeying) once(m schemas.Message) {
	meta := m.Meta()
	if before, there := w.ids[meta.ID]; there {
		w.Fault("%s %s is published twice, and was %s", meta.Type, meta.ID, before)
	}
	w.ids[meta.ID] = meta.Type
}

// --- what a reader makes of it ---

func (w *journeying) reader(id string, c *derive.Call[journeys.State]) *journeystest.Naive {
	n := w.naive[id]
	if n == nil {
		n = journeystest.NewNaive(id, c.Version, w.define(c.Version).read, c.Now.Add(-1000*time.Hour))
		w.naive[id] = n
	}
	n.Use(c.Version, w.define(c.Version).read)
	return n
}

func (w *journeying) forgetReader(id string) {
	if n := w.naive[id]; n != nil {
		n.Leave()
		delete(w.naive, id)
	}
}

func (w *journeying) committed(calls []derive.Call[journeys.State], saved []derive.Change[journeys.State]) {
	for i := range calls {
		c := &calls[i]
		w.note(c)
		w.count(c)
		switch {
		case c.Record == nil && c.Known == nil && (w.naive[c.Contact] == nil || w.away[c.Contact]):
			continue // it hands over what nothing is due of
		case c.Taken && c.Known.Contact == nil && w.away[c.Contact]:
			continue // killed and done again: the first that it handed over counts
		case c.Taken && !c.Anew:
			w.forgetReader(c.Contact)
		}
		w.away[c.Contact] = c.Taken && c.Known.Contact == nil
		n := w.reader(c.Contact, c)
		said := len(n.Story)
		w.read(n, c)
		for _, l := range n.Story[said:] {
			w.told[c.Contact] = append(w.told[c.Contact], l.String())
		}
	}
	for i := range saved {
		w.save(&saved[i])
	}
}

// count looks whether each record is stepped that has a number, in order.
func (w *journeying) count(c *derive.Call[journeys.State]) {
	r := c.Record
	switch {
	case c.Taken && c.Known.Contact != nil:
		w.seq[c.Contact] = c.Known.Contact.Seq
	case c.Taken, r == nil || r.Event == nil && (r.Fact == nil || r.Fact.WriterSeq > 0):
	case r.Seq != w.seq[c.Contact]+1:
		w.Fault("%s is stepped with record %d after %d", c.Contact, r.Seq, w.seq[c.Contact])
	default:
		w.seq[c.Contact] = r.Seq
	}
}

// note keeps what the logic was asked, for whoever looks at a fault.
func (w *journeying) note(c *derive.Call[journeys.State]) {
	what := "hands over"
	switch r := c.Record; {
	case r == nil && c.Known != nil:
		what = fmt.Sprintf("taken over %v, anew %v, filled", c.Taken, c.Anew)
	case r == nil:
	case r.Event != nil:
		what = fmt.Sprintf("event %s %s of %s, received %s", r.Event.Name, r.Event.Properties, r.Event.OccurredAt.Format(clock), r.Event.ReceivedAt.Format(clock))
	case r.Fact != nil:
		what = fmt.Sprintf("%s of %s", r.Fact.Type, r.OccurredAt.Format(clock))
	case r.Timer != nil:
		what = fmt.Sprintf("timer of %s", r.Timer.Due.Format(clock))
	case r.Receipt != nil:
		what = fmt.Sprintf("receipt %s of %s", r.Receipt.OutboxID, r.OccurredAt.Format(clock))
	}
	w.trace = append(w.trace, fmt.Sprintf("%s %s, version %d, %s", c.Now.Format(clock), c.Contact[len(c.Contact)-1:], c.Version, what))
}

const clock = "02T15:04:05"

// read has a reader be given what the logic was.
func (w *journeying) read(n *journeystest.Naive, c *derive.Call[journeys.State]) {
	r := c.Record
	switch {
	case r == nil && c.Known == nil: // it hands over
		n.At(c.Now)
	case c.Taken:
		var props journeystest.Object
		if c.Known.Contact != nil {
			props = object(c.Known.Contact.Properties)
		}
		n.TakenOver(c.Now, happened(c.Known.Events), props, buckets(c.Known.Beside), c.Known.Contact == nil)
	case r == nil:
		n.Filled(c.Now, buckets(c.Known.Beside))
	case r.Timer != nil:
		n.At(earlier(r.Timer.Due, c.Now).Add(time.Microsecond))
	case r.Receipt != nil:
		n.At(earlier(r.OccurredAt, c.Now))
		n.Answered(r.Receipt.OutboxID, r.Receipt.Result == schemas.ReceiptAccepted)
	case r.Event != nil:
		n.At(earlier(r.Event.ReceivedAt, c.Now))
		n.Record(journeystest.Happening{At: r.OccurredAt, ID: r.ID, Name: r.Event.Name, Props: object(r.Event.Properties)})
	default:
		w.readFact(n, r, c.Now)
	}
}

func (w *journeying) readFact(n *journeystest.Naive, r *derive.Record[journeys.State], now time.Time) {
	f := r.Fact
	h := journeystest.Happening{At: r.OccurredAt, ID: r.ID, Name: f.Type, Props: journeystest.Object{}}
	switch {
	case f.Bucket != nil && f.ContactID != r.ContactID: // of one that was merged into this one
		return
	case f.Bucket != nil:
		h.About, h.Epoch, now = f.Bucket.BucketID, f.Bucket.EntryCount, earlier(r.OccurredAt, now)
	case f.Contact != nil:
		h.Props, now = object(f.Contact.Properties), earlier(f.Contact.UpdatedAt, now)
	case f.Merged != nil:
		h.Props, now = object(f.Merged.Properties), earlier(r.Place.AppendedAt, now)
	}
	n.At(now)
	if r.Loser != nil && w.naive[r.Loser.ContactID] != nil {
		n.Merge(w.naive[r.Loser.ContactID], h)
		return
	}
	n.Record(h)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func object(text string) (out journeystest.Object) {
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		panic(err)
	}
	return out
}

func buckets(b *storage.Beside) map[string]int64 {
	if b == nil {
		return nil
	}
	return b.Buckets
}

func happened(events []storage.StoredEvent) (out []journeystest.Happening) {
	for _, e := range events {
		out = append(out, journeystest.Happening{At: e.OccurredAt, ID: e.ID, Name: e.Name, Props: object(e.Properties)})
	}
	return out
}

// --- what must hold ---

// save notes what is saved of a contact.
func (w *journeying) save(ch *derive.Change[journeys.State]) {
	if ch.Forget {
		w.erased[ch.ContactID] = true
		return
	}
	for _, c := range ch.State.Changes() {
		w.changes = append(w.changes, c)
		w.saved[ch.ContactID] = append(w.saved[ch.ContactID], lineOf(&c).String())
		w.goOn(ch.ContactID, &c)
	}
	for run, contact := range w.where {
		if ch.Survivor != "" && contact == ch.ContactID {
			w.where[run] = ch.Survivor
		}
	}
}

// goOn notes where a run is.
func (w *journeying) goOn(contact string, c *machine.Change) {
	_, lives := w.where[c.Run]
	switch c.Kind {
	case machine.Started:
		if lives {
			w.Fault("run %s begins twice", c.Run)
		}
		w.where[c.Run] = contact
	case machine.Stepped:
		if !lives {
			w.Fault("run %s goes on that has not begun, or has ended: %+v", c.Run, c)
		}
		w.where[c.Run] = contact
	case machine.Completed, machine.Exited, machine.Failed:
		if !lives {
			w.Fault("run %s ends that has not begun, or has ended: %+v", c.Run, c)
		}
		delete(w.where, c.Run)
	}
}

// toldBy is what a fact says.
func toldBy(f *schemas.Fact) journeystest.Line {
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	j := f.Journey
	l := journeystest.Line{
		At: f.OccurredAt, Kind: strings.TrimPrefix(f.Type, "journey."), Journey: j.JourneyID, Key: text(j.Key), Step: text(j.Step), Outcome: text(j.Outcome), Reason: text(j.Reason),
	}
	if l.Step == "goal" {
		l.Kind, l.Step, l.Outcome = "converted", "", ""
	}
	return l
}

func lineOf(c *machine.Change) journeystest.Line {
	l := journeystest.Line{At: c.At, Kind: c.Kind, Journey: c.Journey, Key: strings.Trim(c.Key, `"`), Step: c.Step, Outcome: c.Outcome, Reason: c.Reason}
	if c.Kind == machine.Converted {
		l.Step, l.Outcome = "", ""
	}
	return l
}

func (w *journeying) judge() {
	for _, id := range w.IDs() {
		if told, story := strings.Join(w.told[id], "\n"), strings.Join(w.story[id], "\n"); told != story {
			w.Fault("%s: a reader tells\n%s\nand the facts\n%s\n\n%s", id, told, story, strings.Join(w.trace, "\n"))
		}
		// What comes in one batch with the end of all is not saved.
		if saved, story := strings.Join(w.saved[id], "\n"), strings.Join(w.story[id], "\n"); saved != story && w.end(id) != "" {
			w.Fault("%s: it is saved\n%s\nand told\n%s", id, saved, story)
		}
	}
	for _, id := range w.IDs() {
		if _, survivor, _ := w.Known(id); survivor != "" && !w.away[id] && w.seq[id] != w.Last(id) {
			w.Fault("%s was merged away when it was stepped with record %d of %d", id, w.seq[id], w.Last(id))
		}
	}
	w.judgeRuns()
	w.judgeErased()
}

// judgeRuns compares the runs that should go on with those that do, and each way with the graph.
func (w *journeying) judgeRuns() {
	live := map[string]string{}
	for _, id := range w.IDs() {
		state, _ := w.State(id)
		for _, r := range state.Runs() {
			if !r.Failed {
				live[r.ID] = id
			}
		}
	}
	for run, contact := range w.where {
		if w.end(contact) == "" {
			continue
		}
		if w.end(contact) != live[run] {
			w.Fault("run %s of %s is with %q instead of %q", run, contact, live[run], w.end(contact))
		}
		delete(live, run)
	}
	for run, contact := range live {
		w.Fault("%s has run %s, which ended, or never began", contact, run)
	}
	logic := w.sets[len(w.sets)-1].logic
	at := map[string]string{}
	for i := range w.changes {
		c := &w.changes[i]
		switch c.Kind {
		case machine.Skipped, machine.Converted:
			continue
		case machine.Stepped:
			if at[c.Run] != c.Step || !leads(logic.Program(c.Journey, c.Version), c) {
				w.Fault("run %s of %s goes from %q, where it is not, or to what does not follow: %+v", c.Run, c.Journey, at[c.Run], c)
			}
		case machine.Exited, machine.Failed:
			if at[c.Run] != c.Step {
				w.Fault("run %s of %s ends at %q, and is at %q", c.Run, c.Journey, c.Step, at[c.Run])
			}
		}
		at[c.Run] = c.Next
	}
}

// end is whom a contact was merged into at last; empty when that was erased.
func (w *journeying) end(id string) string {
	for {
		_, survivor, ended := w.Known(id)
		if !ended || survivor == "" {
			if ended {
				return ""
			}
			return id
		}
		id = survivor
	}
}

func leads(p *machine.Program, c *machine.Change) bool {
	for _, n := range p.Nodes() {
		for _, edge := range n.Next {
			if n.ID == c.Step && edge.Outcome == c.Outcome {
				return edge.To < 0 && c.Next == "" || edge.To >= 0 && p.Nodes()[edge.To].ID == c.Next
			}
		}
	}
	return false
}

// judgeErased looks for what should have been forgotten.
func (w *journeying) judgeErased() {
	for _, id := range w.IDs() {
		if len(w.story[id]) > 0 && w.end(id) == "" && !w.erased[id] {
			w.Fault("%s was erased, and nobody was told to forget it\n%s", id, strings.Join(w.trace, "\n"))
		}
		if w.erased[id] && w.end(id) != "" {
			w.Fault("%s is forgotten, and was not erased", id)
		}
	}
}

// Whatever comes between records and their steps, a reader who is given the same tells the
// same story, and nothing is lost, doubled or left.
func TestJourneysAreWhatAReaderMakesOfThemWhateverHappensToTheFrame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newJourneying(rt, func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "n") })
		defer w.leave()
		require.Empty(rt, w.Run(rapid.IntRange(10, 200).Draw(rt, "steps")))
	})
}

func (w *journeying) leave() {
	for id := range w.naive {
		w.forgetReader(id)
	}
}

// Each rule of the frame is switched off here, and then journeys go wrong.
func TestJourneysNeedEachRuleOfTheOrderOfAContact(t *testing.T) {
	for name := range derive.Rules {
		t.Run(name, func(t *testing.T) {
			require.NotEmpty(t, firstJourneyFault(t, name), "no fault appears without the rule")
		})
	}
}

func firstJourneyFault(t *testing.T, without ...string) string {
	for seed := range uint64(1000) {
		w := newJourneying(t, rand.New(rand.NewPCG(seed, 0)).IntN)
		w.Off(without...)
		fault := w.Run(200)
		w.leave()
		if fault != "" {
			return fault
		}
	}
	return ""
}
