package journeys

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	machine "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// WorkersConfig is what [Workers] need. DB and Log are required.
type WorkersConfig struct {
	Options
	DB  *storage.DB
	Log stream.Appender
	// Concurrency is how many functions run at once; 64 by default.
	Concurrency int
	// Lease is for how long a job is kept from other processes, renewed three times meanwhile;
	// 30 s by default. One whose process has died is taken by another after it.
	Lease time.Duration
	// Drain is for how long functions that run hold up a stop; 5 s by default.
	Drain time.Duration

	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

const (
	tellAgain   = time.Minute     // what came of a job, when the processor has not taken it
	elsewhere   = 2 * time.Second // a run that is handed over stands in no state for a moment
	noteAgain   = 50 * time.Millisecond
	afterFault  = time.Second
	idle        = time.Minute     // a clock that is set back or forward is noticed so soon
	lookAgain   = time.Second     // how often what waits is looked at while no more can begin
	returnsSoon = time.Second     // a function that heeds its context does
	maxLost     = 10              // attempts beyond a job's own whose processes have ended
	statements  = 5 * time.Second // may take, when the process stops
)

// Workers do the jobs of journeys whose code this process has: functions of [machine.Do]. There
// is one in each process that runs processors; several share the work.
//
// What it promises:
//   - A job is done by one process at a time, as far as that can be told from its lease. What
//     came of it is kept before the processor is told, and told until that has taken it: a
//     function whose result is kept is not called again.
//   - When a process ends, others take its jobs when their leases are over; one that stops in
//     order gives them back at once.
//   - A function whose run has ended, or whose contact is gone, is told so by its context.
//   - Nothing is looked for again and again: the next due is known, and who has a job for us
//     says so.
type Workers struct {
	cfg      WorkersConfig
	codes    []storage.JourneyCode
	programs map[storage.JourneyCode]*machine.Program

	wake  chan struct{}
	look  atomic.Bool // whether what is in hand still is: something is over
	ended chan *hand
	stuck atomic.Int64 // functions that have not returned though their time is over

	// Of Run alone.
	running map[storage.JourneyJobInHand]*hand
	unnoted map[storage.JourneyJobInHand]*hand
	renewed time.Time
	looked  time.Time // at what is due next

	jobs    *prometheus.CounterVec
	seconds prometheus.Histogram
	busy    prometheus.Gauge
	overdue prometheus.Gauge
	labels  derive.Labels
}

// hand is a job in hand.
type hand struct {
	job     storage.JourneyJob
	task    *machine.Task
	cancel  context.CancelCauseFunc
	begun   time.Time
	lost    bool // somebody else has it, or nobody waits for it
	stopped bool // the process ends

	result string
	err    error
	note   storage.JourneyJobNote
}

func (h *hand) key() storage.JourneyJobInHand {
	return storage.JourneyJobInHand{JourneyJobRef: h.job.JourneyJobRef, Token: h.job.Token}
}

// NewWorkers makes Workers. Their figures are registered on Registerer unless that is nil.
func NewWorkers(cfg WorkersConfig) (*Workers, error) {
	stream.SetDefault(&cfg.Concurrency, 64)
	stream.SetDefault(&cfg.Lease, 30*time.Second)
	stream.SetDefault(&cfg.Drain, 5*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	w := &Workers{
		cfg: cfg, programs: map[storage.JourneyCode]*machine.Program{}, wake: make(chan struct{}, 1), ended: make(chan *hand, cfg.Concurrency),
		running: map[storage.JourneyJobInHand]*hand{}, unnoted: map[storage.JourneyJobInHand]*hand{},
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "hogstream", Subsystem: "journeys", Name: "job_attempts_total",
			Help: "Attempts at functions of journeys in Go, by journey (those beyond the first 200 are one, named other) and what came of them: done, again (it failed, and another follows), failed (none follows), lost (the run had ended meanwhile, or another process has it), released (the process stopped).",
		}, []string{"journey", "outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "hogstream", Subsystem: "journeys", Name: "job_seconds", Help: "How long attempts at functions of journeys in Go take.",
			Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 30, 60, 300, 3600},
		}),
		busy: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "hogstream", Subsystem: "journeys", Name: "jobs_running", Help: "Functions of journeys in Go that run now.",
		}),
		overdue: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "hogstream", Subsystem: "journeys", Name: "jobs_overdue_seconds", Help: "For how long the job that is to be done next, of those that this process has the code for, has waited for a process to do it.",
		}),
	}
	for _, j := range cfg.Coded {
		p, err := machine.Compile(j, machine.Options{Zone: cfg.Zone})
		if err != nil {
			return nil, fmt.Errorf("journey %s, version %s: %w", j.ID, j.Version, err)
		}
		code := storage.JourneyCode{JourneyID: j.ID, Version: j.Version}
		w.codes, w.programs[code] = append(w.codes, code), p
	}
	return w, w.register(cfg.Registerer)
}

