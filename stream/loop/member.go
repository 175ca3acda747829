package loop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/stream"
)

// membership is one assignment: the member and generation under which these
// partitions are owned. Everything committed for them carries both, so that the
// coordinator refuses what a stale owner sends (rule fence).
type membership struct {
	memberID   string
	generation int32
	partitions []int32 // of which every topic of the group is owned, ascending

	ended context.Context // done when the assignment is over
	end   context.CancelFunc
}

func newMembership(memberID string, generation int32, partitions []int32) *membership {
	m := &membership{memberID: memberID, generation: generation, partitions: partitions}
	m.ended, m.end = context.WithCancel(context.Background())
	return m
}

// member is a member of the processor's group. It only joins, heartbeats and
// commits: records are fetched by a client of its own (intake), at offsets that
// the table of recovery decides, so no consumer can reset an offset by itself.
type member struct {
	group    string
	instance string
	topics   []string
	grace    time.Duration
	client   *kgo.Client
	cancel   context.CancelFunc // of everything the client does
	log      *zap.Logger
	hooks    loopHooks

	mu      sync.Mutex
	current *membership
	held    *membership   // the assignment whose transaction is in hand
	let     chan struct{} // closed when held is let go
	session error         // why the last group session ended
	fatal   error
}

func newMember(cfg Config, number int) (*member, error) {
	name := cfg.Processor.Name()
	m := &member{
		group:    cfg.Kafka.Group(name),
		instance: fmt.Sprintf("%s-%s-%d", cfg.Kafka.Instance, name, number),
		grace:    cfg.timing.RevokeGrace,
		log:      cfg.Logger,
		hooks:    cfg.hooks,
		current:  newMembership("", -1, nil),
	}
	for _, t := range cfg.Processor.Topics() {
		m.topics = append(m.topics, cfg.Kafka.Topic(t))
	}
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	var err error
	m.client, err = cfg.Kafka.NewClient("processor."+name, cfg.Logger,
		kgo.ConsumerGroup(m.group),
		kgo.ConsumeTopics(m.topics...),
		kgo.InstanceID(m.instance),
		kgo.Balancers(declaring{kgo.RangeBalancer(), FormatOf(cfg.Processor)}),
		kgo.SessionTimeout(cfg.SessionTimeout),
		kgo.HeartbeatInterval(cfg.timing.Heartbeat),
		// All that a revocation may wait for, and the time to hear of it.
		kgo.RebalanceTimeout(cfg.timing.RevokeGrace+2*cfg.timing.Heartbeat+5*time.Second),
		kgo.WithContext(ctx),
		kgo.DisableAutoCommit(),
		kgo.MaxVersions(namedTopics()),
		kgo.OnPartitionsAssigned(m.assigned),
		kgo.OnPartitionsRevoked(m.revoked),
		kgo.OnPartitionsLost(m.lost),
		// This client fetches nothing.
		kgo.AdjustFetchOffsetsFn(func(context.Context, map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			return nil, nil
		}),
		kgo.WithHooks(groupErrors{m}),
	)
	if err != nil {
		m.cancel()
		return nil, err
	}
	return m, nil
}

// namedTopics holds commits at the versions that name topics; later ones carry
// topic ids, which requests made by hand would have to look up.
func namedTopics() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(int16(kmsg.OffsetCommit), 9)
	v.SetMaxKeyVersion(int16(kmsg.OffsetFetch), 9)
	v.SetMaxKeyVersion(int16(kmsg.TxnOffsetCommit), 5)
	return v
}

// assigned runs in the client's group goroutine, before any later join, so
// GroupMetadata is that of this assignment.
func (m *member) assigned(_ context.Context, client *kgo.Client, added map[string][]int32) {
	id, generation := client.GroupMetadata()
	m.replace(newMembership(id, generation, m.whole(added)))
}

// whole returns the partitions that are owned in every topic. While an upgrade
// that adds a topic rolls out, members differ in what they consume, and
// partition i of two topics may have two owners; nobody works on it then.
func (m *member) whole(assigned map[string][]int32) []int32 {
	owned := make(map[int32]int)
	for _, t := range m.topics {
		for _, p := range assigned[t] {
			owned[p]++
		}
	}
	var whole []int32
	for p, topics := range owned {
		if topics == len(m.topics) {
			whole = append(whole, p)
		}
	}
	slices.Sort(whole)
	return whole
}

// revoked ends the assignment and lets the transaction in hand end first, for a
// while: what is not committed by then is refused later.
func (m *member) revoked(context.Context, *kgo.Client, map[string][]int32) {
	m.replace(newMembership("", -1, nil))
	m.mu.Lock()
	let := m.let
	m.mu.Unlock()
	if let == nil {
		return
	}
	patience := time.NewTimer(m.grace)
	defer patience.Stop()
	select {
	case <-let:
	case <-patience.C:
		m.log.Warn("processor.revoked_in_transaction", zap.String("group", m.group), zap.Duration("waited", m.grace))
	}
}

func (m *member) lost(context.Context, *kgo.Client, map[string][]int32) {
	m.replace(newMembership("", -1, nil))
}

func (m *member) replace(next *membership) {
	m.mu.Lock()
	before := m.current
	m.current = next
	if next.generation >= 0 {
		m.session = nil
	}
	m.mu.Unlock()
	before.end()
}

// assignment returns the newest assignment; never nil.
func (m *member) assignment() *membership {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}

// hold says that a transaction under this assignment begins; false when the
// assignment is over. release must follow a hold.
func (m *member) hold(a *membership) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != a {
		return false
	}
	m.held, m.let = a, make(chan struct{})
	return true
}

func (m *member) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.let)
	m.held, m.let = nil, nil
}

