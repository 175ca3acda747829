package stream

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// The reader reads the log for all cursors of the process. It reads what is asked
// for and one range ahead, never more, so Kafka is the buffer of whoever is slow;
// what it has read stays in a bounded cache until every cursor has passed it, so
// two hundred destinations at the same place cost one read.
//
// At the end of the log one request a broker waits for all partitions together.
// What lies before the end is read by a few workers on a connection of their own,
// because a broker answers the requests of a connection one after the other and
// the one that waits would hold the others up.
type reader struct {
	cfg     SinksConfig
	kafka   Config
	near    *kgo.Client // waits at the end of the log
	far     *kgo.Client // reads what is there
	log     *zap.Logger
	metrics *sinkMetrics
	// workshop is where what was read for backfills alone is parsed.
	workshop *Workshop
	// wake is told that something was read for a partition number.
	wake func(partition int32)

	mu      sync.Mutex
	parts   map[logKey]*logPart
	bytes   int
	clock   uint64
	queue   []farRead
	queued  chan struct{}           // one token: the queue is not empty
	polls   map[int32]chan struct{} // a token for the poll of each broker
	leaders map[logKey]leader
	moved   chan struct{} // one token: leaders must be looked up

	background sync.WaitGroup
}

type logKey struct {
	topic     schemas.Topic
	partition int32
}

type leader struct {
	broker int32
	epoch  int32
	id     uuid.UUID // of the topic; zero when the brokers report none
}

// A logPart is what the reader knows of one partition of one topic.
type logPart struct {
	key    logKey
	id     uuid.UUID      // of the topic whose log this is; zero while unknown
	chunks []*chunk       // ascending, apart
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
	key    logKey
	offset int64
	bulk   bool // for a backfill: it is in no hurry
}

// A chunk is a range [from, to) of a partition as it was read. It is immutable.
type chunk struct {
	from, to int64
	records  []Record
	kinds    []string // the types that occur
	kind     []uint16 // of each record, its index in kinds
	bytes    int
	used     uint64
}

