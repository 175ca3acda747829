package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/schemas"
)

const (
	latencyRate    = 500 // events a second
	latencySeconds = 8.0
	idleSeconds    = 3

	// A broker in Java compiles what it runs often, and takes a minute or two of
	// load to come to what it does all day.
	warmSeconds  = 4.0
	warmAtMost   = 30   // times
	warmGain     = 0.95 // of the best median so far: still getting better
	warmPatience = 5    // times without getting better
)

// latencyBench measures a whole instance: `hogstream dev`, in a process of its
// own, on its embedded broker, and again on the Kafka that the environment names.
func latencyBench(ctx context.Context, cfg Config) (*section, error) {
	embedded, err := measureInstance(ctx, cfg, devSettings{Embedded: true})
	if err != nil {
		return nil, err
	}
	s := &section{
		title: "Latency",
		about: fmt.Sprintf("`hogstream dev` in a process of its own with its Postgres, %d single events a second over 8 connections, each of which "+
			"changes a contact, and one webhook destination that subscribes to everything (two deliveries an event). Latency of a product event "+
			"from its acceptance over HTTP to its arrival at the receiver, and to its append to each topic on the way, by the broker's clock. RSS is that of the process with embedded broker and registry, without "+
			"Postgres, %d s after it was ready. The same load runs beforehand until the median no longer falls.", latencyRate, idleSeconds),
		figures: append(embedded.figures("embedded", 60, 250),
			costFigure("RSS of `hogstream dev`, idle", "MiB", []float64{embedded.idle}, 150),
			costFigure("RSS of `hogstream dev`, after the load", "MiB", []float64{embedded.busy}, 0)),
	}
	return s, s.onKafka(ctx, func(settings devSettings) ([]figure, error) {
		kafka, err := measureInstance(ctx, cfg, settings)
		if err != nil {
			return nil, err
		}
		return kafka.figures("Apache Kafka", 100, 400), nil
	})
}

// onKafka adds what is measured on the brokers that the environment names; without them, a
// note that it was not.
func (s *section) onKafka(ctx context.Context, measure func(devSettings) ([]figure, error)) error {
	env, err := hogstream.ConfigFromEnv()
	if err != nil {
		return err
	}
	if len(env.Kafka.Brokers) == 0 {
		s.notes = append(s.notes, "Not measured on Apache Kafka in this run: set KAFKA_BROKERS and SCHEMA_REGISTRY_URL (`make kafka` starts both).")
		return nil
	}
	env.Kafka.Prefix = "bench-" + uuid.NewString()[:8] + "."
	figures, err := measure(devSettings{Prefix: env.Kafka.Prefix})
	if err != nil {
		return fmt.Errorf("on Kafka: %w", err)
	}
	s.figures = append(s.figures, figures...)
	return deleteTopics(ctx, &env)
}

// deleteTopics tidies a cluster that is not ours.
func deleteTopics(ctx context.Context, env *hogstream.Config) error {
	kafka := env.StreamConfig()
	client, err := kafka.NewClient("bench", nil)
	if err != nil {
		return err
	}
	defer client.Close()
	var names []string
	for _, t := range schemas.Topics() {
		names = append(names, kafka.Topic(t.Topic))
	}
	_, err = kadm.NewClient(client).DeleteTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("delete the topics of this run: %w", err)
	}
	return nil
}

// instanceLatency is what was measured on one instance.
type instanceLatency struct {
	p50, p99   time.Duration
	idle, busy float64 // MiB
	delivered  int
	stages     []stage
}

func (l *instanceLatency) figures(where string, p50, p99 float64) []figure {
	ms := func(d time.Duration) []float64 { return []float64{float64(d.Microseconds()) / 1000} }
	figures := []figure{
		costFigure("accepted to delivered, "+where+", p50", "ms", ms(l.p50), p50),
		costFigure("accepted to delivered, "+where+", p99", "ms", ms(l.p99), p99),
	}
	for _, s := range l.stages {
		figures = append(figures,
			costFigure(fmt.Sprintf("accepted to appended to `%s`, %s, p50", s.topic, where), "ms", ms(s.p50), 0),
			costFigure(fmt.Sprintf("accepted to appended to `%s`, %s, p99", s.topic, where), "ms", ms(s.p99), 0))
	}
	return figures
}

