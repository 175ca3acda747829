package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

const (
	isolationRecords  = 500
	isolationWell     = 9 // destinations
	isolationInFlight = 2
)

// isolationBench compares destinations beside one that hangs with the same ones
// alone.
func isolationBench(ctx context.Context, cfg Config) (_ *section, err error) {
	rig, err := openRig(ctx, cfg)
	defer func() { err = errors.Join(err, rig.close()) }()
	if err != nil {
		return nil, err
	}
	receiver, err := rig.receiver(ctx, `{"delayMillis":20}`)
	if err != nil {
		return nil, err
	}
	b := &isolation{rig: rig, n: cfg.scaled(isolationRecords), url: "http://" + receiver.addr}
	keys := rig.contactKeys(1000, -1)
	var alone, beside, opened []float64
	rounds := cfg.rounds(2)
	for i := range rounds {
		if b.starts, err = rig.ends(ctx); err != nil {
			return nil, err
		}
		if err := rig.fill(ctx, b.n, keys); err != nil {
			return nil, err
		}
		well, _, err := b.deliver(ctx, false, false)
		if err != nil {
			return nil, err
		}
		ill, open, err := b.deliver(ctx, true, i == rounds-1)
		if err != nil {
			return nil, err
		}
		cfg.say("  round %d: %.0f/s alone, %.0f/s beside one that hangs", i+1, well, ill)
		alone, beside = append(alone, well), append(beside, ill)
		if open > 0 {
			opened = append(opened, open.Seconds())
		}
	}
	return &section{
		title: "One destination that hangs",
		about: fmt.Sprintf("%d webhook destinations of a receiver of 20 ms, %d requests in flight each, are delivered %s records each: alone, and beside a tenth "+
			"whose receiver accepts requests and never answers. Rates are those of the nine together.", isolationWell, isolationInFlight, thousands(float64(b.n))),
		figures: []figure{
			ratioFigure("beside one that hangs / alone", ratios(beside, alone), 0.95),
			rateFigure("beside one that hangs", beside, 0),
			rateFigure("alone", alone, 0),
			costFigure("circuit of the one that hangs opens after its first request", "s", opened, 10),
		},
		notes: []string{
			"An hour's outage, with at most 1 % of the calls, and draining in order afterwards: `TestInAnOutageOfAnHourTheCircuitOpensWithinTenSecondsProbesRarelyAndThenDrainsInOrder` in virtual time.",
			"One key that fails for ten minutes beside others of its partition, p99 at most +10 %: `TestAKeyThatFailsForTenMinutesDoesNotDelayTheOthersOfItsPartition` in virtual time.",
		},
	}, nil
}

type isolation struct {
	*rig
	n      int
	url    string
	starts []storage.CursorStart
}

// deliver delivers to the nine, and to the one that hangs if asked. With wait it
// goes on until that one's circuit has opened, and returns how long that took.
func (b *isolation) deliver(ctx context.Context, hang, wait bool) (rate float64, opened time.Duration, err error) {
	var dests []*storage.Destination
	for range isolationWell {
		d := b.webhook(b.url + "/hook")
		d.Concurrency = isolationInFlight
		dests = append(dests, d)
	}
	m := b.newMeter(b.n * len(dests))
	watch := &hangWatch{meter: m}
	if hang {
		d := b.webhook(b.url + hangPath)
		d.Concurrency, watch.id = isolationInFlight, d.ID
		dests = append(dests, d)
	}
	if err := b.create(ctx, b.starts, dests...); err != nil {
		return 0, 0, err
	}
	reg := prometheus.NewRegistry()
	d, err := deliver(ctx, b.env, b.destinations, b.cfg.Logger, deliveryOptions{registerer: reg, watch: func(d delivery.Deliverer) delivery.Deliverer {
		watch.Deliverer = d
		return watch
	}})
	if err != nil {
		return 0, 0, err
	}
	result, err := m.wait(ctx, d.ended)
	if err != nil {
		d.stop()
		d.close()
		return 0, 0, err
	}
	if hang && wait {
		opened, err = watch.opening(ctx, reg)
	}
	return result.rate, opened, errors.Join(err, d.finish(), b.remove(ctx, dests...))
}

// hangWatch counts deliveries, and sees when the destination that hangs was
// called first.
type hangWatch struct {
	delivery.Deliverer
	meter *meter
	id    string
	first atomic.Int64 // nanoseconds since 1970
}

// Deliver implements delivery.Deliverer.
func (w *hangWatch) Deliver(ctx context.Context, d delivery.Delivery) delivery.Outcome {
	if d.Destination.ID == w.id {
		w.first.CompareAndSwap(0, time.Now().UnixNano())
		return w.Deliverer.Deliver(ctx, d)
	}
	return counted{w.Deliverer, w.meter}.Deliver(ctx, d)
}

// opening waits for the circuit, and says how long after the first call it opened.
func (w *hangWatch) opening(ctx context.Context, reg prometheus.Gatherer) (time.Duration, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for {
		n, err := counter(reg, "hogstream_delivery_circuit_openings_total", "destination", w.id)
		if err != nil {
			return 0, err
		}
		if n > 0 {
			return time.Since(time.Unix(0, w.first.Load())), nil
		}
		select {
		case <-tick.C:
		case <-late:
			return 0, errors.New("the circuit of a destination that hangs did not open within a minute")
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}
