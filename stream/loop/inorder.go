package loop

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// inOrder takes the records of a partition from its several topics in the order of their
// append times, also when one topic is further behind or has much larger records than
// another: what belongs together then comes together. As far as a topic is known to go on,
// the others of the partition wait for it; at its end it holds up nobody.
//
// What waits is bounded: a topic's partition that is ahead is not fetched while it has
// more than its share. The one that is waited for is always fetched, so this ends.
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
	parts   map[int32][]*queue
}

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
	paused    bool      // it is not fetched
}

const (
	// orderedFetchBytes is how much of a partition is fetched at once when there are several
	// topics: little, so that an answer has something of all.
	orderedFetchBytes = 256 << 10
	// orderedFetchWait is how long a broker that has nothing may keep a fetch: one that is
	// under way does not ask for what is fetched again meanwhile.
	orderedFetchWait = 200 * time.Millisecond
	// recordOverhead is about what a record takes in memory beyond its bytes.
	recordOverhead = 256
)

func newInOrder(topics []string, most int, overdue time.Duration, log *zap.Logger) *inOrder {
	return &inOrder{topics: topics, most: most, overdue: overdue, log: log, parts: make(map[int32][]*queue)}
}

// read begins a partition, from these places.
func (o *inOrder) read(partition int32, at map[string]logPlace) {
	var queues []*queue
	for _, topic := range o.topics {
		if place, read := at[topic]; read {
			queues = append(queues, &queue{topic: topic, partition: partition, next: place.offset, end: place.end})
		}
	}
	o.parts[partition] = queues
}

// forget ends a partition, and returns the topics that were not fetched.
func (o *inOrder) forget(partition int32) (paused []string) {
	for _, q := range o.parts[partition] {
		if q.paused {
			paused = append(paused, q.topic)
		}
	}
	delete(o.parts, partition)
	return paused
}

// add has records wait that were fetched.
func (o *inOrder) add(topic string, p *kgo.FetchPartition) {
	i := slices.IndexFunc(o.parts[p.Partition], func(q *queue) bool { return q.topic == topic })
	if i < 0 {
		return // it is not read any more
	}
	q := o.parts[p.Partition][i]
	q.end = max(q.end, p.LastStableOffset)
	if len(p.Records) == 0 {
		return
	}
	q.records = append(q.records, p.Records...)
	q.size += weight(p.Records...)
	q.next = p.Records[len(p.Records)-1].Offset + 1
	q.since, q.overdue = time.Time{}, false
}

// release appends to records what need not wait, in order.
func (o *inOrder) release(records []*kgo.Record, now time.Time) []*kgo.Record {
	for _, queues := range o.parts {
		for q := o.first(queues, now); q != nil; q = o.first(queues, now) {
			records = append(records, q.pop())
		}
	}
	return records
}

// first is the queue of a partition whose record is the next one; nil when there is none,
// or when another one has to come first.
func (o *inOrder) first(queues []*queue, now time.Time) *queue {
	var next *queue
	for _, q := range queues {
		if len(q.records) > 0 && (next == nil || q.records[0].Timestamp.Before(next.records[0].Timestamp)) {
			next = q
		}
	}
	if next == nil {
		return nil
	}
	wait := false
	for _, q := range queues {
		wait = o.awaited(q, now) || wait
	}
	if wait {
		return nil
	}
	return next
}

// awaited says that others wait for the queue.
func (o *inOrder) awaited(q *queue, now time.Time) bool {
	if len(q.records) > 0 || q.next >= q.end || q.overdue {
		return false
	}
	if q.since.IsZero() {
		q.since = now
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
	for _, queues := range o.parts {
		for _, q := range queues {
			switch {
			case !q.paused && q.size > share:
				q.paused = true
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
	for _, queues := range o.parts {
		n += len(queues)
	}
	return min(orderedFetchBytes, o.most/max(n, 1))
}

// due is when the first of those that are waited for is overdue; zero when none is
// waited for.
func (o *inOrder) due() (due time.Time) {
	for _, queues := range o.parts {
		for _, q := range queues {
			if q.since.IsZero() || q.overdue {
				continue
			}
			if at := q.since.Add(o.overdue); due.IsZero() || at.Before(due) {
				due = at
			}
		}
	}
	return due
}
