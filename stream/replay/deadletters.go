package replay

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/reader"
)

// DeadLetters is what operators do with what was given up: look, redrive, discard.
// The letters stay on their topic; what became of them is in Postgres. Safe for
// concurrent use.
type DeadLetters struct {
	admin     *stream.Admin
	db        *storage.DB
	codec     LetterCodec
	redeliver Redeliver
	// Patience is for how long a call that redrives many begins attempts. It is set
	// before the first call, if at all.
	Patience time.Duration
}

// Redeliver makes one attempt to deliver a record to a destination now, after so many
// that were made.
type Redeliver func(ctx context.Context, destinationID string, r *stream.Record, made int) (delivery.Outcome, error)

// LetterCodec decodes values of topic dead-letters, and those of processors' topics
// that stand in them, and encodes the signals in which some are sent again. Implemented
// by *schemas.Codec.
type LetterCodec interface {
	stream.Encoder
	DecodeDeadLetter(value []byte) (*schemas.DeadLetter, error)
	DecodeInput(value []byte) (*schemas.Input, error)
	DecodeResolved(value []byte) (*schemas.Resolved, error)
	DecodeOutbox(value []byte) (*schemas.Outbox, error)
}

// NewDeadLetters makes it.
func NewDeadLetters(admin *stream.Admin, db *storage.DB, codec LetterCodec, redeliver Redeliver) *DeadLetters {
	return &DeadLetters{admin: admin, db: db, codec: codec, redeliver: redeliver, Patience: redrivePatience}
}

// Letter is a dead letter and what became of it.
type Letter struct {
	*schemas.DeadLetter
	// Place identifies the letter: <partition>-<offset> on topic dead-letters.
	Place      string
	Status     string
	RetryCount int
	RetriedAt  *time.Time
	AppendedAt time.Time

	erased  bool      // it is about somebody who was erased
	topicID uuid.UUID // of the topic on which it stands; set by Get
}

// LetterFilter narrows a list; zero fields do not.
type LetterFilter struct {
	Source, Reason, Type, Key, RecordID, DestinationID string
	Status                                             string
	// From and To are times of the giving up, To exclusive. Where a filter is written
	// down, a time that it does not have is left out.
	From time.Time `json:",omitzero"`
	To   time.Time `json:",omitzero"`
}

func (f *LetterFilter) matches(l *Letter) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	if !f.From.IsZero() && l.AppendedAt.Before(f.From) || !f.To.IsZero() && !l.AppendedAt.Before(f.To) {
		return false
	}
	destination := ""
	if l.DestinationID != nil {
		destination = *l.DestinationID
	}
	return is(f.Source, l.Source) && is(f.Reason, l.Reason) && schemas.ParseTypePattern(f.Type).Matches(l.RecordType) && is(f.Key, string(l.RecordKey)) &&
		is(f.RecordID, l.RecordID) && is(f.DestinationID, destination) && is(f.Status, l.Status)
}

// LetterPage is a part of the list.
type LetterPage struct {
	Letters []*Letter
	// Next is the cursor of the next part, "" at the end. A part may be short, or
	// empty, with a next one: a call looks at so many letters and no more.
	Next    string
	Scanned int
}

// Errors of DeadLetters.
var (
	ErrLetterCursor = errors.New("not a cursor of this list")
	ErrNoLetter     = errors.New("no such dead letter")
	// ErrLetterDone: it was retried or discarded, or another retry is under way.
	ErrLetterDone = errors.New("the dead letter is not pending")
	// ErrLetterLost: there is nothing to retry, the record is gone.
	ErrLetterLost = errors.New("the record of this dead letter is gone")
)

// A call looks at so many letters at most, read in windows of so many offsets.
const (
	lettersScanned = 20_000
	letterWindow   = 128
)

