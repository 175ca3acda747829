package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/replay"
)

const (
	backfillRecords = 1_000_000
	backfillLive    = 100 // records a second beside it
	backfillRounds  = 3
	backfillCalm    = 8.0 // seconds without it
	// backfillInFlight is how many requests the destination has in flight at most.
	backfillInFlight = 16
	// backfillPlain is for how many seconds a plain client does what the backfill does.
	backfillPlain = 6.0
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
	dest.Concurrency, dest.DeliveryLog = backfillInFlight, "failures"
	if err := rig.create(ctx, starts, dest); err != nil {
		return nil, err
	}
	b := &backfillRun{rig: rig, receiver: receiver, n: n, dest: dest, keys: keys, live: map[string]*liveRecord{}}
	return b.measure(ctx)
}

type backfillRun struct {
	*rig
	receiver *part
	replayer *replay.Replayer
	n        int
	dest     *storage.Destination
	keys     []string

	mu       sync.Mutex
	live     map[string]*liveRecord // by id
	took     []liveRecord
	replayed int // of the round
	first    time.Time
	last     time.Time
	begun    chan struct{} // the backfill's first record was delivered
	done     chan struct{} // and its last
}

// liveRecord is the way of a live record.
type liveRecord struct {
	appended time.Time     // handed to the log
	acked    time.Time     // acknowledged; zero when its delivery was sooner seen
	taken    time.Time     // handed to the kind
	request  time.Duration // from the request to its answer
	answered time.Time
}

// A hop is a part of the way, or all of it.
type hop struct {
	name string
	took func(liveRecord) time.Duration
}

// wholeWay is all of it, and hops are its parts.
var (
	wholeWay = hop{"", func(r liveRecord) time.Duration { return r.answered.Sub(r.appended) }}
	hops     = []hop{
		{"append to acknowledgement", func(r liveRecord) time.Duration { return r.acked.Sub(r.appended) }},
		{"from there to the flight", func(r liveRecord) time.Duration { return max(0, r.taken.Sub(r.acked)) }},
		{"building the request", func(r liveRecord) time.Duration { return r.answered.Sub(r.taken) - r.request }},
		{"request to answer", func(r liveRecord) time.Duration { return r.request }},
	}
)

// millis is a quantile of a hop in each round.
func (h hop) millis(rounds [][]liveRecord, q float64) []float64 {
	var all []float64
	for _, records := range rounds {
		took := make([]time.Duration, len(records))
		for i, r := range records {
			took[i] = h.took(r)
		}
		slices.Sort(took)
		all = append(all, float64(quantile(took, q).Microseconds())/1000)
	}
	return all
}

func (b *backfillRun) measure(ctx context.Context) (*section, error) {
	admin, err := stream.OpenAdmin(b.env.kafka, b.cfg.Logger)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	b.replayer = replay.NewReplayer(admin, b.env.db, b.destinations)
	begun := time.Now()
	dry, err := b.replayer.Backfill(ctx, b.dest.ID, replay.BackfillRequest{DryRun: true})
	if err != nil {
		return nil, err
	}
	previewed := time.Since(begun)
	b.cfg.say("  preview: %s, %d records, exact: %t, scanned %d", previewed, dry.Preview.Records, dry.Preview.Exact, dry.Preview.Scanned)

	stop := profile(b.cfg, "backfill")
	defer stop()
	d, err := deliver(ctx, b.env, b.destinations, b.cfg.Logger, deliveryOptions{watch: func(d delivery.Deliverer) delivery.Deliverer { return &replayWatch{d, b} }})
	if err != nil {
		return nil, err
	}
	work, cancel := context.WithCancel(ctx)
	trickled := make(chan error, 1)
	go func() { trickled <- b.trickle(work) }()
	ways, err := b.rounds(ctx, d)
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
	return ways.section(dry.Preview, previewed), nil
}

// backfillWays are the ways of live records in each round, and what else was
// measured.
type backfillWays struct {
	calm, plain, busy    [][]liveRecord
	rate                 []float64 // of the backfill
	plainBytes, ourBytes []float64 // a second
	cpu                  costs
	receiver             []float64 // microseconds of its CPU a record
}

