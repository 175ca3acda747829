package delivery

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// Whoever asks for an outbox record is to hear of its end also when nothing is sent to the
// destination: when that is paused, suspended or cannot be reached. So the owner of a partition
// looks at what stands still, wherever it is: in lanes and waiting for the next attempt, on the
// log beyond what was read, and parked. What is too late by then, was taken back, or is about
// somebody who was erased, ends with its receipt.

const (
	// endEvery is the poll interval for what ends while it stands still.
	endEvery = time.Second
	// endPieces is how many pieces of the log are looked at in one look at a cursor that stands
	// still, and endParked how many parked records.
	endPieces = 8
	endBytes  = 1 << 20
	endParked = 1000
)

// end ends what stands still until ctx ends.
func (s *Sinks) end(ctx context.Context) {
	tick := time.NewTicker(endEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.noted:
		}
		if err := s.endRound(ctx, time.Now()); err != nil && ctx.Err() == nil {
			s.log.Warn("delivery.end_failed", zap.Error(err))
			stream.Pause(ctx, time.Second)
		}
	}
}

func (s *Sinks) endRound(ctx context.Context, now time.Time) error {
	var answering []*track
	for _, t := range s.listTracks() {
		if t.answers() {
			answering = append(answering, t)
		}
	}
	if len(answering) == 0 {
		return nil
	}
	for _, c := range s.listCouriers() {
		c.endIdle(now)
	}
	if err := s.endAhead(ctx, answering, now); err != nil {
		return err
	}
	return s.endStored(ctx, answering, now)
}

// endIdle ends what waits in memory: in the lanes, and for the next attempt.
func (c *courier) endIdle(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answers := false
	for _, t := range c.tracks {
		if !t.retired && t.answers() {
			answers = true
			c.endLanes(t, now)
		}
	}
	if !answers {
		return
	}
	c.endWaiting(now)
	c.rearm()
	c.dispatch()
}

// endWaiting ends records of flights that are not in flight now.
func (c *courier) endWaiting(now time.Time) {
	stays := func(f *flight) bool { return f.track.retired || f.notAfter().IsZero() || c.dropUnwanted(f, now) }
	later := c.later
	c.later = nil
	for _, f := range later {
		if stays(f) {
			c.later.add(f)
		}
	}
	for range c.again.len() {
		if f := c.again.pop(); stays(f) {
			c.again.push(f)
		}
	}
	for _, t := range c.tracks {
		t.waiting = slices.DeleteFunc(t.waiting, func(f *flight) bool { return !stays(f) })
	}
}

// endLanes ends what is queued in lanes. A lane that was loaded from Postgres goes back there
// when something of it has ended and nothing is delivered: the look at what is parked ends it.
func (c *courier) endLanes(t *track, now time.Time) {
	gone := map[Verdict]*flight{}
	empty := false
	for key, l := range t.lanes {
		if l.parked != nil {
			empty = c.unloadEnded(t, l, now) || empty
			continue
		}
		for range l.queue.len() {
			it := l.queue.pop()
			v, ended := c.env.ended(&it, now)
			if !ended || it.ask == nil {
				l.queue.push(it)
				continue
			}
			if gone[v] == nil {
				gone[v] = c.newFlight(t)
				gone[v].tries = 1
			}
			it.lane = nil // it is in no flight of its lane
			gone[v].add(it)
		}
		if l.queue.len() > 0 || l.busy > 0 {
			continue
		}
		empty = true
		if t.isParked([]byte(key)) {
			c.env.loader.wake() // spilled: it goes on from Postgres
		}
		delete(t.lanes, key)
		c.freeLane(l)
	}
	if empty {
		t.dropEmptyLanes()
	}
	for v, f := range gone {
		out := Outcome{Verdict: v}
		c.logAttempt(f, out, now)
		c.finish(f, &out)
	}
	if len(gone) > 0 {
		c.enqueue(t)
		c.env.flush.mark(t)
	}
}

// unloadEnded takes a loaded lane out of memory that has something ended in it and stands still.
func (c *courier) unloadEnded(t *track, l *lane, now time.Time) bool {
	if l.busy > 0 || !c.halted && !c.circuit.open {
		return false // its turn comes
	}
	for i := range l.queue.len() {
		it := l.queue.at(i)
		if _, ended := c.env.ended(&it, now); !ended {
			continue
		}
		for l.queue.len() > 0 {
			t.evict(l.queue.pop())
		}
		c.drop(t, l)
		return true
	}
	return false
}

// dropEmptyLanes takes lanes without records out of those that are ready.
func (t *track) dropEmptyLanes() {
	for range t.ready.len() {
		if l := t.ready.pop(); l.queue.len() > 0 {
			t.ready.push(l)
		}
	}
}

// ahead is what was looked at of the log beyond a cursor.
type ahead struct {
	to   int64     // up to here
	due  time.Time // when the first of it that is open is too late; zero for none
	seen int64     // notes that had come by then
}

// standing is where to look on at the log beyond the cursor of a track; false when it is read
// on, or when there is nothing to look at.
func (t *track) standing(p *place, tail int64, now time.Time) (from int64, ok bool) {
	c := t.courier
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.retired || p.orphaned || !c.halted && !c.circuit.open {
		return 0, false
	}
	if notes := c.env.notes.Load(); p.ahead.seen != notes || !p.ahead.due.IsZero() && !now.Before(p.ahead.due) {
		p.ahead = ahead{seen: notes}
	}
	from = max(p.cursor.Next(), p.ahead.to)
	return from, from < tail
}

