package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/storage"
)

// Filters and a transform such as the documentation shows; all take every record.
const (
	programFilter    = `.type == "contact.updated" and .data.email != null`
	programCondition = `{"event":"contact.updated","where":{"plan":"pro","visits":{"gte":0}}}`
	programBucket    = `{"event":"contact.updated","where":{"plan":"pro"},"bucket":"bench"}`
	programTransform = `{id, type, timestamp, data: {id: .data.id, who: .data.email, changed: .data.changed, properties: .data.properties}}`
)

// programsBench compares a destination that has a filter, in jq with a transform or as a
// condition, with the same without.
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
	with := func(kind, what string, settings storage.Destination) *side {
		return &side{name: kind + what, run: func(ctx context.Context) (run, error) {
			dest := l.programmed(kind, receiver.addr)
			dest.Filter, dest.Transform, dest.Selector = settings.Filter, settings.Transform, settings.Selector
			return l.deliverAll(ctx, l.n, l.starts, dest)
		}}
	}
	jq := storage.Destination{Filter: programFilter, Transform: programTransform}
	condition, bucket := storage.Destination{Selector: programCondition}, storage.Destination{Selector: programBucket}
	hook, shapedHook := with("webhook", "", storage.Destination{}), with("webhook", " with filter and transform", jq)
	chosenHook, memberHook := with("webhook", " with condition", condition), with("webhook", " with condition and bucket", bucket)
	batches, shapedBatches := with("segment", "", storage.Destination{}), with("segment", " with filter and transform", jq)
	chosenBatches, memberBatches := with("segment", " with condition", condition), with("segment", " with condition and bucket", bucket)
	sides := []*side{hook, shapedHook, chosenHook, memberHook, batches, shapedBatches, chosenBatches, memberBatches}
	keys := rig.contactKeys(laneKeys, -1)
	if err := rig.join(ctx, "bench", keys); err != nil {
		return nil, err
	}
	if err := l.alternate(ctx, cfg.rounds(5), keys, sides); err != nil {
		return nil, err
	}
	s := &section{
		title: "Filters and transforms",
		about: fmt.Sprintf("%s `contact.updated` facts of %s contacts, delivery log on, to a receiver that answers after 1 ms: a destination with a filter "+
			"and a transform in jq, which run in a worker process, or with a condition, which looks members of its bucket up in Postgres, against the same "+
			"without. Webhooks are signed, %d in flight. CPU is that of this process, without the worker's.",
			thousands(float64(l.n)), thousands(laneKeys), laneInFlight),
		figures: []figure{
			ratioFigure(shapedHook.name+" / without", ratios(shapedHook.rates, hook.rates), 0.5),
			ratioFigure(chosenHook.name+" / without", ratios(chosenHook.rates, hook.rates), 0.9),
			ratioFigure(memberHook.name+" / without", ratios(memberHook.rates, hook.rates), 0.9),
			ratioFigure(shapedBatches.name+" / without", ratios(shapedBatches.rates, batches.rates), 0.5),
			ratioFigure(chosenBatches.name+" / without", ratios(chosenBatches.rates, batches.rates), 0.9),
			ratioFigure(memberBatches.name+" / without", ratios(memberBatches.rates, batches.rates), 0),
		},
	}
	for _, side := range sides {
		s.figures = append(s.figures, rateFigure(side.name, side.rates, 0), costFigure("CPU a record, "+side.name, "µs", side.cpus, 0))
	}
	return s, nil
}

// join makes contacts members of a bucket.
func (r *rig) join(ctx context.Context, bucket string, contacts []string) error {
	joins := make([]storage.BucketTransition, len(contacts))
	for i, contact := range contacts {
		joins[i] = storage.BucketTransition{ContactID: contact, BucketID: bucket, Epoch: 1, Entered: true, At: time.Now(), Source: "event"}
	}
	return r.env.db.InBatch(ctx, func(tx *storage.Tx) error { return tx.SaveBucketTransitions(ctx, joins, nil) })
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
