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
}

// Run says why a contact is in a bucket, or why not.
func (c *bucketsWhyCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var answer explain.Answer
	path := bucketsPath + "/" + url.PathEscape(c.Bucket) + "/members/" + url.PathEscape(c.UserID) + "/why"
	if err := api.call(ctx, http.MethodGet, path, nil, nil, &answer); err != nil {
		return err
	}
	return out.value(&answer, func(w io.Writer) { printWhy(w, &answer) })
}

// printWhy draws an answer: what decides, the tree of the criteria, and the membership.
func printWhy(w io.Writer, a *explain.Answer) {
	is := "is not in"
	if a.Member {
		is = "is in"
	}
	fmt.Fprintf(w, "%s %s %s\n", a.UserID, is, a.BucketID)
	for _, r := range a.Reasons {
		fmt.Fprintf(w, "  %s\n", r.Text)
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
