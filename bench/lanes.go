package bench

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

const (
	laneRecords  = 25_000 // a round
	laneKeys     = 10_000
	laneInFlight = 256
)

func lanesBench(ctx context.Context, cfg Config) (_ *section, err error) {
	env, err := surround(ctx, cfg, true)
	defer func() { err = errors.Join(err, env.close()) }()
	if err != nil {
		return nil, err
	}
	receiver, err := startPart(ctx, "receiver", `{"delayMillis":1}`)
	if err != nil {
		return nil, err
	}
	env.onClose(func() error { receiver.close(); return nil })
	box, err := storage.NewBox(make([]byte, 32)) // seals the bench's own secret, nothing worth hiding
	if err != nil {
		return nil, err
	}
	bench := &lanesRun{
		cfg: cfg, env: env, n: cfg.scaled(laneRecords), url: "http://" + receiver.addr + "/hook", secret: sinks.NewSecret(),
		destinations: storage.NewDestinations(env.db, box), receiverPID: receiver.cmd.Process.Pid,
	}
	sides := []*side{
		{name: "plain", run: bench.plain},
		{name: "ours, delivery log off", run: func(ctx context.Context) (run, error) { return bench.ours(ctx, "off") }},
		{name: "ours, delivery log on", run: func(ctx context.Context) (run, error) { return bench.ours(ctx, "all") }},
	}
	for i := range cfg.rounds(5) {
		if err := bench.seed(ctx); err != nil {
			return nil, err
		}
		for _, s := range sides {
			debug.FreeOSMemory()
			stop := profile(cfg, fmt.Sprintf("lanes-%d-%s", i+1, s.name))
			r, err := s.run(ctx)
			stop()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			cfg.say("  round %d, %s: %.0f/s, %.0f MiB, CPU a record: %.0f µs, Postgres %.0f, receiver %.0f",
				i+1, s.name, r.rate, r.peak, r.cpu, r.postgres, r.receiver)
			s.add(r)
		}
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
			ratioFigure("delivery log off / plain", ratios(off.rates, plain.rates), 0.8),
			ratioFigure("delivery log on / plain", ratios(on.rates, plain.rates), 0.65),
			rateFigure("delivery log on", on.rates, 15_000),
			rateFigure("delivery log off", off.rates, 0),
			rateFigure("plain", plain.rates, 0),
			costFigure("CPU a record, delivery log on", "µs", on.cpus, 70),
			costFigure("CPU a record, delivery log off", "µs", off.cpus, 0),
			costFigure("CPU a record, plain", "µs", plain.cpus, 0),
			costFigure("CPU a record, delivery log on, in multiples of plain", "", ratios(on.cpus, plain.cpus), 0),
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
	cfg    Config
	env    *surroundings
	n      int
	url    string
	secret string

	destinations *storage.Destinations
	receiverPID  int

	starts []storage.CursorStart // of the records of this round
}

// seed appends a round's records.
func (l *lanesRun) seed(ctx context.Context) error {
	var err error
	if l.starts, err = l.ends(ctx); err != nil {
		return err
	}
	log, err := stream.OpenLog(ctx, l.env.kafka, l.env.codec, l.cfg.Logger, nil)
	if err != nil {
		return err
	}
	const chunk = 1000
	for at := 0; at < l.n; at += chunk {
		msgs := make([]schemas.Message, min(chunk, l.n-at))
		for i := range msgs {
			msgs[i] = laneFact(at + i)
		}
		if err := log.Append(ctx, msgs...); err != nil {
			return errors.Join(err, log.Close(ctx))
		}
	}
	return log.Close(ctx)
}

// laneFact is a fact of one of the keys, in an order that repeats none soon.
func laneFact(i int) *schemas.Fact {
	const stride = 7919 // a prime
	n := i * stride % laneKeys
	now := time.Now()
	user, email := "user-"+strconv.Itoa(n), "user"+strconv.Itoa(n)+"@example.com"
	return &schemas.Fact{
		ID: uuid.Must(uuid.NewV7()).String(), Type: schemas.FactContactUpdated,
		ContactID: uuid.NewSHA1(uuid.NameSpaceOID, []byte(user)).String(), UserID: &user, Email: &email, OccurredAt: now, CauseID: uuid.NewString(),
		Contact: &schemas.ContactFact{
			Version: int64(i), Changed: []string{"visits"}, FirstSeenAt: now, LastSeenAt: now, CreatedAt: now, UpdatedAt: now,
			Properties: `{"visits":` + strconv.Itoa(i) + `,"firstName":"Ada","lastName":"Lovelace","country":"GB","plan":"pro","company":"Analytical Engines","locale":"en-GB","signedUpFrom":"newsletter","tags":["early","beta"]}`,
		},
	}
}

// ends are the ends of topic lifecycle.
func (l *lanesRun) ends(ctx context.Context) ([]storage.CursorStart, error) {
	admin, err := stream.OpenAdmin(l.env.kafka, l.cfg.Logger)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	return admin.EndOffsets(ctx, schemas.TopicLifecycle)
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

func (l *lanesRun) usage() laneUsage {
	return laneUsage{process: cpuTime(), postgres: treeCPU(l.env.postgresPID), receiver: treeCPU(l.receiverPID)}
}

// newMeter is made before anything is delivered, so that looking at the other
// processes is not measured.
func (l *lanesRun) newMeter() *meter {
	return &meter{want: int64(l.n), done: make(chan struct{}), used: l.usage, before: l.usage()}
}

func (m *meter) delivered() {
	m.first.Do(func() { m.begun, m.before.process = time.Now(), cpuTime() })
	if m.count.Add(1) == m.want {
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
	stream.Deliverer
	meter *meter
}

// Deliver implements stream.Deliverer.
func (c counted) Deliver(ctx context.Context, d stream.Delivery) stream.Outcome {
	out := c.Deliverer.Deliver(ctx, d)
	if out.Verdict == stream.Delivered {
		c.meter.delivered()
	}
	return out
}

// ours delivers the round's records with lanes and deliverer as shipped, to a
// new destination whose cursors stand where the round began.
func (l *lanesRun) ours(ctx context.Context, deliveryLog string) (run, error) {
	dest := &storage.Destination{
		ID: uuid.NewString(), Kind: "webhook", URL: l.url, EventTypes: []string{"contact.*"}, Secret: l.secret,
		Status: storage.DestinationActive, Revision: 1, Concurrency: laneInFlight, DeliveryLog: deliveryLog,
	}
	dest.Name = "bench-" + dest.ID
	if err := l.create(ctx, dest); err != nil {
		return run{}, err
	}
	deliverer, err := sinks.New(sinks.Config{AllowLoopback: true, AllowHTTP: true}, l.env.codec, l.cfg.Logger, nil)
	if err != nil {
		return run{}, err
	}
	defer deliverer.Close()
	log, err := stream.OpenLog(ctx, l.env.kafka, l.env.codec, l.cfg.Logger, nil)
	if err != nil {
		return run{}, err
	}
	defer func() { _ = log.Close(context.WithoutCancel(ctx)) }()
	m := l.newMeter()
	s, err := stream.NewSinks(stream.SinksConfig{Instance: "bench", Exclusive: true}, stream.SinksDeps{
		Kafka: l.env.kafka, DB: l.env.db, Appender: log, Deliverer: counted{deliverer, m}, Log: l.cfg.Logger,
		Destinations: l.destinations,
	})
	if err != nil {
		return run{}, err
	}
	work, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(work) }()
	r, err := m.wait(ctx, ended)
	stop()
	if err == nil {
		err = <-ended
	}
	return r, errors.Join(err, l.remove(ctx, dest))
}

func (l *lanesRun) create(ctx context.Context, dest *storage.Destination) error {
	return l.env.db.InTx(ctx, func(tx *storage.Tx) error {
		if err := l.destinations.Insert(ctx, tx, dest); err != nil {
			return fmt.Errorf("make a destination: %w", err)
		}
		return storage.CreateCursors(ctx, tx, dest.ID, l.starts)
	})
}

func (l *lanesRun) remove(ctx context.Context, dest *storage.Destination) error {
	if _, err := l.env.db.Exec(ctx, `DELETE FROM destinations WHERE id = $1`, dest.ID); err != nil {
		return fmt.Errorf("remove the destination: %w", err)
	}
	return nil
}

// target is the receiver's URL, parsed.
func (l *lanesRun) target() (*url.URL, error) { return url.Parse(l.url) }