// List returns dead letters, newest first.
func (d *DeadLetters) List(ctx context.Context, f LetterFilter, cursor string, limit int) (*LetterPage, error) {
	scan, err := d.open(ctx, cursor, f)
	if err != nil {
		return nil, err
	}
	page := &LetterPage{}
	for len(page.Letters) < limit && page.Scanned < lettersScanned {
		l, err := scan.next(ctx)
		if err != nil || l == nil {
			return page, err
		}
		page.Scanned++
		if l = l.shown(); f.matches(l) {
			page.Letters = append(page.Letters, l)
		}
	}
	page.Next = scan.cursor()
	return page, nil
}

// letterScan walks backwards over all partitions, newest first.
type letterScan struct {
	d     *DeadLetters
	s     *reader.Scanner
	parts []*letterPart
}

type letterPart struct {
	key    stream.TopicPartition
	start  int64
	upper  int64     // everything at or beyond was shown
	lower  int64     // everything from here to upper is in buffer
	buffer []*Letter // ascending
}

// open begins where the cursor says, within the times of the filter: letters outside
// of them are not read.
func (d *DeadLetters) open(ctx context.Context, cursor string, f LetterFilter) (*letterScan, error) {
	uppers, err := readLetterCursor(cursor)
	if err != nil {
		return nil, err
	}
	s, err := reader.NewScanner(ctx, d.admin, schemas.TopicDeadLetters)
	if err != nil {
		return nil, err
	}
	first, last := d.admin.StartOffsets, d.admin.EndOffsets
	if !f.From.IsZero() {
		first = d.admin.From(f.From)
	}
	if !f.To.IsZero() {
		last = d.admin.From(f.To)
	}
	starts, err := first(ctx, schemas.TopicDeadLetters)
	if err != nil {
		return nil, err
	}
	ends, err := last(ctx, schemas.TopicDeadLetters)
	if err != nil {
		return nil, err
	}
	scan := &letterScan{d: d, s: s}
	for _, start := range starts {
		upper := reader.OffsetIn(ends, start)
		if given, ok := uppers[start.Partition]; ok {
			upper = min(upper, given)
		}
		scan.parts = append(scan.parts, &letterPart{key: stream.TopicPartition{Topic: schemas.TopicDeadLetters, Partition: start.Partition}, start: start.Offset, upper: upper, lower: upper})
	}
	return scan, nil
}

