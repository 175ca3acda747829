package reader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// poll waits at the end of the log for all partitions that one broker leads.
func (r *Reader) poll(ctx context.Context, broker int32, more chan struct{}) {
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
		ok := r.fetch(ctx, r.near, broker, req, asked, reading{near: true})
		wait := pollPace - time.Since(started)
		if !ok {
			wait = readRetry
		}
		stream.Pause(ctx, wait)
	}
}

func (r *Reader) pollRequest(broker int32) (*kmsg.FetchRequest, map[stream.TopicPartition]int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := map[stream.TopicPartition]int64{}
	wait := pollWait
	for key, p := range r.parts {
		switch l, ok := r.leaders[key]; {
		case !ok || l.broker != broker:
		case p.tail >= 0:
			asked[key] = p.tail
		default:
			wait = pollShort // it will soon be read to its end and join
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	return r.request(asked, nearBytes, wait), asked
}

// request builds a read-committed fetch without a session. The mutex is held.
func (r *Reader) request(asked map[stream.TopicPartition]int64, size int32, wait time.Duration) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis = int32(wait.Milliseconds())
	req.MinBytes = 1
	req.MaxBytes = 16 << 20
	req.IsolationLevel = 1
	req.SessionEpoch = -1
	byTopic := map[schemas.Topic]int{}
	for key, offset := range asked {
		l := r.leaders[key]
		i, ok := byTopic[key.Topic]
		if !ok {
			i = len(req.Topics)
			byTopic[key.Topic] = i
			t := kmsg.NewFetchRequestTopic()
			t.Topic, t.TopicID = r.kafka.Topic(key.Topic), l.ID
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = key.Partition, offset, size, l.epoch
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	return req
}

// readFar makes single reads from the queue.
func (r *Reader) readFar(ctx context.Context) {
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
			if !r.fetch(ctx, r.Far, broker, req, map[stream.TopicPartition]int64{read.key: read.offset}, reading{bulk: read.bulk}) {
				r.later(ctx, read)
			}
		}
	}
}

func (r *Reader) nextFar() (farRead, int32, *kmsg.FetchRequest) {
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
			stream.Signal(r.moved)
			continue
		}
		if len(r.queue) > 0 {
			stream.Signal(r.queued)
		}
		size := int32(farBytes)
		if read.bulk {
			size = bulkBytes
		}
		return read, l.broker, r.request(map[stream.TopicPartition]int64{read.key: read.offset}, size, 0)
	}
	return farRead{}, 0, nil
}

// later asks again for a read that failed, after a pause.
func (r *Reader) later(ctx context.Context, read farRead) {
	stream.Pause(ctx, readRetry)
	r.mu.Lock()
	p := r.parts[read.key]
	if p != nil {
		delete(p.far, read.offset)
	}
	r.mu.Unlock()
	if p != nil {
		r.Wake(read.key.Partition)
	}
}

// reading is what a read is for: the end of the log, or what lies before; and of
// that, what only backfills wait for. id is the topic's that was asked for.
type reading struct {
	near, bulk bool
	id         uuid.UUID
}

// fetch makes one request and takes in its answer; false when something failed.
func (r *Reader) fetch(ctx context.Context, cl *kgo.Client, broker int32, req *kmsg.FetchRequest, asked map[stream.TopicPartition]int64, what reading) bool {
	answer, err := cl.Broker(int(broker)).RetriableRequest(ctx, req)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("reader.fetch_failed", zap.Int32("broker", broker), zap.Error(err))
			stream.Signal(r.moved)
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
		topic, id, known := r.topicOf(t, req)
		if !known {
			continue
		}
		what.id = id
		for j := range t.Partitions {
			key := stream.TopicPartition{Topic: topic, Partition: t.Partitions[j].Partition}
			offset, wanted := asked[key]
			if wanted && !r.took(ctx, key, offset, &t.Partitions[j], what) {
				ok = false
			}
		}
	}
	return ok
}

// topicOf is the topic of an answer, which names it or gives its id, with the id that
// was asked for.
func (r *Reader) topicOf(t *kmsg.FetchResponseTopic, req *kmsg.FetchRequest) (schemas.Topic, uuid.UUID, bool) {
	for i := range req.Topics {
		asked := &req.Topics[i]
		if t.Topic == asked.Topic || t.Topic == "" && t.TopicID == asked.TopicID {
			topic, ours := r.kafka.TopicOf(asked.Topic)
			return topic, asked.TopicID, ours
		}
	}
	return "", uuid.Nil, false
}

// took takes in the answer for one partition; false when it has to be asked again
// later.
func (r *Reader) took(ctx context.Context, key stream.TopicPartition, offset int64, rp *kmsg.FetchResponseTopicPartition, what reading) bool {
	r.metrics.fetched.Add(float64(len(rp.RecordBatches)))
	var limiter *CPULimiter
	if what.bulk {
		limiter = r.CPULimiter
	}
	var c *Chunk
	var fp kgo.FetchPartition
	if !limiter.Do(ctx, func() { c, fp = decodeChunk(key, offset, rp, r.kafka) }) {
		return false
	}
	switch {
	case errors.Is(fp.Err, kerr.OffsetOutOfRange):
		return r.outOfRange(ctx, key, offset, what)
	case fp.Err != nil && kerr.IsRetriable(fp.Err):
		stream.Signal(r.moved)
		return false
	case errors.Is(fp.Err, schemas.ErrRegistryUnavailable):
		r.log.Warn("reader.waiting_for_registry", zap.String("topic", string(key.Topic)),
			zap.Int32("partition", key.Partition), zap.Int64("offset", offset), zap.Error(fp.Err))
		return false
	case fp.Err != nil && c == nil:
		r.log.Error("reader.partition_failed", zap.String("topic", string(key.Topic)),
			zap.Int32("partition", key.Partition), zap.Int64("offset", offset), zap.Error(fp.Err))
		stream.Signal(r.moved)
		return false
	}
	r.takeIn(key, offset, c, fp, what)
	return true
}

