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

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/definition"
	language "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

const (
	pathEvents  = 60_000 // a round
	pathRounds  = 3
	leastPeople = 1000            // contacts, however little is measured
	startsEvent = "trial.started" // begins two runs of a contact
)

// Stages of the path, in its order.
const (
	stageIngest   = "ingest"
	stageDelivery = "delivery"
)

// trialJourney has its runs wait for long.
const trialJourney = `
id: trial
trigger: {event: ` + startsEvent + `}
exitOn: [{event: order.completed}]
goal: {event: order.completed, within: 30d}
steps: [{wait: 30d}, {email: {template: trial-ends}}]
`

// definedJourneys are ten. Two begin with startsEvent and wait for long: one for time and an
// order, one for a look at something dear, so that each live event is looked at. Two begin when
// joinedBucket is joined, one of them by a condition that each live event changes. The others
// look at what does not come.
func definedJourneys() ([]definition.Definition, error) {
	texts := []string{trialJourney, `
id: dear
trigger: {event: trial.started}
steps:
  - waitFor: {any: [{event: product.viewed, where: {price: {gte: 570}}, as: dear}], timeout: 30d}
    then: {dear: [{email: {template: dear, props: {product: {last: productId}}}}, {wait: 7d}]}
`, `
id: joined
trigger: {event: "bucket.entered:bucket-01"}
exitOn: [{leftBucket: bucket-01, settle: 10m}]
steps:
  - email: {template: joined}
  - wait: 1d
  - branch:
      - {when: {type: event, eventName: product.viewed, check: count, operator: gte, value: 3, within: 1d}, do: [{email: {template: active}}]}
`, `
id: weekly
entryLimit: unlimited
trigger: {repeat: {days: monday, at: "09:00"}, bucket: bucket-01}
steps: [{email: {template: weekly}}]
`}
	for i := range 10 - len(texts) {
		texts = append(texts, fmt.Sprintf(`
id: other-%[1]d
trigger: {event: other.%[1]d}
key: orderId
exitOn: [{event: order.completed, where: {orderId: {run: key}}}]
steps: [{email: {template: first}}, {waitFor: {any: [{event: order.viewed}], timeout: 14d}}, {email: {template: second}}]
`, i))
	}
	return readJourneys(texts...)
}

// readJourneys reads journeys from YAML, which have their id as a name and are enabled.
func readJourneys(texts ...string) ([]definition.Definition, error) {
	list := make([]definition.Definition, len(texts))
	for i, text := range texts {
		id, _, _ := strings.Cut(after(text, "id: "), "\n")
		j, err := language.ParseYAML(id+".yaml", []byte(text+"name: "+id+"\nenabled: true\n"))
		if err != nil {
			return nil, err
		}
		list[i] = definition.Journey{Journey: j}
	}
	return list, nil
}

// journeysBench compares the whole path of an event with the path that lacks buckets and
// journeys.
func journeysBench(ctx context.Context, cfg Config) (_ *section, err error) {
	rig, err := openRig(ctx, cfg)
	defer func() { err = errors.Join(err, rig.close()) }()
	if err != nil {
		return nil, err
	}
	p := &pathRun{rig: rig, contacts: max(leastPeople, min(benchContacts, cfg.scaled(benchContacts)))}
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	if err := p.begin(ctx); err != nil {
		return nil, err
	}
	without, with, err := p.rounds(ctx)
	if err != nil {
		return nil, err
	}
	live, err := p.env.liveRuns(ctx)
	if err != nil {
		return nil, err
	}
	s := &section{
		title: "Journeys",
		about: fmt.Sprintf("%s events a round, in batches of %d over HTTP, each changing a property of one of %s contacts, go through the whole path, one stage after the other: "+
			"the data API, `identity`, `contacts`, `buckets`, `journeys`, and a webhook destination that is sent all facts but steps. There are %d buckets, five of which look at each event, "+
			"10 journeys, two of which do, and %s runs that live when the rounds begin; each %dth event has its contact join a bucket and begin a journey, the first step of which is a mail. "+
			"Rounds without `buckets` and `journeys`, which read what these left when they are over, alternate with them. CPU is that of the process, of Postgres (fsync off) and of the broker, of each stage from its start to its end; "+
			"load generator and receiver are left out.",
			thousands(float64(p.events())), ingestBatch, thousands(float64(p.contacts)), benchBuckets, thousands(float64(2*p.contacts)), joinEvery),
		figures: []figure{
			timesFigure("CPU of the whole path, in multiples of that without buckets and journeys", ratios(with.total(), without.total()), 1.8),
			costFigure("CPU of an event, the whole path", "µs", with.total(), 0),
			costFigure("CPU of an event, without buckets and journeys", "µs", without.total(), 0),
		},
	}
	s.figures = append(s.figures, with.figures("the whole path")...)
	s.figures = append(s.figures, without.figures("without")...)
	s.figures = append(s.figures,
		costFigure("runs begun, of 100 events", "", p.begun, 0),
		costFigure("records that waited as rows before journeys, of 100 events", "", p.held, 0),
		countedFigure("runs that live at the end", live))
	return s, nil
}

