package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

const (
	outboxRate    = 500 // a second, of the times of receipts
	outboxSeconds = 15
	outboxWarm    = 2 * time.Second // in which connections are made, not counted
	// outboxBody makes a call as large as the fact that it is compared with.
	outboxBody = 700
)

// outboxBench has the same deliveries with receipts and without, and how long after the answer
// a receipt is there.
func outboxBench(ctx context.Context, cfg Config) (_ *section, err error) {
	rig, err := openRig(ctx, cfg)
	defer func() { err = errors.Join(err, rig.close()) }()
	if err != nil {
		return nil, err
	}
	receiver, err := rig.receiver(ctx, `{"delayMillis":1}`)
	if err != nil {
		return nil, err
	}
	b := &outboxRun{lanesRun: lanesRun{rig: rig, n: cfg.scaled(laneRecords), inFlight: laneInFlight, url: "http://" + receiver.addr + "/hook"}, keys: rig.contactKeys(laneKeys, -1)}
	without := &side{name: "without receipts", run: func(ctx context.Context) (run, error) { return b.ours(ctx, "all") }}
	with := &side{name: "with receipts", run: b.asked}
	if err := b.alternate(ctx, cfg.rounds(5), b.keys, []*side{without, with}); err != nil {
		return nil, err
	}
	var medians, p99 []float64
	for range cfg.rounds(3) {
		times, err := b.receiptTimes(ctx, cfg.scaled(outboxRate*outboxSeconds))
		if err != nil {
			return nil, err
		}
		cfg.say("receipts after %.1f ms, p99 %.1f ms", millis(times, 0.5), millis(times, 0.99))
		medians, p99 = append(medians, millis(times, 0.5)), append(p99, millis(times, 0.99))
	}
	return &section{
		title: "Deliveries that answer",
		about: fmt.Sprintf("%s calls on topic `outbox` of %s contacts delivered to a receiver that answers after 1 ms, %d in flight, signed, delivery log on, each with its "+
			"receipt on topic `signals`; compared with as many facts of the same size, which have none. Then %d calls a second for %d s: the time from "+
			"the receiver's answer until a consumer of `signals` has the receipt, without the first %s.",
			thousands(float64(b.n)), thousands(laneKeys), laneInFlight, outboxRate, outboxSeconds, outboxWarm),
		figures: []figure{
			ratioFigure("with receipts / without", ratios(with.rates, without.rates), 0.8),
			rateFigure("with receipts", with.rates, 0),
			rateFigure("without", without.rates, 0),
			costFigure("CPU a record, with receipts", "µs", with.cpus, 0),
			costFigure("CPU a record, without", "µs", without.cpus, 0),
			costFigure("receipt after the answer, p99", "ms", p99, 50),
			costFigure("receipt after the answer, median", "ms", medians, 0),
		},
	}, nil
}

type outboxRun struct {
	lanesRun
	keys []string
}

// addressed is a destination for calls, with its cursors.
func (b *outboxRun) addressed(ctx context.Context) (*storage.Destination, error) {
	admin, err := stream.OpenAdmin(b.env.kafka, b.cfg.Logger)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	starts, err := admin.EndOffsets(ctx, schemas.TopicOutbox)
	if err != nil {
		return nil, err
	}
	d := b.webhook(b.url)
	d.EventTypes, d.Concurrency, d.DeliveryLog = []string{schemas.SubscribeOutbox}, b.inFlight, "all"
	return d, b.create(ctx, starts, d)
}

func (b *outboxRun) call(i int, d *storage.Destination) *schemas.Outbox {
	const stride = 7919 // as fill has it
	return &schemas.Outbox{
		ID: uuid.Must(uuid.NewV7()).String(), ContactID: b.keys[i*stride%len(b.keys)], OccurredAt: time.Now(), Destination: d.ID, Kind: schemas.OutboxCall,
		Body: `{"pad":"` + strings.Repeat("x", outboxBody) + `"}`, NotAfter: time.Now().Add(time.Hour), Asker: "bench",
	}
}

// asked delivers as many calls as the round has facts.
func (b *outboxRun) asked(ctx context.Context) (result run, err error) {
	d, err := b.addressed(ctx)
	if err != nil {
		return run{}, err
	}
	defer func() { err = errors.Join(err, b.remove(ctx, d)) }()
	client, err := b.env.kafka.NewClient("bench-fill", b.cfg.Logger, kgo.ProducerLinger(5*time.Millisecond),
		kgo.MaxBufferedRecords(100_000), kgo.ProducerBatchMaxBytes(900<<10))
	if err != nil {
		return run{}, err
	}
	defer client.Close()
	topic := b.env.kafka.Topic(schemas.TopicOutbox)
	var failed error
	for i := range b.n {
		o := b.call(i, d)
		value, err := b.env.codec.Encode(o)
		if err != nil {
			return run{}, fmt.Errorf("prepare calls: %w", err)
		}
		client.Produce(ctx, stream.NewKafkaRecord(topic, o.Key(), value, o.Meta(), stream.Trace{}), func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err // callbacks come one after the other
			}
		})
	}
	if err := errors.Join(client.Flush(ctx), failed); err != nil {
		return run{}, err
	}
	return b.deliverAll(ctx, b.n, nil)
}