// readLetterCursor reads where in each partition a list goes on, below these offsets.
func readLetterCursor(cursor string) (map[int32]int64, error) {
	uppers := map[int32]int64{}
	if cursor == "" {
		return uppers, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || json.Unmarshal(raw, &uppers) != nil {
		return nil, ErrLetterCursor
	}
	return uppers, nil
}

func (s *letterScan) cursor() string {
	uppers := map[int32]int64{}
	more := false
	for _, p := range s.parts {
		uppers[p.key.Partition] = p.upper
		more = more || p.upper > p.start
	}
	if !more {
		return ""
	}
	raw, _ := json.Marshal(uppers) // numbers cannot fail
	return base64.RawURLEncoding.EncodeToString(raw)
}

// next is the newest letter that was not shown, nil when there is none.
func (s *letterScan) next(ctx context.Context) (*Letter, error) {
	var newest *letterPart
	for _, p := range s.parts {
		if err := s.fill(ctx, p); err != nil {
			return nil, err
		}
		if len(p.buffer) > 0 && (newest == nil || p.last().AppendedAt.After(newest.last().AppendedAt)) {
			newest = p
		}
	}
	if newest == nil {
		return nil, nil
	}
	l := newest.last()
	newest.buffer = newest.buffer[:len(newest.buffer)-1]
	_, newest.upper, _ = parsePlace(l.Place)
	return l, nil
}

func (p *letterPart) last() *Letter { return p.buffer[len(p.buffer)-1] }

// fill reads the window before, until there is a letter in the buffer.
func (s *letterScan) fill(ctx context.Context, p *letterPart) error {
	for len(p.buffer) == 0 && p.lower > p.start {
		to := p.lower
		from := max(p.start, to-letterWindow)
		letters, err := s.d.window(ctx, s.s, p.key, from, to)
		if err != nil {
			return err
		}
		p.buffer, p.upper, p.lower = letters, to, from
	}
	if len(p.buffer) == 0 {
		p.upper = p.lower
	}
	return nil
}

// window reads the letters of a range of offsets with their marks.
func (d *DeadLetters) window(ctx context.Context, s *reader.Scanner, key stream.TopicPartition, from, to int64) ([]*Letter, error) {
	marks, err := d.db.LetterMarks(ctx, s.Leaders[key].ID, key.Partition, from, to)
	if err != nil {
		return nil, err
	}
	var letters []*Letter
	for at := from; at < to; {
		c, err := s.Read(ctx, key, at, 1<<20)
		if err != nil && !reader.IsOutOfRange(err) {
			return nil, err
		}
		if c == nil {
			break
		}
		for i := range c.Records {
			if r := &c.Records[i]; r.Offset >= at && r.Offset < to {
				letters = append(letters, d.letter(r, marks))
			}
		}
		at = c.To
	}
	return letters, d.markErased(ctx, letters)
}

// letter decodes a record of the topic. One that cannot be decoded is shown as far
// as its headers go.
func (d *DeadLetters) letter(r *stream.Record, marks map[int64]storage.LetterMark) *Letter {
	decoded, err := d.codec.DecodeDeadLetter(r.Value)
	if err != nil {
		decoded = &schemas.DeadLetter{ID: r.ID, OccurredAt: r.OccurredAt, Source: "unknown", Reason: "undecodable", Error: err.Error(), RecordKey: r.Key}
	}
	l := &Letter{DeadLetter: decoded, Place: fmt.Sprintf("%d-%d", r.Partition, r.Offset), Status: storage.LetterPending, AppendedAt: r.AppendTime}
	if m, ok := marks[r.Offset]; ok {
		l.Status, l.RetryCount, l.RetriedAt = m.Status, m.RetryCount, m.RetriedAt
	}
	return l
}

func parsePlace(place string) (partition int32, offset int64, ok bool) {
	left, right, found := strings.Cut(place, "-")
	p, err1 := strconv.ParseInt(left, 10, 32)
	o, err2 := strconv.ParseInt(right, 10, 64)
	return int32(p), o, found && err1 == nil && err2 == nil && p >= 0 && o >= 0
}

// Get returns one dead letter by its place, or ErrNoLetter. Of one about somebody who
// was erased it shows where it stands and no more.
func (d *DeadLetters) Get(ctx context.Context, place string) (*Letter, error) {
	l, err := d.get(ctx, place)
	if err != nil {
		return nil, err
	}
	return l.shown(), nil
}

func (d *DeadLetters) get(ctx context.Context, place string) (*Letter, error) {
	partition, offset, ok := parsePlace(place)
	if !ok {
		return nil, ErrNoLetter
	}
	s, err := reader.NewScanner(ctx, d.admin, schemas.TopicDeadLetters)
	if err != nil {
		return nil, err
	}
	key := stream.TopicPartition{Topic: schemas.TopicDeadLetters, Partition: partition}
	if _, ok := s.Leaders[key]; !ok {
		return nil, ErrNoLetter
	}
	r, err := s.One(ctx, key, offset)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, ErrNoLetter
	}
	marks, err := d.db.LetterMarks(ctx, s.Leaders[key].ID, partition, offset, offset+1)
	if err != nil {
		return nil, err
	}
	l := d.letter(r, marks)
	l.topicID = s.Leaders[key].ID
	return l, d.markErased(ctx, []*Letter{l})
}

// RedriveError says why a redrive did not succeed; the letter is pending again.
type RedriveError struct{ Outcome delivery.Outcome }

