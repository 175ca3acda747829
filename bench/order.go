package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

const (
	orderRecords  = 10_000
	orderKeys     = 1_000
	orderInFlight = 100
)

// orderBench compares with the plain loop that keeps order, on one partition
// whose receiver takes differently long.
func orderBench(ctx context.Context, cfg Config) (_ *section, err error) {
	rig, err := openRig(ctx, cfg)
	defer func() { err = errors.Join(err, rig.close()) }()
	if err != nil {
		return nil, err
	}
	receiver, err := rig.receiver(ctx, `{"delayMillis":5,"spread":true}`)
	if err != nil {
		return nil, err
	}
	l := &lanesRun{rig: rig, n: cfg.scaled(orderRecords), inFlight: orderInFlight, url: "http://" + receiver.addr + "/hook"}
	keys := rig.contactKeys(orderKeys, 0)
	sides := []*side{
		{name: "plain", run: l.plain},
		{name: "ours", run: func(ctx context.Context) (run, error) { return l.ours(ctx, "all") }},
	}
	if err := l.alternate(ctx, cfg.rounds(7), keys, sides); err != nil {
		return nil, err
	}
	plain, ours := sides[0], sides[1]
	return &section{
		title: "Order on one partition",
		about: fmt.Sprintf("%s records of %s contacts on one partition, %d in flight, to a receiver that takes 0 to 5 ms, evenly spread. "+
			"Plain: the key-lane loop of section \"Webhook lanes\" with %d lanes. Ours has its delivery log on. Time from the first delivery to the last.",
			thousands(float64(l.n)), thousands(orderKeys), orderInFlight, orderInFlight),
		figures: []figure{
			timesFigure("ours, time in multiples of plain", ratios(plain.rates, ours.rates), 1.25),
			costFigure("ours", "s", seconds(l.n, ours.rates), 0),
			costFigure("plain", "s", seconds(l.n, plain.rates), 0),
		},
	}, nil
}

func seconds(n int, rates []float64) []float64 {
	s := make([]float64, len(rates))
	for i, r := range rates {
		s[i] = float64(n) / r
	}
	return s
}

// alternate runs the sides in turn over the same records, in each round new ones.
func (l *lanesRun) alternate(ctx context.Context, rounds int, keys []string, sides []*side) error {
	for i := range rounds {
		var err error
		if l.starts, err = l.ends(ctx); err != nil {
			return err
		}
		if err := l.fill(ctx, l.n, keys); err != nil {
			return err
		}
		for _, s := range sides {
			debug.FreeOSMemory()
			stop := profile(l.cfg, fmt.Sprintf("%d-%s", i+1, s.name))
			r, err := s.run(ctx)
			stop()
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			l.cfg.say("  round %d, %s: %.0f/s, %.0f MiB, CPU a record: %.0f µs, Postgres %.0f, receiver %.0f",
				i+1, s.name, r.rate, r.peak, r.cpu, r.postgres, r.receiver)
			s.add(r)
		}
	}
	return nil
}

const (
	unorderedRecords = 20_000
	// unorderedLimit is a rate limit that is on and far away.
	unorderedLimit = 50_000
)

// unorderedBench compares with a plain loop that keeps no order at all.
func unorderedBench(ctx context.Context, cfg Config) (_ *section, err error) {
	rig, err := openRig(ctx, cfg)
	defer func() { err = errors.Join(err, rig.close()) }()
	if err != nil {
		return nil, err
	}
	s := &section{
		title: "Ordered webhooks against an unordered loop",
		about: fmt.Sprintf("%s facts of %s contacts, %d in flight, signed. Ours: order by contact, delivery log, parking, circuit, and a rate limit "+
			"of %s/s leased from Postgres. Plain: a franz-go consumer and %d goroutines that send whatever comes next, with no order and no account of anything.",
			thousands(unorderedRecords), thousands(laneKeys), laneInFlight, thousands(unorderedLimit), laneInFlight),
	}
	keys := rig.contactKeys(laneKeys, -1)
	for _, at := range []struct {
		millis      int
		ratio, rate float64
	}{{20, 0.75, 8_300}, {1, 0.65, 0}} {
		receiver, err := rig.receiver(ctx, fmt.Sprintf(`{"delayMillis":%d}`, at.millis))
		if err != nil {
			return nil, err
		}
		l := &lanesRun{rig: rig, n: cfg.scaled(unorderedRecords), inFlight: laneInFlight, url: "http://" + receiver.addr + "/hook"}
		sides := []*side{
			{name: fmt.Sprintf("plain, unordered, %d ms", at.millis), run: l.unordered},
			{name: fmt.Sprintf("ours, %d ms", at.millis), run: func(ctx context.Context) (run, error) {
				dest := l.webhook(l.url)
				dest.Concurrency, dest.DeliveryLog, dest.RateLimit = l.inFlight, "all", unorderedLimit
				return l.deliverAll(ctx, l.n, l.starts, dest)
			}},
		}
		if err := l.alternate(ctx, cfg.rounds(5), keys, sides); err != nil {
			return nil, err
		}
		plain, ours := sides[0], sides[1]
		where := fmt.Sprintf("receiver of %d ms, ", at.millis)
		s.figures = append(s.figures,
			ratioFigure(where+"ours / plain unordered", ratios(ours.rates, plain.rates), at.ratio),
			rateFigure(where+"ours", ours.rates, at.rate),
			rateFigure(where+"plain unordered", plain.rates, 0))
	}
	return s, nil
}

const batchRecords = 120_000

// batchesBench measures the kinds that send batches.
func batchesBench(ctx context.Context, cfg Config) (_ *section, err error) {
	rig, err := openRig(ctx, cfg)
	defer func() { err = errors.Join(err, rig.close()) }()
	if err != nil {
		return nil, err
	}
	receiver, err := rig.receiver(ctx, `{"delayMillis":1}`)
	if err != nil {
		return nil, err
	}
	l := &lanesRun{rig: rig, n: cfg.scaled(batchRecords)}
	to := func(kind, deliveryLog string) *side {
		return &side{name: kind + ", delivery log " + deliveryLog, run: func(ctx context.Context) (run, error) {
			dest := rig.batching(kind, "http://"+receiver.addr)
			dest.DeliveryLog = deliveryLog
			return l.deliverAll(ctx, l.n, l.starts, dest)
		}}
	}
	sides := []*side{to("segment", "all"), to("posthog", "all"), to("segment", "failures"), to("posthog", "failures")}
	if err := l.alternate(ctx, cfg.rounds(3), rig.contactKeys(laneKeys, -1), sides); err != nil {
		return nil, err
	}
	s := &section{
		title: "Batching kinds",
		about: fmt.Sprintf("%s facts of %s contacts, each decoded, made into the vendor's message and sent in batches, %d requests in flight, to a receiver on this machine that "+
			"answers after 1 ms. With the delivery log on each record is a row in Postgres; with it at \"failures\" only those that fail.",
			thousands(float64(l.n)), thousands(laneKeys), 4),
	}
	for _, side := range sides {
		s.figures = append(s.figures, rateFigure(side.name, side.rates, 60_000))
	}
	for _, side := range sides {
		s.figures = append(s.figures, costFigure("CPU a record of this process, "+side.name, "µs", side.cpus, 0))
	}
	return s, nil
}
