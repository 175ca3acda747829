package loop

import (
	"cmp"
	"context"
	"fmt"
	"maps"
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
func (w *worker) settle(ctx context.Context) error {
	for {
		open := w.unsettledParts(time.Now())
		if len(open) == 0 || w.assignment.ended.Err() != nil {
			return nil
		}
		if err := w.settleOnce(ctx, open); err != nil {
			return err
		}
	}
}

func (w *worker) unsettledParts(now time.Time) []*part {
	var open []*part
	for _, n := range slices.Sorted(maps.Keys(w.parts)) {
		p := w.parts[n]
		if p.stage == halted && !now.Before(p.recheck) {
			p.stage = unsettled
			p.recheck = now.Add(w.cfg.timing.Recheck)
		}
		if p.stage == unsettled {
			open = append(open, p)
		}
	}
	return open
}

func (w *worker) settleOnce(ctx context.Context, open []*part) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.timing.Txn+settleMargin)
	defer cancel()
	defer context.AfterFunc(w.assignment.ended, cancel)()
	// What we ourselves left open is aborted first, or we would wait for it.
	if err := w.publisher.open(ctx); err != nil {
		return err
	}
	all, err := w.look(ctx, open)
	if err != nil {
		return err
	}
	seeds := make(map[int32]storage.Ranges)
	commits := make(offsets)
	var publish, take []found
	note := false
	for i, f := range all {
		p := open[i]
		d := decide(w.topics, f, w.cfg.hooks.off)
		if d.act != actStop {
			p.doubt = ""
		}
		switch d.act {
		case actBegin:
			w.begin(p, f, d)
		case actSeed:
			seeds[p.number] = d.starts
		case actNote:
			note = true
		case actTakeOver:
			take = append(take, f)
		case actCommit:
			w.addNext(commits, f)
		case actPublish:
			publish = append(publish, f)
		case actStop:
			w.metrics.setLag(p.number, f.lag())
			if err := w.mismatch(ctx, p, d.why); err != nil {
				return err
			}
		case actLeave:
			w.metrics.setLag(p.number, f.lag())
			w.halt(p, d.why, true)
		case actAnew:
			w.metrics.setLag(p.number, f.lag())
			w.halt(p, d.why+": "+anew(w.name), false)
		}
	}
	if note {
		if err := w.noteEnds(ctx); err != nil {
			return err
		}
	}
	if len(seeds) > 0 {
		if err := w.cfg.DB.StartProgress(ctx, w.name, seeds, w.formats.highest); err != nil {
			return err
		}
		if err := w.cfg.hooks.step(stepSeeded, slices.Sorted(maps.Keys(seeds))); err != nil {
			return err
		}
	}
	if len(commits) > 0 {
		if err := w.member.commit(ctx, w.assignment, commits); err != nil {
			return err
		}
	}
	if len(publish) > 0 {
		return w.republish(ctx, publish)
	}
	return w.takeOver(ctx, take)
}

