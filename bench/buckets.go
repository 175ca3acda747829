package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
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

const (
	addedRounds = 3
	crowdRounds = 5 // what is compared are differences, which are farther apart
)

// bucketsBench measures what processor buckets adds to identity and contacts.
func bucketsBench(ctx context.Context, cfg Config) (*section, error) {
	all, err := measureAdded(ctx, cfg, addedRounds, benchContacts)
	if err != nil {
		return nil, err
	}
	m := all[0]
	return &section{
		title: "Buckets",
		about: fmt.Sprintf("%s events as in the bench of identity and contacts, through these two, and then through them and `buckets` with %d buckets, "+
			"of which five look at each event, three of these with a window; up to the last record handled. CPU is that of the process and of Postgres.",
			thousands(float64(cfg.scaled(processorEvents))), benchBuckets),
		figures: []figure{
			rateFigure("identity and contacts", m.two, 0),
			rateFigure("identity, contacts and buckets", m.three, 0),
			ratioFigure("throughput of the three / of the two", ratios(m.three, m.two), 0.5),
			costFigure("CPU that buckets adds, of that of identity and contacts", "×", ratios(m.added(), m.alone.both()), 0.8),
			costFigure("transitions, an event", "", m.turned, 0),
			costFigure("records that waited as rows, of 100 events", "", m.held, 0),
			costFigure("CPU of the process, an event, without buckets", "µs", m.alone.process, 0),
			costFigure("CPU of the process, an event, with buckets", "µs", m.together.process, 0),
			costFigure("CPU of Postgres, an event, without buckets", "µs", m.alone.postgres, 0),
			costFigure("CPU of Postgres, an event, with buckets", "µs", m.together.postgres, 0),
		},
	}, nil
}

// crowdContacts are those of crowdBench.
const crowdContacts = 1_000_000

// crowdBench is as bucketsBench, with many contacts against few.
func crowdBench(ctx context.Context, cfg Config) (*section, error) {
	all, err := measureAdded(ctx, cfg, crowdRounds, benchContacts, max(benchContacts, cfg.scaled(crowdContacts)))
	if err != nil {
		return nil, err
	}
	few, many := all[0], all[1]
	count := thousands(float64(many.contacts))
	return &section{
		title: "Buckets and many contacts",
		about: fmt.Sprintf("As section \"Buckets\", with %s contacts, each of which the events come to as often as to any other, against %s, in turns. "+
			"Rounds with buckets begin with contacts that have had events before.", count, thousands(benchContacts)),
		figures: []figure{
			timesFigure(fmt.Sprintf("CPU that buckets adds with %s contacts, in multiples of that with %s", count, thousands(benchContacts)), ratios(many.added(), few.added()), 1.3),
			costFigure(fmt.Sprintf("CPU that buckets adds, an event, with %s contacts", thousands(benchContacts)), "µs", few.added(), 0),
			costFigure(fmt.Sprintf("CPU that buckets adds, an event, with %s contacts", count), "µs", many.added(), 0),
			costFigure(fmt.Sprintf("CPU of identity and contacts, an event, with %s contacts", thousands(benchContacts)), "µs", few.alone.both(), 0),
			costFigure(fmt.Sprintf("CPU of identity and contacts, an event, with %s contacts", count), "µs", many.alone.both(), 0),
			rateFigure("identity, contacts and buckets with "+count+" contacts", many.three, 0),
		},
	}, nil
}

// addition is what was measured without buckets and with them.
type addition struct {
	contacts        int
	two, three      []float64 // events a second
	alone, together costs
	turned, held    []float64 // transitions an event, and records that waited as rows of 100 events
}

// both is the CPU of the process and of Postgres in each round.
func (c *costs) both() []float64 {
	sums := make([]float64, len(c.process))
	for i := range sums {
		sums[i] = c.process[i] + c.postgres[i]
	}
	return sums
}

// added is the CPU that buckets adds in each round.
func (a *addition) added() []float64 {
	added := a.together.both()
	for i, before := range a.alone.both() {
		added[i] -= before
	}
	return added
}

