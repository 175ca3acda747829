package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

const (
	fanoutDestinations = 200
	fanoutBursts       = 16 // two a second
	fanoutBurst        = 50 // records
	fanoutProperty     = 4 << 10
)

// fanoutBench compares many destinations at the tail of the log with one.
func fanoutBench(ctx context.Context, cfg Config) (_ *section, err error) {
	rig, err := openRig(ctx, cfg)
	defer func() { err = errors.Join(err, rig.close()) }()
	if err != nil {
		return nil, err
	}
	receiver, err := rig.receiver(ctx, `{}`)
	if err != nil {
		return nil, err
	}
	b := &fanout{rig: rig, host: "http://" + receiver.addr, keys: rig.contactKeys(500, -1), bursts: cfg.scaled(fanoutBursts)}
	many := cfg.scaled(fanoutDestinations)
	var results []fanoutResult
	for _, f := range []struct {
		destinations int
		types        string
	}{{1, "contact.*"}, {many, "contact.*"}, {many, "email.*"}} {
		r, err := b.measure(ctx, f.destinations, f.types)
		if err != nil {
			return nil, err
		}
		cfg.say("  %d for %s: %.1f MiB idle, %.1f MiB sent by the broker, %.2f decodings a record", f.destinations, f.types, r.idle, float64(r.sent)/(1<<20), r.decoded)
		results = append(results, r)
	}
	one, all, none := results[0], results[1], results[2]
	return &section{
		title: "Many destinations",
		about: fmt.Sprintf("%d destinations of kind segment in one process, all of which want every record, against one: at the tail of the log, %d records of %s KiB, "+
			"in bursts of %d every 0.5 s. Memory is the resident one of the process after a collection, before the load; what the broker sends is all that its process wrote to its connections: "+
			"records, acknowledgements, group offsets that mirror positions.",
			many, b.bursts*fanoutBurst, thousands(fanoutProperty>>10), fanoutBurst),
		figures: []figure{
			boundFigure("memory of one more destination, idle", "MiB", (all.idle-one.idle)/float64(max(many-1, 1)), 1),
			timesFigure("bytes that the broker sends, in multiples of those for one", []float64{float64(all.sent) / float64(one.sent)}, 1.2),
			boundFigure("decodings of a record", "", all.decoded, 1.05),
			boundFigure("decodings of a record that no destination wants", "", none.decoded, 0),
		},
	}, nil
}

type fanout struct {
	*rig
	host   string
	keys   []string
	bursts int
}

type fanoutResult struct {
	idle    float64 // MiB
	sent    int64   // bytes
	decoded float64 // times a record
}

// measure has some destinations at the tail get records.
func (b *fanout) measure(ctx context.Context, n int, types string) (r fanoutResult, err error) {
	starts, err := b.ends(ctx)
	if err != nil {
		return r, err
	}
	dests := make([]*storage.Destination, n)
	for i := range dests {
		dests[i] = b.batching("segment", b.host)
		dests[i].EventTypes, dests[i].DeliveryLog = []string{types}, "failures"
	}
	if err := b.create(ctx, starts, dests...); err != nil {
		return r, err
	}
	wanted := n
	if types != "contact.*" {
		wanted = 0
	}
	decodings := &decodings{Decoder: b.env.codec}
	warm, m := b.newMeter(wanted*fanoutBurst), b.newMeter(wanted*fanoutBurst*(1+b.bursts))
	d, err := deliver(ctx, b.env, b.destinations, b.cfg.Logger, deliveryOptions{decoder: decodings, watch: func(d delivery.Deliverer) delivery.Deliverer {
		return counted{counted{d, m}, warm}
	}})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.finish(), b.remove(ctx, dests...)) }()
	if err := b.burst(ctx); err != nil { // so that all have been at work once
		return r, err
	}
	if err := b.read(ctx, d, warm, dests[n-1]); err != nil {
		return r, err
	}
	debug.FreeOSMemory()
	r.idle = residentMiB(os.Getpid())
	sent, decoded := writtenBytes(b.env.brokerPID), decodings.n.Load()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for range b.bursts {
		if err := b.burst(ctx); err != nil {
			return r, err
		}
		<-tick.C
	}
	if err := b.read(ctx, d, m, dests[n-1]); err != nil {
		return r, err
	}
	r.sent = writtenBytes(b.env.brokerPID) - sent
	r.decoded = float64(decodings.n.Load()-decoded) / float64(b.bursts*fanoutBurst)
	return r, nil
}

// read waits until all is delivered or, when nothing is wanted, until the cursors
// of a destination have passed everything.
func (b *fanout) read(ctx context.Context, d *deliveries, m *meter, dest *storage.Destination) error {
	if m.want > 0 {
		_, err := m.wait(ctx, d.ended)
		return err
	}
	ends, err := b.ends(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		cursors, err := b.env.db.DestinationCursors(ctx, dest.ID)
		if err != nil {
			return err
		}
		left := int64(0)
		for _, e := range ends {
			left += e.Offset
		}
		for _, c := range cursors {
			left -= c.Position
		}
		if left <= 0 {
			return nil
		}
		select {
		case <-tick.C:
		case err := <-d.ended:
			return fmt.Errorf("it ended: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// burst appends facts that are no smaller when compressed.
func (b *fanout) burst(ctx context.Context) error {
	facts := make([]schemas.Message, fanoutBurst)
	for i := range facts {
		f := factAbout(i, b.keys[rand.IntN(len(b.keys))])
		var noise strings.Builder
		for noise.Len() < fanoutProperty {
			_, _ = fmt.Fprintf(&noise, "%c", 'a'+rand.IntN(64)%26)
		}
		f.Contact.Properties = `{"noise":"` + noise.String() + `"}`
		facts[i] = f
	}
	log, err := stream.OpenLog(ctx, b.env.kafka, b.env.codec, b.cfg.Logger, nil)
	if err != nil {
		return err
	}
	return errors.Join(log.Append(ctx, facts...), log.Close(ctx))
}

// decodings counts them.
type decodings struct {
	sinks.Decoder
	n atomic.Int64
}

// DecodeSent implements sinks.Decoder.
func (d *decodings) DecodeSent(topic schemas.Topic, value []byte) (schemas.Message, error) {
	d.n.Add(1)
	return d.Decoder.DecodeSent(topic, value)
}

// writtenBytes is what a process has written, to its connections too.
func writtenBytes(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0
	}
	var n int64
	_, _ = fmt.Sscanf(after(string(text), "wchar: "), "%d", &n)
	return n
}
