package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

const (
	benchContacts   = 50_000
	processorEvents = 120_000 // a round
	bareRows        = 100_000
	bareBatch       = 5_000
)

func processorsBench(ctx context.Context, cfg Config) (_ *section, err error) {
	counts := &statementCounter{}
	env, err := surround(ctx, cfg, true, storage.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(counts))))
	defer func() { err = errors.Join(err, env.close()) }()
	if err != nil {
		return nil, err
	}
	bench, err := newProcessorsRun(ctx, cfg, env, benchContacts)
	if err != nil {
		return nil, err
	}
	if err := makeBare(ctx, env); err != nil {
		return nil, err
	}
	var ours, bare, ratios []float64
	for i := range cfg.rounds(3) {
		a, err := bench.ours(ctx, cfg.scaled(processorEvents), fmt.Sprintf("processors-%d", i+1))
		if err != nil {
			return nil, err
		}
		b, err := bench.bare(ctx, cfg.scaled(bareRows))
		if err != nil {
			return nil, err
		}
		cfg.say("  round %d: ours %.0f/s, bare %.0f/s", i+1, a, b)
		ours, bare, ratios = append(ours, a), append(bare, b), append(ratios, a/b)
	}
	constant, err := bench.statements(ctx, counts)
	if err != nil {
		return nil, err
	}
	return &section{
		title: "Identity and contacts",
		about: fmt.Sprintf("%s events, each changing one property of one of %s existing contacts, taken from topic `ingest` through both "+
			"processor loops to topics `events`, `lifecycle` and `contacts` (three outputs each) and into Postgres, events mode `all`. "+
			"Bare: a set-based upsert of contacts and a COPY of events, on one connection, in batches of %s, and nothing else. Postgres is the "+
			"embedded one with fsync off.",
			thousands(float64(cfg.scaled(processorEvents))), thousands(benchContacts), thousands(bareBatch)),
		figures: append([]figure{
			rateFigure("identity and contacts, sustained", ours, 15_000),
			rateFigure("bare upsert and COPY on one connection", bare, 0),
			ratioFigure("ours / bare", ratios, 0),
			costFigure("CPU of the process, an event", "µs", bench.cost.process[1:], 0),
			costFigure("CPU of Postgres, an event", "µs", bench.cost.postgres[1:], 0),
			costFigure("CPU of the broker, an event", "µs", bench.cost.broker[1:], 0),
		}, constant...),
	}, nil
}

type processorsRun struct {
	cfg      Config
	env      *surroundings
	log      *stream.Log
	contacts int
	sent     int
	next     int // the contact of the next event, in the order of event
	clock    time.Time
	cost     costs
	// By round: transitions an event, and records that waited as rows of 100 events.
	turned, held []float64
}

// newProcessorsRun makes the contacts, and warms caches and prepared statements.
func newProcessorsRun(ctx context.Context, cfg Config, env *surroundings, contacts int) (*processorsRun, error) {
	cfg.say("  %s contacts are made", thousands(float64(contacts)))
	if err := seedContacts(ctx, env, contacts); err != nil {
		return nil, err
	}
	p := &processorsRun{cfg: cfg, env: env, contacts: contacts, clock: time.Now().UTC()}
	var err error
	if p.log, err = stream.OpenLog(ctx, env.kafka, env.codec, cfg.Logger, nil); err != nil {
		return nil, err
	}
	env.onClose(func() error { return p.log.Close(context.WithoutCancel(ctx)) })
	_, err = p.ours(ctx, cfg.scaled(processorEvents/8), "warm-up")
	return p, err
}