// countedFigure reports a number.
func countedFigure(what string, n int) figure {
	text := thousands(float64(n))
	return figure{what: what, value: text, rounds: text}
}

// pathRun has events go through the stages of the path.
type pathRun struct {
	*rig
	contacts    int
	addr, key   string // of the data API
	receiverURL string
	sent        int // requests
	joiner      int // the contact that joins next

	cost        *pathCosts // of the rounds under way
	begun, held []float64  // by round
}

// pathCosts are microseconds of CPU an event, by stage.
type pathCosts struct {
	stages []string
	of     map[string]*costs
}

func (c *pathCosts) add(stage string, before, after usage, n int) {
	if c.of[stage] == nil {
		c.stages, c.of[stage] = append(c.stages, stage), &costs{}
	}
	c.of[stage].add(before, after, n)
}

// all is the CPU of the process, of Postgres and of the broker in each round.
func (c *costs) all() []float64 {
	sums := c.both()
	for i := range sums {
		sums[i] += c.broker[i]
	}
	return sums
}

// total is the CPU of all stages in each round.
func (c *pathCosts) total() []float64 {
	var sums []float64
	for _, stage := range c.stages {
		for i, cpu := range c.of[stage].all() {
			if i == len(sums) {
				sums = append(sums, 0)
			}
			sums[i] += cpu
		}
	}
	return sums
}

func (c *pathCosts) figures(path string) []figure {
	var figures []figure
	for _, stage := range c.stages {
		cost := c.of[stage]
		figures = append(figures, costFigure(fmt.Sprintf("CPU of an event in %s, %s", stage, path), "µs", cost.all(), 0))
		if stage == buckets.Name || stage == journeys.Name {
			figures = append(figures,
				costFigure("of it the process, in "+stage, "µs", cost.process, 0),
				costFigure("of it Postgres, in "+stage, "µs", cost.postgres, 0),
				costFigure("of it the broker, in "+stage, "µs", cost.broker, 0))
		}
	}
	return figures
}

func (p *pathRun) events() int {
	return max(ingestBatch, p.cfg.scaled(pathEvents)/ingestBatch*ingestBatch)
}

func (p *pathRun) open(ctx context.Context) error {
	p.cfg.say("  %s contacts are made", thousands(float64(p.contacts)))
	if err := seedContacts(ctx, p.env, p.contacts); err != nil {
		return err
	}
	receiver, err := p.receiver(ctx, `{"delayMillis":1}`)
	if err != nil {
		return err
	}
	p.receiverURL = "http://" + receiver.addr + "/hook"
	p.addr, p.key, err = p.env.serveAPI(ctx, p.cfg)
	return err
}

// rounds runs both paths once to warm them up, and then as often as is measured.
func (p *pathRun) rounds(ctx context.Context) (without, with *pathCosts, err error) {
	for i := range p.cfg.rounds(pathRounds) + 1 {
		if i <= 1 {
			without, with = newPathCosts(), newPathCosts()
			p.begun, p.held = nil, nil
		}
		p.cost = without
		if err := p.plain(ctx); err != nil {
			return nil, nil, err
		}
		p.cost = with
		if err := p.whole(ctx); err != nil {
			return nil, nil, err
		}
		if i > 0 {
			p.cfg.say("  round %d: %.0f µs an event, %.0f µs without buckets and journeys", i, with.total()[i-1], without.total()[i-1])
		}
	}
	return without, with, nil
}

func newPathCosts() *pathCosts { return &pathCosts{of: map[string]*costs{}} }

// plain is a round without buckets and journeys, which then read what it left.
func (p *pathRun) plain(ctx context.Context) error {
	starts, err := p.ends(ctx)
	if err == nil {
		err = p.toContacts(ctx)
	}
	if err == nil {
		err = p.deliver(ctx, starts, p.events())
	}
	if err == nil {
		p.cost = newPathCosts() // of which nothing is told
		_, _, err = p.derive(ctx)
	}
	return err
}

