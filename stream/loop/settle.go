package loop

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// settleMargin is what one look at where partitions stand may take beyond the
// timeout of a transaction: longer than a predecessor's can stay open, for brokers
// look for those that timed out every 10 s.
const settleMargin = 15 * time.Second

// settle brings partitions that are new, or whose last publish failed, to where
// the table of recovery puts them. A partition may need several looks: after
// each thing done it is read afresh.
func (t *thread) settle(ctx context.Context) error {
	for {
		open := t.unsettledParts(time.Now())
		if len(open) == 0 || t.assignment.ended.Err() != nil {
			return nil
		}
		if err := t.settleOnce(ctx, open); err != nil {
			return err
		}
	}
}

func (t *thread) unsettledParts(now time.Time) []*part {
	var open []*part
	for _, n := range keys(t.parts) {
		p := t.parts[n]
		if p.stage == halted && !now.Before(p.recheck) {
			p.stage = unsettled
			p.recheck = now.Add(t.cfg.RecheckStopped)
		}
		if p.stage == unsettled {
			open = append(open, p)
		}
	}
	return open
}

func (t *thread) settleOnce(ctx context.Context, open []*part) error {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.TxnTimeout+settleMargin)
	defer cancel()
	defer context.AfterFunc(t.assignment.ended, cancel)()
	// What we ourselves left open is aborted first, or we would wait for it.
	if err := t.publisher.open(ctx); err != nil {
		return err
	}
	all, err := t.look(ctx, open)
	if err != nil {
		return err
	}
	seeds := make(map[int32]storage.Ranges)
	commits := make(offsets)
	var publish []found
	for i, f := range all {
		p := open[i]
		d := decide(t.topics, f, t.cfg.hooks.off)
		if d.act != actStop {
			p.doubt = ""
		}
		switch d.act {
		case actBegin:
			t.begin(p, f, d)
		case actSeed:
			seeds[p.number] = d.starts
		case actCommit:
			t.addNext(commits, f)
		case actPublish:
			publish = append(publish, f)
		case actStop:
			t.metrics.setLag(p.number, f.lag())
			if err := t.mismatch(ctx, p, d.why); err != nil {
				return err
			}
		case actLeave:
			t.metrics.setLag(p.number, f.lag())
			t.halt(p, d.why)
		}
	}
	if len(seeds) > 0 {
		if err := storage.StartProgress(ctx, t.cfg.DB, t.name, seeds, t.formats.highest); err != nil {
			return err
		}
		if err := t.cfg.hooks.step(stepSeeded, keys(seeds)); err != nil {
			return err
		}
	}
	if len(commits) > 0 {
		if err := t.member.commit(ctx, t.assignment, commits); err != nil {
			return err
		}
	}
	if len(publish) > 0 {
		return t.republish(ctx, publish)
	}
	return nil
}

// look reads where partitions stand: the group's offsets, stable only; then the
// rows; then the topics' ids; then the logs' bounds.
func (t *thread) look(ctx context.Context, open []*part) ([]found, error) {
	numbers := make([]int32, len(open))
	for i, p := range open {
		numbers[i] = p.number
	}
	names := make([]string, len(t.topics))
	for i, topic := range t.topics {
		names[i] = t.topicName(topic)
	}
	committed, err := t.member.committed(ctx, names, numbers)
	if err != nil {
		return nil, err
	}
	if err := t.cfg.hooks.step(stepFetched, numbers); err != nil {
		return nil, err
	}
	rows, err := storage.LoadProgress(ctx, t.cfg.DB, t.name, numbers)
	if err != nil {
		return nil, err
	}
	left, err := t.leftTopics(ctx, rows)
	if err != nil {
		return nil, err
	}
	ids, err := stream.TopicIDs(ctx, t.member.client, names...) // before the bounds
	if err != nil {
		return nil, err
	}
	starts, ends, err := t.member.bounds(ctx, names, numbers)
	if err != nil {
		return nil, err
	}
	byNumber := make(map[int32]*storage.Progress, len(rows))
	for i := range rows {
		byNumber[rows[i].Partition] = &rows[i]
	}
	all := make([]found, len(numbers))
	for i, n := range numbers {
		f := found{partition: n, knows: t.formats.highest, row: byNumber[n],
			committed: make(map[string]int64), starts: make(map[string]int64), ends: make(map[string]int64), ids: make(map[string]uuid.UUID)}
		for j, topic := range t.topics {
			f.committed[topic] = committed.get(names[j], n)
			f.starts[topic], f.ends[topic], f.ids[topic] = starts.get(names[j], n), ends.get(names[j], n), ids[names[j]]
		}
		if f.row != nil {
			f.left = f.row.Ranges.Without(t.topics).Settled()
			kept := t.topics
			for topic, at := range left[n] {
				kept = append(slices.Clip(kept), topic)
				f.committed[topic] = at
			}
			f.row.Ranges = f.row.Ranges.Of(kept)
		}
		all[i] = f
	}
	return all, nil
}