// ours returns events a second: the backlog is appended beforehand, and the
// clock runs from the start of the loops until the last output is published.
func (p *processorsRun) ours(ctx context.Context, n int, name string) (float64, error) {
	if err := p.appendEvents(ctx, n); err != nil {
		return 0, err
	}
	reg := prometheus.NewRegistry()
	loops, err := p.loops(reg)
	if err != nil {
		return 0, err
	}
	endProfile := profile(p.cfg, name)
	before, begun := p.env.used(), time.Now()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	errs := make([]error, len(loops))
	for i, l := range loops {
		wg.Go(func() { errs[i] = l.Run(ctx) })
	}
	err = awaitCount(ctx, reg, "hogstream_processor_outputs_total", "processor", contacts.Name, float64(3*n))
	took := time.Since(begun)
	p.cost.add(before, p.env.used(), n)
	endProfile()
	stop()
	wg.Wait()
	if err := errors.Join(err, errors.Join(errs...)); err != nil {
		return 0, err
	}
	return float64(n) / took.Seconds(), nil
}

func (p *processorsRun) loops(reg prometheus.Registerer) ([]*loop.Loop, error) {
	id, err := identity.New(identity.Config{}, p.env.codec, reg)
	if err != nil {
		return nil, err
	}
	co, err := contacts.New(contacts.Config{Events: contacts.EventsAll}, p.env.codec, reg)
	if err != nil {
		return nil, err
	}
	loops := make([]*loop.Loop, 0, 2)
	for _, proc := range []loop.Processor{id, co} {
		l, err := loop.New(loop.Config{
			Kafka: p.env.kafka, DB: p.env.db, Encoder: p.env.codec, Processor: proc, Logger: p.cfg.Logger, Registerer: reg,
		})
		if err != nil {
			return nil, err
		}
		loops = append(loops, l)
	}
	return loops, nil
}

// appendEvents appends events that each change one property of a contact.
func (p *processorsRun) appendEvents(ctx context.Context, n int) error {
	const chunk = 1000
	for n > 0 {
		msgs := make([]schemas.Message, min(chunk, n))
		for i := range msgs {
			msgs[i] = p.event()
		}
		if err := p.log.Append(ctx, msgs...); err != nil {
			return err
		}
		n -= len(msgs)
	}
	return nil
}

// event visits the contacts in an order that repeats none soon.
func (p *processorsRun) event() *schemas.Input {
	const stride = 7919 // a prime: every contact comes once in as many events as there are contacts
	p.sent, p.next = p.sent+1, p.next+1
	p.clock = p.clock.Add(time.Microsecond)
	user := contactUser(p.next * stride % p.contacts)
	name := "product.viewed"
	properties := viewedProperties(p.sent)
	patch := `{"visits":` + strconv.Itoa(p.sent) + `}`
	return &schemas.Input{
		ID: uuid.Must(uuid.NewV7()).String(), Type: schemas.InputEvent, ReceivedAt: p.clock, OccurredAt: p.clock, Source: "api",
		UserID: &user, Event: &name, EventProperties: &properties, ContactProperties: &patch,
	}
}

// viewedProperties are those of a product that was looked at.
func viewedProperties(i int) string {
	return `{"productId":"p-` + strconv.Itoa(i%997) + `","price":129.5,"currency":"EUR","category":"trousers","position":` + strconv.Itoa(i%40) + `}`
}

func contactUser(i int) string { return fmt.Sprintf("user-%06d", i) }

// seedContacts makes n contacts as identity and contacts would have.
func seedContacts(ctx context.Context, env *surroundings, n int) error {
	if _, err := env.sql.Exec(ctx, `CREATE UNLOGGED TABLE seed (n integer PRIMARY KEY, id uuid NOT NULL, partition integer NOT NULL)`); err != nil {
		return fmt.Errorf("make %d contacts: %w", n, err)
	}
	if err := seedMore(ctx, env, 0, n); err != nil {
		return err
	}
	return env.db.CreateEventPartitions(ctx, time.Now(), 1)
}