// endAhead ends what lies on the log beyond cursors that stand still.
func (s *Sinks) endAhead(ctx context.Context, tracks []*track, now time.Time) error {
	var log *reader.Scanner
	for _, t := range tracks {
		for _, p := range t.places {
			if !p.answers {
				continue
			}
			tail := t.holding.strays.tail()
			from, ok := t.standing(p, tail, now)
			for piece := 0; ok && piece < endPieces && from < tail; piece++ {
				if log == nil {
					var err error
					admin := &stream.Admin{Config: s.kafka, Client: s.reader.Far, Kadm: kadm.NewClient(s.reader.Far)}
					if log, err = reader.NewScanner(ctx, admin, schemas.TopicOutbox); err != nil {
						return err
					}
				}
				key := stream.TopicPartition{Topic: p.topic, Partition: t.partition}
				if storage.OtherLog(p.id, log.Leaders[key].ID) {
					break
				}
				chunk, err := log.Read(ctx, key, from, endBytes)
				if reader.IsOutOfRange(err) || err == nil && chunk == nil {
					break // retention passed, which the feed tells; or a transaction is open
				}
				if err != nil {
					return err
				}
				t.endChunk(p, chunk, now)
				from = chunk.To
			}
		}
	}
	return nil
}

// endChunk ends what has ended of a part of the log that was not read into lanes.
func (t *track) endChunk(p *place, chunk *reader.Chunk, now time.Time) {
	c := t.courier
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.retired {
		return
	}
	for i := range chunk.Records {
		r := &chunk.Records[i]
		if r.Offset < p.cursor.Next() || r.Unreadable != nil || !c.subscription.Matches(r.Type) {
			continue
		}
		ask, err := c.env.ask(r)
		if err != nil {
			continue // it is given up when it is read
		}
		it := item{record: r, place: p, ask: ask}
		v, ended := c.env.ended(&it, now)
		switch {
		case ended && p.cursor.FinishAhead(r.Offset):
			t.endOne(it, v, now)
			t.unflushed++
			c.env.flush.pending.Add(1)
			p.changed = true
		case !ended && (p.ahead.due.IsZero() || ask.NotAfter.Before(p.ahead.due)):
			p.ahead.due = ask.NotAfter
		}
	}
	p.ahead.to = chunk.To
	if len(t.receipts) > 0 {
		c.env.flush.mark(t)
	}
}

// endOne tells and logs the end of a record that is in no lane.
func (t *track) endOne(it item, v Verdict, now time.Time) {
	c := t.courier
	f := c.newFlight(t)
	f.add(it)
	f.tries = 1
	out := Outcome{Verdict: v}
	c.logAttempt(f, out, now)
	f.tell(&out, now)
	c.freeFlight(f)
}

// endStored ends what is parked.
func (s *Sinks) endStored(ctx context.Context, tracks []*track, now time.Time) error {
	byTrack := map[storage.ParkedTrack]*track{}
	var asked []storage.ParkedTrack
	for _, t := range tracks {
		if t.lookAtParked() {
			defer t.endLook()
			asked = append(asked, t.parkedTrack())
			byTrack[t.parkedTrack()] = t
		}
	}
	if len(asked) == 0 {
		return nil
	}
	rows, err := s.db.EndedParked(ctx, asked, now, endParked)
	if err != nil {
		return err
	}
	for i := range rows {
		byTrack[rows[i].ParkedTrack].endParked(&rows[i], now)
	}
	return nil
}

// lookAtParked begins a look at what the track has parked; false when that is nothing.
func (t *track) lookAtParked() bool {
	t.courier.mu.Lock()
	defer t.courier.mu.Unlock()
	if t.retired || len(t.parking.marks) == 0 {
		return false
	}
	t.parking.gone = map[parkedPlace]bool{}
	return true
}

func (t *track) endLook() {
	t.courier.mu.Lock()
	defer t.courier.mu.Unlock()
	t.parking.gone = nil
}

// endParked ends a record that is parked, unless it was removed since it was read, or its key is
// in a lane, where its turn comes.
func (t *track) endParked(row *storage.ParkedRecord, now time.Time) {
	c := t.courier
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.parking.gone[parkedPlace{row.Topic, row.Offset}] {
		return
	}
	if o := t.parking.out[row.Key]; t.retired || o != nil && (o.loaded || o.unflushed > 0 && !o.ending) {
		return
	}
	r := recordOf(row)
	it := item{record: r, ask: c.env.askOfParked(row)}
	if it.ask == nil || slices.Contains(t.outKey(row.Key).ended, row.Offset) {
		return
	}
	v, ended := c.env.ended(&it, now)
	if !ended {
		return // a note that has not come yet
	}
	t.endOne(it, v, now)
	h := keyHash(r.Key)
	m := t.parking.marks[h]
	if m.rows--; m.rows > 0 {
		t.parking.marks[h] = m
	} else {
		delete(t.parking.marks, h)
	}
	o := t.outKey(row.Key)
	o.ending, o.ended = true, append(o.ended, row.Offset)
	t.unflushed++
	c.env.flush.pending.Add(1)
	t.op(row.Key, parkOp{kind: removeRecord, record: storage.ParkedRecord{
		ParkedTrack: t.parkedTrack(), Key: row.Key, Topic: row.Topic, Offset: row.Offset,
	}})
	if _, more := t.parking.marks[h]; !more {
		t.op(row.Key, parkOp{kind: saveKey, state: storage.ParkedKey{
			ParkedTrack: t.parkedTrack(), Key: row.Key, Reason: storage.ParkedSpilled, NextAttemptAt: dueFirst(now),
		}})
	}
	t.roomAgain()
}
