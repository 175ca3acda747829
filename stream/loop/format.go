package loop

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// Formatted is a Processor that writes its state or its outputs in another format than
// its first release did. One that is not writes format 1.
type Formatted interface {
	Processor
	// Format is the highest format that it reads and writes. It reads and writes all
	// lower ones too: Batch.Format says which applies to a partition.
	Format() int32
}

// FormatOf is the highest format of a processor.
func FormatOf(p Processor) int32 {
	if f, ok := p.(Formatted); ok {
		return max(f.Format(), firstFormat)
	}
	return firstFormat
}

// firstFormat is that of a row which nobody raised, and of a member that says nothing.
const firstFormat = 1

// formats is what this member, and all members of its group, can read and write.
type formats struct {
	highest int32 // of the processor in this binary
	agreed  int32 // of the member that knows least, when last asked; 0 when it is not known
	asked   *membership
	askedAt time.Time
	told    string // what was last logged of members that hold the format back
}

// askFormatsAgain is how often members are asked for while some of them hold the format
// of a partition back. A member that leaves or joins is also heard of by a new assignment,
// but one that restarts within its session is not.
const askFormatsAgain = 2 * time.Second

// due says that the members have to be asked before a partition of this format is written.
func (f *formats) due(format int32, under *membership, now time.Time) bool {
	return format < f.highest && (f.asked != under || now.Sub(f.askedAt) >= askFormatsAgain)
}

// of is the format in which a partition is written whose row has another, or none (0).
func (f *formats) of(row int32) int32 {
	return max(row, min(f.agreed, f.highest), firstFormat)
}

// agree asks the coordinator, while a batch has a partition that this binary could write
// in a higher format, what the members of the group can. They rise together: as long as
// one member is of an older release, nobody writes what it cannot read. One that joins
// right after the answer finds rows that it leaves alone, or that the guard in Postgres
// refuses it.
func (w *worker) agree(ctx context.Context, b *batch) {
	lowest := w.formats.highest
	for _, a := range b.parts {
		lowest = min(lowest, a.part.format)
	}
	now := time.Now()
	if !w.formats.due(lowest, w.assignment, now) {
		return
	}
	w.formats.asked, w.formats.askedAt = w.assignment, now
	var holding []string
	var err error
	w.formats.agreed, holding, err = w.member.formats(ctx, w.formats.highest)
	told := strings.Join(holding, ", ")
	if err != nil {
		told = err.Error()
	}
	if told == w.formats.told {
		return
	}
	w.formats.told = told
	switch {
	case err != nil:
		w.log.Warn("processor.formats_unknown", zap.Error(err))
	case told != "":
		w.log.Info("processor.format_waits", zap.Int32("format", w.formats.highest), zap.Int32("until_then", w.formats.agreed), zap.Strings("for", holding))
	}
}

// toRaise are partitions that are read and may be written in a higher format now. They do
// not wait for a record: others wait for the format (storage.TakeOverWaits).
func (w *worker) toRaise(ctx context.Context, now time.Time) []*part {
	b := w.emptyBatch()
	for _, p := range w.parts {
		if p.stage == ready && w.formats.due(p.format, w.assignment, now) {
			b.add(p)
		}
	}
	if len(b.parts) == 0 {
		return nil
	}
	w.agree(ctx, b)
	var raise []*part
	for _, a := range b.parts {
		if w.formats.of(a.part.format) > a.part.format {
			raise = append(raise, a.part)
		}
	}
	return raise
}

// noteRaised tells of partitions that are in a higher format now.
func (w *worker) noteRaised(b *batch) {
	raised := make(map[int32][]int32) // partitions by format
	for _, n := range slices.Sorted(maps.Keys(b.parts)) {
		if a := b.parts[n]; a.format > a.part.format {
			raised[a.format] = append(raised[a.format], n)
			a.part.format = a.format
			w.metrics.setFormat(n, a.format)
		}
	}
	for _, format := range slices.Sorted(maps.Keys(raised)) {
		w.log.Info("processor.format_raised", zap.Int32("format", format), zap.Int32s("partitions", raised[format]))
	}
}

// newerFormat says why a partition is left alone; "" when it is not.
func (f found) newerFormat() string {
	if f.row == nil || f.row.Format <= f.knows {
		return ""
	}
	return fmt.Sprintf("its state is in format %d, which a newer release writes, and this one knows up to %d: "+
		"it is left to the instances of that release; upgrade this one", f.row.Format, f.knows)
}

// formats asks the coordinator what the members of the group can: the lowest format of
// all, and the members that are below what is wanted. 0 while the group rebalances.
func (m *member) formats(ctx context.Context, wanted int32) (lowest int32, below []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askFormatsAgain)
	defer cancel()
	groups, err := kadm.NewClient(m.client).DescribeGroups(ctx, m.group)
	if err == nil {
		err = groups.Error()
	}
	if err != nil {
		return 0, nil, fmt.Errorf("describe group %s: %w", m.group, err)
	}
	group := groups[m.group]
	if group.State != "Stable" || len(group.Members) == 0 {
		return 0, nil, nil
	}
	lowest, below = lowestFormat(group.Members, wanted)
	return lowest, below, nil
}

// lowestFormat is the format that all members can, at most what is wanted, and the names
// of those that are below.
func lowestFormat(members []kadm.DescribedGroupMember, wanted int32) (lowest int32, below []string) {
	lowest = wanted
	for _, member := range members {
		can := int32(firstFormat)
		if joined, ok := member.Join.AsConsumer(); ok {
			can = parseFormat(joined.UserData)
		}
		if can >= wanted {
			continue
		}
		lowest = min(lowest, can)
		name := member.MemberID
		if member.InstanceID != nil {
			name = *member.InstanceID
		}
		below = append(below, name)
	}
	slices.Sort(below)
	return lowest, below
}

// declaring is a balancer whose member tells the group its highest format, beside the
// topics it joins for. The coordinator keeps that as long as the member is one, and
// replaces it when a restart of another release takes the member's place.
type declaring struct {
	kgo.GroupBalancer
	format int32
}

// JoinGroupMetadata implements kgo.GroupBalancer.
func (d declaring) JoinGroupMetadata(topics []string, current map[string][]int32, generation int32) []byte {
	raw := d.GroupBalancer.JoinGroupMetadata(topics, current, generation)
	var joined kmsg.ConsumerMemberMetadata
	if joined.ReadFrom(raw) != nil {
		return raw
	}
	joined.UserData = appendFormat(nil, d.format)
	return joined.AppendTo(nil)
}

// formatPrefix stands before the format in a member's user data, as text, for whoever
// describes the group.
const formatPrefix = "hogstream format "

func appendFormat(b []byte, format int32) []byte {
	return strconv.AppendInt(append(b, formatPrefix...), int64(format), 10)
}

// parseFormat reads what appendFormat wrote. A member that says nothing, or something
// else, is of the first.
func parseFormat(userData []byte) int32 {
	number, ok := strings.CutPrefix(string(userData), formatPrefix)
	format, err := strconv.ParseInt(number, 10, 32)
	if !ok || err != nil || format < firstFormat {
		return firstFormat
	}
	return int32(format)
}
