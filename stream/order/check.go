package order

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// Options say what Check reads. The zero value is all there is.
type Options struct {
	// From leaves out what was appended before it.
	From time.Time
	// Contact, when given, is the only one judged; only its partition is read.
	Contact string
	// MaxContacts is how many contacts of a partition are judged at once, at about 150
	// bytes each; 0 means 500,000. A number that is missing for the moment counts as one
	// more. A partition with more is read several times, each time for a part of its contacts.
	MaxContacts int

	// spread is how far apart the records of one transaction may have been appended by the
	// clocks of two brokers.
	spread time.Duration
}

const (
	defaultMaxContacts = 500_000
	// usualSpread is long: a transaction's time-out is 8 s.
	usualSpread = time.Minute
	// patience is how long an open transaction is waited for.
	patience = 2 * time.Minute
	// readBytes is the size of a read.
	readBytes = 1 << 20
)

// Check reads topics events and lifecycle and judges the numbers of every contact. An error
// means that it could not; what is wrong with the numbers is in the report.
//
// Where it begins: a partition whose two logs are whole is read from their start. Else it
// begins, on both, at the time of the later of the two starts, or at From.
//
// Where it ends: first the committed ends of both logs are noted, then the ends behind the
// transactions that are still open. The order is judged up to the former. A number below one
// that was seen was appended before that was committed, so if it is missing from the former
// range it stands before the latter ends: that far is read on, to fill holes alone. So
// neither that one topic's end was noted earlier, nor that its part of a transaction was made
// visible later, looks like a hole.
func Check(ctx context.Context, cfg stream.Config, opts Options, logger *zap.Logger) (Report, error) {
	a, err := stream.OpenAdmin(cfg, logger)
	if err != nil {
		return Report{}, fmt.Errorf("check order: %w", err)
	}
	defer a.Close()
	stream.SetDefault(&opts.MaxContacts, defaultMaxContacts)
	stream.SetDefault(&opts.spread, usualSpread)
	c := &check{admin: a, opts: opts, began: time.Now(), seed: maphash.MakeSeed()}
	report, err := c.run(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("check order: %w", err)
	}
	return report, nil
}

// check is one Check on its way.
type check struct {
	admin   *stream.Admin
	scanner *reader.Scanner
	opts    Options
	began   time.Time
	seed    maphash.Seed
	passes  int
}

// part is what is read of a partition, of each topic.
type part struct {
	number int32
	logs   [2]span
	cut    bool
	from   time.Time // of one that is cut
}

// span is a part of a log: what is judged begins at from and ends at to; up to fill it is
// read for what is missing.
type span struct{ from, to, fill int64 }

func (c *check) run(ctx context.Context) (Report, error) {
	var err error
	if c.scanner, err = reader.NewScanner(ctx, c.admin, topics[:]...); err != nil {
		return Report{}, err
	}
	parts, err := c.survey(ctx)
	if err != nil {
		return Report{}, err
	}
	var report Report
	for _, p := range parts {
		if c.opts.Contact != "" && p.number != stream.PartitionOf([]byte(c.opts.Contact), len(parts)) {
			continue
		}
		if err := c.begin(ctx, &p); err != nil {
			return Report{}, err
		}
		c.passes = 0
		seen, err := c.judge(ctx, p, share{0, 1})
		if err != nil {
			return Report{}, err
		}
		report.Add(seen)
		report.Partitions++
		report.Passes = max(report.Passes, c.passes)
		if p.cut {
			report.Cut++
			if report.From == nil || p.from.After(*report.From) {
				report.From = &p.from
			}
		}
	}
	return report, nil
}

// survey notes where the logs begin and end.
func (c *check) survey(ctx context.Context) ([]part, error) {
	var names []string
	for _, t := range topics {
		names = append(names, c.admin.Config.Topic(t))
	}
	var found [3]kadm.ListedOffsets
	for i, list := range []func(context.Context, ...string) (kadm.ListedOffsets, error){
		c.admin.Kadm.ListStartOffsets, c.admin.Kadm.ListCommittedOffsets, c.admin.Kadm.ListEndOffsets, // the ends in this order
	} {
		var err error
		if found[i], err = list(ctx, names...); err == nil {
			err = found[i].Error()
		}
		if err != nil {
			return nil, fmt.Errorf("list offsets of %v: %w", names, err)
		}
	}
	if n, o := len(found[0][names[0]]), len(found[0][names[1]]); n != o {
		return nil, fmt.Errorf("%s has %d partitions and %s %d: the records of a contact must be on one number of both", names[0], n, names[1], o)
	}
	parts := make([]part, len(found[0][names[0]]))
	for i := range parts {
		p := &parts[i]
		p.number = int32(i)
		for t, name := range names {
			at := func(l kadm.ListedOffsets) int64 { o, _ := l.Lookup(name, p.number); return o.Offset }
			p.logs[t] = span{at(found[0]), at(found[1]), at(found[2])}
		}
	}
	return parts, nil
}

