package journeys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
)

// Bounds of a [Job].
const (
	// MaxJobTime is how long an attempt may take, and how long the pause after one may be.
	MaxJobTime = time.Hour
	// MaxAttempts is how many attempts there may be.
	MaxAttempts = 100
	// MaxJobResult is how many bytes of JSON a function may return: the journal has them.
	MaxJobResult = 16 << 10
)

// Job says how a function of [Do] is done. The zero value is five attempts of 30 seconds.
type Job struct {
	// Timeout is how long an attempt may take; 30 seconds by default, MaxJobTime at most.
	Timeout time.Duration
	// Attempts is how many there are until the step has failed; 5 by default, MaxAttempts at
	// most. One whose process ends meanwhile counts, but is never the last.
	Attempts int
	// Backoff is the pause after the first attempt that fails, doubled after each further one;
	// a second by default, and never longer than MaxJobTime.
	Backoff time.Duration
	// Failed says what comes of a step that has failed: DoFail (default) fails the run there,
	// which can be tried again; DoContinue has Do return the error.
	Failed string
	// Input is what the function works on. It stands in the journal as what was asked, so that
	// code which comes to another input when it is run again fails the run; nil leaves that out.
	Input any
}

// Attempt is an attempt at a function of [Do].
type Attempt struct {
	// Key names the step of the run. It is the same in each attempt, whatever happens between
	// them, and no other step has it: a service that takes an idempotency key is given this one.
	Key string
	// Number is which attempt it is, from 1.
	Number int
}

// Do is a step that does work of your own, with whatever I/O it needs: f is called outside
// of the processor, by any process that has this version of the code, and Do returns what it
// returned, whose JSON stands in the run's journal before the next step begins.
//
// f is called once or more: when its process ends before the result is kept, another one
// calls it again with the same key, so what it does outside is done at least once, and its
// result counts exactly once. An error, a panic and an attempt that takes too long are tried
// again as the job says; an error made by [Permanent] is not. ctx ends with the attempt, when
// the run ends, and when the contact is erased. f may use what the code has come to, but asks
// for no steps. It is no method, because those cannot be generic.
func Do[T any](r *Run, name string, how Job, f func(ctx context.Context, a Attempt) (T, error)) (T, error) {
	var v T
	came := r.ask(Step{ID: name, job: &job{Job: how, call: func(ctx context.Context, a Attempt) (string, error) {
		v, err := f(ctx, a)
		if err != nil {
			return "", err
		}
		return jsonOf(v)
	}}})
	switch came.outcome {
	case OutcomeFailed:
		return v, &jobError{text(came.doc)}
	case OutcomeSkipped:
		return v, ErrSkipped
	}
	if err := json.Unmarshal([]byte(came.doc), &v); err != nil {
		panic(mismatch{fmt.Errorf("%w: step %q came to %s, and the code reads a %T: %w", errChanged, name, came.doc, v, err)})
	}
	return v, nil
}

func jsonOf(v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", Permanent(fmt.Errorf("the result is no JSON: %w", err))
	}
	if len(text) > MaxJobResult {
		return "", Permanent(fmt.Errorf("the result is %d KiB long: return at most %d KiB, such as an id of the rest", len(text)>>10, MaxJobResult>>10))
	}
	return string(text), nil
}

// ErrSkipped is what [Do] returns when somebody has the run go on without a result.
var ErrSkipped = errors.New("somebody had the run go on without a result")

// Permanent says that trying again would come to the same: a function of [Do] that returns
// it is not called again.
func Permanent(err error) error { return &permanentError{err} }

type permanentError struct{ error }

// Unwrap has errors.Is and errors.As look within.
func (e *permanentError) Unwrap() error { return e.error }

// jobError is why a function failed, as the journal has it.
type jobError struct{ why string }

// Error implements error.
func (e *jobError) Error() string { return e.why }

// job is a Job with its function.
type job struct {
	Job
	call func(context.Context, Attempt) (string, error)
}

const (
	defaultJobTimeout = 30 * time.Second
	defaultAttempts   = 5
	defaultBackoff    = time.Second
)

func (c *checker) job(path string, j *job) {
	for _, d := range []struct {
		name string
		is   time.Duration
	}{{"timeout", j.Timeout}, {"backoff", j.Backoff}} {
		if d.is < 0 || d.is > MaxJobTime {
			c.wrong(join(path, d.name), "is %s: write up to %s", d.is, MaxJobTime)
		}
	}
	if j.Attempts < 0 || j.Attempts > MaxAttempts {
		c.wrong(join(path, "attempts"), "are %d: write up to %d", j.Attempts, MaxAttempts)
	}
	c.word(join(path, "failed"), j.Failed, []string{DoFail, DoContinue})
}

