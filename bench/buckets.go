package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// benchBuckets is how many buckets there are; five of them look at each event, three of
// these with a window.
const benchBuckets = 25

// bucketsBench measures what processor buckets adds to identity and contacts: first these
// two alone, then all three, on the same contacts and the same kind of events.
func bucketsBench(ctx context.Context, cfg Config) (_ *section, err error) {
	env, err := surround(ctx, cfg, true)
	defer func() { err = errors.Join(err, env.close()) }()
	if err != nil {
		return nil, err
	}
	b, err := newProcessorsRun(ctx, cfg, env)
	if err != nil {
		return nil, err
	}
	if err := placeContacts(ctx, env); err != nil {
		return nil, err
	}
	b.cost = costs{}
	var two, three []float64
	for i := range cfg.rounds(3) {
		rate, err := b.ours(ctx, cfg.scaled(processorEvents), fmt.Sprintf("two-%d", i+1))
		if err != nil {
			return nil, err
		}
		cfg.say("  round %d of identity and contacts: %.0f/s", i+1, rate)
		two = append(two, rate)
	}
	alone := b.cost
	if err := b.useBuckets(ctx); err != nil {
		return nil, err
	}
	b.cost = costs{}
	for i := range cfg.rounds(3) {
		rate, err := b.withBuckets(ctx, cfg.scaled(processorEvents), fmt.Sprintf("three-%d", i+1))
		if err != nil {
			return nil, err
		}
		cfg.say("  round %d with buckets: %.0f/s", i+1, rate)
		three = append(three, rate)
	}
	var added, ratios []float64
	for i := range three {
		before := alone.process[i] + alone.postgres[i]
		added = append(added, (b.cost.process[i]+b.cost.postgres[i]-before)/before)
		ratios = append(ratios, three[i]/two[i])
	}
	return &section{
		title: "Buckets",
		about: fmt.Sprintf("%s events as in the bench of identity and contacts, through these two, and then through them and `buckets` with %d buckets, "+
			"of which five look at each event, three of these with a window; up to the last record handled. CPU is that of the process and of Postgres.",
			thousands(float64(cfg.scaled(processorEvents))), benchBuckets),
		figures: []figure{
			rateFigure("identity and contacts", two, 0),
			rateFigure("identity, contacts and buckets", three, 0),
			ratioFigure("throughput of the three / of the two", ratios, 0.5),
			costFigure("CPU that buckets adds, of that of identity and contacts", "×", added, 0.8),
			costFigure("CPU of the process, an event, without buckets", "µs", alone.process, 0),
			costFigure("CPU of the process, an event, with buckets", "µs", b.cost.process, 0),
			costFigure("CPU of Postgres, an event, without buckets", "µs", alone.postgres, 0),
			costFigure("CPU of Postgres, an event, with buckets", "µs", b.cost.postgres, 0),
		},
	}, nil
}

// placeContacts gives the seeded contacts their partitions, as maintenance does.
func placeContacts(ctx context.Context, env *surroundings) error {
	for {
		n, err := env.db.PlaceContacts(ctx, func(id string) int32 { return stream.PartitionOf([]byte(id), stream.DefaultPartitions) }, 10_000)
		if err != nil || n == 0 {
			return err
		}
	}
}

// defineBuckets are n buckets, of which five look at each event, three of these with a window.
func defineBuckets(n int) []definition.Bucket {
	event := predicate.Event("product.viewed")
	looking := []predicate.Condition{
		event.Within(predicate.Hours(1)).AtLeast(3),
		event.Where(predicate.Prop("category").Eq("trousers")).Within(predicate.Days(7)).AtLeast(10),
		predicate.All(event.Exists(), predicate.Not(event.Within(predicate.Days(14)).Exists())),
		event.Total("price").Gte(1000),
		event.AtLeast(20),
	}
	list := make([]definition.Bucket, n)
	for i := range list {
		other := predicate.Event("other." + strconv.Itoa(i))
		c := predicate.Any(other.Within(predicate.Days(1+i%30)).AtLeast(3), predicate.Prop("never"+strconv.Itoa(i)).Eq("set"))
		if i < len(looking) {
			c = looking[i]
		}
		list[i] = definition.Bucket{ID: fmt.Sprintf("bucket-%02d", i), Name: "Bucket " + strconv.Itoa(i), Enabled: true, Criteria: c}
	}
	return list
}

// useBuckets defines the buckets and waits until everybody is taken over.
func (p *processorsRun) useBuckets(ctx context.Context) error {
	opts := definition.Options{Limits: predicate.DefaultLimits()}
	files, err := definition.Built(defineBuckets(benchBuckets), opts)
	if err != nil {
		return err
	}
	if _, err := definition.Apply(ctx, p.env.db, files, opts, "bench"); err != nil {
		return err
	}
	begun := time.Now()
	if _, err := p.withBuckets(ctx, p.cfg.scaled(processorEvents/8), "take-over"); err != nil {
		return err
	}
	p.cfg.say("  everybody was taken over, and some events handled, in %s", time.Since(begun).Round(time.Millisecond))
	return nil
}

// withBuckets is as ours, with processor buckets.
func (p *processorsRun) withBuckets(ctx context.Context, n int, name string) (float64, error) {
	reg := prometheus.NewRegistry()
	loops, err := p.loops(reg)
	if err != nil {
		return 0, err
	}
	bu, err := buckets.New(buckets.Options{Limits: predicate.DefaultLimits()}, p.env.codec, reg)
	if err != nil {
		return 0, err
	}
	third, err := loop.New(loop.Config{Kafka: p.env.kafka, DB: p.env.db, Encoder: p.env.codec, Processor: bu, Logger: p.cfg.Logger, Registerer: reg})
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	all := append(slices.Clip(loops), third)
	errs := make([]error, len(all))
	if name == "take-over" { // it begins where the topics end now
		wg.Go(func() { errs[2] = third.Run(ctx) })
		if err := p.awaitTakenOver(ctx); err != nil {
			stop()
			wg.Wait()
			return 0, err
		}
	}
	if err := p.appendEvents(ctx, n); err != nil {
		stop()
		wg.Wait()
		return 0, err
	}
	endProfile := profile(p.cfg, name)
	before, begun := p.env.used(), time.Now()
	for i, l := range all {
		if i == 2 && name == "take-over" {
			continue
		}
		wg.Go(func() { errs[i] = l.Run(ctx) })
	}
	err = awaitCount(ctx, reg, "hogstream_processor_outputs_total", "processor", contacts.Name, float64(3*n))
	if err == nil {
		err = awaitCount(ctx, reg, "hogstream_derive_records_total", "outcome", "handled", float64(2*n))
	}
	took := time.Since(begun)
	p.cost.add(before, p.env.used(), n)
	endProfile()
	stop()
	wg.Wait()
	return float64(n) / took.Seconds(), errors.Join(err, errors.Join(errs...))
}

func (p *processorsRun) awaitTakenOver(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var through int32
		err := p.env.sql.QueryRow(ctx, `SELECT count(*) FROM processor_progress WHERE processor = $1 AND taking_over IS NULL`, buckets.Name).Scan(&through)
		if err != nil || through == stream.DefaultPartitions {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
