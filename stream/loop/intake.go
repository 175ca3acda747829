package loop

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// intake fetches the records of the owned partitions, each from the offset the
// table of recovery decided. A goroutine of its own goes on fetching while a batch
// is applied and published: the client asks the broker again only when the answer
// before was taken, so that otherwise each batch would begin with what had arrived
// when the last one began, and the rest would wait for a whole batch more.
//
// Its methods are for the worker's goroutine.
type intake struct {
	client  *kgo.Client
	limit   int           // records and bytes that may wait before fetching pauses
	most    int           // bytes
	waiting []*kgo.Record // taken in and not yet in a batch
	ordered *inOrder      // nil with one topic, which is in order
	reading map[string]map[int32]bool
	arrived chan struct{} // a token: there is something to take in
	wanted  chan struct{} // a token: the worker waits for what comes next

	mu      sync.Mutex
	change  *sync.Cond
	fetched []*kgo.Record // not yet taken in
	size    int           // of fetched, keys and values
	broken  []fetchFault
	err     error
	ends    offsets                        // the last stable offsets heard of
	ids     map[string]map[int32]uuid.UUID // of the logs that are read, by topic
	anew    map[string]bool                // topics whose log the client does not find, or took for another
	cancel  context.CancelFunc             // ends the poll that is under way; nil for none
	paused  bool
	closed  bool
	ended   chan struct{}
}

// fetchPace is the least time between two polls while the worker is busy.
// What arrives within it is read together.
const fetchPace = 5 * time.Millisecond

func newIntake(cfg Config) (*intake, error) {
	several := len(cfg.Processor.Topics()) > 1 && !cfg.hooks.unordered
	bounds := []kgo.Opt{kgo.FetchMaxPartitionBytes(fetchBytes / 4)}
	if several {
		bounds = []kgo.Opt{kgo.FetchMaxPartitionBytes(orderedFetchBytes), kgo.FetchMaxWait(orderedFetchWait)}
	}
	client, err := cfg.Kafka.NewClient("intake."+cfg.Processor.Name(), cfg.Logger, append(bounds,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxBytes(fetchBytes),
	)...)
	if err != nil {
		return nil, err
	}
	in := &intake{
		client: client, limit: cfg.batchLimit(), most: maxBatchBytes,
		reading: make(map[string]map[int32]bool), ends: make(offsets), ids: make(map[string]map[int32]uuid.UUID), anew: make(map[string]bool),
		arrived: make(chan struct{}, 1), wanted: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	in.change = sync.NewCond(&in.mu)
	if several {
		var topics []string
		for _, t := range cfg.Processor.Topics() {
			topics = append(topics, cfg.Kafka.Topic(t))
		}
		in.ordered = newInOrder(topics, in.most, cfg.timing.Overdue, cfg.Logger.With(zap.String("processor", cfg.Processor.Name())))
	}
	go in.run()
	return in, nil
}

// run fetches until close.
func (in *intake) run() {
	defer close(in.ended)
	for {
		ctx, open := in.begin()
		if !open {
			return
		}
		fetches := in.client.PollRecords(ctx, in.atOnce())
		in.end(fetches)
		pace := time.NewTimer(fetchPace)
		select {
		case <-pace.C:
		case <-in.wanted:
			pace.Stop()
		}
	}
}

// atOnce is how many records a poll takes at most, 0 for all that the client has: of
// several topics an answer is taken whole, for what belongs together is in it; the client
// holds one of each broker, which FetchMaxBytes bounds.
func (in *intake) atOnce() int {
	if in.ordered != nil {
		return 0
	}
	return in.limit
}

// begin waits until there is room and nobody changes what is read; false once
// closed.
func (in *intake) begin() (context.Context, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for !in.closed && !in.mayPoll() {
		in.change.Wait()
	}
	if in.closed {
		return nil, false
	}
	ctx, cancel := context.WithCancel(context.Background())
	in.cancel = cancel
	if due := in.overdueAt(); !due.IsZero() {
		late := time.AfterFunc(time.Until(due), cancel)
		context.AfterFunc(ctx, func() { late.Stop() })
	}
	return ctx, true
}

// overdueAt is when what was fetched need not wait any longer for what was not; zero when
// nothing waits. The mutex is held.
func (in *intake) overdueAt() time.Time {
	if in.ordered == nil {
		return time.Time{}
	}
	return in.ordered.due()
}

// mayPoll says that there is room and nobody changes what is read. The mutex is held.
func (in *intake) mayPoll() bool {
	return !in.paused && in.err == nil && len(in.fetched) < in.limit && in.size < in.most
}

// end keeps what a poll brought.
func (in *intake) end(fetches kgo.Fetches) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.cancel()
	in.cancel = nil
	in.change.Broadcast()
	in.keep(fetches)
	if len(in.fetched) > 0 || len(in.broken) > 0 || in.err != nil {
		stream.Signal(in.arrived)
	}
}

