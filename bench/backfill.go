package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

const (
	backfillRecords = 1_000_000
	backfillLive    = 100 // records a second beside it
	backfillCalm    = 8.0 // seconds without it
	// backfillRate leaves the machine, whose two cores also receive, something over.
	backfillRate = 55_000
)

// backfillBench sends a long log to a destination again while it is delivered to
// live.
func backfillBench(ctx context.Context, cfg Config) (_ *section, err error) {
	rig, err := openRig(ctx, cfg)
	defer func() { err = errors.Join(err, rig.close()) }()
	if err != nil {
		return nil, err
	}
	receiver, err := rig.receiver(ctx, `{"delayMillis":20}`)
	if err != nil {
		return nil, err
	}
	n := cfg.scaled(backfillRecords)
	keys := rig.contactKeys(laneKeys, -1)
	if err := rig.fill(ctx, n, keys); err != nil {
		return nil, err
	}
	debug.FreeOSMemory()
	starts, err := rig.ends(ctx)
	if err != nil {
		return nil, err
	}
	dest := rig.batching("posthog", "http://"+receiver.addr)
	dest.Concurrency, dest.DeliveryLog = 16, "failures"
	if err := rig.create(ctx, starts, dest); err != nil {
		return nil, err
	}
	b := &backfillRun{rig: rig, n: n, dest: dest, keys: keys, live: map[string]time.Time{}, begun: make(chan struct{}), done: make(chan struct{})}
	return b.measure(ctx)
}

type backfillRun struct {
	*rig
	n    int
	dest *storage.Destination
	keys []string

	mu        sync.Mutex
	live      map[string]time.Time // when it was appended, by id
	took      []time.Duration
	replayed  int
	first     time.Time
	last      time.Time
	begun     chan struct{} // the backfill's first record was delivered
	done      chan struct{} // and its last
	onceBegun sync.Once
}