// derive is what buckets and journeys make of a round: how many transitions there were, and
// the figures of journeys.
func (p *pathRun) derive(ctx context.Context) (transitions int, told *prometheus.Registry, err error) {
	n := p.events()
	turned, err := p.stage(ctx, buckets.Name, p.newBuckets, handledBy(2*n))
	if err != nil {
		return 0, nil, err
	}
	transitions = int(total(turned, "hogstream_buckets_transitions_total"))
	told, err = p.stage(ctx, journeys.Name, p.newJourneys, handledBy(2*n+transitions))
	return transitions, told, err
}

// whole is a round of all stages.
func (p *pathRun) whole(ctx context.Context) error {
	starts, err := p.ends(ctx)
	if err != nil {
		return err
	}
	if err := p.toContacts(ctx); err != nil {
		return err
	}
	n := p.events()
	transitions, told, err := p.derive(ctx)
	if err != nil {
		return err
	}
	begun, err := counter(told, "hogstream_journeys_runs_total", "kind", language.Started)
	if err != nil {
		return err
	}
	held, err := counter(told, "hogstream_derive_records_total", "outcome", "held")
	if err != nil {
		return err
	}
	p.begun, p.held = append(p.begun, 100*begun/float64(n)), append(p.held, 100*held/float64(n))
	return p.deliver(ctx, starts, n+transitions+int(total(told, "hogstream_journeys_runs_total")))
}

