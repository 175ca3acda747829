package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

const (
	limitRate      = 100 // requests a second
	limitSeconds   = 60.0
	limitProcesses = 3
)

// limitsBench looks at a rate limit from the receiver's side, with several
// processes that deliver to it.
func limitsBench(ctx context.Context, cfg Config) (_ *section, err error) {
	rig, err := openRig(ctx, cfg)
	defer func() { err = errors.Join(err, rig.close()) }()
	if err != nil {
		return nil, err
	}
	receiver, err := rig.receiver(ctx, `{"arrivals":true}`)
	if err != nil {
		return nil, err
	}
	lasts := time.Duration(limitSeconds * cfg.Scale * float64(time.Second))
	sent, arrivals, err := rig.limited(ctx, receiver, lasts)
	if err != nil {
		return nil, err
	}
	// From the middle of the start on, when all processes have their share.
	from := sent[len(sent)-1] - lasts
	settled := 0
	for _, at := range sent {
		if at > from {
			settled++
		}
	}
	used := float64(settled) / (limitRate * lasts.Seconds())
	return &section{
		title: "Rate limit",
		about: fmt.Sprintf("%d processes deliver to one webhook destination limited to %d requests a second, which has far more to send. "+
			"Counted are requests by the time at which they were sent, as the delivery log has it: most in any window of 1 s and of 10 s, start of "+
			"the processes included, and how much of the limit the last %.0f s used. They arrive later by what the machine makes of it.", limitProcesses, limitRate, lasts.Seconds()),
		figures: []figure{
			countFigure("requests in any 1 s, most", most(sent, time.Second), limitRate*105/100+1),
			countFigure("requests in any 10 s, most", most(sent, 10*time.Second), limitRate*10*101/100),
			{what: "arrivals in any 1 s, most", value: thousands(float64(most(arrivals, time.Second)))},
			ratioFigure("used of the limit", []float64{used}, 0.95),
		},
	}, nil
}

// limited has several processes deliver for some time and returns when requests
// were sent and when they arrived, since 1970; among them a while in which the
// processes started.
func (r *rig) limited(ctx context.Context, receiver *part, lasts time.Duration) (sent, arrivals []time.Duration, err error) {
	starts, err := r.ends(ctx)
	if err != nil {
		return nil, nil, err
	}
	const start = 6 * time.Second
	if err := r.fill(ctx, int(2*limitRate*(lasts+start).Seconds()), r.contactKeys(1000, -1)); err != nil {
		return nil, nil, err
	}
	dest := r.webhook("http://" + receiver.addr + "/hook")
	dest.RateLimit = limitRate
	if err := r.create(ctx, starts, dest); err != nil {
		return nil, nil, err
	}
	for i := range limitProcesses {
		p, err := r.process(ctx, fmt.Sprint("process-", i))
		if err != nil {
			return nil, nil, err
		}
		defer p.close()
	}
	select {
	case <-time.After(lasts + start):
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	var seen receiverReport
	if err := ask(ctx, http.MethodGet, receiver.addr, &seen); err != nil {
		return nil, nil, err
	}
	if len(seen.Arrivals) == 0 {
		return nil, nil, errors.New("nothing arrived")
	}
	// Attempts are logged when they have ended; those of the last moment are not missed.
	const log = `SELECT coalesce(array_agg((extract(epoch FROM attempted_at) * 1e6)::bigint ORDER BY attempted_at), '{}') FROM delivery_attempts`
	var micros []int64
	if err := r.env.sql.QueryRow(ctx, log).Scan(&micros); err != nil {
		return nil, nil, fmt.Errorf("read the delivery log: %w", err)
	}
	if len(micros) == 0 {
		return nil, nil, errors.New("nothing was logged")
	}
	for _, at := range micros {
		sent = append(sent, time.Duration(at)*time.Microsecond)
	}
	return sent, seen.Arrivals, nil
}

// most is the highest number of arrivals within any window of this length.
func most(arrivals []time.Duration, within time.Duration) int {
	n := 0
	for i, from := 0, 0; i < len(arrivals); i++ {
		for arrivals[i]-arrivals[from] >= within {
			from++
		}
		n = max(n, i-from+1)
	}
	return n
}

// deliverySettings of the delivery part.
type deliverySettings struct {
	Broker   string `json:"broker"`
	Prefix   string `json:"prefix"`
	Registry string `json:"registry"`
	Database string `json:"database"`
	Instance string `json:"instance"`
}

// process starts another process that delivers to the rig's destinations.
func (r *rig) process(ctx context.Context, instance string) (*part, error) {
	text, err := json.Marshal(deliverySettings{
		Broker: r.env.kafka.Brokers[0], Prefix: r.env.kafka.Prefix, Registry: r.env.registryURL, Database: r.env.dbURL, Instance: instance,
	})
	if err != nil {
		return nil, fmt.Errorf("start a delivery: %w", err)
	}
	return startPart(ctx, "delivery", string(text))
}

// deliveryPart delivers until it is told to stop.
func deliveryPart(args []string, stop <-chan struct{}, say func(string)) (err error) {
	var settings deliverySettings
	if err := decodeArgs(args, &settings); err != nil {
		return err
	}
	ctx := context.Background()
	env := &surroundings{kafka: stream.Config{Brokers: []string{settings.Broker}, Prefix: settings.Prefix, Instance: settings.Instance}}
	registry, err := schemas.NewRegistry(schemas.RegistryConfig{URLs: []string{settings.Registry}, Prefix: settings.Prefix})
	if err != nil {
		return err
	}
	env.codec = registry.Codec()
	if env.db, err = storage.Open(ctx, storage.Config{URL: settings.Database}); err != nil {
		return err
	}
	defer env.db.Close()
	destinations, err := openDestinations(env.db)
	if err != nil {
		return err
	}
	d, err := deliver(ctx, env, destinations, zap.NewNop(), deliveryOptions{instance: settings.Instance})
	if err != nil {
		return err
	}
	say(settings.Instance)
	<-stop
	return d.finish()
}