// seedMore makes the contacts from one to before another.
func seedMore(ctx context.Context, env *surroundings, from, until int) error {
	row := make([]any, 3)
	ids := pgx.CopyFromSlice(until-from, func(i int) ([]any, error) {
		id := uuid.New()
		row[0], row[1], row[2] = int32(from+i), pgtype.UUID{Bytes: id, Valid: true}, stream.PartitionOf([]byte(id.String()), stream.DefaultPartitions)
		return row, nil
	})
	if _, err := env.sql.CopyFrom(ctx, pgx.Identifier{"seed"}, []string{"n", "id", "partition"}, ids); err != nil {
		return fmt.Errorf("make contacts from %d to %d: %w", from, until, err)
	}
	for _, sql := range []string{
		`INSERT INTO identities (contact_id, external_id, email, first_seen_at)
SELECT id, 'user-' || lpad(n::text, 6, '0'), 'user' || n || '@example.com', now() FROM seed WHERE n >= $1 ORDER BY n`,
		`INSERT INTO identifiers (kind, value, contact_id) SELECT 'external', external_id, id FROM seed JOIN identities ON contact_id = id WHERE n >= $1`,
		`INSERT INTO identifiers (kind, value, contact_id) SELECT 'email', email, id FROM seed JOIN identities ON contact_id = id WHERE n >= $1`,
		`INSERT INTO contacts (id, partition, external_id, email, identifiers, properties, version, first_seen_at, last_seen_at, created_at, updated_at)
SELECT i.contact_id, s.partition, i.external_id, i.email, json_build_array(json_build_array('external', i.external_id), json_build_array('email', i.email)),
       json_build_object('visits', 0, 'firstName', 'Ada', 'lastName', 'Lovelace', 'country', 'GB', 'plan', 'pro', 'company', 'Analytical Engines',
                         'locale', 'en-GB', 'signedUpFrom', 'newsletter', 'tags', json_build_array('early', 'beta')),
       1, i.first_seen_at, i.first_seen_at, i.first_seen_at, i.first_seen_at
FROM seed AS s JOIN identities AS i ON i.contact_id = s.id WHERE s.n >= $1 ORDER BY s.n`,
	} {
		if _, err := env.sql.Exec(ctx, sql, from); err != nil {
			return fmt.Errorf("make contacts from %d to %d: %w", from, until, err)
		}
	}
	_, err := env.sql.Exec(ctx, `ANALYZE`)
	return err
}

// makeBare makes the tables that bare writes to.
func makeBare(ctx context.Context, env *surroundings) error {
	for _, sql := range []string{
		`CREATE TABLE bare_contacts (LIKE contacts INCLUDING ALL)`,
		`INSERT INTO bare_contacts SELECT * FROM contacts`,
		`CREATE TABLE bare_events (LIKE events INCLUDING ALL)`,
		`ANALYZE bare_contacts, bare_events`,
	} {
		if _, err := env.sql.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make tables to compare with: %w", err)
		}
	}
	return nil
}

// bare writes the same rows with nothing around: one upsert and one COPY a batch.
func (p *processorsRun) bare(ctx context.Context, n int) (float64, error) {
	ids, err := contactIDs(ctx, p.env.sql)
	if err != nil {
		return 0, err
	}
	const upsert = `
INSERT INTO bare_contacts (id, properties, version, first_seen_at, last_seen_at, created_at, updated_at)
SELECT n.id, n.properties, 1, $3, $3, $3, $3
FROM unnest($1::uuid[], $2::text[]::json[]) AS n (id, properties)
ON CONFLICT (id) DO UPDATE
SET properties = excluded.properties, version = bare_contacts.version + 1,
    last_seen_at = excluded.last_seen_at, updated_at = excluded.updated_at`
	columns := []string{"id", "contact_id", "name", "properties", "occurred_at", "received_at", "source"}
	begun := time.Now()
	for at := 0; at < n; at += bareBatch {
		now := time.Now()
		size := min(bareBatch, n-at)
		contact, properties := make([]uuid.UUID, size), make([]string, size)
		for i := range size {
			contact[i] = ids[(at+i)%len(ids)]
			properties[i] = `{"visits":` + strconv.Itoa(at+i) + `,"firstName":"Ada","lastName":"Lovelace","country":"GB","plan":"pro","company":"Analytical Engines","locale":"en-GB","signedUpFrom":"newsletter","tags":["early","beta"]}`
		}
		err := pgx.BeginFunc(ctx, p.env.sql, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, upsert, contact, properties, now); err != nil {
				return err
			}
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"bare_events"}, columns, pgx.CopyFromSlice(size, func(i int) ([]any, error) {
				return []any{uuid.New(), contact[i], "product.viewed",
					`{"productId":"p-1","price":129.5,"currency":"EUR","category":"trousers","position":7}`, now, now, "api"}, nil
			}))
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("bare upsert: %w", err)
		}
	}
	return float64(n) / time.Since(begun).Seconds(), nil
}

