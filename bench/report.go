package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// section is what a bench has to say.
type section struct {
	title   string
	about   string // what was compared, under which conditions
	figures []figure
	notes   []string

	name, command string
	begun         time.Time
	took          time.Duration
}

// figure is a line of the table.
type figure struct {
	what   string
	value  string
	rounds string // all rounds, for the spread
	target string // empty when there is none
	met    bool
}

// ratioFigure reports the median of the rounds' ratios.
func ratioFigure(what string, ratios []float64, atLeast float64) figure {
	m := median(ratios)
	f := figure{what: what, value: fmt.Sprintf("%.2f", m), rounds: join(ratios, "%.2f")}
	if atLeast > 0 {
		f.target, f.met = fmt.Sprintf("≥ %.2f", atLeast), m >= atLeast
	}
	return f
}

// rateFigure reports the median of rates; atLeast 0 is no target.
func rateFigure(what string, rates []float64, atLeast float64) figure {
	m := median(rates)
	f := figure{what: what, value: thousands(m) + "/s", rounds: join(rates, "%.0f")}
	if atLeast > 0 {
		f.target, f.met = "≥ "+thousands(atLeast)+"/s", m >= atLeast
	}
	return f
}

// costFigure reports the median of what must not exceed a bound; 0 is no target.
func costFigure(what, unit string, values []float64, atMost float64) figure {
	m := median(values)
	f := figure{what: what, value: strings.TrimSpace(fmt.Sprintf("%.1f %s", m, unit)), rounds: join(values, "%.1f")}
	if atMost > 0 {
		f.target, f.met = strings.TrimSpace(fmt.Sprintf("≤ %g %s", atMost, unit)), m <= atMost
	}
	return f
}

// timesFigure reports the median of ratios that must not exceed a bound; 0 is no
// target.
func timesFigure(what string, ratios []float64, atMost float64) figure {
	m := median(ratios)
	f := figure{what: what, value: fmt.Sprintf("%.2f", m), rounds: join(ratios, "%.2f")}
	if atMost > 0 {
		f.target, f.met = fmt.Sprintf("≤ %.2f", atMost), m <= atMost
	}
	return f
}

// boundFigure reports one value that must not exceed a bound.
func boundFigure(what, unit string, value, atMost float64) figure {
	text := func(v float64) string { return strings.TrimSpace(fmt.Sprintf("%.4g %s", v, unit)) }
	return figure{what: what, value: text(value), target: "≤ " + text(atMost), met: value <= atMost}
}

// countFigure reports a number that must not exceed a bound.
func countFigure(what string, n, atMost int) figure {
	return figure{what: what, value: thousands(float64(n)), target: "≤ " + thousands(float64(atMost)), met: n <= atMost}
}

func (f figure) verdict() string {
	switch {
	case f.target == "":
		return ""
	case f.met:
		return "met"
	}
	return "**below target**"
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// quantile of values in seconds, as a duration.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func join(values []float64, format string) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = fmt.Sprintf(format, v)
	}
	return strings.Join(texts, ", ")
}

func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// printTo shows the figures on a terminal.
func (s *section) printTo(w io.Writer) {
	for _, f := range s.figures {
		line := fmt.Sprintf("  %-64s %16s", f.what, f.value)
		if f.target != "" {
			line += fmt.Sprintf("   %s  %s", f.target, strings.Trim(f.verdict(), "*"))
		}
		_, _ = fmt.Fprintln(w, line)
		_, _ = fmt.Fprintf(w, "      rounds: %s\n", f.rounds)
	}
	for _, n := range s.notes {
		_, _ = fmt.Fprintln(w, "  note:", n)
	}
}

func (s *section) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n<!-- bench: %s -->\n\n%s\n\n", s.title, s.name, s.about)
	b.WriteString("| figure | median | target | | rounds |\n|---|---|---|---|---|\n")
	for _, f := range s.figures {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", f.what, f.value, f.target, f.verdict(), f.rounds)
	}
	b.WriteString("\n")
	for _, n := range s.notes {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	if len(s.notes) > 0 {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "Measured with `%s` on %s, in %s. %s\n", s.command, s.begun.UTC().Format("2006-01-02 15:04 MST"), s.took.Round(time.Second), machine())
	return b.String()
}

// machine says what the figures were measured on.
func machine() string {
	text := fmt.Sprintf("%d cores, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib int64
		if _, err := fmt.Sscanf(string(info), "MemTotal: %d kB", &kib); err == nil {
			text += fmt.Sprintf(", %d GiB", (kib+1<<19)>>20)
		}
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		if fields := strings.Fields(string(load)); len(fields) > 0 {
			text += ", load average at the end " + fields[0]
		}
	}
	return text + "."
}

const reportHead = `# Benchmarks

Written by ` + "`make bench`" + ` (` + "`hogstream bench NAME`" + ` measures one and replaces its section). Each ratio compares two
things that ran within the same seconds, in alternating rounds, on one machine that also ran the load generator,
the broker, Postgres and the receiver; the median of the rounds counts. Absolute figures depend on what else the
machine did: read the load average beside them. The broker is the in-process one of embedded mode, in memory and in
a process of its own, unless a section says otherwise.
`

// writeTo replaces the section in the report, or adds it.
func (s *section) writeTo(path string) error {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the report: %w", err)
	}
	sections := map[string]string{s.name: s.markdown()}
	for _, part := range bytes.Split(text, []byte("\n## "))[min(1, len(text)):] {
		name, _, ok := strings.Cut(after(string(part), "<!-- bench: "), " -->")
		if ok && sections[name] == "" {
			sections[name] = "## " + strings.TrimSpace(string(part)) + "\n"
		}
	}
	out := reportHead
	for _, name := range Names() {
		if sections[name] != "" {
			out += "\n" + sections[name]
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func after(s, mark string) string {
	_, rest, _ := strings.Cut(s, mark)
	return rest
}