func (r *Reader) takeIn(key stream.TopicPartition, offset int64, c *Chunk, fp kgo.FetchPartition, what reading) {
	r.mu.Lock()
	p := r.partOf(key, what.id)
	if p == nil {
		r.mu.Unlock()
		return
	}
	p.start, p.end = max(p.start, fp.LogStartOffset), fp.LastStableOffset
	if !what.near {
		delete(p.far, offset)
	} else if p.tail == offset {
		p.tail = -1
	}
	if c == nil {
		// Nothing there yet. An open transaction may hold back what is below the
		// high watermark; the end is as far as can be read now.
		p.end = min(p.end, offset)
		r.want(p, offset, what.bulk)
		r.mu.Unlock()
		return
	}
	r.insert(p, c)
	if waited, bulk := p.awaited(c); waited && p.find(c.To) == nil {
		r.want(p, c.To, bulk) // somebody has waited for this chunk and will want the next
	}
	r.mu.Unlock()
	r.Wake(key.Partition)
}

// outOfRange looks where the log starts now.
func (r *Reader) outOfRange(ctx context.Context, key stream.TopicPartition, offset int64, what reading) bool {
	start, end, err := r.Bounds(ctx, key)
	if err != nil {
		r.log.Warn("reader.bounds_failed", zap.String("topic", string(key.Topic)), zap.Int32("partition", key.Partition), zap.Error(err))
		return false
	}
	if offset >= start {
		r.lose(key, what.id, offset, end)
		r.Wake(key.Partition) // others may have waited for less
		return true
	}
	r.mu.Lock()
	if p := r.partOf(key, what.id); p != nil {
		p.start = max(p.start, start)
		delete(p.far, offset)
		if what.near && p.tail == offset {
			p.tail = -1
		}
	}
	r.mu.Unlock()
	r.Wake(key.Partition)
	return true
}

// Bounds asks the leader where a log starts and up to where it can be read.
func (r *Reader) Bounds(ctx context.Context, key stream.TopicPartition) (start, end int64, err error) {
	for _, ask := range []struct {
		at  int64
		dst *int64
	}{{-2, &start}, {-1, &end}} {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = r.kafka.Topic(key.Topic)
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = key.Partition, ask.at
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, r.Far)
		if err != nil {
			return 0, 0, fmt.Errorf("list offsets of %s/%d: %w", t.Topic, key.Partition, err)
		}
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return 0, 0, fmt.Errorf("list offsets of %s/%d: no answer for it", t.Topic, key.Partition)
		}
		answer := resp.Topics[0].Partitions[0]
		if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
			return 0, 0, fmt.Errorf("list offsets of %s/%d: %w", t.Topic, key.Partition, err)
		}
		*ask.dst = answer.Offset
	}
	return start, end, nil
}

// findLeaders looks up who leads what whenever that is unknown or has moved.
func (r *Reader) findLeaders(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.moved:
		}
		if err := r.lookUpLeaders(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("reader.metadata_failed", zap.Error(err))
			stream.Signal(r.moved)
		}
		stream.Pause(ctx, readRetry)
	}
}

func (r *Reader) lookUpLeaders(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	for _, topic := range schemas.FedTopics() {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(r.kafka.Topic(topic))
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, r.Far)
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
			r.turn(stream.TopicPartition{Topic: topic, Partition: p.Partition}, leader{p.Leader, p.LeaderEpoch, t.TopicID})
			woken[p.Partition] = true
			r.startPoll(ctx, p.Leader)
		}
	}
	for _, ch := range r.polls {
		stream.Signal(ch)
	}
	r.mu.Unlock()
	for partition := range woken {
		r.Wake(partition)
	}
	if again {
		stream.Signal(r.moved)
	}
	return nil
}

// startPoll starts the poll of a broker, once. The mutex is held.
func (r *Reader) startPoll(ctx context.Context, broker int32) {
	if r.polls[broker] != nil {
		return
	}
	more := make(chan struct{}, 1)
	r.polls[broker] = more
	r.background.Go(func() { r.poll(ctx, broker, more) })
}

// decodeChunk makes a chunk of what was fetched from offset on; nil when there was
// nothing to read yet, or when the schema registry must be asked and is away.
func decodeChunk(key stream.TopicPartition, offset int64, rp *kmsg.FetchResponseTopicPartition, cfg stream.Config) (*Chunk, kgo.FetchPartition) {
	fp, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: offset, IsolationLevel: kgo.ReadCommitted(), Topic: cfg.Topic(key.Topic), Partition: key.Partition,
	}, rp, kgo.DefaultDecompressor(), nil)
	if next <= offset {
		return nil, fp
	}
	c := &Chunk{From: offset, To: next, Records: make([]stream.Record, len(fp.Records)), Kind: make([]uint16, len(fp.Records))}
	index := map[string]uint16{}
	like := ""
	for i, kr := range fp.Records {
		r := &c.Records[i]
		stream.FillRecord(r, key.Topic, kr, like)
		if err := stream.Describe(r, cfg.Contents); err != nil {
			fp.Err = err
			return nil, fp
		}
		k, ok := index[r.Type]
		if !ok {
			k = uint16(len(c.Kinds))
			c.Kinds = append(c.Kinds, r.Type)
			index[r.Type] = k
		}
		r.Type = c.Kinds[k] // one string for all of a type
		like = r.Type
		c.Kind[i] = k
		c.Bytes += r.Size()
	}
	fp.Records = nil
	return c, fp
}