// input is what is compared when the code is run again.
func (j *job) input() string {
	if j.Input == nil {
		return ""
	}
	text, err := json.Marshal(j.Input)
	if err != nil {
		panic(mismatch{fmt.Errorf("the Input of a job is no JSON: %w", err)})
	}
	return string(text)
}

// JobRef names a job: that of a step to which a run has come.
type JobRef struct {
	Run   string
	Epoch int64
}

// JobBegun is a job that a worker is to do.
type JobBegun struct {
	JobRef
	Journey string
	Version string
	Step    string
	Hops    int // how many causes led to it
}

// beginJob asks workers to do the job of a step, and waits.
func (w *work) beginJob(r *run, n *Node) {
	r.waits = true
	w.jobs = append(w.jobs, JobBegun{JobRef{r.id.String(), r.epoch}, r.journey, r.version, n.ID, w.hopsOf(r)})
}

// leaveJob notes that nobody waits any more for the job of a run, if it has one.
func (w *work) leaveJob(r *run) {
	if r.waits && r.asked.kind == kindDo {
		w.jobsOver = append(w.jobsOver, JobRef{r.id.String(), r.epoch})
	}
}

// jobDone goes on with the run of a job. What nobody waits for is over; but what comes to
// another contact than it was told of may be ahead of the merge that brings the run, and is
// told again.
func (w *work) jobDone(id uuid.UUID, c *Command) {
	i := w.s.find(id)
	if i < 0 || w.s.runs[i].epoch != c.Epoch || !w.s.runs[i].waits {
		if c.Contact == w.contact {
			w.jobsOver = append(w.jobsOver, JobRef{c.Run, c.Epoch})
		}
		return
	}
	run, p := w.run(id)
	if run == nil {
		return // its code is elsewhere; it is told again
	}
	n := w.node(run, p)
	if n == nil {
		w.misfits(id, run)
		return
	}
	if n.Kind != kindDo {
		return
	}
	w.touch()
	if c.Error == "" {
		run.answers = append(run.answers, answer{run.node, c.Result})
		w.stepped(id, OutcomeDone)
	} else if n.step.job.Failed == DoContinue {
		run.answers = append(run.answers, answer{run.node, canonicalText(c.Error)})
		w.stepped(id, OutcomeFailed)
	} else {
		w.end(id, Failed, "", fmt.Sprintf("step %s: %s", n.ID, c.Error))
	}
	w.advance(id)
}

// Task is a job as a worker does it: the function that a run has come to.
type Task struct {
	key string
	job *job
}

// ErrNoTask says that a run is not at the step of a job.
var ErrNoTask = errors.New("journeys: the run is not at the step of this job")

// Task runs the code of a run up to the step of a job. It returns [ErrNoTask] when the state
// has no run there, and another error when the code does not come to the step. The state is
// not changed.
func (p *Program) Task(s *State, ref JobRef) (*Task, error) {
	id, err := uuid.Parse(ref.Run)
	i := s.find(id)
	if err != nil || i < 0 {
		return nil, ErrNoTask
	}
	r := &s.runs[i]
	if r.failed || !r.waits || r.epoch != ref.Epoch || r.asked.kind != kindDo || r.journey != p.ID() || r.version != p.version {
		return nil, ErrNoTask
	}
	w := &work{}
	defer w.leave()
	co := w.coroutine(r, p)
	if co.over {
		return nil, co.ended
	}
	return &Task{key: ref.Run + "/" + co.asks.name, job: co.asks.step.job}, nil
}

// Timeout is how long an attempt may take.
func (t *Task) Timeout() time.Duration { return orDefault(t.job.Timeout, defaultJobTimeout) }

// Attempts is how many attempts there are.
func (t *Task) Attempts() int { return orDefault(t.job.Attempts, defaultAttempts) }

func orDefault[N int | time.Duration](n, otherwise N) N {
	if n == 0 {
		return otherwise
	}
	return n
}

// Again is after how long an attempt that failed is followed by another; false is never.
func (t *Task) Again(number int, failure error) (time.Duration, bool) {
	var permanent *permanentError
	if number >= t.Attempts() || errors.As(failure, &permanent) {
		return 0, false
	}
	pause := float64(orDefault(t.job.Backoff, defaultBackoff)) * math.Pow(2, float64(number-1))
	return time.Duration(min(pause, float64(MaxJobTime))), true
}

// Attempt calls the function, and returns the JSON of its result. A panic of it is an error.
// It returns when the function does, whatever becomes of ctx.
func (t *Task) Attempt(ctx context.Context, number int) (result string, err error) {
	defer func() {
		switch left := recover().(type) {
		case nil:
		case suspended, mismatch:
			err = Permanent(errors.New("the function asks for a step: steps stand beside it, and use what it returned"))
		default:
			err = fmt.Errorf("the function panics: %v", left)
		}
	}()
	return t.job.call(ctx, Attempt{Key: t.key, Number: number})
}