// keep sorts records from errors. Records of another log than the one that is read
// are none of ours. The mutex is held.
func (in *intake) keep(fetches kgo.Fetches) {
	for i := range fetches {
		for j := range fetches[i].Topics {
			t := &fetches[i].Topics[j] //nolint:gosec // j is an index of Topics
			for k := range t.Partitions {
				p := &t.Partitions[k]
				if storage.OtherLog(t.TopicID, in.ids[t.Topic][p.Partition]) {
					p = &kgo.FetchPartition{Partition: p.Partition, Err: kerr.UnknownTopicID}
				}
				in.keepPartition(t.Topic, p)
			}
		}
	}
	if in.ordered != nil {
		in.sort()
	}
}

// sort takes what is next in order from what was fetched of several topics. The mutex is
// held.
func (in *intake) sort() {
	before := len(in.fetched)
	in.fetched = in.ordered.release(in.fetched, time.Now())
	in.size += bytesOf(in.fetched[before:])
	pause, resume := in.ordered.throttle()
	if len(pause) > 0 {
		in.client.PauseFetchPartitions(pause)
	}
	if len(resume) > 0 {
		in.client.ResumeFetchPartitions(resume)
	}
}

func (in *intake) keepPartition(topic string, p *kgo.FetchPartition) {
	switch {
	case p.Err == nil:
		if p.LastStableOffset >= 0 {
			in.ends.set(topic, p.Partition, p.LastStableOffset)
		}
	case errors.Is(p.Err, context.Canceled):
	case errors.Is(p.Err, kgo.ErrClientClosed):
		in.err = kgo.ErrClientClosed
	case placeGone(p.Err):
		in.anew[topic] = in.anew[topic] || errors.Is(p.Err, kerr.UnknownTopicID)
		in.broken = append(in.broken, fetchFault{p.Partition, fmt.Errorf("fetch %s/%d: %w", topic, p.Partition, p.Err)})
	default:
		in.err = fmt.Errorf("fetch %s/%d: %w", topic, p.Partition, p.Err)
	}
	if in.ordered != nil {
		in.ordered.add(topic, p)
		return
	}
	in.size += bytesOf(p.Records)
	in.fetched = append(in.fetched, p.Records...)
}

// still has no poll under way until the returned function is called. What polls
// have brought by then is all there is of what was read before.
func (in *intake) still() (goOn func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.paused = true
	if in.cancel != nil {
		in.cancel()
	}
	for in.cancel != nil {
		in.change.Wait()
	}
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.paused = false
		in.change.Broadcast()
	}
}

// logPlace is an offset on the log of a topic with this id; zero when the brokers
// report none.
type logPlace struct {
	id     uuid.UUID
	offset int64
	end    int64 // of the log
}

// seek makes the partition be read from these places (by topic), forgetting
// what was fetched of it before.
func (in *intake) seek(partition int32, at map[string]logPlace) {
	in.drop(partition)
	in.renew(at)
	add := make(map[string]map[int32]kgo.Offset, len(at))
	for t, o := range at {
		add[t] = map[int32]kgo.Offset{partition: kgo.NewOffset().At(o.offset)}
		if in.reading[t] == nil {
			in.reading[t] = make(map[int32]bool)
		}
		in.reading[t][partition] = true
		in.expect(t, partition, o.id)
	}
	if in.ordered != nil {
		in.mu.Lock()
		in.ordered.read(partition, at)
		in.mu.Unlock()
	}
	in.client.AddConsumePartitions(add)
}

// expect notes which log of a topic's partition is read.
func (in *intake) expect(topic string, partition int32, id uuid.UUID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ids[topic] == nil {
		in.ids[topic] = make(map[int32]uuid.UUID)
	}
	in.ids[topic][partition] = id
}

