package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/loop"
)

const (
	planContacts = 200_000 // with five events each; --scale 5 has a million
	planModels   = 500     // contacts that the processor takes over; the states of the others are theirs
)

// planBench measures what a plan of one changed bucket takes over many contacts.
func planBench(ctx context.Context, cfg Config) (_ *section, err error) {
	env := &surroundings{codec: schemas.NewCodec()}
	defer func() { err = errors.Join(err, env.close()) }()
	if err := env.startPostgres(ctx, cfg, true); err != nil {
		return nil, err
	}
	p := &planRun{cfg: cfg, env: env, contacts: max(planModels, cfg.scaled(planContacts)), opts: definition.Options{Limits: predicate.DefaultLimits()}}
	if err := p.seed(ctx); err != nil {
		return nil, err
	}
	var withEvents, without []float64
	for i := range cfg.rounds(1) {
		cfg.say("  round %d", i+1)
		took, err := p.plan(ctx, predicate.Event("product.viewed").Where(predicate.Prop("category").Eq("trousers")).Within(predicate.Days(30)).AtLeast(2))
		if err != nil {
			return nil, err
		}
		withEvents = append(withEvents, took)
		if took, err = p.plan(ctx, predicate.Prop("plan").Eq("pro")); err != nil {
			return nil, err
		}
		without = append(without, took)
	}
	n := thousands(float64(p.contacts))
	return &section{
		title: "Plans of definitions",
		about: fmt.Sprintf("What a plan says of one changed bucket beside %d others, over %s contacts with %s stored events, on %d cores that Postgres shares: "+
			"of a bucket that looks at events, and of one that looks at a property alone. The tables are seeded and analyzed; the states are those of %d contacts, again and again.",
			benchBuckets, n, thousands(float64(5*p.contacts)), runtime.GOMAXPROCS(0), planModels),
		figures: []figure{
			costFigure("plan of a bucket that looks at events, for a million contacts and five million events", "s", withEvents, 60),
			costFigure("plan of a bucket that looks at a property, for a million contacts", "s", without, 60),
		},
	}, nil
}

type planRun struct {
	cfg      Config
	env      *surroundings
	contacts int
	opts     definition.Options
}

// seed makes contacts, their events, and what the processor keeps of them.
func (p *planRun) seed(ctx context.Context) error {
	if err := p.use(ctx, defineBuckets(benchBuckets)); err != nil {
		return err
	}
	const (
		contacts = `
INSERT INTO contacts (id, external_id, email, properties, version, seq, era, partition, first_seen_at, last_seen_at, created_at, updated_at)
SELECT md5('contact ' || n)::uuid, 'user-' || n, 'user-' || n || '@example.com',
       json_build_object('plan', CASE n % 4 WHEN 0 THEN 'pro' ELSE 'free' END, 'visits', n % 100, 'city', 'Town ' || n % 1000, 'newsletter', n % 3 = 0),
       1, 6, 0, 0, now() - interval '90 days', now(), now(), now()
FROM generate_series($1::bigint, $2) AS n`
		events = `
INSERT INTO events (id, contact_id, name, properties, occurred_at, received_at, source, seq, era)
SELECT md5('event ' || n || ' ' || k)::uuid, md5('contact ' || n)::uuid, CASE WHEN k <= 3 THEN 'product.viewed' WHEN k = 4 THEN 'cart.updated' ELSE 'order.completed' END,
       json_build_object('category', CASE (n + k) % 3 WHEN 0 THEN 'trousers' ELSE 'shirts' END, 'price', (n * k) % 200, 'sku', 'sku-' || (n * 7 + k) % 5000),
       now() - ((n * 13 + k * 101) % 60) * interval '1 day', now(), 'bench', k + 1, 0
FROM generate_series(1, 5) AS k, generate_series($1::bigint, $2) AS n`
		states = `
INSERT INTO derived_contacts (processor, contact_id, partition, state, seq, era, written, epoch, took, heard, last_seq, last_era)
SELECT d.processor, md5('contact ' || n)::uuid, d.partition, d.state, d.seq, d.era, d.written, d.epoch, d.took, d.heard, d.last_seq, d.last_era
FROM generate_series($1::bigint, $2) AS n JOIN derived_contacts AS d ON d.processor = $3 AND d.contact_id = md5('contact ' || n % $4)::uuid`
	)
	for _, sql := range []string{contacts, events} {
		if _, err := p.env.sql.Exec(ctx, sql, 0, planModels-1); err != nil {
			return fmt.Errorf("seed: %w", err)
		}
	}
	if err := p.takeOver(ctx); err != nil {
		return err
	}
	if p.contacts > planModels {
		p.cfg.say("  seeding %s contacts", thousands(float64(p.contacts)))
		for _, sql := range []string{contacts, events} {
			if _, err := p.env.sql.Exec(ctx, sql, planModels, p.contacts-1); err != nil {
				return fmt.Errorf("seed: %w", err)
			}
		}
		if _, err := p.env.sql.Exec(ctx, states, planModels, p.contacts-1, buckets.Name, planModels); err != nil {
			return fmt.Errorf("seed: %w", err)
		}
	}
	return p.env.atRest(ctx)
}