// look reads where partitions stand: the group's offsets, stable only; then the
// rows; then the topics' ids; then the logs' bounds.
func (w *worker) look(ctx context.Context, open []*part) ([]found, error) {
	numbers := make([]int32, len(open))
	for i, p := range open {
		numbers[i] = p.number
	}
	names := make([]string, len(w.topics))
	for i, topic := range w.topics {
		names[i] = w.topicName(topic)
	}
	committed, err := w.member.committed(ctx, names, numbers)
	if err != nil {
		return nil, err
	}
	if err := w.cfg.hooks.step(stepFetched, numbers); err != nil {
		return nil, err
	}
	rows, err := w.cfg.DB.LoadProgress(ctx, w.name, numbers)
	if err != nil {
		return nil, err
	}
	left, err := w.leftTopics(ctx, rows)
	if err != nil {
		return nil, err
	}
	var era int64
	if w.takesOver != nil {
		if era, err = w.cfg.DB.PresentEra(ctx); err != nil {
			return nil, err
		}
	}
	ids, err := stream.TopicIDs(ctx, w.member.client, names...) // before the bounds
	if err != nil {
		return nil, err
	}
	starts, ends, err := w.member.bounds(ctx, names, numbers)
	if err != nil {
		return nil, err
	}
	byNumber := make(map[int32]*storage.Progress, len(rows))
	for i := range rows {
		byNumber[rows[i].Partition] = &rows[i]
	}
	all := make([]found, len(numbers))
	for i, n := range numbers {
		f := found{partition: n, knows: w.formats.highest, takesOver: w.takesOver != nil, era: era, row: byNumber[n],
			committed: make(map[string]int64), starts: make(map[string]int64), ends: make(map[string]int64), ids: make(map[string]uuid.UUID)}
		for j, topic := range w.topics {
			f.committed[topic] = committed.get(names[j], n)
			f.starts[topic], f.ends[topic], f.ids[topic] = starts.get(names[j], n), ends.get(names[j], n), ids[names[j]]
		}
		if f.row != nil {
			f.left = f.row.Ranges.Without(w.topics).Settled()
			kept := w.topics
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
func (w *worker) leftTopics(ctx context.Context, rows []storage.Progress) (map[int32]map[string]int64, error) {
	left := make(map[int32]map[string]int64)
	for _, row := range rows {
		for topic, r := range row.Ranges {
			if row.Published || r.From == r.Next || slices.Contains(w.topics, topic) {
				continue
			}
			name := w.topicName(topic)
			at, err := w.member.committed(ctx, []string{name}, []int32{row.Partition})
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
func (w *worker) begin(p *part, f found, d decision) {
	p.ranges, p.left, p.published, p.format = d.starts, f.left, false, firstFormat
	if f.row != nil {
		p.ranges, p.published, p.format = f.row.Ranges.Of(w.topics), f.row.Published, f.row.Format
	}
	p.at, p.ids = make(map[string]int64, len(p.ranges)), make(map[string]uuid.UUID, len(p.ranges))
	from := make(map[string]logPlace, len(p.ranges))
	for topic, r := range p.ranges {
		p.at[topic], p.ids[topic] = r.Next, cmp.Or(r.TopicID, f.ids[topic])
		from[w.topicName(topic)] = logPlace{p.ids[topic], r.Next, f.ends[topic]}
	}
	if p.reason != "" {
		w.log.Info("processor.partition_goes_on", zap.Int32("partition", p.number))
	}
	p.stage, p.reason, p.waits, p.active = ready, "", false, time.Now()
	w.metrics.setStopped(p.number, false)
	w.metrics.setFormat(p.number, p.format)
	w.noteStopped()
	w.intake.seek(p.number, from)
}

// mismatch stops a partition for an operator, but believes what it saw only
// when it was read again by a member that the coordinator still accepts (rule
// verify): a stale owner reads an offset, its successor moves on, and the row
// it reads then does not fit.
func (w *worker) mismatch(ctx context.Context, p *part, why string) error {
	if !w.cfg.hooks.off.has(ruleVerify) {
		if p.doubt != why {
			p.doubt = why
			return nil
		}
		if err := w.member.accepted(ctx, w.assignment); err != nil {
			p.doubt = ""
			return err
		}
	}
	w.halt(p, why+": "+advice(w.name, p.number), false)
	return nil
}

// halt leaves a partition alone, visibly, until a later look at it says otherwise.
func (w *worker) halt(p *part, reason string, newer bool) {
	if p.reason != reason {
		w.log.Error("processor.partition_stopped", zap.Int32("partition", p.number), zap.String("why", reason))
	}
	p.stage, p.reason, p.newer, p.waits, p.doubt = halted, reason, newer, false, ""
	p.recheck = time.Now().Add(w.cfg.timing.Recheck)
	w.metrics.setStopped(p.number, true)
	w.noteStopped()
}

// republish puts out what was applied and not published, without running the
// records again. Afterwards the partitions are read afresh.
func (w *worker) republish(ctx context.Context, all []found) error {
	at := make(offsets)
	var records []*kgo.Record
	for _, f := range all {
		rs, err := decodePending(w.cfg.Kafka, f.row.Pending)
		if err != nil {
			return fmt.Errorf("partition %d of %s: %w", f.partition, w.name, err)
		}
		records = append(records, rs...)
		w.addNext(at, f)
	}
	if !w.member.hold(w.assignment) {
		return nil
	}
	defer w.member.release()
	return w.publish(ctx, records, at)
}

func (w *worker) addNext(at offsets, f found) {
	for topic, r := range f.row.Ranges {
		at.set(w.topicName(topic), f.partition, r.Next)
	}
}

// publish puts out records and offsets: in a transaction, or, when there is
// nothing to produce, with a commit that the generation fences just as well.
func (w *worker) publish(ctx context.Context, records []*kgo.Record, at offsets) error {
	begun := time.Now()
	var err error
	if len(records) == 0 {
		if err = w.publisher.quiet(ctx, w.member); err == nil {
			err = w.member.commit(ctx, w.assignment, at)
		}
	} else {
		err = w.publisher.publish(ctx, w.member, w.assignment, records, at)
	}
	if err != nil {
		w.metrics.restarts.Inc()
		return err
	}
	w.metrics.publish.Observe(time.Since(begun).Seconds())
	w.metrics.outputs.Add(float64(len(records)))
	return nil
}
