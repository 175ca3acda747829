package predicate

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Line is one line of a drawn explanation. Its parts hold no control characters, whatever a
// contact's properties say; colour is left to who prints them.
type Line struct {
	Tree  string // branches of the tree, such as "│  └─ "
	Holds bool
	Text  string    // what is asked
	Saw   string    // what was seen
	Why   string    // see [Explanation]
	Next  time.Time // zero: time alone turns nothing
}

// maxSaw is how many letters of a value are drawn.
const maxSaw = 60

// Lines are the lines of the tree, from the root down.
func (e *Explanation) Lines() []Line { return e.lines(nil, "", "") }

// lines appends the node's line behind the branch that leads to it, and those within it.
func (e *Explanation) lines(out []Line, branch, below string) []Line {
	line := Line{Tree: branch, Holds: e.Holds, Text: printable(e.Text), Why: printable(e.Why), Next: e.Next}
	if e.Saw != nil {
		line.Saw = printable(e.Saw.words())
	}
	out = append(out, line)
	for i := range e.Conditions {
		branch, inner := below+"├─ ", below+"│  "
		if i == len(e.Conditions)-1 {
			branch, inner = below+"└─ ", below+"   "
		}
		out = e.Conditions[i].lines(out, branch, inner)
	}
	return out
}

// String draws the tree, a line for each condition, in columns.
func (e *Explanation) String() string {
	lines := e.Lines()
	asked, saw := 0, 0
	for i := range lines {
		asked = max(asked, utf8.RuneCountInString(lines[i].Tree+lines[i].Text))
		saw = max(saw, utf8.RuneCountInString(lines[i].Saw))
	}
	var out strings.Builder
	for i := range lines {
		l := &lines[i]
		row := l.Tree + l.Mark() + " " + padded(l.Text, asked-utf8.RuneCountInString(l.Tree)) + "  " + padded(l.Saw, saw) + "  " + l.Note()
		out.WriteString(strings.TrimRight(row, " ") + "\n")
	}
	return out.String()
}

// Mark is ✓ or ✗.
func (l *Line) Mark() string {
	if l.Holds {
		return "✓"
	}
	return "✗"
}

// Note is why, and when time alone may turn the answer.
func (l *Line) Note() string {
	switch {
	case l.Next.IsZero():
		return l.Why
	case l.Why == "":
		return "may turn " + timeWords(l.Next)
	}
	return l.Why + "; may turn " + timeWords(l.Next)
}

// words is what was seen, in short.
func (s *Saw) words() string {
	var out []string
	if s.Count != nil {
		count := strconv.Itoa(*s.Count)
		if s.More {
			count += " or more"
		}
		out = append(out, count+" counted")
	}
	if s.Total != "" {
		out = append(out, "total "+string(s.Total))
	}
	if s.Value != nil {
		out = append(out, shortened(string(s.Value)))
	}
	if s.With != nil {
		out = append(out, s.Date+" against "+strings.Join(s.With, " and "))
		if s.Zone != "" {
			out = append(out, "in "+s.Zone)
		}
	}
	for i := range s.Events {
		out = append(out, s.Events[i].words())
	}
	return strings.Join(out, ", ")
}

func (e *SawEvent) words() string {
	what := e.Part
	switch {
	case e.Part != "":
	case e.Nth == 0:
		what = "first"
	default:
		what = strings.TrimPrefix(newestWords(e.Nth), "the ")
	}
	return what + " at " + timeWords(e.At)
}

// shortened cuts a value that is long.
func shortened(text string) string {
	if utf8.RuneCountInString(text) <= maxSaw {
		return text
	}
	return string([]rune(text)[:maxSaw-1]) + "…"
}

// printable replaces what is no letter on a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, text)
}

func padded(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}
