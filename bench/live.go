package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

const (
	joinedBucket    = "bucket-01"
	joinedPrice     = 300
	liveRate        = 2000 // events a second
	liveConnections = 32
)

// liveBuckets are the buckets of bucketsBench, of which one is joined by who looks at
// something expensive.
func liveBuckets() []definition.Bucket {
	list := defineBuckets(benchBuckets)
	for i := range list {
		if list[i].ID == joinedBucket {
			list[i].Criteria = predicate.Event("product.viewed").Where(predicate.Prop("price").Gte(joinedPrice)).Within(predicate.Hours(1)).Exists()
		}
	}
	return list
}

// liveInstance is `hogstream dev` in a process of its own, on a Postgres in which there are
// contacts and buckets already, and what is told of buckets there.
type liveInstance struct {
	*surroundings
	cfg     Config
	dev     *part
	running *hogstream.Running
	told    *witness
	joiner  int // the contact that joins next
}

// startLive starts an instance with liveBuckets and these others. seed makes what it finds in
// Postgres. close must be called, also after an error.
func startLive(ctx context.Context, cfg Config, settings devSettings, seed func(context.Context, *surroundings) error, others ...definition.Bucket) (*liveInstance, error) {
	l := &liveInstance{surroundings: &surroundings{codec: schemas.NewCodec()}, cfg: cfg}
	if err := l.startPostgres(ctx, cfg, false); err != nil {
		return l, err
	}
	if err := seed(ctx, l.surroundings); err != nil {
		return l, err
	}
	if _, err := define(ctx, l.db, append(liveBuckets(), others...)); err != nil {
		return l, err
	}
	dir, err := os.MkdirTemp("", "hogstream-bench-")
	if err != nil {
		return l, fmt.Errorf("make a data directory: %w", err)
	}
	l.onClose(func() error { removeData(dir); return nil })
	settings.DataDir, settings.Database = filepath.Join(dir, "data"), l.dbURL
	if l.dev, l.running, err = startDev(ctx, settings); err != nil {
		return l, err
	}
	l.onClose(func() error { l.dev.close(); return nil })
	if l.kafka, err = settings.kafkaOf(l.running); err != nil {
		return l, err
	}
	begun := time.Now()
	if err := awaitTakenOver(ctx, l.sql); err != nil {
		return l, err
	}
	cfg.say("  everybody was taken over in %s", time.Since(begun).Round(time.Millisecond))
	l.told = watch(ctx, l.kafka, l.codec)
	l.onClose(l.told.close)
	return l, nil
}

// define puts buckets in use, and no others, and says with which version.
func define(ctx context.Context, db *storage.DB, list []definition.Bucket) (version int64, err error) {
	opts := definition.Options{Limits: predicate.DefaultLimits()}
	files, err := definition.Built(list, opts)
	if err != nil {
		return 0, err
	}
	out, err := definition.Apply(ctx, db, files, opts, "bench")
	if err != nil {
		return 0, err
	}
	return out.Set.Version, nil
}

// send sends live events for some seconds.
func (l *liveInstance) send(ctx context.Context, seconds float64) (loadResult, error) {
	settings := loadSettings{
		Addr: strings.TrimPrefix(l.running.URL, "http://"), Path: "/v1/events", Key: l.running.APIKey, Batch: 1,
		Connections: liveConnections, Rate: liveRate, Seconds: seconds, Users: benchContacts, Joiner: l.joiner,
	}
	l.joiner += int(seconds*liveRate)/joinEvery + liveConnections
	return load(ctx, settings)
}

// usedByInstance is the CPU time that the instance, with the workers of its programs, and its
// Postgres have used.
func (l *liveInstance) usedByInstance() usage {
	return usage{process: treeCPU(l.dev.cmd.Process.Pid), postgres: treeCPU(l.postgresPID)}
}

// joins are how long it took, from the acceptance of an event over HTTP, until a reader of
// what is committed saw the join that followed, ascending; and until it was appended, by the
// broker's clock.
type joins struct {
	seen, appended []time.Duration
	began          time.Time
}

// measure sends live events for some seconds and waits for all joins.
func (l *liveInstance) measure(ctx context.Context, seconds float64) (joins, error) {
	began := time.Now()
	l.told.forget()
	sent, err := l.send(ctx, seconds)
	if err != nil {
		return joins{}, err
	}
	entered, err := l.told.await(ctx, schemas.FactBucketEntered, joinedBucket, sent.Joins)
	if err != nil {
		return joins{}, err
	}
	all, err := l.between(ctx, began, entered, began, time.Now())
	all.began = began
	return all, err
}

