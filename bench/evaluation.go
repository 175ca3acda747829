package bench

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
)

const (
	manyBuckets        = 1000
	evaluatedContacts  = 500
	evaluatedHistory   = 40 // events of each contact beforehand
	evaluatedEvents    = 50_000
	evaluatedRounds    = 7
	evaluatedEverySecs = 60 // between the events of a contact
)

// evaluationBench measures what processor buckets makes of an event that is decoded and whose
// contact's state is loaded: with the buckets of bucketsBench, and with many more of which
// as few look at the event.
func evaluationBench(_ context.Context, cfg Config) (*section, error) {
	few, err := newEvaluation(benchBuckets)
	if err != nil {
		return nil, err
	}
	many, err := newEvaluation(manyBuckets)
	if err != nil {
		return nil, err
	}
	for i := range cfg.rounds(evaluatedRounds) {
		for _, e := range []*evaluation{few, many} {
			if err := e.round(cfg, i); err != nil {
				return nil, err
			}
		}
	}
	return &section{
		title: "Evaluation of buckets",
		about: fmt.Sprintf("%s events of %d contacts, %d before them, through the pure function of processor `buckets`: from a decoded event and a loaded state "+
			"to the state after it, facts and timers. Five buckets look at each event: three within a window, two of these five by its properties. With %s buckets the "+
			"others look at something else. The median of the single events of a round; allocations are the mean of a round, of which the median is shown.",
			thousands(float64(cfg.scaled(evaluatedEvents))), evaluatedContacts, evaluatedHistory, thousands(manyBuckets)),
		figures: []figure{
			costFigure(fmt.Sprintf("time of an event with %d buckets", benchBuckets), "µs", few.medians, 2),
			costFigure(fmt.Sprintf("allocations of an event with %d buckets", benchBuckets), "", few.allocations, 2),
			timesFigure(fmt.Sprintf("time with %s buckets, in multiples of that", thousands(manyBuckets)), ratios(many.medians, few.medians), 1.3),
			timesFigure(fmt.Sprintf("allocations with %s buckets, in multiples of those", thousands(manyBuckets)), ratios(many.allocations, few.allocations), 1.3),
			costFigure(fmt.Sprintf("time of an event with %d buckets, p99", benchBuckets), "µs", few.p99s, 0),
			costFigure(fmt.Sprintf("time of an event with %s buckets", thousands(manyBuckets)), "µs", many.medians, 0),
		},
	}, nil
}

// evaluation is buckets, and the states of contacts as events go by.
type evaluation struct {
	logic  *buckets.Logic
	states []buckets.State
	clock  time.Time

	medians, p99s, allocations []float64
}

func newEvaluation(n int) (*evaluation, error) {
	set := &definition.Set{Version: 1}
	for _, b := range defineBuckets(n) {
		set.Buckets = append(set.Buckets, definition.BucketInUse{Bucket: b, InUse: definition.InUse{Revision: 1}})
	}
	e := &evaluation{
		logic:  buckets.Compile(set, buckets.Options{Limits: predicate.DefaultLimits()}),
		states: make([]buckets.State, evaluatedContacts), clock: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC),
	}
	for id, err := range e.logic.Failing() {
		return nil, fmt.Errorf("bucket %s: %w", id, err)
	}
	for _, r := range e.records(evaluatedContacts*evaluatedHistory, -1) {
		if err := e.step(&r); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// records are n events of one contact after the other.
func (e *evaluation) records(n, round int) []derive.Record[buckets.State] {
	all := make([]derive.Record[buckets.State], n)
	for i := range all {
		e.clock = e.clock.Add(evaluatedEverySecs * time.Second / evaluatedContacts)
		event := &schemas.Event{
			ID:        uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, round, i)).String(),
			ContactID: uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, i%evaluatedContacts)).String(),
			Name:      "product.viewed", Properties: viewedProperties(i), OccurredAt: e.clock, ReceivedAt: e.clock,
		}
		all[i] = derive.Record[buckets.State]{ID: event.ID, ContactID: event.ContactID, OccurredAt: e.clock, Seq: int64(i), Event: event}
	}
	return all
}

func (e *evaluation) step(r *derive.Record[buckets.State]) error {
	at := &e.states[r.Seq%evaluatedContacts]
	result, err := e.logic.Step(*at, r, r.OccurredAt)
	if err != nil {
		return fmt.Errorf("step event %s: %w", r.ID, err)
	}
	*at = result.State
	return nil
}

// round times each event. What is prepared beforehand and noted meanwhile allocates nothing.
func (e *evaluation) round(cfg Config, round int) error {
	n := cfg.scaled(evaluatedEvents)
	records, took := e.records(n, round), make([]time.Duration, n)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range records {
		begun := time.Now()
		err := e.step(&records[i])
		took[i] = time.Since(begun)
		if err != nil {
			return err
		}
	}
	runtime.ReadMemStats(&after)
	slices.Sort(took)
	micros := func(q float64) float64 { return float64(quantile(took, q).Nanoseconds()) / 1000 }
	e.medians, e.p99s = append(e.medians, micros(0.5)), append(e.p99s, micros(0.99))
	perEvent := float64(after.Mallocs-before.Mallocs) / float64(n)
	e.allocations = append(e.allocations, math.Round(perEvent*100)/100) // the runtime makes a few of its own
	return nil
}
