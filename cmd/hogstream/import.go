package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

type eventsImportCmd struct {
	apiFlags
	File        string  `arg:"" help:"CSV file with a header, or NDJSON with an event as the API takes it on each line; - for NDJSON from standard input."`
	UserColumn  string  `help:"CSV column of the user id." default:"userId"`
	EmailColumn string  `help:"CSV column of the email address." default:"email"`
	NameColumn  string  `help:"CSV column of the event's name." default:"name"`
	TimeColumn  string  `help:"CSV column of the time." default:"timestamp"`
	Rate        float64 `help:"Events a second, at most; 0 for no limit." default:"0"`
	Connections int     `help:"Requests under way at once; events of one subject stay in order." default:"4"`
	BatchSize   int     `help:"Events a request." default:"500"`
}

// importSummary is what an import did.
type importSummary struct {
	Events   int64   `json:"events"`
	Accepted int64   `json:"accepted"`
	Rejected int64   `json:"rejected"`
	Seconds  float64 `json:"seconds"`
	// FirstRejections say why, the first few.
	FirstRejections []string `json:"firstRejections,omitempty"`
}

// Run sends the file.
func (c *eventsImportCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	file, size, err := openImport(c.File)
	if err != nil {
		return err
	}
	defer file.Close()
	bar := newProgress(size, "sending", true, out.JSON)
	source, err := c.source(io.TeeReader(file, bar))
	if err != nil {
		return err
	}
	s := sender{api: api, connections: max(1, c.Connections), batch: min(max(1, c.BatchSize), 1000), limit: limiter(c.Rate, c.BatchSize)}
	summary, err := s.send(ctx, source)
	_ = bar.Finish()
	if err != nil {
		return fmt.Errorf("after %d accepted events: %w", summary.Accepted, err)
	}
	return out.value(summary, func(w io.Writer) {
		fmt.Fprintf(w, "%d events: %d accepted, %d rejected, %.1f s\n", summary.Events, summary.Accepted, summary.Rejected, summary.Seconds)
		for _, r := range summary.FirstRejections {
			fmt.Fprintln(w, "  "+r)
		}
	})
}

func openImport(name string) (io.ReadCloser, int64, error) {
	if name == "-" {
		return os.Stdin, -1, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func limiter(perSecond float64, burst int) *rate.Limiter {
	if perSecond <= 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(perSecond), max(burst, 1))
}

// newProgress draws a bar for a person; bytes says what is counted.
func newProgress(total int64, what string, bytes, quiet bool) *progressbar.ProgressBar {
	opts := []progressbar.Option{
		progressbar.OptionSetDescription(what), progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionThrottle(100 * time.Millisecond), progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true), progressbar.OptionShowIts(), progressbar.OptionFullWidth(),
		progressbar.OptionOnCompletion(func() { fmt.Fprintln(os.Stderr) }),
		progressbar.OptionSetVisibility(!quiet && onTerminal()),
	}
	if bytes {
		opts = append(opts, progressbar.OptionShowBytes(true))
	}
	return progressbar.NewOptions64(total, opts...)
}

// source gives one event after the other; io.EOF at the end.
type source func() (eventBody, error)

func (c *eventsImportCmd) source(r io.Reader) (source, error) {
	if strings.EqualFold(filepath.Ext(c.File), ".csv") {
		return csvSource(r, csvColumns{user: c.UserColumn, email: c.EmailColumn, name: c.NameColumn, time: c.TimeColumn})
	}
	return ndjsonSource(r), nil
}

func ndjsonSource(r io.Reader) source {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	n := 0
	return func() (eventBody, error) {
		for lines.Scan() {
			n++
			if len(strings.TrimSpace(lines.Text())) == 0 {
				continue
			}
			var e eventBody
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return e, fmt.Errorf("line %d: %w", n, err)
			}
			return e, nil
		}
		if err := lines.Err(); err != nil {
			return eventBody{}, fmt.Errorf("line %d: %w", n+1, err)
		}
		return eventBody{}, io.EOF
	}
}

type csvColumns struct{ user, email, name, time string }

