package program

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Program is the programs of one destination, ready to be run. Safe for concurrent use.
type Program struct {
	workers *Workers
	name    string
	src     Source

	mu      sync.Mutex
	queue   []item
	working bool // somebody sees to the queue
	closed  bool
	wake    chan struct{}

	// Of whoever sees to the queue.
	worker   *worker
	failures int // in a row
}

// Open makes programs ready; the name is for logs. Nothing is started or checked yet.
func (w *Workers) Open(name string, src Source) *Program {
	return &Program{workers: w, name: name, src: src, wake: make(chan struct{}, 1)}
}

// Close ends the worker once what waits for it is done. The programs can still be run,
// by a worker that ends right after.
func (p *Program) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.rouse()
}

// call is the documents of one caller. Whoever sees to the queue writes the results and
// then closes done; a caller that leaves before looks at neither.
type call struct {
	ctx     context.Context
	results []Result
	open    int
	err     error
	done    chan struct{}
}

// item is a document of a call. The bytes are the queue's own: a caller may leave, and
// use its memory for something else, while they are being sent.
type item struct {
	call     *call
	n        int
	document []byte
}

// Run runs the programs for each document and returns their results, in order. It
// returns an error when there is none for any of them: ctx ended, a [*SourceError], or
// no worker could be started.
func (p *Program) Run(ctx context.Context, documents [][]byte) ([]Result, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c := &call{ctx: ctx, results: make([]Result, len(documents)), open: len(documents), done: make(chan struct{})}
	if !p.add(c.items(documents)) {
		return nil, errClosed
	}
	select {
	case <-c.done:
		return c.results, c.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// items are the documents of a call that a worker is to see.
func (c *call) items(documents [][]byte) []item {
	size := 0
	for _, d := range documents {
		size += len(d)
	}
	own, items := make([]byte, 0, size), make([]item, 0, len(documents))
	for n, d := range documents {
		i := item{call: c, n: n}
		if len(d) > maxDocument {
			i.settle(Result{Err: fmt.Errorf("has %d bytes: filters and transforms take at most %d", len(d), maxDocument)})
			continue
		}
		begun := len(own)
		own = append(own, d...)
		i.document = own[begun:]
		items = append(items, i)
	}
	return items
}

func (p *Program) add(items []item) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.working && !p.workers.spawn(p.work) {
		return false
	}
	p.working = true
	p.queue = append(p.queue, items...)
	p.rouse()
	return true
}

func (p *Program) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// work sees to the queue until nothing has come for a while.
func (p *Program) work() {
	idle := time.NewTimer(idleTime)
	defer idle.Stop()
	for {
		items, closed := p.take()
		if len(items) > 0 {
			p.answer(items)
			idle.Reset(idleTime)
			continue
		}
		if !closed {
			select {
			case <-p.wake:
				continue
			case <-idle.C:
			case <-p.workers.ctx.Done():
			}
		}
		if p.rest() {
			return
		}
	}
}

// rest ends the worker, unless something has come meanwhile.
func (p *Program) rest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) > 0 {
		return false
	}
	p.working = false
	if p.worker != nil {
		p.workers.end(p.worker)
		p.worker = nil
	}
	return true
}

// take takes what makes the next message. Those whose caller has left are left out.
func (p *Program) take() (items []item, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, bytes := 0, 0
	for ; n < len(p.queue) && len(items) < messageRecords && bytes < messageBytes; n++ {
		i := p.queue[n]
		if i.call.ctx.Err() == nil {
			items = append(items, i)
			bytes += len(i.document)
		}
	}
	clear(p.queue[:n])
	if p.queue = p.queue[n:]; len(p.queue) == 0 {
		p.queue = nil
	}
	return items, p.closed
}

// answer gives each item its result.
func (p *Program) answer(items []item) {
	answered, d := p.exchange(items)
	if d == nil {
		return
	}
	rest := items[answered:]
	if len(rest) == 1 {
		rest[0].settle(Result{Err: p.blame(d)})
		return
	}
	// Which of them it was shows when each is alone. Answers may have been lost, so
	// it need not be the first.
	for _, i := range rest {
		if i.call.ctx.Err() == nil {
			p.answer([]item{i})
		}
	}
}

// exchange sends one message; answered is how many items have their result. It returns
// why the worker ended, if it did.
func (p *Program) exchange(items []item) (answered int, _ *death) {
	if err := p.ready(); err != nil {
		for _, i := range items {
			i.fail(err)
		}
		return len(items), nil
	}
	documents := make([][]byte, len(items))
	for n, i := range items {
		documents[n] = i.document
	}
	err := p.worker.ask(silence, askRun, documents, func(answer [][]byte) error {
		result, err := p.result(answer)
		if err == nil {
			items[answered].settle(result)
			answered++
		}
		return err
	})
	if err == nil {
		return answered, nil
	}
	return answered, p.bury(err)
}

// ready starts a worker when there is none, after a pause when the ones before failed.
func (p *Program) ready() (err error) {
	if p.worker != nil {
		return nil
	}
	if p.failures > 1 {
		select {
		case <-time.After(min(firstPause<<min(p.failures-2, 10), mostPause)):
		case <-p.workers.ctx.Done():
			return errClosed
		}
	}
	if p.worker, err = p.workers.start(p.workers.ctx, p.src); err != nil {
		p.failures++
	}
	return err
}

func (p *Program) bury(err error) *death {
	if time.Since(p.worker.began) > healthyLife {
		p.failures = 0
	}
	p.failures++
	d := p.workers.bury(p.worker, err)
	p.worker = nil
	if p.workers.ctx.Err() == nil {
		p.workers.log.Warn("program.worker_failed", zap.String("destination", p.name), zap.String("reason", d.kind), zap.Error(d))
	}
	return d
}

// blame is the error of the record at which a worker ended.
func (p *Program) blame(d *death) error {
	if d.fault {
		return fmt.Errorf("%s: %w", p.src.subject(), d)
	}
	return fmt.Errorf("%s: %w: %w", p.src.subject(), ErrSlow, d)
}

// result reads an answer.
func (p *Program) result(answer [][]byte) (Result, error) {
	if len(answer) == 0 || len(answer[0]) != 1 {
		return Result{}, errGarbled
	}
	switch kind, rest := answer[0][0], answer[1:]; {
	case kind == answerKeep && len(rest) == 0:
		return Result{Keep: true}, nil
	case kind == answerDrop && len(rest) == 0:
		return Result{}, nil
	case kind == answerSlow && len(rest) == 0:
		return Result{Err: fmt.Errorf("%s: %w: took longer than %s", p.src.subject(), ErrSlow, softTime)}, nil
	case kind == answerFault && len(rest) == 1:
		return Result{Err: errors.New(string(rest[0]))}, nil
	case kind == answerShaped && len(rest) == 4:
		return Result{Keep: true, Shaped: &Shaped{Envelope: rest[0], Data: rest[1], Properties: rest[2], Type: string(rest[3])}}, nil
	}
	return Result{}, errGarbled
}

func (i item) settle(r Result) {
	i.call.results[i.n] = r
	i.close()
}

func (i item) fail(err error) {
	i.call.err = err
	i.close()
}

func (i item) close() {
	if i.call.open--; i.call.open == 0 {
		close(i.call.done)
	}
}
