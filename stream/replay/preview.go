package replay

import (
	"context"
	"errors"
	"math/bits"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// Preview is what a rewind or a backfill would send.
type Preview struct {
	// Records and Bytes are counted when Exact, else estimated from samples
	// spread over the whole range.
	Records int64            `json:"records"`
	Bytes   int64            `json:"bytes"`
	ByType  map[string]int64 `json:"byType"`
	// First and Last are append times, nil when there is nothing. Estimated, they
	// are those of the records seen.
	First *schemas.ISOTime `json:"first" format:"date-time"`
	Last  *schemas.ISOTime `json:"last" format:"date-time"`
	Exact bool             `json:"exact"`
	// Scanned is how many records were looked at.
	Scanned int64 `json:"scanned"`
	// Rate is records a second, 0 without a limit; Seconds how long it takes at
	// that rate, 0 when unknown.
	Rate    float64 `json:"rate"`
	Seconds float64 `json:"seconds"`
}

// A preview counts up to so many records one by one, and looks at most at about
// so many more in samples; whatever happens it ends after previewTime with what
// it has seen.
const (
	previewExact  = 200_000
	previewTime   = 3500 * time.Millisecond
	previewSpread = 24 // samples of a partition
	previewSample = 256 << 10
	previewRead   = 4 << 20
)

// preview counts what is wanted in ranges: offsets say how much there is, and the
// headers of all records, or of samples spread evenly, what it is. Values are not
// decoded.
func preview(ctx context.Context, a *stream.Admin, ranges []reader.LogRange, w reader.Wanted, rate float64) (Preview, error) {
	var topics []schemas.Topic
	var span int64
	for _, r := range ranges {
		span += r.To - r.From
		if !slices.Contains(topics, r.Key.Topic) {
			topics = append(topics, r.Key.Topic)
		}
	}
	count := &counter{wanted: w, out: Preview{ByType: map[string]int64{}, Exact: true, Rate: rate}}
	if span == 0 {
		return count.out, nil
	}
	s, err := reader.NewScanner(ctx, a, topics...)
	if err != nil {
		return count.out, err
	}
	spread := 1
	if span > previewExact {
		spread = previewSpread
	}
	enough, cancel := context.WithTimeout(ctx, previewTime)
	defer cancel()
	group, work := errgroup.WithContext(enough)
	group.SetLimit(4)
	for _, r := range shuffled(ranges, spread) {
		group.Go(func() error { return count.look(work, s, r, spread == 1) })
	}
	if err := group.Wait(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return count.out, err
	}
	if err := ctx.Err(); err != nil {
		return count.out, context.Cause(ctx)
	}
	return count.result(span), nil
}

// shuffled cuts each range into so many pieces and orders them so that, whenever
// time runs out, all of the log has been looked at about evenly: every piece's
// place in the order is its index with its bits reversed, by partition.
func shuffled(ranges []reader.LogRange, pieces int) []reader.LogRange {
	var out []reader.LogRange
	for _, i := range spreadOrder(pieces) {
		for _, r := range ranges {
			size := r.To - r.From
			p := reader.LogRange{Key: r.Key, ID: r.ID, From: r.From + size*int64(i)/int64(pieces), To: r.From + size*int64(i+1)/int64(pieces)}
			if p.From < p.To {
				out = append(out, p)
			}
		}
	}
	return out
}

// spreadOrder visits 0..n-1 in the order of their bits reversed, so that every
// beginning of it is spread out.
func spreadOrder(n int) []int {
	width := bits.Len(uint(n - 1))
	order := make([]int, 0, n)
	for i := range 1 << width {
		if at := int(bits.Reverse64(uint64(i)) >> (64 - width)); at < n {
			order = append(order, at)
		}
	}
	return order
}

// counter gathers what several scans see.
type counter struct {
	wanted reader.Wanted

	mu   sync.Mutex
	seen int64 // offsets looked at
	out  Preview
}

// look counts a range, all of it or what one read brings of its beginning.
func (c *counter) look(ctx context.Context, s *reader.Scanner, r reader.LogRange, all bool) error {
	size := int32(previewSample)
	if all {
		size = previewRead
	}
	for at := r.From; at < r.To; {
		chunk, err := s.Read(ctx, r.Key, at, size)
		if reader.IsOutOfRange(err) {
			c.inexact() // retention was faster
			return nil
		}
		if err != nil {
			return err
		}
		if chunk == nil {
			return nil
		}
		c.add(chunk, r.Key, at, r.To)
		at = chunk.To
		if !all {
			break
		}
	}
	return nil
}

func (c *counter) inexact() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Exact = false
}

func (c *counter) add(chunk *reader.Chunk, key stream.TopicPartition, from, to int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	match := make([]bool, len(chunk.Kinds))
	for i, typ := range chunk.Kinds {
		match[i] = c.wanted.TakesType(typ)
	}
	c.seen += min(chunk.To, to) - from
	for i := range chunk.Records {
		r := &chunk.Records[i]
		if r.Offset < from || r.Offset >= to {
			continue
		}
		c.out.Scanned++
		if !match[chunk.Kind[i]] || !c.wanted.TakesKey(r.Key) || !c.wanted.TakesOffset(key, r.Offset) {
			continue
		}
		c.out.Records++
		c.out.Bytes += int64(len(r.Key) + len(r.Value))
		c.out.ByType[r.Type]++
		if at := r.AppendTime; c.out.First == nil || at.Before(c.out.First.Time) {
			c.out.First = &schemas.ISOTime{Time: at}
		}
		if at := r.AppendTime; c.out.Last == nil || at.After(c.out.Last.Time) {
			c.out.Last = &schemas.ISOTime{Time: at}
		}
	}
}

// result scales what was seen up to the whole.
func (c *counter) result(span int64) Preview {
	out := c.out
	if c.seen < span && c.seen > 0 {
		out.Exact = false
		scale := float64(span) / float64(c.seen)
		out.Records, out.Bytes = int64(float64(out.Records)*scale), int64(float64(out.Bytes)*scale)
		for typ, n := range out.ByType {
			out.ByType[typ] = int64(float64(n) * scale)
		}
	}
	if c.seen == 0 {
		out.Exact = false
	}
	if out.Rate > 0 {
		out.Seconds = float64(out.Records) / out.Rate
	}
	return out
}