// deliverAll delivers what is addressed to destinations that are there.
func (b *outboxRun) deliverAll(ctx context.Context, n int, watch func(delivery.Deliverer) delivery.Deliverer) (run, error) {
	m := b.newMeter(n)
	d, err := deliver(ctx, b.env, b.destinations, b.cfg.Logger, deliveryOptions{watch: func(d delivery.Deliverer) delivery.Deliverer {
		if watch != nil {
			d = watch(d)
		}
		return counted{d, m}
	}})
	if err != nil {
		return run{}, err
	}
	result, err := m.wait(ctx, d.ended)
	if err != nil {
		d.stop()
		d.close()
		return result, err
	}
	return result, d.finish()
}

// answers notes when each record was answered.
type answers struct {
	delivery.Deliverer
	mu *sync.Mutex
	at map[string]time.Time
}

// Deliver implements delivery.Deliverer.
func (a answers) Deliver(ctx context.Context, d delivery.Delivery) delivery.Outcome {
	out := a.Deliverer.Deliver(ctx, d)
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at[d.Records[0].ID] = now
	return out
}

// receiptTimes asks n times at the rate and returns how long after its answer each receipt was
// there, ascending.
func (b *outboxRun) receiptTimes(ctx context.Context, n int) (times []time.Duration, err error) {
	d, err := b.addressed(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.remove(ctx, d)) }()
	log, err := stream.OpenLog(ctx, b.env.kafka, b.env.codec, b.cfg.Logger, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close(context.WithoutCancel(ctx))) }()
	bounded, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	told, err := b.watchReceipts(bounded, d, n)
	if err != nil {
		return nil, err
	}
	a := answers{mu: &sync.Mutex{}, at: map[string]time.Time{}}
	asking := make(chan error, 1)
	go func() { asking <- b.askSteadily(bounded, log, d, n) }()
	_, err = b.deliverAll(bounded, n, func(inner delivery.Deliverer) delivery.Deliverer {
		a.Deliverer = inner
		return a
	})
	if err = errors.Join(err, <-asking); err != nil {
		return nil, err
	}
	select {
	case got := <-told:
		var first time.Time
		for _, at := range a.at {
			if first.IsZero() || at.Before(first) {
				first = at
			}
		}
		for id, at := range got {
			if a.at[id].Sub(first) > outboxWarm {
				times = append(times, at.Sub(a.at[id]))
			}
		}
	case <-bounded.Done():
		return nil, errors.New("not every call had its receipt within two minutes")
	}
	slices.Sort(times)
	return times, nil
}

func (b *outboxRun) askSteadily(ctx context.Context, log *stream.Log, d *storage.Destination, n int) error {
	const atOnce = 5 // an append waits for the broker
	tick := time.NewTicker(atOnce * time.Second / outboxRate)
	defer tick.Stop()
	for i := 0; i < n; i += atOnce {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		var calls []schemas.Message
		for j := i; j < min(i+atOnce, n); j++ {
			calls = append(calls, b.call(j, d))
		}
		if err := log.Append(ctx, calls...); err != nil {
			return err
		}
	}
	return nil
}

// watchReceipts notes when the receipts of n calls to a destination are there.
func (b *outboxRun) watchReceipts(ctx context.Context, d *storage.Destination, n int) (<-chan map[string]time.Time, error) {
	admin, err := stream.OpenAdmin(b.env.kafka, b.cfg.Logger)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	ends, err := admin.EndOffsets(ctx, schemas.TopicSignals)
	if err != nil {
		return nil, err
	}
	from := map[int32]kgo.Offset{}
	for _, e := range ends {
		from[e.Partition] = kgo.NewOffset().At(e.Offset)
	}
	client, err := b.env.kafka.NewClient("bench-receipts", b.cfg.Logger, kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{b.env.kafka.Topic(schemas.TopicSignals): from}))
	if err != nil {
		return nil, err
	}
	done := make(chan map[string]time.Time, 1)
	go func() {
		defer client.Close()
		at := map[string]time.Time{}
		for len(at) < n && ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			now := time.Now()
			fetches.EachRecord(func(r *kgo.Record) {
				s, err := b.env.codec.DecodeSignal(r.Value)
				if err != nil || s.Receipt == nil || s.Receipt.Destination != d.ID {
					return
				}
				if _, again := at[s.Receipt.OutboxID]; !again {
					at[s.Receipt.OutboxID] = now
				}
			})
		}
		done <- at
	}()
	return done, nil
}
