package reader

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// A Reader reads the log for all cursors of the process. It reads what is asked
// for and one range ahead, never more, so Kafka is the buffer of whoever is slow;
// what it has read stays in a bounded cache until every cursor has passed it, so
// two hundred destinations at the same place cost one read.
//
// At the end of the log one request a broker waits for all partitions together.
// What lies before the end is read by a few workers on a connection of their own,
// because a broker answers the requests of a connection one after the other and
// the one that waits would hold the others up.
type Reader struct {
	kafka   stream.Config
	near    *kgo.Client // waits at the end of the log
	Far     *kgo.Client // reads what is there
	log     *zap.Logger
	metrics *readerMetrics
	// CPULimiter bounds the parsing of what was read for backfills alone.
	CPULimiter *CPULimiter
	// Wake is told that something was read for a partition number.
	Wake func(partition int32)

	mu      sync.Mutex
	parts   map[stream.TopicPartition]*logPart
	bytes   int
	clock   uint64
	queue   []farRead
	queued  chan struct{}           // one token: the queue is not empty
	polls   map[int32]chan struct{} // a token for the poll of each broker
	leaders map[stream.TopicPartition]leader
	moved   chan struct{} // one token: leaders must be looked up

	background sync.WaitGroup
}

type leader struct {
	broker int32
	epoch  int32
	ID     uuid.UUID // of the topic; zero when the brokers report none
}

// A logPart is what the reader knows of one partition of one topic.
type logPart struct {
	key    stream.TopicPartition
	id     uuid.UUID      // of the topic whose log this is; zero while unknown
	chunks []*Chunk       // ascending, apart
	start  int64          // of the log
	end    int64          // up to which it can be read; -1 while unknown
	asked  map[int64]bool // offsets that somebody waits for; whether not only backfills do
	tail   int64          // waited for at the end of the log; -1 for none
	far    map[int64]struct{}
	lost   map[int64]struct{} // offsets that were found to lie beyond the end
	look   time.Time          // for those: when they are asked for again; and when the topic's id is
	told   time.Time
}

type farRead struct {
	key    stream.TopicPartition
	offset int64
	bulk   bool // for a backfill: it is in no hurry
}

// A Chunk is a range [from, to) of a partition as it was read. It is immutable.
type Chunk struct {
	From, To int64
	Records  []stream.Record
	Kinds    []string // the types that occur
	Kind     []uint16 // of each record, its index in kinds
	Bytes    int
	used     uint64
}

// Sizes of one read. A batch larger than that is returned whole all the same.
const (
	// farReads is how many reads before the end of the log run at once.
	farReads = 4
	// cacheBytes bounds the cache of what was read.
	cacheBytes = 128 << 20

	nearBytes = 512 << 10
	farBytes  = 1 << 20
	// bulkBytes is one for a backfill: whoever else asks the broker, or computes
	// here, waits for a shorter time.
	bulkBytes = 256 << 10
	// pollWait is how long the broker holds a request at the end of the log, and
	// pollShort how long when not all partitions are there: one that joins while a
	// request is out waits for the next one.
	pollWait  = 250 * time.Millisecond
	pollShort = 20 * time.Millisecond
	// pollPace is the least time between two polls, so that a steady trickle is
	// read in handfuls.
	pollPace = 5 * time.Millisecond
	// readRetry is the pause after a read that failed.
	readRetry = 250 * time.Millisecond
	// lostLook is how often is looked for an offset beyond the log's end, and
	// lostTell how often an operator is told of it.
	lostLook = 5 * time.Second
	lostTell = time.Minute
)

// New makes a reader; Run starts it, and closes it when its context ends.
func New(kafka stream.Config, log *zap.Logger, reg prometheus.Registerer) (*Reader, error) {
	near, err := kafka.NewClient("sinks-tail", log)
	if err != nil {
		return nil, err
	}
	far, err := kafka.NewClient("sinks-read", log)
	if err != nil {
		near.Close()
		return nil, err
	}
	metrics, err := newReaderMetrics(reg)
	if err != nil {
		near.Close()
		far.Close()
		return nil, err
	}
	return &Reader{
		kafka: kafka, near: near, Far: far, log: log, metrics: metrics, CPULimiter: NewCPULimiter(),
		Wake: func(int32) {}, parts: map[stream.TopicPartition]*logPart{}, queued: make(chan struct{}, 1),
		polls: map[int32]chan struct{}{}, leaders: map[stream.TopicPartition]leader{}, moved: make(chan struct{}, 1),
	}, nil
}

