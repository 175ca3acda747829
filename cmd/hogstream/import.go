package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/time/rate"
)

type eventsImportCmd struct {
	apiFlags
	File        string  `arg:"" help:"CSV file with a header, or NDJSON with an event as the API takes it on each line; - for NDJSON from standard input. Lines are sent as they are."`
	UserColumn  string  `help:"CSV column of the user id." default:"userId"`
	EmailColumn string  `help:"CSV column of the email address." default:"email"`
	NameColumn  string  `help:"CSV column of the event's name." default:"name"`
	TimeColumn  string  `help:"CSV column of the time." default:"timestamp"`
	Rate        float64 `help:"Events a second, at most; 0 for no limit." default:"0"`
	Connections int     `help:"Requests under way at once; events of one subject stay in order." default:"4"`
	BatchSize   int     `help:"Events a request, at most; it also holds no more than 4 MiB." default:"500"`
	FromLine    int     `help:"Line to begin with, as an import that stopped names it." default:"1"`
	Keys        bool    `help:"Give each event without an idempotency key one of the file's name, the line's number and its content, so that requests can be tried again, and a second import of the file within the idempotency window stores nothing twice." negatable:"" default:"true"`
}

// Help is shown by --help.
func (c *eventsImportCmd) Help() string {
	return "Requests that the API puts off (429), or of which nobody knows whether they were taken (503, a lost connection), are sent again for up to ten minutes; the latter only when all of their events have idempotency keys. What the API refuses is told at the end with its line; the others go on. When an import has to stop, it names the line to go on from."
}

// importSummary is what an import did.
type importSummary struct {
	Events   int64   `json:"events"`
	Accepted int64   `json:"accepted"`
	Rejected int64   `json:"rejected"`
	Seconds  float64 `json:"seconds"`
	// FirstRejections say why, the first thousand.
	FirstRejections []string `json:"firstRejections,omitempty"`

	resumeAt int // the first line that is not answered
}

// importPatience is for how long a request is tried again.
const importPatience = 10 * time.Minute

func (c *eventsImportCmd) resume(line int) string {
	s := fmt.Sprintf("every event before line %d is answered; go on with --from-line %d", line, line)
	if c.Keys && c.File != "-" {
		return s + ", which stores nothing twice within the idempotency window"
	}
	return s + "; events after it that were accepted already are stored again, unless they have idempotency keys"
}

// from leaves out the lines before FromLine and gives keys to those that have none.
func (c *eventsImportCmd) from(next source) source {
	name := filepath.Base(c.File)
	if c.File == "-" {
		name = rand.Text() // another run is another text
	}
	return func() (importEvent, error) {
		for {
			e, err := next()
			if err != nil || e.line < c.FromLine {
				if err == nil {
					continue
				}
				return e, err
			}
			if c.Keys && !e.keyed && e.wrong == "" {
				e.giveKey(name)
			}
			return e, nil
		}
	}
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
	s := sender{api: api, connections: max(1, c.Connections), batch: min(max(1, c.BatchSize), 1000), limit: limiter(c.Rate, c.BatchSize), patience: importPatience}
	summary, err := s.send(ctx, c.from(source))
	_ = bar.Finish()
	if isInterrupted(ctx, err) {
		err = errors.New("interrupted") // no more than where to go on has to be said, but that
	}
	if err != nil {
		return fmt.Errorf("stopped after %d accepted events: %w\n%s", summary.Accepted, err, c.resume(summary.resumeAt))
	}
	return out.value(summary, func(w io.Writer) {
		fmt.Fprintf(w, "%d events: %d accepted, %d rejected, %.1f s\n", summary.Events, summary.Accepted, summary.Rejected, summary.Seconds)
		for _, r := range summary.FirstRejections {
			fmt.Fprintln(w, "  "+r)
		}
		if more := summary.Rejected - int64(len(summary.FirstRejections)); more > 0 {
			fmt.Fprintf(w, "  and %d more\n", more)
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

func (c *eventsImportCmd) source(r io.Reader) (source, error) {
	if strings.EqualFold(filepath.Ext(c.File), ".csv") {
		return csvSource(r, csvColumns{user: c.UserColumn, email: c.EmailColumn, name: c.NameColumn, time: c.TimeColumn})
	}
	return ndjsonSource(r), nil
}
