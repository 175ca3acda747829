package processors_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/order"
)

// Whatever the inputs, the interleaving of partitions, batches that fail and are halved,
// transactions that are repeated or rolled back, and rebuilds: whoever reads topics
// events and lifecycle sees each contact's numbers once and in causal order.
func TestAReaderOfBothTopicsSeesEveryNumberOfAContactOnceAndInOrder(t *testing.T) {
	db := storagetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		clearTables(t.Context(), rt, db)
		p := newPumpOn(t.Context(), rt, db, contacts.Config{Followers: []string{"buckets"}, Repeats: 1000})
		m := newModel()
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			randomOrderStep(rt, p, m)
		}
		for p.busy() {
			stepIdentity(rt, p, m)
			stepContacts(rt, p)
		}
		judgeOrder(rt, p)
	})
}

func randomOrderStep(rt *rapid.T, p *pump, m *model) {
	switch rapid.IntRange(0, 19).Draw(rt, "happens") {
	case 0:
		p.repeat(&p.ingest[rapid.IntRange(0, partitions-1).Draw(rt, "of identity")])
	case 1:
		p.repeat(&p.resolved[rapid.IntRange(0, partitions-1).Draw(rt, "of contacts")])
	case 2:
		p.clock = p.clock.Add(time.Second)
		rebuild(rt, p, 3)
	case 3:
		rollBack(rt, p)
	default:
		randomStep(rt, p, m)
		if n := len(p.sent); n > 0 && rapid.IntRange(0, 9).Draw(rt, "too large") == 0 {
			p.refused[schemas.EventID(p.sent[n-1].ID)] = true
		}
	}
}

var errRolledBack = errors.New("rolled back")

// rollBack lets contacts apply what is next of a partition, and not commit.
func rollBack(rt *rapid.T, p *pump) {
	l := &p.resolved[rapid.IntRange(0, partitions-1).Draw(rt, "rolled back")]
	if l.next == len(l.records) {
		return
	}
	failed := p.db.InTx(p.ctx, func(tx *storage.Tx) error {
		b := loop.NewBatch(p, p.clock, l.records[l.next:])
		_ = p.contacts.Apply(p.ctx, tx, b) // too large, or not
		return errRolledBack
	})
	require.ErrorIs(rt, failed, errRolledBack)
}

// place is a number of a contact and what bears it.
type place struct {
	seq   int64
	id    string
	cause int64
	event bool
}

// judgeOrder knows nothing of how numbers are given: it reads what was published, as a
// consumer does, and compares it with rows, snapshots and signals.
func judgeOrder(rt *rapid.T, p *pump) {
	type order struct {
		contact string
		era     int64
	}
	places := map[order][]place{}
	newest := map[string]order{}
	say := func(contact string, era int64, at place) {
		o := order{contact, era}
		require.GreaterOrEqual(rt, era, newest[contact].era, "an era of %s is over when the next begins", contact)
		newest[contact] = o
		for _, before := range places[o] {
			if before.seq == at.seq {
				require.Equal(rt, before.id, at.id, "two records of %s have number %d", contact, at.seq)
				return // published twice
			}
			if before.event == at.event {
				require.Less(rt, before.seq, at.seq, "on one topic")
			}
		}
		places[o] = append(places[o], at)
	}
	last := func(contact string, era int64) (seq int64) {
		for _, at := range places[order{contact, era}] {
			seq = max(seq, at.seq)
		}
		return seq
	}
	ended := map[string]bool{}
	judgeNumbers(rt, p)
	for _, out := range p.log {
		switch m := out.m.(type) {
		case *schemas.Fact:
			require.Positive(rt, m.Seq)
			if m.Type == schemas.FactContactCreated {
				require.EqualValues(rt, 1, m.Seq, "contact.created is the first")
			}
			ended[m.ContactID] = ended[m.ContactID] || m.Type == schemas.FactContactDeleted
			say(m.ContactID, m.Era, place{m.Seq, m.ID, out.cause, false})
		case *schemas.Event:
			say(m.ContactID, m.Era, place{m.Seq, m.ID, out.cause, true})
		case *schemas.Contact:
			if !ended[m.ID] { // one that is published twice comes late
				require.LessOrEqual(rt, m.Seq, last(m.ID, m.Era), "a snapshot says what was said before it")
			}
		case *schemas.Signal:
			ended[m.ContactID] = true
			if m.Merged != nil {
				require.Equal(rt, last(m.ContactID, m.Merged.Era), m.Merged.Seq, "the last number of a loser")
			} else {
				require.Equal(rt, last(m.ContactID, m.Deleted.Era), m.Deleted.Seq, "the last number of who was deleted")
			}
		}
	}
	for o, all := range places {
		slices.SortFunc(all, func(a, b place) int { return int(a.seq - b.seq) })
		for i, at := range all {
			require.EqualValues(rt, i+1, at.seq, "a hole in the numbers of %s", o.contact)
			if i > 0 {
				require.LessOrEqual(rt, all[i-1].cause, at.cause, "numbers of %s are in the order of what they follow from", o.contact)
			}
			if i > 0 && all[i-1].cause == at.cause {
				require.False(rt, all[i-1].event, "the event comes after the facts of its record")
			}
		}
	}
	judgeRows(rt, p, last)
}