func (b *backfillRun) measure(ctx context.Context) (*section, error) {
	admin, err := stream.OpenAdmin(b.env.kafka, b.cfg.Logger)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	replayer := stream.NewReplayer(admin, b.env.db, b.destinations)
	begun := time.Now()
	dry, err := replayer.Backfill(ctx, b.dest.ID, stream.BackfillRequest{DryRun: true})
	if err != nil {
		return nil, err
	}
	previewed := time.Since(begun)
	b.cfg.say("  preview: %s, %d records, exact: %t, scanned %d", previewed, dry.Preview.Records, dry.Preview.Exact, dry.Preview.Scanned)

	stop := profile(b.cfg, "backfill")
	defer stop()
	d, err := deliver(ctx, b.env, b.destinations, b.cfg.Logger, deliveryOptions{watch: func(d stream.Deliverer) stream.Deliverer { return &replayWatch{d, b} }})
	if err != nil {
		return nil, err
	}
	work, cancel := context.WithCancel(ctx)
	trickled := make(chan error, 1)
	go func() { trickled <- b.trickle(work) }()
	calm, err := b.calm(ctx)
	if err == nil {
		_, err = replayer.Backfill(ctx, b.dest.ID, stream.BackfillRequest{Rate: backfillRate})
	}
	if err == nil {
		err = b.await(ctx, d)
	}
	busy := b.latencies()
	cancel()
	err = errors.Join(err, <-trickled)
	if err != nil {
		d.stop()
		d.close()
		return nil, err
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	rate := float64(b.n) / b.last.Sub(b.first).Seconds()
	ms := func(took []time.Duration, q float64) []float64 {
		return []float64{float64(quantile(took, q).Microseconds()) / 1000}
	}
	calmP99, busyP99 := ms(calm, 0.99), ms(busy, 0.99)
	return &section{
		title: "Backfill and preview",
		about: fmt.Sprintf("%s facts of about half a KiB on topic lifecycle, backfilled to a destination of kind posthog (16 requests in flight, delivery log: failures, rate of the backfill %s/s) of a receiver "+
			"that answers after 20 ms, while %d new facts a second are appended and delivered to it live. Live latency: from before the append to the answer of the receiver, "+
			"without a backfill and during it.", thousands(float64(b.n)), thousands(backfillRate), backfillLive),
		figures: []figure{
			rateFigure("backfill", []float64{rate}, 50_000),
			timesFigure("live p99 during the backfill, in multiples of that without", ratios(busyP99, calmP99), 1.1),
			costFigure("live p99 during the backfill", "ms", busyP99, 0),
			costFigure("live p99 without", "ms", calmP99, 0),
			costFigure("live p50 during the backfill", "ms", ms(busy, 0.5), 0),
			costFigure("live p50 without", "ms", ms(calm, 0.5), 0),
			costFigure("preview of all of it", "s", []float64{previewed.Seconds()}, 5),
		},
		notes: []string{fmt.Sprintf("The preview said %s records, exact: %t, by looking at %s.", thousands(float64(dry.Preview.Records)), dry.Preview.Exact, thousands(float64(dry.Preview.Scanned)))},
	}, nil
}

// trickle appends facts at an even pace until ctx ends.
func (b *backfillRun) trickle(ctx context.Context) error {
	log, err := stream.OpenLog(ctx, b.env.kafka, b.env.codec, b.cfg.Logger, nil)
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Second / backfillLive)
	defer tick.Stop()
	var appends sync.WaitGroup
	for i := 0; ctx.Err() == nil; i++ {
		f := factAbout(i, b.keys[i*7919%len(b.keys)])
		b.mu.Lock()
		b.live[f.ID] = time.Now()
		b.mu.Unlock()
		appends.Go(func() {
			if err := log.Append(context.WithoutCancel(ctx), f); err != nil {
				b.cfg.say("  append: %v", err)
			}
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	appends.Wait()
	return log.Close(context.WithoutCancel(ctx))
}

// calm lets live delivery run alone for a while.
func (b *backfillRun) calm(ctx context.Context) ([]time.Duration, error) {
	for _, wait := range []float64{3, max(2, backfillCalm*b.cfg.Scale)} { // the first is a start
		b.latencies()
		select {
		case <-time.After(time.Duration(wait * float64(time.Second))):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return b.latencies(), nil
}

// await waits for the backfill's beginning, from where latencies count, and end.
func (b *backfillRun) await(ctx context.Context, d *delivery) error {
	late := time.After(3 * time.Minute)
	for _, stage := range []chan struct{}{b.begun, b.done} {
		select {
		case <-stage:
		case err := <-d.ended:
			return fmt.Errorf("delivery ended: %w", err)
		case <-late:
			return fmt.Errorf("%d of %d records backfilled after three minutes", b.replayed, b.n)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if stage == b.begun {
			b.latencies()
		}
	}
	return nil
}

// latencies takes what was noted, sorted.
func (b *backfillRun) latencies() []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	took := b.took
	b.took = nil
	slices.Sort(took)
	return took
}

// delivered notes what a request carried.
func (b *backfillRun) delivered(d *stream.Delivery, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d.ReplayID == "" {
		for _, r := range d.Records {
			if at, ok := b.live[r.ID]; ok {
				b.took = append(b.took, now.Sub(at))
				delete(b.live, r.ID)
			}
		}
		return
	}
	b.onceBegun.Do(func() { b.first = now; close(b.begun) })
	before := b.replayed
	b.replayed += len(d.Records)
	if b.last = now; before < b.n && b.replayed >= b.n {
		close(b.done)
	}
}

type replayWatch struct {
	stream.Deliverer
	run *backfillRun
}

// Deliver implements stream.Deliverer.
func (w *replayWatch) Deliver(ctx context.Context, d stream.Delivery) stream.Outcome {
	out := w.Deliverer.Deliver(ctx, d)
	if out.Verdict == stream.Delivered {
		w.run.delivered(&d, time.Now())
	}
	return out
}
