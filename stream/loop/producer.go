package loop

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/stream"
)

// errStale says that the coordinator does not take a commit from this member
// and generation: the partitions have, or are about to have, another owner.
var errStale = errors.New("the group has moved on")

// producer is a client with a transactional id, and the transaction it has in hand.
type producer struct {
	cfg    stream.Config
	log    *zap.Logger
	role   string
	id     string // transactional
	txn    time.Duration
	hooks  loopHooks
	client *kgo.Client // nil until opened, and after a failure
	begun  time.Time   // when the transaction in hand was begun; zero for none
	ahead  offsets     // the offsets that the transaction in hand holds before its outputs
	ended  bool        // the last transaction is committed, but maybe not yet everywhere

	producerID atomic.Int64 // of the last client; noProducer before the first
}

// noProducer is the id that no producer has (KIP-98).
const noProducer = -1

// newProducer makes one of those of a worker; which tells them apart.
func newProducer(cfg Config, number int, which string) *producer {
	name := cfg.Processor.Name()
	id := fmt.Sprintf("%s.%s.%d%s", cfg.Kafka.Instance, name, number, which)
	if cfg.Incarnation != "" {
		id += "." + cfg.Incarnation
	}
	p := &producer{
		cfg: cfg.Kafka, log: cfg.Logger, role: "producer." + name, txn: cfg.timing.Txn, hooks: cfg.hooks,
		id: cfg.Kafka.Group(id),
	}
	p.producerID.Store(noProducer)
	return p
}

// open makes the client when there is none. Taking the transactional id aborts
// what a predecessor of that name left open, so that nobody waits for it.
func (p *producer) open(ctx context.Context) error {
	if p.client != nil {
		return nil
	}
	client, err := p.cfg.NewClient(p.role, p.log,
		kgo.TransactionalID(p.id),
		kgo.TransactionTimeout(p.txn),
		kgo.ManualFlushing(), // a batch's outputs go out together, in one request a broker
		kgo.MaxVersions(namedTopics()),
		kgo.MaxBufferedRecords(1<<20), // a batch's outputs, which are in memory anyway
		kgo.UnknownTopicRetries(8),
	)
	if err != nil {
		return err
	}
	id, _, err := client.ProducerID(ctx)
	if err != nil {
		client.Close()
		return fmt.Errorf("take transactional id %s: %w", p.id, err)
	}
	p.producerID.Store(id)
	p.client, p.ended = client, false
	return nil
}

// close leaves an open transaction to the next open, or to its timeout.
func (p *producer) close() {
	if p.client != nil {
		p.client.Close()
		p.client, p.begun, p.ahead = nil, time.Time{}, nil
	}
}

// renew aborts what the producer has in hand: the broker does when a client takes
// the id anew.
func (p *producer) renew(ctx context.Context) error {
	p.close()
	return p.open(ctx)
}

// transact is the transaction: the outputs, the offsets unless they went ahead, the
// end, one after the other. Sent side by side, outputs and offsets meet at the transaction's
// coordinator, each to be made part of it; the one that comes while the other is
// being written is refused and asked again after 20 ms and more (Apache Kafka's
// add.partitions.to.txn.retry.backoff.ms), or, when that takes too long, by this
// client after 250 ms. What is before the end is called when all but that is done.
func (p *producer) transact(ctx context.Context, m *member, a *membership, records []*kgo.Record, at offsets, beforeEnd func() error) error {
	if err := p.begin(ctx, m); err != nil {
		return err
	}
	if err := p.hooks.step(stepBegun, a.partitions); err != nil {
		return err
	}
	if err := p.produce(ctx, records); err != nil {
		return err
	}
	if len(p.ahead) == 0 {
		if err := p.sendOffsets(ctx, m, a, at); err != nil {
			return err
		}
	}
	if err := p.hooks.step(stepSent, a.partitions); err != nil {
		return err
	}
	if err := beforeEnd(); err != nil {
		return err
	}
	if err := p.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("commit transaction %s: %w", p.id, err)
	}
	p.begun, p.ahead, p.ended = time.Time{}, nil, true
	return p.hooks.step(stepCommitted, a.partitions)
}

// begin opens a transaction and makes the group part of it, unless that is done.
// While the coordinator still writes the markers of the transaction before, it
// refuses; asking for the group first finds out at once, where a broker that is
// sent records waits 20 ms between tries of its own.
func (p *producer) begin(ctx context.Context, m *member) error {
	// The broker aborts it when it is too old.
	if !p.begun.IsZero() && time.Since(p.begun) > p.txn/3 {
		p.close()
	}
	if err := p.open(ctx); err != nil {
		return err
	}
	if !p.begun.IsZero() {
		return nil
	}
	if err := p.client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin transaction %s: %w", p.id, err)
	}
	p.begun = time.Now()
	id, epoch, err := p.client.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("transaction %s: %w", p.id, err)
	}
	if err := p.addOffsets(ctx, m.group, id, epoch); err != nil {
		return err
	}
	p.ended = false
	return nil
}

