package program

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sync"
	"syscall"
	"time"
)

// Limits of a worker.
const (
	// maxMemory is what it may use. The kernel refuses more than maxAddresses, which Go
	// takes in pieces of 64 MiB, and its threads in ones of 8 MiB.
	maxMemory    = 128 << 20
	maxAddresses = 3 * maxMemory
	// maxStack ends a program that calls itself without end, long before memory does.
	maxStack = 32 << 20
	// softTime is the CPU time after which a record's programs are broken off between
	// two steps; hardTime ends the worker in the midst of one.
	softTime = 250 * time.Millisecond
	hardTime = 500 * time.Millisecond
	// kernelTime is when the kernel does it, in whole seconds.
	kernelTime = 2
	// watchEvery is how often the worker looks at what it has used.
	watchEvery = 10 * time.Millisecond
	// flushEvery is how long answers are kept back at most while others are computed.
	flushEvery = 5 * time.Millisecond
)

// Exit codes that say which limit was passed.
const (
	exitMemory = 3
	exitCPU    = 4
)

// What is asked, and what is answered: the first part of a frame.
const (
	askFilter    = 'f' // compile: the source
	askTransform = 't'
	askRun       = 'r' // run: documents

	answerKeep   = 'k' // as it is; compiled
	answerDrop   = 'd'
	answerShaped = 's' // envelope, data, properties, type
	answerFault  = 'e' // text
	answerSlow   = 'l'
)

// How a process knows that it is a worker. Both must hold, so that nobody makes one of
// another command by a variable that is set, nor by a name.
const (
	workerTitle    = "hogstream: filters and transforms"
	workerVariable = "HOGSTREAM_PROGRAM_WORKER_PIPE"
	workerValue    = "1"
)

// A worker is this binary once more, and becomes one before main begins. An init does it
// and not a line in main: nobody who embeds Hogstream, nor any test binary, can forget
// it, and what main would open first is never opened.
func init() {
	if len(os.Args) != 1 || os.Args[0] != workerTitle || os.Getenv(workerVariable) != workerValue {
		return
	}
	os.Clearenv()
	closeInherited()
	time.Local = time.UTC                                        // the same on all instances
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) // the parent says when to end
	runtime.GOMAXPROCS(2)                                        // the program, and the collector or the watch
	debug.SetMaxStack(maxStack)
	debug.SetGCPercent(400)                 // what a record makes is garbage after it
	debug.SetMemoryLimit(maxMemory * 3 / 4) // collect before the kernel refuses more
	if err := limitMemory(maxAddresses); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	// On a goroutine of its own: this one is tied to the main thread while inits run.
	go func() {
		if err := serve(os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}()
	select {}
}

// serve answers until its input ends, which is when the parent does.
func serve(in io.Reader, out io.Writer) error {
	r, w := bufio.NewReaderSize(in, 64<<10), bufio.NewWriterSize(out, 64<<10)
	s, watch := &shaper{}, startWatch()
	for {
		parts, err := readFrame(r, maxRequest)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && (len(parts) == 0 || len(parts[0]) != 1) {
			err = errGarbled
		}
		if err == nil {
			err = s.answer(w, watch, parts[0][0], parts[1:])
		}
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// answer writes a frame for each part.
func (s *shaper) answer(w *bufio.Writer, watch *watch, ask byte, parts [][]byte) error {
	flushed := time.Now()
	for _, part := range parts {
		if time.Since(flushed) > flushEvery {
			if err := w.Flush(); err != nil {
				return err
			}
			flushed = time.Now()
		}
		var answer [][]byte
		switch ask {
		case askRun:
			answer = s.run(watch, part)
		case askFilter:
			answer = compiled(watch, &s.filter, "filter", part)
		case askTransform:
			answer = compiled(watch, &s.transform, "transform", part)
		default:
			return errGarbled
		}
		if _, err := w.Write(frame(answer...)); err != nil {
			return err
		}
	}
	return nil
}

func compiled(watch *watch, to **jq, field string, source []byte) [][]byte {
	_, done := watch.begin()
	defer done()
	p, err := compile(field, string(source))
	if err != nil {
		return [][]byte{{answerFault}, []byte(err.Error())}
	}
	*to = p
	return [][]byte{{answerKeep}}
}

func (s *shaper) run(watch *watch, document []byte) [][]byte {
	ctx, done := watch.begin()
	defer done()
	answer, err := s.shape(ctx, document)
	switch {
	case err == nil:
		return answer
	case ctx.Err() != nil:
		return [][]byte{{answerSlow}}
	}
	return [][]byte{{answerFault}, []byte(err.Error())}
}

// A watch keeps the limits of the record at hand.
type watch struct {
	mu     sync.Mutex
	began  time.Duration // CPU time at which the record began
	cancel context.CancelFunc
}

func startWatch() *watch {
	w := &watch{}
	go func() {
		memory := []runtimemetrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		for range time.Tick(watchEvery) {
			w.look()
			runtimemetrics.Read(memory)
			if memory[0].Value.Uint64()-memory[1].Value.Uint64() > maxMemory {
				os.Exit(exitMemory)
			}
		}
	}()
	return w
}

// begin starts the time of a record. Its context is cancelled when the soft time is over.
func (w *watch) begin() (context.Context, func()) {
	limitCPU(kernelTime)
	ctx, cancel := context.WithCancel(context.Background())
	w.mu.Lock()
	w.began, w.cancel = cpuTime(), cancel
	w.mu.Unlock()
	return ctx, func() {
		w.mu.Lock()
		w.cancel = nil
		w.mu.Unlock()
		cancel()
	}
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel == nil {
		return
	}
	used := cpuTime() - w.began
	if used > softTime {
		w.cancel()
	}
	if used > hardTime {
		os.Exit(exitCPU)
	}
}