// total adds up all series of a counter.
func total(reg *prometheus.Registry, name string) (sum float64) {
	families, _ := reg.Gather() // what it has, also after an error
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// toContacts has the events of a round come in, and takes them through identity and contacts.
func (p *pathRun) toContacts(ctx context.Context) error {
	n := p.events()
	end := profile(p.cfg, "path-"+stageIngest)
	before := p.env.used()
	_, err := load(ctx, loadSettings{
		Addr: p.addr, Path: "/v1/events/batch", Key: p.key, Batch: ingestBatch, Connections: ingestConnections, Requests: n / ingestBatch, First: p.sent, Users: p.contacts, Joiner: p.joiner % p.contacts,
	})
	p.sent += n / ingestBatch
	p.joiner += n / joinEvery
	p.cost.add(stageIngest, before, p.env.used(), n)
	end()
	if err != nil {
		return err
	}
	if _, err := p.stage(ctx, identity.Name, p.newIdentity, published(identity.Name, n)); err != nil {
		return err
	}
	_, err = p.stage(ctx, contacts.Name, p.newContacts, published(contacts.Name, 3*n))
	return err
}

// done waits until a stage is through.
type done func(ctx context.Context, reg *prometheus.Registry) error

func published(processor string, n int) done {
	return func(ctx context.Context, reg *prometheus.Registry) error {
		return awaitCount(ctx, reg, "hogstream_processor_outputs_total", "processor", processor, float64(n))
	}
}

func handledBy(n int) done {
	return func(ctx context.Context, reg *prometheus.Registry) error {
		return awaitCount(ctx, reg, "hogstream_derive_records_total", "outcome", "handled", float64(n))
	}
}

// stage runs one processor until it is through with what stands on its topics.
func (p *pathRun) stage(ctx context.Context, name string, open func(prometheus.Registerer) (loop.Processor, error), through done) (*prometheus.Registry, error) {
	reg := prometheus.NewRegistry()
	l, err := p.loop(open, reg)
	if err != nil {
		return nil, err
	}
	end := profile(p.cfg, "path-"+name)
	before := p.env.used()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	err = through(ctx, reg)
	p.cost.add(name, before, p.env.used(), p.events())
	end()
	stop()
	return reg, errors.Join(err, <-ended)
}

func (p *pathRun) loop(open func(prometheus.Registerer) (loop.Processor, error), reg prometheus.Registerer) (*loop.Loop, error) {
	proc, err := open(reg)
	if err != nil {
		return nil, err
	}
	return loop.New(loop.Config{Kafka: p.env.kafka, DB: p.env.db, Encoder: p.env.codec, Processor: proc, Logger: p.cfg.Logger, Registerer: reg})
}

func (p *pathRun) newIdentity(reg prometheus.Registerer) (loop.Processor, error) {
	return identity.New(identity.Config{}, p.env.codec, reg)
}

func (p *pathRun) newContacts(reg prometheus.Registerer) (loop.Processor, error) {
	return contacts.New(contacts.Config{Events: contacts.EventsAll}, p.env.codec, reg)
}

func (p *pathRun) newBuckets(reg prometheus.Registerer) (loop.Processor, error) {
	return buckets.New(buckets.Options{Limits: predicate.DefaultLimits()}, p.env.codec, reg)
}

func (p *pathRun) newJourneys(reg prometheus.Registerer) (loop.Processor, error) {
	return journeys.New(journeys.Options{Limits: predicate.DefaultLimits()}, p.env.codec, reg)
}

// deliver sends n facts of the round to a new destination for all of them.
func (p *pathRun) deliver(ctx context.Context, starts []storage.CursorStart, n int) error {
	d := p.webhook(p.receiverURL)
	d.EventTypes, d.DeliveryLog = []string{"*"}, "all"
	end := profile(p.cfg, "path-"+stageDelivery)
	before := p.env.used()
	_, err := p.deliverAll(ctx, n, starts, d)
	p.cost.add(stageDelivery, before, p.env.used(), p.events())
	end()
	return err
}

// begin puts buckets and journeys in use, and has each contact begin two runs.
func (p *pathRun) begin(ctx context.Context) error {
	list, err := definedJourneys()
	if err != nil {
		return err
	}
	list = append(definition.All(liveBuckets()), list...)
	if _, err := define(ctx, p.env.db, list); err != nil {
		return err
	}
	begun := time.Now()
	work, stop := context.WithCancel(ctx)
	defer stop()
	following := p.start(work, p.newBuckets, p.newJourneys) // they begin where the topics end now
	err = awaitTakenOver(ctx, p.env.sql, deriving(list)...)
	if err == nil {
		err = p.startTrials(ctx, p.contacts)
	}
	numbering := p.start(work, p.newIdentity, p.newContacts)
	if err == nil {
		err = p.env.awaitRuns(ctx, 2*p.contacts)
	}
	if err == nil {
		err = p.awaitNoLag(ctx, deriving(list))
	}
	stop()
	p.cfg.say("  everybody was taken over and began two runs in %s", time.Since(begun).Round(time.Millisecond))
	return errors.Join(err, following(), numbering())
}

// start runs processors until ctx ends; what it returns waits for that, and says what failed.
func (p *pathRun) start(ctx context.Context, processors ...func(prometheus.Registerer) (loop.Processor, error)) (ended func() error) {
	var wg sync.WaitGroup
	errs := make([]error, len(processors))
	for i, open := range processors {
		wg.Go(func() {
			l, err := p.loop(open, nil)
			if err == nil {
				err = l.Run(ctx)
			}
			errs[i] = err
		})
	}
	return func() error { wg.Wait(); return errors.Join(errs...) }
}

// startTrials appends startsEvent of the first contacts.
func (p *pathRun) startTrials(ctx context.Context, contacts int) error {
	log, err := stream.OpenLog(ctx, p.env.kafka, p.env.codec, p.cfg.Logger, nil)
	if err != nil {
		return err
	}
	const chunk = 1000
	for from := 0; from < contacts && err == nil; from += chunk {
		msgs := make([]schemas.Message, min(chunk, contacts-from))
		for i := range msgs {
			user, name, properties, now := contactUser(from+i), startsEvent, `{"plan":"pro","source":"newsletter"}`, time.Now().UTC()
			msgs[i] = &schemas.Input{
				ID: uuid.Must(uuid.NewV7()).String(), Type: schemas.InputEvent, ReceivedAt: now, OccurredAt: now, Source: "api",
				UserID: &user, Event: &name, EventProperties: &properties,
			}
		}
		err = log.Append(ctx, msgs...)
	}
	return errors.Join(err, log.Close(context.WithoutCancel(ctx)))
}

func (s *surroundings) liveRuns(ctx context.Context) (n int, err error) {
	err = s.sql.QueryRow(ctx, `SELECT count(*) FROM journey_runs WHERE ended_at IS NULL`).Scan(&n)
	return n, err
}

func (s *surroundings) awaitRuns(ctx context.Context, n int) error {
	return await(ctx, strconv.Itoa(n)+" live runs", func() (bool, error) {
		live, err := s.liveRuns(ctx)
		return live >= n, err
	})
}

// awaitNoLag waits until processors have read all there is.
func (p *pathRun) awaitNoLag(ctx context.Context, processors []string) error {
	admin, err := stream.OpenAdmin(p.env.kafka, p.cfg.Logger)
	if err != nil {
		return err
	}
	defer admin.Close()
	return await(ctx, fmt.Sprintf("%v to read all there is", processors), func() (bool, error) {
		lags, err := admin.Lag(ctx)
		behind := slices.ContainsFunc(lags, func(g stream.GroupLag) bool { return slices.Contains(processors, g.Group) && g.Lag > 0 })
		return !behind, err
	})
}

// await waits for something that comes within two minutes.
func await(ctx context.Context, what string, is func() (bool, error)) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	late := time.After(2 * time.Minute)
	for {
		if there, err := is(); err != nil || there {
			return err
		}
		select {
		case <-tick.C:
		case <-late:
			return fmt.Errorf("waited two minutes for %s", what)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
