package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

const (
	ingestConnections = 32
	ingestBatch       = 100
	ingestSeconds     = 2.0 // a round
)

func ingestBench(ctx context.Context, cfg Config) (_ *section, err error) {
	env, err := surround(ctx, cfg, true)
	defer func() { err = errors.Join(err, env.close()) }()
	if err != nil {
		return nil, err
	}
	bench := &ingestRun{cfg: cfg, env: env}
	if err := bench.start(ctx); err != nil {
		return nil, err
	}
	batches, err := bench.compare(ctx, "batches of 100", "/v1/events/batch", ingestBatch)
	if err != nil {
		return nil, err
	}
	singles, err := bench.compare(ctx, "single events", "/v1/events", 1)
	if err != nil {
		return nil, err
	}
	calm, err := bench.half(ctx, median(batches.ours))
	if err != nil {
		return nil, err
	}
	p50s, p99s := make([]float64, len(calm)), make([]float64, len(calm))
	for i, r := range calm {
		p50s[i], p99s[i] = float64(r.P50.Microseconds())/1000, float64(r.P99.Microseconds())/1000
	}
	return &section{
		title: "Ingest",
		about: fmt.Sprintf("Events of one KiB over %d connections, each answered after the broker has acknowledged it. Ours: the API as served, "+
			"with an API key from Postgres, validation, metrics and the access log (to nowhere), rate limits off. Plain: net/http, "+
			"encoding/json into structs, the same Avro, franz-go with acks=all; it checks nothing. The load generator writes prepared bytes to "+
			"its connections, in a process of its own. At half load: %d connections at half the rate of ours above, latency from when a request was due.",
			ingestConnections, ingestConnections),
		figures: []figure{
			ratioFigure("batches of 100, ours / plain", ratios(batches.ours, batches.plain), 1),
			rateFigure("batches of 100, events", batches.ours, 0),
			rateFigure("batches of 100, events, plain", batches.plain, 0),
			ratioFigure("single events, ours / plain", ratios(singles.ours, singles.plain), 0.7),
			rateFigure("single events", singles.ours, 0),
			rateFigure("single events, plain", singles.plain, 0),
			costFigure("latency of a batch at half load, p99", "ms", p99s, 50),
			costFigure("latency of a batch at half load, p50", "ms", p50s, 0),
			costFigure("CPU an event in batches, ours", "µs", batches.oursCPU, 0),
			costFigure("CPU an event in batches, plain", "µs", batches.plainCPU, 0),
			costFigure("CPU of a single event, ours", "µs", singles.oursCPU, 0),
			costFigure("CPU of a single event, plain", "µs", singles.plainCPU, 0),
			costFigure("CPU of the broker, a single event, ours", "µs", singles.brokerCPU, 0),
			costFigure("CPU of the load generator, a single event, ours", "µs", singles.loadCPU, 0),
		},
	}, nil
}

type ingestRun struct {
	cfg   Config
	env   *surroundings
	key   string
	ours  string // addresses
	plain string

	admin *kadm.Client
}

// start serves both sides.
func (b *ingestRun) start(ctx context.Context) error {
	var err error
	if b.ours, b.key, err = b.env.serveAPI(ctx, b.cfg); err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.env.kafka.Brokers...), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(schemas.MaxRecord))
	if err != nil {
		return fmt.Errorf("plain producer: %w", err)
	}
	b.env.onClose(func() error { client.Close(); return nil })
	b.admin = kadm.NewClient(client)
	b.plain, err = b.env.serve(&plainHandler{client: client, codec: b.env.codec, topic: b.env.kafka.Topic(schemas.TopicIngest)})
	return err
}

// serveAPI serves the data API as it is shipped, with the access log to nowhere.
func (s *surroundings) serveAPI(ctx context.Context, cfg Config) (addr, key string, err error) {
	if _, key, err = s.db.CreateAPIKey(ctx, storage.NewAPIKey{Name: "bench", Scopes: []string{storage.ScopeIngest}}, time.Now()); err != nil {
		return "", "", err
	}
	log, err := stream.OpenLog(ctx, s.kafka, s.codec, cfg.Logger, nil)
	if err != nil {
		return "", "", err
	}
	s.onClose(func() error { return log.Close(context.WithoutCancel(ctx)) })
	nowhere := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.InfoLevel))
	api, err := ingest.New(ingest.Config{}, ingest.Deps{Appender: log, DB: s.db, Logger: nowhere, Registerer: prometheus.NewRegistry()})
	if err != nil {
		return "", "", err
	}
	work, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- api.Run(work) }()
	s.onClose(func() error { stop(); return ignoreCanceled(<-ended) })
	addr, err = s.serve(api)
	return addr, key, err
}

