package stream

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/schemas"
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

type logRange struct {
	key      logKey
	id       uuid.UUID // of the topic; zero when the brokers report none
	from, to int64
}

// wanted is which records a destination or a backfill takes.
type wanted struct {
	subscription schemas.Subscription
	types        *schemas.Subscription // narrows it further
	keys         [][]byte
	// Ranges of offsets [from, to) that were delivered are not wanted.
	finished map[logKey][]int64
}

func (w *wanted) typ(typ string) bool {
	return w.subscription.Matches(typ) && (w.types == nil || w.types.Matches(typ))
}

func (w *wanted) key(key []byte) bool {
	return len(w.keys) == 0 || slices.ContainsFunc(w.keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

func (w *wanted) offset(key logKey, offset int64) bool {
	pairs := w.finished[key]
	i, found := slices.BinarySearch(pairs, offset)
	return found && i%2 == 1 || !found && i%2 == 0
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
func (a *Admin) preview(ctx context.Context, ranges []logRange, w wanted, rate float64) (Preview, error) {
	var topics []schemas.Topic
	var span int64
	for _, r := range ranges {
		span += r.to - r.from
		if !slices.Contains(topics, r.key.topic) {
			topics = append(topics, r.key.topic)
		}
	}
	count := &counter{wanted: w, out: Preview{ByType: map[string]int64{}, Exact: true, Rate: rate}}
	if span == 0 {
		return count.out, nil
	}
	s, err := a.newScanner(ctx, topics...)
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
func shuffled(ranges []logRange, pieces int) []logRange {
	var out []logRange
	for _, i := range spreadOrder(pieces) {
		for _, r := range ranges {
			size := r.to - r.from
			p := logRange{r.key, r.id, r.from + size*int64(i)/int64(pieces), r.from + size*int64(i+1)/int64(pieces)}
			if p.from < p.to {
				out = append(out, p)
			}
		}
	}
	return out
}

// spreadOrder visits 0..n-1 so that every beginning of it is spread out.
func spreadOrder(n int) []int {
	step := max(1, n*5/8)
	for gcd(step, n) != 1 {
		step++
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i * step % n
	}
	return order
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// counter gathers what several scans see.
type counter struct {
	wanted wanted

	mu   sync.Mutex
	seen int64 // offsets looked at
	out  Preview
}

// look counts a range, all of it or what one read brings of its beginning.
func (c *counter) look(ctx context.Context, s *scanner, r logRange, all bool) error {
	size := int32(previewSample)
	if all {
		size = previewRead
	}
	for at := r.from; at < r.to; {
		chunk, err := s.read(ctx, r.key, at, size)
		if isOutOfRange(err) {
			c.inexact() // retention was faster
			return nil
		}
		if err != nil {
			return err
		}
		if chunk == nil {
			return nil
		}
		c.add(chunk, r.key, at, r.to)
		at = chunk.to
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

func (c *counter) add(chunk *chunk, key logKey, from, to int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	match := make([]bool, len(chunk.kinds))
	for i, typ := range chunk.kinds {
		match[i] = c.wanted.typ(typ)
	}
	c.seen += min(chunk.to, to) - from
	for i := range chunk.records {
		r := &chunk.records[i]
		if r.Offset < from || r.Offset >= to {
			continue
		}
		c.out.Scanned++
		if !match[chunk.kind[i]] || !c.wanted.key(r.Key) || !c.wanted.offset(key, r.Offset) {
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

func isOutOfRange(err error) bool { return errors.Is(err, kerr.OffsetOutOfRange) }
