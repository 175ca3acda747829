package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/timers"
)

const (
	sleepingRuns  = 1_000_000
	begunOfThem   = 10 // one in so many is begun by an event; the others are copied from these
	sleeperSettle = 5 * time.Second
	sleeperFor    = 15 * time.Second
)

// sleepingBench measures what runs cost that wait for a month.
func sleepingBench(ctx context.Context, cfg Config) (_ *section, err error) {
	env, err := surround(ctx, cfg, true)
	defer func() { err = errors.Join(err, env.close()) }()
	if err != nil {
		return nil, err
	}
	s := &sleeping{pathRun: pathRun{rig: &rig{cfg: cfg, env: env}}, all: cfg.scaled(sleepingRuns)}
	if err := s.measure(ctx); err != nil {
		return nil, err
	}
	count := thousands(float64(s.all))
	figures := []figure{
		costFigure("memory that "+count+" sleeping runs add to a process", "MiB", []float64{max(0, s.many.MiB-s.none.MiB)}, 16),
		costFigure("CPU that they add to the process and to Postgres, of one core", "%", []float64{max(0, s.many.share()-s.none.share())}, 1),
	}
	figures = append(figures, s.kept(s.real, s.begun())...)
	figures = append(figures, s.kept(s.copied, s.all)...)
	figures = append(figures,
		costFigure("Postgres keeps for `journeys` of a contact without a run", "bytes", []float64{s.before.each(s.begun())}, 0),
		costFigure("memory of the process without runs", "MiB", []float64{s.none.MiB}, 0),
		costFigure("CPU of process and Postgres without runs, of one core", "%", []float64{s.none.share()}, 0))
	return &section{
		title: "Runs that sleep",
		about: fmt.Sprintf("%s contacts begin a journey by an event, through `identity`, `contacts` and `journeys`, and wait for a month: what the tables grow by that `journeys` writes, its states of contacts, "+
			"timers, runs and counters, with indexes, toast and what updates have left behind. Their rows are then copied until there are %s, each of another contact. Memory and CPU are those of "+
			"a process of its own with the three processors and the ticker, after a collection and over %s, with these runs against none.",
			thousands(float64(s.begun())), count, sleeperFor),
		figures: figures,
	}, nil
}

// sleepingTables are what journeys writes.
var sleepingTables = []string{"derived_contacts", "timers", "journey_runs", "journey_counters"}

// sleeping is what was measured.
type sleeping struct {
	pathRun
	all                  int
	before, real, copied tableSizes
	none, many           rest
}

// tableSizes are bytes, by table.
type tableSizes map[string]int64

// each is how much of them there is for each of n.
func (t tableSizes) each(n int) float64 {
	sum := int64(0)
	for _, size := range t {
		sum += size
	}
	return float64(sum) / float64(n)
}

// kept are the figures of what Postgres keeps when there are n runs.
func (s *sleeping) kept(of tableSizes, n int) []figure {
	count := thousands(float64(n))
	figures := []figure{
		costFigure("Postgres keeps more of a contact with a run than of one without, of "+count, "bytes", []float64{of.each(n) - s.before.each(s.begun())}, 1024),
		costFigure("Postgres keeps for `journeys` of a contact with a run, of "+count, "bytes", []float64{of.each(n)}, 0),
	}
	for _, table := range sleepingTables {
		figures = append(figures, costFigure(fmt.Sprintf("of it, `%s`, of %s", table, count), "bytes", []float64{float64(of[table]) / float64(n)}, 0))
	}
	return figures
}

// rest is what a process uses that has nothing to do.
type rest struct {
	MiB  float64       `json:"mib"`
	Used time.Duration `json:"used"` // of CPU, by it and by Postgres
	Over time.Duration `json:"over"`
}

// share is the CPU in hundredths of a core.
func (r rest) share() float64 { return 100 * r.Used.Seconds() / r.Over.Seconds() }

func (s *sleeping) begun() int { return max(1, s.all/begunOfThem) }

func (s *sleeping) measure(ctx context.Context) (err error) {
	if err := seedContacts(ctx, s.env, s.begun()); err != nil {
		return err
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	if s.none, err = s.rest(ctx); err != nil {
		return err
	}
	if s.before, err = s.sizes(ctx); err != nil {
		return err
	}
	if err := s.wake(ctx); err != nil {
		return err
	}
	if s.real, err = s.sizes(ctx); err != nil {
		return err
	}
	if err := s.copy(ctx); err != nil {
		return err
	}
	if s.copied, err = s.sizes(ctx); err != nil {
		return err
	}
	s.many, err = s.rest(ctx)
	return err
}

// begin has the journey take over the contacts, of whom none begins it.
func (s *sleeping) begin(ctx context.Context) error {
	list, err := readJourneys(trialJourney)
	if err != nil {
		return err
	}
	if _, err := define(ctx, s.env.db, list); err != nil {
		return err
	}
	return s.with(ctx, func() error { return awaitTakenOver(ctx, s.env.sql, journeys.Name) })
}

// with runs the processors while something is done.
func (s *sleeping) with(ctx context.Context, do func() error) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	ended := s.start(work, s.newIdentity, s.newContacts, s.newJourneys)
	err := do()
	stop()
	return errors.Join(err, ended())
}

// wake has each contact begin the journey.
func (s *sleeping) wake(ctx context.Context) error {
	begun := time.Now()
	err := s.startTrials(ctx, s.begun())
	if err == nil {
		err = s.with(ctx, func() error { return s.env.awaitRuns(ctx, s.begun()) })
	}
	s.cfg.say("  %d runs began in %s", s.begun(), time.Since(begun).Round(time.Millisecond))
	return err
}