func (w *Workers) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	stuck := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "hogstream", Subsystem: "journeys", Name: "jobs_stuck",
		Help: "Functions of journeys in Go that have not returned though their time is over; nothing can end them but the end of the process. When they are as many as may run at once, no more jobs are taken.",
	}, func() float64 { return float64(w.stuck.Load()) })
	if err := errors.Join(reg.Register(w.jobs), reg.Register(w.seconds), reg.Register(w.busy), reg.Register(w.overdue), reg.Register(stuck)); err != nil {
		return fmt.Errorf("workers of journeys: register figures: %w", err)
	}
	return nil
}

// Run does jobs until ctx ends, waits for functions that run then, and returns nil. It waits
// out outages. It must be called once.
func (w *Workers) Run(ctx context.Context) error {
	var hearing sync.WaitGroup
	defer hearing.Wait()
	hearing.Go(func() { _ = w.cfg.DB.Listen(ctx, storage.ChannelJourneyJobs, w.heard) })
	for ctx.Err() == nil {
		wait, err := w.round(ctx)
		if err != nil && ctx.Err() == nil {
			w.cfg.Logger.Warn("journeys.jobs_failed", zap.Error(err))
			wait = afterFault
		}
		w.pause(ctx.Done(), wait)
	}
	w.stop(context.WithoutCancel(ctx))
	return nil
}

func (w *Workers) heard(payload string) {
	if payload != storage.JobsBegun {
		w.look.Store(true)
	}
	stream.Signal(w.wake)
}

// pause waits until there is something to do.
func (w *Workers) pause(done <-chan struct{}, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
	case <-w.wake:
	case h := <-w.ended:
		w.over(h)
	case <-timer.C:
	}
}

// round notes what has ended, keeps what runs, and takes what is due. It says after how long
// there is more to do by itself.
func (w *Workers) round(ctx context.Context) (time.Duration, error) {
	if err := w.keep(ctx); err != nil {
		return 0, err
	}
	if len(w.unnoted) > 0 {
		return noteAgain, nil
	}
	renew := idle
	if len(w.running) > 0 {
		renew = time.Until(w.renewed.Add(w.cfg.Lease / 3))
	}
	room := w.room()
	if room == 0 {
		return min(renew, lookAgain), w.lookFull(ctx)
	}
	taken, err := w.cfg.DB.TakeJourneyJobs(ctx, Name, w.codes, uuid.NewString(), room, w.cfg.Lease)
	if err != nil {
		return 0, err
	}
	if err := w.begin(ctx, taken); err != nil || len(taken) > 0 {
		return 0, err // there may be more
	}
	due, now, err := w.next(ctx)
	if err != nil || due.IsZero() {
		return renew, err
	}
	return max(noteAgain, min(renew, due.Sub(now))), nil
}

// next is when the next job is due, zero for none. It tells for how long that has waited.
func (w *Workers) next(ctx context.Context) (due, now time.Time, err error) {
	if due, now, err = w.cfg.DB.NextJourneyJob(ctx, w.codes); err != nil {
		return due, now, err
	}
	overdue := 0.0
	if !due.IsZero() {
		overdue = max(0, now.Sub(due).Seconds())
	}
	w.overdue.Set(overdue)
	w.looked = time.Now()
	return due, now, nil
}

// lookFull tells for how long the next job has waited while no more can begin.
func (w *Workers) lookFull(ctx context.Context) error {
	if time.Since(w.looked) < lookAgain {
		return nil
	}
	_, _, err := w.next(ctx)
	return err
}

// room is how many more functions may begin.
func (w *Workers) room() int {
	if w.stuck.Load() >= int64(w.cfg.Concurrency) {
		return 0
	}
	return w.cfg.Concurrency - len(w.running)
}