// leftTopics are topics that this version no longer consumes, but of which the
// version before applied a range that may wait to be published: the group's
// offsets for them, by partition and topic.
func (t *thread) leftTopics(ctx context.Context, rows []storage.Progress) (map[int32]map[string]int64, error) {
	left := make(map[int32]map[string]int64)
	for _, row := range rows {
		for topic, r := range row.Ranges {
			if row.Published || r.From == r.Next || slices.Contains(t.topics, topic) {
				continue
			}
			name := t.topicName(topic)
			at, err := t.member.committed(ctx, []string{name}, []int32{row.Partition})
			if err != nil {
				return nil, err
			}
			if left[row.Partition] == nil {
				left[row.Partition] = make(map[string]int64)
			}
			left[row.Partition][topic] = at.get(name, row.Partition)
		}
	}
	return left, nil
}

// begin makes a partition ready and reads it from next on.
func (t *thread) begin(p *part, f found, d decision) {
	p.ranges, p.left, p.published, p.format = d.starts, f.left, false, firstFormat
	if f.row != nil {
		p.ranges, p.published, p.format = f.row.Ranges.Of(t.topics), f.row.Published, f.row.Format
	}
	p.at, p.ids = make(map[string]int64, len(p.ranges)), make(map[string]uuid.UUID, len(p.ranges))
	from := make(map[string]logPlace, len(p.ranges))
	for topic, r := range p.ranges {
		p.at[topic], p.ids[topic] = r.Next, cmp.Or(r.TopicID, f.ids[topic])
		from[t.topicName(topic)] = logPlace{p.ids[topic], r.Next}
	}
	if p.reason != "" {
		t.log.Info("processor.partition_goes_on", zap.Int32("partition", p.number))
	}
	p.stage, p.reason, p.active = ready, "", time.Now()
	t.metrics.setStopped(p.number, false)
	t.metrics.setFormat(p.number, p.format)
	t.noteStopped()
	t.intake.seek(p.number, from)
}

// mismatch stops a partition for an operator, but believes what it saw only
// when it was read again by a member that the coordinator still accepts (rule
// verify): a stale owner reads an offset, its successor moves on, and the row
// it reads then does not fit.
func (t *thread) mismatch(ctx context.Context, p *part, why string) error {
	if !t.cfg.hooks.off.has(ruleVerify) {
		if p.doubt != why {
			p.doubt = why
			return nil
		}
		if err := t.member.accepted(ctx, t.assignment); err != nil {
			p.doubt = ""
			return err
		}
	}
	t.halt(p, why+": "+advice(t.name, p.number))
	return nil
}

// halt leaves a partition alone, visibly, until a later look at it says otherwise.
func (t *thread) halt(p *part, reason string) {
	if p.reason != reason {
		t.log.Error("processor.partition_stopped", zap.Int32("partition", p.number), zap.String("why", reason))
	}
	p.stage, p.reason, p.doubt = halted, reason, ""
	p.recheck = time.Now().Add(t.cfg.RecheckStopped)
	t.metrics.setStopped(p.number, true)
	t.noteStopped()
}

// republish puts out what was applied and not published, without running the
// records again. Afterwards the partitions are read afresh.
func (t *thread) republish(ctx context.Context, all []found) error {
	at := make(offsets)
	var records []*kgo.Record
	for _, f := range all {
		rs, err := decodePending(t.cfg.Kafka, f.row.Pending)
		if err != nil {
			return fmt.Errorf("partition %d of %s: %w", f.partition, t.name, err)
		}
		records = append(records, rs...)
		t.addNext(at, f)
	}
	if !t.member.hold(t.assignment) {
		return nil
	}
	defer t.member.release()
	return t.publish(ctx, records, at)
}

func (t *thread) addNext(at offsets, f found) {
	for topic, r := range f.row.Ranges {
		at.set(t.topicName(topic), f.partition, r.Next)
	}
}

// publish puts out records and offsets: in a transaction, or, when there is
// nothing to produce, with a commit that the generation fences just as well.
func (t *thread) publish(ctx context.Context, records []*kgo.Record, at offsets) error {
	begun := time.Now()
	var err error
	if len(records) == 0 {
		if err = t.publisher.quiet(ctx, t.member); err == nil {
			err = t.member.commit(ctx, t.assignment, at)
		}
	} else {
		err = t.publisher.publish(ctx, t.member, t.assignment, records, at)
	}
	if err != nil {
		t.metrics.restarts.Inc()
		return err
	}
	t.metrics.publish.Observe(time.Since(begun).Seconds())
	t.metrics.outputs.Add(float64(len(records)))
	return nil
}
