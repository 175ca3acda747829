package stream

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
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
	id     [16]byte
}

// A logPart is what the reader knows of one partition of one topic.
type logPart struct {
	key    logKey
	chunks []*chunk // ascending, apart
	start  int64    // of the log
	end    int64    // up to which it can be read; -1 while unknown
	asked  int64    // the furthest offset that was asked for
	tail   int64    // waited for at the end of the log; -1 for none
	far    map[int64]struct{}
}

type farRead struct {
	key    logKey
	offset int64
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
	// pollWait is how long the broker holds a request at the end of the log; a
	// partition that joins while one is out waits at most so long.
	pollWait = 250 * time.Millisecond
	// pollPace is the least time between two polls, so that a steady trickle is
	// read in handfuls.
	pollPace = 5 * time.Millisecond
	// readRetry is the pause after a read that failed.
	readRetry = 250 * time.Millisecond
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
		cfg: cfg, kafka: kafka, near: near, far: far, log: log, metrics: m,
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

// at returns the chunk that holds offset, nil when it has to be read first: the
// wake of its partition number follows. gap is the log's start when offset lies
// below it and is gone.
func (r *reader) at(topic schemas.Topic, partition int32, offset int64) (c *chunk, gap int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.part(logKey{topic, partition})
	p.asked = max(p.asked, offset)
	if c := p.find(offset); c != nil {
		r.clock++
		c.used = r.clock
		if p.find(c.to) == nil {
			r.want(p, c.to)
		}
		return c, 0
	}
	if offset < p.start {
		return nil, p.start
	}
	r.want(p, offset)
	return nil, 0
}

func (r *reader) part(key logKey) *logPart {
	p := r.parts[key]
	if p == nil {
		p = &logPart{key: key, end: -1, tail: -1, asked: -1, far: map[int64]struct{}{}}
		r.parts[key] = p
		if _, known := r.leaders[key]; !known {
			token(r.moved)
		}
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
func (r *reader) want(p *logPart, offset int64) {
	if p.end >= 0 && offset >= p.end {
		// The lowest is waited for; who stands beyond it asks again when that came.
		if p.tail < 0 || offset < p.tail {
			p.tail = offset
			r.poke(p)
		}
		return
	}
	if _, under := p.far[offset]; under {
		return
	}
	p.far[offset] = struct{}{}
	r.queue = append(r.queue, farRead{p.key, offset})
	token(r.queued)
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

// poll waits at the end of the log for all partitions that one broker leads.
func (r *reader) poll(ctx context.Context, broker int32, more chan struct{}) {
	for ctx.Err() == nil {
		req, asked := r.pollRequest(broker)
		if req == nil {
			select {
			case <-ctx.Done():
			case <-more:
			}
			continue
		}
		started := time.Now()
		ok := r.fetch(ctx, r.near, broker, req, asked, true)
		wait := pollPace - time.Since(started)
		if !ok {
			wait = readRetry
		}
		pause(ctx, wait)
	}
}

func (r *reader) pollRequest(broker int32) (*kmsg.FetchRequest, map[logKey]int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := map[logKey]int64{}
	for key, p := range r.parts {
		if l, ok := r.leaders[key]; ok && l.broker == broker && p.tail >= 0 {
			asked[key] = p.tail
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	return r.request(asked, nearBytes, pollWait), asked
}

// request builds a read-committed fetch without a session. The mutex is held.
func (r *reader) request(asked map[logKey]int64, size int32, wait time.Duration) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis = int32(wait.Milliseconds())
	req.MinBytes = 1
	req.MaxBytes = 16 << 20
	req.IsolationLevel = 1
	req.SessionEpoch = -1
	byTopic := map[schemas.Topic]int{}
	for key, offset := range asked {
		l := r.leaders[key]
		i, ok := byTopic[key.topic]
		if !ok {
			i = len(req.Topics)
			byTopic[key.topic] = i
			t := kmsg.NewFetchRequestTopic()
			t.Topic, t.TopicID = r.kafka.Topic(key.topic), l.id
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = key.partition, offset, size, l.epoch
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	return req
}

// readFar makes single reads from the queue.
func (r *reader) readFar(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.queued:
		}
		for ctx.Err() == nil {
			read, broker, req := r.nextFar()
			if req == nil {
				break
			}
			if !r.fetch(ctx, r.far, broker, req, map[logKey]int64{read.key: read.offset}, false) {
				r.later(ctx, read)
			}
		}
	}
}

func (r *reader) nextFar() (farRead, int32, *kmsg.FetchRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) > 0 {
		read := r.queue[0]
		r.queue = r.queue[1:]
		p := r.parts[read.key]
		if p == nil {
			continue
		}
		l, ok := r.leaders[read.key]
		if !ok {
			// Asked again when the leader is found.
			delete(p.far, read.offset)
			token(r.moved)
			continue
		}
		if len(r.queue) > 0 {
			token(r.queued)
		}
		return read, l.broker, r.request(map[logKey]int64{read.key: read.offset}, farBytes, 0)
	}
	return farRead{}, 0, nil
}

// later asks again for a read that failed, after a pause.
func (r *reader) later(ctx context.Context, read farRead) {
	pause(ctx, readRetry)
	r.mu.Lock()
	p := r.parts[read.key]
	if p != nil {
		delete(p.far, read.offset)
	}
	r.mu.Unlock()
	if p != nil {
		r.wake(read.key.partition)
	}
}

// fetch makes one request and takes in its answer; false when something failed.
func (r *reader) fetch(ctx context.Context, cl *kgo.Client, broker int32, req *kmsg.FetchRequest, asked map[logKey]int64, near bool) bool {
	answer, err := cl.Broker(int(broker)).RetriableRequest(ctx, req)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("reader.fetch_failed", zap.Int32("broker", broker), zap.Error(err))
			token(r.moved)
		}
		return false
	}
	resp := answer.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		r.log.Warn("reader.fetch_failed", zap.Int32("broker", broker), zap.Error(err))
		return false
	}
	ok := true
	for i := range resp.Topics {
		t := &resp.Topics[i]
		topic, known := r.topicOf(t, req)
		if !known {
			continue
		}
		for j := range t.Partitions {
			key := logKey{topic, t.Partitions[j].Partition}
			offset, wanted := asked[key]
			if wanted && !r.took(ctx, key, offset, &t.Partitions[j], near) {
				ok = false
			}
		}
	}
	return ok
}

// topicOf is the topic of an answer, which names it or gives its id.
func (r *reader) topicOf(t *kmsg.FetchResponseTopic, req *kmsg.FetchRequest) (schemas.Topic, bool) {
	name := t.Topic
	if name == "" {
		for i := range req.Topics {
			if req.Topics[i].TopicID == t.TopicID {
				name = req.Topics[i].Topic
			}
		}
	}
	return r.kafka.TopicOf(name)
}

// took takes in the answer for one partition; false when it has to be asked again
// later.
func (r *reader) took(ctx context.Context, key logKey, offset int64, rp *kmsg.FetchResponseTopicPartition, near bool) bool {
	r.metrics.fetched.Add(float64(len(rp.RecordBatches)))
	c, fp := decodeChunk(key, offset, rp, r.kafka.Topic(key.topic))
	switch {
	case errors.Is(fp.Err, kerr.OffsetOutOfRange):
		return r.outOfRange(ctx, key, offset, near)
	case fp.Err != nil && kerr.IsRetriable(fp.Err):
		token(r.moved)
		return false
	case fp.Err != nil && c == nil:
		r.log.Error("reader.partition_failed", zap.String("topic", string(key.topic)),
			zap.Int32("partition", key.partition), zap.Int64("offset", offset), zap.Error(fp.Err))
		token(r.moved)
		return false
	}
	r.takeIn(key, offset, c, fp, near)
	return true
}

func (r *reader) takeIn(key logKey, offset int64, c *chunk, fp kgo.FetchPartition, near bool) {
	r.mu.Lock()
	p := r.parts[key]
	if p == nil {
		r.mu.Unlock()
		return
	}
	p.start, p.end = max(p.start, fp.LogStartOffset), fp.LastStableOffset
	if !near {
		delete(p.far, offset)
	} else if p.tail == offset {
		p.tail = -1
	}
	if c == nil {
		// Nothing there yet. An open transaction may hold back what is below the
		// high watermark; the end is as far as can be read now.
		p.end = min(p.end, offset)
		r.want(p, offset)
		r.mu.Unlock()
		return
	}
	r.insert(p, c)
	if c.from <= p.asked && p.find(c.to) == nil {
		r.want(p, c.to) // somebody has waited for this chunk and will want the next
	}
	r.mu.Unlock()
	r.wake(key.partition)
}

// outOfRange looks where the log starts now. An offset beyond the log's end is
// left to wait: nobody but an operator can say what became of the topic.
func (r *reader) outOfRange(ctx context.Context, key logKey, offset int64, near bool) bool {
	start, end, err := r.bounds(ctx, key)
	if err != nil {
		r.log.Warn("reader.bounds_failed", zap.String("topic", string(key.topic)), zap.Int32("partition", key.partition), zap.Error(err))
		return false
	}
	if offset >= start {
		r.log.Error("reader.beyond_end", zap.String("topic", string(key.topic)), zap.Int32("partition", key.partition),
			zap.Int64("offset", offset), zap.Int64("end", end))
		pause(ctx, 5*time.Second)
		return false
	}
	r.mu.Lock()
	if p := r.parts[key]; p != nil {
		p.start = max(p.start, start)
		delete(p.far, offset)
		if near && p.tail == offset {
			p.tail = -1
		}
	}
	r.mu.Unlock()
	r.wake(key.partition)
	return true
}

func (r *reader) bounds(ctx context.Context, key logKey) (start, end int64, err error) {
	for _, ask := range []struct {
		at  int64
		dst *int64
	}{{-2, &start}, {-1, &end}} {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = r.kafka.Topic(key.topic)
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = key.partition, ask.at
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, r.far)
		if err != nil {
			return 0, 0, fmt.Errorf("list offsets of %s/%d: %w", t.Topic, key.partition, err)
		}
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return 0, 0, fmt.Errorf("list offsets of %s/%d: no answer for it", t.Topic, key.partition)
		}
		answer := resp.Topics[0].Partitions[0]
		if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
			return 0, 0, fmt.Errorf("list offsets of %s/%d: %w", t.Topic, key.partition, err)
		}
		*ask.dst = answer.Offset
	}
	return start, end, nil
}

