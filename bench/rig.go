package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/signing"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

// A rig is what benches of delivery work with: surroundings, destinations, and
// facts on topic lifecycle.
type rig struct {
	cfg          Config
	env          *surroundings
	secret       string
	destinations *storage.Destinations
	receiverPID  int // of the receiver that was started last
}

// openRig starts the surroundings. close must be called, also after an error.
func openRig(ctx context.Context, cfg Config) (*rig, error) {
	env, err := surround(ctx, cfg, true)
	r := &rig{cfg: cfg, env: env, secret: signing.NewSecret()}
	if err != nil {
		return r, err
	}
	r.destinations, err = openDestinations(env.db)
	return r, err
}

func (r *rig) close() error { return r.env.close() }

// openDestinations seals with a key that hides nothing: the secrets are the bench's own.
func openDestinations(db *storage.DB) (*storage.Destinations, error) {
	box, err := storage.NewBox(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	return storage.NewDestinations(db, box), nil
}

// receiver starts one, which ends with the rig.
func (r *rig) receiver(ctx context.Context, settings string) (*part, error) {
	p, err := startPart(ctx, "receiver", settings)
	if err == nil {
		r.env.onClose(func() error { p.close(); return nil })
		r.receiverPID = p.cmd.Process.Pid
	}
	return p, err
}

// webhook is a destination of that kind for facts about contacts.
func (r *rig) webhook(url string) *storage.Destination {
	d := &storage.Destination{
		ID: uuid.NewString(), Kind: "webhook", URL: url, EventTypes: []string{"contact.*"}, Secret: r.secret,
		Status: storage.DestinationActive, Revision: 1,
	}
	d.Name = "bench-" + d.ID
	return d
}

// batching is a destination of a kind that sends batches.
func (r *rig) batching(kind, host string) *storage.Destination {
	d := r.webhook("")
	d.Kind, d.Secret = kind, ""
	d.Config = []byte(`{"host":"` + host + `","writeKey":"bench"}`)
	if kind == "posthog" {
		d.Config = []byte(`{"host":"` + host + `","apiKey":"phc_bench"}`)
	}
	return d
}

// create makes destinations with cursors at starts.
func (r *rig) create(ctx context.Context, starts []storage.CursorStart, dests ...*storage.Destination) error {
	return r.env.db.InTx(ctx, func(tx *storage.Tx) error {
		for _, d := range dests {
			if err := r.destinations.Insert(ctx, tx, d); err != nil {
				return fmt.Errorf("make a destination: %w", err)
			}
			if err := tx.CreateCursors(ctx, d.ID, starts); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *rig) remove(ctx context.Context, dests ...*storage.Destination) error {
	for _, d := range dests {
		if _, err := r.env.sql.Exec(ctx, `DELETE FROM destinations WHERE id = $1`, d.ID); err != nil {
			return fmt.Errorf("remove the destination: %w", err)
		}
	}
	return nil
}

// ends are the ends of topic lifecycle.
func (r *rig) ends(ctx context.Context) ([]storage.CursorStart, error) {
	admin, err := stream.OpenAdmin(r.env.kafka, r.cfg.Logger)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	return admin.EndOffsets(ctx, schemas.TopicLifecycle)
}

// deliveries is one process's delivery, as shipped.
type deliveries struct {
	stop  context.CancelFunc
	ended chan error
	close func()
}

// deliveryOptions say what a delivery is made of beside what is shipped.
type deliveryOptions struct {
	instance string
	// watch wraps the deliverer; nil leaves it.
	watch func(delivery.Deliverer) delivery.Deliverer
	// decoder replaces the codec; nil leaves it.
	decoder    sinks.Decoder
	registerer prometheus.Registerer
}

// deliver starts a delivery; finish ends it.
func deliver(ctx context.Context, env *surroundings, destinations *storage.Destinations, log *zap.Logger, o deliveryOptions) (*deliveries, error) {
	if o.decoder == nil {
		o.decoder = env.codec
	}
	if o.instance == "" {
		o.instance = "bench"
	}
	deliverer, err := sinks.New(sinks.Config{AllowLoopback: true, AllowHTTP: true, Memberships: env.db.BucketsOf}, o.decoder, log, nil)
	if err != nil {
		return nil, err
	}
	appender, err := stream.OpenLog(ctx, env.kafka, env.codec, log, nil)
	if err != nil {
		deliverer.Close()
		return nil, err
	}
	d := &deliveries{ended: make(chan error, 1), close: func() {
		_ = appender.Close(context.WithoutCancel(ctx))
		deliverer.Close()
	}}
	watched := delivery.Deliverer(deliverer)
	if o.watch != nil {
		watched = o.watch(deliverer)
	}
	s, err := delivery.NewSinks(delivery.Config{Instance: o.instance, InstanceID: o.instance}, delivery.Deps{
		Kafka: env.kafka, DB: env.db, Appender: appender, Codec: env.codec, Deliverer: watched, Log: log, Destinations: destinations, Registerer: o.registerer,
	})
	if err != nil {
		d.close()
		return nil, err
	}
	work, stop := context.WithCancel(ctx)
	d.stop = stop
	go func() { d.ended <- s.Run(work) }()
	return d, nil
}

// finish ends the delivery in good order.
func (d *deliveries) finish() error {
	d.stop()
	err := <-d.ended
	d.close()
	return err
}

// deliverAll delivers n records that lie on the log to new destinations and
// removes those.
func (r *rig) deliverAll(ctx context.Context, n int, starts []storage.CursorStart, dests ...*storage.Destination) (run, error) {
	if err := r.create(ctx, starts, dests...); err != nil {
		return run{}, err
	}
	m := r.newMeter(n * len(dests))
	d, err := deliver(ctx, r.env, r.destinations, r.cfg.Logger, deliveryOptions{
		watch: func(d delivery.Deliverer) delivery.Deliverer { return counted{d, m} },
	})
	if err != nil {
		return run{}, err
	}
	result, err := m.wait(ctx, d.ended)
	if err != nil {
		d.stop()
		d.close()
		return result, err
	}
	return result, errors.Join(d.finish(), r.remove(ctx, dests...))
}

// fill appends n facts as fast as the broker takes them: they are prepared once
// for all keys, and differ in their headers only.
func (r *rig) fill(ctx context.Context, n int, keys []string) error {
	client, err := r.env.kafka.NewClient("bench-fill", r.cfg.Logger, kgo.ProducerLinger(5*time.Millisecond),
		kgo.MaxBufferedRecords(100_000), kgo.ProducerBatchMaxBytes(900<<10))
	if err != nil {
		return err
	}
	defer client.Close()
	values := make([][]byte, len(keys))
	for i, key := range keys {
		if values[i], err = r.env.codec.Encode(factAbout(i, key)); err != nil {
			return fmt.Errorf("prepare facts: %w", err)
		}
	}
	topic, now := r.env.kafka.Topic(schemas.TopicLifecycle), time.Now()
	const stride = 7919 // a prime, so that no key comes again soon
	var failed error
	for i := range n {
		k := i * stride % len(keys)
		meta := schemas.Meta{ID: uuid.Must(uuid.NewV7()).String(), Type: schemas.FactContactUpdated, OccurredAt: now}
		client.Produce(ctx, stream.NewKafkaRecord(topic, keys[k], values[k], meta, stream.Trace{}), func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err // callbacks come one after the other
			}
		})
	}
	return errors.Join(client.Flush(ctx), failed)
}

// contactKeys are n contact ids; with partition at 0 or more, of that partition.
func (r *rig) contactKeys(n int, partition int32) []string {
	keys := make([]string, 0, n)
	for i := 0; len(keys) < n; i++ {
		id := uuid.NewSHA1(uuid.NameSpaceOID, []byte("user-"+strconv.Itoa(i))).String()
		if partition < 0 || stream.PartitionOf([]byte(id), stream.DefaultPartitions) == partition {
			keys = append(keys, id)
		}
	}
	return keys
}

// factAbout is a fact about a contact.
func factAbout(i int, contact string) *schemas.Fact {
	now := time.Now()
	user, email := "user-"+strconv.Itoa(i), "user"+strconv.Itoa(i)+"@example.com"
	return &schemas.Fact{
		ID: uuid.Must(uuid.NewV7()).String(), Type: schemas.FactContactUpdated,
		ContactID: contact, UserID: &user, Email: &email, OccurredAt: now, CauseID: uuid.NewString(),
		Contact: &schemas.ContactFact{
			Version: int64(i), Changed: []string{"visits"}, FirstSeenAt: now, LastSeenAt: now, CreatedAt: now, UpdatedAt: now,
			Properties: `{"visits":` + strconv.Itoa(i) + `,"firstName":"Ada","lastName":"Lovelace","country":"GB","plan":"pro","company":"Analytical Engines","locale":"en-GB","signedUpFrom":"newsletter","tags":["early","beta"]}`,
		},
	}
}