func measureInstance(ctx context.Context, cfg Config, settings devSettings) (*instanceLatency, error) {
	dir, err := os.MkdirTemp("", "hogstream-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a data directory: %w", err)
	}
	defer removeData(dir)
	settings.DataDir = filepath.Join(dir, "data")
	dev, running, err := startDev(ctx, settings)
	if err != nil {
		return nil, err
	}
	defer dev.close()
	receiver, err := startPart(ctx, "receiver", `{"latencies":true}`)
	if err != nil {
		return nil, err
	}
	defer receiver.close()
	if err := subscribe(ctx, running, "http://"+receiver.addr+"/hook"); err != nil {
		return nil, err
	}
	select {
	case <-time.After(idleSeconds * time.Second):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	kafka, err := settings.kafkaOf(running)
	if err != nil {
		return nil, err
	}
	result := &instanceLatency{idle: residentMiB(dev.cmd.Process.Pid)}
	began, err := result.measure(ctx, cfg, running, receiver.addr)
	if err != nil {
		return nil, err
	}
	result.busy = residentMiB(dev.cmd.Process.Pid)
	if result.stages, err = stages(ctx, kafka, began); err != nil {
		return nil, err
	}
	cfg.say("  %s: p50 %s, p99 %s of %d events, RSS %.0f MiB idle, %.0f MiB after", running.Brokers, result.p50, result.p99, result.delivered, result.idle, result.busy)
	return result, nil
}

// startDev starts the dev part.
func startDev(ctx context.Context, settings devSettings) (*part, *hogstream.Running, error) {
	text, err := json.Marshal(settings)
	if err != nil {
		return nil, nil, fmt.Errorf("start an instance: %w", err)
	}
	dev, err := startPart(ctx, "dev", string(text))
	if err != nil {
		return nil, nil, err
	}
	running := &hogstream.Running{}
	if err := json.Unmarshal([]byte(dev.addr), running); err != nil {
		dev.close()
		return nil, nil, fmt.Errorf("read where the instance is: %w", err)
	}
	return dev, running, nil
}

// removeData removes an instance's directory, and what its Postgres keeps
// elsewhere when its user cannot reach that (see package embedded).
func removeData(dir string) {
	note, err := os.ReadFile(filepath.Join(dir, "data", "postgres", "elsewhere"))
	if home := strings.TrimSpace(string(note)); err == nil && filepath.IsAbs(home) {
		_ = os.RemoveAll(home) // a few MiB that the next start would remove
	}
	_ = os.RemoveAll(dir)
}

// measure warms up, sends the load, and asks the receiver what it saw. It
// returns when the load began.
func (l *instanceLatency) measure(ctx context.Context, cfg Config, running *hogstream.Running, receiver string) (began time.Time, err error) {
	addr := bytes.TrimPrefix([]byte(running.URL), []byte("http://"))
	settings := loadSettings{Addr: string(addr), Path: "/v1/events", Key: running.APIKey, Batch: 1, Connections: 8, Rate: latencyRate, Seconds: warmSeconds * cfg.Scale}
	if err := l.warm(ctx, cfg, settings, receiver); err != nil {
		return began, err
	}
	began = time.Now()
	settings.Seconds = latencySeconds * cfg.Scale
	sent, err := load(ctx, settings)
	if err != nil {
		return began, err
	}
	seen, err := awaitDelivered(ctx, receiver, sent.Requests)
	if err != nil {
		return began, err
	}
	l.p50, l.p99, l.delivered = seen.P50, seen.P99, seen.Events
	return began, nil
}

