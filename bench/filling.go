package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/storage"
)

const (
	filledContacts  = 1_000_000
	filledEach      = 5  // stored events of a contact
	filledDays      = 30 // within which they happened
	filledByDefault = 5  // what part of all is measured unless it is asked for more
)

// fillingBench adds a bucket while there are contacts with a history, alone and beside live
// events.
func fillingBench(ctx context.Context, cfg Config) (_ *section, err error) {
	n := max(benchContacts, cfg.scaled(filledContacts/filledByDefault))
	part := float64(n) / filledContacts
	l, err := startLive(ctx, cfg, devSettings{Embedded: true}, func(ctx context.Context, env *surroundings) error { return seedContacts(ctx, env, benchContacts) })
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return nil, err
	}
	f := &filling{liveInstance: l, contacts: n, buckets: liveBuckets()}
	if err := f.seed(ctx); err != nil {
		return nil, err
	}
	if err := f.measureAll(ctx); err != nil {
		return nil, err
	}
	return &section{
		title: "Filling a bucket",
		about: fmt.Sprintf("`hogstream dev` with a Postgres of %s contacts and %s stored events of the last %d days, and a bucket that looks at these is added: from there "+
			"until everybody is filled with it, without other load, and once more with another bucket beside the live events of section \"Joining a bucket\", whose p99 before and meanwhile "+
			"is compared, each the median of pieces of %g s. The targets are those for %s contacts in proportion; `--scale %d` measures that many.",
			thousands(float64(n)), thousands(float64(n*filledEach)), filledDays, joinsSeconds/2, thousands(filledContacts), filledByDefault),
		figures: slices.Concat([]figure{
			costFigure("filling, without other load", "s", []float64{f.alone.Seconds()}, 60*part),
			costFigure(fmt.Sprintf("filling beside %s events/s", thousands(liveRate)), "s", []float64{f.beside.Seconds()}, 180*part),
		}, liveFigures(f.calm, f.busy), []figure{
			costFigure("CPU of Postgres, a contact", "µs", []float64{f.postgres}, 0),
			costFigure("CPU of the process, a contact", "µs", []float64{f.process}, 0),
		}),
	}, nil
}

// liveFigures compare live events beside something else with those before, both in pieces.
func liveFigures(before, meanwhile []joins) []figure {
	calm, busy := quantiles(before, 0.99), quantiles(meanwhile, 0.99)
	return []figure{
		timesFigure("live p99 meanwhile, in multiples of that before", []float64{median(busy) / median(calm)}, 2),
		costFigure("live p99 before", "ms", calm, 0),
		costFigure("live p99 meanwhile", "ms", busy, 0),
		costFigure("live p50 meanwhile", "ms", quantiles(meanwhile, 0.5), 0),
	}
}

// quantiles are one of each piece, in milliseconds.
func quantiles(pieces []joins, q float64) []float64 {
	all := make([]float64, len(pieces))
	for i, p := range pieces {
		all[i] = millis(p.seen, q)
	}
	return all
}

// filling is what was measured.
type filling struct {
	*liveInstance
	contacts int
	buckets  []definition.Bucket // in use

	alone, beside     time.Duration
	process, postgres float64 // microseconds of CPU a contact, alone
	calm, busy        []joins // in pieces
}

