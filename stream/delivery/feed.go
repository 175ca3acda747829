package delivery

import (
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// feed reads on from the log at every cursor of the track, as far as there are
// records and room, and starts what can start.
//
// low takes the lowest place of any track on each topic.
func (c *courier) feed(t *track, r *reader.Reader, low map[schemas.Topic]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.retired || c.halted {
		return
	}
	for _, p := range t.places {
		c.feedPlace(t, p, r)
		if p.orphaned || p.end >= 0 && p.cursor.Next() >= p.end {
			continue // needs no more of the log, however long the track stays for what is parked
		}
		if at, ok := low[p.topic]; !ok || p.cursor.Next() < at {
			low[p.topic] = p.cursor.Next()
		}
	}
	c.enqueue(t)
	c.dispatch()
	if t.cursorMoved() {
		c.env.flush.markMoved(t)
	}
	if t.ended() {
		c.env.refresh()
	}
}

func (c *courier) feedPlace(t *track, p *place, r *reader.Reader) {
	for !t.full && (p.end < 0 || p.cursor.Next() < p.end) {
		seen := r.At(stream.TopicPartition{Topic: p.topic, Partition: t.partition}, p.id, p.cursor.Next(), t.backfill != nil)
		if c.orphaned(t, p, seen.ID) {
			return
		}
		switch {
		case seen.Gap > 0:
			c.skipGap(t, p, seen.Gap)
		case seen.Chunk == nil:
			return
		case !t.admit(p, seen.Chunk):
			return
		}
	}
}

// admit puts the wanted records of a chunk that the cursor has not seen yet into
// lanes, until the window is full. It reports whether all of the chunk was seen.
func (t *track) admit(p *place, c *reader.Chunk) bool {
	wanted, few := p.match(c, t.courier.subscription, t.backfill)
	records := c.Records
	first := sort.Search(len(records), func(i int) bool { return records[i].Offset >= p.cursor.Next() })
	for i := first; i < len(records); i++ {
		r := &records[i]
		if p.end >= 0 && r.Offset >= p.end {
			p.advance(p.end)
			return false
		}
		if !wanted[c.Kind[i]] && (r.Unreadable == nil || p.answers) || r.Offset < p.cursor.Next() || !t.backfill.takesKey(r.Key) {
			continue
		}
		if t.windowFull(r.Size()) || t.aheadOfPace() {
			// What lies before is known to be unwanted; the next look starts here.
			p.advance(r.Offset)
			return false
		}
		it := item{record: r, place: p}
		err := undeliverable(r)
		if p.answers && err == nil {
			if it.ask, err = t.courier.env.ask(r); errors.Is(err, schemas.ErrRegistryUnavailable) {
				p.advance(r.Offset)
				time.AfterFunc(time.Second, t.holding.wake)
				return false
			}
		}
		if !p.cursor.Admit(r.Offset) {
			continue
		}
		if few {
			r = r.Clone()
			it.record = r
		}
		if err != nil {
			t.count(1, r.Size())
			t.courier.giveUp(t, it, "undecodable", err)
			t.courier.metrics.dead.Inc()
			continue
		}
		if t.isParked(r.Key) {
			t.count(1, r.Size())
			t.divert(it)
		} else {
			t.enqueue(it)
		}
	}
	p.advance(c.To)
	return true
}

// undeliverable is why a record is given up before it is in a lane: nobody can say whether it
// is wanted, or what its lane is.
func undeliverable(r *stream.Record) error {
	if r.Unreadable == nil && (len(r.Key) > maxKey || !stream.IsText(r.Key)) {
		return errKey
	}
	return r.Unreadable
}

// errKey is why a record is given up before an attempt is made: its key has no
// place in the delivery log, nor in Postgres when it has to wait.
var errKey = fmt.Errorf("the record's key is not text in UTF-8 of at most %d bytes", maxKey)

// maxKey fits into an index of Postgres. Our own keys are contact ids.
const maxKey = 1 << 10

// match evaluates the subscription once for each type in the chunk. few says that
// less than a quarter of the chunk is wanted: a record is a slice of the whole that
// it was read with, and one that is open keeps all of that in memory.
func (p *place) match(c *reader.Chunk, s schemas.Subscription, b *backfill) (wanted []bool, few bool) {
	p.wanted = p.wanted[:0]
	all := true
	for _, typ := range c.Kinds {
		is := s.Matches(typ) && b.takes(typ)
		p.wanted = append(p.wanted, is)
		all = all && is
	}
	if all {
		return p.wanted, !b.takesAllKeys()
	}
	size := 0
	for i, kind := range c.Kind {
		if i < len(c.Records) && p.wanted[kind] {
			size += c.Records[i].Size()
		}
	}
	return p.wanted, size < c.Bytes/4 || !b.takesAllKeys()
}

func (p *place) advance(to int64) {
	if p.end >= 0 {
		to = min(to, p.end)
	}
	if to > p.cursor.Next() {
		p.cursor.Advance(to)
		p.changed = true
	}
}

// windowFull says whether one more record of this size would be too much, and
// remembers it, so that finishing some calls feed again.
func (t *track) windowFull(size int) bool {
	env := t.courier.env
	window := env.cfg.Window
	if t.courier.circuit.open {
		window /= 4 // Kafka is the buffer
	}
	full := t.open >= window || t.openBytes+size > env.cfg.WindowBytes || !t.mayHold(size)
	if !full || t.open == 0 {
		return false
	}
	t.full, t.wakeAt = true, t.open*3/4
	t.spill()
	return true
}

// heldMin is what of HeldBytes each track has for itself, when there are not too many.
const heldMin = 256 << 10

// mayHold says whether the track's part of the process's memory allows for one more
// record. A quarter is divided evenly among all tracks. Of the rest a destination has
// as much as is left over by all of them together, and a third at most: destinations
// that are stuck with what they hold leave room for one that is not, however many
// they are. Backfills have half of that.
func (t *track) mayHold(size int) bool {
	c := t.courier
	most := c.env.cfg.HeldBytes / 4
	if int64(t.openBytes+size) <= min(heldMin, most/max(1, c.env.tracks.Load())) {
		return true
	}
	most *= 3
	if t.backfill != nil {
		most /= 2
	}
	return c.held+int64(size) <= min(most/3, most-c.env.held.Load())
}

// skipGap takes note of records that retention removed before they were read:
// one dead letter names the range, and the cursor goes on at the log's start.
func (c *courier) skipGap(t *track, p *place, start int64) {
	from := p.cursor.Next()
	if p.end >= 0 {
		start = min(start, p.end)
	}
	if !p.cursor.Admit(from) {
		return
	}
	p.advance(start)
	r := &stream.Record{Topic: p.topic, Partition: t.partition, Offset: from, AppendTime: time.Now()}
	t.count(1, r.Size())
	d := c.giveUp(t, item{record: r, place: p}, "gap",
		fmt.Errorf("retention removed offsets %d to %d before they were delivered", from, start-1))
	d.EndOffset = &start
	c.metrics.gaps.Inc()
	c.env.log.Error("delivery.gap", zap.String("destination", c.dest.Name), zap.String("topic", string(p.topic)),
		zap.Int32("partition", t.partition), zap.Int64("from", from), zap.Int64("to", start))
}

// giveUp makes a dead letter of a record that is admitted and in no lane.
func (c *courier) giveUp(t *track, it item, reason string, failure error) *schemas.DeadLetter {
	f := c.newFlight(t)
	f.add(it)
	d := stream.NewDeadLetter(it.record, "destination:"+c.dest.Name, reason, failure, time.Now())
	d.DestinationID = &c.id
	f.dead = []schemas.Message{d}
	c.again.push(f)
	return d
}

// orphaned says whether the place is on the log of a former topic: nothing is read for
// it until an operator says from where to go on. A place that does not know its log
// yet, from before ids were kept, takes the one that is read now.
func (c *courier) orphaned(t *track, p *place, now uuid.UUID) bool {
	if p.id == uuid.Nil && now != uuid.Nil {
		p.id, p.changed = now, true
	}
	orphaned := storage.OtherLog(p.id, now)
	if orphaned && !p.orphaned {
		c.env.log.Error("delivery.partition_stopped", zap.String("destination", c.dest.Name), zap.String("topic", string(p.topic)),
			zap.Int32("partition", t.partition), zap.Int64("position", p.cursor.Position()), zap.String("replay_id", t.replay),
			zap.String("why", stream.MadeAnew(p.topic, p.id, now)), zap.String("mend", stream.MendOrphan(c.dest.Name, t.replay)))
	}
	p.orphaned = orphaned
	return orphaned
}

// orphaned is how many cursors of a destination, or of all when it is "", wait for an
// operator here.
func (s *Sinks) orphaned(destination string) (n int) {
	for _, t := range s.listTracks() {
		t.courier.mu.Lock()
		for _, p := range t.places {
			if p.orphaned && (destination == "" || t.courier.dest.Name == destination) {
				n++
			}
		}
		t.courier.mu.Unlock()
	}
	return n
}

// cursorMoved says whether a cursor moved without a result to report.
func (t *track) cursorMoved() bool {
	for _, p := range t.places {
		if p.changed {
			return true
		}
	}
	return false
}
