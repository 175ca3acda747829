package journeys

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas/packed"
)

// What somebody may tell the machine to do with a contact.
const (
	CommandEnroll = "enroll" // begin Journey, as if a trigger with Properties had come; the guards hold
	CommandCancel = "cancel" // end Run
	CommandSkip   = "skip"   // end the open wait of Run
	CommandRetry  = "retry"  // go on with Run, which failed, at the step that did
	CommandDone   = "done"   // what came of the job of Run at Epoch: workers say it
)

// Command is what somebody tells the machine to do. One that names a run that has ended, or
// is none, does nothing; nor does one to enrol that is told again, by its id.
type Command struct {
	What       string `json:"what"` // one of the Command… constants
	Journey    string `json:"journey,omitempty"`
	Properties string `json:"properties,omitempty"` // a JSON object
	Run        string `json:"run,omitempty"`
	// FromStart has a failed run begin at its first step again: what it has done already is
	// done once more.
	FromStart bool `json:"fromStart,omitempty"`
	// Since is when the run came to the step that is meant, to the microsecond: of a run that
	// has gone on meanwhile nothing is done, so telling it again does nothing more. Zero is
	// wherever the run is.
	Since time.Time `json:"since,omitzero"`
	// Step is the step that is meant, "" for any. Not of CommandRetry.
	Step string `json:"step,omitempty"`

	Epoch   int64  `json:"epoch,omitempty"`
	Result  string `json:"result,omitempty"`  // JSON
	Error   string `json:"error,omitempty"`   // why there is no result
	Contact string `json:"contact,omitempty"` // whose run it was
}

// obey does what a command says.
func (w *work) obey(in *Input, now time.Time) error {
	if err := w.catchUp(packed.Micros(now)-1, packed.Micros(now)-1); err != nil {
		return err
	}
	w.begin(packed.Micros(now))
	c := in.Command
	if c.What == CommandEnroll {
		if err := w.enroll(in); err != nil {
			return err
		}
		return w.drain()
	}
	id, err := uuid.Parse(c.Run)
	if err != nil {
		return fmt.Errorf("command %s: %q is no id of a run", c.What, c.Run)
	}
	if w.movedOn(id, c) {
		return w.drain()
	}
	switch c.What {
	case CommandCancel:
		if run := w.s.find(id); run >= 0 && !w.s.runs[run].failed {
			w.end(id, Exited, ReasonCancelled, "")
		}
	case CommandSkip:
		w.skipWait(id)
	case CommandRetry:
		w.retry(id, c.FromStart)
	case CommandDone:
		w.jobDone(id, c)
	default:
		return fmt.Errorf("command %q is unknown: use one of %s", c.What, strings.Join([]string{CommandEnroll, CommandCancel, CommandSkip, CommandRetry}, ", "))
	}
	return w.drain()
}

// movedOn says that a run stands elsewhere than a command means.
func (w *work) movedOn(id uuid.UUID, c *Command) bool {
	i := w.s.find(id)
	if i < 0 {
		return false
	}
	run := &w.s.runs[i]
	if !c.Since.IsZero() && packed.Micros(c.Since) != run.since {
		return true
	}
	p := w.m.Program(run.journey, run.version)
	return c.Step != "" && !run.failed && p != nil && c.Step != w.place(run, p)
}

// enroll begins a run by hand: the guards hold, but for the trigger's where.
func (w *work) enroll(in *Input) error {
	u := w.m.byID[in.Command.Journey]
	if u == nil {
		return fmt.Errorf("command %s: %q is no journey in use", in.Command.What, in.Command.Journey)
	}
	w.begins(u, &record{Record: predicate.Record{At: in.OccurredAt, Properties: orEmpty(in.Command.Properties)}, id: in.ID, hops: in.Hops})
	return nil
}

// skipWait ends the open wait of a run, as if its time had come.
func (w *work) skipWait(id uuid.UUID) {
	run, p := w.run(id)
	if run == nil || !run.waits {
		return
	}
	n := w.node(run, p)
	if n == nil {
		w.misfits(id, run)
		return
	}
	if n.Kind == kindCall {
		w.cancel = append(w.cancel, w.effect(run, n))
	}
	w.stepped(id, OutcomeSkipped)
	w.advance(id)
}

// retry goes on with a run that failed, unless another of its journey and key lives.
func (w *work) retry(id uuid.UUID, fromStart bool) {
	i := w.s.find(id)
	if i < 0 || !w.s.runs[i].failed {
		return
	}
	run := &w.s.runs[i]
	p := w.m.Program(run.journey, run.version)
	if p == nil || w.s.live(run.journey, run.key) >= 0 {
		return
	}
	if fromStart {
		run.node, run.answers, run.journal, run.last = 0, nil, nil, trigger{}
	}
	run.failed, run.since, run.trigger.hops = false, w.at, w.hops
	run.epoch++
	w.s.entry(run.journey, run.key).live = true
	w.touch()
	c := w.change(Retried, run, p)
	c.Next, c.Anew = w.place(run, p), fromStart
	if p.journey.Coded {
		run.open = c.Next
	}
	c.Step, c.Outcome, c.Since = c.Next, Retried, c.At
	w.tell(c, w.hops)
	w.advance(id)
}

// redefine ends a run whose journey was changed or removed, when that says so.
func (w *work) redefine(id uuid.UUID) {
	i := w.s.find(id)
	run := &w.s.runs[i]
	u, p := w.m.byID[run.journey], w.m.Program(run.journey, run.version)
	onChange := OnChangeFinish
	switch {
	case u != nil && u.Program.version == run.version:
		return
	case u != nil:
		onChange = u.Program.journey.OnChange
	case p != nil:
		onChange = p.journey.OnChange
	}
	if onChange == OnChangeExit {
		w.end(id, Exited, ReasonChanged, "")
	}
}