// Sizes of one read. A batch larger than that is returned whole all the same.
const (
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

func newReader(cfg SinksConfig, kafka Config, log *zap.Logger, m *sinkMetrics) (*reader, error) {
	near, err := kafka.NewClient("sinks-tail", log)
	if err != nil {
		return nil, err
	}
	far, err := kafka.NewClient("sinks-read", log)
	if err != nil {
		near.Close()
		return nil, err
	}
	return &reader{
		cfg: cfg, kafka: kafka, near: near, far: far, log: log, metrics: m, workshop: NewWorkshop(),
		wake: func(int32) {}, parts: map[logKey]*logPart{}, queued: make(chan struct{}, 1),
		polls: map[int32]chan struct{}{}, leaders: map[logKey]leader{}, moved: make(chan struct{}, 1),
	}, nil
}

// run reads until ctx ends.
func (r *reader) run(ctx context.Context) {
	for range r.cfg.Behind {
		r.background.Go(func() { r.readFar(ctx) })
	}
	r.background.Go(func() { r.findLeaders(ctx) })
	<-ctx.Done()
	r.background.Wait()
	r.near.Close()
	r.far.Close()
}

// A sight is what the reader has at an offset.
type sight struct {
	chunk *chunk    // that holds it; nil when it has to be read first
	gap   int64     // the log's start when the offset lies below it and is gone
	id    uuid.UUID // of the topic that is read; zero while unknown
}

// at looks at an offset of a log. Without a chunk, the wake of its partition number
// follows, unless the topic is another (storage.OtherLog of id and the sight's): then
// there is nothing else in the sight, and nothing to be read. bulk says that a
// backfill asks.
func (r *reader) at(key logKey, id uuid.UUID, offset int64, bulk bool) sight {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.part(key)
	if storage.OtherLog(id, p.id) {
		if now := time.Now(); now.After(p.look) { // a broker may be behind
			p.look = now.Add(lostLook)
			token(r.moved)
		}
		return sight{id: p.id}
	}
	if c := p.find(offset); c != nil {
		r.clock++
		c.used = r.clock
		if p.find(c.to) == nil {
			r.want(p, c.to, bulk)
		}
		return sight{chunk: c, id: p.id}
	}
	if offset < p.start {
		return sight{gap: p.start, id: p.id}
	}
	p.asked[offset] = p.asked[offset] || !bulk
	r.want(p, offset, bulk)
	return sight{id: p.id}
}

// awaited says whether somebody waits for a record of the chunk, and whether only
// backfills do, and forgets it.
func (p *logPart) awaited(c *chunk) (yes, bulk bool) {
	bulk = true
	for offset, live := range p.asked {
		served := offset >= c.from && offset < c.to
		if served || offset < p.start {
			delete(p.asked, offset)
		}
		yes = yes || served
		bulk = bulk && !(served && live)
	}
	return yes, bulk
}

func (r *reader) part(key logKey) *logPart {
	p := r.parts[key]
	if p == nil {
		p = &logPart{key: key, end: -1, tail: -1, asked: map[int64]bool{}, far: map[int64]struct{}{}}
		r.parts[key] = p
		l, known := r.leaders[key]
		if !known {
			token(r.moved)
		}
		p.id = l.id
	}
	return p
}

// turn takes note of who leads a partition, and of which log. A log that was made
// anew is read afresh; whoever stands on the former one is woken and finds out. The
// mutex is held.
func (r *reader) turn(key logKey, l leader) {
	r.leaders[key] = l
	p := r.parts[key]
	if p == nil {
		return
	}
	if storage.OtherLog(p.id, l.id) {
		for _, c := range p.chunks {
			r.bytes -= c.bytes
		}
		r.metrics.cached.Set(float64(r.bytes))
		delete(r.parts, key)
		return
	}
	if l.id != uuid.Nil {
		p.id = l.id
	}
}

// partOf is the partition if it is still that of the log which was asked for; nil
// otherwise. The mutex is held.
func (r *reader) partOf(key logKey, id uuid.UUID) *logPart {
	p := r.parts[key]
	if p == nil || storage.OtherLog(p.id, id) {
		return nil
	}
	return p
}

// find returns the cached chunk that holds offset.
func (p *logPart) find(offset int64) *chunk {
	i := sort.Search(len(p.chunks), func(i int) bool { return p.chunks[i].to > offset })
	if i < len(p.chunks) && p.chunks[i].from <= offset {
		return p.chunks[i]
	}
	return nil
}

// want arranges for offset to be read, once. The mutex is held.
func (r *reader) want(p *logPart, offset int64, bulk bool) {
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
	token(r.queued)
}

// isLost says whether an offset is known to lie beyond the end, where nothing is to
// be waited for, and not to be looked for now. Only its own cursor waits. The mutex
// is held.
func (r *reader) isLost(p *logPart, offset int64) bool {
	now := time.Now()
	if _, lost := p.lost[offset]; !lost || offset <= p.end {
		return false
	}
	if now.Before(p.look) {
		return true
	}
	p.look = now.Add(lostLook)
	time.AfterFunc(lostLook, func() { r.wake(p.key.partition) })
	return false
}

// lose notes that an offset lies beyond the end of the log. Nobody but an operator
// can say what became of the topic, and from where to go on.
func (r *reader) lose(key logKey, id uuid.UUID, offset, end int64) {
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
	time.AfterFunc(lostLook, func() { r.wake(key.partition) })
	if now.Sub(p.told) < lostTell {
		return
	}
	p.told = now
	r.log.Error("reader.beyond_end", zap.String("topic", string(key.topic)), zap.Int32("partition", key.partition),
		zap.Int64("offset", offset), zap.Int64("end", end),
		zap.String("why", "a destination stands beyond the end of the log: the topic was made anew, or lost records"),
		zap.String("mend", fmt.Sprintf("hogstream replay DESTINATION --rewind --topic %s --partition %d --to start (or latest)", key.topic, key.partition)))
}

// poke lets the poll of the partition's broker look again.
func (r *reader) poke(p *logPart) {
	if l, ok := r.leaders[p.key]; ok {
		if ch := r.polls[l.broker]; ch != nil {
			token(ch)
		}
	}
}

// forget drops everything about a partition number.
func (r *reader) forget(partition int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, p := range r.parts {
		if key.partition == partition {
			for _, c := range p.chunks {
				r.bytes -= c.bytes
			}
			delete(r.parts, key)
		}
	}
	r.metrics.cached.Set(float64(r.bytes))
}

// passed drops the chunks that lie below the place of every cursor.
func (r *reader) passed(topic schemas.Topic, partition int32, below int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parts[logKey{topic, partition}]
	if p == nil {
		return
	}
	n := 0
	for n < len(p.chunks) && p.chunks[n].to <= below {
		r.bytes -= p.chunks[n].bytes
		n++
	}
	if n > 0 {
		p.chunks = append(p.chunks[:0:0], p.chunks[n:]...)
		r.metrics.cached.Set(float64(r.bytes))
	}
}

// insert puts a chunk in, and reads on when somebody is waiting at its start.
func (r *reader) insert(p *logPart, c *chunk) {
	i := sort.Search(len(p.chunks), func(i int) bool { return p.chunks[i].from >= c.from })
	if i < len(p.chunks) && p.chunks[i].from < c.to || i > 0 && p.chunks[i-1].to > c.from {
		// Read twice from different starts: the longer one stays.
		p.chunks = r.dropOverlap(p.chunks, c)
		i = sort.Search(len(p.chunks), func(i int) bool { return p.chunks[i].from >= c.from })
	}
	r.clock++
	c.used = r.clock
	p.chunks = append(p.chunks, nil)
	copy(p.chunks[i+1:], p.chunks[i:])
	p.chunks[i] = c
	r.bytes += c.bytes
	r.evict(c)
	r.metrics.cached.Set(float64(r.bytes))
}

func (r *reader) dropOverlap(chunks []*chunk, c *chunk) []*chunk {
	kept := make([]*chunk, 0, len(chunks)+1)
	for _, o := range chunks {
		if o.from < c.to && c.from < o.to {
			r.bytes -= o.bytes
			continue
		}
		kept = append(kept, o)
	}
	return kept
}

// evict drops the chunks that were used longest ago, except the newest.
func (r *reader) evict(newest *chunk) {
	for r.bytes > r.cfg.CacheBytes {
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
		r.bytes -= owner.chunks[at].bytes
		owner.chunks = append(owner.chunks[:at:at], owner.chunks[at+1:]...)
	}
}

// token puts the one token in that says "look again".
func token(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