// Error implements error.
func (e *RedriveError) Error() string {
	return fmt.Sprintf("the destination did not take it: %s (%s)", e.Outcome.Verdict, cmp.Or(e.Outcome.Err, "no reason given"))
}

// Redrive sends a pending dead letter on its way again: to its destination, in one
// attempt made now, or back onto the topic of the processor that gave it up. Of
// two calls at once only one does so. One about somebody who was erased stays where it
// is (ErrLetterErased), but for the fact that they were deleted.
func (d *DeadLetters) Redrive(ctx context.Context, place string) (*Letter, error) {
	l, err := d.get(ctx, place)
	if err != nil {
		return nil, err
	}
	if l.Status == storage.LetterErased {
		return l.shown(), ErrLetterErased
	}
	partition, offset, _ := parsePlace(place)
	claimed, err := d.db.ClaimLetter(ctx, l.topicID, partition, offset)
	if err != nil {
		return nil, err
	}
	if !claimed {
		return l.shown(), ErrLetterDone
	}
	err = d.send(ctx, l)
	// Whatever became of it is written down, also when the caller has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if settle := d.db.SettleLetter(ctx, partition, offset, err == nil); err == nil {
		err = settle
	}
	if err != nil {
		return l.shown(), err
	}
	return d.Get(ctx, place)
}

func (d *DeadLetters) send(ctx context.Context, l *Letter) error {
	r, err := d.record(ctx, l)
	if err != nil {
		return err
	}
	if l.DestinationID == nil {
		if r, err = d.addressed(l, r); err != nil {
			return err
		}
		return reproduce(ctx, d.admin, r)
	}
	asked, err := d.asked(r)
	if err != nil {
		return err
	}
	made := l.Attempts + l.RetryCount
	out, err := d.redeliver(ctx, *l.DestinationID, r, made)
	switch {
	case err == nil && asked != nil && out.Verdict == delivery.Delivered:
		return d.tell(ctx, asked, &out, made+1)
	case err != nil, out.Verdict == delivery.Delivered, out.Verdict == delivery.Skipped:
		return err
	case out.Verdict == delivery.Erased:
		return ErrLetterErased
	}
	return &RedriveError{out}
}

// ErrLetterLate: whoever asked for the record does not want it sent any more.
var ErrLetterLate = errors.New("it is too late to send it: whoever asked for it named a time that has passed")

// asked is what was asked for in a record of a topic that answers; nil of another.
func (d *DeadLetters) asked(r *stream.Record) (*schemas.Outbox, error) {
	if feed, _ := schemas.FeedOf(r.Topic); !feed.Answers {
		return nil, nil //nolint:nilnil // nothing was asked for
	}
	o, err := d.codec.DecodeOutbox(r.Value)
	if err != nil {
		return nil, fmt.Errorf("decode record %s: %w", r.ID, err)
	}
	if !time.Now().Before(o.NotAfter) {
		return nil, ErrLetterLate
	}
	return o, nil
}

