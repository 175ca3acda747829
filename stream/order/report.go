package order

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/schemas"
)

// Kind is what is wrong.
type Kind string

// What can be wrong.
const (
	KindHole       Kind = "hole"       // numbers are missing between others
	KindRepeat     Kind = "repeat"     // a number stands there for the second time
	KindDisorder   Kind = "disorder"   // a number or era behind a higher one, on one topic
	KindUnnumbered Kind = "unnumbered" // a record without a number behind one that has one, on one topic
)

// Place is where a record stands.
type Place struct {
	Topic     schemas.Topic `json:"topic"`
	Partition int32         `json:"partition"`
	Offset    int64         `json:"offset"`
}

// String is the place as topic/partition@offset.
func (p Place) String() string { return fmt.Sprintf("%s/%d@%d", p.Topic, p.Partition, p.Offset) }

// Finding is an example of what is wrong.
type Finding struct {
	Kind    Kind   `json:"kind"`
	Contact string `json:"contact"`
	Era     int64  `json:"era"`
	Seq     int64  `json:"seq"`          // the number, or the first of those that are missing
	To      int64  `json:"to,omitempty"` // the last of those that are missing
	At      *Place `json:"at,omitempty"` // the record; nil of a hole
	// After and Before are the records around a hole; nil where there was none.
	After  *Place `json:"after,omitempty"`
	Before *Place `json:"before,omitempty"`
}

// String is a line for people.
func (f Finding) String() string {
	who := "contact " + f.Contact
	if f.Era > 0 {
		who += fmt.Sprintf(", era %d", f.Era)
	}
	switch f.Kind {
	case KindHole:
		missing := fmt.Sprintf("%d is missing", f.Seq)
		if f.To > f.Seq {
			missing = fmt.Sprintf("%d to %d are missing", f.Seq, f.To)
		}
		var around []string
		if f.After != nil {
			around = append(around, "after "+f.After.String())
		}
		if f.Before != nil {
			around = append(around, "before "+f.Before.String())
		}
		return fmt.Sprintf("%s: %s, %s", who, missing, strings.Join(around, " and "))
	case KindRepeat:
		return fmt.Sprintf("%s: %d stands again at %s", who, f.Seq, f.At)
	case KindDisorder:
		return fmt.Sprintf("%s: %d stands behind a higher number or era at %s", who, f.Seq, f.At)
	default:
		return fmt.Sprintf("%s: no number at %s, behind one that has one", who, f.At)
	}
}

// maxExamples is how many findings of each kind a report has.
const maxExamples = 5

// Report is what was seen.
type Report struct {
	Records    int64 `json:"records"`
	Contacts   int64 `json:"contacts"` // that have numbers
	Numbers    int64 `json:"numbers"`  // different ones, of all contacts
	Derived    int64 `json:"derived"`  // facts of other processors than contacts
	Unnumbered int64 `json:"unnumbered"`
	Foreign    int64 `json:"foreign"` // not keyed by a contact

	Missing  int64 `json:"missing"` // numbers in holes
	Repeated int64 `json:"repeated"`
	Disorder int64 `json:"disorder"`
	// Lost are records without a number behind one that has one.
	Lost int64 `json:"unnumberedBehindNumbered"`
	// Unproven are numbers that are missing at the beginning of a range that is cut:
	// whether they stand before it is not known.
	Unproven int64 `json:"unproven"`

	// Findings are the first few of each kind by their place.
	Findings []Finding `json:"findings"`

	// From is where the range of some partition begins at the latest; nil when both logs
	// are whole. Partitions is how many were read, Cut how many of them are not whole.
	From       *time.Time `json:"from"`
	Partitions int        `json:"partitions"`
	Cut        int        `json:"cut"`
	// Passes is how often a partition was read, at the most.
	Passes int `json:"passes"`
}

// Wrong says whether something is.
func (r *Report) Wrong() bool { return r.Missing+r.Repeated+r.Disorder+r.Lost > 0 }

// Err is nil when nothing is wrong, and else says what, with examples.
func (r *Report) Err() error {
	if !r.Wrong() {
		return nil
	}
	lines := []string{fmt.Sprintf("%d numbers missing, %d repeated, %d out of order, %d records unnumbered behind numbered ones", r.Missing, r.Repeated, r.Disorder, r.Lost)}
	for _, f := range r.Findings {
		lines = append(lines, f.String())
	}
	return errors.New(strings.Join(lines, "\n"))
}

// add counts a finding, and keeps it when it is among the first.
func (r *Report) add(f Finding, count int64) {
	switch f.Kind {
	case KindHole:
		r.Missing += count
	case KindRepeat:
		r.Repeated += count
	case KindDisorder:
		r.Disorder += count
	case KindUnnumbered:
		r.Lost += count
	}
	r.keep(f)
}

func (r *Report) keep(f Finding) {
	i, _ := slices.BinarySearchFunc(r.Findings, f, compareFindings)
	r.Findings = slices.Insert(r.Findings, i, f)
	of, last := 0, 0
	for i := range r.Findings {
		if r.Findings[i].Kind == f.Kind {
			of, last = of+1, i
		}
	}
	if of > maxExamples {
		r.Findings = slices.Delete(r.Findings, last, last+1)
	}
}

func compareFindings(a, b Finding) int {
	x, y := a.place(), b.place()
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(x.Partition, y.Partition), cmp.Compare(x.Offset, y.Offset),
		cmp.Compare(x.Topic, y.Topic), cmp.Compare(a.Contact, b.Contact), cmp.Compare(a.Seq, b.Seq))
}

// place is where somebody who looks into it begins.
func (f *Finding) place() Place {
	for _, p := range []*Place{f.At, f.Before, f.After} {
		if p != nil {
			return *p
		}
	}
	return Place{}
}

// Add adds what was seen elsewhere.
func (r *Report) Add(o Report) {
	r.Records += o.Records
	r.Contacts += o.Contacts
	r.Numbers += o.Numbers
	r.Derived += o.Derived
	r.Unnumbered += o.Unnumbered
	r.Foreign += o.Foreign
	r.Missing += o.Missing
	r.Repeated += o.Repeated
	r.Disorder += o.Disorder
	r.Lost += o.Lost
	r.Unproven += o.Unproven
	for _, f := range o.Findings {
		r.keep(f)
	}
}