// Run reads until ctx ends.
func (r *Reader) Run(ctx context.Context) {
	for range farReads {
		r.background.Go(func() { r.readFar(ctx) })
	}
	r.background.Go(func() { r.findLeaders(ctx) })
	<-ctx.Done()
	r.background.Wait()
	r.metrics.unregister()
	r.near.Close()
	r.Far.Close()
}

// A Sight is what the reader has at an offset.
type Sight struct {
	Chunk *Chunk    // that holds it; nil when it has to be read first
	Gap   int64     // the log's start when the offset lies below it and is gone
	ID    uuid.UUID // of the topic that is read; zero while unknown
}

// At looks at an offset of a log. Without a chunk, the wake of its partition number
// follows, unless the topic is another (storage.OtherLog of id and the sight's): then
// there is nothing else in the sight, and nothing to be read. bulk says that a
// backfill asks.
func (r *Reader) At(key stream.TopicPartition, id uuid.UUID, offset int64, bulk bool) Sight {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.part(key)
	if storage.OtherLog(id, p.id) {
		if now := time.Now(); now.After(p.look) { // a broker may be behind
			p.look = now.Add(lostLook)
			stream.Signal(r.moved)
		}
		return Sight{ID: p.id}
	}
	if c := p.find(offset); c != nil {
		r.clock++
		c.used = r.clock
		if p.find(c.To) == nil {
			r.want(p, c.To, bulk)
		}
		return Sight{Chunk: c, ID: p.id}
	}
	if offset < p.start {
		return Sight{Gap: p.start, ID: p.id}
	}
	p.asked[offset] = p.asked[offset] || !bulk
	r.want(p, offset, bulk)
	return Sight{ID: p.id}
}

// awaited says whether somebody waits for a record of the chunk, and whether only
// backfills do, and forgets it.
func (p *logPart) awaited(c *Chunk) (yes, bulk bool) {
	bulk = true
	for offset, live := range p.asked {
		served := offset >= c.From && offset < c.To
		if served || offset < p.start {
			delete(p.asked, offset)
		}
		yes = yes || served
		bulk = bulk && !(served && live)
	}
	return yes, bulk
}

func (r *Reader) part(key stream.TopicPartition) *logPart {
	p := r.parts[key]
	if p == nil {
		p = &logPart{key: key, end: -1, tail: -1, asked: map[int64]bool{}, far: map[int64]struct{}{}}
		r.parts[key] = p
		l, known := r.leaders[key]
		if !known {
			stream.Signal(r.moved)
		}
		p.id = l.ID
	}
	return p
}

// turn takes note of who leads a partition, and of which log. A log that was made
// anew is read afresh; whoever stands on the former one is woken and finds out. The
// mutex is held.
func (r *Reader) turn(key stream.TopicPartition, l leader) {
	r.leaders[key] = l
	p := r.parts[key]
	if p == nil {
		return
	}
	if storage.OtherLog(p.id, l.ID) {
		for _, c := range p.chunks {
			r.bytes -= c.Bytes
		}
		r.metrics.cached.Set(float64(r.bytes))
		delete(r.parts, key)
		return
	}
	if l.ID != uuid.Nil {
		p.id = l.ID
	}
}

// partOf is the partition if it is still that of the log which was asked for; nil
// otherwise. The mutex is held.
func (r *Reader) partOf(key stream.TopicPartition, id uuid.UUID) *logPart {
	p := r.parts[key]
	if p == nil || storage.OtherLog(p.id, id) {
		return nil
	}
	return p
}

// find returns the cached chunk that holds offset.
func (p *logPart) find(offset int64) *Chunk {
	i := sort.Search(len(p.chunks), func(i int) bool { return p.chunks[i].To > offset })
	if i < len(p.chunks) && p.chunks[i].From <= offset {
		return p.chunks[i]
	}
	return nil
}

// want arranges for offset to be read, once. The mutex is held.
func (r *Reader) want(p *logPart, offset int64, bulk bool) {
	if p.end >= 0 && offset >= p.end {
		// The lowest is waited for; who stands beyond it asks again when that came.
		if (p.tail < 0 || offset < p.tail) && !r.isLost(p, offset) {
			p.tail = offset
			r.poke(p)
		}
		return
	}
	if _, under := p.far[offset]; under {
		return
	}
	p.far[offset] = struct{}{}
	r.queue = append(r.queue, farRead{p.key, offset, bulk})
	stream.Signal(r.queued)
}