// findLeaders looks up who leads what whenever that is unknown or has moved.
func (r *reader) findLeaders(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.moved:
		}
		if err := r.lookUpLeaders(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("reader.metadata_failed", zap.Error(err))
			token(r.moved)
		}
		pause(ctx, readRetry)
	}
}

func (r *reader) lookUpLeaders(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	for _, topic := range []schemas.Topic{schemas.TopicLifecycle, schemas.TopicEvents} {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(r.kafka.Topic(topic))
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, r.far)
	if err != nil {
		return fmt.Errorf("look up leaders: %w", err)
	}
	// The other client learns of the brokers from a request of its own.
	if _, err := req.RequestWith(ctx, r.near); err != nil {
		return fmt.Errorf("look up leaders: %w", err)
	}
	again := false
	woken := map[int32]bool{}
	r.mu.Lock()
	for _, t := range resp.Topics {
		if t.Topic == nil || t.ErrorCode != 0 {
			again = true
			continue
		}
		topic, _ := r.kafka.TopicOf(*t.Topic)
		for _, p := range t.Partitions {
			if p.Leader < 0 {
				again = true
				continue
			}
			r.leaders[logKey{topic, p.Partition}] = leader{p.Leader, p.LeaderEpoch, t.TopicID}
			woken[p.Partition] = true
			r.startPoll(ctx, p.Leader)
		}
	}
	for _, ch := range r.polls {
		token(ch)
	}
	r.mu.Unlock()
	for partition := range woken {
		r.wake(partition)
	}
	if again {
		token(r.moved)
	}
	return nil
}