// err is ErrTwin once the group has fenced this instance, and otherwise says
// why there is no assignment, if the last session broke.
func (m *member) err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fatal != nil {
		return m.fatal
	}
	return m.session
}

// groupErrors hears of errors that end the client's group session.
type groupErrors struct{ m *member }

// OnGroupManageError implements kgo.HookGroupManageError.
func (g groupErrors) OnGroupManageError(err error) {
	if errors.Is(err, kerr.FencedInstanceID) {
		g.m.mu.Lock()
		g.m.fatal = fmt.Errorf("%w: %s: %w", stream.ErrTwin, g.m.instance, err)
		g.m.mu.Unlock()
		g.m.replace(newMembership("", -1, nil))
		return
	}
	g.m.mu.Lock()
	g.m.session = fmt.Errorf("member of %s: %w", g.m.group, err)
	g.m.mu.Unlock()
}

// accepted asks the coordinator whether it still takes this member for the
// owner of its partitions (rule verify).
func (m *member) accepted(ctx context.Context, a *membership) error {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation, req.InstanceID = m.group, a.memberID, a.generation, &m.instance
	resp, err := req.RequestWith(ctx, m.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err = refusal(err); err != nil {
		return fmt.Errorf("heartbeat of generation %d in %s: %w", a.generation, m.group, err)
	}
	return nil
}

// offsets are offsets by topic (its name on the brokers) and partition.
type offsets map[string]map[int32]int64

func (o offsets) set(topic string, partition int32, offset int64) {
	if o[topic] == nil {
		o[topic] = make(map[int32]int64)
	}
	o[topic][partition] = offset
}

func (o offsets) get(topic string, partition int32) int64 {
	if at, ok := o[topic][partition]; ok {
		return at
	}
	return none
}

func (o offsets) equal(other offsets) bool {
	return maps.EqualFunc(o, other, maps.Equal[map[int32]int64])
}

// committed fetches the group's offsets, stable only: while a predecessor's
// transaction that holds offsets is open, it waits (rule stable). The answer
// lacks partitions without an offset.
func (m *member) committed(ctx context.Context, topics []string, partitions []int32) (offsets, error) {
	for {
		found, err := m.committedOnce(ctx, topics, partitions)
		if !errors.Is(err, kerr.UnstableOffsetCommit) {
			return found, err
		}
		if err := m.hooks.step(stepUnstable, partitions); err != nil {
			return nil, err
		}
		select {
		case <-time.After(unstableWait):
		case <-ctx.Done():
			return nil, fmt.Errorf("a predecessor's transaction is still open: %w", err)
		}
	}
}

// unstableWait is the time between two looks at offsets that a transaction holds.
const unstableWait = 20 * time.Millisecond

func (m *member) committedOnce(ctx context.Context, topics []string, partitions []int32) (offsets, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = !m.hooks.off.has(ruleStable)
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = m.group
	for _, t := range topics {
		rt := kmsg.NewOffsetFetchRequestGroupTopic()
		rt.Topic, rt.Partitions = t, partitions
		group.Topics = append(group.Topics, rt)
	}
	req.Groups = append(req.Groups, group)
	resp, err := req.RequestWith(ctx, m.client)
	if err != nil {
		return nil, fmt.Errorf("fetch offsets of %s: %w", m.group, err)
	}
	found := make(offsets)
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return nil, fmt.Errorf("fetch offsets of %s: %w", m.group, err)
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return nil, fmt.Errorf("fetch offset of %s for %s/%d: %w", m.group, t.Topic, p.Partition, err)
				}
				if p.Offset >= 0 {
					found.set(t.Topic, p.Partition, p.Offset)
				}
			}
		}
	}
	return found, nil
}

// commit sets the group's offsets outside a transaction, under the generation
// of a.
func (m *member) commit(ctx context.Context, a *membership, at offsets) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation, req.InstanceID = m.group, a.memberID, a.generation, &m.instance
	for t, ps := range at {
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic = t
		for p, o := range ps {
			rp := kmsg.NewOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset = p, o
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, m.client)
	if err != nil {
		return fmt.Errorf("commit offsets of %s: %w", m.group, err)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := refusal(kerr.ErrorForCode(p.ErrorCode)); err != nil {
				return fmt.Errorf("commit offset of %s for %s/%d under generation %d: %w", m.group, t.Topic, p.Partition, a.generation, err)
			}
		}
	}
	return nil
}

// bounds returns where the logs of the partitions start and end.
func (m *member) bounds(ctx context.Context, topics []string, partitions []int32) (starts, ends offsets, err error) {
	if starts, err = m.listOffsets(ctx, topics, partitions, earliest); err != nil {
		return nil, nil, err
	}
	ends, err = m.listOffsets(ctx, topics, partitions, latest)
	return starts, ends, err
}

// Timestamps of ListOffsets that stand for the ends of a log.
const (
	latest   = -1
	earliest = -2
)

func (m *member) listOffsets(ctx context.Context, topics []string, partitions []int32, at int64) (offsets, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	for _, t := range topics {
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = t
		for _, p := range partitions {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp = p, at
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	found := make(offsets)
	for _, shard := range m.client.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, fmt.Errorf("list offsets: %w", shard.Err)
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return nil, fmt.Errorf("list offsets of %s/%d: %w", t.Topic, p.Partition, err)
				}
				found.set(t.Topic, p.Partition, p.Offset)
			}
		}
	}
	return found, nil
}

// close leaves nothing but the membership, which a restart takes up again. The
// context is cancelled first: a client that is joining would otherwise wait
// until all others have joined.
func (m *member) close() {
	m.cancel()
	m.client.Close()
}
