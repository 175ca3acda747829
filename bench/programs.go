package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/hogstream/hogstream/storage"
)

// A filter and a transform such as the documentation shows.
const (
	programFilter    = `.type == "contact.updated" and .data.email != null`
	programTransform = `{id, type, timestamp, data: {id: .data.id, who: .data.email, changed: .data.changed, properties: .data.properties}}`
)

// programsBench compares a destination that has a filter and a transform with the same
// without.
func programsBench(ctx context.Context, cfg Config) (_ *section, err error) {
	rig, err := openRig(ctx, cfg)
	defer func() { err = errors.Join(err, rig.close()) }()
	if err != nil {
		return nil, err
	}
	receiver, err := rig.receiver(ctx, `{"delayMillis":1}`)
	if err != nil {
		return nil, err
	}
	l := &lanesRun{rig: rig, n: cfg.scaled(laneRecords)}
	kind := func(name string, shaped bool) *side {
		s := &side{name: name}
		if shaped {
			s.name += " with filter and transform"
		}
		s.run = func(ctx context.Context) (run, error) {
			dest := l.programmed(name, receiver.addr)
			if shaped {
				dest.Filter, dest.Transform = programFilter, programTransform
			}
			return l.deliverAll(ctx, l.n, l.starts, dest)
		}
		return s
	}
	hook, shapedHook := kind("webhook", false), kind("webhook", true)
	batches, shapedBatches := kind("segment", false), kind("segment", true)
	sides := []*side{hook, shapedHook, batches, shapedBatches}
	if err := l.alternate(ctx, cfg.rounds(5), rig.contactKeys(laneKeys, -1), sides); err != nil {
		return nil, err
	}
	s := &section{
		title: "Filters and transforms",
		about: fmt.Sprintf("%s `contact.updated` facts of %s contacts, delivery log on, to a receiver that answers after 1 ms: a destination with a filter "+
			"and a transform in jq, which run in a worker process, against the same without. Webhooks are signed, %d in flight. CPU is that of this process, "+
			"without the worker's.",
			thousands(float64(l.n)), thousands(laneKeys), laneInFlight),
		figures: []figure{
			ratioFigure(shapedHook.name+" / without", ratios(shapedHook.rates, hook.rates), 0.5),
			ratioFigure(shapedBatches.name+" / without", ratios(shapedBatches.rates, batches.rates), 0.5),
		},
	}
	for _, side := range sides {
		s.figures = append(s.figures, rateFigure(side.name, side.rates, 0), costFigure("CPU a record, "+side.name, "µs", side.cpus, 0))
	}
	return s, nil
}

// programmed is a destination of a kind at the receiver, with the delivery log on.
func (l *lanesRun) programmed(kind, addr string) *storage.Destination {
	dest := l.batching(kind, "http://"+addr)
	if kind == "webhook" {
		dest = l.webhook("http://" + addr + "/hook")
		dest.Concurrency = laneInFlight
	}
	dest.DeliveryLog = "all"
	return dest
}
