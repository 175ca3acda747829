package bench

import (
	"cmp"
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
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/journeys"
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
	rate    int       // events a second
	joins   string    // the event after which a contact joins; empty is the one that all have
	follows [2]string // what is told of a contact that joins: a type, and the bucket or template
	joiner  int       // the contact that joins next
}

// startLive starts an instance with liveBuckets and these others. seed makes what it finds in
// Postgres. close must be called, also after an error.
func startLive(ctx context.Context, cfg Config, settings devSettings, seed func(context.Context, *surroundings) error, others ...definition.Definition) (*liveInstance, error) {
	l := &liveInstance{surroundings: &surroundings{codec: schemas.NewCodec()}, cfg: cfg, rate: liveRate, follows: [2]string{schemas.FactBucketEntered, joinedBucket}}
	if err := l.startPostgres(ctx, cfg, false); err != nil {
		return l, err
	}
	if err := seed(ctx, l.surroundings); err != nil {
		return l, err
	}
	all := append(definition.All(liveBuckets()), others...)
	if _, err := define(ctx, l.db, all); err != nil {
		return l, err
	}
	dir, err := os.MkdirTemp("", "hogstream-bench-")
	if err != nil {
		return l, fmt.Errorf("make a data directory: %w", err)
	}
	l.onClose(func() error { removeData(dir); return nil })
	settings.DataDir, settings.Database, settings.Profile = filepath.Join(dir, "data"), l.dbURL, cfg.Profile
	if l.dev, l.running, err = startDev(ctx, settings); err != nil {
		return l, err
	}
	l.onClose(func() error { l.dev.close(); return nil })
	if l.kafka, err = settings.kafkaOf(l.running); err != nil {
		return l, err
	}
	begun := time.Now()
	if err := awaitTakenOver(ctx, l.sql, deriving(all)...); err != nil {
		return l, err
	}
	cfg.say("  everybody was taken over in %s", time.Since(begun).Round(time.Millisecond))
	if err := l.atRest(ctx); err != nil {
		return l, err
	}
	l.told = watch(ctx, l.kafka, l.codec)
	l.onClose(l.told.close)
	return l, nil
}

// deriving are the processors that definitions give something to do.
func deriving(list []definition.Definition) []string {
	names := []string{buckets.Name}
	if slices.ContainsFunc(list, func(d definition.Definition) bool { return d.Ref().Kind == definition.JourneyKind }) {
		names = append(names, journeys.Name)
	}
	return names
}

// define puts definitions in use, and no others, and says with which version.
func define[T definition.Definition](ctx context.Context, db *storage.DB, list []T) (version int64, err error) {
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
		Connections: liveConnections, Rate: float64(l.rate), Seconds: seconds, Users: benchContacts, Joiner: l.joiner, Joins: l.joins,
	}
	l.joiner += int(seconds*float64(l.rate))/joinEvery + liveConnections
	return load(ctx, settings)
}

// usedByInstance is the CPU time that the instance, with the workers of its programs, and its
// Postgres have used.
func (l *liveInstance) usedByInstance() usage {
	return usage{process: treeCPU(l.dev.cmd.Process.Pid), postgres: treeCPU(l.postgresPID)}
}

// joins are how long it took, from the acceptance of an event over HTTP, until a reader of
// what is committed saw the join that followed, or the mail, ascending; and until it was appended, by the
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
	entered, err := l.told.await(ctx, l.follows, sent.Joins)
	if err != nil {
		return joins{}, err
	}
	pieces, err := l.pieces(ctx, began, entered, began, time.Now(), time.Hour) // one piece
	if err != nil {
		return joins{}, err
	}
	pieces[0].began = began
	return pieces[0], nil
}