// measureAdded runs identity and contacts alone, and then all three, on the same contacts
// and the same kind of events, with so many contacts, in turns.
func measureAdded(ctx context.Context, cfg Config, rounds int, contacts ...int) (all []*addition, err error) {
	runs := make([]*processorsRun, len(contacts))
	for i, n := range contacts {
		var env *surroundings
		env, err = surround(ctx, cfg, true)
		defer func() { err = errors.Join(err, env.close()) }()
		if err != nil {
			return nil, err
		}
		if runs[i], err = newProcessorsRun(ctx, cfg, env, n); err != nil {
			return nil, err
		}
		all = append(all, &addition{contacts: n})
	}
	alone, err := roundsInTurns(ctx, cfg, cfg.rounds(rounds), runs, "identity and contacts", (*processorsRun).ours)
	if err != nil {
		return nil, err
	}
	for i, p := range runs {
		all[i].two, all[i].alone = alone[i], p.cost
		if err := p.useBuckets(ctx); err != nil {
			return nil, err
		}
		p.turned, p.held = nil, nil // without those of the take-over
		// With a million contacts each event would be the first of its contact, which has a
		// timer made; with a few, of which all have one, hardly any.
		p.next = 0
	}
	together, err := roundsInTurns(ctx, cfg, cfg.rounds(rounds), runs, "identity, contacts and buckets", (*processorsRun).withBuckets)
	for i, p := range runs {
		all[i].three, all[i].together, all[i].turned, all[i].held = together[i], p.cost, p.turned, p.held
	}
	return all, err
}

// roundsInTurns are the rates of rounds of each run. What they cost is in the runs.
func roundsInTurns(ctx context.Context, cfg Config, rounds int, runs []*processorsRun, what string, run func(*processorsRun, context.Context, int, string) (float64, error)) (rates [][]float64, err error) {
	rates = make([][]float64, len(runs))
	for _, p := range runs {
		p.cost = costs{}
	}
	for i := range rounds {
		for j, p := range runs {
			if err := p.env.atRest(ctx); err != nil {
				return rates, err
			}
			rate, err := run(p, ctx, cfg.scaled(processorEvents), fmt.Sprintf("%s-%d", strings.ReplaceAll(what, " ", "-"), i+1))
			if err != nil {
				return rates, err
			}
			cfg.say("  round %d of %s, %s contacts: %.0f/s", i+1, what, thousands(float64(p.contacts)), rate)
			rates[j] = append(rates[j], rate)
		}
	}
	return rates, nil
}

// defineBuckets are n buckets, of which five look at each event, three of these with a
// window. Joins are about as frequent as in the clicks of the demo's shop, where 32,283
// events bring some 4,200 transitions at once and 5,600 by time.
func defineBuckets(n int) []definition.Bucket {
	event := predicate.Event("product.viewed")
	looking := []predicate.Condition{
		event.Within(predicate.Hours(1)).AtLeast(3),
		event.Where(predicate.Prop("category").Eq("trousers")).Within(predicate.Days(7)).AtLeast(10),
		predicate.All(event.Exists(), predicate.Not(event.Within(predicate.Days(14)).Exists())),
		event.Total("price").Gte(1_000_000),
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
	if _, err := define(ctx, p.env.db, defineBuckets(benchBuckets)); err != nil {
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
		if err := awaitTakenOver(ctx, p.env.sql, buckets.Name); err != nil {
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
	err = errors.Join(err, p.addShare(&p.turned, reg, "hogstream_buckets_transitions_total", "kind", "entered", n),
		p.addShare(&p.held, reg, "hogstream_derive_records_total", "outcome", "held", n/100))
	return float64(n) / took.Seconds(), errors.Join(err, errors.Join(errs...))
}

// awaitTakenOver waits until all contacts are taken over by processors.
func awaitTakenOver(ctx context.Context, sql *pgxpool.Pool, processors ...string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var through int
		err := sql.QueryRow(ctx, `SELECT count(*) FROM processor_progress WHERE processor = ANY ($1) AND taking_over IS NULL`, processors).Scan(&through)
		if err != nil || through == len(processors)*stream.DefaultPartitions {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// addShare adds what a counter says for each of n.
func (p *processorsRun) addShare(to *[]float64, reg prometheus.Gatherer, name, label, value string, n int) error {
	total, err := counter(reg, name, label, value)
	*to = append(*to, total/float64(n))
	return err
}