// tell appends the final receipt of a record whose letter was redriven, before that is noted.
func (d *DeadLetters) tell(ctx context.Context, o *schemas.Outbox, out *delivery.Outcome, attempts int) error {
	receipt := delivery.ReceiptOf(out, attempts, false)
	receipt.Final = true
	signal := schemas.ReceiptOf(o, receipt, time.Now())
	value, err := d.codec.Encode(signal)
	if err != nil {
		return fmt.Errorf("encode the receipt of record %s: %w", o.ID, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second) // it was sent, whoever listens
	defer cancel()
	kr := stream.NewKafkaRecord(d.admin.Config.Topic(signal.Topic()), signal.Key(), value, signal.Meta(), stream.TraceFrom(ctx))
	if err := d.admin.Client.ProduceSync(ctx, kr).FirstErr(); err != nil {
		return fmt.Errorf("append the receipt of record %s: %w", o.ID, err)
	}
	return nil
}

// addressed is the record as it is appended again for the processor that gave it up: what
// destinations and other processors read too comes to it alone, in a signal.
func (d *DeadLetters) addressed(l *Letter, r *stream.Record) (*stream.Record, error) {
	processor, ok := strings.CutPrefix(l.Source, "processor:")
	if !ok || r.Topic != schemas.TopicEvents && r.Topic != schemas.TopicLifecycle {
		return r, nil
	}
	signal, err := stream.Enclose(r, processor, string(r.Key), true)
	if err != nil {
		return nil, err
	}
	value, err := d.codec.Encode(signal)
	if err != nil {
		return nil, fmt.Errorf("encode the signal with record %s: %w", r.ID, err)
	}
	if len(value) > stream.MaxValue {
		return nil, fmt.Errorf("record %s within a signal has %d bytes: %w", r.ID, len(value), stream.ErrTooLarge)
	}
	onward := *r
	onward.Topic, onward.Value, onward.ID, onward.Type, onward.Seq = signal.Topic(), value, signal.ID, signal.Meta().Type, 0
	return &onward, nil
}

// record is the record that was given up: where it stands, or from the letter when
// the log has it no more.
func (d *DeadLetters) record(ctx context.Context, l *Letter) (*stream.Record, error) {
	if l.EndOffset != nil || l.SourceTopic == "" {
		return nil, ErrLetterLost
	}
	topic := schemas.Topic(l.SourceTopic)
	r, err := reader.ReadRecord(ctx, d.admin, topic, l.Partition, l.Offset)
	if err != nil {
		return nil, err
	}
	// Another record may stand there when the topic was made anew.
	if r != nil && slices.Equal(stream.LetterKey(r.Key), l.RecordKey) && r.ID == l.RecordID {
		return r, nil
	}
	if l.RecordValue == nil {
		return nil, ErrLetterLost
	}
	h := l.RecordHeaders
	appended := stream.HeaderTime([]byte(h[stream.HeaderFirstAppended]))
	if appended.IsZero() {
		appended = l.AppendedAt // the letter is of an earlier version
	}
	return &stream.Record{
		Topic: topic, Partition: l.Partition, Offset: l.Offset, Key: l.RecordKey, Value: l.RecordValue, AppendTime: appended,
		ID: l.RecordID, Type: l.RecordType, OccurredAt: stream.HeaderTime([]byte(h[stream.HeaderOccurredAt])),
		TraceParent: h[stream.HeaderTraceParent], TraceState: h[stream.HeaderTraceState],
		Seq: stream.HeaderNumber(h[stream.HeaderSeq]), Era: stream.HeaderNumber(h[stream.HeaderEra]),
	}, nil
}

// reproduce appends a record to its topic again, byte for byte. It bears when it was
// appended first: what was decided in between, such as an erasure, came after it.
func reproduce(ctx context.Context, a *stream.Admin, r *stream.Record) error {
	meta := schemas.Meta{ID: r.ID, Type: r.Type, OccurredAt: r.OccurredAt, Seq: r.Seq, Era: r.Era}
	kr := stream.NewKafkaRecord(a.Config.Topic(r.Topic), string(r.Key), r.Value, meta, r.Trace())
	kr.Headers = append(kr.Headers, kgo.RecordHeader{Key: stream.HeaderFirstAppended, Value: []byte(stream.TimeText(r.OriginallyAppended()))})
	if err := a.Client.ProduceSync(ctx, kr).FirstErr(); err != nil {
		return fmt.Errorf("append record %s to %s again: %w", r.ID, r.Topic, err)
	}
	return nil
}

// Discard marks a dead letter as not wanted any more, or returns ErrNoLetter.
func (d *DeadLetters) Discard(ctx context.Context, place string) error {
	l, err := d.Get(ctx, place)
	if err != nil {
		return err
	}
	partition, offset, _ := parsePlace(place)
	return d.db.DiscardLetter(ctx, l.topicID, partition, offset)
}