// use puts buckets in use.
func (p *planRun) use(ctx context.Context, list []definition.Bucket) error {
	files, err := definition.Built(list, p.opts)
	if err != nil {
		return err
	}
	_, err = definition.Apply(ctx, p.env.db, files, p.opts, "bench")
	return err
}

// takeOver has the processor come to the contacts that there are.
func (p *planRun) takeOver(ctx context.Context) error {
	var frame *derive.Frame[buckets.State]
	frame, err := buckets.New(buckets.Options{Limits: p.opts.Limits}, p.env.codec, nil)
	if err != nil {
		return err
	}
	if err := p.env.db.StartTakeOver(ctx, buckets.Name, map[int32]storage.Ranges{0: {}}); err != nil {
		return err
	}
	return p.env.db.InBatch(ctx, func(tx *storage.Tx) error {
		_, err := frame.TakeOver(ctx, tx, loop.NewBatch(p.env.codec, time.Now(), nil), 0, uuid.Nil)
		return errors.Join(err, tx.MoveTakeOver(ctx, buckets.Name, 0, nil, 1))
	})
}

// plan has one bucket be another, and returns what that takes for a million contacts.
func (p *planRun) plan(ctx context.Context, criteria predicate.Condition) (seconds float64, err error) {
	list := defineBuckets(benchBuckets)
	list[len(list)-1].Criteria = criteria
	files, err := definition.Built(list, p.opts)
	if err != nil {
		return 0, err
	}
	inUse, err := definition.Current(ctx, p.env.db)
	if err != nil {
		return 0, err
	}
	plan, err := definition.NewPlan(inUse, files, p.opts)
	if err != nil {
		return 0, err
	}
	endProfile := profile(p.cfg, "plan-"+plan.Basis.Definitions)
	defer endProfile()
	begun := time.Now()
	f := buckets.Foresight{DB: p.env.db, Options: buckets.Options{Limits: p.opts.Limits}, Workers: runtime.GOMAXPROCS(0), Sample: 10}
	said, err := f.Foresee(ctx, plan)
	if err != nil {
		return 0, err
	}
	took := time.Since(begun)
	if said.Contacts != int64(p.contacts) || said.Effects[0].Enter == 0 {
		return 0, fmt.Errorf("the plan looked at %d of %d contacts and had %d enter", said.Contacts, p.contacts, said.Effects[0].Enter)
	}
	p.cfg.say("  %s of %s contacts enter, in %s", thousands(float64(said.Effects[0].Enter)), thousands(float64(said.Contacts)), took.Round(time.Millisecond))
	return took.Seconds() / float64(p.contacts) * 1e6, nil
}
