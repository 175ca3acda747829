package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream/order"
)

type topicsCheckOrderCmd struct {
	infraFlags
	From    string `help:"start, a time, a date, or how long ago it was such as 7d; start is the later of the two logs' starts." default:"start"`
	Contact string `help:"Only this contact, by its id."`
}

// errOrder is the outcome of a check that found something.
var errOrder = errors.New("the order is not what it must be: docs/order.md says what each finding means")

// Run judges the numbers of contacts on topics events and lifecycle.
func (c *topicsCheckOrderCmd) Run(ctx context.Context, out *output) error {
	opts, err := c.options(time.Now())
	if err != nil {
		return err
	}
	cfg, err := c.kafka()
	if err != nil {
		return err
	}
	kafka := cfg.StreamConfig()
	if kafka.Contents, err = cfg.Codec(); err != nil {
		return err
	}
	report, err := order.Check(ctx, kafka, opts, zap.NewNop())
	if err != nil {
		return err
	}
	err = out.value(report, func(w io.Writer) { printOrder(w, &report) })
	if err == nil && report.Wrong() {
		err = errOrder
	}
	return err
}

func (c *topicsCheckOrderCmd) options(now time.Time) (order.Options, error) {
	opts := order.Options{Contact: c.Contact}
	if c.Contact != "" && uuid.Validate(c.Contact) != nil {
		return opts, fmt.Errorf("--contact %q: is not a contact's id: `hogstream contacts get` shows it", c.Contact)
	}
	if c.From == "" || c.From == "start" || c.From == "earliest" {
		return opts, nil
	}
	t, ok := schemas.ParseMoment(c.From, now)
	if !ok {
		return opts, fmt.Errorf("--from %q: use start, %s: an offset means nothing over two topics", c.From, schemas.MomentForms)
	}
	opts.From = t
	return opts, nil
}

// printOrder is the report for people.
func printOrder(w io.Writer, r *order.Report) {
	fmt.Fprintf(w, "%d records on %d partitions: %d numbers of %d contacts\n", r.Records, r.Partitions, r.Numbers, r.Contacts)
	for _, other := range []struct {
		n    int64
		what string
	}{
		{r.Derived, "derived facts, which have no number"},
		{r.Unnumbered, "records from before numbering"},
		{r.Foreign, "records that are not keyed by a contact"},
		{r.Unproven, "numbers missing in the first minute of what was read, which may stand before it"},
	} {
		if other.n > 0 {
			fmt.Fprintf(w, "%d %s\n", other.n, other.what)
		}
	}
	if r.Cut > 0 {
		fmt.Fprintf(w, "%d partitions not from their beginning, the last of them from %s\n", r.Cut, r.From.Format(time.RFC3339))
	}
	if !r.Wrong() {
		fmt.Fprintln(w, "every number stands there once and in order")
		return
	}
	fmt.Fprintf(w, "\n%d numbers missing, %d repeated, %d out of order, %d records unnumbered behind numbered ones\n", r.Missing, r.Repeated, r.Disorder, r.Lost)
	for _, f := range r.Findings {
		fmt.Fprintf(w, "  %-10s  %s\n", f.Kind, f)
	}
}
