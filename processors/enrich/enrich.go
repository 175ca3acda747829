// Package enrich asks destinations what they know of contacts, as enrichments define, and
// patches the contacts with the answers.
//
// What it promises, beside what the frame promises of every derived processor:
//
//   - A trigger leads to one patch at most: to one exactly when the answer comes in time and
//     can be mapped, and nothing that it depends on changed meanwhile.
//   - Of a contact and an enrichment one call is under way at most. An answer to what is not
//     true any more is not used; what is true then is asked instead.
//   - What is refused, given up, too late or cannot be mapped is asked again by the rule of the
//     enrichment, and rests then. The state of the contact says why.
//   - Contacts that were there before an enrichment are asked for over a time, or not at all.
//   - A patch is an input that names the contact and counts its hops, so what leads to itself
//     ends. Its id is derived: it counts once however often it comes.
//
// The logic is pure but for the mapping of answers, which a worker process runs within bounds.
package enrich

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Name is the processor's name, which never changes.
const Name = "enrich"

// New makes the processor. Its figures are registered on reg unless that is nil.
func New(opts Options, encoder *schemas.Codec, reg prometheus.Registerer) (*derive.Frame[State], error) {
	p := &processor{opts: opts, asked: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "hogstream", Subsystem: "enrich", Name: "asked_total",
		Help: "Calls that enrichments asked for, by enrichment (those beyond the first 200 are one, named other) and by why: condition, entered, age, retry, backfill, again. A batch that is run again counts again.",
	}, []string{"enrichment", "why"}), ended: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "hogstream", Subsystem: "enrich", Name: "outcomes_total",
		Help: "What came of them, by enrichment and outcome: patched, empty, unused, cancelled, and the failures refused, given_up, expired, lost, mapping, no_destination. A batch that is run again counts again.",
	}, []string{"enrichment", "outcome"}), failing: prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "hogstream", Subsystem: "enrich", Name: "failing",
		Help: "Enabled enrichments that this process cannot evaluate, such as windows beyond its EVENTS_RETENTION; they ask for nothing.",
	})}
	if reg != nil {
		if err := errors.Join(reg.Register(p.asked), reg.Register(p.ended), reg.Register(p.failing)); err != nil {
			return nil, fmt.Errorf("processor %s: register figures: %w", Name, err)
		}
	}
	return derive.New(p, encoder, reg)
}

// processor implements derive.Processor. It is safe for concurrent use.
type processor struct {
	codec
	opts Options

	mu    sync.Mutex
	logic *Logic // of the version that was in use last, without targets

	asked, ended *prometheus.CounterVec
	failing      prometheus.Gauge
	labels       derive.Labels
}

// Name implements derive.Processor.
func (*processor) Name() string { return Name }

// At implements derive.Processor. Definitions are read and compiled when their version is
// another than before; which destinations there are is looked up each time.
func (p *processor) At(ctx context.Context, tx *storage.Tx) (derive.Logic[State], error) {
	version, err := tx.DefinitionVersion(ctx)
	if err != nil {
		return nil, err
	}
	l, err := p.compiled(ctx, tx, version)
	if err != nil || len(l.usable) == 0 {
		return l, err
	}
	targets, err := tx.CallTargets(ctx, l.destinations)
	if err != nil {
		return nil, err
	}
	return l.asking(targets), nil
}

func (p *processor) compiled(ctx context.Context, tx *storage.Tx, version int64) (*Logic, error) {
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
	p.failing.Set(float64(len(p.logic.failing)))
	return p.logic, nil
}

// Save implements derive.Processor: there are no rows beside the states, only figures.
func (p *processor) Save(_ context.Context, _ *storage.Tx, changed []derive.Change[State]) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range changed {
		for _, n := range changed[i].State.notes {
			if n.why != whyNone {
				p.asked.WithLabelValues(p.labels.Of(n.enrichment), n.why.String()).Inc()
			} else {
				p.ended.WithLabelValues(p.labels.Of(n.enrichment), n.outcome).Inc()
			}
		}
	}
	return nil
}
