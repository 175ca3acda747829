package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/predicate"
)

type bucketsWhyCmd struct {
	apiFlags
	UserID string `arg:"" help:"A user id, an anonymous id or a contact id; it need not be a member."`
	Bucket string `arg:"" help:"Id of the bucket."`
	At     string `help:"As of a transition, instead of now: 2 is the second join, 2/left the leave after it; or the id of a bucket.entered or bucket.left." placeholder:"TRANSITION"`
}

// Run says why a contact is in a bucket, or why not.
func (c *bucketsWhyCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var answer explain.Answer
	path := bucketsPath + "/" + url.PathEscape(c.Bucket) + "/members/" + url.PathEscape(c.UserID) + "/why"
	query := url.Values{}
	setQuery(query, "at", c.At)
	if err := api.call(ctx, http.MethodGet, path, query, nil, &answer); err != nil {
		return err
	}
	return out.value(&answer, func(w io.Writer) { printWhy(w, &answer) })
}

// printWhy draws an answer: what decides, the tree of the criteria, and the membership.
func printWhy(w io.Writer, a *explain.Answer) {
	fmt.Fprintf(w, "%s %s %s\n", a.UserID, isWords(a), a.BucketID)
	for _, r := range a.Reasons {
		fmt.Fprintf(w, "  %s\n", r.Text)
	}
	if t := a.Transition; t != nil {
		fmt.Fprintf(w, "  %s\n", transitionWords(t))
	}
	if m := a.Membership; m != nil {
		fmt.Fprintf(w, "  joined for the %s time at %s (%s)%s\n", ordinal(int(m.Epoch)), shownTime(m.EnteredAt), m.Source, leftWords(m))
	}
	if !a.Next.IsZero() {
		fmt.Fprintf(w, "  time alone may change that at %s\n", shownTime(a.Next))
	}
	if a.Criteria != nil {
		fmt.Fprintln(w)
		drawTree(w, a.Criteria)
	}
	if len(a.Transitions) > 0 && a.Transition == nil {
		fmt.Fprintln(w)
		printTransitions(w, a.Transitions)
	}
}

// isWords says whether it is a member, or what the transition was that was asked for.
func isWords(a *explain.Answer) string {
	switch t := a.Transition; {
	case t != nil && t.Is == "left":
		return "left"
	case t != nil:
		return "joined"
	case a.Member:
		return "is in"
	}
	return "is not in"
}

// transitionWords say when a transition was, by which record, and by which fact it was told.
func transitionWords(t *explain.Transition) string {
	out := "at " + shownTime(t.At)
	if t.Cause != nil {
		out += ", record " + t.Cause.ID
		if t.Cause.Place != nil {
			out += " (" + placeWords(t.Cause.Place) + ")"
		}
	}
	if t.Told != nil && *t.Told {
		return out + ", told by " + t.Fact
	}
	return out + ", told by none"
}

// printTransitions lists joins and leaves, with the records that led to them.
func printTransitions(w io.Writer, all []explain.Transition) {
	rows := make([][]string, 0, len(all))
	for _, t := range all {
		told, cause := "?", ""
		if t.Told != nil {
			told = map[bool]string{true: "told", false: "silent"}[*t.Told]
		}
		if t.Cause != nil {
			cause = t.Cause.ID
			if t.Cause.Place != nil {
				cause = placeWords(t.Cause.Place)
			}
		}
		rows = append(rows, []string{t.Name, t.Is, shownTime(t.At), t.Source + t.Reason, told, cause})
	}
	table(w, []string{"at", "is", "when", "because of", "told", "cause"}, rows)
}

func leftWords(m *explain.Membership) string {
	if m.LeftAt.IsZero() {
		return ""
	}
	return fmt.Sprintf(", left at %s (%s)", shownTime(m.LeftAt), m.Reason)
}

// drawTree draws the criteria, a line for each condition in columns, and below a leaf what
// turned it.
func drawTree(w io.Writer, e *predicate.Explanation) {
	lines, leaves := e.Lines(), partsOf(e, nil)
	asked, saw := 0, 0
	for i := range lines {
		asked = max(asked, utf8.RuneCountInString(lines[i].Tree+lines[i].Text))
		saw = max(saw, utf8.RuneCountInString(lines[i].Saw))
	}
	for i := range lines {
		l := &lines[i]
		row := l.Tree + l.Mark() + " " + padTo(l.Text, asked-utf8.RuneCountInString(l.Tree)) + "  " + padTo(l.Saw, saw) + "  " + l.Note()
		fmt.Fprintln(w, strings.TrimRight(row, " "))
		if t := leaves[i].Turned; t != nil {
			fmt.Fprintln(w, strings.NewReplacer("├─ ", "│  ", "└─ ", "   ").Replace(l.Tree)+"    "+turnWords(t))
		}
	}
}

// partsOf are a condition and those within it, in the order in which they are drawn.
func partsOf(e *predicate.Explanation, all []*predicate.Explanation) []*predicate.Explanation {
	all = append(all, e)
	for i := range e.Conditions {
		all = partsOf(&e.Conditions[i], all)
	}
	return all
}

// turnWords says what turned an answer.
func turnWords(t *predicate.Turn) string {
	out := "turned "
	if t.OrBefore {
		out += "at the latest "
	}
	out += "at " + shownTime(t.At)
	switch {
	case t.By == predicate.ByTime:
		out += " by time alone"
	case t.Place != nil:
		out += " by " + placeWords(t.Place)
	case t.Record.String() != nobody:
		out += " by record " + t.Record.String()
	}
	return out
}

// nobody is the id of a record that is not known.
const nobody = "00000000-0000-0000-0000-000000000000"

func placeWords(p *predicate.Place) string {
	return fmt.Sprintf("%s-%d-%d", p.Topic, p.Partition, p.Offset)
}

func padTo(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func shownTime(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05Z") }
