package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/hogstream/hogstream/explain"
)

type traceCmd struct {
	apiFlags
	Record string `arg:"" help:"Id of a record, or its place: topic-partition-offset, such as lifecycle-3-1204."`
}

// Run says what led to a record, and what it caused.
func (c *traceCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var t explain.Trace
	if err := api.call(ctx, http.MethodGet, "/v1/admin/trace/"+url.PathEscape(c.Record), nil, nil, &t); err != nil {
		return err
	}
	return out.value(&t, func(w io.Writer) { printTrace(w, &t) })
}

// printTrace draws a record between its causes and its effects: each below what caused it.
func printTrace(w io.Writer, t *explain.Trace) {
	var rows [][]string
	add := func(depth int, mark string, r *explain.Traced) {
		rows = append(rows, []string{mark, strings.Repeat("  ", depth) + r.Type, r.Bucket, placeWords(&r.Place), shownTime(r.Place.AppendedAt), r.ID})
	}
	for i, depth := len(t.Causes)-1, 0; i >= 0; i, depth = i-1, depth+1 {
		add(depth, "", &t.Causes[i])
	}
	add(len(t.Causes), "→", &t.Record)
	depths := map[string]int{t.Record.CauseID: len(t.Causes), t.Record.ID: len(t.Causes)} // facts of an input name that
	for i := range t.Effects {
		depths[t.Effects[i].ID] = depths[t.Effects[i].CauseID] + 1
		add(depths[t.Effects[i].ID], "", &t.Effects[i])
	}
	table(w, []string{"", "record", "bucket", "place", "appended", "id"}, rows)
	switch {
	case !t.Whole:
		fmt.Fprintln(w, "\nThere may be more that it caused: no more of the log was read.")
	case len(t.Effects) == 0:
		fmt.Fprintln(w, "\nIt caused nothing.")
	}
}
