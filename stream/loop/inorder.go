package loop

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/stream"
)

// inOrder takes the records of a partition from its several topics in the order of their
// append times, also when one topic is further behind or has much larger records than
// another: what belongs together then comes together. As far as a topic is known to go on,
// the others of the partition wait for it; at its end it holds up nobody.
//
// What waits is bounded: a topic's partition that is ahead is not fetched while it has
// more than its share. The one that is waited for is always fetched, so this ends.
//
// What contacts said of a contact is numbered, across two topics. What was appended by one
// transaction is about as old on both, but not to the millisecond, so numbers decide there:
// of numbered records those of the first topic have a head start, and one whose number does
// not follow the last one of its contact gives way to what is between. This is a hint, and
// saves rows: what does come too early waits at the processor. By append times alone 39 of 100
// events did, and 25 buckets cost 1.2 of identity and contacts; so it is 0.8 (bench buckets).
//
// All topics are in one order, signals among them. A timer's signal that was read ahead of
// events would call somebody inactive whose events the processor has not read yet; a merge
// whose signal is behind would have its survivor wait.
//
// The intake's mutex is held when its methods are called.
type inOrder struct {
	topics  []string      // their names on the brokers: of the same time, records of the first come first
	most    int           // bytes that may wait, of all partitions
	overdue time.Duration // how long others wait for a topic that has records and brings none
	log     *zap.Logger
	parts   map[int32]*lanes
}

// lanes are the queues of a partition, a topic each.
type lanes struct {
	queues []*queue
	last   map[string]place // of a contact, the number that was released last; of some
	gap    time.Time        // since when the next record lacks the one before it; zero when it does not
	hasty  bool             // a gap was waited for in vain; what lacks something is released until more is fetched
}

// place is a number of a contact.
type place struct{ era, seq int64 }

// queue are the records of a topic's partition that were fetched and wait for others.
type queue struct {
	topic     string // its name on the brokers
	partition int32
	records   []*kgo.Record
	size      int
	next      int64     // behind what was fetched
	end       int64     // how far it can be read, as last heard
	since     time.Time // when others began to wait for it; zero when none did since it last brought something
	overdue   bool      // they wait no longer
	numbered  bool      // it has brought records with numbers

	seen    *kgo.Record // the first one, as it was looked at
	at      time.Time   // when it is to come
	place   place       // its number
	paused  bool        // it is not fetched
	unheard bool        // since it was not fetched, nothing was heard of its end
}

const (
	// orderedFetchBytes is how much of a partition is fetched at once when there are several
	// topics: little, so that an answer has something of all.
	orderedFetchBytes = 256 << 10
	// orderedFetchWait is how long a broker that has nothing may keep a fetch: one that is
	// under way does not ask for what is fetched again meanwhile.
	orderedFetchWait = 200 * time.Millisecond
	// headStart is by how much numbered records of the first topic come before those of
	// others: about as long as the requests take that bring one transaction.
	headStart = 50 * time.Millisecond
	// gapWait is how long a record waits for the one before it when that is not heard of: a
	// transaction becomes visible on one topic before it does on the other.
	gapWait = orderedFetchWait
	// unheardWait is how long others wait for a topic that is fetched again until something
	// is heard of its end: a fetch that is under way, and one more.
	unheardWait = 2 * orderedFetchWait
	// remembered bounds for how many contacts of a partition the last number is known: more
	// than two fetches bring.
	remembered = 4096
	// recordOverhead is about what a record takes in memory beyond its bytes.
	recordOverhead = 256
)

func newInOrder(topics []string, most int, overdue time.Duration, log *zap.Logger) *inOrder {
	return &inOrder{topics: topics, most: most, overdue: overdue, log: log, parts: make(map[int32]*lanes)}
}

// read begins a partition, from these places.
func (o *inOrder) read(partition int32, at map[string]logPlace) {
	l := &lanes{last: make(map[string]place)}
	for _, topic := range o.topics {
		if place, read := at[topic]; read {
			l.queues = append(l.queues, &queue{topic: topic, partition: partition, next: place.offset, end: place.end})
		}
	}
	o.parts[partition] = l
}

// forget ends a partition, and returns the topics that were not fetched.
func (o *inOrder) forget(partition int32) (paused []string) {
	for _, q := range o.queuesOf(partition) {
		if q.paused {
			paused = append(paused, q.topic)
		}
	}
	delete(o.parts, partition)
	return paused
}

func (o *inOrder) queuesOf(partition int32) []*queue {
	if l := o.parts[partition]; l != nil {
		return l.queues
	}
	return nil
}

// add has records wait that were fetched.
func (o *inOrder) add(topic string, p *kgo.FetchPartition) {
	queues := o.queuesOf(p.Partition)
	i := slices.IndexFunc(queues, func(q *queue) bool { return q.topic == topic })
	if i < 0 {
		return // it is not read any more
	}
	q := queues[i]
	q.end, q.unheard = max(q.end, p.LastStableOffset), false
	if len(p.Records) == 0 {
		return
	}
	q.records = append(q.records, p.Records...)
	q.size += weight(p.Records...)
	q.next = p.Records[len(p.Records)-1].Offset + 1
	q.since, q.overdue = time.Time{}, false
	o.parts[p.Partition].hasty = false
}

// release appends to records what need not wait, in order.
func (o *inOrder) release(records []*kgo.Record, now time.Time) []*kgo.Record {
	for _, l := range o.parts {
		for q := o.first(l, now); q != nil; q = o.first(l, now) {
			l.note(q)
			records = append(records, q.pop())
		}
	}
	return records
}

