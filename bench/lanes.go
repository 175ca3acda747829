package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

const (
	laneRecords  = 25_000 // a round
	laneKeys     = 10_000
	laneInFlight = 256
)

func lanesBench(ctx context.Context, cfg Config) (_ *section, err error) {
	rig, err := openRig(ctx, cfg)
	defer func() { err = errors.Join(err, rig.close()) }()
	if err != nil {
		return nil, err
	}
	receiver, err := rig.receiver(ctx, `{"delayMillis":1}`)
	if err != nil {
		return nil, err
	}
	bench := &lanesRun{rig: rig, n: cfg.scaled(laneRecords), inFlight: laneInFlight, url: "http://" + receiver.addr + "/hook"}
	sides := []*side{
		{name: "plain", run: bench.plain},
		{name: "ours, delivery log off", run: func(ctx context.Context) (run, error) { return bench.ours(ctx, "off") }},
		{name: "ours, delivery log on", run: func(ctx context.Context) (run, error) { return bench.ours(ctx, "all") }},
	}
	if err := bench.alternate(ctx, cfg.rounds(5), rig.contactKeys(laneKeys, -1), sides); err != nil {
		return nil, err
	}
	plain, off, on := sides[0], sides[1], sides[2]
	return &section{
		title: "Webhook lanes",
		about: fmt.Sprintf("%s `contact.updated` facts of %s contacts delivered to a receiver that answers after 1 ms, %d in flight, signed. "+
			"Plain: a franz-go consumer, %d goroutines that each own the keys of one hash, and net/http; it decodes, signs and sends the same "+
			"and keeps no account of anything. Receiver, broker and Postgres (fsync off) are processes of their own; CPU and memory are those "+
			"of the delivering process.",
			thousands(float64(bench.n)), thousands(laneKeys), laneInFlight, laneInFlight),
		figures: []figure{
			ratioFigure("delivery log off / plain", ratios(off.rates, plain.rates), 0.75),
			ratioFigure("delivery log on / plain", ratios(on.rates, plain.rates), 0.75),
			rateFigure("delivery log on", on.rates, 0),
			rateFigure("delivery log off", off.rates, 0),
			rateFigure("plain", plain.rates, 0),
			costFigure("CPU a record, delivery log on", "µs", on.cpus, 0),
			costFigure("CPU a record, delivery log off", "µs", off.cpus, 0),
			costFigure("CPU a record, plain", "µs", plain.cpus, 0),
			timesFigure("CPU a record, delivery log on, in multiples of plain", ratios(on.cpus, plain.cpus), 1.35),
			costFigure("CPU of Postgres a record, delivery log on", "µs", on.postgres, 0),
			costFigure("CPU of the receiver a record, delivery log on", "µs", on.receiver, 0),
			costFigure("CPU of the receiver a record, plain", "µs", plain.receiver, 0),
			costFigure("RSS, delivery log on, highest", "MiB", on.peaks, 250),
			costFigure("RSS, plain, highest", "MiB", plain.peaks, 0),
		},
	}, nil
}

// side is one of the things compared.
type side struct {
	name               string
	run                func(ctx context.Context) (run, error)
	rates, cpus, peaks []float64
	postgres, receiver []float64
}

func (s *side) add(r run) {
	s.rates, s.cpus, s.peaks = append(s.rates, r.rate), append(s.cpus, r.cpu), append(s.peaks, r.peak)
	s.postgres, s.receiver = append(s.postgres, r.postgres), append(s.receiver, r.receiver)
}

// run is what a side did in one round: records a second, the highest resident
// memory in MiB, and microseconds of CPU a record, of the process and of what
// shares the machine with it.
type run struct{ rate, peak, cpu, postgres, receiver float64 }

func ratios(ours, plain []float64) []float64 {
	r := make([]float64, len(ours))
	for i := range ours {
		r[i] = ours[i] / plain[i]
	}
	return r
}

type lanesRun struct {
	*rig
	n        int
	inFlight int
	url      string

	starts []storage.CursorStart // of the records of this round
}

// meter takes the time from the first to the last delivery, and what the process
// used meanwhile.
type meter struct {
	want   int64
	count  atomic.Int64
	begun  time.Time
	before laneUsage
	used   func() laneUsage
	first  sync.Once
	done   chan struct{}
}

// laneUsage is CPU time that was used: by the process, and by what surrounds it.
type laneUsage struct{ process, postgres, receiver time.Duration }

func (r *rig) usage() laneUsage {
	return laneUsage{process: cpuTime(), postgres: treeCPU(r.env.postgresPID), receiver: treeCPU(r.receiverPID)}
}

// newMeter is made before anything is delivered, so that looking at the other
// processes is not measured.
func (r *rig) newMeter(want int) *meter {
	return &meter{want: int64(want), done: make(chan struct{}), used: r.usage, before: r.usage()}
}

func (m *meter) delivered(n int) {
	m.first.Do(func() { m.begun, m.before.process = time.Now(), cpuTime() })
	if count := m.count.Add(int64(n)); count >= m.want && count-int64(n) < m.want {
		close(m.done)
	}
}

// wait returns when all is delivered.
func (m *meter) wait(ctx context.Context, failed <-chan error) (run, error) {
	peak := peakMiB()
	var err error
	select {
	case <-m.done:
	case err = <-failed:
		err = fmt.Errorf("it ended after %d of %d: %w", m.count.Load(), m.want, err)
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-time.After(2 * time.Minute):
		err = fmt.Errorf("%d of %d delivered after two minutes", m.count.Load(), m.want)
	}
	r := run{peak: peak()}
	if err == nil {
		r.rate = float64(m.want) / time.Since(m.begun).Seconds()
		after := m.used()
		each := func(after, before time.Duration) float64 {
			return float64((after - before).Microseconds()) / float64(m.want)
		}
		r.cpu = each(after.process, m.before.process)
		r.postgres, r.receiver = each(after.postgres, m.before.postgres), each(after.receiver, m.before.receiver)
	}
	return r, err
}

// counted passes attempts on and tells the meter of those that delivered.
type counted struct {
	delivery.Deliverer
	meter *meter
}

// Deliver implements delivery.Deliverer.
func (c counted) Deliver(ctx context.Context, d delivery.Delivery) delivery.Outcome {
	out := c.Deliverer.Deliver(ctx, d)
	if out.Verdict == delivery.Delivered {
		c.meter.delivered(len(d.Records))
	}
	return out
}

// ours delivers the round's records with lanes and deliverer as shipped, to a
// new destination whose cursors stand where the round began.
func (l *lanesRun) ours(ctx context.Context, deliveryLog string) (run, error) {
	dest := l.webhook(l.url)
	dest.Concurrency, dest.DeliveryLog = l.inFlight, deliveryLog
	return l.deliverAll(ctx, l.n, l.starts, dest)
}