// seed makes the contacts beside those of the live events, as the take-over would have left
// them: with the state of one that nothing is known of but its row. Then everybody gets
// a history, which no bucket looks at so far.
func (f *filling) seed(ctx context.Context) error {
	f.cfg.say("  %s contacts are made, and %s events", thousands(float64(f.contacts)), thousands(float64(f.contacts*filledEach)))
	if err := seedMore(ctx, f.surroundings, benchContacts, f.contacts); err != nil {
		return err
	}
	now := time.Now()
	if err := f.db.CreateEventPartitions(ctx, now.AddDate(0, 0, -filledDays), filledDays+1); err != nil {
		return err
	}
	const (
		states = `
INSERT INTO derived_contacts (processor, contact_id, partition, state, seq, era, written, epoch, took, heard, last_seq, last_era)
SELECT d.processor, s.id, s.partition, d.state, 0, 0, 0, 0, '{}', '{}', 0, 0
FROM seed AS s, (SELECT processor, state FROM derived_contacts WHERE processor = $1 LIMIT 1) AS d WHERE s.n >= $2`
		histories = `
INSERT INTO events (id, contact_id, name, properties, occurred_at, received_at, source)
SELECT gen_random_uuid(), e.id, 'order.completed', json_build_object('orderId', e.n, 'amount', (e.n + e.k) % 200, 'currency', 'EUR'), e.at, e.at, 'api'
FROM (SELECT n, id, k, now() - ((n::bigint * 7919 + k * 104729) % ($1 * 86400)) * interval '1 second' AS at FROM generate_series(1, $2::integer) AS k, seed) AS e`
	)
	if _, err := f.sql.Exec(ctx, states, buckets.Name, benchContacts); err != nil {
		return fmt.Errorf("make states of contacts: %w", err)
	}
	if _, err := f.sql.Exec(ctx, histories, filledDays, filledEach); err != nil {
		return fmt.Errorf("make histories of contacts: %w", err)
	}
	return f.atRest(ctx)
}

func (f *filling) measureAll(ctx context.Context) error {
	orders := predicate.Event("order.completed")
	before := f.usage()
	took, err := f.add(ctx, "frequent", orders.Within(predicate.Days(30)).AtLeast(3))
	if err != nil {
		return err
	}
	after := f.usage()
	f.alone = took
	f.process = float64((after.process - before.process).Microseconds()) / float64(f.contacts)
	f.postgres = float64((after.postgres - before.postgres).Microseconds()) / float64(f.contacts)
	f.cfg.say("  filled in %s", took)
	if err := f.warm(ctx, 4); err != nil {
		return err
	}
	for range 2 * f.cfg.rounds(calmRounds) {
		all, err := f.measure(ctx, joinsSeconds/2)
		if err != nil {
			return err
		}
		f.calm = append(f.calm, all)
	}
	filled := make(chan error, 1)
	go func() {
		var err error
		f.beside, err = f.add(ctx, "loyal", orders.Total("amount").Gte(500))
		filled <- err
	}()
	for {
		all, err := f.measure(ctx, joinsSeconds/2)
		if err != nil {
			return errors.Join(err, <-filled)
		}
		f.busy = append(f.busy, all)
		select {
		case err := <-filled:
			f.cfg.say("  filled beside live events in %s", f.beside)
			return err
		default:
		}
	}
}

// usage is what the instance and its Postgres have used of the CPU.
func (f *filling) usage() usage {
	return usage{process: treeCPU(f.dev.cmd.Process.Pid), postgres: treeCPU(f.postgresPID)}
}

// add puts one more bucket in use and waits until everybody is filled with it.
func (f *filling) add(ctx context.Context, id string, c predicate.Condition) (time.Duration, error) {
	f.buckets = append(f.buckets, definition.Bucket{ID: id, Name: id, Enabled: true, Criteria: c})
	begun := time.Now()
	version, err := define(ctx, f.db, f.buckets)
	if err != nil {
		return 0, err
	}
	err = awaitFilled(ctx, f.db, version)
	return time.Since(begun), err
}

// awaitFilled waits until everybody is filled with the definitions of a version.
func awaitFilled(ctx context.Context, db *storage.DB, version int64) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	passed, progress := int64(0), time.Now()
	for {
		p, err := db.FillProgress(ctx, buckets.Name, version)
		switch {
		case err != nil || p.Done:
			return err
		case p.Passed > passed:
			passed, progress = p.Passed, time.Now()
		case time.Since(progress) > time.Minute:
			return fmt.Errorf("%d of %d contacts are filled, and no more for a minute", p.Passed, p.Total)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
