package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/hogstream/hogstream/cmd/hogstream/eventfile"
)

// maxRequest bounds the events of a request, below what the API takes.
const maxRequest = 4 << 20

// source gives one event after the other; io.EOF at the end.
type source func() (eventfile.Event, error)

// sender sends events in batches over several connections. Events of one
// subject go over the same one, so they arrive in order.
type sender struct {
	api         *client
	connections int
	batch       int
	limit       *rate.Limiter
	patience    time.Duration // for how long a request is tried again
}

type batchAnswer struct {
	Accepted int `json:"accepted"`
	Rejected []struct {
		Index   int    `json:"index"`
		Code    string `json:"code"`
		Path    any    `json:"path"`
		Message string `json:"message"`
	} `json:"rejected"`
}

// tally is what has become of the events. Safe for concurrent use.
type tally struct {
	mu    sync.Mutex
	sum   importSummary
	next  int           // the line to be read next
	lanes map[int][]int // lines that were read and are not answered, in order

	rejections []rejection
}

func (t *tally) read(e eventfile.Event, lane int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.Events++
	t.next = e.Line + 1
	if e.Problem == "" {
		t.lanes[lane] = append(t.lanes[lane], e.Line)
		return
	}
	t.reject(e, e.Problem)
}

// rejectionsTold bounds what is told of a file in which everything is wrong.
const rejectionsTold = 1000

// rejection is why a line was refused.
type rejection struct {
	line int
	why  string
}

func (t *tally) reject(e eventfile.Event, why string) {
	t.sum.Rejected++
	t.sum.refused[e.Number] = true
	if len(t.rejections) < rejectionsTold {
		t.rejections = append(t.rejections, rejection{e.Line, why})
	}
}

// summary is all of it, rejections in the order of their lines: connections answer in any.
func (t *tally) summary(took time.Duration) importSummary {
	slices.SortStableFunc(t.rejections, func(a, b rejection) int { return a.line - b.line })
	for _, r := range t.rejections {
		t.sum.FirstRejections = append(t.sum.FirstRejections, fmt.Sprintf("line %d: %s", r.line, r.why))
	}
	t.sum.Seconds, t.sum.resumeAt = took.Seconds(), t.resumeAt()
	return t.sum
}

// resumeAt is the first line of which nobody knows what became of it.
func (t *tally) resumeAt() int {
	first := math.MaxInt
	for _, lane := range t.lanes {
		if len(lane) > 0 {
			first = min(first, lane[0])
		}
	}
	if first == math.MaxInt {
		return t.next
	}
	return first
}

// send sends what next gives until io.EOF.
func (s *sender) send(ctx context.Context, next source) (importSummary, error) {
	start := time.Now()
	t := &tally{next: 1, lanes: map[int][]int{}, sum: importSummary{refused: map[int]bool{}}}
	group, ctx := errgroup.WithContext(ctx)
	lanes := make([]chan eventfile.Event, s.connections)
	for i := range lanes {
		lanes[i] = make(chan eventfile.Event, 2*s.batch)
		group.Go(func() error { return s.sendLane(ctx, i, lanes[i], t) })
	}
	group.Go(func() error {
		defer func() {
			for _, lane := range lanes {
				close(lane)
			}
		}()
		return s.read(ctx, next, lanes, t)
	})
	err := group.Wait()
	return t.summary(time.Since(start)), err
}