// first is the queue of a partition whose record is the next one; nil when there is none,
// or when another one has to come first.
func (o *inOrder) first(l *lanes, now time.Time) *queue {
	var next, follows *queue
	for i, q := range l.queues {
		if len(q.records) == 0 {
			continue
		}
		q.look(i == 0)
		if next == nil || q.at.Before(next.at) {
			next = q
		}
		if q.numbered && !l.lacks(q) && (follows == nil || q.at.Before(follows.at)) {
			follows = q
		}
	}
	if next == nil || o.wait(l, now) {
		return nil
	}
	if !l.lacks(next) {
		l.gap = time.Time{}
		return next
	}
	if follows != nil {
		l.gap = time.Time{}
		return follows
	}
	if l.waits(now) {
		return nil
	}
	return next
}

// wait says that something has to come first that was not fetched.
func (o *inOrder) wait(l *lanes, now time.Time) (wait bool) {
	for _, q := range l.queues {
		wait = o.awaited(q, now) || wait
	}
	return wait
}

// lacks says that the next record of a queue does not follow the last one of its contact.
func (l *lanes) lacks(q *queue) bool {
	if q.place.seq == 0 {
		return false
	}
	last, known := l.last[string(q.records[0].Key)]
	return known && last.era == q.place.era && q.place.seq > last.seq+1
}

// waits says that what is missing may be about to come.
func (l *lanes) waits(now time.Time) bool {
	empty := func(q *queue) bool { return q.numbered && len(q.records) == 0 && !q.overdue }
	if l.hasty || !slices.ContainsFunc(l.queues, empty) {
		return false
	}
	if l.gap.IsZero() {
		l.gap = now
	}
	if l.hasty = now.Sub(l.gap) >= gapWait; l.hasty {
		l.gap = time.Time{}
	}
	return !l.hasty
}

// note remembers the number of a record that is released.
func (l *lanes) note(q *queue) {
	if q.place.seq == 0 {
		return
	}
	if len(l.last) >= remembered {
		clear(l.last)
	}
	key := string(q.records[0].Key)
	if last := l.last[key]; last.era < q.place.era || last.era == q.place.era && last.seq < q.place.seq {
		l.last[key] = q.place
	}
}

// look reads when the next record of a queue is to come, and its number.
func (q *queue) look(first bool) {
	if q.seen == q.records[0] {
		return
	}
	r := q.records[0]
	q.seen, q.at, q.place = r, r.Timestamp, place{}
	for i := range r.Headers {
		switch h := &r.Headers[i]; h.Key {
		case stream.HeaderSeq:
			q.place.seq = stream.HeaderNumber(string(h.Value))
		case stream.HeaderEra:
			q.place.era = stream.HeaderNumber(string(h.Value))
		}
	}
	if q.place.seq == 0 {
		return
	}
	q.numbered = true
	if first {
		q.at = r.Timestamp.Add(-headStart)
	}
}

// awaited says that others wait for the queue. One that was not fetched for a while is at
// its end only when something was heard of it again.
func (o *inOrder) awaited(q *queue, now time.Time) bool {
	if len(q.records) > 0 || q.next >= q.end && !q.unheard || q.overdue {
		return false
	}
	if q.since.IsZero() {
		q.since = now
	}
	if q.next >= q.end {
		if q.unheard = now.Sub(q.since) < unheardWait; !q.unheard {
			q.since = time.Time{}
		}
		return q.unheard
	}
	if q.overdue = now.Sub(q.since) >= o.overdue; q.overdue {
		o.log.Warn("processor.topic_overdue", zap.String("topic", q.topic), zap.Int32("partition", q.partition),
			zap.Int64("offset", q.next), zap.Int64("end", q.end), zap.Duration("waited", now.Sub(q.since)))
	}
	return !q.overdue
}

func (q *queue) pop() *kgo.Record {
	r := q.records[0]
	q.records[0] = nil
	q.records = q.records[1:]
	q.size -= weight(r)
	return r
}

// weight is about what records take in memory.
func weight(records ...*kgo.Record) int {
	return bytesOf(records) + len(records)*recordOverhead
}

// throttle says which topics' partitions are not to be fetched from now on, and which
// are again.
func (o *inOrder) throttle() (pause, resume map[string][]int32) {
	pause, resume = make(map[string][]int32), make(map[string][]int32)
	share := o.share()
	for _, l := range o.parts {
		for _, q := range l.queues {
			switch {
			case !q.paused && q.size > share:
				q.paused, q.unheard = true, true
				pause[q.topic] = append(pause[q.topic], q.partition)
			case q.paused && q.size <= share/2:
				q.paused = false
				resume[q.topic] = append(resume[q.topic], q.partition)
			}
		}
	}
	return pause, resume
}

// share is how much may wait of a topic's partition.
func (o *inOrder) share() int {
	n := 0
	for _, l := range o.parts {
		n += len(l.queues)
	}
	return min(orderedFetchBytes, o.most/max(n, 1))
}

// due is when the first of those that are waited for is overdue; zero when none is
// waited for.
func (o *inOrder) due() (due time.Time) {
	earlier := func(since time.Time, wait time.Duration) {
		if at := since.Add(wait); !since.IsZero() && (due.IsZero() || at.Before(due)) {
			due = at
		}
	}
	for _, l := range o.parts {
		earlier(l.gap, gapWait)
		for _, q := range l.queues {
			switch {
			case q.unheard && q.next >= q.end:
				earlier(q.since, unheardWait)
			case !q.overdue:
				earlier(q.since, o.overdue)
			}
		}
	}
	return due
}
