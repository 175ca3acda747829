package stream

import (
	"context"
	"errors"
	"time"
)

// An attemptContext is the context of an attempt: it ends with the holding, or at
// the attempt's deadline. To make one, with its timer and its place below the
// holding's context, costs as much as signing a record, so one that has not ended
// serves the next attempt.
type attemptContext struct {
	context.Context // never nil; can be cancelled
	cancel          context.CancelCauseFunc
	deadline        time.Time
	timer           *time.Timer
}

// keepContexts is how many idle contexts a holding keeps.
const keepContexts = 256

// attempt gives a context that ends at deadline. It must be given back with attempted.
func (h *holding) attempt(deadline time.Time) *attemptContext {
	lasts := time.Until(deadline)
	a := h.idleContext()
	if a != nil {
		a.timer.Reset(lasts)
	} else {
		a = &attemptContext{}
		a.Context, a.cancel = context.WithCancelCause(h.ctx)
		a.timer = time.AfterFunc(lasts, func() { a.cancel(context.DeadlineExceeded) })
	}
	a.deadline = deadline
	if lasts <= 0 { // the timer would say so a moment too late
		a.cancel(context.DeadlineExceeded)
	}
	return a
}

func (h *holding) idleContext() *attemptContext {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.contexts)
	if n == 0 {
		return nil
	}
	a := h.contexts[n-1]
	h.contexts[n-1], h.contexts = nil, h.contexts[:n-1]
	return a
}

// attempted takes back the context of an attempt that is over. Only that of a
// success is used again: after a failure something may still hang on it.
func (h *holding) attempted(a *attemptContext, succeeded bool) {
	// A timer that could not be stopped cancels, maybe only later.
	if a.timer.Stop() && succeeded && a.Context.Err() == nil && h.keepContext(a) {
		return
	}
	a.cancel(context.Canceled)
}

func (h *holding) keepContext(a *attemptContext) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.contexts) >= keepContexts {
		return false
	}
	h.contexts = append(h.contexts, a)
	return true
}

// Deadline implements [context.Context].
func (a *attemptContext) Deadline() (time.Time, bool) { return a.deadline, true }

// Err implements [context.Context]: a deadline that has passed is named as such.
func (a *attemptContext) Err() error {
	err := a.Context.Err()
	if err != nil && errors.Is(context.Cause(a.Context), context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}
