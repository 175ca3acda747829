package journeys

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/definition"
	machine "github.com/hogstream/hogstream/journeys"
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
	p := &processor{opts: opts, runs: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "hogstream", Subsystem: "journeys", Name: "runs_total",
		Help: "What happened to runs, by journey (those beyond the first 200 are one, named other) and kind: started, completed, exited, failed, retried, converted; skipped is a trigger that did not enrol. A batch that is run again counts again.",
	}, []string{"journey", "kind"}), steps: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "hogstream", Subsystem: "journeys", Name: "steps_total",
		Help: "Steps of runs that ended, by journey. A batch that is run again counts again.",
	}, []string{"journey"}), failing: prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "hogstream", Subsystem: "journeys", Name: "failing",
		Help: "Journeys, and versions of them that runs belong to, that this process cannot run, such as windows beyond its EVENTS_RETENTION or what a later release wrote; their runs stay where they are.",
	}), reasons: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "hogstream", Subsystem: "journeys", Name: "reasons_total",
		Help: "Runs that exited and triggers that did not enrol (kind exited, skipped), by journey and reason; of these pairs those beyond the first 200 have the reason other. A batch that is run again counts again.",
	}, []string{"journey", "kind", "reason"}), missing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "hogstream", Subsystem: "journeys", Name: "version_missing",
		Help: "Whether this process cannot run a version of a journey that is in use or that runs may belong to: 1, or 0. At most 200 versions.",
	}, []string{"journey", "version"})}
	if reg != nil {
		if err := errors.Join(reg.Register(p.runs), reg.Register(p.steps), reg.Register(p.failing), reg.Register(p.reasons), reg.Register(p.missing)); err != nil {
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
	logic *Logic          // of the version that was in use last
	noted bool            // that its versions are kept is committed
	away  map[string]bool // versions that it lacks, as id@version
	since time.Time       // when the last of them was found to be

	runs    *prometheus.CounterVec
	steps   *prometheus.CounterVec
	failing prometheus.Gauge
	reasons *prometheus.CounterVec
	missing *prometheus.GaugeVec
	labels  derive.Labels // journeys that have figures of their own
	pairs   derive.Labels // journeys and reasons that have
}

// Name implements derive.Processor.
func (*processor) Name() string { return Name }

// At implements derive.Processor. Definitions are read and compiled when their version is
// another than before; then it is noted which versions of journeys are in use, until that is
// found to be committed.
func (p *processor) At(ctx context.Context, tx *storage.Tx) (derive.Logic[State], error) {
	l, lacking, err := p.compiled(ctx, tx)
	if err != nil {
		return nil, err
	}
	if len(l.destinations) > 0 {
		targets, err := tx.CallTargets(ctx, l.destinations)
		if err != nil {
			return nil, err
		}
		l = l.asking(targets)
	}
	if !lacking.IsZero() {
		return lackingLogic{l, lacking}, nil
	}
	return l, nil
}

// compiled is the logic of the definitions in use, and since when it lacks a version; zero
// when it has all.
func (p *processor) compiled(ctx context.Context, tx *storage.Tx) (*Logic, time.Time, error) {
	version, err := tx.DefinitionVersion(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.logic == nil || p.logic.version != version || !p.noted {
		err = p.compile(ctx, tx)
	}
	return p.logic, p.since, err
}

func (p *processor) compile(ctx context.Context, tx *storage.Tx) error {
	set, err := definition.Current(ctx, tx)
	if err != nil {
		return err
	}
	kept, changed, err := tx.KeepJourneyVersions(ctx, Versions(set))
	if err != nil {
		return err
	}
	if p.logic == nil || p.logic.version != set.Version {
		now, err := tx.Clock(ctx)
		if err != nil {
			return err
		}
		p.logic = Compile(set, kept, p.opts)
		p.failing.Set(float64(len(p.logic.Failing())))
		p.lacks(kept, now)
	}
	p.noted = !changed
	return nil
}

// maxVersions is how many versions have a figure.
const maxVersions = 200

// lacks notes, and tells, which of the versions that are kept this process cannot run.
func (p *processor) lacks(kept []storage.JourneyVersion, now time.Time) {
	p.missing.Reset()
	before := p.away
	p.away = map[string]bool{}
	for i, v := range kept {
		missing := 0.0
		if p.logic.Program(v.JourneyID, v.Version) == nil {
			missing = 1
			id := v.JourneyID + "@" + v.Version
			if p.away[id] = true; !before[id] {
				p.since = now
			}
		}
		if i < maxVersions {
			p.missing.WithLabelValues(v.JourneyID, v.Version).Set(missing)
		}
	}
	if len(p.away) == 0 {
		p.since = time.Time{}
	}
}

// Save implements derive.Processor: it writes runs where they are looked up.
func (p *processor) Save(ctx context.Context, tx *storage.Tx, changed []derive.Change[State]) error {
	var changes []storage.JourneyChange
	var forget []storage.ForgottenRuns
	took := map[string]string{}
	jobs := storage.JourneyJobChanges{Took: took}
	for i := range changed {
		c := &changed[i]
		if c.Forget {
			forget = append(forget, storage.ForgottenRuns{ContactID: c.ContactID, Partition: c.Partition})
			jobs.Forget = append(jobs.Forget, c.ContactID)
			continue
		}
		for _, loser := range c.State.took {
			took[loser] = c.ContactID
		}
		p.count(c.State.changes)
		for j := range c.State.changes {
			changes = append(changes, row(c.ContactID, c.Partition, &c.State.changes[j]))
		}
		takeJobs(&jobs, c)
	}
	if err := tx.SaveJourneyJobs(ctx, &jobs); err != nil {
		return err
	}
	return tx.SaveJourneyChanges(ctx, changes, took, forget)
}

// Counts are the counters that changes come to, as Save writes them.
func Counts(changes []machine.Change) []storage.JourneyCount {
	rows := make([]storage.JourneyChange, len(changes))
	for i := range changes {
		rows[i] = row("", 0, &changes[i])
	}
	return storage.CountJourneyChanges(rows)
}

// takeJobs notes the jobs that a contact has begun, and those that nobody waits for.
func takeJobs(jobs *storage.JourneyJobChanges, c *derive.Change[State]) {
	for _, j := range c.State.begun {
		jobs.Begun = append(jobs.Begun, storage.NewJourneyJob{
			JourneyJobRef: storage.JourneyJobRef{RunID: j.Run, Epoch: j.Epoch}, ContactID: c.ContactID, JourneyID: j.Journey, Version: j.Version, Step: j.Step, Hops: j.Hops + 1,
		})
	}
	for _, ref := range c.State.over {
		jobs.Over = append(jobs.Over, storage.JourneyJobRef{RunID: ref.Run, Epoch: ref.Epoch})
	}
}

func row(contact string, partition int32, ch *machine.Change) storage.JourneyChange {
	return storage.JourneyChange{
		Kind: ch.Kind, At: ch.At, ContactID: contact, Partition: partition, JourneyID: ch.Journey, Version: ch.Version, Key: ch.Key, RunID: ch.Run,
		Arm: ch.Arm, Entry: ch.Entry, EnteredAt: ch.Entered, Step: ch.Step, Outcome: ch.Outcome, Since: ch.Since, Next: ch.Next,
		Reason: ch.Reason, Error: ch.Error, TriggerID: ch.Trigger, Does: ch.Does, Anew: ch.Anew,
	}
}

// count adds what happened to the figures.
func (p *processor) count(changes []machine.Change) {
	for i := range changes {
		c := &changes[i]
		if c.Kind == machine.Stepped {
			p.steps.WithLabelValues(p.labels.Of(c.Journey)).Inc()
			continue
		}
		journey := p.labels.Of(c.Journey)
		p.runs.WithLabelValues(journey, c.Kind).Inc()
		if c.Kind == machine.Exited || c.Kind == machine.Skipped {
			reason := c.Reason
			if pair := journey + "\x00" + reason; p.pairs.Of(pair) != pair {
				reason = "other"
			}
			p.reasons.WithLabelValues(journey, c.Kind, reason).Inc()
		}
	}
}
