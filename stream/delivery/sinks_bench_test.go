package delivery_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// poster is the plainest Deliverer over HTTP.
type poster struct {
	client *http.Client
	url    string
	batch  int
}

func newPoster(url string, batch int) *poster {
	return &poster{url: url, batch: batch, client: &http.Client{Transport: &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 1024}}}
}

func (p *poster) Batch(*storage.Destination) (int, int) { return p.batch, 1 << 20 }

func (p *poster) Deliver(ctx context.Context, d delivery.Delivery) delivery.Outcome {
	started := time.Now()
	var body bytes.Buffer
	for _, r := range d.Records {
		body.Write(r.Value)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, &body)
	if err != nil {
		return delivery.Outcome{Verdict: delivery.Retry, Err: err.Error()}
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return delivery.Outcome{Verdict: delivery.Retry, Err: err.Error()}
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	return delivery.Outcome{Status: resp.StatusCode, Latency: time.Since(started), Response: answer}
}

func benchServer(b *testing.B, latency time.Duration) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-time.After(latency)
		w.WriteHeader(http.StatusOK)
	}))
	b.Cleanup(s.Close)
	return s
}

const benchKeys, benchFlight = 10_000, 256

// benchFacts appends n facts over benchKeys contacts.
func benchFacts(b *testing.B, w *world, n int) {
	b.Helper()
	cl, err := w.Config.NewClient("bench", nil)
	require.NoError(b, err)
	defer cl.Close()
	value, err := w.Codec.Encode(fact("contact", schemas.FactContactUpdated))
	require.NoError(b, err)
	now := time.Now()
	for i := range n {
		meta := schemas.Meta{ID: uuid.Must(uuid.NewV7()).String(), Type: schemas.FactContactUpdated, OccurredAt: now}
		cl.Produce(context.Background(), stream.NewKafkaRecord(w.Config.Topic(schemas.TopicLifecycle), fmt.Sprint("contact-", i%benchKeys), value, meta, stream.Trace{}), nil)
	}
	require.NoError(b, cl.Flush(context.Background()))
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSinks delivers to a receiver in the same process. Compare
// destination=… with plain, a key-lane loop of franz-go and net/http.
func BenchmarkSinks(b *testing.B) {
	for _, latency := range []time.Duration{time.Millisecond, 20 * time.Millisecond} {
		b.Run(fmt.Sprintf("%s/plain", latency), func(b *testing.B) { benchPlain(b, latency) })
		for _, log := range []string{"off", "all"} {
			b.Run(fmt.Sprintf("%s/log=%s", latency, log), func(b *testing.B) { benchSinks(b, latency, log, 1) })
		}
	}
	b.Run("1ms/batch=100", func(b *testing.B) { benchSinks(b, time.Millisecond, "all", 100) })
}

func benchSinks(b *testing.B, latency time.Duration, deliveryLog string, batch int) {
	w := newWorld(b, streamtest.Partitions(12))
	d := w.destination("bench", "*")
	_, err := storagetest.SQL(w.db).Exec(w.Context(), `UPDATE destinations SET delivery_log = $2 WHERE id = $1`, d.ID, deliveryLog)
	require.NoError(b, err)
	benchFacts(b, w, b.N)
	counted := make(chan struct{}, 1)
	c := &counter{Deliverer: newPoster(benchServer(b, latency).URL, batch), left: b.N, done: counted}
	s, err := delivery.NewSinks(delivery.Config{Instance: "bench", Concurrency: benchFlight},
		delivery.Deps{Kafka: w.Config, DB: w.db, Appender: w.Log(), Codec: w.Codec, Deliverer: c, Destinations: w.store, Log: w.Logger})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	c.start.Wait(b)
	b.ResetTimer()
	used := cpu()
	<-counted
	b.StopTimer()
	report(b, used)
	cancel()
	require.NoError(b, <-ended)
}

func report(b *testing.B, used time.Duration) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64((cpu()-used).Microseconds())/float64(b.N), "cpu-µs/record")
}

// counter tells when the first delivery began and the last ended.
type counter struct {
	delivery.Deliverer
	start signal
	mu    sync.Mutex
	left  int
	done  chan struct{}
}

type signal struct {
	once sync.Once
	ch   chan struct{}
	mu   sync.Mutex
}

func (s *signal) channel() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) Wait(testing.TB) { <-s.channel() }
func (s *signal) Set()            { s.once.Do(func() { close(s.channel()) }) }

func (c *counter) Deliver(ctx context.Context, d delivery.Delivery) delivery.Outcome {
	c.start.Set()
	out := c.Deliverer.Deliver(ctx, d)
	if out.Verdict == delivery.Delivered {
		c.mu.Lock()
		if c.left -= len(d.Records); c.left == 0 {
			close(c.done)
		}
		c.mu.Unlock()
	}
	return out
}

// benchPlain is what one would write without Hogstream: poll, one worker for each
// slice of the keys, commit when a poll is done with.
func benchPlain(b *testing.B, latency time.Duration) {
	w := newWorld(b, streamtest.Partitions(12))
	benchFacts(b, w, b.N)
	cl, err := w.Config.NewClient("plain", nil, kgo.ConsumerGroup("plain"), kgo.ConsumeTopics(w.Config.Topic(schemas.TopicLifecycle)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	require.NoError(b, err)
	defer cl.Close()
	p := newPoster(benchServer(b, latency).URL, 1)
	lanes := make([]chan *kgo.Record, benchFlight)
	var inFlight, workers sync.WaitGroup
	for i := range lanes {
		lanes[i] = make(chan *kgo.Record, 64)
		workers.Go(func() {
			for r := range lanes[i] {
				rec, _ := w.Config.FromKafka(r)
				ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
				p.Deliver(ctx, delivery.Delivery{Records: []*stream.Record{rec}})
				cancel()
				inFlight.Done()
			}
		})
	}
	var used time.Duration
	for done := 0; done < b.N; {
		records := cl.PollRecords(context.Background(), 10_000).Records()
		if done == 0 {
			b.ResetTimer()
			used = cpu()
		}
		for _, r := range records {
			inFlight.Add(1)
			h := uint32(2166136261)
			for _, c := range r.Key {
				h = (h ^ uint32(c)) * 16777619
			}
			lanes[h%benchFlight] <- r
		}
		done += len(records)
		if done%50_000 < len(records) {
			inFlight.Wait()
			require.NoError(b, cl.CommitRecords(context.Background(), records...))
		}
	}
	inFlight.Wait()
	b.StopTimer()
	report(b, used)
	for _, l := range lanes {
		close(l)
	}
	workers.Wait()
}