// judgeNumbers asks the judge that operators ask (topics check-order). A transaction that
// is repeated repeats its numbers.
func judgeNumbers(rt *rapid.T, p *pump) {
	judge := order.NewJudge(false)
	for i, out := range p.log {
		m := out.m.Meta()
		if topic := out.m.Topic(); topic == schemas.TopicEvents || topic == schemas.TopicLifecycle {
			judge.Add(order.Record{Contact: out.key, Seq: m.Seq, Era: m.Era, Topic: topic, Partition: partitionOf(out.key), Offset: int64(i)})
		}
	}
	report := judge.Report()
	require.Zero(rt, report.Missing+report.Disorder+report.Lost+report.Unnumbered+report.Foreign, report.Findings)
	require.Equal(rt, report.Records, report.Numbers+report.Repeated)
}

// judgeRows compares the rows with what was said.
func judgeRows(rt *rapid.T, p *pump, last func(contact string, era int64) int64) {
	rows, err := storagetest.SQL(p.db).Query(p.ctx, `SELECT id::text, seq, era, partition FROM contacts`)
	require.NoError(rt, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		var seq, era int64
		var partition *int32
		require.NoError(rt, rows.Scan(&id, &seq, &era, &partition))
		require.Equal(rt, last(id, era), seq, "the row of %s", id)
		require.NotNil(rt, partition)
		require.Equal(rt, partitionOf(id), *partition)
		if p.snapshots[id].Era == era {
			require.LessOrEqual(rt, p.snapshots[id].Seq, seq)
		}
	}
	require.NoError(rt, rows.Err())
	said := map[string]*schemas.Event{}
	for _, e := range p.events {
		said[e.ID] = e
	}
	stored, err := storagetest.SQL(p.db).Query(p.ctx, `SELECT id::text, seq, era FROM events`)
	require.NoError(rt, err)
	defer stored.Close()
	for stored.Next() {
		var id string
		var seq, era int64
		require.NoError(rt, stored.Scan(&id, &seq, &era))
		require.Equal(rt, []int64{said[id].Seq, said[id].Era}, []int64{seq, era}, "stored event %s", id)
	}
	require.NoError(rt, stored.Err())
}

// numbersOf are the numbers of a contact on both topics by what bears them, in order.
func (p *pump) numbersOf(contact string) (seqs []int64, what []string) {
	for _, out := range p.log {
		if out.key != contact {
			continue
		}
		switch m := out.m.(type) {
		case *schemas.Fact:
			seqs, what = append(seqs, m.Seq), append(what, m.Type)
		case *schemas.Event:
			seqs, what = append(seqs, m.Seq), append(what, m.Name)
		}
	}
	return seqs, what
}