// rounds are: nothing beside live deliveries, a plain client that sends the log
// again, and a backfill.
func (b *backfillRun) rounds(ctx context.Context, d *deliveries) (*backfillWays, error) {
	ways := &backfillWays{}
	if _, err := b.span(ctx, 0, 3); err != nil { // a start
		return nil, err
	}
	for range b.cfg.rounds(backfillRounds) {
		calm, err := b.span(ctx, 1, max(2, backfillCalm*b.cfg.Scale)) // what is left of the round before is sent
		if err != nil {
			return nil, err
		}
		ways.calm = append(ways.calm, calm)
		if err := b.beside(ctx, ways); err != nil {
			return nil, err
		}
		if _, err := b.span(ctx, 0, 1); err != nil {
			return nil, err
		}
		if err := b.backfill(ctx, d, ways); err != nil {
			return nil, err
		}
	}
	return ways, nil
}

// backfill sends the log again, all of it.
func (b *backfillRun) backfill(ctx context.Context, d *deliveries, ways *backfillWays) error {
	if err := ask(ctx, http.MethodDelete, b.receiver.addr, &receiverReport{}); err != nil {
		return err
	}
	b.begin()
	before, received := b.env.used(), treeCPU(b.receiverPID)
	if _, err := b.replayer.Backfill(ctx, b.dest.ID, replay.BackfillRequest{Rate: backfillRate}); err != nil {
		return err
	}
	if err := b.await(ctx, d); err != nil {
		return err
	}
	ways.busy = append(ways.busy, b.latencies())
	ways.cpu.add(before, b.env.used(), b.n)
	ways.receiver = append(ways.receiver, float64((treeCPU(b.receiverPID)-received).Microseconds())/float64(b.n))
	lasted := b.last.Sub(b.first).Seconds()
	ways.rate = append(ways.rate, float64(b.n)/lasted)
	var seen receiverReport
	if err := ask(ctx, http.MethodGet, b.receiver.addr, &seen); err != nil {
		return err
	}
	ways.ourBytes = append(ways.ourBytes, float64(seen.Bytes)/lasted)
	return nil
}

// beside has a plain client in a process of its own send the log again.
func (b *backfillRun) beside(ctx context.Context, ways *backfillWays) error {
	p, err := b.plainBackfill(ctx, b.receiver)
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := b.span(ctx, 0, 1); err != nil { // a start
		return err
	}
	var seen receiverReport
	if err := ask(ctx, http.MethodDelete, b.receiver.addr, &seen); err != nil {
		return err
	}
	begun := time.Now()
	plain, err := b.span(ctx, 0, max(2, backfillPlain*b.cfg.Scale))
	if err != nil {
		return err
	}
	ways.plain = append(ways.plain, plain)
	lasted := time.Since(begun).Seconds()
	if err := ask(ctx, http.MethodGet, b.receiver.addr, &seen); err != nil {
		return err
	}
	ways.plainBytes = append(ways.plainBytes, float64(seen.Bytes)/lasted)
	return nil
}