// keep notes what has ended, and finds out what is not in our hand any more.
func (w *Workers) keep(ctx context.Context) error {
	w.collect()
	if err := w.noteAll(ctx); err != nil {
		return err
	}
	looks := w.look.Swap(false)
	if len(w.running)+len(w.unnoted) == 0 || !looks && len(w.unnoted) == 0 && time.Since(w.renewed) < w.cfg.Lease/3 {
		return nil
	}
	return w.renew(ctx)
}

func (w *Workers) collect() {
	for {
		select {
		case h := <-w.ended:
			w.over(h)
		default:
			return
		}
	}
}

// renew keeps what is in our hand, and lets go of the rest.
func (w *Workers) renew(ctx context.Context) error {
	var held []storage.JourneyJobInHand
	for key := range w.running {
		held = append(held, key)
	}
	for key := range w.unnoted {
		held = append(held, key)
	}
	still, err := w.cfg.DB.RenewJourneyJobs(ctx, held, w.cfg.Lease)
	if err != nil {
		return err
	}
	w.renewed = time.Now()
	ours := make(map[storage.JourneyJobInHand]bool, len(still))
	for _, key := range still {
		ours[key] = true
	}
	for key, h := range w.running {
		if !ours[key] && !h.lost {
			h.lost = true
			h.cancel(errors.New("the run does not wait for it any more"))
		}
	}
	for key, h := range w.unnoted {
		if !ours[key] {
			delete(w.unnoted, key)
			w.count(h, "lost")
		}
	}
	return nil
}

// begin does what was taken.
func (w *Workers) begin(ctx context.Context, taken []storage.JourneyJob) error {
	var told []*hand
	for i := range taken {
		h := &hand{job: taken[i], begun: time.Now()}
		if h.job.Done {
			told = append(told, h)
			continue
		}
		if len(w.running) == 0 {
			w.renewed = time.Now()
		}
		if h.task, h.err = w.task(&h.job); h.err != nil {
			w.over(h)
			continue
		}
		var of context.Context
		of, h.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		w.running[h.key()] = h
		w.busy.Set(float64(len(w.running)))
		go w.attempt(of, h)
	}
	return w.tell(ctx, told)
}

// errPoison is of a job that ends the processes that do it.
var errPoison = errors.New("the processes that did it have ended before there was a result")

// task is the function of a job.
func (w *Workers) task(j *storage.JourneyJob) (*machine.Task, error) {
	s, err := DecodeState(j.State)
	if err != nil {
		return nil, err
	}
	t, err := w.programs[storage.JourneyCode{JourneyID: j.JourneyID, Version: j.Version}].Task(&s.runs, machine.JobRef{Run: j.RunID, Epoch: j.Epoch})
	if err == nil && j.Attempts > t.Attempts()+maxLost {
		return nil, machine.Permanent(errPoison)
	}
	return t, err
}

// attempt calls the function of a job. When that does not return in time it is left alone.
func (w *Workers) attempt(ctx context.Context, h *hand) {
	defer h.cancel(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, h.task.Timeout(), fmt.Errorf("there was no result within %s", h.task.Timeout()))
	defer cancel()
	type came struct {
		result string
		err    error
	}
	back := make(chan came, 1)
	go func() {
		c := came{err: errors.New("the function has ended its goroutine")}
		defer func() { back <- c }()
		c.result, c.err = h.task.Attempt(ctx, h.job.Attempts)
	}()
	var c came
	select {
	case c = <-back:
	case <-ctx.Done():
		timer := time.NewTimer(returnsSoon)
		defer timer.Stop()
		select {
		case c = <-back:
			if c.err != nil {
				c.err = fmt.Errorf("%w: %w", context.Cause(ctx), c.err)
			}
		case <-timer.C:
			w.stuck.Add(1)
			go func() {
				<-back
				w.stuck.Add(-1)
				stream.Signal(w.wake)
			}()
			c.err = context.Cause(ctx)
		}
	}
	h.result, h.err = c.result, c.err
	w.ended <- h
}

// over is what comes of an attempt.
func (w *Workers) over(h *hand) {
	delete(w.running, h.key())
	w.busy.Set(float64(len(w.running)))
	w.seconds.Observe(time.Since(h.begun).Seconds())
	if h.lost {
		w.count(h, "lost")
		return
	}
	h.note = h.judge()
	w.unnoted[h.key()] = h
}