func TestEveryKindOfFactAndEveryEventTakesTheNextNumber(t *testing.T) {
	p := newPump(t, contacts.Config{Followers: []string{"buckets", "journeys"}})
	p.do(put(user("other")), event("seen", user("U"), email("e@b.co"), props(`{"a":1}`)),
		put(user("U"), lists(map[string]bool{"news": false})), event("clash", user("other"), email("e@b.co")))
	c, other := p.find(schemas.KindExternal, "U"), p.find(schemas.KindExternal, "other")
	seqs, what := p.numbersOf(c.ID)
	require.Equal(t, []string{schemas.FactContactCreated, "seen", schemas.FactContactUnsubscribed}, what)
	require.Equal(t, []int64{1, 2, 3}, seqs)
	require.EqualValues(t, 3, c.Seq)
	require.EqualValues(t, 3, p.snapshots[c.ID].Seq)
	seqs, what = p.numbersOf(other.ID)
	require.Equal(t, []string{schemas.FactContactCreated, schemas.FactContactConflict, "clash"}, what)
	require.Equal(t, []int64{1, 2, 3}, seqs)
	require.EqualValues(t, 1, p.snapshots[other.ID].Seq, "a snapshot is written when something changed")
	require.EqualValues(t, 3, p.find(schemas.KindExternal, "other").Seq)
}

func TestASurvivorGoesOnWithItsOwnNumbersAndTheSignalCarriesTheLosersLast(t *testing.T) {
	p := newPump(t, contacts.Config{Followers: []string{"buckets", "journeys"}})
	p.do(event("1", email("e@b.co")), event("2", email("e@b.co")), put(user("U")))
	loser, survivor := p.find(schemas.KindEmail, "e@b.co"), p.find(schemas.KindExternal, "U")
	p.do(event("merges", user("U"), email("e@b.co")))
	require.Len(t, p.signals, 2)
	for i, follower := range []string{"buckets", "journeys"} {
		s := p.signals[i]
		require.Equal(t, []string{follower, schemas.SignalMerged, loser.ID}, []string{s.For, s.Type, s.ContactID})
		require.Equal(t, &schemas.MergedSignal{Survivor: survivor.ID, Seq: 3}, s.Merged)
	}
	// A record of the loser that comes late is numbered by the survivor.
	in := event("late", email("e@b.co"))
	in.ID, in.ReceivedAt, in.OccurredAt = schemas.Derive("late", "test", 0), p.clock, p.clock
	p.resolve(&schemas.Resolved{ID: schemas.Derive(in.ID, "resolved", 0), Type: schemas.ResolvedInput, ContactID: loser.ID, OccurredAt: p.clock, Input: in})
	p.drain()
	seqs, what := p.numbersOf(survivor.ID)
	require.Equal(t, []int64{1, 2, 3, 4}, seqs[:4])
	require.Equal(t, schemas.FactContactCreated, what[0])
	require.Contains(t, what, schemas.FactContactMerged)
	require.Equal(t, "late", what[len(what)-1])
	seqs, _ = p.numbersOf(loser.ID)
	require.Equal(t, []int64{1, 2, 3}, seqs)
	require.Equal(t, 1, p.count("contact_marks", "contact_id = $1 AND partition = $2", loser.ID, partitionOf(loser.ID)))
}

func TestADeletionTakesTheLastNumberAndWhoComesBackBeginsAtOne(t *testing.T) {
	p := newPump(t, contacts.Config{Followers: []string{"buckets"}})
	p.do(event("1", user("U")))
	before := p.find(schemas.KindExternal, "U").ID
	p.do(remove(user("U")), event("2", user("U")))
	seqs, what := p.numbersOf(before)
	require.Equal(t, []string{schemas.FactContactCreated, "1", schemas.FactContactDeleted}, what)
	require.Equal(t, []int64{1, 2, 3}, seqs)
	require.Equal(t, &schemas.DeletedSignal{Seq: 3}, p.signals[0].Deleted)
	require.Equal(t, schemas.SignalDeleted, p.signals[0].Type)
	seqs, _ = p.numbersOf(p.find(schemas.KindExternal, "U").ID)
	require.Equal(t, []int64{1, 2}, seqs)
}

func TestWhatIsGivenUpAsTooLargeTakesNoNumber(t *testing.T) {
	p := newPump(t, contacts.Config{})
	large := event("large", user("U"), props(`{"plan":"pro"}`))
	large.ID = schemas.Derive("large", "test", 0)
	p.refused[schemas.EventID(large.ID)] = true
	for _, in := range []*schemas.Input{event("1", user("U")), large, event("2", user("U")), event("3", user("U"))} {
		p.send(in)
	}
	p.drain() // one batch, which fails and is halved
	c := p.find(schemas.KindExternal, "U")
	seqs, what := p.numbersOf(c.ID)
	require.Equal(t, []string{schemas.FactContactCreated, "1", "2", "3"}, what)
	require.Equal(t, []int64{1, 2, 3, 4}, seqs)
	require.EqualValues(t, 4, c.Seq)
	require.Equal(t, "{}", c.Properties, "nothing of it was applied")
	require.Len(t, p.dead, 1)
}

