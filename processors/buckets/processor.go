package buckets

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// New makes the processor. Its figures are registered on reg unless that is nil.
func New(opts Options, encoder *schemas.Codec, reg prometheus.Registerer) (*derive.Frame[State], error) {
	p, err := newProcessor(opts, reg)
	if err != nil {
		return nil, err
	}
	return derive.New(p, encoder, reg)
}

func newProcessor(opts Options, reg prometheus.Registerer) (*processor, error) {
	p := &processor{opts: opts, moves: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "hogstream", Subsystem: "buckets", Name: "transitions_total",
		Help: "Contacts that joined, left and dwelt in buckets, by bucket (those beyond the first 200 are one, named other), by kind (entered, left, dwell), and by whether it was told. A batch that is run again counts again.",
	}, []string{"bucket", "kind", "told"}), failing: prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "hogstream", Subsystem: "buckets", Name: "failing",
		Help: "Enabled buckets that this process cannot evaluate, such as windows beyond its EVENTS_RETENTION; their members stay as they are.",
	})}
	if reg != nil {
		if err := errors.Join(reg.Register(p.moves), reg.Register(p.failing)); err != nil {
			return nil, fmt.Errorf("processor %s: register figures: %w", Name, err)
		}
	}
	return p, nil
}

// processor implements derive.Processor. It is safe for concurrent use.
type processor struct {
	codec
	opts Options

	mu    sync.Mutex
	logic *Logic // of the version that was in use last

	moves   *prometheus.CounterVec
	failing prometheus.Gauge
	labels  derive.Labels // buckets that have figures of their own
}

// count adds what happened to a contact to the figures.
func (p *processor) count(s *State) {
	for i := range s.changes {
		t := &s.changes[i]
		switch {
		case t.Entered:
			p.move(t.BucketID, "entered", t.Told)
		case !t.Kept:
			p.move(t.BucketID, "left", t.Told)
		}
	}
	for _, bucket := range s.dwelt {
		p.move(bucket, "dwell", true)
	}
}

func (p *processor) move(bucket, kind string, told bool) {
	p.moves.WithLabelValues(p.labels.Of(bucket), kind, strconv.FormatBool(told)).Inc()
}

// Name implements derive.Processor.
func (*processor) Name() string { return Name }

// At implements derive.Processor. Definitions are read and compiled when their version is
// another than before.
func (p *processor) At(ctx context.Context, tx *storage.Tx) (derive.Logic[State], error) {
	version, err := tx.DefinitionVersion(ctx)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.logic != nil && p.logic.version == version {
		return p.logic, nil
	}
	set, err := definition.Current(ctx, tx)
	if err != nil {
		return nil, err
	}
	p.logic = Compile(set, p.opts)
	p.failing.Set(float64(len(p.logic.Failing())))
	return p.logic, nil
}

// Save implements derive.Processor: it writes members where they are looked up.
func (p *processor) Save(ctx context.Context, tx *storage.Tx, changed []derive.Change[State]) error {
	var transitions []storage.BucketTransition
	var forget []string
	for i := range changed {
		c := &changed[i]
		if c.Forget {
			forget = append(forget, c.ContactID)
			continue
		}
		p.count(&c.State)
		for _, t := range c.State.Transitions() {
			transitions = append(transitions, storage.BucketTransition{
				ContactID: t.ContactID, Partition: c.Partition, BucketID: t.BucketID, Epoch: t.Epoch, Entered: t.Entered, Kept: t.Kept,
				At: t.At, Source: t.Source, Reason: t.Reason, Until: t.Until, MaxDwellAt: t.MaxDwellAt, Why: t.Why,
			})
		}
	}
	return tx.SaveBucketTransitions(ctx, transitions, forget)
}