// judge says what follows from how an attempt has ended.
func (h *hand) judge() storage.JourneyJobNote {
	note := storage.JourneyJobNote{JourneyJobInHand: h.key()}
	if h.err == nil {
		note.Done, note.Result, note.After = true, h.result, tellAgain
		return note
	}
	note.Error = errorText(h.err)
	switch {
	case errors.Is(h.err, machine.ErrNoTask):
		note.Uncounted, note.After = true, elsewhere
		return note
	case h.stopped:
		note.Uncounted = true
		return note
	case h.task != nil:
		if pause, again := h.task.Again(h.job.Attempts, h.err); again {
			note.After = pause
			return note
		}
	}
	note.Done, note.After = true, tellAgain
	return note
}

// maxError is how long the text of an error may be.
const maxError = 2000

// errorText is an error as it is kept, which is never empty.
func errorText(err error) string {
	text := err.Error()
	if len(text) > maxError {
		text = strings.ToValidUTF8(text[:maxError], "") + "…"
	}
	return cmp.Or(text, "an error without a text")
}

// outcome is how an attempt is counted.
func (h *hand) outcome() string {
	switch {
	case h.note.Uncounted:
		return "released"
	case !h.note.Done:
		return "again"
	case h.err != nil:
		return "failed"
	}
	return "done"
}

func (w *Workers) count(h *hand, outcome string) {
	w.jobs.WithLabelValues(w.labels.Of(h.job.JourneyID), outcome).Inc()
}

// noteAll keeps what came of jobs, and then tells the processor.
func (w *Workers) noteAll(ctx context.Context) error {
	if len(w.unnoted) == 0 {
		return nil
	}
	var notes []storage.JourneyJobNote
	for _, h := range w.unnoted {
		notes = append(notes, h.note)
	}
	noted, err := w.cfg.DB.NoteJourneyJobs(ctx, notes)
	if err != nil {
		return err
	}
	var tell []*hand
	for _, key := range noted {
		h := w.unnoted[key]
		delete(w.unnoted, key)
		w.count(h, h.outcome())
		if h.note.Done {
			h.job.Done, h.job.Result, h.job.Error = true, h.note.Result, h.note.Error
			tell = append(tell, h)
		}
	}
	return w.tell(ctx, tell)
}

// tell says what came of jobs. What could not be said is said again when it is due.
func (w *Workers) tell(ctx context.Context, list []*hand) error {
	if len(list) == 0 {
		return nil
	}
	said := make([]schemas.Message, len(list))
	for i, h := range list {
		said[i] = saying(&h.job)
	}
	if err := w.cfg.Log.Append(ctx, said...); err != nil {
		return fmt.Errorf("tell what came of %d jobs of journeys, which is told again: %w", len(list), err)
	}
	return nil
}

// saying is the command that says what came of a job.
func saying(j *storage.JourneyJob) *schemas.Signal {
	said, err := json.Marshal(machine.Command{
		What: machine.CommandDone, Run: j.RunID, Epoch: j.Epoch, Result: j.Result, Error: j.Error, Contact: j.ContactID,
	})
	if err != nil {
		panic(fmt.Sprintf("journeys: a command: %v", err)) // it is of texts
	}
	text := string(said)
	return &schemas.Signal{
		ID: schemas.Derive(j.RunID, "job", int(j.Epoch)), Type: schemas.SignalCommand, For: Name, ContactID: j.ContactID, OccurredAt: time.Now(),
		What: machine.CommandDone, State: &text, Hops: j.Hops,
	}
}

// errStops is why the context of a function ends with the process.
var errStops = errors.New("the process stops")

// stop waits for functions that run, for a while, and gives back the others.
func (w *Workers) stop(ctx context.Context) {
	w.waitUntil(ctx, time.Now().Add(w.cfg.Drain))
	for _, h := range w.running {
		h.stopped = true
		h.cancel(errStops)
	}
	w.waitUntil(ctx, time.Now().Add(2*returnsSoon))
}

// waitUntil waits until nothing runs, or for as long.
func (w *Workers) waitUntil(ctx context.Context, until time.Time) {
	for {
		ctx, cancel := context.WithTimeout(ctx, statements)
		err := w.keep(ctx)
		cancel()
		if err != nil {
			w.cfg.Logger.Warn("journeys.jobs_failed", zap.Error(err))
		}
		left := time.Until(until)
		if len(w.running)+len(w.unnoted) == 0 || left <= 0 {
			return
		}
		wait := min(left, w.cfg.Lease/3)
		if len(w.unnoted) > 0 {
			wait = min(left, noteAgain)
		}
		w.pause(nil, wait)
	}
}