// startPoll starts the poll of a broker, once. The mutex is held.
func (r *reader) startPoll(ctx context.Context, broker int32) {
	if r.polls[broker] != nil {
		return
	}
	more := make(chan struct{}, 1)
	r.polls[broker] = more
	r.background.Go(func() { r.poll(ctx, broker, more) })
}

// decodeChunk makes a chunk of what was fetched from offset on; nil when there was
// nothing to read yet.
func decodeChunk(key logKey, offset int64, rp *kmsg.FetchResponseTopicPartition, name string) (*chunk, kgo.FetchPartition) {
	fp, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: offset, IsolationLevel: kgo.ReadCommitted(), Topic: name, Partition: key.partition,
	}, rp, kgo.DefaultDecompressor(), nil)
	if next <= offset {
		return nil, fp
	}
	c := &chunk{from: offset, to: next, records: make([]Record, len(fp.Records)), kind: make([]uint16, len(fp.Records))}
	index := map[string]uint16{}
	for i, kr := range fp.Records {
		r := &c.records[i]
		fillRecord(r, key.topic, kr)
		k, ok := index[r.Type]
		if !ok {
			k = uint16(len(c.kinds))
			c.kinds = append(c.kinds, r.Type)
			index[r.Type] = k
		}
		r.Type = c.kinds[k] // one string for all of a type
		c.kind[i] = k
		c.bytes += recordSize(r)
	}
	fp.Records = nil
	return c, fp
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