func (s *surroundings) serve(h http.Handler) (addr string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("serve: %w", err)
	}
	server := ingest.NewServer(h)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	s.onClose(func() error {
		err := server.Close()
		if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	})
	return listener.Addr().String(), nil
}

// comparison is events a second and microseconds of CPU an event, by round;
// those of broker and load generator are while ours ran.
type comparison struct{ ours, plain, oursCPU, plainCPU, brokerCPU, loadCPU []float64 }

// ingested is what one round measured.
type ingested struct{ rate, cpu, brokerCPU, loadCPU float64 }

func (b *ingestRun) compare(ctx context.Context, name, path string, batch int) (c comparison, err error) {
	for i := range b.cfg.rounds(3) + 1 {
		ours, err := b.measure(ctx, fmt.Sprintf("ingest-%d-%d", batch, i), b.ours, path, batch)
		if err != nil {
			return c, fmt.Errorf("%s, ours: %w", name, err)
		}
		plain, err := b.measure(ctx, fmt.Sprintf("ingest-plain-%d-%d", batch, i), b.plain, path, batch)
		if err != nil {
			return c, fmt.Errorf("%s, plain: %w", name, err)
		}
		if i == 0 {
			continue // warms up
		}
		b.cfg.say("  %s, round %d: ours %.0f/s (%.1f µs CPU), plain %.0f/s (%.1f µs)", name, i, ours.rate, ours.cpu, plain.rate, plain.cpu)
		c.ours, c.plain = append(c.ours, ours.rate), append(c.plain, plain.rate)
		c.oursCPU, c.plainCPU = append(c.oursCPU, ours.cpu), append(c.plainCPU, plain.cpu)
		c.brokerCPU, c.loadCPU = append(c.brokerCPU, ours.brokerCPU), append(c.loadCPU, ours.loadCPU)
	}
	return c, nil
}

// measure sends for one round; CPU is in microseconds an event.
func (b *ingestRun) measure(ctx context.Context, name, addr, path string, batch int) (ingested, error) {
	stop := profile(b.cfg, name)
	defer stop()
	before := b.env.used()
	r, err := load(ctx, loadSettings{
		Addr: addr, Path: path, Key: b.key, Batch: batch, Connections: ingestConnections, Seconds: ingestSeconds * b.cfg.Scale,
	})
	if err != nil {
		return ingested{}, err
	}
	after := b.env.used()
	events := float64(r.Requests * batch)
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / events }
	return ingested{
		rate: events / r.Took.Seconds(), cpu: each(after.process - before.process),
		brokerCPU: each(after.broker - before.broker), loadCPU: each(r.CPU),
	}, b.empty(ctx)
}

// half is ours at half its rate.
func (b *ingestRun) half(ctx context.Context, rate float64) ([]loadResult, error) {
	var all []loadResult
	for i := range b.cfg.rounds(3) {
		r, err := load(ctx, loadSettings{
			Addr: b.ours, Path: "/v1/events/batch", Key: b.key, Batch: ingestBatch, Connections: ingestConnections,
			Seconds: ingestSeconds * b.cfg.Scale, Rate: rate / 2 / ingestBatch,
		})
		if err != nil {
			return nil, fmt.Errorf("half load: %w", err)
		}
		b.cfg.say("  half load, round %d: %.0f/s, p50 %s, p99 %s", i+1, float64(r.Requests*ingestBatch)/r.Took.Seconds(), r.P50, r.P99)
		all = append(all, r)
		if err := b.empty(ctx); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// empty lets the broker forget what it was sent, for it keeps it in memory.
func (b *ingestRun) empty(ctx context.Context) error {
	ends, err := b.admin.ListEndOffsets(ctx, b.env.kafka.Topic(schemas.TopicIngest))
	if err != nil {
		return fmt.Errorf("empty the broker: %w", err)
	}
	if _, err := b.admin.DeleteRecords(ctx, ends.Offsets()); err != nil {
		return fmt.Errorf("empty the broker: %w", err)
	}
	return nil
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