// csvSource reads events from CSV; columns without a role become event properties.
func csvSource(r io.Reader, columns csvColumns) (source, error) {
	cr := csv.NewReader(r)
	header, err := cr.Read()
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	index := map[string]int{}
	for i, name := range header {
		index[strings.TrimSpace(name)] = i
	}
	if _, ok := index[columns.name]; !ok {
		return nil, fmt.Errorf("no column %q for the event's name (columns: %s): set --name-column", columns.name, strings.Join(header, ", "))
	}
	_, user := index[columns.user]
	_, email := index[columns.email]
	if !user && !email {
		return nil, fmt.Errorf("no column %q or %q for the subject (columns: %s): set --user-column or --email-column", columns.user, columns.email, strings.Join(header, ", "))
	}
	return func() (eventBody, error) {
		row, err := cr.Read()
		if err != nil {
			return eventBody{}, err
		}
		var e eventBody
		for i, value := range row {
			switch name := strings.TrimSpace(header[i]); name {
			case columns.name:
				e.Name = value
			case columns.user:
				e.UserID = value
			case columns.email:
				e.Email = value
			case columns.time:
				line, _ := cr.FieldPos(i)
				if e.Timestamp, err = timestamp(value); err != nil {
					return e, fmt.Errorf("line %d, column %s: %w", line, name, err)
				}
			default:
				if e.EventProperties == nil {
					e.EventProperties = map[string]json.RawMessage{}
				}
				e.EventProperties[name] = jsonOrString(value)
			}
		}
		return e, nil
	}, nil
}

// timestamp takes what spreadsheets and databases write and gives what the API takes.
func timestamp(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC().Format("2006-01-02T15:04:05.999999Z"), nil
		}
	}
	return "", fmt.Errorf("%q is no time such as 2026-01-02T03:04:05Z", s)
}

// sender sends events in batches over several connections. Events of one
// subject go over the same one, so they arrive in order.
type sender struct {
	api         *client
	connections int
	batch       int
	limit       *rate.Limiter
	progress    func(accepted int) // may be nil
}

type batchAnswer struct {
	Accepted int `json:"accepted"`
	Rejected []struct {
		Index   int    `json:"index"`
		Path    any    `json:"path"`
		Message string `json:"message"`
	} `json:"rejected"`
}

// send sends what next gives until io.EOF.
func (s *sender) send(ctx context.Context, next source) (importSummary, error) {
	start := time.Now()
	var sum importSummary
	var accepted, rejected atomic.Int64
	rejections := make(chan string, 5)
	group, ctx := errgroup.WithContext(ctx)
	lanes := make([]chan eventBody, s.connections)
	for i := range lanes {
		lanes[i] = make(chan eventBody, 2*s.batch)
		group.Go(func() error {
			return s.sendLane(ctx, lanes[i], func(a batchAnswer) {
				accepted.Add(int64(a.Accepted))
				rejected.Add(int64(len(a.Rejected)))
				if s.progress != nil {
					s.progress(a.Accepted)
				}
				for _, r := range a.Rejected {
					select {
					case rejections <- fmt.Sprintf("%v: %s", r.Path, r.Message):
					default:
					}
				}
			})
		})
	}
	group.Go(func() error {
		defer func() {
			for _, lane := range lanes {
				close(lane)
			}
		}()
		for {
			e, err := next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			sum.Events++
			select {
			case lanes[laneOf(e, len(lanes))] <- e:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	err := group.Wait()
	close(rejections)
	for r := range rejections {
		sum.FirstRejections = append(sum.FirstRejections, r)
	}
	sum.Accepted, sum.Rejected, sum.Seconds = accepted.Load(), rejected.Load(), time.Since(start).Seconds()
	return sum, err
}

func laneOf(e eventBody, lanes int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(e.UserID))
	if e.UserID == "" {
		_, _ = h.Write([]byte(e.Email + e.AnonymousID))
	}
	return int(h.Sum32() % uint32(lanes))
}

// sendLane sends what arrives, as much at once as is waiting.
func (s *sender) sendLane(ctx context.Context, lane <-chan eventBody, answered func(batchAnswer)) error {
	batch := make([]eventBody, 0, s.batch)
	for e := range lane {
		batch = append(batch[:0], e)
	fill:
		for len(batch) < s.batch {
			select {
			case e, ok := <-lane:
				if !ok {
					break fill
				}
				batch = append(batch, e)
			default:
				break fill
			}
		}
		answer, err := s.sendBatch(ctx, batch)
		if err != nil {
			return err
		}
		answered(answer)
	}
	return nil
}

// sendBatch sends a batch, waiting when the API asks for it. A batch that was
// not accepted for certain is sent again only when the API said that it took nothing.
func (s *sender) sendBatch(ctx context.Context, batch []eventBody) (batchAnswer, error) {
	if err := s.limit.WaitN(ctx, len(batch)); err != nil {
		return batchAnswer{}, err
	}
	for {
		var answer batchAnswer
		err := s.api.call(ctx, "POST", "/v1/events/batch", nil, map[string]any{"events": batch}, &answer)
		var status *apiError
		if errors.As(err, &status) && status.Status == 429 {
			wait, perr := time.ParseDuration(status.RetryAfter + "s")
			if perr != nil || wait <= 0 {
				wait = time.Second
			}
			select {
			case <-time.After(wait):
				continue
			case <-ctx.Done():
				return answer, ctx.Err()
			}
		}
		return answer, err
	}
}