// complete returns when the last transaction is committed everywhere: the broker
// answers the end of one as soon as it is decided, writes the markers afterwards,
// and begins no other under the same id before it has.
func (p *producer) complete(ctx context.Context, m *member) error {
	if !p.ended {
		return nil
	}
	return p.begin(ctx, m)
}

// sendAhead is sendOffsets before anything is applied or produced: it takes a
// third of a publish in Apache Kafka, and is hidden in the apply so. On an error
// nothing is known of the transaction.
func (p *producer) sendAhead(ctx context.Context, m *member, a *membership, at offsets) error {
	p.ahead = at
	if err := p.sendOffsets(ctx, m, a, at); err != nil {
		return err
	}
	return p.hooks.step(stepAhead, a.partitions)
}

// produce returns when every record is acknowledged.
func (p *producer) produce(ctx context.Context, records []*kgo.Record) error {
	var mu sync.Mutex
	var first error
	for _, r := range records {
		p.client.Produce(ctx, r, func(r *kgo.Record, err error) {
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = fmt.Errorf("produce to %s: %w", r.Topic, err)
			}
		})
	}
	if err := p.client.Flush(ctx); err != nil {
		return fmt.Errorf("produce %d records: %w", len(records), context.Cause(ctx))
	}
	mu.Lock()
	defer mu.Unlock()
	return first
}

// sendOffsets adds the group's offsets to the transaction, with the member and
// generation of the assignment that fetched the batch and never the client's
// present ones (rule fence): a member that owns other partitions by now would
// be accepted, and publish what its successor has published already.
func (p *producer) sendOffsets(ctx context.Context, m *member, a *membership, at offsets) error {
	memberID, generation := a.memberID, a.generation
	if p.hooks.off.has(ruleFence) {
		memberID, generation = m.client.GroupMetadata()
	}
	id, epoch, err := p.client.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("transaction %s: %w", p.id, err)
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = p.id, m.group, id, epoch
	req.MemberID, req.Generation, req.InstanceID = memberID, generation, &m.instance
	for t, ps := range at {
		rt := kmsg.NewTxnOffsetCommitRequestTopic()
		rt.Topic = t
		for n, o := range ps {
			rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset = n, o
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	for tries := rebalanceTries; ; tries-- {
		err := p.tryOffsets(ctx, req)
		switch {
		case !errors.Is(err, kerr.ConcurrentTransactions):
			return err
		case tries == 1 || a.ended.Err() != nil:
			return fmt.Errorf("%w: %w", errStale, err)
		}
		select {
		case <-time.After(rebalanceWait):
		case <-a.ended.Done():
		case <-ctx.Done():
			return fmt.Errorf("send offsets of %s: %w", m.group, context.Cause(ctx))
		}
	}
}

// Redpanda answers CONCURRENT_TRANSACTIONS where Apache Kafka compares the
// generation: while the members of the group have joined anew and have no assignment
// yet. That is over in moments, and the next answer tells; when it lasts, this
// member's generation is a former one all the same, for it has not joined.
const (
	rebalanceTries = 10
	rebalanceWait  = 50 * time.Millisecond
)

// tryOffsets asks the group's coordinator once.
func (p *producer) tryOffsets(ctx context.Context, req *kmsg.TxnOffsetCommitRequest) error {
	resp, err := req.RequestWith(ctx, p.client)
	if err != nil {
		return fmt.Errorf("send offsets of %s: %w", req.Group, err)
	}
	for _, t := range resp.Topics {
		for _, rp := range t.Partitions {
			if err := refusal(kerr.ErrorForCode(rp.ErrorCode)); err != nil {
				return fmt.Errorf("send offset of %s for %s/%d under generation %d: %w", req.Group, t.Topic, rp.Partition, req.Generation, err)
			}
		}
	}
	return nil
}

// addOffsets makes the group part of the transaction. Brokers of today would do
// it with the offsets themselves; those before 4.0 would not.
func (p *producer) addOffsets(ctx context.Context, group string, id int64, epoch int16) error {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = p.id, group, id, epoch
	for {
		resp, err := req.RequestWith(ctx, p.client)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if !errors.Is(err, kerr.ConcurrentTransactions) {
			if err != nil {
				return fmt.Errorf("add %s to transaction %s: %w", group, p.id, err)
			}
			return nil
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("add %s to transaction %s: %w", group, p.id, context.Cause(ctx))
		}
	}
}

// refusal marks the answers that say: you are not the owner (any more).
func refusal(err error) error {
	for _, stale := range []error{
		kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.FencedInstanceID,
		kerr.StaleMemberEpoch, kerr.GroupIDNotFound,
	} {
		if errors.Is(err, stale) {
			return fmt.Errorf("%w: %w", errStale, err)
		}
	}
	return err
}