func (s *sender) read(ctx context.Context, next source, lanes []chan eventfile.Event, t *tally) error {
	for {
		e, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		lane := laneOf(e, len(lanes))
		t.read(e, lane)
		if e.Problem != "" {
			continue
		}
		select {
		case lanes[lane] <- e:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func laneOf(e eventfile.Event, lanes int) int {
	h := fnv.New32a()
	_, _ = io.WriteString(h, e.Subject)
	return int(h.Sum32() % uint32(lanes))
}

// sendLane sends what arrives, as much at once as is waiting and a request takes.
func (s *sender) sendLane(ctx context.Context, number int, lane <-chan eventfile.Event, t *tally) error {
	var held *eventfile.Event // did not fit into the batch before
	for {
		var batch []eventfile.Event
		if held != nil {
			batch, held = append(batch, *held), nil
		} else if e, ok := <-lane; ok {
			batch = append(batch, e)
		} else {
			return nil
		}
		size := len(batch[0].JSON)
	fill:
		for len(batch) < s.batch {
			select {
			case e, ok := <-lane:
				if !ok {
					break fill
				}
				if size += len(e.JSON) + 1; size > maxRequest {
					held = &e
					break fill
				}
				batch = append(batch, e)
			default:
				break fill
			}
		}
		if err := s.sendBatch(ctx, batch, t); err != nil {
			return err
		}
		t.mu.Lock()
		t.lanes[number] = t.lanes[number][len(batch):]
		t.mu.Unlock()
	}
}

// sendBatch sends a batch until each of its events is accepted or refused. What
// may have been accepted is sent again only when idempotency keys make that safe.
func (s *sender) sendBatch(ctx context.Context, batch []eventfile.Event, t *tally) error {
	if err := s.limit.WaitN(ctx, len(batch)); err != nil {
		return err
	}
	giveUp := time.Now().Add(s.patience)
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		answer, err := s.post(ctx, batch)
		if err == nil {
			if batch = t.answered(batch, answer); len(batch) == 0 {
				return nil
			}
			err = errors.New("the log did not confirm some events")
		}
		pause, again := retryAfter(err, wait)
		if keyed := !slices.ContainsFunc(batch, func(e eventfile.Event) bool { return !e.Keyed }); !again && !(keyed && uncertain(err)) {
			return err
		}
		if time.Now().Add(pause).After(giveUp) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// answered counts what was answered and returns the events whose fate is open.
func (t *tally) answered(batch []eventfile.Event, answer batchAnswer) (open []eventfile.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.Accepted += int64(answer.Accepted)
	for _, r := range answer.Rejected {
		switch {
		case r.Index < 0 || r.Index >= len(batch):
		case r.Code == "unavailable":
			open = append(open, batch[r.Index])
		default:
			t.reject(batch[r.Index], fmt.Sprintf("%v: %s", r.Path, r.Message))
		}
	}
	return open
}

// post sends one request. The events go as they are, byte for byte.
func (s *sender) post(ctx context.Context, batch []eventfile.Event) (answer batchAnswer, err error) {
	var body bytes.Buffer
	for i, e := range batch {
		body.WriteString([]string{`{"events":[`, ","}[min(i, 1)])
		body.Write(e.JSON)
	}
	body.WriteString("]}")
	err = s.api.send(ctx, "POST", "/v1/events/batch", nil, body.Bytes(), &answer)
	var status *apiError
	if errors.As(err, &status) && status.Status == 400 && json.Unmarshal(status.Body, &answer) == nil && len(answer.Rejected) > 0 {
		err = nil // all were refused, each for its own reason
	}
	return answer, err
}

// retryAfter is how long to wait, and whether nothing was taken for certain.
func retryAfter(err error, otherwise time.Duration) (wait time.Duration, nothingTaken bool) {
	var status *apiError
	if !errors.As(err, &status) {
		return otherwise, false
	}
	asked, err := strconv.Atoi(status.RetryAfter)
	switch wait = time.Duration(asked) * time.Second; {
	case err != nil || asked <= 0:
		wait = otherwise
	case status.Status != 429: // an outage is met with more patience than it asks for
		wait = max(wait, otherwise)
	}
	return wait, status.Status == 429
}

// uncertain reports whether events may have been accepted, and a second try may
// do better: an answer that the API gives in an outage, or none at all.
func uncertain(err error) bool {
	var status *apiError
	return !errors.As(err, &status) || status.Status >= 500 || status.Status == 408
}