// between pairs joins with the events that led to them, which were accepted after began, and
// leaves out those that were accepted before from or after until.
func (l *liveInstance) between(ctx context.Context, began time.Time, entered []told, from, until time.Time) (joins, error) {
	accepted := make(map[string]time.Time)
	err := reader.Tail(ctx, l.kafka, reader.TailOptions{Topics: []schemas.Topic{schemas.TopicEvents}, From: reader.AtTime(began)}, nil, func(r *stream.Record) error {
		at, err := acceptedAt(l.codec, r)
		accepted[r.ID] = at
		return err
	})
	if err != nil {
		return joins{}, fmt.Errorf("read when events were accepted: %w", err)
	}
	var all joins
	for _, t := range entered {
		at, known := accepted[t.cause]
		if !known {
			return all, fmt.Errorf("a join follows from %s, which is no event of topic events since %s", t.cause, began)
		}
		if at.Before(from) || at.After(until) {
			continue
		}
		all.seen, all.appended = append(all.seen, t.seen.Sub(at)), append(all.appended, max(0, t.appended.Sub(at)))
	}
	slices.Sort(all.seen)
	slices.Sort(all.appended)
	return all, nil
}

// millis is a quantile of durations, ascending, in milliseconds.
func millis(sorted []time.Duration, q float64) float64 {
	return float64(quantile(sorted, q).Microseconds()) / 1000
}

// warm sends live events until the median no longer falls.
func (l *liveInstance) warm(ctx context.Context, atMost int) error {
	best := 0.0
	for i, since := 0, 0; i < atMost && since < 2; i++ {
		all, err := l.measure(ctx, warmSeconds*l.cfg.Scale)
		if err != nil {
			return err
		}
		p50 := millis(all.seen, 0.5)
		l.cfg.say("  warming up: p50 %.1f ms, p99 %.1f ms", p50, millis(all.seen, 0.99))
		if since++; best == 0 || p50 < warmGain*best {
			best, since = p50, 0
		}
	}
	return nil
}

// told is a fact on a bucket, and when it was seen.
type told struct {
	cause, contact           string
	occurred, appended, seen time.Time
}

// witness sees what is told of buckets, as a reader of committed records does.
type witness struct {
	stop  context.CancelFunc
	ended chan error

	mu  sync.Mutex
	all map[[2]string][]told // by type and bucket
}

func watch(ctx context.Context, kafka stream.Config, codec *schemas.Codec) *witness {
	ctx, stop := context.WithCancel(ctx)
	w := &witness{stop: stop, ended: make(chan error, 1), all: map[[2]string][]told{}}
	options := reader.TailOptions{
		Topics: []schemas.Topic{schemas.TopicLifecycle}, From: reader.AtEnd(), Follow: true, Types: []string{schemas.FactBucketEntered, schemas.FactBucketLeft},
	}
	go func() {
		w.ended <- reader.Tail(ctx, kafka, options, nil, func(r *stream.Record) error {
			seen := time.Now()
			f, err := codec.DecodeFact(r.Value)
			if err != nil {
				return err
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			key := [2]string{f.Type, f.Bucket.BucketID}
			w.all[key] = append(w.all[key], told{f.CauseID, f.ContactID, f.OccurredAt, r.AppendTime, seen})
			return nil
		})
	}()
	return w
}

func (w *witness) close() error {
	w.stop()
	if err := <-w.ended; err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("read what is told of buckets: %w", err)
	}
	return nil
}

// forget forgets what was seen so far.
func (w *witness) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.all)
}

// of are the facts of a type on a bucket that were seen.
func (w *witness) of(factType, bucket string) []told {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clip(w.all[[2]string{factType, bucket}])
}

// await waits until n facts were seen.
func (w *witness) await(ctx context.Context, factType, bucket string, n int) ([]told, error) {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	last, progress := 0, time.Now()
	for {
		seen := w.of(factType, bucket)
		switch {
		case len(seen) >= n:
			return seen, nil
		case len(seen) > last:
			last, progress = len(seen), time.Now()
		case time.Since(progress) > time.Minute:
			return nil, fmt.Errorf("%d of %d %s of %s were seen, and none for a minute", len(seen), n, factType, bucket)
		}
		select {
		case <-tick.C:
		case err := <-w.ended:
			w.ended <- err
			return nil, fmt.Errorf("read what is told of buckets: %w", err)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