// copy makes as many contacts with a run as are missing, with the rows of those there are.
func (s *sleeping) copy(ctx context.Context) error {
	begun := time.Now()
	const models = `
CREATE UNLOGGED TABLE copies AS
SELECT c.id AS model, gen_random_uuid() AS id, gen_random_uuid() AS run FROM generate_series(0, %d) AS g JOIN seed AS c ON c.n = g %% %d`
	for _, sql := range []string{
		fmt.Sprintf(models, s.all-s.begun()-1, s.begun()),
		`INSERT INTO derived_contacts (processor, contact_id, partition, state, seq, era, written, epoch, took, heard, last_seq, last_era)
SELECT d.processor, c.id, d.partition, d.state, d.seq, d.era, d.written, d.epoch, d.took, d.heard, d.last_seq, d.last_era
FROM copies AS c JOIN derived_contacts AS d ON d.contact_id = c.model`,
		`INSERT INTO timers (owner, contact_id, what, partition, due, epoch, hops, armed_at)
SELECT t.owner, c.id, t.what, t.partition, t.due, t.epoch, t.hops, t.armed_at FROM copies AS c JOIN timers AS t ON t.contact_id = c.model`,
		`INSERT INTO journey_runs (run_id, contact_id, journey_id, version, key, arm, entry, status, node, node_since, entered_at, trigger_id, log, effects)
SELECT c.run, c.id, r.journey_id, r.version, r.key, r.arm, r.entry, r.status, r.node, r.node_since, r.entered_at, r.trigger_id, r.log, r.effects
FROM copies AS c JOIN journey_runs AS r ON r.contact_id = c.model`,
	} {
		if _, err := s.env.sql.Exec(ctx, sql); err != nil {
			return fmt.Errorf("copy runs: %w", err)
		}
	}
	err := s.env.atRest(ctx)
	s.cfg.say("  there were %d runs after another %s", s.all, time.Since(begun).Round(time.Millisecond))
	return err
}

// sizes are what tables take, with their indexes and all.
func (s *sleeping) sizes(ctx context.Context) (tableSizes, error) {
	sizes := tableSizes{}
	for _, table := range sleepingTables {
		var size int64
		if err := s.env.sql.QueryRow(ctx, `SELECT pg_total_relation_size($1::text::regclass)`, table).Scan(&size); err != nil {
			return nil, fmt.Errorf("size of %s: %w", table, err)
		}
		sizes[table] = size
	}
	return sizes, nil
}

// sleeperSettings of the sleeper part.
type sleeperSettings struct {
	Broker   string        `json:"broker"`
	Prefix   string        `json:"prefix"`
	Registry string        `json:"registry"`
	Database string        `json:"database"`
	Postgres int           `json:"postgres"` // the process
	For      time.Duration `json:"for"`
}

// rest is what a new process uses.
func (s *sleeping) rest(ctx context.Context) (r rest, err error) {
	if _, err := s.env.sql.Exec(ctx, `CHECKPOINT`); err != nil {
		return r, err
	}
	settings, err := json.Marshal(sleeperSettings{
		s.env.kafka.Brokers[0], s.env.kafka.Prefix, s.env.registryURL, s.env.dbURL, s.env.postgresPID, time.Duration(float64(sleeperFor) * s.cfg.Scale),
	})
	if err != nil {
		return r, err
	}
	p, err := startPart(ctx, "sleeper", string(settings))
	if err != nil {
		return r, err
	}
	p.close()
	err = json.Unmarshal([]byte(p.addr), &r)
	s.cfg.say("  a process uses %.1f MiB and %.2f %% of a core, with Postgres", r.MiB, r.share())
	return r, err
}

// sleeperPart runs the processors and the ticker, which have nothing to do, and says what
// that takes.
func sleeperPart(args []string, _ <-chan struct{}, say func(string)) (err error) {
	var settings sleeperSettings
	if err := decodeArgs(args, &settings); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	env := &surroundings{kafka: stream.Config{Brokers: []string{settings.Broker}, Prefix: settings.Prefix, Instance: "bench"}}
	registry, err := schemas.NewRegistry(schemas.RegistryConfig{URLs: []string{settings.Registry}, Prefix: settings.Prefix})
	if err != nil {
		return err
	}
	env.codec = registry.Codec()
	if env.db, err = storage.Open(ctx, storage.Config{URL: settings.Database}); err != nil {
		return err
	}
	defer env.db.Close()
	log, err := stream.OpenLog(ctx, env.kafka, env.codec, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close(context.Background())) }()
	ticker, err := timers.New(timers.Config{DB: env.db, Log: log, Behind: func(context.Context, time.Time) (string, error) { return "", nil }})
	if err != nil {
		return err
	}
	ticking := make(chan error, 1)
	go func() { ticking <- ticker.Run(ctx) }()
	s := &sleeping{pathRun: pathRun{rig: &rig{cfg: Config{Logger: zap.NewNop()}, env: env}}}
	r := rest{}
	err = s.with(ctx, func() error {
		if err := sleepUntil(ctx, time.Now().Add(sleeperSettle)); err != nil {
			return err
		}
		debug.FreeOSMemory()
		begun, before := time.Now(), cpuTime()+treeCPU(settings.Postgres)
		err := sleepUntil(ctx, begun.Add(settings.For))
		r.Used, r.Over = cpuTime()+treeCPU(settings.Postgres)-before, time.Since(begun)
		debug.FreeOSMemory()
		r.MiB = residentMiB(os.Getpid())
		return err
	})
	stop()
	if err = errors.Join(err, <-ticking); err != nil {
		return err
	}
	text, err := json.Marshal(r)
	say(string(text))
	return err
}
