package program

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// silence is how long a worker may be without an answer. Its own limits end it
	// sooner, unless it stands still or hardly gets a core.
	silence = 5 * time.Second
	// startTime is how long it may take to begin, on a busy machine.
	startTime = 10 * time.Second
)

// worker is a process that runs the programs of one destination, one message at a time.
type worker struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	said    head
	stalled atomic.Bool
	began   time.Time
}

// launch starts a worker that knows no programs yet. ctx ends it.
func launch(ctx context.Context, path string) (*worker, error) {
	w := &worker{began: time.Now()}
	w.cmd = exec.CommandContext(ctx, path)
	w.cmd.Args = []string{workerTitle}
	w.cmd.Env = []string{workerVariable + "=" + workerValue}
	w.cmd.SysProcAttr = apart()
	w.cmd.WaitDelay = time.Second
	w.cmd.Stderr = &w.said
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	w.out = bufio.NewReaderSize(out, 64<<10)
	return w, w.cmd.Start()
}

// ask sends a message and takes an answer for each of its parts; it stops at the first
// that does not come.
func (w *worker) ask(within time.Duration, what byte, parts [][]byte, take func(answer [][]byte) error) error {
	alarm := time.AfterFunc(within, func() {
		w.stalled.Store(true)
		w.kill()
	})
	defer alarm.Stop()
	if _, err := w.in.Write(frame(append([][]byte{{what}}, parts...)...)); err != nil {
		return err
	}
	for range parts {
		answer, err := readFrame(w.out, maxAnswer)
		if err == nil {
			err = take(answer)
		}
		if err != nil {
			return err
		}
		alarm.Reset(within)
	}
	return nil
}

func (w *worker) kill() { _ = w.cmd.Process.Kill() } // it may have ended by itself

// end ends the worker.
func (w *worker) end() {
	w.kill()
	_ = w.cmd.Wait() // says that it was killed
}

// death is why a worker ended: it is what the record at hand is given for an error.
type death struct {
	kind   string // for the metric
	reason string
	// fault says that it was the record's programs that ended it, not somebody else.
	fault bool
}

func (d *death) Error() string { return d.reason }

// bury waits for the end of a worker that has failed with err, and says why it ended.
func (w *worker) bury(err error) *death {
	garbled := errors.Is(err, errGarbled)
	if garbled {
		w.kill()
	}
	_ = w.cmd.Wait() // the state says it
	said, state := w.said.String(), w.cmd.ProcessState
	has := func(any ...string) bool {
		for _, s := range any {
			if strings.Contains(said, s) {
				return true
			}
		}
		return false
	}
	switch {
	case w.stalled.Load():
		return &death{"silent", fmt.Sprintf("its worker process did not answer within %s", silence), false}
	case garbled:
		return &death{"garbled", "its worker process gave an answer that cannot be read", false}
	case has("stack exceeds", "stack overflow"):
		return &death{"stack", "it is nested too deeply, or calls itself without end", true}
	case state.ExitCode() == exitMemory, has("out of memory", "cannot allocate memory", "failed to create new OS thread", "pthread_create failed"):
		return &death{"memory", fmt.Sprintf("it needs more than %d MiB of memory", maxMemory>>20), true}
	case state.ExitCode() == exitCPU, has("SIGXCPU"):
		return &death{"cpu", fmt.Sprintf("it needs more than %s of CPU time in one step", hardTime), true}
	case state.ExitCode() == -1: // a signal
		return &death{"killed", "its worker process was ended by " + state.String(), false}
	}
	// 2 is a panic: what it runs is all that can have one.
	return &death{"exit", "its worker process ended by " + state.String(), state.ExitCode() == 2}
}

// head keeps the beginning of what a worker says on its way out, which names the
// reason. What follows are addresses of its memory.
type head struct {
	mu sync.Mutex
	b  []byte
}

// Write implements [io.Writer].
func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, p[:min(len(p), 2<<10-len(h.b))]...)
	return len(p), nil
}

// String is what was kept.
func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.b)
}