// renew has the client forget topics that were made anew: it holds on to the id that
// it saw first. What it read of their other partitions is settled afresh.
func (in *intake) renew(at map[string]logPlace) {
	var forget []string
	in.mu.Lock()
	for t := range at {
		if in.anew[t] {
			forget = append(forget, t)
			delete(in.anew, t)
		}
	}
	in.mu.Unlock()
	if len(forget) == 0 {
		return
	}
	goOn := in.still()
	in.client.PurgeTopicsFromConsuming(forget...)
	in.mu.Lock()
	for _, t := range forget {
		for p := range in.reading[t] {
			in.broken = append(in.broken, fetchFault{p, fmt.Errorf("%s/%d: %w", t, p, kerr.UnknownTopicID)})
		}
	}
	stream.Signal(in.arrived)
	in.mu.Unlock()
	goOn()
}

// drop stops reading a partition.
func (in *intake) drop(partition int32) {
	remove := make(map[string][]int32)
	for t, ps := range in.reading {
		if ps[partition] {
			remove[t] = []int32{partition}
			delete(ps, partition)
		}
	}
	if len(remove) == 0 {
		return
	}
	defer in.still()()
	in.client.RemoveConsumePartitions(remove)
	in.waiting = without(in.waiting, partition)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.fetched = without(in.fetched, partition)
	if in.ordered == nil {
		return
	}
	for _, topic := range in.ordered.forget(partition) {
		in.client.ResumeFetchPartitions(map[string][]int32{topic: {partition}})
	}
}

func without(records []*kgo.Record, partition int32) []*kgo.Record {
	kept := records[:0]
	for _, r := range records {
		if r.Partition != partition {
			kept = append(kept, r)
		}
	}
	clear(records[len(kept):])
	return kept
}

// fetchFault says that a partition cannot be read where it stands.
type fetchFault struct {
	partition int32
	err       error
}

// await returns when there is something to take in, or ctx ends.
func (in *intake) await(ctx context.Context) {
	stream.Signal(in.wanted)
	select {
	case <-in.arrived:
	case <-ctx.Done():
	}
}

// hurry polls without waiting when it is not yet time for the next poll, so that a
// batch has what the client holds by now and the client goes for more.
func (in *intake) hurry() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.cancel == nil && in.mayPoll() {
		in.keep(in.client.PollRecords(nil, in.atOnce())) //nolint:staticcheck // nil stands for: do not wait
	}
}

// take adds what was fetched to what is waiting, unless that is a batch already, in
// records or in bytes. broken are partitions whose place in the log is gone; the
// error is an outage.
func (in *intake) take() (broken []fetchFault, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.waiting) < in.limit && bytesOf(in.waiting) < in.most {
		if len(in.waiting) == 0 {
			in.waiting = in.fetched
		} else {
			in.waiting = append(in.waiting, in.fetched...)
		}
		in.fetched, in.size = nil, 0
	}
	broken, err = in.broken, in.err
	in.broken, in.err = nil, nil
	in.change.Broadcast()
	return broken, err
}

// came says what was fetched and not yet taken in. own says that a producer is the worker's.
func (in *intake) came(own func(producer int64) bool) arrival {
	in.mu.Lock()
	defer in.mu.Unlock()
	return arrivalOf(in.fetched, own)
}

// bytesOf are the keys and values of records.
func bytesOf(records []*kgo.Record) (size int) {
	for _, r := range records {
		size += len(r.Key) + len(r.Value)
	}
	return size
}

// stableEnd is the last stable offset heard of, none before the first.
func (in *intake) stableEnd(topic string, partition int32) int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.ends.get(topic, partition)
}

// placeGone reports that the partition was truncated, expired below us, or made
// anew. With resets off the client does not go on by itself.
func placeGone(err error) bool {
	var loss *kgo.ErrDataLoss
	return errors.As(err, &loss) || errors.Is(err, kerr.OffsetOutOfRange) ||
		errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition)
}

// taken forgets the first n waiting records.
func (in *intake) taken(n int) {
	clear(in.waiting[:n])
	in.waiting = in.waiting[n:]
	if len(in.waiting) == 0 {
		in.waiting = nil // let go of the array
	}
}

func (in *intake) close() {
	in.mu.Lock()
	in.closed = true
	if in.cancel != nil {
		in.cancel()
	}
	in.change.Broadcast()
	in.mu.Unlock()
	stream.Signal(in.wanted)
	<-in.ended
	in.client.Close()
}
