package main

import (
	"context"
	"fmt"
	"io"

	"github.com/hogstream/hogstream/stream/replay"
)

// oneDestination names a destination.
type oneDestination struct {
	apiFlags
	ID string `arg:"" name:"destination" help:"Id or name of the destination."`
}

// post sends a change of the destination's state.
func (c *oneDestination) post(ctx context.Context, what string, body, result any) error {
	api, path, err := c.destination(ctx, c.ID)
	if err != nil {
		return err
	}
	return api.call(ctx, "POST", path+"/"+what, nil, body, result)
}

type destinationsPauseCmd struct {
	oneDestination
	Reason string `help:"Why; shown with the destination."`
}

// Run pauses a destination.
func (c *destinationsPauseCmd) Run(ctx context.Context, out *output) error {
	var d destination
	if err := c.post(ctx, "pause", map[string]any{"reason": c.Reason}, &d); err != nil {
		return err
	}
	return out.value(d, func(w io.Writer) {
		fmt.Fprintln(w, "paused at its place; nothing is lost before its topics' retention")
	})
}

type destinationsResumeCmd struct {
	oneDestination
	SkipToNow       bool `help:"Do not send what was appended meanwhile."`
	SkipUndelivered bool `help:"With --skip-to-now: make dead letters of what was not delivered yet. Without it, that is refused."`
}

// Run resumes a destination.
func (c *destinationsResumeCmd) Run(ctx context.Context, out *output) error {
	var d destination
	body := map[string]any{"skipToNow": c.SkipToNow, "skipUndelivered": c.SkipUndelivered}
	if err := c.post(ctx, "resume", body, &d); err != nil {
		return err
	}
	return out.value(d, func(w io.Writer) { fmt.Fprintln(w, "active") })
}

type destinationsSkipCmd struct {
	oneDestination
	SkipUndelivered bool `help:"Make dead letters of what was not delivered yet. Without it, that is refused."`
	DryRun          bool `help:"Only say what would be left out."`
	Yes             bool `help:"Do not ask." short:"y"`
}

// Run has a destination go on from now.
func (c *destinationsSkipCmd) Run(ctx context.Context, out *output) error {
	body := map[string]any{"skipUndelivered": c.SkipUndelivered, "dryRun": true}
	var r replay.Rewound
	if err := c.post(ctx, "skip", body, &r); err != nil {
		return err
	}
	if c.DryRun {
		return out.value(r, func(w io.Writer) { printSkip(w, &r, "would become") })
	}
	if !c.Yes {
		printSkip(stderr, &r, "would become")
		if err := confirm(ctx, fmt.Sprintf("Have %s go on from now?", c.ID)); err != nil {
			return err
		}
	}
	delete(body, "dryRun")
	if err := c.post(ctx, "skip", body, &r); err != nil {
		return err
	}
	return out.value(r, func(w io.Writer) { printSkip(w, &r, "become") })
}

func printSkip(w io.Writer, r *replay.Rewound, become string) {
	var n int64
	for _, m := range r.Positions {
		n += m.To - m.From
	}
	fmt.Fprintf(w, "%d offsets lie between the positions and the ends of the topics\n", n)
	printUndelivered(w, r, become)
}
