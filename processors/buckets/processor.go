package buckets

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// New makes the processor. Its figures are registered on reg unless that is nil.
func New(opts Options, encoder *schemas.Codec, reg prometheus.Registerer) (*derive.Frame[State], error) {
	return derive.New(&processor{opts: opts}, encoder, reg)
}

// processor implements derive.Processor. It is safe for concurrent use.
type processor struct {
	codec
	opts Options

	mu    sync.Mutex
	logic *Logic // of the version that was in use last
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
	return p.logic, nil
}

// Save implements derive.Processor: it writes members where they are looked up.
func (*processor) Save(ctx context.Context, tx *storage.Tx, changed []derive.Change[State]) error {
	var transitions []storage.BucketTransition
	var forget []string
	for i := range changed {
		c := &changed[i]
		if c.Forget {
			forget = append(forget, c.ContactID)
			continue
		}
		for _, t := range c.State.Transitions() {
			transitions = append(transitions, storage.BucketTransition{
				ContactID: t.ContactID, Partition: c.Partition, BucketID: t.BucketID, Epoch: t.Epoch, Entered: t.Entered, Kept: t.Kept,
				At: t.At, Source: t.Source, Reason: t.Reason, Until: t.Until, MaxDwellAt: t.MaxDwellAt,
			})
		}
	}
	return tx.SaveBucketTransitions(ctx, transitions, forget)
}
