package main

import (
	"bufio"
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

	"github.com/hogstream/hogstream/cmd/hogstream/eventfile"
)

type eventsImportCmd struct {
	apiFlags
	File        string   `arg:"" help:"CSV with a header, NDJSON or a JSON array of events as the API takes them, also gzipped; - for standard input."`
	UserColumn  string   `help:"CSV column of the user id, when it is not called userId." placeholder:"NAME"`
	EmailColumn string   `help:"CSV column of the email address, when it is not called email." placeholder:"NAME"`
	NameColumn  string   `help:"CSV column of the event's name, when it is not called name." placeholder:"NAME"`
	TimeColumn  string   `help:"CSV column of the time, when it is not called timestamp." placeholder:"NAME"`
	Types       []string `help:"Types of CSV columns that are no text: total=number,paid=boolean,items=json. The header can say the same as total:number." placeholder:"COLUMN=TYPE"`
	Encoding    string   `help:"Encoding of the file: utf-8 (default, or what its byte order mark says), utf-16 or windows-1252." placeholder:"NAME"`
	TimeZone    string   `help:"Zone of CSV times that name none." default:"UTC"`
	UnixTimes   string   `help:"What CSV times count that are numbers since 1970: s, ms or us." enum:"s,ms,us," default:"" placeholder:"UNIT"`
	Rate        float64  `help:"Events a second, at most; 0 for no limit." default:"0"`
	Connections int      `help:"Requests under way at once; events of one subject stay in order." default:"4"`
	BatchSize   int      `help:"Events a request, at most; it also holds no more than 4 MiB." default:"500"`
	FromLine    int      `help:"Line to begin with, as an import that stopped names it." default:"1"`
	Keys        bool     `help:"Give each event without an idempotency key one of the file's name, the line's content and how often it came before, so that requests can be tried again, and a second import of the file, also a mended one, stores nothing twice within the idempotency window." negatable:"" default:"true"`
	Refused     string   `help:"Where to write the lines that were refused, to be mended and imported again; default FILE.refused.csv or .ndjson." placeholder:"FILE"`
}

// Help is shown by --help.
func (c *eventsImportCmd) Help() string {
	return "CSV columns name, userId, email, anonymousId, idempotencyKey and timestamp are the event's fields; eventProperties.x, contactProperties.x and lists.x one member of those objects; any other is an event property. Cells are text, as they stand, unless a type is given; an empty cell says nothing. Requests that the API puts off (429), or of which nobody knows whether they were taken (503, a lost connection), are sent again for up to ten minutes; the latter only when all of their events have idempotency keys. A line that is refused is told at the end with its number; the others go on, and the exit code is 1. When an import has to stop, it names the line to go on from."
}

// importSummary is what an import did.
type importSummary struct {
	Events   int64   `json:"events"`
	Accepted int64   `json:"accepted"`
	Rejected int64   `json:"rejected"`
	Seconds  float64 `json:"seconds"`
	// FirstRejections say why, in the order of their lines, a thousand at most.
	FirstRejections []string `json:"firstRejections,omitempty"`
	// RefusedFile holds the lines that were refused.
	RefusedFile string `json:"refusedFile,omitempty"`

	resumeAt int          // the first line that is not answered
	refused  map[int]bool // by the numbers of their events
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

// options say how the file is read.
func (c *eventsImportCmd) options() (eventfile.Options, error) {
	o := eventfile.Options{
		Name: c.File, Encoding: c.Encoding, Types: map[string]eventfile.Type{},
		Columns: eventfile.Columns{Name: c.NameColumn, UserID: c.UserColumn, Email: c.EmailColumn, Time: c.TimeColumn},
		Unix:    map[string]time.Duration{"s": time.Second, "ms": time.Millisecond, "us": time.Microsecond}[c.UnixTimes],
	}
	for _, given := range c.Types {
		name, text, _ := strings.Cut(given, "=")
		typ, err := eventfile.ParseType(text)
		if err != nil {
			return o, fmt.Errorf("--types %s: %w", given, err)
		}
		o.Types[name] = typ
	}
	zone, err := time.LoadLocation(c.TimeZone)
	if err != nil {
		return o, fmt.Errorf("--time-zone: %w: give a name such as Europe/Berlin", err)
	}
	o.Zone = zone
	return o, nil
}

// from leaves out the lines before FromLine and gives keys to those that have none.
func (c *eventsImportCmd) from(file *eventfile.Reader) source {
	name := filepath.Base(c.File)
	if c.File == "-" {
		name = rand.Text() // another run is another text
	}
	return func() (eventfile.Event, error) {
		for {
			e, err := file.Next()
			if err != nil {
				return e, err
			}
			if c.Keys {
				file.Key(&e, name)
			}
			if e.Line >= c.FromLine {
				return e, nil
			}
		}
	}
}

// Run sends the file.
func (c *eventsImportCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	options, err := c.options()
	if err != nil {
		return err
	}
	file, size, err := openImport(c.File)
	if err != nil {
		return err
	}
	defer file.Close()
	bar := newProgress(size, "sending", true, out.JSON)
	reader, err := eventfile.New(io.TeeReader(file, bar), options)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	s := sender{api: api, connections: max(1, c.Connections), batch: min(max(1, c.BatchSize), 1000), limit: limiter(c.Rate, c.BatchSize), patience: importPatience}
	summary, err := s.send(ctx, c.from(reader))
	_ = bar.Finish()
	if isInterrupted(ctx, err) {
		err = errors.New("interrupted") // no more than where to go on has to be said, but that
	}
	if err != nil {
		err = fmt.Errorf("stopped after %d accepted events: %w\n%s", summary.Accepted, err, c.resume(summary.resumeAt))
	} else {
		err = summary.verdict()
	}
	return errors.Join(c.writeRefused(&summary, options), out.value(summary, summary.tell), err)
}

// writeRefused writes the lines that were refused to a file of their own, read once more.
func (c *eventsImportCmd) writeRefused(s *importSummary, o eventfile.Options) error {
	if len(s.refused) == 0 || c.File == "-" {
		return nil
	}
	name := c.Refused
	if name == "" {
		name = eventfile.RefusedName(c.File)
	}
	file, _, err := openImport(c.File)
	if err != nil {
		return err
	}
	defer file.Close()
	to, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write the lines that were refused: %w", err)
	}
	text := bufio.NewWriter(to)
	if err := errors.Join(eventfile.CopyRefused(text, file, o, s.refused), text.Flush(), to.Close()); err != nil {
		return fmt.Errorf("write the lines that were refused to %s: %w", name, err)
	}
	s.RefusedFile = name
	return nil
}

// tell prints the summary for a person.
func (s importSummary) tell(w io.Writer) {
	fmt.Fprintf(w, "%d events: %d accepted, %d rejected, %.1f s\n", s.Events, s.Accepted, s.Rejected, s.Seconds)
	for _, r := range s.FirstRejections {
		fmt.Fprintln(w, "  "+r)
	}
	if more := s.Rejected - int64(len(s.FirstRejections)); more > 0 {
		fmt.Fprintf(w, "  and %d more\n", more)
	}
	if s.RefusedFile != "" {
		fmt.Fprintf(w, "The refused lines are in %s: mend them there and import that file.\n", s.RefusedFile)
	}
}

// verdict is an error when not all of the file was taken, or there was nothing in it.
func (s importSummary) verdict() error {
	switch {
	case s.Rejected > 0:
		return fmt.Errorf("%d of %d events were refused", s.Rejected, s.Events)
	case s.Events == 0:
		return errors.New("there is no event in the file")
	}
	return nil
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
