package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/hogstream/hogstream/explain"
)

type bucketsUpcomingCmd struct {
	apiFlags
	Bucket string `arg:"" optional:"" help:"Id of a bucket; all of them without."`
	Within string `help:"From now on, such as 12h, 7d or 1d12h; a year at most." default:"7d"`
}

// Run says what time alone will do.
func (c *bucketsUpcomingCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	query := url.Values{"within": {c.Within}}
	setQuery(query, "bucket", c.Bucket)
	var u explain.Upcoming
	if err := api.call(ctx, http.MethodGet, "/v1/admin/upcoming", query, nil, &u); err != nil {
		return err
	}
	return out.value(&u, func(w io.Writer) { printUpcoming(w, &u) })
}

func printUpcoming(w io.Writer, u *explain.Upcoming) {
	leaves, rows := 0, make([][]string, 0, len(u.Buckets))
	for _, b := range u.Buckets {
		leaves += b.Leaves
		rows = append(rows, []string{b.BucketID, strconv.Itoa(b.Leaves), strconv.Itoa(b.Joins), shownTime(b.First)})
	}
	fmt.Fprintf(w, "%d leave until %s by time alone, if no record comes before\n", leaves, shownTime(u.Until))
	if !u.Whole {
		fmt.Fprintf(w, "(no further: that is when the last of %d contacts has something due)\n", u.Contacts)
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, []string{"bucket", "leave", "join", "first"}, rows)
	}
}