func contactIDs(ctx context.Context, sql *pgxpool.Pool) ([]uuid.UUID, error) {
	rows, err := sql.Query(ctx, `SELECT id FROM contacts`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
}

// statements reports how many statements an apply makes, with few and with many
// records.
func (p *processorsRun) statements(ctx context.Context, counts *statementCounter) ([]figure, error) {
	loops := []func(prometheus.Registerer) (loop.Processor, error){
		func(reg prometheus.Registerer) (loop.Processor, error) {
			return identity.New(identity.Config{}, p.env.codec, reg)
		},
		func(reg prometheus.Registerer) (loop.Processor, error) {
			return contacts.New(contacts.Config{}, p.env.codec, reg)
		},
	}
	var figures []figure
	few, many := 10, 5000
	for _, n := range []int{few, many} {
		records := make([]*stream.Record, n)
		for i := range records {
			in := p.event()
			value, err := p.env.codec.Encode(in)
			if err != nil {
				return nil, err
			}
			records[i] = &stream.Record{Topic: in.Topic(), Offset: int64(i), Key: []byte(in.Key()), Value: value, AppendTime: p.clock}
		}
		for _, open := range loops {
			proc, err := open(nil)
			if err != nil {
				return nil, err
			}
			made, outputs, err := p.countOne(ctx, counts, proc, records)
			if err != nil {
				return nil, err
			}
			figures = append(figures, figure{what: fmt.Sprintf("statements in one apply of %s, %s records", proc.Name(), thousands(float64(n))), value: strconv.Itoa(made), rounds: strconv.Itoa(made)})
			records = make([]*stream.Record, len(outputs)) // what the next one is given
			for i, o := range outputs {
				records[i] = &stream.Record{Topic: o.Topic, Offset: int64(i), Key: []byte(o.Key), Value: o.Value, AppendTime: p.clock}
			}
		}
	}
	for i := range figures {
		other := figures[(i+2)%4]
		figures[i].target, figures[i].met = "constant", figures[i].value == other.value
	}
	return figures, nil
}

func (p *processorsRun) countOne(ctx context.Context, counts *statementCounter, proc loop.Processor, records []*stream.Record) (int, []loop.Output, error) {
	counted, span := sdktrace.NewTracerProvider().Tracer("bench").Start(ctx, "apply")
	defer span.End()
	b := loop.NewBatch(p.env.codec, time.Now(), records)
	var before, after int
	err := p.env.db.InTx(ctx, func(tx *storage.Tx) error {
		before = counts.made()
		err := proc.Apply(counted, tx, b)
		after = counts.made()
		return err
	})
	return after - before, b.Outputs(), err
}

// statementCounter counts the statements that are made within a recorded span.
// The spans of a pipeline and of a prepare enclose or precede the statement they
// are for, and are not counted.
type statementCounter struct {
	mu    sync.Mutex
	count int
}

func (c *statementCounter) made() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// OnStart implements sdktrace.SpanProcessor.
func (c *statementCounter) OnStart(_ context.Context, s sdktrace.ReadWriteSpan) {
	if s.SpanKind() != trace.SpanKindClient || !isStatement(s.Name()) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
}

// OnEnd implements sdktrace.SpanProcessor.
func (c *statementCounter) OnEnd(sdktrace.ReadOnlySpan) {}

// Shutdown implements sdktrace.SpanProcessor.
func (c *statementCounter) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (c *statementCounter) ForceFlush(context.Context) error { return nil }