// pieces pair joins with the events that led to them, which were accepted after began, in pieces
// of the time from from to until: the last one has what is left, and at least one there is. Who
// was accepted before or after that is left out.
func (l *liveInstance) pieces(ctx context.Context, began time.Time, entered []told, from, until time.Time, each time.Duration) ([]joins, error) {
	accepted, err := l.accepted(ctx, began)
	if err != nil {
		return nil, err
	}
	pieces := make([]joins, max(1, until.Sub(from)/each))
	for _, t := range entered {
		at, known := accepted[cmp.Or(t.cause, t.contact)]
		if !known {
			return nil, fmt.Errorf("what follows from %q of contact %s does not follow from an event since %s", t.cause, t.contact, began)
		}
		if at.Before(from) || at.After(until) {
			continue
		}
		p := &pieces[min(int(at.Sub(from)/each), len(pieces)-1)]
		p.seen, p.appended = append(p.seen, t.seen.Sub(at)), append(p.appended, max(0, t.appended.Sub(at)))
	}
	for _, p := range pieces {
		slices.Sort(p.seen)
		slices.Sort(p.appended)
	}
	return pieces, nil
}

// accepted is when the events since a time were accepted, by their ids, and by the contact for
// those after which one joins, if these have a name of their own.
func (l *liveInstance) accepted(ctx context.Context, since time.Time) (map[string]time.Time, error) {
	accepted := make(map[string]time.Time)
	err := reader.Tail(ctx, l.kafka, reader.TailOptions{Topics: []schemas.Topic{schemas.TopicEvents}, From: reader.AtTime(since)}, nil, func(r *stream.Record) error {
		e, err := l.codec.DecodeEvent(r.Value)
		if err != nil {
			return err
		}
		accepted[e.ID] = e.ReceivedAt
		if e.Name == l.joins { // once of each contact, and a mail names that alone
			accepted[e.ContactID] = e.ReceivedAt
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read when events were accepted: %w", err)
	}
	return accepted, nil
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

// told is a fact on a bucket or a mail that a journey asks for, and when it was seen.
type told struct {
	cause, contact           string
	occurred, appended, seen time.Time
}

// mailOf is the type of what is told of mails.
const mailOf = "email.request"

// witness sees what is told of buckets, and the mails that journeys ask for, as a reader of
// committed records does.
type witness struct {
	stop  context.CancelFunc
	ended chan error

	mu  sync.Mutex
	all map[[2]string][]told // by type, and bucket or template
}

func watch(ctx context.Context, kafka stream.Config, codec *schemas.Codec) *witness {
	ctx, stop := context.WithCancel(ctx)
	w := &witness{stop: stop, ended: make(chan error, 1), all: map[[2]string][]told{}}
	options := reader.TailOptions{
		Topics: []schemas.Topic{schemas.TopicLifecycle, schemas.TopicEmailRequests}, From: reader.AtEnd(), Follow: true,
		Types: []string{schemas.FactBucketEntered, schemas.FactBucketLeft, mailOf},
	}
	go func() {
		w.ended <- reader.Tail(ctx, kafka, options, nil, func(r *stream.Record) error {
			t := told{appended: r.AppendTime, seen: time.Now()}
			key, err := t.read(codec, r)
			if err != nil {
				return err
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.all[key] = append(w.all[key], t)
			return nil
		})
	}()
	return w
}

// read takes what a record tells, and says what that is of.
func (t *told) read(codec *schemas.Codec, r *stream.Record) (key [2]string, err error) {
	if r.Topic == schemas.TopicEmailRequests {
		mail, err := codec.DecodeEmailRequest(r.Value)
		if err != nil {
			return key, err
		}
		t.contact, t.occurred = mail.ContactID, mail.OccurredAt
		return [2]string{mailOf, mail.Template}, nil
	}
	f, err := codec.DecodeFact(r.Value)
	if err != nil {
		return key, err
	}
	t.cause, t.contact, t.occurred = f.CauseID, f.ContactID, f.OccurredAt
	return [2]string{f.Type, f.Bucket.BucketID}, nil
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

// of is what was seen of a type and a bucket or template.
func (w *witness) of(what [2]string) []told {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clip(w.all[what])
}

// await waits until it was seen n times.
func (w *witness) await(ctx context.Context, what [2]string, n int) ([]told, error) {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	last, progress := 0, time.Now()
	for {
		seen := w.of(what)
		switch {
		case len(seen) >= n:
			return seen, nil
		case len(seen) > last:
			last, progress = len(seen), time.Now()
		case time.Since(progress) > time.Minute:
			return nil, fmt.Errorf("%d of %d %s of %s were seen, and none for a minute", len(seen), n, what[0], what[1])
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