func TestWhatIdentityRepeatsIsSkipped(t *testing.T) {
	p := newPump(t, contacts.Config{Repeats: 10})
	p.do(event("1", user("U")), event("2", user("U"), props(`{"a":1}`)))
	p.repeat(&p.ingest[partitionOf("u:U")])
	p.drain()
	c := p.find(schemas.KindExternal, "U")
	_, what := p.numbersOf(c.ID)
	require.Equal(t, []string{schemas.FactContactCreated, "1", schemas.FactContactUpdated, "2"}, what)
	require.EqualValues(t, 4, c.Seq)

	// An operator who has an offset accepted wants the records read again.
	l := &p.resolved[partitionOf(c.ID)]
	l.next--
	p.drain()
	_, what = p.numbersOf(c.ID)
	require.Len(t, what, 4, "the repetition is still one")
	l.next = 0
	p.drain()
	require.EqualValues(t, 6, p.find(schemas.KindExternal, "U").Seq)

	for range 12 {
		p.do(event("more", user("U")))
	}
	require.Equal(t, 10, p.count("contact_inputs", "true"), "no more are remembered")
}

func TestARebuildBeginsAnEraInWhichNumbersBeginAtOne(t *testing.T) {
	p := newPump(t, contacts.Config{Followers: []string{"buckets"}})
	p.do(event("1", user("U")), event("2", user("U")))
	id := p.find(schemas.KindExternal, "U").ID
	rebuild(t, p, 1000)
	c := p.find(schemas.KindExternal, "U")
	require.Equal(t, []int64{0, p.clock.Unix()}, []int64{c.Seq, c.Era})
	first := c.Era
	rebuild(t, p, 1000)
	p.do(event("3", user("U")), event("new", user("V")), remove(user("U")))
	last := p.events[len(p.events)-1]
	require.Equal(t, []int64{2, first + 1}, []int64{last.Seq, last.Era}, "a later era in the same second, of contacts that are new too")
	require.Equal(t, &schemas.DeletedSignal{Seq: 2, Era: first + 1}, p.signals[0].Deleted)
	seqs, _ := p.numbersOf(id)
	require.Equal(t, []int64{1, 2, 3, 1, 2}, seqs)

	// A database that was lost knows nothing of eras.
	clearTables(p.ctx, t, p.db)
	p.clock = p.clock.Add(time.Minute)
	rebuild(t, p, 1000)
	require.Greater(t, p.find(schemas.KindExternal, "V").Era, first+1)
	require.Equal(t, 1, p.count("events", "true"), "those of who lives come back from the log")
	require.Equal(t, 1, p.count("events", "name = 'new' AND seq = 2 AND era = $1", first+1))
}

func TestAContactFromBeforeNumberingBeginsAtOne(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(event("1", user("U")))
	_, err := storagetest.SQL(p.db).Exec(p.ctx, `UPDATE contacts SET seq = 0, partition = NULL`)
	require.NoError(t, err)
	p.do(event("2", user("U")), event("3", user("U"), props(`{"a":1}`)))
	c := p.find(schemas.KindExternal, "U")
	seqs, _ := p.numbersOf(c.ID)
	require.Equal(t, []int64{1, 2, 1, 2, 3}, seqs)
	require.EqualValues(t, 3, c.Seq)
}

// What a journey sets of a contact goes the usual road, and says how far it had come.
func TestChangesFromInsideKeepTheirHops(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(user("U")))
	inside := put(props(`{"plan":"pro"}`))
	inside.ContactID, inside.Hops = new(p.find(schemas.KindExternal, "U").ID), 7
	p.do(inside)
	hops := map[string]int{}
	for _, f := range p.facts {
		hops[f.Type] = f.Hops
	}
	require.Equal(t, map[string]int{schemas.FactContactCreated: 0, schemas.FactContactUpdated: 7}, hops)
}