// begin decides from where on a partition is judged.
func (c *check) begin(ctx context.Context, p *part) error {
	from := c.opts.From
	for t, l := range p.logs {
		if l.from == 0 {
			continue
		}
		began, err := c.firstAppended(ctx, stream.TopicPartition{Topic: topics[t], Partition: p.number}, l)
		if err != nil {
			return err
		}
		if began.After(from) {
			from = began
		}
	}
	if from.IsZero() {
		return nil
	}
	places, err := c.admin.OffsetsAt(ctx, from, topics[:]...)
	if err != nil {
		return err
	}
	for t := range p.logs {
		l := &p.logs[t]
		at := reader.OffsetIn(places, storage.CursorStart{Topic: string(topics[t]), Partition: p.number})
		l.from = min(max(l.from, at), l.to)
		p.cut = p.cut || l.from > 0
	}
	p.from = from
	return nil
}

// firstAppended is when the first record was appended that a log still has; of one that has
// none, the present.
func (c *check) firstAppended(ctx context.Context, key stream.TopicPartition, l span) (time.Time, error) {
	s := source{check: c, key: key, at: l.from, until: l.to}
	r, err := s.head(ctx)
	if r == nil || err != nil {
		return c.began, err
	}
	return r.AppendTime, nil
}

// share is a part of the contacts: those whose hash leaves index when divided by of, a power
// of two.
type share struct{ index, of uint64 }

func (c *check) has(s share, key []byte) bool {
	return maphash.Bytes(c.seed, key)&(s.of-1) == s.index
}

// judge judges a share of the contacts, in halves when they are too many for once.
func (c *check) judge(ctx context.Context, p part, s share) (Report, error) {
	report, tooMany, err := c.pass(ctx, p, s)
	if err != nil || !tooMany {
		return report, err
	}
	report, err = c.judge(ctx, p, share{s.index, s.of * 2})
	if err != nil {
		return Report{}, err
	}
	other, err := c.judge(ctx, p, share{s.index + s.of, s.of * 2})
	report.Add(other)
	return report, err
}

// pass reads a partition once.
func (c *check) pass(ctx context.Context, p part, s share) (_ Report, tooMany bool, err error) {
	c.passes++
	j := NewJudge(p.cut)
	wanted := func(r *stream.Record) bool {
		return (c.opts.Contact == "" || string(r.Key) == c.opts.Contact) && c.has(s, r.Key)
	}
	judged := c.sources(p, func(l span) (from, to int64) { return l.from, l.to })
	for {
		r, err := next(ctx, judged)
		if err != nil {
			return Report{}, false, err
		}
		if r == nil {
			break
		}
		if !wanted(r) {
			continue
		}
		record := Of(r)
		record.AfterCut = p.cut && !r.AppendTime.Before(p.from.Add(c.opts.spread))
		j.Add(record)
		// The numbers of one contact are not divided.
		if j.size() > c.opts.MaxContacts && len(j.contacts) > 1 {
			return Report{}, true, nil
		}
	}
	for beyond := c.sources(p, func(l span) (from, to int64) { return l.to, l.fill }); j.Open(); {
		r, err := next(ctx, beyond)
		if err != nil {
			return Report{}, false, err
		}
		if r == nil {
			break
		}
		if wanted(r) {
			j.Fill(Of(r))
		}
	}
	return j.Report(), false, nil
}

func (c *check) sources(p part, within func(span) (from, to int64)) []*source {
	var all []*source
	for t, l := range p.logs {
		from, to := within(l)
		all = append(all, &source{check: c, key: stream.TopicPartition{Topic: topics[t], Partition: p.number}, at: from, until: to})
	}
	return all
}

// next takes the record that was appended first, so that what is missing for the moment is
// little; nil at the ends of all.
func next(ctx context.Context, sources []*source) (*stream.Record, error) {
	var first *source
	for _, s := range sources {
		r, err := s.head(ctx)
		if err != nil {
			return nil, err
		}
		if r != nil && (first == nil || r.AppendTime.Before(first.records[0].AppendTime)) {
			first = s
		}
	}
	if first == nil {
		return nil, nil
	}
	r := &first.records[0]
	first.records = first.records[1:]
	return r, nil
}

// source reads a part of a log.
type source struct {
	check     *check
	key       stream.TopicPartition
	at, until int64
	records   []stream.Record
}

// head is the next record, which stays; nil at the end.
func (s *source) head(ctx context.Context) (*stream.Record, error) {
	moved := time.Now()
	for len(s.records) == 0 && s.at < s.until {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		chunk, err := s.check.scanner.Read(ctx, s.key, s.at, readBytes)
		if reader.IsOutOfRange(err) {
			return nil, fmt.Errorf("%s/%d at %d: retention took it while it was read: run it again: %w", s.key.Topic, s.key.Partition, s.at, err)
		}
		if err != nil {
			return nil, err
		}
		if chunk == nil {
			if waited := time.Since(moved); waited > patience {
				return nil, fmt.Errorf("%s/%d at %d of %d: %w for %s", s.key.Topic, s.key.Partition, s.at, s.until, errOpen, waited.Round(time.Second))
			}
			stream.Pause(ctx, 100*time.Millisecond)
			continue
		}
		moved, s.at = time.Now(), chunk.To
		for len(chunk.Records) > 0 && chunk.Records[len(chunk.Records)-1].Offset >= s.until {
			chunk.Records = chunk.Records[:len(chunk.Records)-1]
		}
		s.records = chunk.Records
	}
	if len(s.records) == 0 {
		return nil, nil
	}
	return &s.records[0], nil
}

var errOpen = errors.New("a transaction has been open, or the broker silent,")