// section reports.
func (w *backfillWays) section(preview replay.Preview, previewed time.Duration) *section {
	calmP99, plainP99, busyP99 := wholeWay.millis(w.calm, 0.99), wholeWay.millis(w.plain, 0.99), wholeWay.millis(w.busy, 0.99)
	s := &section{
		title: "Backfill and preview",
		about: fmt.Sprintf("%s facts of about half a KiB on topic lifecycle, backfilled to a destination of kind posthog (%d requests in flight, delivery log: failures, rate of the backfill %s/s) of a receiver "+
			"that answers after 20 ms, while %d new facts a second are appended and delivered to it live. Live latency: from before the append to the answer of the receiver, "+
			"without a backfill and during it. Beside a plain client: the same live deliveries while a process of its own reads the log with franz-go and posts it to the same receiver at the same rate, "+
			"which is what the machine makes of such a load when nothing but cores, broker and receiver is shared.",
			thousands(float64(preview.Records)), backfillInFlight, thousands(backfillRate), backfillLive),
		figures: []figure{
			rateFigure("backfill", w.rate, 50_000),
			timesFigure("live p99 during the backfill, in multiples of that without", ratios(busyP99, calmP99), 1.5),
			timesFigure("live p99 during the backfill, in multiples of that beside a plain client", ratios(busyP99, plainP99), 0),
			costFigure("live p99 during the backfill", "ms", busyP99, 0),
			costFigure("live p99 without", "ms", calmP99, 0),
			costFigure("live p99 beside a plain client", "ms", plainP99, 0),
			costFigure("live p50 during the backfill", "ms", wholeWay.millis(w.busy, 0.5), 0),
			costFigure("live p50 without", "ms", wholeWay.millis(w.calm, 0.5), 0),
			costFigure("live p50 beside a plain client", "ms", wholeWay.millis(w.plain, 0.5), 0),
		},
		notes: []string{
			fmt.Sprintf("The preview said %s records, exact: %t, by looking at %s.", thousands(float64(preview.Records)), preview.Exact, thousands(float64(preview.Scanned))),
			fmt.Sprintf("The receiver took %.0f MB/s during the backfill, and %.0f MB/s from the plain client.", median(w.ourBytes)/1e6, median(w.plainBytes)/1e6),
		},
	}
	for _, h := range hops {
		s.figures = append(s.figures,
			costFigure("live p99, "+h.name+", during the backfill", "ms", h.millis(w.busy, 0.99), 0),
			costFigure("live p99, "+h.name+", without", "ms", h.millis(w.calm, 0.99), 0),
			costFigure("live p99, "+h.name+", beside a plain client", "ms", h.millis(w.plain, 0.99), 0))
	}
	s.figures = append(s.figures,
		costFigure("CPU a record, of the process", "µs", w.cpu.process, 0),
		costFigure("CPU a record, of the broker", "µs", w.cpu.broker, 0),
		costFigure("CPU a record, of Postgres", "µs", w.cpu.postgres, 0),
		costFigure("CPU a record, of the receiver", "µs", w.receiver, 0),
		costFigure("preview of all of it", "s", []float64{previewed.Seconds()}, 5))
	return s
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
		r := &liveRecord{appended: time.Now()}
		b.mu.Lock()
		b.live[f.ID] = r
		b.mu.Unlock()
		appends.Go(func() {
			if err := log.Append(context.WithoutCancel(ctx), f); err != nil {
				b.cfg.say("  append: %v", err)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			r.acked = time.Now()
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	appends.Wait()
	return log.Close(context.WithoutCancel(ctx))
}

// span lets live deliveries run for a start and then for some seconds, of which it
// returns the ways.
func (b *backfillRun) span(ctx context.Context, start, seconds float64) ([]liveRecord, error) {
	for _, wait := range []float64{start, seconds} {
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
func (b *backfillRun) await(ctx context.Context, d *deliveries) error {
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

// begin starts to count what a backfill delivers. Nothing of one before is under way.
func (b *backfillRun) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replayed, b.begun, b.done = 0, make(chan struct{}), make(chan struct{})
}

// latencies takes what was noted.
func (b *backfillRun) latencies() []liveRecord {
	b.mu.Lock()
	defer b.mu.Unlock()
	took := b.took
	b.took = nil
	return took
}

// delivered notes what a request carried.
func (b *backfillRun) delivered(d *delivery.Delivery, taken time.Time, out *delivery.Outcome) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if d.ReplayID == "" {
		for _, r := range d.Records {
			if l, ok := b.live[r.ID]; ok {
				l.taken, l.request, l.answered = taken, out.Latency, now
				if l.acked.IsZero() {
					l.acked = taken
				}
				b.took = append(b.took, *l)
				delete(b.live, r.ID)
			}
		}
		return
	}
	before := b.replayed
	if before == 0 {
		b.first = now
		close(b.begun)
	}
	b.replayed += len(d.Records)
	if b.last = now; before < b.n && b.replayed >= b.n {
		close(b.done)
	}
}

type replayWatch struct {
	delivery.Deliverer
	run *backfillRun
}

// Deliver implements delivery.Deliverer.
func (w *replayWatch) Deliver(ctx context.Context, d delivery.Delivery) delivery.Outcome {
	taken := time.Now()
	out := w.Deliverer.Deliver(ctx, d)
	if out.Verdict == delivery.Delivered {
		w.run.delivered(&d, taken, &out)
	}
	return out
}
