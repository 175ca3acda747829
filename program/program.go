// Package program runs the filters and transforms of destinations, which are jq, in
// worker processes of this same binary.
//
// What it promises:
//   - jq is compiled and run in workers only, but for what [Parses] looks at, which is short.
//     Whatever a program does, the process that delivers goes on; at worst a worker ends.
//   - Each destination has a worker of its own, so none waits for the programs of
//     another. A worker is started when it is needed, and ends when it is not.
//   - A worker has bounded memory, stack and time for each record, no environment, no
//     files but its pipes, and no more life than its parent.
//   - A record at which a worker ends is run again alone in a new one, and only when
//     that ends too is it to blame. No other record suffers but by the time it takes.
//   - Errors do not quote values of records.
package program

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Bounds of what is sent to a worker.
const (
	maxSource      = 16 << 10
	maxDocument    = 8 << 20
	messageRecords = 256 // in one message
	messageBytes   = 1 << 20
	idleTime       = time.Minute // until a worker ends that nobody needs
	healthyLife    = 10 * time.Second
	firstPause     = 50 * time.Millisecond // before the second start in a row
	mostPause      = time.Second
)

// ErrSlow is the error of a record whose programs were broken off, or whose worker was
// ended by others: it may be the record's fault, or the machine's.
var ErrSlow = errors.New("was broken off")

var errClosed = errors.New("the workers for filters and transforms have stopped")

// Source is the jq of a destination, "" for none.
type Source struct{ Filter, Transform string }

// Empty says that nothing is to be run.
func (s Source) Empty() bool { return s == Source{} }

// subject is what of it an error is about that cannot tell.
func (s Source) subject() string {
	switch {
	case s.Transform == "":
		return "filter"
	case s.Filter == "":
		return "transform"
	}
	return "filter or transform"
}

// SourceError says that a program cannot be used: its field, and why.
type SourceError struct{ Field, Reason string }

// Error implements error; it begins with the name of the field.
func (e *SourceError) Error() string { return e.Field + ": " + e.Reason }

// Result is what became of a document.
type Result struct {
	// Keep says that it is to be sent: the filter's first output was neither false nor
	// null, and so was the transform's.
	Keep bool
	// Shaped is what the transform made of it; nil without a transform.
	Shaped *Shaped
	// Err says why the programs have no result. It wraps [ErrSlow] unless it is the
	// document's fault.
	Err error
}

// Shaped is the output of a transform.
type Shaped struct {
	// Envelope is the output, Data its member data ("{}" unless that is an object), and
	// Properties the member properties of data, nil unless that is an object.
	Envelope, Data, Properties []byte
	// Type is its member type, "" unless that is a string.
	Type string
}

// Workers are the worker processes of this process. Safe for concurrent use.
type Workers struct {
	log     *zap.Logger
	running prometheus.Gauge
	ends    *prometheus.CounterVec

	ctx    context.Context // ends all
	cancel context.CancelFunc
	path   string
	starts chan func()
	once   sync.Once

	mu     sync.Mutex
	wg     sync.WaitGroup
	closed bool
}

// New prepares for workers; none is started yet. reg may be nil.
func New(log *zap.Logger, reg prometheus.Registerer) (*Workers, error) {
	path, err := command()
	if err != nil {
		return nil, fmt.Errorf("find this executable: %w", err)
	}
	w := &Workers{
		log: log, path: path, starts: make(chan func()),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hogstream_program_workers",
			Help: "Processes that run filters and transforms.",
		}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hogstream_program_worker_failures_total",
			Help: "Processes for filters and transforms that ended before they were done, by reason.",
		}, []string{"reason"}),
	}
	if log == nil {
		w.log = zap.NewNop()
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	if reg == nil {
		return w, nil
	}
	return w, errors.Join(reg.Register(w.running), reg.Register(w.ends))
}

// Close ends all workers. What is under way fails.
func (w *Workers) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.wg.Wait()
}

// spawn runs work on a goroutine that Close waits for; false when it is too late.
func (w *Workers) spawn(work func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.wg.Go(work)
	}
	return !w.closed
}

// Check compiles the programs of a destination. Its error is a [*SourceError] when they
// cannot be used, and another one when that could not be found out.
func (w *Workers) Check(ctx context.Context, src Source) error {
	if src.Empty() {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	worker, err := w.start(ctx, src)
	if err == nil {
		w.end(worker)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// start starts a worker that knows the programs.
func (w *Workers) start(ctx context.Context, src Source) (*worker, error) {
	for _, p := range []struct{ field, source string }{{"filter", src.Filter}, {"transform", src.Transform}} {
		if len(p.source) > maxSource {
			return nil, &SourceError{p.field, fmt.Sprintf("has %d bytes: at most %d are allowed", len(p.source), maxSource)}
		}
	}
	worker, err := w.launch(ctx)
	if err != nil {
		return nil, fmt.Errorf("a worker for filters and transforms cannot be started: %w", err)
	}
	if err := worker.teach("filter", askFilter, src.Filter); err != nil {
		return nil, w.failed(worker, "filter", err)
	}
	if err := worker.teach("transform", askTransform, src.Transform); err != nil {
		return nil, w.failed(worker, "transform", err)
	}
	return worker, nil
}

// failed ends a worker that did not take a program.
func (w *Workers) failed(worker *worker, field string, err error) error {
	var wrong *SourceError
	if errors.As(err, &wrong) {
		w.end(worker)
		return err
	}
	d := w.bury(worker, err)
	if d.fault {
		return &SourceError{field, "cannot be compiled: " + d.reason}
	}
	return fmt.Errorf("%s: cannot be compiled now: %w", field, d)
}

// launch starts a process. All are started by one thread that lasts as long as they
// may: Linux ends a child with the thread that started it.
func (w *Workers) launch(ctx context.Context) (worker *worker, err error) {
	w.once.Do(func() { w.spawn(w.startAll) })
	done := make(chan struct{})
	select {
	case w.starts <- func() {
		defer close(done)
		worker, err = launch(ctx, w.path)
	}:
	case <-w.ctx.Done():
		return nil, errClosed
	}
	<-done
	if err == nil {
		w.running.Inc()
	}
	return worker, err
}

func (w *Workers) startAll() {
	runtime.LockOSThread()
	for {
		select {
		case start := <-w.starts:
			start()
		case <-w.ctx.Done():
			return
		}
	}
}

func (w *Workers) end(worker *worker) {
	worker.end()
	w.running.Dec()
}

func (w *Workers) bury(worker *worker, err error) *death {
	d := worker.bury(err)
	w.running.Dec()
	if w.ctx.Err() == nil {
		w.ends.WithLabelValues(d.kind).Inc()
	}
	return d
}

// teach has a worker compile a program.
func (w *worker) teach(field string, what byte, source string) error {
	if source == "" {
		return nil
	}
	return w.ask(startTime, what, [][]byte{[]byte(source)}, func(answer [][]byte) error {
		switch {
		case len(answer) == 1 && string(answer[0]) == string(answerKeep):
			return nil
		case len(answer) == 2 && string(answer[0]) == string(answerFault):
			return &SourceError{field, "is not jq: " + string(answer[1])}
		}
		return errGarbled
	})
}