// isLost says whether an offset is known to lie beyond the end, where nothing is to
// be waited for, and not to be looked for now. Only its own cursor waits. The mutex
// is held.
func (r *Reader) isLost(p *logPart, offset int64) bool {
	now := time.Now()
	if _, lost := p.lost[offset]; !lost || offset <= p.end {
		return false
	}
	if now.Before(p.look) {
		return true
	}
	p.look = now.Add(lostLook)
	time.AfterFunc(lostLook, func() { r.Wake(p.key.Partition) })
	return false
}

// lose notes that an offset lies beyond the end of the log. Nobody but an operator
// can say what became of the topic, and from where to go on.
func (r *Reader) lose(key stream.TopicPartition, id uuid.UUID, offset, end int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.partOf(key, id)
	if p == nil {
		return
	}
	now := time.Now()
	if p.lost == nil {
		p.lost = map[int64]struct{}{}
	}
	p.lost[offset] = struct{}{}
	p.end, p.look = end, now.Add(lostLook)
	delete(p.far, offset)
	if p.tail == offset {
		p.tail = -1
	}
	time.AfterFunc(lostLook, func() { r.Wake(key.Partition) })
	if now.Sub(p.told) < lostTell {
		return
	}
	p.told = now
	r.log.Error("reader.beyond_end", zap.String("topic", string(key.Topic)), zap.Int32("partition", key.Partition),
		zap.Int64("offset", offset), zap.Int64("end", end),
		zap.String("why", "a destination stands beyond the end of the log: the topic was made anew, or lost records"),
		zap.String("mend", fmt.Sprintf("hogstream replay DESTINATION --rewind --topic %s --partition %d --to start (or latest)", key.Topic, key.Partition)))
}

// poke lets the poll of the partition's broker look again.
func (r *Reader) poke(p *logPart) {
	if l, ok := r.leaders[p.key]; ok {
		if ch := r.polls[l.broker]; ch != nil {
			stream.Signal(ch)
		}
	}
}

// Forget drops everything about a partition number.
func (r *Reader) Forget(partition int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, p := range r.parts {
		if key.Partition == partition {
			for _, c := range p.chunks {
				r.bytes -= c.Bytes
			}
			delete(r.parts, key)
		}
	}
	r.metrics.cached.Set(float64(r.bytes))
}

// Passed drops the chunks that lie below the place of every cursor.
func (r *Reader) Passed(topic schemas.Topic, partition int32, below int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parts[stream.TopicPartition{Topic: topic, Partition: partition}]
	if p == nil {
		return
	}
	n := 0
	for n < len(p.chunks) && p.chunks[n].To <= below {
		r.bytes -= p.chunks[n].Bytes
		n++
	}
	if n > 0 {
		p.chunks = append(p.chunks[:0:0], p.chunks[n:]...)
		r.metrics.cached.Set(float64(r.bytes))
	}
}

// insert puts a chunk in, and reads on when somebody is waiting at its start.
func (r *Reader) insert(p *logPart, c *Chunk) {
	i := sort.Search(len(p.chunks), func(i int) bool { return p.chunks[i].From >= c.From })
	if i < len(p.chunks) && p.chunks[i].From < c.To || i > 0 && p.chunks[i-1].To > c.From {
		// Read twice from different starts: the longer one stays.
		p.chunks = r.dropOverlap(p.chunks, c)
		i = sort.Search(len(p.chunks), func(i int) bool { return p.chunks[i].From >= c.From })
	}
	r.clock++
	c.used = r.clock
	p.chunks = append(p.chunks, nil)
	copy(p.chunks[i+1:], p.chunks[i:])
	p.chunks[i] = c
	r.bytes += c.Bytes
	r.evict(c)
	r.metrics.cached.Set(float64(r.bytes))
}

func (r *Reader) dropOverlap(chunks []*Chunk, c *Chunk) []*Chunk {
	kept := make([]*Chunk, 0, len(chunks)+1)
	for _, o := range chunks {
		if o.From < c.To && c.From < o.To {
			r.bytes -= o.Bytes
			continue
		}
		kept = append(kept, o)
	}
	return kept
}

// evict drops the chunks that were used longest ago, except the newest.
func (r *Reader) evict(newest *Chunk) {
	for r.bytes > cacheBytes {
		var owner *logPart
		at := -1
		for _, p := range r.parts {
			for i, c := range p.chunks {
				if c != newest && (owner == nil || c.used < owner.chunks[at].used) {
					owner, at = p, i
				}
			}
		}
		if owner == nil {
			return
		}
		r.bytes -= owner.chunks[at].Bytes
		owner.chunks = append(owner.chunks[:at:at], owner.chunks[at+1:]...)
	}
}