// warm sends load until the median latency no longer falls.
func (l *instanceLatency) warm(ctx context.Context, cfg Config, settings loadSettings, receiver string) error {
	var best time.Duration
	for i, since := 0, 0; i < warmAtMost && since < warmPatience; i++ {
		sent, err := load(ctx, settings)
		if err != nil {
			return err
		}
		seen, err := awaitDelivered(ctx, receiver, sent.Requests)
		if err != nil {
			return err
		}
		cfg.say("  warming up: p50 %s", seen.P50)
		if since++; best == 0 || float64(seen.P50) < warmGain*float64(best) {
			best, since = seen.P50, 0
		}
		if err := forget(ctx, receiver); err != nil {
			return err
		}
	}
	return nil
}

// subscribe creates a destination for everything.
func subscribe(ctx context.Context, running *hogstream.Running, url string) error {
	body, err := json.Marshal(map[string]any{"url": url, "name": "bench", "eventTypes": []string{"*", schemas.TypeEventTracked}})
	if err != nil {
		return fmt.Errorf("create a destination: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, running.URL+"/v1/admin/webhooks", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("create a destination: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+running.APIKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("create a destination: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("create a destination: HTTP %d: %s", resp.StatusCode, text)
	}
	return nil
}

// awaitDelivered waits until the receiver has seen n product events.
func awaitDelivered(ctx context.Context, receiver string, n int) (seen receiverReport, err error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for {
		if err := ask(ctx, http.MethodGet, receiver, &seen); err != nil {
			return seen, err
		}
		if seen.Events >= n {
			return seen, nil
		}
		select {
		case <-tick.C:
		case <-late:
			return seen, fmt.Errorf("%d of %d events were delivered a minute after the last was sent", seen.Events, n)
		case <-ctx.Done():
			return seen, context.Cause(ctx)
		}
	}
}

func forget(ctx context.Context, receiver string) error {
	return ask(ctx, http.MethodDelete, receiver, &receiverReport{})
}

func ask(ctx context.Context, method, receiver string, into *receiverReport) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+receiver+"/", nil)
	if err != nil {
		return fmt.Errorf("ask the receiver: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the receiver: %w", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("ask the receiver: %w", err)
	}
	return nil
}

// devSettings of the dev part.
type devSettings struct {
	DataDir string `json:"dataDir"`
	// Embedded ignores a Kafka that the environment names.
	Embedded bool   `json:"embedded"`
	Prefix   string `json:"prefix,omitempty"`
	// Database is a Postgres of the bench's; without it the instance has its own.
	Database string `json:"database,omitempty"`
	// Profile is the directory of the CPU profile, if any.
	Profile string `json:"profile,omitempty"`
}

// devPart is `hogstream dev` with the settings of the environment, except where
// the data is. Its first line says where it runs.
func devPart(args []string, stop <-chan struct{}, say func(string)) error {
	var settings devSettings
	if err := decodeArgs(args, &settings); err != nil {
		return err
	}
	cfg, err := hogstream.ConfigFromEnv()
	if err != nil {
		return err
	}
	cfg.DataDir, cfg.Database.URL = settings.DataDir, settings.Database
	cfg.HTTP.Addr, cfg.HTTP.MetricsAddr, cfg.HTTP.RateLimit = "127.0.0.1:0", "", 0
	cfg.Log.Level = "warn"
	if settings.Embedded {
		cfg.Kafka.Brokers, cfg.Registry.URL = nil, ""
	}
	if settings.Prefix != "" {
		cfg.Kafka.Prefix = settings.Prefix
	}
	defer profile(Config{Profile: settings.Profile}, "dev")()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { <-stop; cancel() }()
	var failed error
	err = hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		text, err := json.Marshal(r) //nolint:gosec // the key is of an instance that ends with the bench, and goes to the process that started it
		failed = err
		say(string(text))
	})
	return errors.Join(err, failed)
}
